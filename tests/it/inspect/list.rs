//! `list` and `show`

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, tree};

tests![
    the_documents_are_what_scripts_rely_on,
    people_see_columns,
    what_is_damaged_or_made_by_hand_is_listed_and_hides_nothing,
    versions_are_found_by_name_role_and_digest,
    a_name_that_does_not_exist_offers_the_ones_that_do,
    notes_that_hold_control_characters_cannot_forge_lines,
    an_empty_store_lists_nothing,
];

fn two_releases() -> Fixture {
    let fixture = Fixture::new();
    for number in [1, 2] {
        tree::release(fixture.beside(format!("source{number}")), number);
    }
    let source = fixture.beside("source1");
    let source = source.to_str().unwrap();
    fixture.run(&["import", source, "--version", "1.10.0", "--note", "first\nmore", "--label", "channel=beta"]).ok();
    fixture.import("source2", "1.9.0");
    std::os::unix::fs::symlink("v1.9.0", fixture.path("versions/current")).unwrap();
    std::os::unix::fs::symlink("v1.10.0", fixture.path("versions/factory")).unwrap();
    fixture
}

/// Takes out of a version what no two runs have in common.
fn settled(version: &Value) -> Value {
    let mut version = version.clone();
    let fields = version.as_object_mut().unwrap();
    for (field, begin) in [("digest", "t1:"), ("imported_at", "2")] {
        let value = fields.remove(field).unwrap();
        assert!(value.as_str().unwrap().starts_with(begin), "{field}: {value}");
    }
    assert!(fields.remove("clock_synchronised").unwrap().is_boolean());
    assert!(fields["source"].as_object_mut().unwrap().remove("path").unwrap().as_str().unwrap().contains("source"));
    version
}

fn the_documents_are_what_scripts_rely_on() -> Outcome {
    let fixture = two_releases();
    let list = fixture.json(&["list"]);
    assert_eq!(list["schema"], 1);
    let first = json!({
        "name": "v1.10.0", "roles": ["factory"], "state": "unconfirmed", "pinned": false, "seq": 1,
        "good": false, "bad": false, "was_current": false, "note": "first\nmore", "labels": {"channel": "beta"},
        "files": 6, "directories": 6, "symlinks": 1, "total_bytes": 100_055, "source": {"kind": "directory"},
    });
    let second = json!({
        "name": "v1.9.0", "roles": ["current"], "state": "unconfirmed", "pinned": false, "seq": 2,
        "good": false, "bad": false, "was_current": false, "note": "", "labels": {},
        "files": 6, "directories": 6, "symlinks": 1, "total_bytes": 100_055, "source": {"kind": "directory"},
    });
    let versions: Vec<Value> = list["versions"].as_array().unwrap().iter().map(settled).collect();
    assert_eq!(versions, [first.clone(), second], "by import number");
    let by_name = fixture.json(&["list", "--sort", "name"]);
    assert_eq!(by_name["versions"][0], list["versions"][1], "1.9 before 1.10");

    let mut show = fixture.json(&["show", "1.10.0"]);
    let fields = show.as_object_mut().unwrap();
    let mut rest = serde_json::Map::new();
    for field in ["schema", "notes", "ownership", "placement", "shared_paths", "events"] {
        rest.insert(field.to_owned(), fields.remove(field).unwrap());
    }
    assert_eq!(settled(&show), first, "the same as in the list");
    let event = rest.remove("events").unwrap();
    assert_eq!(
        (&event[0]["action"], &event[0]["seq"], event.as_array().unwrap().len()),
        (&"import".into(), &2.into(), 1)
    );
    rest.remove("ownership").unwrap();
    assert_eq!(
        Value::Object(rest),
        json!({
            "schema": 1, "notes": [], "shared_paths": [],
            "placement": {"linked": 5, "pinned_mtime": 0, "private": 0, "shared": 0, "empty": 1},
        })
    );
    Ok(())
}

