//! `confirm`

use serde_json::json;

use crate::support::{Outcome, releases, tree};

tests![confirming_makes_good_and_clears_bad, a_version_made_by_hand_cannot_be_confirmed];

fn confirming_makes_good_and_clears_bad() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["--json", "confirm"]).expect(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = fixture.json(&["confirm", "--reason", "seen it work"]);
    let digest = document["digest"].clone();
    let expected = json!({"schema": 1, "version": "v1.0.0", "digest": digest, "was_bad": null, "recovered": false, "changed": true});
    assert_eq!(document, expected);
    assert_eq!(fixture.json(&["status"])["current"]["state"], "good");
    let history = std::fs::read(fixture.path("store/history")).unwrap();
    assert_eq!(fixture.run(&["confirm"]).ok().stdout, "v1.0.0 is good already\n");
    assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), history);
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback"]).ok();
    let said = fixture.run(&["confirm", "1.1.0"]).ok().stdout;
    assert_eq!(said, "v1.1.0 is good; it was marked bad (operator: left by a rollback)\n");
    fixture.run(&["activate", "1.1.0"]).ok();
    Ok(())
}

fn a_version_made_by_hand_cannot_be_confirmed() -> Outcome {
    let fixture = releases(0);
    tree::release(fixture.path("versions/v1"), 0);
    fixture.run(&["confirm", "v1"]).expect(4);
    Ok(())
}
