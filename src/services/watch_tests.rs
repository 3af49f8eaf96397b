//! Watching units whose fate is written down.

use super::*;
use crate::config::CommandProbe;
use crate::error::{Error, Result};
use crate::services::Patience;

/// A manager whose units do what a function of the time since the start says.
struct Fated<F> {
    begun: Instant,
    tells_starting: bool,
    fate: F,
}

impl<F: Fn(&str, u128) -> UnitState + Sync> ServiceManager for Fated<F> {
    fn name(&self) -> &'static str {
        "fated"
    }

    fn tells_starting(&self) -> bool {
        self.tells_starting
    }

    fn states(&self, units: &[String], _: Duration) -> Result<Vec<UnitState>> {
        let elapsed = self.begun.elapsed().as_millis();
        Ok(units.iter().map(|unit| (self.fate)(unit, elapsed)).collect())
    }

    fn start(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        Ok(())
    }

    fn stop(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        Ok(())
    }

    fn restart(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        Ok(())
    }

    fn log(&self, unit: &str, _: usize) -> Vec<String> {
        vec![format!("log of {unit}")]
    }
}

fn state(activity: Activity, invocation: &str) -> UnitState {
    let invocation = Some(invocation.to_owned());
    UnitState { unit: "u".into(), activity, invocation, restarts: 0, detail: String::new(), exit_code: None }
}

fn service(unit: &str, settle: u64, timeout: u64) -> Service {
    let (settle, timeout) = (Duration::from_millis(settle), Duration::from_millis(timeout));
    Service { settle, timeout, ..Service::of(unit) }
}

fn judged(services: &[Service], tells_starting: bool, fate: impl Fn(&str, u128) -> UnitState + Sync) -> Vec<Judgement> {
    let begun = Instant::now();
    let verdicts = watch(&Fated { begun, tells_starting, fate }, services, &|_| false, begun, &|| true);
    verdicts.into_iter().map(|verdict| verdict.judgement).collect()
}

/// The check and the detail of a failure.
fn failure(judgement: &Judgement) -> (&str, &str) {
    match judgement {
        Judgement::Failed(evidence) => (&evidence.check, &evidence.detail),
        other => panic!("{other:?}"),
    }
}

const LONG: u64 = 600_000;

#[test]
fn units_that_come_up_and_stay_up_pass() {
    let services = [service("a", 0, LONG), service("b", 50, LONG)];
    let fate = |_: &str, elapsed| state(if elapsed < 20 { Activity::Changing } else { Activity::Active }, "1");
    assert_eq!(judged(&services, true, fate), [Judgement::Passed, Judgement::Passed]);
    assert_eq!(judged(&[], true, fate), []);
}

#[test]
fn what_is_certain_is_not_waited_for_and_leaves_the_others_open() {
    let services = [service("good", 300_000, LONG), service("bad", 300_000, LONG)];
    let fails = |bad: UnitState| {
        let verdicts = judged(&services, true, move |unit, elapsed| match unit {
            "bad" if elapsed >= 20 => bad.clone(),
            _ => state(Activity::Active, "1"),
        });
        assert_eq!(verdicts[0], Judgement::Open);
        failure(&verdicts[1]).1.to_owned()
    };
    assert_eq!(fails(state(Activity::Active, "2")), "it ended and was started again");
    assert_eq!(fails(UnitState { restarts: 1, ..state(Activity::Active, "1") }), "it ended and was started again");
    assert_eq!(
        fails(UnitState { detail: "signal".into(), ..state(Activity::Failed, "1") }),
        "it did not stay up: signal"
    );
    assert_eq!(fails(state(Activity::Inactive, "1")), "it did not stay up");
    assert_eq!(fails(state(Activity::Changing, "1")), "it did not stay up");
    assert_eq!(fails(state(Activity::Absent, "1")), "there is no such unit");
}

#[test]
fn a_unit_whose_condition_is_not_met_passes_unless_it_ran_before() {
    let services = [asked("exit 1", 300_000, LONG)];
    for (ran, expected) in [(false, None), (true, Some("it ran before, and a condition of its unit is not met now"))] {
        let begun = Instant::now();
        let fate = |_: &str, elapsed| state(if elapsed < 20 { Activity::Changing } else { Activity::Skipped }, "");
        let verdicts = watch(&Fated { begun, tells_starting: true, fate }, &services, &|_| ran, begun, &|| true);
        assert_eq!(verdicts[0].failure().map(|evidence| evidence.detail.as_str()), expected);
        assert_eq!(verdicts[0].passed(), !ran);
    }
    let stops = |_: &str, elapsed| state(if elapsed < 20 { Activity::Active } else { Activity::Skipped }, "1");
    assert_eq!(failure(&judged(&services, true, stops)[0]).1, "it did not stay up");
}

