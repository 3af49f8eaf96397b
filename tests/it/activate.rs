//! `activate`

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tope_store::layout::Layout;
use tope_store::model::{Selector, VersionName};
use tope_store::observe::Silent;
use tope_store::ops::switching::Verify;
use tope_store::ops::{activate, rollback};
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, Outcome, Ran, redacted, releases, run_as, tree};

tests![
    services_are_left_alone_unless_a_restart_is_asked_for,
    the_first_activation_and_the_next,
    activating_what_is_current_changes_nothing,
    a_version_is_named_by_digest_prefix_or_role,
    a_digest_of_several_names_means_the_newest,
    a_bad_version_takes_force,
    a_damaged_version_is_refused_and_nothing_moves,
    a_file_replaced_by_one_of_the_same_size_and_time_is_noticed,
    private_files_and_strange_names_stop_nothing,
    a_version_made_by_hand_can_be_activated,
    a_link_changed_by_hand_is_reported_and_recorded_once,
    links_by_hand_are_respelt,
    something_that_is_no_link_is_never_replaced,
    an_import_can_switch,
    a_held_refs_lock_is_named,
    another_user_is_refused,
    readers_never_miss_current_in_ten_thousand_switches
];

fn fail(fixture: &Fixture, arguments: &[&str], code: i32) -> Ran {
    let mut all = vec!["--json"];
    all.extend(arguments);
    fixture.run(&all).expect(code)
}

fn the_first_activation_and_the_next() -> Outcome {
    let fixture = releases(2);
    let ran = fixture.run(&["activate", "1.0.0"]).ok();
    assert_eq!(ran.stdout, "current is now v1.0.0\n");
    let ran = fixture.run(&["activate", "v1.1.0"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("current is now v1.1.0 (was v1.0.0)\n", ""));
    assert_eq!(
        (fixture.link("versions/current"), fixture.link("versions/previous")),
        ("v1.1.0".into(), "v1.0.0".into())
    );
    let document = fixture.json(&["activate", "1.0.0", "--reason", "test"]);
    let digest = document["digest"].clone();
    let expected = json!({
        "schema": 1, "from": "v1.1.0", "to": "v1.0.0", "level": 0, "outcome": "done", "digest": digest,
        "previous": "v1.1.0", "external_changes": [], "warnings": [],
        "switched_after_ms": "…", "elapsed_ms": "…",
    });
    assert_eq!(redacted(&fixture, &document), expected);
    let switched = std::fs::read_to_string(fixture.path("versions/.switched")).unwrap();
    assert!(switched.starts_with("v1.0.0 "), "{switched}");
    fail(&fixture, &["activate", "7.7.7"], 3);
    Ok(())
}

fn activating_what_is_current_changes_nothing() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    let before = tree::describe(&fixture.root(), false);
    let document = fixture.json(&["activate", "1.1.0"]);
    assert_eq!((&document["outcome"], &document["from"]), (&"unchanged".into(), &"v1.1.0".into()));
    assert_eq!(fixture.run(&["activate", "current"]).ok().stdout, "v1.1.0 is current already\n");
    assert!(before == tree::describe(&fixture.root(), false), "something was written");
    Ok(())
}

fn a_version_is_named_by_digest_prefix_or_role() -> Outcome {
    let fixture = releases(3);
    let prefix = |version: &str| fixture.json(&["activate", version])["digest"].as_str().unwrap()[..15].to_owned();
    let (first, _) = (prefix("1.0.0"), prefix("1.1.0"));
    assert_eq!(fixture.json(&["activate", &first])["to"], "v1.0.0");
    assert_eq!(fixture.json(&["activate", "previous"])["to"], "v1.1.0");
    // The history is only one of two sources.
    std::fs::write(fixture.path("store/history"), "garbage\n").unwrap();
    assert_eq!(fixture.json(&["activate", &first])["to"], "v1.0.0");
    fail(&fixture, &["activate", "t1:0000000000"], 3);
    fail(&fixture, &["activate", "factory"], 3);
    fail(&fixture, &["activate", "t1:ab"], 2);
    Ok(())
}

fn a_digest_of_several_names_means_the_newest() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let digest = fixture.import("source", "1.0.0")["digest"].as_str().unwrap()[..12].to_owned();
    fixture.import("source", "1.0.0-again");
    assert_eq!(fixture.json(&["activate", &digest])["to"], "v1.0.0-again");
    Ok(())
}

