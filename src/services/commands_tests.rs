//! Plain commands as a service manager.

#![allow(clippy::disallowed_methods, reason = "tests set the scene with whatever serves")]

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn commands(dir: &std::path::Path) -> Commands {
    let sh = |script: String| vec!["sh".to_owned(), "-c".to_owned(), script, "{unit}".to_owned()];
    let dir = dir.display();
    let start = format!("echo starting $0; test $0 != broken || exit 4; touch {dir}/$0");
    Commands::new(Templates {
        start: sh(start.clone()),
        stop: sh(format!("rm {dir}/$0")),
        restart: sh(start),
        status: sh(format!("test -e {dir}/$0")),
    })
}

#[test]
fn units_are_started_stopped_and_looked_at_by_commands() {
    let temporary = tempfile::tempdir().unwrap();
    let manager = commands(temporary.path());
    let units = ["broken", "api"].map(str::to_owned);
    let states = |manager: &Commands| {
        let states = manager.states(&units, LONG).unwrap().into_iter();
        states.map(|state| (state.activity, state.exit_code, state.detail)).collect::<Vec<_>>()
    };
    let down = (Activity::Inactive, None, "the status command: it ended with exit code 1".to_owned());
    assert_eq!(states(&manager), [down.clone(), down.clone()]);
    manager.restart(&units, Patience::of(LONG)).unwrap();
    let failed = "the restart command failed: it ended with exit code 4".to_owned();
    assert_eq!(states(&manager), [(Activity::Failed, Some(4), failed), (Activity::Active, None, String::new())]);
    assert_eq!(manager.log("broken", 5), ["starting broken"]);
    manager.stop(&units[1..], Patience::of(LONG)).unwrap();
    assert_eq!(states(&manager)[1], down);
}

#[test]
fn a_service_that_keeps_the_output_of_its_start_is_told_apart() {
    let temporary = tempfile::tempdir().unwrap();
    let mut manager = commands(temporary.path());
    let start = |manager: &mut Commands, script: &str| {
        manager.templates.start = ["sh", "-c", script].map(str::to_owned).into();
        manager.start(&["api".to_owned()], Patience::of(LONG)).unwrap();
        manager.log("api", 5)
    };
    assert!(start(&mut manager, "sleep 5 & echo up").pop().unwrap().contains("SIGPIPE"));
    assert_eq!(start(&mut manager, "echo up; exec >/dev/null 2>&1; sleep 5 &"), ["up"]);
}

#[test]
fn a_start_that_takes_too_long_has_failed() {
    let temporary = tempfile::tempdir().unwrap();
    let mut manager = commands(temporary.path());
    manager.templates.start = ["sleep", "600"].map(str::to_owned).into();
    let units = ["api".to_owned()];
    manager.start(&units, Patience::of(Duration::from_millis(100))).unwrap();
    let state = manager.states(&units, LONG).unwrap().remove(0);
    let expected = "the start command failed: it took too long and was killed";
    assert_eq!((state.activity, state.detail.as_str()), (Activity::Failed, expected));
}

/// Templates that do what these scripts say, with the unit as `$0`.
fn scripted(start: &str, stop: &str, restart: &str, status: &str) -> Commands {
    let sh = |script: &str| ["sh", "-c", script, "{unit}"].map(str::to_owned).to_vec();
    Commands::new(Templates { start: sh(start), stop: sh(stop), restart: sh(restart), status: sh(status) })
}

fn only(manager: &Commands) -> (Activity, String, Option<i32>) {
    let state = manager.states(&["api".to_owned()], LONG).unwrap().remove(0);
    (state.activity, state.detail, state.exit_code)
}

#[test]
fn a_restart_that_fails_is_a_failure_although_the_process_of_before_runs_on() {
    let units = ["api".to_owned()];
    for (script, limit, why, code) in [
        ("echo no; exit 1", LONG, "it ended with exit code 1", Some(1)),
        ("echo no; kill -SEGV $$", LONG, "it was killed by signal 11", None),
        ("echo no; sleep 600", Duration::from_millis(300), "it took too long and was killed", None),
    ] {
        let manager = scripted("exit 0", "exit 0", script, "exit 0");
        assert_eq!(only(&manager).0, Activity::Active);
        manager.restart(&units, Patience::of(limit)).unwrap();
        assert_eq!(only(&manager), (Activity::Failed, format!("the restart command failed: {why}"), code));
        assert_eq!(manager.log("api", 5), ["no"]);
        // A later order that goes well is what counts.
        manager.start(&units, Patience::of(LONG)).unwrap();
        assert_eq!(only(&manager), (Activity::Active, String::new(), None));
    }
    let mut manager = scripted("exit 0", "exit 0", "exit 0", "exit 0");
    manager.templates.restart = vec!["/none/restart".into()];
    manager.restart(&units, Patience::of(LONG)).unwrap_err();
    assert_eq!(only(&manager).0, Activity::Failed);
}

