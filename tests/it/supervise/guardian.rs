//! A switching process that dies is followed by its guardian; where that died too, by the next command.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{DEAD, STEADY, Site, ended, wait_until};
use crate::support::Outcome;

tests![
    what_a_killed_switch_had_stopped_runs_again,
    a_version_whose_switch_was_killed_is_judged,
    an_operator_overrules_the_guardian,
    a_guardian_ends_with_its_switch_and_holds_nothing_of_its_starter,
    commands_that_read_report_what_a_killed_switch_left_and_start_nothing,
    commands_that_change_something_have_a_guardian_go_on,
    commands_that_end_the_trial_start_what_was_stopped,
    a_supervised_switch_restarts_what_another_had_stopped,
];

/// A site whose `api` stops before a switch, with `v1.1.0` current.
fn site(api: &str) -> Site {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    site.release("1.2.0", api);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    site
}

/// Starts a switch, and waits until `api` is stopped for it.
fn stopping(site: &Site, arguments: &[&str]) -> Child {
    std::fs::write(site.fixture.beside("rc/hold"), "").unwrap();
    let mut command = site.fixture.command();
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it is stopped", || !site.fixture.beside("rc/api.pid").exists());
    child
}

/// A switch to `v1.2.0` that died with its guardian while `api` was stopped.
fn left_alone(site: &Site) {
    let switch = stopping(site, &["activate", "1.2.0", "--restart"]);
    site.kill_guardians();
    kill(switch, Signal::KILL);
    std::fs::remove_file(site.fixture.beside("rc/hold")).unwrap();
    assert_eq!((site.current().as_str(), site.process("api")), ("v1.1.0", None));
}

fn kill(child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    ended(child);
}

#[track_caller]
fn runs_and_is_judged(site: &Site, version: &str) {
    wait_until("the trial is closed", || site.status()["trial"].is_null());
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), (version, Some(version)));
    assert!(site.process("web").is_some());
}

fn what_a_killed_switch_had_stopped_runs_again() -> Outcome {
    for arguments in [&["activate", "1.2.0", "--restart"][..], &["rollback", "--restart"]] {
        let site = site(STEADY);
        let switch = stopping(&site, arguments);
        kill(switch, Signal::KILL);
        // What the switch ordered last goes on, and must not stop what the guardian starts.
        wait_until("the guardian goes on", || site.status()["trial"]["watched"] == true);
        assert!(site.process("api").is_none());
        std::fs::remove_file(site.fixture.beside("rc/hold")).unwrap();
        runs_and_is_judged(&site, "v1.1.0");
        assert_eq!((site.state("1.1.0").as_str(), site.state("1.2.0").as_str()), ("good", ""));
        let last = std::fs::read_to_string(site.fixture.beside("rc/calls")).unwrap();
        let orders: Vec<&str> = last.lines().filter(|line| !line.starts_with("status")).collect();
        assert!(orders.ends_with(&["stop api v1.1.0", "start api v1.1.0"]), "{orders:?}");
    }
    Ok(())
}

fn a_version_whose_switch_was_killed_is_judged() -> Outcome {
    for (api, current, state) in [(STEADY, "v1.2.0", "good"), (DEAD, "v1.1.0", "bad")] {
        let site = site(api);
        let config = std::fs::read_to_string(site.fixture.config()).unwrap();
        // A watch during which there is time to kill it, unless the service is down.
        std::fs::write(site.fixture.config(), config.replace("300ms", "900ms")).unwrap();
        let switch = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
        kill(switch, Signal::KILL);
        runs_and_is_judged(&site, current);
        assert_eq!(site.state("1.2.0"), state);
        if api == DEAD {
            let told = site.told();
            assert_eq!(
                (told.len(), &told[0]["event"], &told[0]["version"]),
                (1, &"rolled-back".into(), &"v1.1.0".into())
            );
        }
    }
    Ok(())
}

fn an_operator_overrules_the_guardian() -> Outcome {
    for (arguments, current, state) in [
        (&["confirm"][..], "v1.2.0", "confirm"),
        (&["rollback"], "v1.1.0", "bad"),
        (&["rollback", "--restart"], "v1.1.0", "bad"),
    ] {
        let site = site(STEADY);
        let config = std::fs::read_to_string(site.fixture.config()).unwrap();
        std::fs::write(site.fixture.config(), config.replace("300ms", "50s")).unwrap();
        let switch = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
        kill(switch, Signal::INT);
        wait_until("the guardian watches", || site.status()["trial"]["watched"] == true);
        let said = site.run(&["status", "--verify", "none"]);
        assert!(said.stdout.contains("its guardian, process "), "{said:#?}");
        std::fs::write(site.fixture.config(), config).unwrap();
        site.run(arguments).ok();
        assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), (current, state));
        wait_until("the guardian is gone", || site.guardians().is_empty());
        assert_eq!((site.current().as_str(), &site.status()["trial"]), (current, &json!(null)));
    }
    Ok(())
}

