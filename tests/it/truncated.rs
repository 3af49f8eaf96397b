//! A history that lost events: cut at the end of a line, or replaced by an older copy.
//!
//! On such a log alone everything looks sound. The head, the manifests and the index tell that it is not.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::checker;
use crate::support::{Fixture, Outcome, tree};

tests![
    a_history_that_lost_events_is_in_doubt,
    an_import_does_not_hide_that_events_are_lost,
    what_the_index_knows_of_lost_events_is_kept,
    a_head_that_is_missing_or_damaged_is_made_again,
    a_head_that_is_behind_is_no_doubt,
];

/// Three versions; v1.1.0 is bad, v1.0.0 pinned. `older` holds the files of `store/` before the last import, `oldest`
/// those before the bad mark as well.
fn store() -> Fixture {
    let fixture = Fixture::new();
    for number in 0..2 {
        tree::release(fixture.beside("source"), number);
        fixture.import("source", &format!("1.{number}.0"));
    }
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    copy(&fixture, "oldest");
    fixture.run(&["rollback"]).ok();
    fixture.run(&["pin", "1.0.0"]).ok();
    copy(&fixture, "older");
    tree::release(fixture.beside("source"), 2);
    fixture.import("source", "1.2.0");
    fixture.run(&["activate", "1.2.0"]).ok();
    fixture.run(&["note", "1.2.0", "the last event"]).ok();
    // Brings the index up to date.
    fixture.run(&["list"]).ok();
    fixture
}

fn copy(fixture: &Fixture, name: &str) {
    std::fs::create_dir(fixture.beside(name)).unwrap();
    for file in ["history", "head", "index.db"] {
        // A build without a head has none to copy.
        let _ = std::fs::copy(fixture.path("store").join(file), fixture.beside(name).join(file));
    }
}

fn put_back(root: &Path, beside: &Path, files: &[&str]) {
    for file in files {
        let _ = std::fs::copy(beside.join(file), root.join("store").join(file));
    }
    if files.contains(&"index.db") {
        for companion in ["index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(root.join("store").join(companion));
        }
    }
}

fn cut(fixture: &Fixture, lines: usize) {
    let path = fixture.path("store/history");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: String = text.split_inclusive('\n').take(lines).collect();
    assert!(kept.len() < text.len());
    std::fs::write(path, kept).unwrap();
}