fn a_bad_version_takes_force() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback", "--reason", "smoke"]).ok();
    let error = fail(&fixture, &["activate", "1.1.0"], 4).json()["error"].clone();
    assert_eq!((&error["kind"], &error["message"]), (&"bad".into(), &"v1.1.0 is marked bad: operator: smoke".into()));
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    fixture.run(&["activate", "1.1.0", "--force"]).ok();
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    Ok(())
}

/// Writes to a sealed file behind the store's back, as root can.
fn scribble(fixture: &Fixture, path: &str, bytes: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = fixture.path(path);
    let sealed = std::fs::metadata(&path).unwrap().permissions();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, sealed).unwrap();
}

fn a_damaged_version_is_refused_and_nothing_moves() -> Outcome {
    type Damage = fn(&Fixture);
    let damages: &[(&str, Damage)] = &[
        ("it was written to: its modification time changed", |f| {
            scribble(f, "versions/v1.1.0/services/web-server/index.html", "<p>2</p>\n");
        }),
        ("it has 1 bytes instead of 9", |f| scribble(f, "versions/v1.1.0/services/web-server/index.html", "x")),
        ("it is not there", |f| std::fs::remove_file(f.path("versions/v1.1.0/lib/lock")).unwrap()),
        ("it is not there", |f| std::fs::remove_dir(f.path("versions/v1.1.0/empty")).unwrap()),
        ("it leads to /etc instead of common.so", |f| {
            std::fs::remove_file(f.path("versions/v1.1.0/lib/common.so.1")).unwrap();
            symlink("/etc", f.path("versions/v1.1.0/lib/common.so.1")).unwrap();
        }),
        ("it is not a directory", |f| {
            std::fs::remove_dir(f.path("versions/v1.1.0/empty")).unwrap();
            symlink("lib", f.path("versions/v1.1.0/empty")).unwrap();
        }),
        ("its mode is 0644 instead of 0444", |f| {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(f.path("versions/v1.1.0/lib/common.so"), mode).unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let fixture = releases(2);
        fixture.run(&["activate", "1.0.0"]).ok();
        damage(&fixture);
        let error = fail(&fixture, &["activate", "1.1.0"], 4).json()["error"].clone();
        assert_eq!(error["kind"], "unhealthy");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message} instead of {expected}");
        assert_eq!(fixture.link("versions/current"), "v1.0.0");
        fixture.run(&["activate", "1.1.0", "--verify", "none"]).ok();
    }
    // A manifest that cannot be trusted is corruption, and says nothing about the tree.
    let fixture = releases(1);
    std::fs::write(fixture.path("store/manifests/v1.0.0"), "x").unwrap();
    fail(&fixture, &["activate", "1.0.0"], 5);
    fixture.run(&["activate", "1.0.0", "--verify", "none"]).ok();
    Ok(())
}

/// Size and time of a file are no proof: between real releases files keep both and change.
fn a_file_replaced_by_one_of_the_same_size_and_time_is_noticed() -> Outcome {
    let fixture = releases(1);
    let path = fixture.path("versions/v1.0.0/lib/common.so");
    let (before, size) = (std::fs::metadata(&path).unwrap(), 100_000);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![8_u8; size]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.set_permissions(before.permissions()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let message = fail(&fixture, &["activate", "1.0.0"], 4).json()["error"]["message"].clone();
    assert_eq!(message, "v1.0.0 fails its check: lib/common.so: its contents differ");
    // The same bytes in another inode are as good.
    std::fs::write(&path, vec![7_u8; size]).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    fixture.run(&["activate", "1.0.0"]).ok();
    Ok(())
}

fn private_files_and_strange_names_stop_nothing() -> Outcome {
    let fixture = Fixture::new();
    std::fs::write(
        fixture.config(),
        "[import]\nprivate = [\"services/*/data/**\"]\nshared = [\"services/device-api/state\"]\n",
    )
    .unwrap();
    tree::release(fixture.beside("source"), 1);
    tree::file(fixture.beside("source/services/device-api/data/db"), "first");
    tree::file(fixture.beside("source/services/device-api/state/seed"), "first");
    fixture.import("source", "1.0.0");
    let version = fixture.path("versions/v1.0.0");
    std::fs::write(version.join("services/device-api/data/db"), "and more").unwrap();
    std::fs::write(version.join("services/device-api/data/new"), "").unwrap();
    std::fs::write(fixture.path("shared/services/device-api/state/seed"), "changed").unwrap();
    tree::file(version.join("lib/__pycache__/x.pyc"), "compiled");
    for depth in ["quick", "full"] {
        fixture.run(&["activate", "1.0.0", "--verify", depth]).ok();
        let health = fixture.json(&["status", "--verify", depth])["health"].clone();
        let detail = "a directory that is no part of the version";
        let problem = json!({
            "kind": "unexpected", "version": "v1.0.0", "path": "lib/__pycache__", "detail": detail, "damage": false,
        });
        assert_eq!((&health["ok"], &health["problems"]), (&true.into(), &json!([problem])), "{depth}");
        std::fs::remove_file(fixture.path("versions/current")).unwrap();
        fixture.run(&["activate", "1.0.0", "--verify", depth]).ok();
    }
    Ok(())
}

fn a_version_made_by_hand_can_be_activated() -> Outcome {
    let fixture = releases(1);
    tree::release(fixture.path("versions/v0.9"), 0);
    let document = fixture.json(&["activate", "0.9"]);
    assert_eq!((&document["to"], &document["digest"]), (&"v0.9".into(), &().into()));
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1);
    std::fs::write(fixture.path("versions/v0.8"), "no directory").unwrap();
    fail(&fixture, &["activate", "0.8"], 3);
    assert_eq!(fixture.json(&["status"])["unmanaged"], json!(["v0.9"]));
    Ok(())
}

fn a_link_changed_by_hand_is_reported_and_recorded_once() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    for (link, target) in [("current", "v1.1.0"), ("factory", "v1.1.0")] {
        std::fs::remove_file(fixture.path("versions").join(link)).unwrap();
        symlink(target, fixture.path("versions").join(link)).unwrap();
    }
    let status = fixture.json(&["status"]);
    let told = ["current", "previous", "factory"].map(|role| status[role]["changed_by_hand"].clone());
    assert_eq!(told, [true.into(), false.into(), serde_json::Value::from(true)]);
    let found = fixture.json(&["activate", "1.2.0"])["external_changes"].clone();
    assert_eq!(found, json!(["current was v1.0.0, found v1.1.0", "factory was v1.0.0, found v1.1.0"]));
    assert_eq!(fixture.json(&["activate", "1.0.0"])["external_changes"], json!([]));
    let events = fixture.json(&["history", "--action", "external-change"])["events"].clone();
    assert_eq!(events.as_array().unwrap().len(), 2);
    // What was set as factory stays known, whatever became of its link.
    assert_eq!(fixture.json(&["status"])["factory"]["recorded"], "v1.0.0");
    fail(&fixture, &["factory", "set", "1.1.0"], 4);
    fixture.run(&["factory", "set", "1.1.0", "--replace"]).ok();
    assert_eq!(fixture.json(&["status"])["factory"]["changed_by_hand"], false);
    Ok(())
}

