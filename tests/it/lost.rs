//! Trees that are gone: a protected version stays, an unprotected one is forgotten with a message, and nothing is changed
//! while most are gone at once.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, needs_root, releases, tree};

tests![
    a_protected_version_whose_tree_is_gone_is_kept_and_built_again,
    every_protection_keeps_a_lost_version,
    an_unprotected_version_whose_tree_is_gone_is_forgotten_with_a_message,
    in_doubt_a_lost_version_is_kept,
    a_lost_version_cannot_be_activated,
    while_most_trees_are_gone_nothing_is_changed,
    a_mount_over_versions_is_never_filled,
    a_mount_over_manifests_or_objects_stops_every_change,
    lost_manifests_stop_every_change_and_come_back,
    a_copy_of_a_store_knows_its_versions,
];

fn lose(fixture: &Fixture, version: &str) {
    // The directories of the factory version have no write bits.
    let top = fixture.path("versions").join(version);
    let writable = Command::new("find").arg(&top).args(["-type", "d", "-exec", "chmod", "u+w", "{}", "+"]).status();
    assert!(writable.unwrap().success());
    std::fs::remove_dir_all(top).unwrap();
}

fn state(fixture: &Fixture, version: &str) -> String {
    let list = fixture.json(&["list"]);
    let found = list["versions"].as_array().unwrap().iter().find(|listed| listed["name"] == version);
    found.map_or_else(|| "gone".into(), |listed| listed["state"].as_str().unwrap().to_owned())
}

/// A command that recovers and changes nothing else.
fn recover(fixture: &Fixture) -> Value {
    fixture.json(&["gc", "--keep-last", "99", "--keep-within", "9999d"])
}

fn import(fixture: &Fixture, version: &str) -> Value {
    tree::release(fixture.beside("another"), 77);
    fixture.import("another", version)
}

/// After `confirm; pin; rm -rf`, any import, a gc, or a plain repair lost the version, whose objects were all there.
fn a_protected_version_whose_tree_is_gone_is_kept_and_built_again() -> Outcome {
    let fixture = releases(4);
    fixture.run(&["confirm", "1.1.0"]).ok();
    fixture.run(&["pin", "1.1.0"]).ok();
    lose(&fixture, "v1.1.0");
    import(&fixture, "9.0.0");
    let report = recover(&fixture);
    assert_eq!(report["forgotten"], json!([]));
    let kept = report["kept"].as_array().unwrap().iter().find(|kept| kept["name"] == "v1.1.0").unwrap();
    assert_eq!(kept["reasons"][0], "pinned");
    assert_eq!(state(&fixture, "v1.1.0"), "missing-tree");
    let status = fixture.run(&["--json", "status"]).json();
    assert_eq!((&status["missing_tree"], &status["loss"]), (&json!(["v1.1.0"]), &Value::Null));
    assert!(fixture.run(&["status"]).stdout.contains("missing-tree v1.1.0"));
    let verified = fixture.run(&["--json", "verify"]).expect(5).json();
    let found: Vec<_> = verified["problems"].as_array().unwrap().iter().map(|p| (&p["kind"], &p["version"])).collect();
    assert_eq!(found, [(&json!("missing-tree"), &json!("v1.1.0"))]);
    let doctor = fixture.run(&["--json", "doctor", "--bin-dir", "/nowhere"]).json();
    let named = |finding: &Value| finding["kind"] == "missing-tree" && finding["version"] == "v1.1.0";
    assert!(doctor["findings"].as_array().unwrap().iter().any(named), "{doctor:#}");
    let repaired = fixture.json(&["verify", "--repair"]);
    assert_eq!(repaired["repair"]["mended"][0]["version"], "v1.1.0");
    assert_eq!(state(&fixture, "v1.1.0"), "good");
    tree::release(fixture.beside("one"), 1);
    tree::assert_same(&fixture.beside("one"), &fixture.path("versions/v1.1.0"));
    Ok(())
}

