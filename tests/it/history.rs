//! `history`

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, Ran, needs_root, redacted, releases};

tests![
    events_come_newest_first_and_can_be_chosen,
    the_document_of_an_event,
    a_version_that_was_removed_has_a_history,
    damage_is_told_and_the_rest_is_shown,
    who_it_was_is_what_the_kernel_says_and_the_environment_only_claims,
    times_are_local_with_their_offset_in_text_and_utc_in_documents
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
    let mut document = fixture.json(&["history", "-n", "1"]);
    document["events"][0].as_object_mut().unwrap().remove("unit");
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

/// The name stood for whatever `USER` said, and where it said nothing for `user 0`.
fn who_it_was_is_what_the_kernel_says_and_the_environment_only_claims() -> Outcome {
    needs_root()?;
    let fixture = switched();
    let long = "x".repeat(100_000);
    let note = |variables: &[(&str, &str)]| {
        let mut command = fixture.command();
        command.args(["note", "1.0.0", "text"]).envs(variables.iter().copied());
        Ran::of(&command.output().unwrap()).ok();
        let said = fixture.run(&["history", "-n", "1"]).ok().stdout;
        (fixture.json(&["history", "-n", "1"])["events"][0].clone(), said)
    };
    let (event, said) = note(&[]);
    assert_eq!((&event["uid"], &event["user"], event.get("claimed")), (&0.into(), &"root".into(), None));
    assert!(said.contains("  by root"), "{said}");
    let (event, said) = note(&[("USER", "root"), ("LOGNAME", "eve")]);
    assert_eq!(event.get("claimed"), None, "that is known: {said}");
    let (event, said) = note(&[("SUDO_USER", "ada"), ("SUDO_UID", "1000"), ("USER", "\u{1b}[31meve\n     9")]);
    let claimed = json!({"sudo_user": "ada", "sudo_uid": 1000, "user": "\u{1b}[31meve\n     9"});
    assert_eq!((&event["user"], &event["claimed"]), (&"root".into(), &claimed));
    let expected = " (claimed: SUDO_USER=ada USER=\\u{1b}[31meve\\n     9 SUDO_UID=1000): text\n";
    assert!(said.ends_with(expected) && said.lines().count() == 1, "{said}");
    let (event, _) = note(&[("SUDO_USER", &long), ("SUDO_UID", "-1"), ("USER", "")]);
    let claimed = event["claimed"].as_object().unwrap();
    assert_eq!(claimed.keys().collect::<Vec<_>>(), ["sudo_user"]);
    assert!(claimed["sudo_user"].as_str().unwrap().chars().count() < 200);
    let shown = fixture.run(&["show", "1.0.0"]).ok().stdout;
    assert!(shown.contains(" note by root") && shown.contains("(claimed: SUDO_USER=ada"), "{shown}");
    Ok(())
}

fn times_are_local_with_their_offset_in_text_and_utc_in_documents() -> Outcome {
    let fixture = switched();
    let said = |zone: &str, arguments: &[&str]| {
        Ran::of(&fixture.command().args(arguments).env("TZ", zone).output().unwrap()).ok().stdout
    };
    let time = fixture.json(&["history", "-n", "1"])["events"][0]["time"].as_str().unwrap().to_owned();
    let utc = time.trim_end_matches('Z').replace('T', " ");
    assert!(said("UTC0", &["history", "-n", "1"]).starts_with(&format!("     5  {utc} +00:00")));
    // Whole hours away, so that minutes and seconds are the same.
    let east = said("TST-5", &["history", "-n", "1"]);
    assert!(east.contains(&format!("{} +05:00", &utc[13..])), "{east}");
    let imported = fixture.json(&["list"])["versions"][0]["imported_at"].as_str().unwrap().to_owned();
    for arguments in [&["list"][..], &["show", "1.0.0"]] {
        let text = said("TST-5", arguments);
        assert!(text.contains(&format!("{} +05:00", &imported[13..19])), "{text}");
        assert!(!text.contains(" ?"), "{text}");
    }
    let document = said("TST-5", &["--json", "history", "-n", "1"]);
    assert!(document.contains(&time), "{document}");
    // Of a clock that is not synchronised, that is said in words.
    for (synchronised, doubt) in [(true, ""), (false, " (clock not synchronised)")] {
        let history = fixture.json(&["history", "-n", "1"])["events"][0]["synchronised"] == synchronised;
        if history {
            assert!(said("UTC0", &["history", "-n", "1"]).contains(&format!("{utc} +00:00{doubt}  activate")));
        }
    }
    Ok(())
}