type Loss = (&'static str, fn(&Fixture));

/// How events are lost.
const LOSSES: &[Loss] = &[
    ("the last line is cut", |fixture| {
        let text = std::fs::read_to_string(fixture.path("store/history")).unwrap();
        cut(fixture, text.lines().count() - 1);
    }),
    ("all lines but the imports are cut", |fixture| cut(fixture, 3)),
    ("an older history", |fixture| put_back(&fixture.root(), &fixture.beside("older"), &["history"])),
    ("an older history and head", |fixture| put_back(&fixture.root(), &fixture.beside("oldest"), &["history", "head"])),
    ("an older history, head and index", |fixture| {
        put_back(&fixture.root(), &fixture.beside("oldest"), &["history", "head", "index.db"]);
    }),
    ("an older history without a head", |fixture| {
        put_back(&fixture.root(), &fixture.beside("older"), &["history"]);
        let _ = std::fs::remove_file(fixture.path("store/head"));
    }),
    ("an older history without a head and index", |fixture| {
        put_back(&fixture.root(), &fixture.beside("oldest"), &["history"]);
        for name in ["head", "index.db", "index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(fixture.path("store").join(name));
        }
    }),
    ("no history", |fixture| std::fs::remove_file(fixture.path("store/history")).unwrap()),
];

/// A fresh copy of a store, as it is.
fn fresh(fixture: &Fixture) -> Fixture {
    let copy = Fixture::bare();
    let from = fixture.dir.join(".");
    assert!(Command::new("cp").arg("-a").args([&from, &copy.dir]).status().unwrap().success());
    copy
}

fn kind(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let json = [&["--json"], arguments].concat();
    fixture.run(&json).expect(code).json()["error"]["kind"].clone()
}

fn kinds(document: &Value) -> Vec<&str> {
    let kinds = document["findings"].as_array().unwrap().iter().filter_map(|finding| finding["kind"].as_str());
    // Whether there are processes that nobody may inspect is the machine's to say.
    kinds.filter(|kind| *kind != "processes-hidden").collect()
}

/// Whoever forgets, imports or switches forward refuses; readers say it; a rollback switches, and hides nothing.
fn a_history_that_lost_events_is_in_doubt() -> Outcome {
    let whole = store();
    for (name, lose) in LOSSES {
        let lost = fresh(&whole);
        lose(&lost);
        let missing = *name == "no history";
        let word = if missing { "missing" } else { "doubt" };
        assert_eq!(lost.json(&["status"])["history"], word, "{name}");
        let finding = format!("history-{word}");
        let doctor = lost.run(&["--json", "doctor"]).expect(5).json();
        assert!(kinds(&doctor).contains(&&*finding), "{name}: {doctor:#}");
        lost.run(&["verify", "--quick"]).expect(5);
        if !missing {
            assert!(lost.run(&["list"]).ok().stderr.contains("in doubt"), "{name}");
        }
        let before = |fixture: &Fixture| std::fs::read(fixture.path("store/history")).ok();
        let log = before(&lost);
        let source = lost.beside("source");
        let import = ["import", source.to_str().unwrap(), "--version", "9"];
        for refused in [&["gc", "--keep-last", "1"][..], &["remove", "1.1.0"], &["activate", "1.1.0"], &import] {
            assert_eq!(kind(&lost, refused, 4), "doubt", "{name}: {refused:?}");
        }
        if lost.path("store/index.db").exists() {
            assert_eq!(kind(&lost, &["rebuild-index"], 4), "doubt", "{name}");
        }
        lost.run(&["verify", "--repair"]).expect(5);
        assert_eq!(before(&lost), log, "{name}: nothing was appended");
        assert!(lost.path("versions/v1.2.0").exists() && lost.path("store/manifests/v1.2.0").exists());
        // What must not be refused.
        let forced = fresh(&lost);
        forced.run(&["activate", "1.1.0", "--force"]).ok();
        assert_eq!(forced.link("versions/current"), "v1.1.0");
        for fixture in [&lost, &forced] {
            fixture.run(&["rollback", "--to", "1.0.0", "--force"]).ok();
            assert_eq!(fixture.link("versions/current"), "v1.0.0", "{name}");
            assert_eq!(kind(fixture, &["gc", "--keep-last", "1"], 4), "doubt", "{name}: still in doubt");
            let document = fixture.run(&["--json", "doctor", "--fix"]).expect(0).json();
            let fixed = document["fixed"][0].as_str().unwrap();
            assert!(fixed.starts_with("began the history again: "), "{name}: {document:#}");
            checker::look(&fixture.root()).settled(name);
            let _removed = fixture.run(&["gc", "--keep-last", "3", "--dry-run"]).ok();
            fixture.run(&import).ok();
            assert_eq!(kinds(&fixture.run(&["--json", "doctor"]).expect(0).json()), Vec::<&str>::new(), "{name}");
        }
    }
    Ok(())
}

/// Found in the field: the next import made even `doctor` report no problem, and the bad version was activated.
fn an_import_does_not_hide_that_events_are_lost() -> Outcome {
    let fixture = store();
    put_back(&fixture.root(), &fixture.beside("oldest"), &["history"]);
    let source = fixture.beside("source");
    let _refused = fixture.run(&["import", source.to_str().unwrap(), "--version", "9"]);
    let doctor = fixture.run(&["--json", "doctor"]).json();
    assert!(kinds(&doctor).contains(&"history-doubt"), "{doctor:#}");
    assert_eq!(kind(&fixture, &["activate", "1.1.0"], 4), "doubt");
    Ok(())
}

fn what_the_index_knows_of_lost_events_is_kept() -> Outcome {
    for lose in [&LOSSES[1], &LOSSES[3], &LOSSES[7]] {
        let fixture = store();
        lose.1(&fixture);
        fixture.run(&["doctor", "--fix"]).ok();
        let text = fixture.json(&["history", "--action", "history-reset"])["events"][0]["text"].clone();
        let text = text.as_str().unwrap();
        assert!(
            text.contains("events are lost") && text.contains("of the lost events as written"),
            "{}: {text}",
            lose.0
        );
        assert_eq!(kind(&fixture, &["activate", "1.1.0"], 4), "bad", "{}", lose.0);
        let listed = fixture.json(&["list"]);
        assert_eq!(
            (&listed["versions"][0]["pinned"], &listed["versions"][2]["note"]),
            (&true.into(), &"the last event".into())
        );
    }
    // An index that is not of this history is a hint: pins and bad marks.
    let fixture = store();
    let connection = rusqlite::Connection::open(fixture.path("store/index.db")).unwrap();
    connection.execute("UPDATE meta SET chain = zeroblob(32)", []).unwrap();
    drop(connection);
    cut(&fixture, 3);
    fixture.run(&["doctor", "--fix"]).ok();
    assert_eq!(kind(&fixture, &["activate", "1.1.0"], 4), "bad");
    assert_eq!(fixture.json(&["list"])["versions"][0]["pinned"], true);
    Ok(())
}

fn a_head_that_is_missing_or_damaged_is_made_again() -> Outcome {
    let fixture = store();
    let head = fixture.path("store/head");
    std::fs::remove_file(&head).unwrap();
    assert_eq!(kinds(&fixture.run(&["--json", "doctor"]).expect(1).json()), ["history-head"]);
    fixture.run(&["pin", "1.2.0"]).ok();
    assert!(!head.exists(), "no append makes one");
    let fixed = fixture.json(&["doctor", "--fix"]);
    assert_eq!((kinds(&fixed), &fixed["fixed"][0]), (vec![], &"made the head of the history".into()));
    std::fs::write(&head, [0; 512]).unwrap();
    assert_eq!(kinds(&fixture.run(&["--json", "doctor"]).expect(1).json()), ["history-head"]);
    fixture.run(&["unpin", "1.2.0"]).ok();
    assert_eq!(kinds(&fixture.json(&["doctor"])), Vec::<&str>::new());
    checker::look(&fixture.root()).settled("made again");
    Ok(())
}

fn a_head_that_is_behind_is_no_doubt() -> Outcome {
    let fixture = store();
    put_back(&fixture.root(), &fixture.beside("oldest"), &["head"]);
    assert_eq!(fixture.json(&["status"])["history"], "sound");
    assert_eq!(kinds(&fixture.json(&["doctor"])), Vec::<&str>::new());
    fixture.run(&["note", "1.0.0", "text"]).ok();
    let forward = std::fs::read(fixture.path("store/head")).unwrap();
    assert_ne!(forward, std::fs::read(fixture.beside("oldest/head")).unwrap());
    checker::look(&fixture.root()).settled("brought forward");
    Ok(())
}