#[test]
fn a_unit_that_never_comes_up_fails_with_its_log() {
    let verdicts = judged(&[service("a", 0, 60)], true, |_, _| state(Activity::Changing, "1"));
    let evidence = Evidence {
        check: "unit a".into(),
        detail: "it did not come up within 60ms".into(),
        exit_code: None,
        log: vec!["log of a".into()],
    };
    assert_eq!(verdicts, [Judgement::Failed(evidence)]);
    let verdicts = judged(&[service("a", 0, LONG)], true, |_, _| state(Activity::Inactive, "1"));
    assert_eq!(failure(&verdicts[0]).1, "it is not running");
}

#[test]
fn a_unit_that_may_come_yet_is_given_grace() {
    let late = |_: &str, elapsed| state(if elapsed < 200 { Activity::Inactive } else { Activity::Active }, "1");
    assert_eq!(judged(&[service("a", 0, LONG)], false, late), [Judgement::Passed]);
    let verdicts = judged(&[service("a", 0, LONG)], false, |_, _| state(Activity::Inactive, "1"));
    assert_eq!(failure(&verdicts[0]).1, "it is not running");
}

fn asked(script: &str, settle: u64, timeout: u64) -> Service {
    let command = ["sh", "-c", script].map(str::to_owned).into();
    let command = Some(CommandProbe { command, timeout: Duration::from_secs(20) });
    Service { command, ..service("a", settle, timeout) }
}

#[test]
fn a_probe_is_tried_until_it_succeeds_or_the_time_is_over() {
    let active = |_: &str, _| state(Activity::Active, "1");
    let temporary = tempfile::tempdir().unwrap();
    // The third attempt succeeds.
    let script = format!("cd {}; echo >>tries; test $(wc -l <tries) -ge 3", temporary.path().display());
    assert_eq!(judged(&[asked(&script, 0, LONG)], true, active), [Judgement::Passed]);
    let verdicts = judged(&[asked("echo no disk; exit 3", 0, 700)], true, active);
    let Judgement::Failed(evidence) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((evidence.check.as_str(), evidence.exit_code), ("command sh -c echo no disk; exit 3", Some(3)));
    assert_eq!(evidence.detail, "it ended with exit code 3 (within 700ms)");
    assert_eq!(evidence.log, ["no disk", "log of a"]);
    // The second attempt has no time to end.
    let script =
        format!("cd {}; echo >>more; test $(wc -l <more) -lt 2 || sleep 600; exit 4", temporary.path().display());
    let verdicts = judged(&[asked(&script, 0, 700)], true, active);
    assert_eq!(failure(&verdicts[0]).1, "it ended with exit code 4 (within 700ms)");
    let verdicts = judged(&[asked("sleep 600", 0, 200)], true, active);
    assert!(failure(&verdicts[0]).0.starts_with("command sh"), "{verdicts:?}");
}

#[test]
fn a_probe_that_succeeded_early_must_succeed_again_at_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    let script = format!("cd {}; echo >>tries; test $(wc -l <tries) -lt 2", temporary.path().display());
    let verdicts = judged(&[asked(&script, 1500, 2500)], true, |_, _| state(Activity::Active, "1"));
    assert_eq!(failure(&verdicts[0]).1, "it ended with exit code 1 (within 2s500ms)");
}

#[test]
fn a_watch_can_be_broken_off_and_outlives_a_manager_that_is_away() {
    struct Away(Instant);
    impl ServiceManager for Away {
        fn name(&self) -> &'static str {
            "away"
        }
        fn tells_starting(&self) -> bool {
            true
        }
        fn states(&self, units: &[String], _: Duration) -> Result<Vec<UnitState>> {
            if self.0.elapsed() < Duration::from_millis(50) {
                return Err(Error::Services { manager: "away", problem: "gone".into() });
            }
            Ok(units.iter().map(|_| state(Activity::Active, "1")).collect())
        }
        fn start(&self, _: &[String], _: Patience<'_>) -> Result<()> {
            Ok(())
        }
        fn stop(&self, _: &[String], _: Patience<'_>) -> Result<()> {
            Ok(())
        }
        fn restart(&self, _: &[String], _: Patience<'_>) -> Result<()> {
            Ok(())
        }
        fn log(&self, _: &str, _: usize) -> Vec<String> {
            Vec::new()
        }
    }
    let begun = Instant::now();
    assert!(watch(&Away(begun), &[service("a", 0, LONG)], &|_| true, begun, &|| true)[0].passed());
    let begun = Instant::now();
    let verdicts = watch(&Away(begun), &[service("a", 0, 30)], &|_| true, begun, &|| true);
    assert_eq!(failure(&verdicts[0].judgement), ("unit a", "away: gone"));
    let keep_on = || begun.elapsed() < Duration::from_millis(100);
    let verdicts = watch(&Away(begun), &[service("a", 300_000, LONG)], &|_| true, begun, &keep_on);
    assert_eq!(verdicts[0].judgement, Judgement::Open);
}
