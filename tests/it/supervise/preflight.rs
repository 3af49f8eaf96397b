//! What is found before a switch keeps it from being made; going back is never kept from it.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use super::{STEADY, Site};
use crate::support::{Outcome, tree};

tests![
    what_cannot_succeed_is_refused_before_anything_is_stopped,
    a_check_is_looked_for_in_the_version_that_is_switched_to,
    a_rollback_goes_on_and_says_what_was_found,
    a_boot_says_what_was_found,
    a_supervisor_that_is_not_there_is_a_reason_to_refuse,
    a_check_of_what_neither_runs_nor_is_touched_refuses_nothing,
];

/// Puts more into the table of a service.
fn configure(site: &Site, unit: &str, more: &str) {
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    let line = format!("unit = \"{unit}\"\n");
    assert!(config.contains(&line), "{config}");
    std::fs::write(site.fixture.config(), config.replace(&line, &format!("{line}{more}\n"))).unwrap();
}

fn kinds(findings: &Value) -> Vec<(String, String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("-").to_owned();
    let findings = findings.as_array().unwrap().iter();
    findings.map(|one| (text(one, "kind"), text(one, "severity"), text(one, "unit"))).collect()
}

fn owned(found: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    found.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

fn calls(site: &Site) -> String {
    let calls = std::fs::read_to_string(site.fixture.beside("rc/calls")).unwrap();
    calls.lines().filter(|line| !line.starts_with("status ")).collect::<Vec<_>>().join("\n")
}

fn what_cannot_succeed_is_refused_before_anything_is_stopped() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    let plain = site.fixture.beside("plain");
    std::fs::write(&plain, "no program").unwrap();
    configure(&site, "api", "command = [\"/no/such/check\", \"--now\"]");
    configure(&site, "web", &format!("command = [\"{}\"]", plain.display()));
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("command = [\"sh\", \"-c\"", "command = [\"no-such-teller\""))
        .unwrap();
    let (before, processes) = (calls(&site), [site.process("api"), site.process("web")]);
    let refused = site.json(&["activate", "1.1.0", "--restart"], 4);
    assert_eq!(refused["error"]["kind"], "preflight");
    let expected =
        [("check-command", "refuse", "api"), ("check-command", "refuse", "web"), ("notify-command", "warn", "-")];
    assert_eq!(kinds(&refused["error"]["findings"]), owned(&expected), "all at once: {refused:#}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("there is no /no/such/check") && message.contains("plain cannot be executed"),
        "{message}"
    );
    assert_eq!((calls(&site), [site.process("api"), site.process("web")]), (before, processes));
    assert_eq!((site.current().as_str(), &site.status()["trial"]), ("v1.0.0", &Value::Null));
    let said = site.run(&["activate", "1.1.0", "--restart"]).expect(4).stderr;
    for part in ["the check of api cannot be run", "the check of web", "mend: install /no/such/check", "no-such-teller"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The same is found by who looks, and a switch without services needs none of it.
    let document = site.fixture.run(&["--json", "doctor"]).json();
    let found: Vec<String> = kinds(&document["findings"]).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(found.iter().filter(|kind| *kind == "check-command").count(), 2, "{document:#}");
    assert!(found.contains(&"notify-command".to_owned()), "{document:#}");
    site.run(&["activate", "1.1.0"]).ok();
    Ok(())
}

fn a_check_is_looked_for_in_the_version_that_is_switched_to() -> Outcome {
    let site = Site::new().begun();
    let check =
        |version: &str, text: &str| tree::program(site.fixture.beside(format!("source-{version}/bin/check")), text);
    check("1.1.0", "#!/bin/sh\nexit 0\n");
    check("1.3.0", "#!/bin/sh\nexit 0\n");
    let plain = site.fixture.beside("source-1.3.0/bin/check");
    std::fs::set_permissions(plain, PermissionsExt::from_mode(0o644)).unwrap();
    check("1.4.0", "#!/no/such/shell\nexit 0\n");
    for version in ["1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        site.release(version, STEADY);
    }
    // As programs are linked on a device.
    let link = site.fixture.beside("check");
    symlink(site.fixture.path("versions/current/bin/check"), &link).unwrap();
    configure(&site, "api", &format!("command = [\"{}\"]", link.display()));
    // It is not there yet, and comes with the release.
    assert!(!link.exists());
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    assert_eq!((&document["outcome"], &document["preflight"]), (&"done".into(), &json!([])));
    for (version, problem) in [
        ("1.2.0", "check in v1.2.0"),
        ("1.3.0", "check cannot be executed in v1.3.0"),
        ("1.4.0", "check is a script, and there is no /no/such/shell to run it"),
    ] {
        let refused = site.json(&["activate", version, "--restart"], 4);
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(problem), "{problem}: {message}");
        assert_eq!(site.current(), "v1.1.0");
    }
    Ok(())
}