/// The guide writes absolute links, with a slash at the end, and `current` through `factory`.
fn links_by_hand_are_respelt() -> Outcome {
    let fixture = releases(2);
    let link = |name: &str, target: &std::path::Path| {
        let _ = std::fs::remove_file(fixture.path("versions").join(name));
        symlink(target, fixture.path("versions").join(name)).unwrap();
    };
    link("factory", &fixture.path("versions/v1.0.0/"));
    link("current", &fixture.path("versions/factory"));
    let status = fixture.json(&["status"]);
    assert_eq!((&status["current"]["version"], &status["current"]["link"]), (&"v1.0.0".into(), &"through-role".into()));
    assert_eq!(status["factory"]["link"], "roundabout");
    fixture.run(&["activate", "1.1.0"]).ok();
    let links = ["current", "previous", "factory"].map(|role| fixture.link(&format!("versions/{role}")));
    assert_eq!(links, ["v1.1.0", "v1.0.0", "v1.0.0"]);
    link("current", &fixture.path("versions/v1.1.0"));
    assert_eq!(fixture.json(&["activate", "1.1.0"])["outcome"], "unchanged");
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    Ok(())
}

fn something_that_is_no_link_is_never_replaced() -> Outcome {
    let fixture = releases(1);
    tree::file(fixture.path("versions/current/precious"), "data");
    let error = fail(&fixture, &["activate", "1.0.0"], 4).json()["error"].clone();
    assert_eq!(error["kind"], "foreign-file");
    assert_eq!(std::fs::read(fixture.path("versions/current/precious")).unwrap(), b"data");
    fail(&fixture, &["status"], 3);
    Ok(())
}

