//! What `--dry-run` says of services, and what a refused rollback with services names.

use serde_json::{Value, json};

use super::{STEADY, Site};
use crate::support::{Outcome, tree};

tests![
    a_plan_says_what_becomes_of_each_service,
    a_plan_of_a_rollback_does_too,
    commands_that_are_named_restart_services,
];

/// Asks, which must neither change the store nor give an order.
#[track_caller]
fn ask(site: &Site, arguments: &[&str]) -> Value {
    let before = (tree::snapshot(&site.fixture.root()), orders(site));
    let document = site.json(&[arguments, &["--dry-run"]].concat(), 0);
    assert!((tree::snapshot(&site.fixture.root()), orders(site)) == before, "{arguments:?}");
    document
}

fn orders(site: &Site) -> Vec<String> {
    let calls = std::fs::read_to_string(site.fixture.beside("rc/calls")).unwrap_or_default();
    calls.lines().filter(|line| !line.starts_with("status")).map(str::to_owned).collect()
}

/// Unit, action, whether it stops before, and why.
fn services(plan: &Value) -> Value {
    let all = plan["services"].as_array().expect("services").iter();
    all.map(|one| json!([one["unit"], one["action"], one["stop_first"], one["reasons"]])).collect()
}

/// Units with reasons, of a plan and of what was done.
#[track_caller]
fn agree(plan: &Value, happened: &Value) {
    let planned =
        plan["services"].as_array().unwrap().iter().filter(|one| !one["reasons"].as_array().unwrap().is_empty());
    let planned: Vec<Value> = planned.map(|one| json!([one["unit"], one["reasons"]])).collect();
    let restarted = happened["attempts"][0]["restarted"].as_array().unwrap().iter();
    let restarted: Vec<Value> = restarted.map(|one| json!([one["unit"], one["reasons"]])).collect();
    assert_eq!(planned, restarted);
    let watched = plan["services"].as_array().unwrap().iter().filter(|one| one["watched"] == true).count();
    assert_eq!(watched, happened["attempts"][0]["services"].as_array().unwrap().len());
    for field in ["from", "to", "level", "previous", "outcome"] {
        assert_eq!(plan[field], happened[field], "{field}");
    }
}

fn a_plan_says_what_becomes_of_each_service() -> Outcome {
    let site = Site::with("stop_first = true\ncommand = [\"true\"]\n").begun();
    site.release("1.1.0", STEADY);
    let plan = ask(&site, &["activate", "1.1.0", "--restart"]);
    let differs = json!(["bin/api differs"]);
    assert_eq!(services(&plan), json!([["api", "restart", true, differs], ["web", "watch", false, []]]));
    let api = ["watched", "settle_ms", "timeout_ms", "http", "command"].map(|field| plan["services"][0][field].clone());
    assert_eq!(json!(api), json!([true, 300, 60_000, null, ["true"]]));
    let said = site.run(&["activate", "1.1.0", "--restart", "--dry-run"]).ok().stdout;
    let expected = "current would be v1.1.0 (level 0, now v1.0.0)\n  v1.1.0 passes its check\n  previous would be v1.0.0\n  \
                    api: would be stopped before the switch, and started after it: bin/api differs\n    watched: it has to \
                    run undisturbed for 300ms, all checks within 1m\n    command true\n  web: would be left alone\n    \
                    watched: it has to run undisturbed for 300ms, all checks within 1m\nnothing was changed\n";
    assert_eq!(said, expected);
    agree(&plan, &site.json(&["activate", "1.1.0", "--restart"], 0));
    // What is down is left alone, unless all are to be restarted.
    std::process::Command::new(site.fixture.beside("rc/control")).args(["stop", "web"]).status().unwrap();
    let plan = ask(&site, &["activate", "1.0.0", "--restart"]);
    assert_eq!(plan["services"][1]["action"], "leave");
    let plan = ask(&site, &["activate", "1.0.0", "--restart=all"]);
    assert_eq!(services(&plan)[1], json!(["web", "start", false, ["all are to be restarted"]]));
    agree(&plan, &site.json(&["activate", "1.0.0", "--restart=all"], 0));
    let plan = ask(&site, &["activate", "1.0.0", "--restart"]);
    assert_eq!((&plan["outcome"], &plan["services"][0]["action"]), (&json!("unchanged"), &json!("watch")));
    // What is refused in earnest is refused.
    site.run(&["activate", "9", "--restart", "--dry-run"]).expect(3);
    site.run(&["rollback", "--to", "1.0.0", "--restart"]).ok();
    Ok(())
}

fn a_plan_of_a_rollback_does_too() -> Outcome {
    let site = Site::with("stop_first = true\n").begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    let plan = ask(&site, &["rollback", "--restart"]);
    let differs = json!(["bin/api differs"]);
    assert_eq!(services(&plan), json!([["api", "restart", true, differs], ["web", "watch", false, []]]));
    assert_eq!((&plan["level"], &plan["bad"]), (&json!(1), &json!("v1.1.0")));
    agree(&plan, &site.json(&["rollback", "--restart"], 0));
    let plan = ask(&site, &["rollback", "--to", "1.0.0", "--restart=all"]);
    assert_eq!((&plan["outcome"], &plan["services"][0]["reasons"]), (&json!("unchanged"), &json!([])));
    Ok(())
}

fn commands_that_are_named_restart_services() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    for dry_run in [&[][..], &["--dry-run"]] {
        let refused = site.json(&[&["rollback", "--restart"], dry_run].concat(), 3);
        let command = &refused["error"]["candidates"][0]["command"];
        assert_eq!(command, "tope-store activate v1.1.0 --restart", "{refused}");
    }
    site.run(&["activate", "v1.1.0", "--restart"]).ok();
    Ok(())
}
