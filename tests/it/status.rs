//! `status`

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, redacted, releases, run_as, tree, with_releases};

tests![
    the_document,
    a_missing_or_dangling_current_has_an_exit_code,
    drift_is_shown,
    a_read_only_mount_can_be_looked_at,
    any_user_may_look,
    what_an_interruption_left_is_named,
    one_word_says_how_things_stand_and_sets_the_exit_code,
    bad_versions_and_those_that_processes_still_run_are_listed,
    the_guides_line_for_monitoring_has_its_exit_codes
];

fn the_document() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["confirm"]).ok();
    let document = fixture.json(&["status"]);
    let role = |version: &str, digest: &serde_json::Value, state: &str| {
        json!({
            "version": version, "link": "plain", "target": null, "digest": digest, "state": state, "evidence": null,
            "recorded": version, "changed_by_hand": false,
        })
    };
    let expected = json!({
        "schema": 1, "root": "DIR/root", "check": "ok",
        "current": role("v1.1.0", &document["current"]["digest"], "good"),
        "previous": role("v1.0.0", &document["previous"]["digest"], "unconfirmed"),
        "factory": {
            "version": null, "link": "absent", "target": null, "digest": null, "state": "unconfirmed", "evidence": null,
            "recorded": null, "changed_by_hand": false,
        },
        "health": {"checked": true, "ok": true, "not_checked_because": null, "problems": [], "unseen": 0, "newer": false},
        "trial": null, "degraded": null,
        "last_switch": {
            "event": 5, "time": "…", "synchronised": "…", "from": "v1.0.0", "to": "v1.1.0", "automatic": false,
            "tried": null, "evidence": null, "accepted": true,
        },
        "bad": [], "running": [], "hidden_processes": document["hidden_processes"],
        "undelivered": null,
        "versions": 2, "missing_tree": [], "loss": null, "unmanaged": [], "history": "sound", "history_detail": null,
        "abandoned": [], "free_bytes": "…", "free_inodes": "…", "format_obstacle": null,
    });
    assert_eq!(redacted(&fixture, &document), expected);
    assert!(document["current"]["digest"].as_str().unwrap().starts_with("t1:"));
    Ok(())
}

fn a_missing_or_dangling_current_has_an_exit_code() -> Outcome {
    let fixture = releases(1);
    let ran = fixture.run(&["--json", "status"]).expect(3);
    assert_eq!(ran.json()["current"]["link"], "absent");
    symlink("v9", fixture.path("versions/current")).unwrap();
    let ran = fixture.run(&["status"]).expect(3);
    assert!(ran.stdout.contains("current   dangling: leads to v9"), "{ran:?}");
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    symlink("/etc", fixture.path("versions/current")).unwrap();
    assert_eq!(fixture.run(&["--json", "status"]).expect(3).json()["current"]["link"], "foreign");
    Fixture::bare().run(&["status"]).expect(9);
    Ok(())
}

fn drift_is_shown() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/common.so")).unwrap();
    std::fs::create_dir(fixture.path("versions/by-hand")).unwrap();
    std::fs::remove_dir_all(fixture.path("versions/v1.1.0")).unwrap();
    let document = fixture.json(&["status"]);
    assert_eq!(document["health"]["problems"][0]["path"], "lib/common.so");
    assert_eq!((&document["unmanaged"], &document["missing_tree"]), (&json!(["by-hand"]), &json!(["v1.1.0"])));
    let text = fixture.run(&["status"]).ok().stdout;
    assert!(text.contains("health    damaged:\n          lib/common.so: it is not there\n"), "{text}");
    Ok(())
}

fn a_read_only_mount_can_be_looked_at() -> Outcome {
    let image = Image::new(Kind::Ext4, 32)?;
    let fixture = with_releases(Fixture::in_dir(image.mounted()), 1);
    fixture.run(&["activate", "1.0.0"]).ok();
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    let document = fixture.json(&["status", "--verify", "full"]);
    assert_eq!((&document["health"]["ok"], &document["current"]["version"]), (&true.into(), &"v1.0.0".into()));
    assert_eq!(fixture.json(&["history", "-n", "1"])["events"][0]["action"], "activate");
    Ok(())
}

fn any_user_may_look() -> Outcome {
    let fixture = releases(1);
    tree::file(fixture.beside("more/secret/key"), "x");
    fixture.import("more", "2.0.0");
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = run_as(&fixture, 65534, &["--json", "status"])?.ok().json();
    assert_eq!((&document["health"]["ok"], &document["abandoned"]), (&true.into(), &().into()));
    run_as(&fixture, 65534, &["history"])?.ok();
    Ok(())
}

fn what_an_interruption_left_is_named() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::create_dir(fixture.path("store/staging/run-1-0")).unwrap();
    assert_eq!(fixture.json(&["status"])["abandoned"], json!(["run-1-0"]));
    Ok(())
}

/// The word, once as text and once in the document, and its exit code.
#[track_caller]
fn word(fixture: &Fixture) -> (String, i32) {
    let ran = fixture.run(&["status", "--check"]);
    let document = fixture.run(&["--json", "status", "--check"]);
    crate::documents::assert_documented("status", &document.json());
    assert_eq!((document.json()["check"].as_str().unwrap(), document.code), (ran.stdout.trim_end(), ran.code));
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    (ran.stdout.trim_end().to_owned(), ran.code)
}