fn every_protection_keeps_a_lost_version() -> Outcome {
    type Protect = fn(&Fixture);
    let protections: [(&str, Protect); 6] = [
        ("pinned", |fixture| drop(fixture.run(&["pin", "1.0.0"]).ok())),
        ("good and not the newest", |fixture| {
            for version in ["1.0.0", "1.2.0"] {
                fixture.run(&["confirm", version]).ok();
            }
        }),
        ("current", |fixture| drop(fixture.run(&["activate", "1.0.0"]).ok())),
        ("recorded as previous", |fixture| {
            for version in ["1.0.0", "1.1.0"] {
                fixture.run(&["activate", version]).ok();
            }
            std::fs::remove_file(fixture.path("versions/previous")).unwrap();
        }),
        ("recorded as factory", |fixture| {
            fixture.run(&["factory", "set", "1.0.0"]).ok();
            std::fs::remove_file(fixture.path("versions/factory")).unwrap();
        }),
        ("on trial", |fixture| {
            std::fs::write(fixture.path("store/trial"), "a trial in another format, of v1.0.0").unwrap();
        }),
    ];
    for (what, protect) in protections {
        let fixture = releases(4);
        protect(&fixture);
        lose(&fixture, "v1.0.0");
        for _ in 0..2 {
            assert_eq!(recover(&fixture)["forgotten"], json!([]), "{what}");
            assert_eq!(state(&fixture, "v1.0.0"), "missing-tree", "{what}");
        }
        fixture.run(&["verify", "--repair"]);
        assert!(fixture.path("versions/v1.0.0/bin").is_dir(), "{what}");
    }
    Ok(())
}

fn an_unprotected_version_whose_tree_is_gone_is_forgotten_with_a_message() -> Outcome {
    let fixture = releases(4);
    lose(&fixture, "v1.1.0");
    let dry = fixture.json(&["gc", "--keep-last", "99", "-n"]);
    assert_eq!((&dry["forgotten"], state(&fixture, "v1.1.0").as_str()), (&json!(["v1.1.0"]), "missing-tree"));
    assert_eq!(recover(&fixture)["forgotten"], json!(["v1.1.0"]));
    assert_eq!(state(&fixture, "v1.1.0"), "gone");
    lose(&fixture, "v1.2.0");
    tree::release(fixture.beside("another"), 77);
    let source = fixture.beside("another");
    let ran = fixture.run(&["--json", "import", source.to_str().unwrap(), "--version", "9.0.0"]).ok();
    let warning = &ran.json()["warnings"][0];
    assert_eq!(warning["kind"], "forgotten");
    assert!(warning["message"].as_str().unwrap().starts_with("v1.2.0 is forgotten"));
    assert!(ran.stderr.contains("v1.2.0 is forgotten: its tree was removed by hand"), "{ran:#?}");
    let events = fixture.json(&["history", "--version", "1.2.0"]);
    assert_eq!(events["events"][0]["action"], "removed-by-hand");
    // A plain repair builds it again, whether anything protects it or not.
    lose(&fixture, "v1.3.0");
    fixture.run(&["verify", "--repair"]).ok();
    assert_eq!(state(&fixture, "v1.3.0"), "unconfirmed");
    Ok(())
}

