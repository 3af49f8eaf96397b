//! `[notify]`: which events are sent, how often, when, and what is left of those that do not arrive.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, needs_program, releases, tree};

tests![
    the_events_that_are_asked_for_are_sent_and_no_others,
    a_notice_that_fails_is_tried_twice_and_shown_until_one_arrives,
    a_second_attempt_that_succeeds_leaves_nothing_behind,
    a_receiver_that_hangs_is_given_up_in_a_bounded_time,
    no_lock_is_held_while_a_notice_is_delivered,
    a_failure_that_cannot_be_recorded_changes_nothing,
    a_test_without_a_command_says_where_to_set_one,
];

/// Releases, and a command that appends what it gets to `told`; `more` goes into the table.
fn told_by(script: &str, more: &str) -> Fixture {
    let fixture = releases(3);
    let program = fixture.beside("tell");
    tree::program(&program, format!("#!/bin/sh\ncd '{}'\n{script}\n", fixture.dir.display()));
    std::fs::write(fixture.config(), format!("[notify]\ncommand = [\"{}\"]\n{more}\n", program.display())).unwrap();
    fixture
}

fn told(fixture: &Fixture) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture.beside("told")).unwrap_or_default();
    let told = serde_json::Deserializer::from_str(&text).into_iter().map(|item| item.expect("a document"));
    let told: Vec<Value> = told.collect();
    told.iter().for_each(crate::documents::assert_notice);
    told
}

fn events(fixture: &Fixture) -> Vec<String> {
    told(fixture).iter().map(|notice| notice["event"].as_str().unwrap().to_owned()).collect()
}

/// Does something of each kind.
fn live(fixture: &Fixture) {
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback", "--not-bad"]).ok();
    fixture.run(&["rollback", "--to", "1.0.0"]).ok();
    fixture.run(&["gc", "--keep-last", "9"]).ok();
    fixture.run(&["gc", "--keep-last", "1", "--dry-run"]).ok();
    fixture.run(&["remove", "1.1.0"]).ok();
    fixture.run(&["pin", "1.0.0"]).ok();
    fixture.run(&["import", &fixture.beside("source-9").display().to_string(), "--version", "9"]).ok();
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/common.so")).unwrap();
    fixture.run(&["verify"]).expect(5);
}

fn the_events_that_are_asked_for_are_sent_and_no_others() -> Outcome {
    for (on, expected) in [
        ("", &["rollback", "corruption"][..]),
        ("on = []", &[]),
        ("on = [\"switched\"]", &["switched", "switched", "switched"]),
        ("on = [\"gc\", \"corruption\", \"gc\"]", &["gc", "corruption"]),
        (
            "on = [\"rollback\", \"rolled-back\", \"degraded\", \"corruption\", \"switched\", \"gc\"]",
            &["switched", "switched", "rollback", "switched", "gc", "corruption"],
        ),
    ] {
        let fixture = told_by("cat >>told", on);
        tree::release(fixture.beside("source-9"), 9);
        live(&fixture);
        assert_eq!(events(&fixture), expected, "{on}");
        if let Some(gc) = told(&fixture).iter().find(|notice| notice["event"] == "gc") {
            assert_eq!((&gc["detail"], &gc["version"]), (&"v1.2.0".into(), &"v1.0.0".into()), "{gc:#}");
        }
        if let Some(back) = told(&fixture).iter().rfind(|notice| notice["event"] == "switched") {
            assert_eq!((&back["version"], &back["from"]), (&"v1.0.0".into(), &"v1.1.0".into()), "{back:#}");
        }
        // That it arrives is shown whatever `on` says.
        let document = fixture.json(&["notify", "--test"]);
        assert_eq!((&document["delivered"], &document["attempts"]), (&true.into(), &1.into()));
        assert_eq!(events(&fixture).last().map(String::as_str), Some("test"));
        assert_eq!(told(&fixture).last().unwrap()["version"], "v1.0.0");
    }
    let fixture = told_by("cat >>told", "on = [\"switched\", \"reboot\"]");
    let refused = fixture.run(&["activate", "1.0.0"]).expect(2);
    let expected = "unknown event reboot, expected one of rollback, rolled-back, degraded, corruption, switched, gc";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    Ok(())
}

