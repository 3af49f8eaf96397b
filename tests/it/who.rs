//! `who`

use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, needs_program, releases};

tests![
    a_process_of_the_version_before_is_found_and_one_of_the_current_is_not,
    what_is_open_for_writing_is_told,
    nobody_is_a_short_answer,
];

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeping_in(fixture: &Fixture, version: &str) -> Running {
    let directory = fixture.path(format!("versions/{version}/services/device-api"));
    Running(Command::new("sleep").arg("600").current_dir(directory).spawn().expect("sleep runs"))
}

fn of_process(document: &Value, pid: u32) -> Vec<&Value> {
    document["processes"].as_array().expect("a list").iter().filter(|process| process["pid"] == pid).collect()
}

fn a_process_of_the_version_before_is_found_and_one_of_the_current_is_not() -> Outcome {
    needs_program("sleep")?;
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    let (old, new) = (sleeping_in(&fixture, "v1.0.0"), sleeping_in(&fixture, "v1.1.0"));
    fixture.run(&["activate", "1.1.0"]).ok();
    let document = fixture.json(&["who"]);
    assert_eq!(document["current"], "v1.1.0");
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(1), "{document:#}");
    let expected = json!({
        "pid": old.0.id(), "unit": document["processes"][0]["unit"], "command": "sleep 600", "version": "v1.0.0",
        "uses": [{"how": "works in", "path": "services/device-api", "writes": false}],
    });
    assert_eq!(document["processes"][0], expected);
    let text = fixture.run(&["who"]).ok().stdout;
    assert!(text.starts_with(&format!("v1.0.0  {}  ", old.0.id())), "{text}");
    assert!(text.ends_with("sleep 600  works in services/device-api\n"), "{text}");
    let all = fixture.json(&["who", "--all"]);
    assert_eq!(of_process(&all, new.0.id())[0]["version"], "v1.1.0");
    assert_eq!(of_process(&all, old.0.id()).len(), 1);
    Ok(())
}

fn what_is_open_for_writing_is_told() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.1.0"]).ok();
    let path = fixture.path("versions/v1.0.0/services/device-api/log");
    let held = std::fs::File::create(path).expect("a file");
    let document = fixture.json(&["who"]);
    drop(held);
    let own = of_process(&document, std::process::id());
    assert_eq!(own[0]["uses"], json!([{"how": "has open", "path": "services/device-api/log", "writes": true}]));
    Ok(())
}

fn nobody_is_a_short_answer() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["activate", "1.0.0"]).ok();
    let ran = fixture.run(&["who"]).ok();
    assert_eq!(ran.stdout, "");
    // A process that cannot be inspected may add a warning.
    assert_eq!(ran.stderr.lines().next(), Some("no process uses a version other than v1.0.0"));
    Ok(())
}