fn in_doubt_a_lost_version_is_kept() -> Outcome {
    type Doubt = fn(&Fixture);
    let doubts: [(&str, Doubt); 3] = [
        ("its manifest is damaged", |fixture| {
            let path = fixture.path("store/manifests/v1.0.0");
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("the history is damaged", |fixture| {
            let text = std::fs::read_to_string(fixture.path("store/history")).unwrap();
            std::fs::write(fixture.path("store/history"), text.replacen("v1.2.0", "v1.9.0", 1)).unwrap();
        }),
        ("the trial cannot be read", |fixture| std::fs::write(fixture.path("store/trial"), "garbage").unwrap()),
    ];
    for (what, doubt) in doubts {
        let fixture = releases(4);
        lose(&fixture, "v1.0.0");
        doubt(&fixture);
        tree::release(fixture.beside("another"), 77);
        for command in [
            &["import", fixture.beside("another").to_str().unwrap(), "--version", "9.0.0"][..],
            &["gc", "--keep-last", "99"],
            &["adopt"],
        ] {
            fixture.run(command);
            assert!(fixture.path("store/manifests/v1.0.0").exists(), "{what}: {command:?}");
        }
    }
    Ok(())
}

fn a_lost_version_cannot_be_activated() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["pin", "1.0.0"]).ok();
    lose(&fixture, "v1.0.0");
    for verify in ["quick", "none"] {
        let refused = fixture.run(&["--json", "activate", "1.0.0", "--verify", verify, "--force"]).expect(4).json();
        assert_eq!(refused["error"]["message"], "v1.0.0 is missing-tree: its tree is gone");
        assert_eq!(refused["error"]["hint"], "build it again with: tope-store verify v1.0.0 --repair");
    }
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    fixture.run(&["verify", "1.0.0", "--repair"]).ok();
    fixture.run(&["activate", "1.0.0"]).ok();
    Ok(())
}

