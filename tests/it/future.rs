//! A store that a newer build wrote to: what this build does not understand stops only the commands that it decides
//! for, and none of it is lost.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, releases};

tests![
    an_unknown_event_stops_only_the_commands_that_it_names,
    checkpoints_carry_on_what_this_build_does_not_know,
    a_trial_keeps_what_this_build_does_not_know,
    unknown_features_stop_what_they_must_and_a_rollback_is_recorded,
    unknown_names_in_the_store_are_left_alone,
];

/// Appends an event to the history as it is, the number filled in; gives its JSON.
fn append(fixture: &Fixture, event: Value) -> String {
    let path = fixture.path("store/history");
    let text = std::fs::read_to_string(&path).unwrap();
    let (chain, last) = text.lines().next_back().unwrap().split_at(64);
    let seq = serde_json::from_str::<Value>(last).unwrap()["seq"].as_u64().unwrap() + 1;
    let mut fields = json!({ "seq": seq, "time": 1_767_225_600, "synchronised": true });
    let who = json!({ "uid": 0, "name": "ada", "pid": 812 });
    fields["who"] = who;
    fields.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
    let json = fields.to_string();
    let before: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&chain[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut hasher = blake3::Hasher::new_derive_key("tope-store 2026-11 history v1");
    hasher.update(&before).update(json.as_bytes());
    std::fs::write(path, format!("{text}{} {json}\n", hasher.finalize().to_hex())).unwrap();
    json
}

/// A store with `v1.0.0` to `v1.2.0`, the second current, the first previous.
fn store() -> Fixture {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture
}

/// Each command, and the name by which an event may ask that it understands it; those without are never stopped.
const COMMANDS: &[(&[&str], Option<&str>)] = &[
    (&["list"], None),
    (&["show", "1.0.0"], None),
    (&["du"], None),
    (&["diff", "1.0.0", "1.1.0"], None),
    (&["status"], None),
    (&["history"], None),
    (&["verify"], None),
    (&["doctor"], None),
    (&["who"], None),
    (&["rebuild-index"], None),
    (&["boot-check"], None),
    (&["rollback", "--not-bad"], None),
    (&["activate", "1.1.0"], Some("activate")),
    (&["confirm", "1.1.0"], Some("confirm")),
    (&["pin", "1.2.0"], Some("pin")),
    (&["unpin", "1.2.0"], Some("unpin")),
    (&["note", "1.2.0", "text"], Some("note")),
    (&["factory", "set", "1.0.0"], Some("factory")),
    (&["import", "SOURCE", "--version", "1.2.0"], Some("import")),
    (&["import", "SOURCE", "--version", "1.3.0", "--dry-run"], Some("import")),
    (&["adopt"], Some("adopt")),
    (&["link", "--dry-run"], Some("link")),
    (&["verify", "--repair"], Some("repair")),
    (&["remove", "1.2.0", "--dry-run"], Some("remove")),
    (&["gc", "--keep-last", "1", "--dry-run"], Some("gc")),
    (&["gc", "--keep-last", "9"], Some("gc")),
];

fn run_each(fixture: &Fixture, refused: &dyn Fn(&str) -> bool) {
    let source = fixture.beside("source");
    for (command, name) in COMMANDS {
        let words: Vec<&str> =
            command.iter().map(|word| if *word == "SOURCE" { source.to_str().unwrap() } else { word }).collect();
        let ran = fixture.run(&words);
        if name.is_some_and(refused) {
            assert!(ran.code == 9 && ran.stderr.contains("this binary is too old for event"), "{command:?}: {ran:?}");
        } else {
            assert!(ran.code == 0, "{command:?}: {ran:?}");
        }
    }
}

fn an_unknown_event_stops_only_the_commands_that_it_names() -> Outcome {
    let fixture = store();
    append(&fixture, json!({ "action": "moonrise", "version": "v1.0.0", "phase": [1, 2] }));
    append(&fixture, json!({ "action": "external-change", "version": "v1.0.0", "role": "shadow" }));
    append(&fixture, json!({ "action": "factory-set", "version": "newest" }));
    append(&fixture, json!({ "action": "gc", "outcome": "postponed", "freed_bytes": "many", "who": 7 }));
    append(&fixture, json!({ "action": "bad", "version": "v1.2.0", "digest": "t2:00" }));
    run_each(&fixture, &|_| false);
    assert_eq!(fixture.link("versions/current"), "v1.1.0");

    let fixture = store();
    append(&fixture, json!({ "action": "freeze", "decides": ["gc", "activate"] }));
    run_each(&fixture, &|name| ["gc", "activate"].contains(&name));
    let ran = fixture.run(&["gc", "--keep-last", "1"]).expect(9);
    assert!(ran.stderr.contains("(freeze)"), "{ran:?}");

    // One that cannot be read may name any.
    let fixture = store();
    append(&fixture, json!({ "action": "freeze", "decides": "gc" }));
    run_each(&fixture, &|_| true);
    Ok(())
}

/// The marks of the checkpoint that begins the current segment.
fn marks(fixture: &Fixture) -> Value {
    let text = std::fs::read_to_string(fixture.path("store/history")).unwrap();
    let first: Value = serde_json::from_str(&text.lines().next().unwrap()[65..]).unwrap();
    assert_eq!(first["action"], "checkpoint");
    first["marks"].clone()
}

/// Fills the segment, so that the next event begins another.
fn change_segment(fixture: &Fixture) {
    append(fixture, json!({ "action": "note", "version": "v1.2.0", "text": "x".repeat(1 << 20) }));
    fixture.run(&["pin", "1.2.0"]).ok();
    fixture.run(&["unpin", "1.2.0"]).ok();
}

/// A bad mark whose evidence has another shape is a bad mark; a repair with another outcome does not end damage.
fn checkpoints_carry_on_what_this_build_does_not_know() -> Outcome {
    let fixture = store();
    let digest = fixture.json(&["show", "1.2.0"])["digest"].as_str().unwrap().to_owned();
    let unknown = [
        append(&fixture, json!({ "action": "freeze", "decides": ["gc"], "until": 18_446_744_073_709_551_615_u64 })),
        append(&fixture, json!({ "action": "moonrise", "version": "v1.0.0" })),
        append(&fixture, json!({ "action": "external-change", "version": "v1.0.0", "role": "shadow" })),
    ];
    append(
        &fixture,
        json!({ "action": "bad", "version": "v1.2.0", "digest": digest, "evidence": ["of", "another shape"] }),
    );
    append(&fixture, json!({ "action": "repair", "version": "v1.1.0", "outcome": "failed", "text": "f" }));
    append(&fixture, json!({ "action": "repair", "version": "v1.1.0", "outcome": "partial" }));
    change_segment(&fixture);
    let mut first = marks(&fixture);
    assert_eq!(first["unknown_events"], json!(unknown));
    assert!(first["standings"][&digest]["bad"].is_object(), "{first}");
    assert_eq!(first["damaged"]["v1.1.0"], "f");

    first["tides"] = json!({ "b": 1, "a": [null] });
    first["versions"]["v1.0.0"]["moon"] = json!("full");
    first["versions"]["v1.0.0"]["pull"] = json!({ "from": "channel" });
    first["versions"]["newest"] = json!({ "alias": true });
    first["standings"][&digest]["revoked_by"] = json!(["k"]);
    first["standings"]["t2:00"] = json!({ "good": true });
    first["roles"]["shadow"] = json!("v1.0.0");
    append(&fixture, json!({ "action": "checkpoint", "marks": first }));
    change_segment(&fixture);
    fixture.run(&["verify", "--repair"]);
    fixture.run(&["doctor", "--fix"]);
    fixture.run(&["rollback", "--not-bad"]).ok();
    change_segment(&fixture);
    let second = marks(&fixture);
    for place in [
        "/unknown_events",
        "/tides",
        "/versions/v1.0.0",
        "/versions/newest",
        "/standings/t2:00",
        &format!("/standings/{digest}/revoked_by"),
        "/roles/shadow",
    ] {
        assert_eq!(second.pointer(place), first.pointer(place), "{place}");
        assert!(second.pointer(place).is_some(), "{place}");
    }
    fixture.run(&["gc", "--keep-last", "1"]).expect(9);
    fixture.run(&["remove", "1.2.0"]).ok();
    Ok(())
}

fn a_trial_keeps_what_this_build_does_not_know() -> Outcome {
    let fixture = store();
    let trial = json!({
        "id": "1-1-1", "begun": "campaign", "version": "v1.1.0", "from": "v1.0.0", "current": "v1.1.0", "level": 0,
        "restart": "some", "units": [], "attempts": 0, "boot": "another",
        "watcher": { "pid": 1, "started": 1, "boot": "another" }, "failures": [], "wave": { "number": 3 },
    })
    .to_string();
    let path = fixture.path("store/trial");
    std::fs::write(&path, format!("{} {trial}\n", blake3::hash(trial.as_bytes()).to_hex())).unwrap();
    for attempts in 1..=2 {
        fixture.run(&["boot-check", "--count"]).ok();
        let line = std::fs::read_to_string(&path).unwrap();
        let written: Value = serde_json::from_str(&line[65..]).unwrap();
        assert_eq!(written["attempts"], 1, "boot {attempts} is one boot");
        assert_eq!(
            (&written["begun"], &written["restart"], &written["wave"]),
            (&json!("campaign"), &json!("some"), &json!({ "number": 3 }))
        );
    }
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    Ok(())
}

fn with_feature(fixture: &Fixture, list: &str) {
    let path = fixture.path("store/format");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed =
        text.replace(&format!("\n{list} = ["), &format!("\n{list} = [\"from-the-future\", ")).replace(", ]", "]");
    assert_ne!(text, changed);
    std::fs::write(path, changed).unwrap();
}

fn unknown_features_stop_what_they_must_and_a_rollback_is_recorded() -> Outcome {
    let fixture = store();
    with_feature(&fixture, "compatible");
    run_each(&fixture, &|_| false);

    for (list, recorded) in [("read_only_compatible", true), ("incompatible", false)] {
        let fixture = store();
        with_feature(&fixture, list);
        let format = std::fs::read(fixture.path("store/format")).unwrap();
        let before = std::fs::read_to_string(fixture.path("store/history")).unwrap();
        for (command, name) in COMMANDS.iter().filter(|(_, name)| name.is_some()) {
            let source = fixture.beside("source");
            let words: Vec<&str> =
                command.iter().map(|word| if *word == "SOURCE" { source.to_str().unwrap() } else { word }).collect();
            assert_eq!(fixture.run(&words).code, 9, "{list}: {name:?}");
        }
        for command in [&["status"][..], &["history"]] {
            fixture.run(command).ok();
        }
        fixture.run(&["list"]).expect(if recorded { 0 } else { 9 });
        fixture.run(&["doctor", "--fix"]);
        assert_eq!(std::fs::read_to_string(fixture.path("store/history")).unwrap(), before, "{list}");
        fixture.run(&["rollback", "--reason", "no network"]).ok();
        assert_eq!(fixture.link("versions/current"), "v1.0.0");
        let after = std::fs::read_to_string(fixture.path("store/history")).unwrap();
        let added = after.strip_prefix(&before).unwrap();
        let actions: Vec<Value> =
            added.lines().map(|line| serde_json::from_str::<Value>(&line[65..]).unwrap()["action"].clone()).collect();
        let expected = if recorded { json!(["rollback", "bad"]) } else { json!([]) };
        assert_eq!(json!(actions), expected, "{list}");
        assert_eq!(std::fs::read(fixture.path("store/format")).unwrap(), format, "{list}");
    }
    Ok(())
}

fn listing(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let walk = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
    walk.map(|item| (item.path().to_owned(), std::fs::read(item.path()).unwrap_or_default())).collect()
}

fn unknown_names_in_the_store_are_left_alone() -> Outcome {
    let fixture = store();
    let names = ["releases", "cold", "incoming", "trust", "remotes", "removed", "moon"];
    for name in names {
        std::fs::create_dir_all(fixture.path("store").join(name).join("below")).unwrap();
        std::fs::write(fixture.path("store").join(name).join("below/file"), name).unwrap();
    }
    std::fs::write(fixture.path("store/tides"), "high").unwrap();
    let all = || names.map(|name| listing(&fixture.path("store").join(name)));
    let before = all();
    run_each(&fixture, &|_| false);
    fixture.run(&["remove", "1.2.0"]).ok();
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    fixture.run(&["doctor", "--fix"]);
    fixture.run(&["rebuild-index"]).ok();
    std::fs::remove_file(fixture.path("store/history")).unwrap();
    fixture.run(&["doctor", "--fix"]);
    fixture.run(&["verify", "--repair"]);
    assert_eq!(all(), before);
    assert_eq!(std::fs::read(fixture.path("store/tides")).unwrap(), b"high");
    Ok(())
}
