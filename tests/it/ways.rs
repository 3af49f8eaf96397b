//! Where a rollback finds no way by itself: the versions that it names, and `rollback --list`.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, releases, run_as, tree};

tests![
    what_ran_is_named_the_last_first_and_what_is_bad_last,
    what_never_ran_is_named_where_nothing_ran,
    a_bad_previous_alone_is_refused_with_better_ways,
    without_a_history_every_tree_is_a_way,
    a_list_changes_nothing_and_is_for_every_user,
];

/// The candidates of a refused rollback, each as version, state and command.
#[track_caller]
fn refused(fixture: &Fixture, code: i32) -> Vec<[String; 3]> {
    let document = fixture.run(&["--json", "rollback"]).expect(code).json();
    let ways = named(&document["error"]["candidates"]);
    // People see the same.
    let said = fixture.run(&["rollback"]).expect(code).stderr;
    let commands = said.lines().filter_map(|line| line.find("tope-store ").map(|at| line[at..].to_owned()));
    let printed: Vec<String> = commands.filter(|command| !command.contains("import")).collect();
    assert_eq!(printed, ways.iter().map(|way| way[2].clone()).collect::<Vec<_>>(), "{said}");
    ways
}

fn named(candidates: &Value) -> Vec<[String; 3]> {
    let candidates = candidates.as_array().expect("candidates").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    candidates.map(|one| ["version", "state", "command"].map(|field| text(&one[field]))).collect()
}

fn way(version: &str, state: &str, command: &str) -> [String; 3] {
    [version.to_owned(), state.to_owned(), format!("tope-store {command}")]
}

/// Runs a command as it was printed.
fn follow(fixture: &Fixture, [_, _, command]: &[String; 3]) {
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    fixture.run(&words).ok();
}

fn what_ran_is_named_the_last_first_and_what_is_bad_last() -> Outcome {
    let fixture = releases(5);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        fixture.run(&["activate", version]).ok();
    }
    // Both that are left are bad, and nothing older is there.
    fixture.run(&["rollback"]).ok();
    fixture.run(&["rollback"]).ok();
    let bad = |version: &str| way(version, "bad", &format!("rollback --to {version} --force"));
    assert_eq!(refused(&fixture, 3), [bad("v1.1.0"), bad("v1.2.0")], "v1.1.0 became current after v1.2.0");
    // What is good is a way although it never ran.
    fixture.run(&["confirm", "1.3.0"]).ok();
    fixture.run(&["confirm", "1.2.0"]).ok();
    let good = |version: &str| way(version, "good", &format!("rollback --to {version}"));
    let ways = refused(&fixture, 3);
    assert_eq!(ways, [good("v1.2.0"), good("v1.3.0"), bad("v1.1.0")]);
    let listed = fixture.json(&["rollback", "--list"]);
    crate::documents::assert_documented("rollback", &listed);
    assert_eq!(named(&listed["candidates"]), ways);
    assert_eq!((&listed["current"], &listed["to"], &listed["doubt"]), (&json!("v1.0.0"), &json!(null), &json!(null)));
    let events = fixture.json(&["history", "--action", "activate", "--version", "1.2.0"]);
    assert_eq!(listed["candidates"][0]["last_current"], events["events"][0]["time"]);
    assert_eq!(listed["candidates"][1]["last_current"], json!(null));
    for way in &ways {
        let copy = fixture.link("versions/current");
        follow(&fixture, way);
        assert_eq!(fixture.link("versions/current"), way[0]);
        fixture.run(&["activate", &copy, "--force"]).ok();
    }
    Ok(())
}

fn what_never_ran_is_named_where_nothing_ran() -> Outcome {
    let fixture = releases(2);
    tree::file(fixture.path("versions/by-hand/file"), "x");
    let ways = refused(&fixture, 3);
    let expected = [
        way("v1.1.0", "unconfirmed", "activate v1.1.0"),
        way("v1.0.0", "unconfirmed", "activate v1.0.0"),
        way("by-hand", "unmanaged", "activate by-hand"),
    ];
    assert_eq!(ways, expected);
    follow(&fixture, &ways[1]);
    assert_eq!(refused(&fixture, 3), [&expected[0], &expected[2]].map(Clone::clone), "what runs is no way");
    // Nothing at all.
    let fixture = releases(0);
    assert_eq!(refused(&fixture, 3), Vec::<[String; 3]>::new());
    let said = fixture.run(&["rollback"]).expect(3).stderr;
    assert!(said.contains("there is no other version here"), "{said}");
    Ok(())
}

fn a_bad_previous_alone_is_refused_with_better_ways() -> Outcome {
    let fixture = releases(3);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["rollback"]).ok();
    fixture.run(&["activate", "1.2.0"]).ok();
    std::fs::remove_file(fixture.path("versions/previous")).unwrap();
    symlink("v1.1.0", fixture.path("versions/previous")).unwrap();
    assert_eq!(fixture.run(&["--json", "rollback"]).expect(4).json()["error"]["kind"], "bad");
    let expected =
        [way("v1.0.0", "unconfirmed", "rollback --to v1.0.0"), way("v1.1.0", "bad", "rollback --to v1.1.0 --force")];
    assert_eq!(refused(&fixture, 4), expected);
    Ok(())
}

fn without_a_history_every_tree_is_a_way() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::remove_file(fixture.path("store/manifests/v1.2.0")).unwrap();
    std::fs::remove_file(fixture.path("store/history")).unwrap();
    std::fs::create_dir(fixture.path("store/history")).unwrap();
    let expected =
        [way("v1.1.0", "unconfirmed", "rollback --to v1.1.0"), way("v1.2.0", "unmanaged", "rollback --to v1.2.0")];
    let ways = refused(&fixture, 3);
    assert_eq!(ways, expected);
    let listed = fixture.json(&["rollback", "--list"]);
    assert!(listed["doubt"].is_string(), "{listed}");
    follow(&fixture, &ways[0]);
    Ok(())
}

fn a_list_changes_nothing_and_is_for_every_user() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    let before = tree::snapshot(&fixture.root());
    let document = run_as(&fixture, 65534, &["--json", "rollback", "--list"])?.ok().json();
    assert_eq!((&document["to"], named(&document["candidates"]).len()), (&json!("v1.0.0"), 1));
    let said = run_as(&fixture, 65534, &["rollback", "--list"])?.ok().stdout;
    let begins = "current is v1.1.0\ntope-store rollback goes back to v1.0.0\n    v1.0.0  unconfirmed  last current 20";
    assert!(said.starts_with(begins), "{said}");
    assert_eq!(tree::snapshot(&fixture.root()), before);
    fixture.run(&["rollback", "--list", "--force"]).expect(2);
    Ok(())
}