/// Every command that changes anything must refuse, and name what it found.
#[track_caller]
fn nothing_is_changed(fixture: &Fixture, found: &str) {
    tree::release(fixture.beside("another"), 77);
    let (source, root) = (fixture.beside("another"), fixture.path(""));
    let manifests = || std::fs::read_dir(root.join("store/manifests")).unwrap().count();
    let (before, history) = (manifests(), std::fs::read(root.join("store/history")).unwrap());
    for command in [
        &["import", source.to_str().unwrap(), "--version", "9.0.0"][..],
        &["init"],
        &["adopt"],
        &["activate", "1.1.0"],
        &["confirm", "1.1.0"],
        &["pin", "1.1.0"],
        &["unpin", "1.1.0"],
        &["note", "1.1.0", "text"],
        &["remove", "1.1.0"],
        &["gc", "--keep-last", "1"],
        &["factory", "set", "1.1.0"],
        &["link", "--bin-dir", "/nowhere"],
        &["rebuild-index"],
        &["doctor", "--fix", "--bin-dir", "/nowhere"],
    ] {
        let ran = fixture.run(&[&["--json"], command].concat());
        assert_eq!(ran.code, 4, "{command:?}: {ran:#?}");
        let document = ran.json();
        let message = document["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(found), "{command:?}: {message}");
        assert!(document["error"]["hint"].is_string(), "{command:?}");
    }
    assert_eq!((manifests(), std::fs::read(root.join("store/history")).unwrap()), (before, history));
    let status = fixture.run(&["--json", "status"]).json();
    assert!(status["loss"].as_str().unwrap().contains(found), "{status:#}");
}

fn while_most_trees_are_gone_nothing_is_changed() -> Outcome {
    let fixture = releases(4);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    for version in ["v1.0.0", "v1.2.0", "v1.3.0"] {
        lose(&fixture, version);
    }
    nothing_is_changed(&fixture, "the trees of 3 of 4 versions are gone from versions at once");
    let verified = fixture.run(&["--json", "verify"]).expect(5).json();
    let kinds: Vec<&str> =
        verified["problems"].as_array().unwrap().iter().map(|p| p["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "missing-tree").count(), 3, "{verified:#}");
    assert!(kinds.contains(&"loss"), "{verified:#}");
    // The fire exit looks for a way and finds none; it is not refused for the loss.
    assert!(!fixture.run(&["rollback"]).stderr.contains("nothing is changed"));
    // Another directory in its place is not filled.
    std::fs::rename(fixture.path("versions"), fixture.path("aside")).unwrap();
    std::fs::create_dir(fixture.path("versions")).unwrap();
    let refused = fixture.run(&["verify", "--repair"]).expect(4);
    assert!(refused.stderr.contains("versions/ is not the directory that this store made"), "{refused:#?}");
    std::fs::remove_dir(fixture.path("versions")).unwrap();
    std::fs::rename(fixture.path("aside"), fixture.path("versions")).unwrap();
    fixture.run(&["verify", "--repair"]).ok();
    assert_eq!(fixture.json(&["verify"])["problems"], json!([]));
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 4);
    Ok(())
}

/// A mount over a directory, taken away when dropped.
struct Over<'a>(&'a Path);

impl<'a> Over<'a> {
    fn new(what: &Path, place: &'a Path) -> Self {
        assert!(Command::new("mount").arg("--bind").args([what, place]).status().unwrap().success());
        Self(place)
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn a_mount_over_versions_is_never_filled() -> Outcome {
    needs_root()?;
    let fixture = releases(4);
    fixture.run(&["pin", "1.0.0"]).ok();
    let (other, place) = (fixture.beside("other"), fixture.path("versions"));
    std::fs::create_dir(&other).unwrap();
    // It is a mount even where it bears the mark and holds everything.
    for copied in [false, true] {
        if copied {
            std::fs::remove_dir(&other).unwrap();
            assert!(Command::new("cp").arg("-a").args([&place, &other]).status().unwrap().success());
        }
        let mounted = Over::new(&other, &place);
        nothing_is_changed(&fixture, "another file system is mounted over versions");
        fixture.run(&["verify", "--repair"]).expect(4);
        drop(mounted);
    }
    assert_eq!(fixture.json(&["verify"])["problems"], json!([]));
    Ok(())
}

fn a_mount_over_manifests_or_objects_stops_every_change() -> Outcome {
    needs_root()?;
    let fixture = releases(3);
    let other = fixture.beside("other");
    std::fs::create_dir(&other).unwrap();
    for part in ["manifests", "objects"] {
        let place = fixture.path("store").join(part);
        let mounted = Over::new(&other, &place);
        nothing_is_changed(&fixture, &format!("another file system is mounted over store/{part}"));
        fixture.run(&["verify", "--repair"]).expect(4);
        // Nor does a question give up what the index knows.
        fixture.run(&["list"]);
        drop(mounted);
    }
    assert_eq!(fixture.json(&["verify"])["problems"], json!([]));
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn lost_manifests_stop_every_change_and_come_back() -> Outcome {
    let fixture = releases(3);
    let place = fixture.path("store/manifests");
    for name in ["v1.0.0", "v1.1.0", "v1.2.0"] {
        std::fs::remove_file(place.join(name)).unwrap();
    }
    fixture.run(&["list"]);
    nothing_is_changed(&fixture, "the manifests of 3 of 3 versions are gone from store/manifests at once");
    fixture.run(&["verify", "--repair"]).ok();
    assert_eq!(fixture.json(&["verify"])["problems"], json!([]));
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn a_copy_of_a_store_knows_its_versions() -> Outcome {
    let fixture = releases(3);
    let copy = Fixture::bare();
    assert!(Command::new("cp").arg("-a").args([fixture.root(), copy.root()]).status().unwrap().success());
    for version in ["v1.0.0", "v1.2.0"] {
        lose(&copy, version);
    }
    recover_is_refused(&copy);
    copy.run(&["verify", "--repair"]).ok();
    // A copy that left out hidden files gets its mark with the next import, while most trees are there.
    std::fs::remove_file(copy.path("versions/.identity")).unwrap();
    import(&copy, "9.0.0");
    let line = |path: &str| std::fs::read_to_string(copy.path(path)).unwrap();
    assert_eq!(line("versions/.identity"), line("store/identity"));
    Ok(())
}

fn recover_is_refused(fixture: &Fixture) {
    fixture.run(&["gc", "--keep-last", "99"]).expect(4);
}
