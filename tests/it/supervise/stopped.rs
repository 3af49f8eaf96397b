//! What is stopped for a switch runs again, whatever becomes of the switch.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{DEAD, STEADY, Site, ended, wait_until};
use crate::support::Outcome;

tests![
    a_rollback_stops_first_what_must_not_see_it,
    what_was_stopped_first_runs_again_after_a_refused_rollback,
    an_interrupt_while_services_stop_switches_nothing,
    an_interrupt_while_services_stop_for_a_rollback_switches_nothing,
    an_interrupt_while_services_restart_leaves_none_of_them_stopped,
    what_was_stopped_first_runs_where_no_version_holds,
];

fn orders(site: &Site) -> Vec<String> {
    let calls = std::fs::read_to_string(site.fixture.beside("rc/calls")).unwrap_or_default();
    calls.lines().filter(|line| !line.starts_with("status")).map(str::to_owned).collect()
}

/// Starts a command and interrupts it right after this order was given and what it stops has stopped.
fn interrupted_at(site: &Site, arguments: &[&str], order: &str) -> Child {
    let hold = site.fixture.beside("rc/hold");
    std::fs::remove_file(site.fixture.beside("rc/calls")).unwrap();
    std::fs::write(&hold, "").unwrap();
    let child = site.fixture.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it is stopped", || {
        orders(site).iter().any(|given| given == order) && !site.fixture.beside("rc/api.pid").exists()
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child
}

fn a_rollback_stops_first_what_must_not_see_it() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    std::fs::remove_file(site.fixture.beside("rc/calls")).unwrap();
    let document = site.json(&["rollback", "--restart"], 0);
    assert_eq!(orders(&site), ["stop api v1.1.0", "restart api v1.0.0"]);
    assert_eq!(document["attempts"][0]["restarted"], json!([{"unit": "api", "reasons": ["bin/api differs"]}]));
    // Where nothing is to be switched nothing stops.
    std::fs::remove_file(site.fixture.beside("rc/calls")).unwrap();
    assert_eq!(site.json(&["rollback", "--to", "1.0.0", "--restart"], 0)["outcome"], "unchanged");
    site.run(&["rollback", "--restart"]).expect(3);
    assert_eq!(orders(&site), <[&str; 0]>::default());
    Ok(())
}

fn what_was_stopped_first_runs_again_after_a_refused_rollback() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    std::fs::remove_file(site.fixture.beside("rc/calls")).unwrap();
    // Somebody switches right after services were stopped.
    let hold = site.fixture.beside("rc/hold");
    std::fs::write(&hold, "").unwrap();
    let mut command = site.fixture.command();
    let child = command.args(["rollback", "--restart"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it is stopped", || !site.fixture.beside("rc/api.pid").exists());
    site.run(&["activate", "1.0.0"]).ok();
    std::fs::remove_file(hold).unwrap();
    let ran = ended(child).expect(4);
    assert_eq!(site.version_of("api").as_deref(), Some("v1.0.0"), "{ran:#?}");
    assert_eq!(orders(&site), ["stop api v1.1.0", "start api v1.0.0"]);
    Ok(())
}

fn an_interrupt_while_services_stop_switches_nothing() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    let ran = ended(interrupted_at(&site, &["activate", "1.1.0", "--restart"], "stop api v1.0.0")).expect(130);
    let said = "error: interrupted: nothing was switched; api had been stopped, and was ordered to start again\n";
    assert!(ran.stderr.ends_with(said), "{ran:#?}");
    // The order to start it waits for nothing that holds.
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), ("v1.0.0", Some("v1.0.0")));
    assert_eq!(orders(&site), ["stop api v1.0.0", "start api v1.0.0"]);
    assert_eq!(site.status()["trial"], json!(null));
    Ok(())
}

fn an_interrupt_while_services_stop_for_a_rollback_switches_nothing() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    ended(interrupted_at(&site, &["rollback", "--restart"], "stop api v1.1.0")).expect(130);
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), ("v1.1.0", Some("v1.1.0")));
    assert_eq!((site.state("1.1.0").as_str(), &site.status()["trial"]), ("good", &json!(null)));
    Ok(())
}

fn an_interrupt_while_services_restart_leaves_none_of_them_stopped() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    let child = interrupted_at(&site, &["activate", "1.1.0", "--restart=all"], "restart api v1.1.0");
    std::fs::remove_file(site.fixture.beside("rc/hold")).unwrap();
    ended(child).expect(130);
    for unit in ["api", "web"] {
        assert_eq!(site.version_of(unit).as_deref(), Some("v1.1.0"), "{unit}");
    }
    wait_until("its guardian has judged", || site.status()["trial"].is_null());
    assert_eq!((site.current().as_str(), site.state("1.1.0").as_str()), ("v1.1.0", "good"));
    Ok(())
}

fn what_was_stopped_first_runs_where_no_version_holds() -> Outcome {
    let site = Site::with("stop_first = true\ncommand = [\"test\", \"-e\", \"NETWORK\"]\n");
    let network = site.fixture.beside("network");
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    let config = config.replace("NETWORK", &network.display().to_string()).replace("60s", "1s");
    std::fs::write(site.fixture.config(), config).unwrap();
    std::fs::write(&network, "").unwrap();
    let site = site.begun();
    site.release("1.1.0", DEAD);
    std::fs::remove_file(network).unwrap();
    let document = site.json(&["activate", "1.1.0", "--restart"], 8);
    // The last that was tried is what stays.
    assert_eq!((&document["current"], &document["level"]), (&json!("v1.0.0"), &json!(1)));
    assert_eq!(site.version_of("api").as_deref(), Some("v1.0.0"), "{:?}", orders(&site));
    Ok(())
}