fn a_notice_that_fails_is_tried_twice_and_shown_until_one_arrives() -> Outcome {
    let fixture = told_by("echo tried >>tries\n[ ! -e broken ] || { echo no route >&2; exit 7; }\ncat >>told", "");
    let tries = || std::fs::read_to_string(fixture.beside("tries")).unwrap_or_default().lines().count();
    tree::file(fixture.beside("broken"), "");
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    let ran = fixture.run(&["rollback"]).ok();
    assert!(ran.stdout.starts_with("current is now v1.0.0 (was v1.1.0)\n"), "{ran:?}");
    assert!(ran.stderr.contains("nobody could be told: ") && ran.stderr.contains("no route"), "{ran:?}");
    assert_eq!(tries(), 2);
    let shown = || {
        let document = fixture.json(&["status"]);
        crate::documents::assert_documented("status", &document);
        document["undelivered"].clone()
    };
    let failed = shown();
    let program = fixture.beside("tell").display().to_string();
    let why = format!("{program}: it ended with exit code 7: no route");
    assert_eq!((&failed["event"], &failed["why"]), (&"rollback".into(), &why.as_str().into()));
    let said = fixture.run(&["status"]).ok().stdout;
    assert!(said.contains("\nnotify    rollback of 20") && said.contains(" reached nobody: "), "{said}");
    assert_eq!(fixture.run(&["status", "--check"]).ok().stdout, "unconfirmed\n", "it says nothing of the device");
    // A test that fails says so, and is the last that failed.
    let document = fixture.run(&["--json", "notify", "--test"]).expect(1).json();
    crate::documents::assert_documented("notify", &document);
    assert_eq!(
        (&document["delivered"], &document["attempts"], &document["why"]),
        (&false.into(), &2.into(), &why.as_str().into())
    );
    assert_eq!(shown()["event"], "test");
    assert_eq!(fixture.run(&["notify", "--test"]).expect(1).stdout, format!("not delivered in 2 attempts: {why}\n"));
    // What is not sent neither fails nor succeeds.
    std::fs::remove_file(fixture.beside("broken")).unwrap();
    fixture.run(&["activate", "1.2.0"]).ok();
    assert_eq!(shown()["event"], "test");
    assert!(fixture.run(&["notify", "--test"]).ok().stdout.starts_with("delivered in "));
    assert_eq!((shown(), fixture.path("store/notice").exists()), (json!(null), false));
    Ok(())
}

fn a_second_attempt_that_succeeds_leaves_nothing_behind() -> Outcome {
    let fixture = told_by("mv first second 2>/dev/null && exit 1\ncat >>told", "");
    tree::file(fixture.beside("first"), "");
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = fixture.json(&["notify", "--test"]);
    assert_eq!((&document["delivered"], &document["attempts"]), (&true.into(), &2.into()));
    assert_eq!(
        (events(&fixture), fixture.json(&["status"])["undelivered"].clone()),
        (vec!["test".into()], json!(null))
    );
    Ok(())
}

fn a_receiver_that_hangs_is_given_up_in_a_bounded_time() -> Outcome {
    let fixture = told_by("exec sleep 1000", "");
    let start = Instant::now();
    let ran = fixture.run(&["notify", "--test"]).expect(1);
    let elapsed = start.elapsed();
    assert!(ran.stdout.contains("it took too long and was killed"), "{ran:?}");
    assert!(elapsed > Duration::from_secs(20) && elapsed < Duration::from_secs(60), "{elapsed:?}");
    Ok(())
}

fn no_lock_is_held_while_a_notice_is_delivered() -> Outcome {
    needs_program("flock")?;
    let all = "on = [\"rollback\", \"corruption\", \"switched\", \"gc\"]";
    let locks = "cat >>told
        for lock in lock publish.lock refs.lock history.lock; do
            [ -e root/store/$lock ] || echo \"no $lock\" >>held
            flock --nonblock root/store/$lock true || echo $lock >>held
        done";
    let fixture = told_by(locks, all);
    tree::release(fixture.beside("source-9"), 9);
    live(&fixture);
    assert_eq!(events(&fixture).len(), 6);
    assert_eq!(std::fs::read_to_string(fixture.beside("held")).unwrap_or_default(), "");
    Ok(())
}

fn a_failure_that_cannot_be_recorded_changes_nothing() -> Outcome {
    let fixture = told_by("exit 1", "");
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    tree::file(fixture.path("store/notice/in-the-way"), "");
    let ran = fixture.run(&["rollback"]).ok();
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    assert!(ran.stderr.contains("whether anybody was told cannot be recorded: "), "{ran:?}");
    assert_eq!(fixture.json(&["status"])["undelivered"], json!(null));
    fixture.run(&["activate", "1.2.0"]).ok();
    Ok(())
}

fn a_test_without_a_command_says_where_to_set_one() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["activate", "1.0.0"]).ok();
    let ran = fixture.run(&["notify", "--test"]).expect(2);
    assert!(ran.stderr.contains("in [notify] of ") && ran.stderr.contains("config.toml"), "{ran:?}");
    assert_eq!(fixture.run(&["--json", "notify", "--test"]).expect(2).json()["error"]["kind"], "usage");
    fixture.run(&["notify"]).expect(2);
    assert_eq!(fixture.json(&["status"])["undelivered"], json!(null), "nobody was to be told");
    Ok(())
}