#[test]
fn a_start_that_fails_is_a_failure_unless_the_unit_ran_before() {
    let units = ["api".to_owned()];
    let failed = (Activity::Failed, "the start command failed: it ended with exit code 1".to_owned(), Some(1));
    // It finds itself running.
    let manager = scripted("exit 1", "exit 0", "exit 0", "exit 0");
    manager.start(&units, Patience::of(LONG)).unwrap();
    assert_eq!(only(&manager).0, Activity::Active);
    // It was stopped, as far as its own command knows, and something answers all the same.
    manager.stop(&units, Patience::of(LONG)).unwrap();
    manager.start(&units, Patience::of(LONG)).unwrap();
    assert_eq!(only(&manager), failed);
    let temporary = tempfile::tempdir().unwrap();
    let up = temporary.path().join("up").display().to_string();
    let manager = scripted(&format!("touch {up}; exit 1"), "exit 0", "exit 0", &format!("test -e {up}"));
    manager.start(&units, Patience::of(LONG)).unwrap();
    assert_eq!(only(&manager), failed);
    // One that hangs has not left as it is what runs.
    let manager = scripted("sleep 600", "exit 0", "exit 0", "exit 0");
    manager.start(&units, Patience::of(Duration::from_millis(300))).unwrap();
    assert_eq!(only(&manager).0, Activity::Failed);
}

#[test]
fn a_stop_that_fails_is_told_where_the_unit_runs_on() {
    let units = ["api".to_owned()];
    let manager = scripted("exit 0", "exit 1", "exit 0", "exit 0");
    manager.stop(&units, Patience::of(LONG)).unwrap();
    let stuck = "the stop command failed: it ended with exit code 1".to_owned();
    assert_eq!(only(&manager), (Activity::Active, stuck, None));
    let manager = scripted("exit 0", "exit 1", "exit 0", "exit 3");
    manager.stop(&units, Patience::of(LONG)).unwrap();
    assert_eq!(only(&manager).1, "the status command: it ended with exit code 3");
}

#[test]
fn status_commands_that_hang_share_one_limit_and_are_killed_with_all_they_started() {
    let temporary = tempfile::tempdir().unwrap();
    let pids = temporary.path().display().to_string();
    let script = format!("test $0 = good && exit 0; sleep 600 & echo $! >{pids}/$0; wait");
    let manager = scripted("exit 0", "exit 0", "exit 0", &script);
    let units: Vec<String> = (0..20).map(|at| format!("u{at}")).chain(["good".to_owned()]).collect();
    let begun = Instant::now();
    let states = manager.states(&units[10..], Duration::from_secs(1)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let unknown = |state: &UnitState| state.activity == Activity::Unknown && !state.detail.is_empty();
    assert!(states[..10].iter().all(unknown), "{states:?}");
    for file in std::fs::read_dir(temporary.path()).unwrap() {
        let pid = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    let few = manager.states(&units[19..], Duration::from_secs(2)).unwrap();
    assert_eq!([few[0].activity, few[1].activity], [Activity::Unknown, Activity::Active]);
}

#[test]
fn an_order_that_hangs_leaves_the_other_units_time_for_theirs() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().display().to_string();
    let script = format!("test $0 = hangs && sleep 600; touch {dir}/$0");
    let manager = scripted("exit 0", "exit 0", &script, "exit 0");
    let units = ["hangs", "api", "web"].map(str::to_owned);
    manager.restart(&units, Patience::of(Duration::from_secs(1))).unwrap();
    let found: Vec<Activity> = manager.states(&units, LONG).unwrap().iter().map(|state| state.activity).collect();
    assert_eq!(found, [Activity::Failed, Activity::Active, Activity::Active]);
    assert!(temporary.path().join("api").exists() && temporary.path().join("web").exists());
}

#[test]
fn an_order_that_its_giver_did_not_outlive_is_waited_for() {
    use std::os::unix::process::CommandExt;
    let temporary = tempfile::tempdir().unwrap();
    let mut manager = commands(temporary.path());
    manager.templates.stop = ["sh", "-c", "sleep 0.4; : $0", "{unit}"].map(str::to_owned).into();
    let units = ["settling-api".to_owned()];
    let order = Templates::fill(&manager.templates.stop, &units[0]);
    let mut stop = std::process::Command::new(&order[0]).args(&order[1..]).process_group(0).spawn().unwrap();
    let begun = Instant::now();
    manager.settle_orders(&["settling-web".to_owned()], Patience::of(Duration::from_secs(30)));
    assert!(stop.try_wait().unwrap().is_none(), "{:?}", begun.elapsed());
    manager.settle_orders(&units, Patience::of(Duration::from_secs(30)));
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
    assert!(stop.wait().unwrap().success());
    // One that never ends is waited for no longer than patience lasts.
    manager.templates.stop = ["sleep", "60", "{unit}"].map(str::to_owned).into();
    let mut stop = std::process::Command::new("sleep").args(["60", "0"]).process_group(0).spawn().unwrap();
    let begun = Instant::now();
    manager.settle_orders(&["0".to_owned()], Patience::of(Duration::from_millis(100)));
    assert!((100..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    stop.kill().unwrap();
    stop.wait().unwrap();
}