fn people_see_columns() -> Outcome {
    let fixture = two_releases();
    std::fs::create_dir(fixture.path("versions/by-hand")).unwrap();
    let listed = fixture.run(&["list"]).ok().stdout;
    // The time is that of the run.
    let lines: Vec<String> = listed
        .lines()
        .map(|line| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).filter(|cell| !cell.starts_with("20"))
        })
        .map(|cells| cells.collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(
        lines,
        [
            "version|roles|imported|files|size|state|note",
            "v1.10.0|factory|6|97.7 KiB|unconfirmed|first",
            "v1.9.0|current|6|97.7 KiB|unconfirmed",
            "by-hand|unmanaged",
        ]
    );
    let shown = fixture.run(&["show", "factory"]).ok().stdout;
    for line in
        ["version    v1.10.0", "roles      factory", "label      channel=beta", "note       first", "note       more"]
    {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    Ok(())
}

fn state(list: &Value, name: &str) -> String {
    let version = list["versions"].as_array().unwrap().iter().find(|version| version["name"] == name);
    version.map_or("not listed", |version| version["state"].as_str().unwrap()).to_owned()
}

fn what_is_damaged_or_made_by_hand_is_listed_and_hides_nothing() -> Outcome {
    let fixture = two_releases();
    tree::release(fixture.beside("source3"), 3);
    fixture.import("source3", "2.0.0");
    let digest = fixture.json(&["show", "1.10.0"])["digest"].clone();
    let manifest = fixture.path("store/manifests/v1.10.0");
    let mut bytes = std::fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&manifest, bytes).unwrap();
    std::fs::rename(fixture.path("versions/v2.0.0"), fixture.beside("gone")).unwrap();
    std::fs::create_dir(fixture.path("versions/v0.1.0")).unwrap();
    std::fs::write(fixture.path("versions/notes.txt"), "no directory").unwrap();
    let list = fixture.json(&["list"]);
    let states: Vec<(String, String)> = list["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| (version["name"].as_str().unwrap().to_owned(), version["state"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("v1.10.0", "damaged-manifest"),
        ("v1.9.0", "unconfirmed"),
        ("v2.0.0", "missing-tree"),
        ("v0.1.0", "unmanaged"),
    ];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    assert_eq!((&list["versions"][0]["digest"], &list["versions"][0]["seq"]), (&digest, &1.into()), "from the history");
    assert_eq!(fixture.json(&["show", "1.10.0"])["state"], "damaged-manifest");
    assert_eq!(fixture.json(&["show", "v0.1.0"])["digest"], Value::Null);
    assert_eq!(fixture.run(&["--json", "ls", "1.10.0"]).expect(5).json()["error"]["kind"], "corrupt");
    assert_eq!(fixture.run(&["--json", "diff", "1.10.0", "1.9.0"]).expect(5).json()["error"]["kind"], "corrupt");
    fixture.run(&["ls", "v0.1.0"]).expect(4);
    fixture.run(&["cat", "2.0.0", "lib/common.so"]).ok();
    // A sound manifest that says something else than what was published is no better.
    std::fs::copy(fixture.path("store/manifests/v1.9.0"), &manifest).unwrap();
    assert_eq!(state(&fixture.json(&["list"]), "v1.10.0"), "damaged-manifest");
    assert_eq!(state(&fixture.json(&["list"]), "v1.9.0"), "unconfirmed");
    Ok(())
}

fn versions_are_found_by_name_role_and_digest() -> Outcome {
    let fixture = two_releases();
    let shown = |selector: &str| fixture.json(&["show", selector])["name"].as_str().unwrap().to_owned();
    let digest = fixture.json(&["show", "v1.9.0"])["digest"].as_str().unwrap().to_owned();
    for (selector, name) in [
        ("1.9.0", "v1.9.0"),
        ("v1.10.0", "v1.10.0"),
        ("current", "v1.9.0"),
        ("factory", "v1.10.0"),
        (&*digest, "v1.9.0"),
        (&digest[..9], "v1.9.0"),
    ] {
        assert_eq!(shown(selector), name, "{selector}");
    }
    fixture.run(&["show", "previous"]).expect(3);
    fixture.run(&["show", "t1:0000000000"]).expect(3);
    fixture.run(&["show", "t1:00"]).expect(2);
    // Of two names for one content the newer one is meant.
    fixture.import("source2", "1.9.1");
    assert_eq!(shown(&digest), "v1.9.1");
    Ok(())
}

fn a_name_that_does_not_exist_offers_the_ones_that_do() -> Outcome {
    let fixture = two_releases();
    let error = fixture.run(&["--json", "show", "1.9"]).expect(3).json()["error"].clone();
    assert_eq!(error, json!({"kind": "not-found", "message": "no such version: v1.9", "hint": "did you mean v1.9.0?"}));
    let ran = fixture.run(&["ls", "7.7.7"]).expect(3);
    assert_eq!(ran.stderr, "error: no such version: v7.7.7\n  see what there is with: tope-store list\n");
    Ok(())
}

fn notes_that_hold_control_characters_cannot_forge_lines() -> Outcome {
    let fixture = two_releases();
    let source = fixture.beside("source1");
    let note = "x\u{1b}[2J\u{202e}y\tz";
    fixture.run(&["import", source.to_str().unwrap(), "--version", "3", "--note", note]).ok();
    let listed = fixture.run(&["list"]).ok().stdout;
    assert!(listed.contains("x\\u{1b}[2J\\u{202e}y\\tz"), "{listed}");
    assert_eq!(fixture.json(&["show", "3"])["note"], note);
    Ok(())
}

fn an_empty_store_lists_nothing() -> Outcome {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&["list"]).ok().stdout, "");
    assert_eq!(fixture.json(&["list"]), json!({"schema": 1, "versions": []}));
    assert_eq!(fixture.json(&["find", "*"]), json!({"schema": 1, "found": []}));
    Ok(())
}
