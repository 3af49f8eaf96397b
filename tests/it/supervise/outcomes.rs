//! How supervised switches end.

use serde_json::json;

use super::{DEAD, REFUSES, STEADY, Site};
use crate::support::{Outcome, tree};

tests![
    a_release_that_holds_is_good_and_leaves_other_services_alone,
    a_script_that_may_load_what_differs_is_left_alone_with_a_warning,
    a_release_that_does_not_hold_is_undone_and_stays_away,
    what_the_manager_cannot_start_is_undone_with_what_it_said,
    a_previous_version_that_does_not_hold_either_leads_to_factory,
    where_nothing_holds_the_least_bad_version_runs,
    a_check_that_fails_everywhere_marks_no_version,
    a_rollback_restarts_and_watches_too,
    a_rollback_that_does_not_hold_goes_on_to_factory,
    what_must_not_see_a_switch_is_stopped_before,
    services_on_an_older_version_are_restarted_although_nothing_is_switched,
    a_manager_that_cannot_be_asked_keeps_the_switch_from_being_made,
];

fn a_release_that_holds_is_good_and_leaves_other_services_alone() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    let (api, web) = (site.process("api"), site.process("web"));
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    let found = ["from", "to", "current", "level", "outcome", "previous", "bad"].map(|field| document[field].clone());
    assert_eq!(json!(found), json!(["v1.0.0", "v1.1.0", "v1.1.0", 0, "done", "v1.0.0", null]));
    assert_eq!(document["attempts"][0]["restarted"], json!([{"unit": "api", "reasons": ["bin/api differs"]}]));
    assert_eq!(
        document["attempts"][0]["services"],
        json!([
            {"unit": "api", "judgement": "passed", "evidence": null},
            {"unit": "web", "judgement": "passed", "evidence": null},
        ])
    );
    assert_ne!(site.process("api"), api);
    assert_eq!(site.process("web"), web, "nothing of it differs");
    let status = site.status();
    assert_eq!((&status["current"]["state"], &status["trial"]), (&"good".into(), &json!(null)));
    assert!(site.told().is_empty());
    let again = site.run(&["activate", "1.1.0", "--restart"]).ok();
    assert_eq!(again.stdout, "v1.1.0 is current already, and no service has to be restarted\n");
    let all = site.json(&["activate", "1.1.0", "--restart=all"], 0);
    assert_eq!((&all["outcome"], all["attempts"][0]["restarted"].as_array().unwrap().len()), (&"done".into(), 2));
    assert_ne!(site.process("web"), web);
    Ok(())
}

/// Nobody sees what a script loads.
fn a_script_that_may_load_what_differs_is_left_alone_with_a_warning() -> Outcome {
    let site = Site::new().begun();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        tree::file(site.fixture.beside(format!("source-{version}/lib/shared.sh")), version);
        tree::file(site.fixture.beside(format!("source-{version}/lib/other.sh")), version);
    }
    site.release("1.1.0", STEADY);
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    let warning = "left alone: web; what a script loads is not known, and lib/other.sh is new (and 1 more): name what it needs as \
                   paths in the configuration, or use --restart=all";
    assert_eq!(document["warnings"], json!([warning]));
    // Who says what is loaded knows better, and so does who restarts all.
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config + "paths = [\"lib/other.sh\"]\n").unwrap();
    site.release("1.2.0", STEADY);
    let document = site.json(&["activate", "1.2.0", "--restart"], 0);
    assert_eq!(document["attempts"][0]["restarted"][1], json!({"unit": "web", "reasons": ["lib/other.sh differs"]}));
    assert_eq!(document["warnings"], json!([]));
    site.release("1.3.0", STEADY);
    assert_eq!(site.json(&["activate", "1.3.0", "--restart=all"], 0)["warnings"], json!([]));
    Ok(())
}

