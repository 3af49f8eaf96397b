//! `pin` and `unpin`

use serde_json::json;

use crate::support::{Outcome, releases};

tests![pins_are_set_and_lifted_once];

fn pins_are_set_and_lifted_once() -> Outcome {
    let fixture = releases(1);
    let said = |arguments: &[&str]| fixture.run(arguments).ok().stdout;
    assert_eq!(said(&["pin", "1.0.0", "--reason", "certified"]), "v1.0.0 is pinned\n");
    assert_eq!(said(&["pin", "1.0.0"]), "v1.0.0 is pinned already\n");
    assert_eq!(said(&["unpin", "1.0.0"]), "v1.0.0 is not pinned any longer\n");
    let document = fixture.json(&["unpin", "1.0.0"]);
    assert_eq!(document, json!({"schema": 1, "version": "v1.0.0", "pinned": false, "changed": false}));
    let events = fixture.json(&["history", "--version", "1.0.0", "--reverse"])["events"].clone();
    let actions: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["import", "pin", "unpin"]);
    fixture.run(&["pin", "2.0.0"]).expect(3);
    Ok(())
}
