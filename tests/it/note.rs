//! `note`

use crate::support::{Outcome, releases};

tests![notes_are_kept_in_the_history];

fn notes_are_kept_in_the_history() -> Outcome {
    let fixture = releases(1);
    assert_eq!(fixture.json(&["note", "1.0.0", "grün \"1\""])["notes"], 1);
    assert_eq!(fixture.json(&["note", "1.0.0", "two"])["notes"], 2);
    let events = fixture.json(&["history", "--action", "note", "--reverse"])["events"].clone();
    let texts: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["grün \"1\"", "two"]);
    fixture.run(&["note", "1.0.0", "  "]).expect(2);
    fixture.run(&["note", "2.0.0", "x"]).expect(3);
    Ok(())
}
