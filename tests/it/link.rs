//! `link`

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, redacted, releases, tree};

tests![
    links_lead_through_current,
    a_switch_adds_and_removes_links,
    what_is_not_ours_is_left_alone,
    links_of_ours_in_other_spellings_are_replaced,
    a_dry_run_writes_nothing,
    all_can_be_removed,
    links_that_leave_the_version_are_passed_over
];

fn actions(document: &Value) -> Vec<(String, String)> {
    let links = document["links"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    links
        .map(|link| {
            let path = text(&link["path"]);
            (text(&link["action"]), path.rsplit('/').next().unwrap().to_owned())
        })
        .collect()
}

fn run(fixture: &Fixture, more: &[&str]) -> Value {
    let bin = fixture.beside("bin");
    fixture.json(&[&["link", "--bin-dir", bin.to_str().unwrap()], more].concat())
}

fn current() -> Fixture {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(action, name)| ((*action).to_owned(), (*name).to_owned())).collect()
}

fn links_lead_through_current() -> Outcome {
    let fixture = current();
    let document = run(&fixture, &[]);
    let link = |path: &str, target: &str| json!({"action": "created", "path": path, "target": target});
    let expected = json!({
        "schema": 1, "dry_run": false, "passed_over": [],
        "links": [
            link("DIR/bin/device-api", "DIR/root/versions/current/bin/device-api"),
            link("DIR/bin/web-server", "DIR/root/versions/current/bin/web-server"),
            link("DIR/root/services/device-api", "../versions/current/services/device-api"),
            link("DIR/root/services/web-server", "../versions/current/services/web-server"),
        ],
    });
    assert_eq!(redacted(&fixture, &document), expected);
    let program = || std::fs::read_to_string(fixture.beside("bin/device-api")).unwrap();
    assert_eq!(program(), "#!/bin/sh\necho 0\n");
    fixture.run(&["activate", "1.1.0"]).ok();
    assert_eq!(program(), "#!/bin/sh\necho 1\n");
    assert!(fixture.path("services/device-api/settings.toml").exists());
    let again = run(&fixture, &[]);
    assert!(actions(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
    Ok(())
}

fn a_switch_adds_and_removes_links() -> Outcome {
    let fixture = current();
    run(&fixture, &[]);
    tree::program(fixture.beside("next/bin/device-api"), "#!/bin/sh\n");
    tree::program(fixture.beside("next/bin/added"), "#!/bin/sh\n");
    tree::file(fixture.beside("next/bin/.gitkeep"), "x");
    tree::file(fixture.beside("next/services/README"), "no directory");
    fixture.import("next", "2.0.0");
    fixture.run(&["activate", "2.0.0"]).ok();
    let expected = [
        ("created", "added"),
        ("unchanged", "device-api"),
        ("removed", "web-server"),
        ("removed", "device-api"),
        ("removed", "web-server"),
    ];
    assert_eq!(actions(&run(&fixture, &[])), pairs(&expected));
    Ok(())
}

fn what_is_not_ours_is_left_alone() -> Outcome {
    let fixture = current();
    tree::program(fixture.beside("bin/device-api"), "somebody else's");
    symlink("/usr/bin/true", fixture.beside("bin/web-server")).unwrap();
    symlink("/nowhere", fixture.beside("bin/unrelated")).unwrap();
    symlink(fixture.path("versions/v1.0.0/bin/device-api"), fixture.beside("bin/device-api-1.0")).unwrap();
    std::fs::create_dir(fixture.path("services/device-api")).unwrap();
    let bin = fixture.beside("bin");
    let ran = fixture.run(&["link", "--bin-dir", bin.to_str().unwrap()]).expect(4);
    assert!(ran.stderr.contains("bin/device-api is a regular file, not ours: left alone"), "{ran:?}");
    assert!(ran.stderr.contains("bin/web-server is a link to /usr/bin/true, not ours: left alone"), "{ran:?}");
    // All else is done.
    assert_eq!(fixture.link("services/web-server"), "../versions/current/services/web-server");
    assert_eq!(std::fs::read(fixture.beside("bin/device-api")).unwrap(), b"somebody else's");
    let target = |name: &str| std::fs::read_link(fixture.beside(name)).unwrap();
    assert_eq!(target("bin/web-server").to_str(), Some("/usr/bin/true"));
    assert_eq!(target("bin/unrelated").to_str(), Some("/nowhere"));
    assert!(target("bin/device-api-1.0").ends_with("v1.0.0/bin/device-api"), "it was made on purpose");
    Ok(())
}

/// The guide's own script writes absolute links for services, and people link versions by name.
fn links_of_ours_in_other_spellings_are_replaced() -> Outcome {
    let fixture = current();
    std::fs::create_dir(fixture.beside("bin")).unwrap();
    symlink(fixture.path("versions/v1.0.0/bin/device-api"), fixture.beside("bin/device-api")).unwrap();
    symlink("../root/versions/current/bin/web-server", fixture.beside("bin/web-server")).unwrap();
    symlink(fixture.path("versions/current/services/device-api"), fixture.path("services/device-api")).unwrap();
    let expected =
        [("replaced", "device-api"), ("replaced", "web-server"), ("replaced", "device-api"), ("created", "web-server")];
    assert_eq!(actions(&run(&fixture, &[])), pairs(&expected));
    assert_eq!(fixture.link("services/device-api"), "../versions/current/services/device-api");
    Ok(())
}

fn a_dry_run_writes_nothing() -> Outcome {
    let fixture = current();
    let before = tree::describe(&fixture.dir, false);
    let document = run(&fixture, &["--dry-run"]);
    assert_eq!(actions(&document).len(), 4);
    assert!(before == tree::describe(&fixture.dir, false), "something was written");
    run(&fixture, &[]);
    let before = tree::describe(&fixture.dir, false);
    let document = run(&fixture, &["--dry-run", "--remove"]);
    assert!(actions(&document).iter().all(|(action, _)| action == "removed"), "{document:#}");
    assert!(before == tree::describe(&fixture.dir, false), "something was removed");
    Ok(())
}

fn all_can_be_removed() -> Outcome {
    let fixture = current();
    run(&fixture, &[]);
    symlink("/nowhere", fixture.beside("bin/unrelated")).unwrap();
    // Without a current version as well.
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    assert_eq!(actions(&run(&fixture, &["--remove"])).len(), 4);
    let left: Vec<_> =
        std::fs::read_dir(fixture.beside("bin")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left, ["unrelated"]);
    assert_eq!(std::fs::read_dir(fixture.path("services")).unwrap().count(), 0);
    let bin = fixture.beside("bin");
    fixture.run(&["link", "--bin-dir", bin.to_str().unwrap()]).expect(3);
    Ok(())
}

fn links_that_leave_the_version_are_passed_over() -> Outcome {
    let fixture = Fixture::new();
    tree::program(fixture.beside("source/lib/app"), "x");
    std::fs::create_dir_all(fixture.beside("source/bin/directory")).unwrap();
    symlink("../lib/app", fixture.beside("source/bin/app")).unwrap();
    symlink("/usr/bin/env", fixture.beside("source/bin/env")).unwrap();
    fixture.import("source", "1.0.0");
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = run(&fixture, &[]);
    assert_eq!(actions(&document), pairs(&[("created", "app")]));
    assert_eq!(document["passed_over"], json!(["bin/directory", "bin/env"]));
    Ok(())
}