fn an_import_can_switch() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["activate", "1.0.0"]).ok();
    tree::release(fixture.beside("source"), 7);
    let source = fixture.beside("source");
    let source = source.to_str().unwrap();
    let ran = fixture.run(&["import", source, "--version", "1.7.0", "--activate"]).ok();
    assert!(ran.stdout.ends_with("current is now v1.7.0 (was v1.0.0)\n"), "{ran:?}");
    let document = fixture.json(&["import", source, "--version", "1.7.0", "--activate"]);
    assert_eq!((&document["already_there"], &document["activated"]["outcome"]), (&true.into(), &"unchanged".into()));
    fixture.run(&["import", source, "--version", "1.8.0", "--activate", "--dry-run"]).expect(2);
    // Bad stays bad under another name, and the import stands all the same.
    fixture.run(&["rollback"]).ok();
    fail(&fixture, &["import", source, "--version", "1.9.0", "--activate"], 4);
    assert!(fixture.path("versions/v1.9.0").is_dir());
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    Ok(())
}

fn a_held_refs_lock_is_named() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    let held = std::fs::File::options().append(true).open(fixture.path("store/refs.lock")).unwrap();
    held.lock().unwrap();
    for arguments in [&["activate", "1.1.0"][..], &["rollback"]] {
        let arguments = [&["--lock-timeout", "0.1"][..], arguments].concat();
        let error = fail(&fixture, &arguments, 6).json()["error"].clone();
        assert_eq!(error["kind"], "locked");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("refs.lock is held by pid {} (", std::process::id())), "{message}");
    }
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    Ok(())
}

fn another_user_is_refused() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    for arguments in [
        &["activate", "1.1.0"][..],
        &["rollback"],
        &["confirm"],
        &["pin", "1.0.0"],
        &["note", "1.0.0", "x"],
        &["factory", "set", "1.0.0"],
        &["link"],
    ] {
        let ran = run_as(&fixture, 65534, arguments)?.expect(4);
        let said =
            "error: this store belongs to user 0, and you are user 65534\n  run the command as that user or as root\n";
        assert_eq!(ran.stderr, said, "{arguments:?}");
    }
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    Ok(())
}

/// I-4: nobody, at any instant, finds `current` missing, dangling, or half of one version and half of another.
fn readers_never_miss_current_in_ten_thousand_switches() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    let layout = Layout::new(fixture.root(), None);
    let store = Store::open(layout, Settings::default()).unwrap();
    let versions: Vec<VersionName> = ["1.0.0", "1.1.0", "1.2.0"].map(|name| name.parse().unwrap()).into();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let program = fixture.path("versions/current/bin/device-api");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let text = std::fs::read_to_string(&program).expect("current is there at every instant");
                    assert!(text.starts_with("#!/bin/sh\necho "), "{text}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let stop = Stop(&done);
        let refs = store.refs().unwrap();
        for turn in 0..9_700 {
            let locked = refs.lock(Duration::from_secs(10)).unwrap();
            // Not made durable each time: that is what takes long, and nobody crashes here.
            let _ = locked.activate(&versions[turn % 3]).unwrap();
            if turn % 5 == 4 {
                let _ = locked.roll_back_to_previous().unwrap();
            }
        }
        for turn in 0..300 {
            let options = activate::Options { verify: Verify::None, ..activate::Options::default() };
            let target = Selector::Name(versions[turn % 3].clone());
            let _ = activate::activate(&store, &target, &options, &Silent).unwrap();
            if turn % 5 == 4 {
                let options = rollback::Options { left: rollback::Left::Unmarked, ..rollback::Options::default() };
                let _ = rollback::rollback(&store, &options, &Silent).unwrap();
            }
        }
        drop(stop);
    });
    assert!(reads.into_inner() > 1000);
    fixture.run(&["status", "--verify", "full"]).ok();
    Ok(())
}

/// Ends the readers, also when the writer fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn services_are_left_alone_unless_a_restart_is_asked_for() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    fixture.import("source", "1.0.0");
    let asked = fixture.beside("asked").display().to_string();
    let verbs = ["start", "stop", "restart", "status"];
    let templates = verbs.map(|verb| format!("{verb} = [\"sh\", \"-c\", \"touch {asked}\", \"{{unit}}\"]\n")).concat();
    let config = format!("[supervisor]\nkind = \"command\"\n{templates}[[service]]\nunit = \"a\"\nsettle = \"0s\"\n");
    std::fs::write(fixture.config(), config).unwrap();
    let ran = fixture.run(&["activate", "1.0.0"]).ok();
    assert_eq!((ran.stderr.as_str(), fixture.beside("asked").exists()), ("", false));
    fixture.run(&["activate", "1.0.0", "--restart=all"]).ok();
    assert!(fixture.beside("asked").exists());
    Ok(())
}