fn a_guardian_ends_with_its_switch_and_holds_nothing_of_its_starter() -> Outcome {
    let site = site(STEADY);
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("300ms", "1500ms")).unwrap();
    let lock = site.fixture.beside("lock");
    let switch = site.fixture.command();
    let mut command = Command::new("sh");
    command.args(["-c", "lock=$0; exec 7>\"$lock\"; exec \"$@\""]).arg(&lock).arg(switch.get_program());
    command.args(switch.get_args()).args(["activate", "1.2.0", "--restart"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it is watched", || site.current() == "v1.2.0");
    let guardians = site.guardians();
    assert_eq!(guardians.len(), 1, "{guardians:?}");
    let of = |path: &str| format!("/proc/{}/{path}", guardians[0]);
    let open = std::fs::read_dir(of("fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|item| std::fs::read_link(item.path()).ok()).collect();
    assert!(!open.contains(&lock), "{open:?}");
    assert_eq!(open.iter().filter(|path| path.as_os_str() == "/dev/null").count(), 3, "{open:?}");
    assert!(!open.iter().any(|path| path.to_string_lossy().contains("lock")), "{open:?}");
    assert_eq!(std::fs::read_link(of("cwd")).unwrap().to_str(), Some("/"));
    // Its own session, and at the head of it.
    let stat = std::fs::read_to_string(of("stat")).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, guardians[0].to_string());
    ended(child).ok();
    wait_until("the guardian is gone", || site.guardians().is_empty());
    Ok(())
}

fn commands_that_read_report_what_a_killed_switch_left_and_start_nothing() -> Outcome {
    let site = site(STEADY);
    left_alone(&site);
    for reading in [
        &["status"][..],
        &["list"],
        &["doctor"],
        &["history"],
        &["who"],
        &["verify", "--quick"],
        &["du"],
        &["gc", "--keep-last", "3", "--dry-run"],
        &["remove", "1.0.0", "--dry-run"],
        &["show", "current"],
    ] {
        let ran = site.run(reading);
        assert!(!ran.stderr.contains("guardian"), "{reading:?}: {ran:#?}");
        assert_eq!((site.process("api"), site.guardians()), (None, Vec::new()), "{reading:?}");
    }
    let status = site.run(&["status"]).ok();
    assert!(status.stdout.contains("nobody watches it"), "{status:#?}");
    assert_eq!(site.json(&["boot-check"], 0)["reason"], "the switch was never made; api ordered to start");
    runs_and_is_judged(&site, "v1.1.0");
    Ok(())
}

fn commands_that_change_something_have_a_guardian_go_on() -> Outcome {
    for changing in
        [&["pin", "1.0.0"][..], &["gc", "--keep-last", "9"], &["import", "source-1.2.0", "--version", "1.3.0"]]
    {
        let site = site(STEADY);
        left_alone(&site);
        let mut command = site.fixture.command();
        let ran = command.current_dir(&site.fixture.dir).args(changing).output().unwrap();
        let ran = crate::support::Ran::of(&ran).ok();
        let said = "the process that watched v1.2.0 on trial died: a guardian starts what it had stopped";
        assert!(ran.stderr.contains(said), "{ran:#?}");
        runs_and_is_judged(&site, "v1.1.0");
        assert!(site.run(&["note", "1.0.0", "seen"]).ok().stderr.is_empty());
    }
    Ok(())
}

fn commands_that_end_the_trial_start_what_was_stopped() -> Outcome {
    for (ending, version) in [
        (&["rollback"][..], "v1.0.0"),
        (&["activate", "1.2.0"], "v1.2.0"),
        (&["boot-check", "--count"], "v1.1.0"),
        (&["boot-check", "--judge"], "v1.1.0"),
    ] {
        let site = site(STEADY);
        left_alone(&site);
        site.run(ending).ok();
        assert_eq!(
            (site.current().as_str(), site.version_of("api").as_deref()),
            (version, Some(version)),
            "{ending:?}"
        );
        assert_eq!(site.status()["trial"], json!(null), "{ending:?}");
    }
    // A version that is accepted while its services are stopped.
    let site = site(STEADY);
    let switch = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    site.kill_guardians();
    kill(switch, Signal::KILL);
    site.stop();
    site.run(&["confirm"]).ok();
    assert_eq!((site.version_of("api").as_deref(), site.state("1.2.0").as_str()), (Some("v1.2.0"), "confirm"));
    Ok(())
}

fn a_supervised_switch_restarts_what_another_had_stopped() -> Outcome {
    for (switching, version) in [
        (&["activate", "1.1.0", "--restart"][..], "v1.1.0"),
        (&["activate", "1.2.0", "--restart"], "v1.2.0"),
        (&["rollback", "--restart"], "v1.0.0"),
    ] {
        let site = site(STEADY);
        left_alone(&site);
        site.run(switching).ok();
        assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), (version, Some(version)));
        assert_eq!(site.status()["trial"], json!(null));
    }
    Ok(())
}