fn a_rollback_goes_on_and_says_what_was_found() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("command = [\"sh\", \"-c\"", "command = [\"no-such-teller\""))
        .unwrap();
    let document = site.json(&["rollback", "--restart"], 0);
    assert_eq!((&document["outcome"], &document["current"]), (&"done".into(), &"v1.0.0".into()));
    assert_eq!(kinds(&document["preflight"]), owned(&[("notify-command", "warn", "-")]));
    assert!(document["warnings"].to_string().contains("no-such-teller"), "{document:#}");
    // A check that cannot be run fails on every version, and still the switch is made.
    site.release("1.2.0", STEADY);
    site.run(&["activate", "1.2.0", "--restart"]).ok();
    std::fs::write(site.fixture.config(), config.replacen("timeout = \"60s\"", "timeout = \"1s\"", 1)).unwrap();
    configure(&site, "api", "command = [\"/no/such/check\"]");
    let document = site.json(&["rollback", "--restart"], 8);
    assert_eq!(kinds(&document["preflight"]), owned(&[("check-command", "warn", "api")]), "{document:#}");
    Ok(())
}

fn a_boot_says_what_was_found() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("300ms", "50s")).unwrap();
    let mut watching = site.start(&["activate", "1.1.0", "--restart"], "v1.1.0");
    site.kill_guardians();
    watching.kill().unwrap();
    watching.wait().unwrap();
    std::fs::write(site.fixture.config(), config.replace("command = [\"sh\", \"-c\"", "command = [\"no-such-teller\""))
        .unwrap();
    let document = site.json(&["boot-check", "--judge"], 0);
    assert_eq!(kinds(&document["switch"]["preflight"]), owned(&[("notify-command", "warn", "-")]), "{document:#}");
    Ok(())
}

fn a_supervisor_that_is_not_there_is_a_reason_to_refuse() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    let control = site.fixture.beside("rc/control");
    let hidden = site.fixture.beside("rc/hidden");
    std::fs::rename(&control, &hidden).unwrap();
    let refused = site.json(&["activate", "1.1.0", "--restart"], 4);
    let expected = [("supervisor-command", "refuse", "-"); 4];
    assert_eq!(kinds(&refused["error"]["findings"]), owned(&expected), "one for each template");
    // One that is there for all but one order is found before it is needed.
    std::fs::rename(&hidden, &control).unwrap();
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    let line = format!("stop = [\"{}\"", control.display());
    std::fs::write(site.fixture.config(), config.replace(&line, "stop = [\"/no/such/stopper\"")).unwrap();
    let refused = site.json(&["activate", "1.1.0", "--restart"], 4);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("the stop command of the supervisor cannot be run: there is no /no/such/stopper"),
        "{message}"
    );
    assert_eq!(site.current(), "v1.0.0");
    std::fs::write(site.fixture.config(), config).unwrap();
    Ok(())
}

fn a_check_of_what_neither_runs_nor_is_touched_refuses_nothing() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    configure(&site, "web", "command = [\"/no/such/check\"]");
    let _ = std::process::Command::new(site.fixture.beside("rc/control")).args(["stop", "web"]).status();
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    assert_eq!(kinds(&document["preflight"]), owned(&[("check-command", "warn", "web")]), "{document:#}");
    // All are touched.
    site.json(&["activate", "1.1.0", "--restart=all"], 4);
    Ok(())
}
