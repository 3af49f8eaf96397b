//! `--dry-run` of switches: what they would do, and nothing else.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, releases, run_as, tree};

tests![
    a_plan_forward_is_what_then_happens,
    a_plan_back_is_what_then_happens,
    what_would_be_refused_is_refused_and_nothing_is_recorded,
    an_interrupted_switch_is_not_finished,
    a_user_who_may_only_look_may_ask,
];

/// Asks, which must change nothing.
#[track_caller]
fn ask(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let before = tree::snapshot(&fixture.root());
    let document = fixture.run(&[&["--json"], arguments, &["--dry-run"]].concat()).expect(code).json();
    crate::documents::assert_documented(arguments[0], &document);
    assert_eq!(tree::snapshot(&fixture.root()), before, "{arguments:?}");
    document
}

/// A plan and what happened afterwards agree in all that both have.
#[track_caller]
fn agree(plan: &Value, happened: &Value) {
    for field in ["from", "to", "level", "outcome", "digest", "previous"] {
        assert_eq!(plan[field], happened[field], "{field}: {plan} {happened}");
    }
    assert_eq!(plan["marked_bad"].as_bool(), happened["marked_bad"].as_bool().or(Some(false)));
}

fn a_plan_forward_is_what_then_happens() -> Outcome {
    let fixture = releases(2);
    for version in ["1.0.0", "1.1.0", "1.1.0"] {
        let plan = ask(&fixture, &["activate", version], 0);
        assert_eq!((&plan["dry_run"], &plan["services"]), (&json!(true), &json!(null)));
        agree(&plan, &fixture.json(&["activate", version]));
    }
    let plan = ask(&fixture, &["activate", "1.0.0", "--verify", "none"], 0);
    assert_eq!((&plan["tree"], &plan["tree_detail"]), (&json!("unchecked"), &json!("not asked for")));
    let said = fixture.run(&["activate", "1.0.0", "--dry-run"]).ok().stdout;
    let expected = "current would be v1.0.0 (level 0, now v1.1.0)\n  v1.0.0 passes its check\n  previous would be v1.1.0\n\
                    nothing was changed\n";
    assert_eq!(said, expected);
    Ok(())
}

fn a_plan_back_is_what_then_happens() -> Outcome {
    let fixture = releases(4);
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        fixture.run(&["activate", version]).ok();
    }
    for arguments in [
        &["rollback"][..],
        &["rollback", "--to", "1.1.0", "--not-bad"],
        &["rollback", "--to", "current"],
        &["rollback", "--to", "factory"],
        &["rollback", "--to", "1.2.0"],
        // What is left is the factory version's own version before.
        &["rollback"],
    ] {
        let plan = ask(&fixture, arguments, 0);
        agree(&plan, &fixture.json(arguments));
    }
    // One that is damaged yields to factory, and is said.
    fixture.run(&["activate", "1.3.0", "--force"]).ok();
    fixture.run(&["activate", "1.2.0", "--force"]).ok();
    std::fs::remove_file(fixture.path("versions/v1.3.0/lib/common.so")).unwrap();
    let plan = ask(&fixture, &["rollback", "--force"], 0);
    assert_eq!((&plan["to"], &plan["level"], &plan["tree"]), (&json!("v1.0.0"), &json!(2), &json!("sound")));
    assert!(plan["warnings"][0].as_str().unwrap().contains("v1.3.0 fails its check"), "{plan}");
    agree(&plan, &fixture.json(&["rollback", "--force"]));
    Ok(())
}

fn what_would_be_refused_is_refused_and_nothing_is_recorded() -> Outcome {
    let fixture = releases(3);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["rollback"]).ok();
    // Damage that the check reads, and would revoke.
    let file = fixture.path("versions/v1.2.0/bin/device-api");
    let bytes = std::fs::read(&file).unwrap();
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::write(&file, "x".repeat(bytes.len())).unwrap();
    std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
    let kind = |arguments: &[&str], code| ask(&fixture, arguments, code)["error"]["kind"].clone();
    assert_eq!(kind(&["activate", "1.1.0"], 4), "bad");
    assert_eq!(kind(&["activate", "9"], 3), "not-found");
    assert_eq!(kind(&["activate", "1.2.0", "--verify", "full"], 4), "unhealthy");
    assert_eq!(kind(&["rollback"], 3), "not-found");
    assert_eq!(kind(&["rollback", "--to", "1.1.0"], 4), "bad");
    assert_eq!(ask(&fixture, &["rollback", "--to", "1.1.0", "--force"], 0)["to"], "v1.1.0");
    let plan = ask(&fixture, &["rollback", "--to", "1.2.0", "--verify", "full"], 0);
    assert_eq!(plan["tree"], "damaged");
    // The same commands are refused in earnest as well, and the damage is recorded then.
    fixture.run(&["activate", "1.2.0", "--verify", "full"]).expect(4);
    assert_eq!(fixture.json(&["history", "-n", "1"])["events"][0]["action"], "revoke");
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    std::fs::write(fixture.path("versions/current"), "x").unwrap();
    for arguments in [&["activate", "1.0.0"][..], &["rollback", "--to", "1.0.0"]] {
        assert_eq!(ask(&fixture, arguments, 4)["error"]["kind"], "foreign-file");
        assert_eq!(fixture.run(&[&["--json"], arguments].concat()).expect(4).json()["error"]["kind"], "foreign-file");
    }
    Ok(())
}

fn an_interrupted_switch_is_not_finished() -> Outcome {
    let fixture = releases(2);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    symlink("v1.0.0", fixture.path("versions/.was")).unwrap();
    symlink("v1.1.0", fixture.path("versions/.next")).unwrap();
    for arguments in [&["activate", "1.0.0"][..], &["rollback"], &["rollback", "--to", "1.0.0"]] {
        ask(&fixture, arguments, 0);
    }
    Ok(())
}

fn a_user_who_may_only_look_may_ask() -> Outcome {
    let fixture = releases(2);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    let before = tree::snapshot(&fixture.root());
    for arguments in [&["activate", "1.0.0"][..], &["rollback"]] {
        let all = [&["--json"], arguments, &["--dry-run"]].concat();
        let plan = run_as(&fixture, 65534, &all)?.ok().json();
        assert_eq!((&plan["to"], &plan["tree"]), (&json!("v1.0.0"), &json!("sound")));
        assert!(plan["warnings"][0].as_str().unwrap().contains("you are user 65534"), "{plan}");
        run_as(&fixture, 65534, arguments)?.expect(4);
    }
    assert_eq!(tree::snapshot(&fixture.root()), before);
    Ok(())
}