fn a_release_that_does_not_hold_is_undone_and_stays_away() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    site.release("1.2.0", DEAD);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    let ran = site.run(&["activate", "1.2.0", "--restart"]).expect(7);
    let first = "v1.2.0 does not hold; current is v1.1.0 (level 1), and it holds\n  v1.2.0: unit api: ";
    assert!(ran.stdout.starts_with(first), "{ran:#?}");
    assert!(ran.stdout.ends_with("v1.2.0 is marked bad; to clear that: tope-store confirm v1.2.0\n"), "{ran:#?}");
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), ("v1.1.0", Some("v1.1.0")));
    assert_eq!((site.state("1.2.0"), site.state("1.1.0")), ("bad".into(), "good".into()));
    let told = site.told();
    let notice = ["event", "version", "from", "level", "check"].map(|field| told[0][field].clone());
    assert_eq!(json!(notice), json!(["rolled-back", "v1.1.0", "v1.2.0", 1, "unit api"]));
    // It stays said until the next switch.
    let ran = site.run(&["status", "--check"]).expect(1);
    assert_eq!(ran.stdout, "rolled-back\n");
    let switch = site.status()["last_switch"].clone();
    let fields = ["from", "to", "tried", "automatic", "accepted"].map(|field| switch[field].clone());
    assert_eq!(json!(fields), json!(["v1.2.0", "v1.1.0", "v1.2.0", true, false]));
    assert_eq!(
        (&switch["evidence"]["check"], &switch["evidence"]),
        (&"unit api".into(), &site.status()["bad"][0]["evidence"])
    );
    let said = site.run(&["status"]).ok().stdout;
    assert!(said.contains("\nrolled back from v1.2.0 to v1.1.0 at 20"), "{said}");
    assert!(said.contains("\n          v1.2.0 failed: unit api: "), "{said}");
    // It is refused from then on, unless somebody insists, and then it is judged again.
    let refused = site.json(&["activate", "1.2.0", "--restart"], 4);
    assert_eq!(refused["error"]["kind"], "bad");
    assert_eq!(site.json(&["activate", "1.2.0", "--restart", "--force"], 7)["current"], "v1.1.0");
    assert_eq!(site.json(&["verify"], 0)["problems"], json!([]));
    assert_eq!(site.status()["trial"], json!(null));
    // An operator who confirms what runs has taken note; a switch that holds ends it as well.
    assert_eq!(site.run(&["status", "--check"]).expect(1).stdout, "rolled-back\n");
    assert_eq!(site.json(&["confirm"], 0)["changed"], true);
    assert_eq!(site.json(&["confirm"], 0)["changed"], false);
    assert_eq!(site.run(&["status", "--check"]).ok().stdout, "ok\n");
    site.run(&["activate", "1.2.0", "--restart", "--force"]).expect(7);
    assert_eq!(site.run(&["status", "--check"]).expect(1).stdout, "rolled-back\n");
    site.release("1.3.0", STEADY);
    site.run(&["activate", "1.3.0", "--restart"]).ok();
    assert_eq!(site.run(&["status", "--check"]).ok().stdout, "ok\n");
    Ok(())
}

fn what_the_manager_cannot_start_is_undone_with_what_it_said() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", REFUSES);
    let document = site.json(&["activate", "1.1.0", "--restart"], 7);
    let evidence = json!({
        "check": "unit api",
        "detail": "it failed to start: the restart command failed: it ended with exit code 6",
        "exit_code": 6,
        "log": ["not today"],
    });
    assert_eq!(document["attempts"][0]["services"][0]["evidence"], evidence);
    let events = site.fixture.json(&["history", "--version", "1.1.0", "--action", "bad"]);
    assert_eq!(events["events"][0]["evidence"], evidence, "the ledger has the cause");
    assert!(site.process("api").is_some());
    Ok(())
}

fn a_previous_version_that_does_not_hold_either_leads_to_factory() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", "exit 4");
    site.release("1.2.0", REFUSES);
    // Nobody watched this one.
    site.run(&["activate", "1.1.0"]).ok();
    let document = site.json(&["activate", "1.2.0", "--restart"], 7);
    let tried: Vec<_> = document["attempts"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect();
    assert_eq!(json!(tried), json!(["v1.2.0", "v1.1.0", "v1.0.0"]));
    assert_eq!((&document["current"], &document["level"]), (&"v1.0.0".into(), &2.into()));
    assert_eq!((site.current().as_str(), site.version_of("api").as_deref()), ("v1.0.0", Some("v1.0.0")));
    assert_eq!((site.state("1.2.0").as_str(), site.state("1.1.0").as_str()), ("bad", ""), "a fallback is not bad");
    let switch = &site.status()["last_switch"];
    let fields = ["from", "to", "tried"].map(|field| switch[field].clone());
    assert_eq!(json!(fields), json!(["v1.1.0", "v1.0.0", "v1.2.0"]), "what was tried first is said");
    assert_eq!(switch["evidence"]["exit_code"], 6, "and why that failed");
    Ok(())
}

fn where_nothing_holds_the_least_bad_version_runs() -> Outcome {
    let site = Site::new();
    for (version, api) in [("1.0.0", DEAD), ("1.1.0", DEAD), ("1.2.0", REFUSES)] {
        site.release(version, api);
    }
    site.run(&["factory", "set", "1.0.0"]).ok();
    site.run(&["activate", "1.1.0"]).ok();
    let document = site.json(&["activate", "1.2.0", "--restart=all"], 8);
    assert_eq!((&document["outcome"], &document["current"]), (&"degraded".into(), &"v1.1.0".into()));
    assert_eq!(site.current(), "v1.1.0", "in a tie the one that ran before");
    assert!(site.process("web").is_some(), "what can run runs");
    assert_eq!(site.state("1.2.0"), "bad", "the checks that failed are not all the same");
    let status = site.status();
    let degraded = (&status["degraded"]["version"], &status["degraded"]["check"], &status["trial"]);
    assert_eq!(degraded, (&"v1.1.0".into(), &"unit api".into(), &json!(null)));
    assert_eq!(site.run(&["status", "--check"]).expect(8).stdout, "degraded\n");
    assert_eq!(site.told().last().unwrap()["event"], "degraded");
    assert!(site.doctor(1).contains(&"degraded".to_owned()));
    // Somebody takes matters in hand.
    site.release("1.3.0", STEADY);
    site.run(&["activate", "1.3.0", "--restart"]).ok();
    assert_eq!(site.status()["degraded"], json!(null));
    Ok(())
}

