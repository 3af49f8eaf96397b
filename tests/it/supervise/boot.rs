//! What a boot does about a trial that was cut off.

use serde_json::json;
use tope_store::model::Trial;
use tope_store::model::lenient::{Unknown, Word};

use super::{DEAD, STEADY, Site};
use crate::support::Outcome;

tests![
    a_version_whose_watcher_was_killed_is_judged_at_boot,
    three_boots_are_counted_and_the_fourth_goes_back,
    boots_without_an_end_lead_from_level_to_level,
    a_trial_that_never_switched_is_dropped,
    a_decision_that_was_written_down_is_carried_out,
    a_trial_that_cannot_be_read_counts_as_failed,
    a_blank_trial_behind_a_switch_that_was_not_recorded_is_dropped,
    a_watched_trial_is_left_alone,
];

/// A site that runs `v1.1.0`, and a release `v1.2.0` that does this.
fn site(api: &str) -> Site {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    site.release("1.2.0", api);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    site
}

/// Puts a trial there as a power cut left it: of another boot, its watcher gone.
fn cut_off(site: &Site, change: impl FnOnce(&mut Trial)) {
    let mut trial = Trial {
        id: "1-1-1".into(),
        begun: Word::Known(tope_store::model::trial::Begun::Activation),
        version: "v1.2.0".parse().unwrap(),
        digest: digest(site, "1.2.0"),
        from: Some("v1.1.0".parse().unwrap()),
        current: "v1.2.0".parse().unwrap(),
        level: 0,
        restart: Word::Known(tope_store::model::trial::Restart::Changed),
        units: vec!["api".into()],
        ordered: false,
        attempts: 0,
        boot: "another".into(),
        watcher: tope_store::model::trial::Watcher { pid: 1, started: 1, boot: "another".into(), guardian: false },
        failures: Vec::new(),
        unknown: Unknown::new(),
    };
    change(&mut trial);
    std::fs::write(site.fixture.path("store/trial"), trial.to_line()).unwrap();
}

fn digest(site: &Site, version: &str) -> Option<tope_store::model::Digest> {
    site.fixture.json(&["show", version])["digest"].as_str().and_then(|text| text.parse().ok())
}

/// As if the device had booted since: the trial was last counted in another boot, and nothing runs yet.
fn reboot(site: &Site) {
    site.stop();
    let path = site.fixture.path("store/trial");
    let mut trial = Trial::parse(&std::fs::read(&path).unwrap()).unwrap();
    (trial.boot, trial.watcher.boot) = ("another".into(), "another".into());
    std::fs::write(path, trial.to_line()).unwrap();
}

fn a_version_whose_watcher_was_killed_is_judged_at_boot() -> Outcome {
    let cases = [(STEADY, 0, "v1.2.0", "good"), (DEAD, 7, "v1.1.0", "bad")];
    for (rebooted, (api, code, current, state)) in
        [(true, cases[0]), (true, cases[1]), (false, cases[0]), (false, cases[1])]
    {
        let site = site(api);
        // The long watch of a service that needs a while.
        let config = std::fs::read_to_string(site.fixture.config()).unwrap();
        std::fs::write(site.fixture.config(), config.replace("300ms", "50s")).unwrap();
        let mut watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
        // As if both had died in a power cut.
        site.kill_guardians();
        watching.kill().unwrap();
        watching.wait().unwrap();
        std::fs::write(site.fixture.config(), config).unwrap();
        if rebooted {
            reboot(&site);
        }
        assert!(site.doctor(1).contains(&"trial-unwatched".to_owned()));
        let counted = site.json(&["boot-check", "--count"], 0);
        assert_eq!((&counted["trial"], &counted["attempts"]), (&"counted".into(), &i32::from(rebooted).into()));
        let judged = site.json(&["boot-check", "--judge"], code);
        assert_eq!((&judged["trial"], &judged["version"]), (&"judged".into(), &current.into()));
        assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), (current, state));
        assert_eq!(site.version_of("api").as_deref(), Some(current));
        assert_eq!(site.json(&["boot-check"], 0)["trial"], "none");
    }
    Ok(())
}

fn three_boots_are_counted_and_the_fourth_goes_back() -> Outcome {
    let site = site(STEADY);
    site.run(&["activate", "1.2.0"]).ok();
    cut_off(&site, |_| {});
    for attempt in 1..=3 {
        for again in 0..2 {
            assert!(site.doctor(1).contains(&"trial-unwatched".to_owned()));
            let counted = site.json(&["boot-check", "--count"], 0);
            assert_eq!(counted["attempts"], attempt, "a boot counts once, however often it is asked: {again}");
        }
        reboot(&site);
    }
    let back = site.json(&["boot-check", "--count"], 7);
    assert_eq!((&back["trial"], &back["version"], &back["level"]), (&"went-back".into(), &"v1.1.0".into(), &1.into()));
    assert_eq!(back["evidence"]["detail"], "3 boots ended before it had proven itself");
    assert_eq!(site.current(), "v1.1.0");
    assert_eq!(site.told().last().unwrap()["event"], "rolled-back");
    // What was gone back to is on trial itself; that it holds is why the other is bad.
    assert_eq!(site.state("1.2.0"), "");
    assert_eq!(site.json(&["boot-check", "--judge"], 7)["switch"]["outcome"], "rolled-back");
    assert_eq!((site.state("1.2.0").as_str(), &site.status()["trial"]), ("bad", &json!(null)));
    Ok(())
}

