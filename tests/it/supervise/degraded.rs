//! A degraded state, and how it ends.

use serde_json::{Value, json};

use super::{STEADY, Site};
use crate::support::{Outcome, Ran};

tests![
    it_ends_as_the_advice_says_or_with_any_check_that_passes,
    a_check_that_fails_leaves_it,
    a_bad_version_that_runs_may_be_checked_and_stays_bad,
    what_is_down_is_started_and_what_runs_is_left_alone,
    without_a_service_only_an_operator_ends_it,
];

/// A site whose `api` needs a network, which is there.
fn site() -> Site {
    let site = Site::with("command = [\"test\", \"-e\", \"NETWORK\"]\n");
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    let network = site.fixture.beside("network").display().to_string();
    std::fs::write(site.fixture.config(), config.replace("NETWORK", &network)).unwrap();
    std::fs::write(network, "").unwrap();
    let site = site.begun();
    site.release("1.1.0", STEADY);
    site
}

/// Takes the network away, and the time that `api` has to wait for it; `web` has all its time, so that it never fails.
fn cut(site: &Site) {
    std::fs::remove_file(site.fixture.beside("network")).unwrap();
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replacen("60s", "2s", 1)).unwrap();
}

fn mend(site: &Site) {
    std::fs::write(site.fixture.beside("network"), "").unwrap();
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("\"2s\"", "\"60s\"")).unwrap();
}

/// Makes the store degraded: every version fails without the network, and v1.0.0, which is good, is the least bad.
fn degrade(site: &Site) -> Ran {
    cut(site);
    let ran = site.run(&["activate", "1.1.0", "--restart=all"]).expect(8);
    assert_eq!(site.current(), "v1.0.0");
    ran
}

/// The commands that an advice names.
fn advised(said: &str) -> Vec<Vec<String>> {
    let line = said.lines().find(|line| line.contains("when the fault is mended: ")).expect("an advice");
    let commands = line.split("tope-store ").skip(1);
    let words = |command: &str| {
        let command = command.split(", or ").next().unwrap_or(command);
        command.split_whitespace().map(str::to_owned).collect()
    };
    commands.map(words).collect()
}

fn last(site: &Site, action: &str) -> Value {
    site.fixture.json(&["history", "--action", action])["events"][0].clone()
}

fn it_ends_as_the_advice_says_or_with_any_check_that_passes() -> Outcome {
    let site = site();
    let printed = advised(&degrade(&site).stdout);
    assert_eq!(printed, [vec!["activate", "v1.0.0", "--restart=all"], vec!["confirm", "v1.0.0"]]);
    let status = site.status();
    assert_eq!(status["degraded"]["since"], last(&site, "degraded")["time"], "{status}");
    let said = site.run(&["status", "--verify", "none"]).ok().stdout;
    assert_eq!(advised(&said), printed);
    assert!(said.contains("degraded  no version holds, since 20"), "{said}");
    let more = [&["activate", "1.0.0", "--restart"][..], &["boot-check", "--judge"], &["boot-check"]];
    let more = more.into_iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect());
    for (at, command) in printed.into_iter().chain(more).enumerate() {
        if at > 0 {
            degrade(&site);
        }
        mend(&site);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let document = site.json(&command, 0);
        let recovered = document.get("recovered").or(document["switch"].get("recovered"));
        assert_eq!(recovered, Some(&json!(true)), "{command:?}: {document}");
        let status = site.status();
        assert_eq!((&status["degraded"], &status["trial"]), (&json!(null), &json!(null)), "{command:?}");
        assert_eq!(status["current"]["state"], "good");
        let event = last(&site, if command[0] == "confirm" { "confirm" } else { "good" });
        assert!(event["seq"].as_u64() > last(&site, "degraded")["seq"].as_u64(), "{command:?}: it is written down");
        // Nothing is left to be ended.
        assert_eq!(site.json(&["boot-check", "--judge"], 0)["trial"], "none");
        assert_eq!(site.json(&["activate", "1.0.0", "--restart"], 0)["outcome"], "unchanged");
    }
    degrade(&site);
    mend(&site);
    let said = site.run(&["activate", "1.0.0", "--restart"]).ok().stdout;
    assert!(said.ends_with("the store is no longer degraded\n"), "{said}");
    Ok(())
}

