//! What stays by a rule or a protection, and what says so.

use tope_store::model::{Action, Event, Role};

use super::{current, decided, name, names, store, versions, with_versions};
use crate::support::{Fixture, Outcome, tree};

tests![
    rules_keep_versions_and_say_why,
    rules_come_from_the_configuration_where_no_flag_says_otherwise,
    an_empty_policy_is_refused,
    a_dry_run_tells_what_a_real_one_does_and_touches_nothing,
    roles_pins_trials_and_the_recorded_factory_protect,
    in_doubt_nothing_is_removed,
    unmanaged_directories_are_none_of_its_business,
];

fn rules_keep_versions_and_say_why() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 5);
    current(&fixture, "v1.2.0");
    let report = fixture.json(&["gc", "--keep-last", "2", "--keep-minor", "1"]);
    let reasons = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pair = |name: &str, list: &[&str]| (name.to_owned(), reasons(list));
    // Every release here is a minor of its own.
    assert_eq!(decided(&report, "removed"), []);
    let report = fixture.json(&["gc", "--keep-last", "2"]);
    assert_eq!(decided(&report, "removed"), [pair("v1.1.0", &["no-rule-keeps"]), pair("v1.3.0", &["no-rule-keeps"])]);
    assert_eq!(
        decided(&report, "kept"),
        [pair("v1.5.0", &["keep-last"]), pair("v1.4.0", &["keep-last"]), pair("v1.2.0", &["current"])]
    );
    assert_eq!(report["kept"][2]["why"][0], "is current");
    assert_eq!((&report["dry_run"], &report["interrupted"]), (&false.into(), &false.into()));
    assert_eq!(versions(&fixture), ["current", "v1.2.0", "v1.4.0", "v1.5.0"]);
    for kept in [2, 4, 5] {
        let (source, version) = (format!("source-{kept}"), format!("versions/v1.{kept}.0"));
        tree::assert_same(&fixture.beside(source), &fixture.path(version));
    }
    let text = fixture.run(&["gc", "--keep-last", "1", "-n"]).ok().stdout;
    assert!(
        text.starts_with("remove  v1.4.0  no rule keeps it\nkeep    v1.5.0  is number 1 of the last 1\n"),
        "{text}"
    );
    assert_eq!(fixture.json(&["list"].map(|_| "du"))["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn rules_come_from_the_configuration_where_no_flag_says_otherwise() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 4);
    std::fs::write(fixture.config(), "[retention]\nkeep_last = 3\n").unwrap();
    assert_eq!(names(&fixture.json(&["gc", "-n"]), "removed"), ["v1.1.0"]);
    assert_eq!(names(&fixture.json(&["gc", "-n", "--keep-last", "1"]), "removed"), ["v1.1.0", "v1.2.0", "v1.3.0"]);
    assert_eq!(names(&fixture.json(&["gc", "-n", "--free", "1GiB"]), "removed"), ["v1.1.0"], "rules hold beside it");
    Ok(())
}

fn an_empty_policy_is_refused() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 1);
    for arguments in [&["gc"][..], &["gc", "--keep-last", "0"], &["gc", "-n"]] {
        assert!(fixture.run(arguments).expect(2).stderr.contains("empty policy"));
    }
    assert_eq!(versions(&fixture), ["v1.1.0"]);
    Ok(())
}

fn a_dry_run_tells_what_a_real_one_does_and_touches_nothing() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 4);
    let before = (tree::describe(&fixture.path("versions"), false), tree::describe(&fixture.path("store"), false));
    let mut told = fixture.json(&["gc", "--keep-last", "1", "--dry-run"]);
    let after = (tree::describe(&fixture.path("versions"), false), tree::describe(&fixture.path("store"), false));
    assert!(before == after, "a dry run changed something");
    let mut done = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((told["dry_run"].take(), done["dry_run"].take()), (true.into(), false.into()));
    assert!(told["freed_bytes"].as_u64().unwrap() > 300_000);
    told["elapsed_ms"].take();
    done["elapsed_ms"].take();
    assert_eq!(told, done);
    assert_eq!(versions(&fixture), ["v1.4.0"]);
    Ok(())
}

fn roles_pins_trials_and_the_recorded_factory_protect() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 8);
    current(&fixture, "v1.1.0");
    // By hand, absolute, as people do.
    std::os::unix::fs::symlink(fixture.path("versions/v1.2.0"), fixture.path("versions/previous")).unwrap();
    std::os::unix::fs::symlink("v1.3.0", fixture.path("versions/factory")).unwrap();
    std::fs::write(fixture.path("store/trial"), r#"{"id":1,"from":"v1.4.0","to":"v1.5.0"}"#).unwrap();
    let about = |action, version| Event::about(action, &name(version), None);
    let factory = Event { role: Some(Role::Factory), ..about(Action::FactorySet, "v1.6.0") };
    store(&fixture).record(vec![about(Action::Pin, "v1.7.0"), factory]).unwrap();
    let report = fixture.json(&["gc", "--free", "1GiB"]);
    assert_eq!(names(&report, "removed"), ["v1.8.0"]);
    let reasons: Vec<String> = decided(&report, "kept").into_iter().flat_map(|(_, reasons)| reasons).collect();
    assert_eq!(reasons, ["pinned", "recorded-factory", "on-trial", "on-trial", "factory", "previous", "current"]);
    Ok(())
}

fn in_doubt_nothing_is_removed() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 3);
    let damage = |path: &str, at: usize| {
        let path = fixture.path(path);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        (path, sound)
    };
    for (path, at) in [("store/manifests/v1.2.0", 60), ("store/history", 100)] {
        let (path, sound) = damage(path, at);
        for arguments in [&["--json", "gc", "--keep-last", "1"][..], &["--json", "gc", "-n", "--keep-last", "1"]] {
            assert_eq!(fixture.run(arguments).expect(4).json()["error"]["kind"], "doubt", "{}", path.display());
        }
        assert_eq!(fixture.run(&["--json", "remove", "1.1.0"]).expect(4).json()["error"]["kind"], "doubt");
        std::fs::write(path, sound).unwrap();
    }
    assert_eq!(versions(&fixture).len(), 3);
    std::fs::rename(fixture.path("store/history"), fixture.beside("history")).unwrap();
    fixture.run(&["gc", "--keep-last", "1"]).expect(4);
    std::fs::rename(fixture.beside("history"), fixture.path("store/history")).unwrap();
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed").len(), 2);
    Ok(())
}

fn unmanaged_directories_are_none_of_its_business() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    tree::release(fixture.path("versions/v9.0.0"), 9);
    tree::release(fixture.path("versions/a directory"), 9);
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((names(&report, "removed"), names(&report, "kept")), (vec!["v1.1.0".into()], vec!["v1.2.0".into()]));
    assert_eq!(versions(&fixture), ["a directory", "v1.2.0", "v9.0.0"]);
    Ok(())
}