/// Neither version brings the device up.
fn boots_without_an_end_lead_from_level_to_level() -> Outcome {
    let site = site(STEADY);
    site.run(&["activate", "1.2.0"]).ok();
    cut_off(&site, |_| {});
    let mut seen = vec![site.current()];
    for _ in 0..12 {
        site.run(&["boot-check", "--count"]);
        seen.push(site.current());
        if site.status()["trial"].is_null() {
            break;
        }
        reboot(&site);
    }
    seen.dedup();
    assert_eq!(seen, ["v1.2.0", "v1.1.0", "v1.0.0"]);
    let status = site.status();
    assert_eq!((&status["trial"], &status["degraded"]["version"]), (&json!(null), &"v1.0.0".into()));
    Ok(())
}

fn a_trial_that_never_switched_is_dropped() -> Outcome {
    let site = site(STEADY);
    cut_off(&site, |_| {});
    let dropped = site.json(&["boot-check"], 0);
    assert_eq!((&dropped["trial"], &dropped["reason"]), (&"dropped".into(), &"the switch was never made".into()));
    assert_eq!((site.current().as_str(), &site.status()["trial"]), ("v1.1.0", &json!(null)));
    // One that belongs to nothing that is here any longer goes as well.
    cut_off(&site, |trial| trial.from = Some("v0.9.0".parse().unwrap()));
    assert_eq!(site.json(&["boot-check"], 0)["reason"], "somebody else switched");
    Ok(())
}

/// Cut off between writing down where to go and going there.
fn a_decision_that_was_written_down_is_carried_out() -> Outcome {
    let site = site(STEADY);
    site.run(&["activate", "1.2.0"]).ok();
    cut_off(&site, |trial| {
        let evidence = tope_store::model::event::Evidence { check: "http".into(), ..Default::default() };
        let version = trial.current.clone();
        trial.failures.push(tope_store::model::trial::Failure {
            version,
            evidence,
            standing_units: 1,
            unknown: Unknown::new(),
        });
        (trial.current, trial.level) = ("v1.1.0".parse().unwrap(), 1);
    });
    let back = site.json(&["boot-check", "--count"], 7);
    assert_eq!((&back["version"], &back["evidence"]["check"]), (&"v1.1.0".into(), &"http".into()));
    site.json(&["boot-check", "--judge"], 7);
    assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), ("v1.1.0", "bad"));
    Ok(())
}

fn a_trial_that_cannot_be_read_counts_as_failed() -> Outcome {
    let site = site(STEADY);
    site.run(&["activate", "1.2.0"]).ok();
    std::fs::write(site.fixture.path("store/trial"), "\0\0\0").unwrap();
    assert!(site.status()["trial"]["unreadable"].is_string());
    let back = site.json(&["boot-check", "--count"], 7);
    assert_eq!((&back["from"], &back["version"]), (&"v1.2.0".into(), &"v1.1.0".into()));
    site.json(&["boot-check", "--judge"], 7);
    // A version that is known to be good has nothing to prove.
    std::fs::write(site.fixture.path("store/trial"), "").unwrap();
    assert_eq!(site.json(&["boot-check", "--count"], 0)["trial"], "dropped");
    assert_eq!(site.current(), "v1.1.0");
    Ok(())
}

/// The power went while an operator went back: the switch reached the medium, and neither its record nor its trial.
fn a_blank_trial_behind_a_switch_that_was_not_recorded_is_dropped() -> Outcome {
    for (left, dropped) in [("", true), ("\0\0\0", true), ("noise", false)] {
        let site = site(STEADY);
        site.release("1.3.0", STEADY);
        // Known to be good is none but 1.1.0.
        site.run(&["activate", "1.3.0"]).ok();
        let current = site.fixture.path("versions/current");
        std::fs::remove_file(&current).unwrap();
        std::os::unix::fs::symlink("v1.2.0", &current).unwrap();
        std::fs::write(site.fixture.path("store/trial"), left).unwrap();
        let checked = site.json(&["boot-check", "--count"], if dropped { 0 } else { 7 });
        assert_eq!(checked["trial"], if dropped { "dropped" } else { "went-back" }, "{left:?}");
        assert_eq!(site.current() == "v1.2.0", dropped, "{left:?}");
        assert_eq!(site.fixture.path("store/trial").exists(), !dropped, "{left:?}");
    }
    Ok(())
}

fn a_watched_trial_is_left_alone() -> Outcome {
    let site = site(STEADY);
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("300ms", "20s")).unwrap();
    let mut watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    for arguments in [&["boot-check", "--count"][..], &["boot-check", "--judge"], &["boot-check"]] {
        assert_eq!(site.json(arguments, 0)["trial"], "watched");
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
    Ok(())
}
