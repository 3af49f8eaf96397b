//! A switch outlives the terminal that it was started from.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{DEAD, STEADY, Site, ended, wait_until};
use crate::support::{Outcome, Ran, needs_program};

tests![
    a_hangup_while_services_stop_does_not_end_the_switch,
    a_switch_whose_terminal_is_gone_goes_on_to_its_end,
    a_release_that_fails_after_the_terminal_is_gone_is_undone,
];

fn a_hangup_while_services_stop_does_not_end_the_switch() -> Outcome {
    for (arguments, version) in
        [(&["activate", "1.1.0", "--restart"][..], "v1.1.0"), (&["rollback", "--to", "1.0.0", "--restart"], "v1.0.0")]
    {
        let site = Site::with("stop_first = true").begun();
        site.release("1.1.0", STEADY);
        if version == "v1.0.0" {
            site.run(&["activate", "1.1.0", "--restart"]).ok();
        }
        let hold = site.fixture.beside("rc/hold");
        std::fs::write(&hold, "").unwrap();
        let mut command = site.fixture.command();
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it is stopped", || !site.fixture.beside("rc/api.pid").exists());
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        std::fs::remove_file(hold).unwrap();
        ended(child).ok();
        assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), (version, Some(version)));
        assert_eq!(site.status()["trial"], json!(null));
    }
    Ok(())
}

/// Runs a command in a terminal of its own, and takes the terminal away as soon as the version is current.
fn with_lost_terminal(site: &Site, arguments: &[&str], version: &str) -> Ran {
    const TERMINAL: &str = "
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
while not os.path.islink(sys.argv[1]) or os.readlink(sys.argv[1]) != os.environ['VERSION']:
    time.sleep(0.002)
os.close(terminal)
_, status = os.waitpid(pid, 0)
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 100 + os.WTERMSIG(status))
";
    let switch = site.fixture.command();
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL]).arg(site.fixture.path("versions/current")).arg(switch.get_program());
    command.args(switch.get_args()).arg("--verbose").args(arguments).env("VERSION", version);
    Ran::of(&command.output().expect("python runs"))
}

fn a_switch_whose_terminal_is_gone_goes_on_to_its_end() -> Outcome {
    needs_program("python3")?;
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    with_lost_terminal(&site, &["activate", "1.1.0", "--restart"], "v1.1.0").ok();
    assert_eq!((site.state("1.1.0").as_str(), &site.status()["trial"]), ("good", &json!(null)));
    assert_eq!(site.version_of("api").as_deref(), Some("v1.1.0"));
    Ok(())
}

fn a_release_that_fails_after_the_terminal_is_gone_is_undone() -> Outcome {
    needs_program("python3")?;
    let site = Site::new().begun();
    site.release("1.1.0", DEAD);
    with_lost_terminal(&site, &["activate", "1.1.0", "--restart"], "v1.1.0").expect(7);
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), ("v1.0.0", Some("v1.0.0")));
    assert_eq!((site.state("1.1.0").as_str(), site.told().len()), ("bad", 1));
    Ok(())
}