fn one_word_says_how_things_stand_and_sets_the_exit_code() -> Outcome {
    let fixture = releases(2);
    let expect = |expected: &str, code: i32| assert_eq!(word(&fixture), (expected.to_owned(), code));
    expect("missing", 3);
    fixture.run(&["activate", "1.0.0"]).ok();
    expect("unconfirmed", 0);
    fixture.run(&["confirm"]).ok();
    expect("ok", 0);
    // Of these the gravest counts.
    fixture.run(&["activate", "1.1.0"]).ok();
    tree::file(fixture.path("store/trial"), "");
    expect("damaged", 5);
    std::fs::remove_file(fixture.path("store/trial")).unwrap();
    fixture.run(&["rollback"]).ok();
    expect("ok", 0);
    fixture.run(&["activate", "1.1.0", "--force"]).ok();
    expect("bad", 1);
    let file = fixture.path("versions/v1.1.0/lib/common.so");
    std::fs::remove_file(&file).unwrap();
    expect("damaged", 5);
    assert_eq!(fixture.run(&["status", "--check", "--verify", "none"]).expect(1).stdout, "bad\n");
    // A fallback without its tree is damage as well.
    fixture.run(&["verify", "--repair"]).ok();
    expect("bad", 1);
    std::fs::rename(fixture.path("versions/v1.0.0"), fixture.path("versions/.away")).unwrap();
    expect("damaged", 5);
    std::fs::rename(fixture.path("versions/.away"), fixture.path("versions/v1.0.0")).unwrap();
    tree::release(fixture.path("versions/v3"), 3);
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    symlink("v3", fixture.path("versions/current")).unwrap();
    expect("unmanaged", 1);
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    symlink("v9", fixture.path("versions/current")).unwrap();
    expect("missing", 3);
    let history = std::fs::read_to_string(fixture.path("store/history")).unwrap();
    std::fs::write(fixture.path("store/history"), history.replacen("\"time\":1", "\"time\":2", 1)).unwrap();
    expect("damaged", 5);
    let ran = Fixture::bare().run(&["status", "--check"]).expect(9);
    assert_eq!(ran.stdout, "");
    Ok(())
}

fn bad_versions_and_those_that_processes_still_run_are_listed() -> Outcome {
    let fixture = releases(3);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["rollback", "--reason", "too loud"]).ok();
    let mut process = std::process::Command::new("sleep");
    let mut process = process.arg("100").current_dir(fixture.path("versions/v1.2.0/lib")).spawn().unwrap();
    let (document, said) = (fixture.json(&["status"]), fixture.run(&["status"]).ok().stdout);
    process.kill().unwrap();
    process.wait().unwrap();
    let evidence = json!({"check": "operator", "detail": "too loud", "exit_code": null, "log": []});
    assert_eq!(document["bad"], json!([{"version": "v1.1.0", "evidence": evidence}]));
    let running = &document["running"];
    assert_eq!((&running[0]["version"], &running[0]["processes"]), (&"v1.2.0".into(), &1.into()), "{document:#}");
    assert_eq!(document["last_switch"]["automatic"], false, "an operator's rollback is none");
    assert!(said.contains("bad       v1.1.0: operator: too loud\n"), "{said}");
    assert!(said.contains("running   v1.2.0, which is not current: 1 process"), "{said}");
    assert!(!said.contains("rolled back"), "{said}");
    Ok(())
}

fn the_guides_line_for_monitoring_has_its_exit_codes() -> Outcome {
    let guides = [include_str!("../../deploy/GUIDE.md"), include_str!("../../deploy/GUIDE.zh.md")];
    let line = |guide: &'static str| {
        let (_, rest) = guide.split_once("```sh check\n").expect("a line for monitoring");
        rest.split_once("\n```").expect("its end").0
    };
    assert_eq!(line(guides[0]), line(guides[1]));
    assert_eq!(line(guides[0]).lines().count(), 1);
    let fixture = releases(2);
    let programs = fixture.beside("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(crate::support::binary(), programs.join("tope-store")).unwrap();
    let check = |arguments: &[(&str, &str)]| {
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", line(guides[0])]).env("PATH", path).env("TOPE_ROOT", fixture.root());
        shell.env("TOPE_CONFIG", fixture.config()).envs(arguments.iter().copied());
        let ran = crate::support::Ran::of(&shell.output().expect("a shell"));
        (ran.stdout.trim_end().to_owned(), ran.code)
    };
    let said = |word: &str, code: i32| (format!("TOPE {word}"), code);
    assert_eq!(check(&[]), said("missing", 2));
    fixture.run(&["activate", "1.0.0"]).ok();
    assert_eq!(check(&[]), said("unconfirmed", 0));
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback"]).ok();
    fixture.run(&["activate", "1.1.0", "--force"]).ok();
    assert_eq!(check(&[]), said("bad", 2));
    assert_eq!(check(&[("TOPE_ROOT", "/nowhere")]), said("unknown", 3));
    Ok(())
}