fn a_check_that_fails_leaves_it() -> Outcome {
    let site = site();
    degrade(&site);
    let (since, pid) = (site.status()["degraded"]["since"].clone(), site.process("api"));
    let judged = site.json(&["boot-check", "--judge"], 8);
    assert_eq!((&judged["trial"], &judged["switch"]["outcome"]), (&json!("judged"), &json!("degraded")));
    assert_eq!(judged["switch"]["attempts"][0]["services"][0]["judgement"], "failed");
    assert_eq!((site.current().as_str(), site.process("api")), ("v1.0.0", pid), "it goes nowhere");
    assert_eq!(site.status()["degraded"]["since"], since);
    // A switch tries all levels once more.
    let document = site.json(&["activate", "1.0.0", "--restart"], 8);
    assert_eq!((&document["outcome"], &document["recovered"]), (&json!("degraded"), &json!(false)));
    assert_eq!(site.current(), "v1.0.0");
    assert_eq!(site.status()["degraded"]["version"], "v1.0.0");
    Ok(())
}

fn a_bad_version_that_runs_may_be_checked_and_stays_bad() -> Outcome {
    let site = Site::new();
    let disk = site.fixture.beside("disk");
    site.release("1.0.0", &format!("[ -e {} ] || exit 3; exec sleep 1000", disk.display()));
    let said = site.run(&["activate", "1.0.0", "--restart"]).expect(8).stdout;
    assert_eq!(site.status()["current"]["state"], "bad");
    std::fs::write(disk, "").unwrap();
    // Where it is not the one that runs degraded, a bad version is refused as ever.
    let command = advised(&said).remove(0);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let document = site.json(&command, 0);
    assert_eq!((&document["outcome"], &document["recovered"]), (&json!("done"), &json!(true)));
    let status = site.status();
    assert_eq!((&status["degraded"], &status["current"]["state"]), (&json!(null), &json!("bad")));
    assert_eq!(site.json(&["activate", "1.0.0", "--restart=all"], 4)["error"]["kind"], "bad");
    site.run(&["confirm"]).ok();
    assert_eq!(site.status()["current"]["state"], "good");
    Ok(())
}

fn what_is_down_is_started_and_what_runs_is_left_alone() -> Outcome {
    let site = site();
    degrade(&site);
    mend(&site);
    std::process::Command::new(site.fixture.beside("rc/control")).args(["stop", "web"]).status().unwrap();
    let api = site.process("api");
    let document = site.json(&["activate", "1.0.0", "--restart"], 0);
    let restarted = json!([{"unit": "web", "reasons": ["no version holds, and it is inactive"]}]);
    assert_eq!(document["attempts"][0]["restarted"], restarted);
    assert!(site.process("web").is_some());
    assert_eq!(site.process("api"), api);
    degrade(&site);
    mend(&site);
    std::process::Command::new(site.fixture.beside("rc/control")).args(["stop", "web"]).status().unwrap();
    assert_eq!(site.json(&["boot-check"], 0)["switch"]["outcome"], "done");
    assert!(site.process("web").is_some());
    Ok(())
}

fn without_a_service_only_an_operator_ends_it() -> Outcome {
    let site = site();
    degrade(&site);
    mend(&site);
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    let (without, _) = config.split_once("[[service]]").unwrap();
    std::fs::write(site.fixture.config(), without).unwrap();
    let unchecked = "no service was watched, so nothing shows that v1.0.0 holds, and the store stays degraded; if it works, \
                     accept it with: tope-store confirm v1.0.0";
    for (command, code) in [(&["activate", "1.0.0", "--restart=all"][..], 0), (&["boot-check"], 8)] {
        assert_eq!(site.json(command, code)["warnings"], json!([unchecked]), "{command:?}");
        assert_eq!(site.status()["degraded"]["version"], "v1.0.0");
    }
    assert_eq!(site.json(&["confirm"], 0)["recovered"], true);
    assert_eq!(site.status()["degraded"], json!(null));
    std::fs::write(site.fixture.config(), config).unwrap();
    Ok(())
}
