//! Commands of a service manager that fail, hang, or do not do what they say.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{KEEPS, STEADY, Site};
use crate::support::Outcome;

tests![
    a_restart_that_fails_is_no_success_of_the_process_of_before,
    status_commands_that_hang_end_with_the_time_of_the_services,
    what_cannot_be_stopped_before_the_switch_is_said,
];

fn a_restart_that_fails_is_no_success_of_the_process_of_before() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", KEEPS);
    let before = site.process("api");
    let document = site.json(&["activate", "1.1.0", "--restart"], 7);
    let evidence = json!({
        "check": "unit api",
        "detail": "it failed to start: the restart command failed: it ended with exit code 1",
        "exit_code": 1,
        "log": ["not now"],
    });
    assert_eq!(document["attempts"][0]["services"][0]["evidence"], evidence);
    assert_eq!((site.current().as_str(), site.state("1.1.0").as_str()), ("v1.0.0", "bad"));
    assert_eq!(site.version_of("api").as_deref(), Some("v1.0.0"));
    assert_ne!(site.process("api"), before, "the switch back restarts it");
    Ok(())
}

fn status_commands_that_hang_end_with_the_time_of_the_services() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("60s", "2s")).unwrap();
    std::fs::write(site.fixture.beside("rc/hang"), "").unwrap();
    let begun = Instant::now();
    let document = site.json(&["activate", "1.1.0", "--restart=all"], 8);
    // Two levels, each with its watch and with questions before it, and the restarts of the least bad version.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    std::fs::remove_file(site.fixture.beside("rc/hang")).unwrap();
    assert_eq!(document["outcome"], "degraded");
    let services = &document["attempts"][0]["services"];
    for (at, unit) in ["api", "web"].iter().enumerate() {
        assert_eq!(services[at]["evidence"]["check"], format!("unit {unit}"));
        assert_eq!(services[at]["evidence"]["detail"], "the status command: it took too long and was killed");
    }
    for unit in ["api", "web"] {
        assert!(site.process(unit).is_some(), "{unit} runs on the least bad version");
    }
    Ok(())
}

fn what_cannot_be_stopped_before_the_switch_is_said() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    std::fs::write(site.fixture.beside("rc/stuck"), "").unwrap();
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    std::fs::remove_file(site.fixture.beside("rc/stuck")).unwrap();
    let warning = "api was ordered to stop before the switch, and still runs, so that it sees the switch: the stop command \
                   failed: it ended with exit code 1";
    assert_eq!(document["warnings"], json!([warning]));
    assert_eq!(site.version_of("api").as_deref(), Some("v1.1.0"));
    Ok(())
}
