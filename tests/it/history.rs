//! `history`

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, redacted, releases};

tests![
    events_come_newest_first_and_can_be_chosen,
    the_document_of_an_event,
    a_version_that_was_removed_has_a_history,
    damage_is_told_and_the_rest_is_shown
];

fn seqs(document: &Value) -> Vec<u64> {
    document["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn switched() -> Fixture {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0", "--reason", "planned"]).ok();
    fixture
}

fn events_come_newest_first_and_can_be_chosen() -> Outcome {
    let fixture = switched();
    let seqs = |arguments: &[&str]| seqs(&fixture.json(&[&["history"], arguments].concat()));
    assert_eq!(seqs(&[]), [5, 4, 3, 2, 1]);
    assert_eq!(seqs(&["--reverse"]), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(&["-n", "2"]), [5, 4]);
    assert_eq!(seqs(&["-n", "2", "--reverse"]), [4, 5]);
    assert_eq!(seqs(&["--version", "1.0.0"]), [5, 4, 2]);
    assert_eq!(seqs(&["--version", "previous", "--action", "activate"]), [5, 4]);
    assert_eq!(seqs(&["--action", "import", "--action", "init"]), [3, 2, 1]);
    fixture.run(&["history", "--version", "7.0.0"]).expect(3);
    fixture.run(&["history", "--action", "teleport"]).expect(2);
    Ok(())
}

fn the_document_of_an_event() -> Outcome {
    let fixture = switched();
    let document = fixture.json(&["history", "-n", "1"]);
    assert!(document["events"][0]["time"].as_str().unwrap().ends_with('Z'));
    let digest = document["events"][0]["digest"].clone();
    let expected = json!({
        "schema": 1, "state": "sound", "state_detail": null,
        "events": [{
            "seq": 5, "time": "…", "synchronised": "…", "action": "activate", "version": "v1.1.0", "from": "v1.0.0",
            "digest": digest, "outcome": "done", "reason": "planned", "duration_ms": "…", "uid": "…", "user": "…",
            "pid": "…", "trusted": true,
        }],
    });
    assert_eq!(redacted(&fixture, &document), expected);
    let text = fixture.run(&["history", "-n", "1"]).ok().stdout;
    assert!(text.starts_with("     5 ") && text.contains("  activate v1.0.0 -> v1.1.0  by "), "{text}");
    assert!(text.ends_with(": planned\n"), "{text}");
    Ok(())
}

fn a_version_that_was_removed_has_a_history() -> Outcome {
    let fixture = switched();
    std::fs::remove_dir_all(fixture.path("versions/v1.0.0")).unwrap();
    std::fs::remove_file(fixture.path("store/manifests/v1.0.0")).unwrap();
    assert_eq!(seqs(&fixture.json(&["history", "--version", "1.0.0"])), [5, 4, 2]);
    Ok(())
}

fn damage_is_told_and_the_rest_is_shown() -> Outcome {
    let fixture = switched();
    let path = fixture.path("store/history");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("planned", "plotted", 1)).unwrap();
    let document = fixture.json(&["history"]);
    assert_eq!((document["state"].as_str(), seqs(&document)), (Some("broken"), vec![5, 4, 3, 2, 1]));
    assert_eq!(document["events"][0]["trusted"], false);
    assert!(fixture.run(&["history"]).ok().stderr.contains("the history is broken: history line 5"));
    Ok(())
}