/// A dead network, say.
fn a_check_that_fails_everywhere_marks_no_version() -> Outcome {
    let site = Site::with("timeout = \"2s\"\ncommand = [\"false\"]\n".replace("timeout = \"2s\"\n", "").as_str());
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        site.release(version, STEADY);
    }
    // The probe has until the timeout.
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replacen("timeout = \"60s\"", "timeout = \"2s\"", 1)).unwrap();
    site.run(&["factory", "set", "1.0.0"]).ok();
    site.run(&["activate", "1.1.0"]).ok();
    let document = site.json(&["activate", "1.2.0", "--restart=all"], 8);
    assert_eq!((&document["bad"], &document["current"]), (&json!(null), &"v1.1.0".into()));
    assert_eq!(document["same_check"], "command false");
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        assert_eq!(site.state(version), "", "{version}");
    }
    let again = site.run(&["activate", "1.2.0", "--restart=all"]).expect(8);
    assert!(again.stdout.contains("the fault is probably outside the release"), "{again:#?}");
    Ok(())
}

fn a_rollback_restarts_and_watches_too() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    let web = site.process("web");
    let document = site.json(&["rollback", "--restart", "--reason", "too loud"], 0);
    let found = ["from", "to", "current", "level", "outcome", "bad"].map(|field| document[field].clone());
    assert_eq!(json!(found), json!(["v1.1.0", "v1.0.0", "v1.0.0", 1, "done", "v1.1.0"]));
    assert_eq!((site.version_of("api").as_deref(), site.process("web")), (Some("v1.0.0"), web));
    let told = site.told();
    let notice = ["event", "version", "from", "level"].map(|field| told[0][field].clone());
    assert_eq!((json!(notice), told.len()), (json!(["rollback", "v1.0.0", "v1.1.0", 1]), 1));
    Ok(())
}

fn a_rollback_that_does_not_hold_goes_on_to_factory() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", DEAD);
    site.release("1.2.0", STEADY);
    site.run(&["activate", "1.1.0"]).ok();
    site.run(&["activate", "1.2.0", "--restart"]).ok();
    let document = site.json(&["rollback", "--restart"], 7);
    let found = ["to", "current", "level", "outcome", "bad"].map(|field| document[field].clone());
    assert_eq!(json!(found), json!(["v1.1.0", "v1.0.0", 2, "rolled-back", "v1.2.0"]));
    assert_eq!(site.state("1.1.0"), "", "a fallback is not bad");
    assert_eq!(site.version_of("api").as_deref(), Some("v1.0.0"));
    Ok(())
}

fn what_must_not_see_a_switch_is_stopped_before() -> Outcome {
    let site = Site::with("stop_first = true").begun();
    site.release("1.1.0", STEADY);
    std::fs::remove_file(site.fixture.beside("rc/calls")).unwrap();
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    let calls = std::fs::read_to_string(site.fixture.beside("rc/calls")).unwrap();
    let orders: Vec<&str> = calls.lines().filter(|line| !line.starts_with("status")).collect();
    assert_eq!(orders, ["stop api v1.0.0", "restart api v1.1.0"]);
    Ok(())
}

fn services_on_an_older_version_are_restarted_although_nothing_is_switched() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    // It holds a file of its version open, so that it can be seen what it runs from.
    let tail = "exec tail -f \"$(dirname \"$0\")/web\"";
    site.release("1.2.0", tail);
    site.run(&["activate", "1.2.0", "--restart"]).ok();
    site.run(&["activate", "1.1.0"]).ok();
    // The commands' processes belong to no unit of the store's, so nothing is known to be stale here.
    let document = site.json(&["activate", "1.1.0", "--restart"], 0);
    assert_eq!(document["outcome"], "unchanged");
    assert_eq!(site.json(&["activate", "1.1.0", "--restart=all"], 0)["outcome"], "done");
    assert_eq!(site.version_of("api").as_deref(), Some("v1.1.0"));
    Ok(())
}

fn a_manager_that_cannot_be_asked_keeps_the_switch_from_being_made() -> Outcome {
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    // It looks like a program, and the kernel does not run it.
    let control = site.fixture.beside("rc/control");
    let script = std::fs::read(&control).unwrap();
    std::fs::write(&control, "\x7fELF").unwrap();
    let refused = site.json(&["activate", "1.1.0", "--restart"], 1);
    assert!(refused["error"]["message"].as_str().unwrap().contains("rc/control"), "{refused}");
    assert_eq!((site.current().as_str(), &site.status()["trial"]), ("v1.0.0", &json!(null)));
    std::fs::write(&control, script).unwrap();
    Ok(())
}
