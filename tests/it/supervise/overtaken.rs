//! Others who act while a switch is watched.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{STEADY, Site, ended, wait_until};
use crate::support::Outcome;

tests![
    an_operator_who_switches_meanwhile_is_not_undone,
    an_operator_who_accepts_the_version_ends_its_trial,
    an_operator_who_rolls_back_meanwhile_is_not_undone,
    a_second_supervised_switch_takes_over,
    an_interrupt_leaves_the_version_current_and_on_trial,
    an_interrupt_says_where_things_stand_and_what_can_be_done,
    the_same_command_again_takes_up_an_interrupted_trial,
];

/// A site whose `api` passes only while there is a file `network`; its probe has a minute.
fn doubtful() -> Site {
    let site = Site::with("command = [\"test\", \"-e\", \"NETWORK\"]");
    let network = site.fixture.beside("network");
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), config.replace("NETWORK", &network.display().to_string())).unwrap();
    std::fs::write(&network, "").unwrap();
    let site = site.begun();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        site.release(version, STEADY);
    }
    site.run(&["activate", "1.1.0", "--restart"]).ok();
    std::fs::remove_file(network).unwrap();
    site
}

fn an_operator_who_switches_meanwhile_is_not_undone() -> Outcome {
    let site = doubtful();
    let watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    let ran = site.run(&["activate", "1.3.0"]).ok();
    assert!(ran.stderr.contains("was still on trial"), "{ran:#?}");
    let overtaken = ended(watching).expect(4).json();
    assert_eq!(overtaken["error"]["kind"], "superseded");
    assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), ("v1.3.0", ""));
    assert_eq!(site.status()["trial"], json!(null));
    Ok(())
}

fn an_operator_who_rolls_back_meanwhile_is_not_undone() -> Outcome {
    let site = doubtful();
    let watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    site.run(&["rollback", "--to", "1.0.0"]).ok();
    ended(watching).expect(4);
    assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), ("v1.0.0", "bad"));
    Ok(())
}

fn an_operator_who_accepts_the_version_ends_its_trial() -> Outcome {
    let site = doubtful();
    let watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    site.run(&["confirm"]).ok();
    ended(watching).expect(4);
    assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), ("v1.2.0", "confirm"));
    assert_eq!(site.json(&["boot-check", "--judge"], 0)["trial"], "none");
    Ok(())
}

fn a_second_supervised_switch_takes_over() -> Outcome {
    let site = doubtful();
    let first = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    let second = site.start(&["activate", "1.3.0", "--restart"], "v1.3.0");
    ended(first).expect(4);
    std::fs::write(site.fixture.beside("network"), "").unwrap();
    let document = ended(second).ok().json();
    assert_eq!((&document["outcome"], &document["from"]), (&"done".into(), &"v1.2.0".into()));
    assert_eq!((site.current().as_str(), site.state("1.2.0").as_str()), ("v1.3.0", ""));
    Ok(())
}

fn an_interrupt_leaves_the_version_current_and_on_trial() -> Outcome {
    let site = doubtful();
    let watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
    let answer = ended(watching).expect(130).json();
    crate::documents::assert_documented("activate", &answer);
    let found = ["from", "to", "current", "level", "outcome", "bad", "trial"].map(|field| answer[field].clone());
    let trial = json!({"version": "v1.2.0", "current": "v1.2.0", "level": 0, "units": ["api"], "guarded": true});
    assert_eq!(json!(found), json!(["v1.1.0", "v1.2.0", "v1.2.0", 0, "interrupted", null, trial]));
    let attempt = &answer["attempts"][0];
    assert_eq!(attempt["restarted"][0]["unit"], "api");
    assert_eq!(attempt["services"][0], json!({"unit": "api", "judgement": "open", "evidence": null}));
    // Its guardian goes on, and restarts nothing that was restarted.
    let api = site.process("api");
    wait_until("the guardian watches", || site.status()["trial"]["watched"] == true);
    let trial = json!({
        "version": "v1.2.0", "current": "v1.2.0", "level": 0, "attempts": 0, "watched": true, "unreadable": null,
    });
    assert_eq!((site.current().as_str(), &site.status()["trial"]), ("v1.2.0", &trial));
    assert_eq!(site.json(&["boot-check", "--judge"], 0)["trial"], "watched");
    // gc keeps what it may go back to.
    let gone = site.fixture.json(&["gc", "--keep-last", "1", "--dry-run"]);
    let kept: Vec<_> = gone["kept"].as_array().unwrap().iter().map(|kept| kept["name"].as_str().unwrap()).collect();
    assert!(kept.contains(&"v1.1.0") && kept.contains(&"v1.2.0"), "{gone}");
    std::fs::write(site.fixture.beside("network"), "").unwrap();
    wait_until("the guardian has judged", || site.status()["trial"].is_null());
    assert_eq!((site.state("1.2.0").as_str(), site.process("api")), ("good", api));
    Ok(())
}

/// Each switch is said once, and nothing claims that nothing happened.
fn an_interrupt_says_where_things_stand_and_what_can_be_done() -> Outcome {
    let site = doubtful();
    for (arguments, current, was) in [
        (&["activate", "1.2.0", "--restart"][..], "v1.2.0", "v1.1.0"),
        (&["rollback", "--to", "1.1.0", "--restart"], "v1.1.0", "v1.2.0"),
    ] {
        let mut command = site.fixture.command();
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it is watched", || site.current() == current && site.version_of("api").as_deref() == Some(current));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ran = ended(child).expect(130);
        let first = format!("interrupted: current is now {current} (was {was}), and it is on trial\n");
        assert!(ran.stdout.starts_with(&first), "{ran:#?}");
        let lines = [
            format!("to accept it: tope-store confirm {current}\n"),
            "  api: restarted, not judged yet\n".into(),
            "its guardian watches it from here on, and goes back if it does not hold\n".into(),
        ];
        for line in lines {
            assert!(ran.stdout.contains(&line), "{ran:#?}");
        }
        let both = ran.stdout + &ran.stderr;
        assert_eq!((both.matches("current is now").count(), both.matches("nothing was").count()), (1, 0), "{both}");
    }
    Ok(())
}

fn the_same_command_again_takes_up_an_interrupted_trial() -> Outcome {
    let site = doubtful();
    let watching = site.start(&["activate", "1.2.0", "--restart"], "v1.2.0");
    kill_process(Pid::from_child(&watching), Signal::KILL).unwrap();
    ended(watching);
    std::fs::write(site.fixture.beside("network"), "").unwrap();
    let again = site.json(&["activate", "1.2.0", "--restart"], 0);
    assert_eq!((&again["outcome"], &again["attempts"][0]["restarted"][0]["unit"]), (&"done".into(), &"api".into()));
    assert_eq!((site.state("1.2.0").as_str(), &site.status()["trial"]), ("good", &json!(null)));
    Ok(())
}
