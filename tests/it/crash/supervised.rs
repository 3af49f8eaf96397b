//! A supervised switch gets a signal before any of its calls, from its first stop of a service to its end.
//!
//! What must hold: without any further command the services run in the end, on the version that is current, and no trial is
//! left open; and what the switch answers, if it still does, is what happened.

use std::cell::Cell;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::sample::Plan;
use super::trace::{Call, run_signalled};
use crate::supervise::{DEAD, STEADY, Site, wait_until};
use crate::support::{Outcome, Ran};

/// What kills a process, or asks it to end.
const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::HUP, Signal::INT, Signal::TERM];
/// How many points of each switch are tried unless told otherwise.
const USUAL: usize = 4;

pub fn tests() -> Vec<Trial> {
    let trial = |name: &'static str, api: &'static str, arguments: &'static [&'static str]| {
        super::trial(&format!("supervised::{name}"), move || whole(name, api, arguments))
    };
    vec![
        trial("activate", STEADY, &["activate", "1.2.0", "--restart"]),
        trial("activate-what-fails", DEAD, &["activate", "1.2.0", "--restart"]),
        trial("rollback", STEADY, &["rollback", "--restart", "--not-bad"]),
    ]
}

/// A site with two versions before the one that is tried, and short watches.
fn site(api: &str) -> Site {
    let site = Site::with("stop_first = true");
    let config = std::fs::read_to_string(site.fixture.config()).expect("a configuration");
    std::fs::write(site.fixture.config(), config.replace("300ms", "60ms")).expect("a configuration");
    let site = site.begun();
    site.release("1.1.0", STEADY);
    site.release("1.2.0", api);
    site
}

/// Everything as it was before the first switch.
fn reset(site: &Site) {
    site.kill_guardians();
    for arguments in [
        &["confirm", "1.2.0"][..],
        &["activate", "1.0.0", "--restart=all", "--force"],
        &["activate", "1.1.0", "--restart=all", "--force"],
    ] {
        site.run(arguments).ok();
    }
    std::fs::remove_file(site.fixture.beside("rc/calls")).expect("orders");
}

/// Runs the switch; before the call of this number behind its first stop of a service, it gets the signal. Gives how many
/// calls there were.
fn switched(site: &Site, arguments: &[&str], point: usize, signal: Option<Signal>) -> (Ran, usize) {
    let calls = site.fixture.beside("rc/calls");
    let (stopped, number) = (Cell::new(false), Cell::new(0));
    let ran = run_signalled(site.fixture.command().arg("--json").args(arguments), &mut || {
        if !stopped.get() {
            stopped.set(std::fs::read_to_string(&calls).is_ok_and(|calls| calls.contains("stop api")));
            return None;
        }
        number.set(number.get() + 1);
        signal.filter(|_| number.get() == point + 1).map(Signal::as_raw)
    });
    (ran, number.get())
}

fn whole(name: &str, api: &str, arguments: &[&str]) -> Outcome {
    let site = site(api);
    reset(&site);
    let (reference, count) = switched(&site, arguments, 0, None);
    let all: Vec<Call> =
        (0..count).map(|number| Call { name: "call", path: format!("{number} behind the first stop") }).collect();
    let plan = Plan::sampled("supervised", name, &all, USUAL);
    for point in plan.points() {
        for signal in SIGNALS {
            reset(&site);
            let (ran, _) = switched(&site, arguments, point, Some(signal));
            let when = format!("{name}, signal {signal:?} before {}: {ran:#?}", all[point]);
            // It comes to an end by itself, or it is killed, and at most one call later by a second thread.
            match ran.code {
                -9 => assert_eq!(signal, Signal::KILL, "{when}"),
                130 => assert!(matches!(signal, Signal::INT | Signal::TERM), "{when}"),
                code => assert_eq!(code, reference.code, "{when}"),
            }
            if ran.code == 130 && ran.json()["error"].is_null() {
                crate::documents::assert_documented(arguments[0], &ran.json());
                assert_eq!(ran.json()["outcome"], "interrupted", "{when}");
            }
            wait_until(&when, || site.guardians().is_empty() && site.status()["trial"].is_null());
            let current = site.current();
            let version = |unit: &str| site.version_of(unit).unwrap_or_else(|| panic!("{unit} does not run: {when}"));
            assert_eq!(version("api"), current, "{when}");
            assert!(site.process("web").is_some(), "{when}");
            let bad = if api == DEAD && current == "v1.2.0" { "what fails stays current" } else { "" };
            assert_eq!(bad, "", "{when}");
            // Nothing that was ordered runs twice.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(site.instances("api"), 1, "{when}");
        }
    }
    plan.done();
    Ok(())
}
