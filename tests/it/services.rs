//! Services under a manager of plain commands, and which of them a switch touches. No systemd is needed.

use std::time::{Duration, Instant};

use tope_store::config::{Config, Service};
use tope_store::layout::Layout;
use tope_store::model::VersionName;
use tope_store::ops::affected::affected;
use tope_store::services::{Judgement, Patience, ServiceManager, Verdict, manager, watch};
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, Outcome, needs_program, releases, tree};

tests![
    services_under_plain_commands_pass_and_fail,
    a_changed_program_or_directory_touches_its_service_only,
    links_configured_paths_and_unit_files_touch_a_service,
    the_file_of_a_template_and_drop_ins_touch_every_unit_that_is_made_of_them,
    in_doubt_every_service_is_touched,
];

/// Keeps each service's process in a file, as a small init system does.
const CONTROL: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
stop() { if [ -s "$1.pid" ]; then kill "$(cat "$1.pid")" 2>/dev/null; rm "$1.pid"; fi; }
case $1 in
    start | restart)
        stop "$2"
        echo "starting $2"
        [ "$2" != refuses ] || exit 6
        exec </dev/null >>log 2>&1
        "./$2" &
        echo $! >"$2.pid" ;;
    stop) stop "$2" ;;
    status) [ -s "$2.pid" ] && kill -0 "$(cat "$2.pid")" ;;
esac
"#;

fn controlled(fixture: &Fixture, services: &str) -> (Box<dyn ServiceManager>, Vec<Service>) {
    tree::program(fixture.beside("rc/control"), CONTROL);
    let control = fixture.beside("rc/control").display().to_string();
    let verbs = ["start", "stop", "restart", "status"];
    let templates = verbs.map(|verb| format!("{verb} = [\"{control}\", \"{verb}\", \"{{unit}}\"]\n")).concat();
    let config =
        Config::parse(&format!("[supervisor]\nkind = \"command\"\n{templates}\n{services}")).expect("a config");
    (manager(&config.supervisor), config.services)
}

fn restarted(manager: &dyn ServiceManager, services: &[Service]) -> Vec<Verdict> {
    let begun = Instant::now();
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    manager.restart(&units, Patience::of(Duration::from_secs(60))).expect("commands can be run");
    let verdicts = watch(manager, services, &|_| false, begun, &|| true);
    manager.stop(&units, Patience::of(Duration::from_secs(60))).expect("commands can be run");
    verdicts
}

fn services_under_plain_commands_pass_and_fail() -> Outcome {
    needs_program("sleep")?;
    let fixture = Fixture::bare();
    for (name, script) in [("steady", "exec sleep 600"), ("short", "sleep 0.5"), ("dead", "exit 1")] {
        tree::program(fixture.beside("rc").join(name), format!("#!/bin/sh\n{script}\n"));
    }
    let table = |unit: &str, more: &str| format!("[[service]]\nunit = \"{unit}\"\ntimeout = \"60s\"\n{more}\n");
    let judged = |services: &str| {
        let (manager, services) = controlled(&fixture, services);
        restarted(&*manager, &services).into_iter().map(|verdict| verdict.judgement).collect::<Vec<_>>()
    };
    let steady = table("steady", "settle = \"300ms\"\ncommand = [\"true\"]");
    assert_eq!(judged(&steady), [Judgement::Passed]);
    for (bad, check, detail) in [
        (table("short", "settle = \"30s\""), "unit short", "it did not stay up: the status command: it ended"),
        // It may have been seen for an instant.
        (table("dead", "settle = \"3s\""), "unit dead", "the status command: it ended with exit code 1"),
        (
            table("refuses", "settle = \"0s\""),
            "unit refuses",
            "it failed to start: the restart command failed: it ended with exit code 6",
        ),
    ] {
        let verdicts = judged(&format!("{bad}{}", table("steady", "settle = \"40s\"")));
        let Judgement::Failed(evidence) = &verdicts[0] else { panic!("{verdicts:?}") };
        assert_eq!(evidence.check, check);
        assert!(evidence.detail.contains(detail), "{evidence:?}");
        assert_eq!(evidence.log, [format!("starting {}", &check[5..])]);
        assert_eq!(verdicts[1], Judgement::Open);
    }
    Ok(())
}

fn store(fixture: &Fixture) -> Store {
    Store::open(Layout::new(fixture.root(), None), Settings::default()).expect("a store")
}

/// For each service the reasons, joined.
fn reasons(fixture: &Fixture, services: &str, from: &str, to: &str) -> Vec<String> {
    let (manager, services) = controlled(fixture, services);
    let [from, to] = [from, to].map(|version| version.parse::<VersionName>().expect("a version"));
    let found = affected(&store(fixture), &*manager, &services, Some(&from), &to).expect("an answer");
    found.units.into_iter().map(|one| one.reasons.join("; ")).collect()
}

fn units(units: &[&str]) -> String {
    units.iter().map(|unit| format!("[[service]]\nunit = \"{unit}\"\n")).collect()
}

fn a_changed_program_or_directory_touches_its_service_only() -> Outcome {
    let fixture = releases(2);
    tree::release(fixture.beside("third"), 1);
    tree::file(fixture.beside("third/services/web-server/new.css"), "a {}");
    std::fs::remove_file(fixture.beside("third/services/web-server/index.html")).unwrap();
    fixture.import("third", "1.2.0");
    let both = units(&["device-api.service", "web-server@1.service"]);
    let found = reasons(&fixture, &both, "1.0.0", "1.1.0");
    assert_eq!(found, ["bin/device-api differs", "services/web-server/index.html differs"]);
    let found = reasons(&fixture, &both, "1.1.0", "1.2.0");
    assert_eq!(found, ["", "services/web-server/index.html is gone; services/web-server/new.css is new"]);
    assert_eq!(reasons(&fixture, &both, "1.1.0", "1.1.0"), ["", ""]);
    Ok(())
}

fn links_configured_paths_and_unit_files_touch_a_service() -> Outcome {
    let fixture = Fixture::new();
    for (number, source) in ["one", "two"].into_iter().enumerate() {
        let at = |path: &str| fixture.beside(source).join(path);
        tree::program(at("lib/worker/main"), format!("{number}"));
        tree::program(at("bin/plain"), "same");
        tree::program(at("bin/filed"), "same");
        tree::program(at("bin/told"), "same");
        tree::file(at("units/filed.service"), format!("{number}"));
        tree::file(at("init.d/scripted"), format!("{number}"));
        tree::file(at("lib/told/data"), format!("{number}"));
        std::os::unix::fs::symlink("../lib/worker/main", at("bin/worker")).unwrap();
        fixture.import(source, &format!("1.{number}.0"));
    }
    let services = units(&["worker.service", "plain.service", "filed.service", "scripted", "told.service"]);
    let found = reasons(&fixture, &format!("{services}paths = [\"lib/told/*\"]\n"), "1.0.0", "1.1.0");
    let expected = ["lib/worker/main", "", "units/filed.service", "init.d/scripted", "lib/told/data"];
    let expected = expected.map(|path| if path.is_empty() { String::new() } else { format!("{path} differs") });
    assert_eq!(found, expected);
    Ok(())
}

fn the_file_of_a_template_and_drop_ins_touch_every_unit_that_is_made_of_them() -> Outcome {
    let fixture = Fixture::new();
    for (number, source) in ["one", "two"].into_iter().enumerate() {
        let at = |path: &str| fixture.beside(source).join(path);
        for program in ["worker", "web-front", "web-back", "alone"] {
            tree::program(at("bin").join(program), "same");
        }
        tree::file(at("units/worker@.service"), format!("{number}"));
        tree::file(at("units/web-.service.d/limits.conf"), format!("{number}"));
        fixture.import(source, &format!("1.{number}.0"));
    }
    let services = units(&["worker@1.service", "worker@2", "web-front.service", "web-back.service", "alone.service"]);
    let template = "units/worker@.service differs";
    let limits = "units/web-.service.d/limits.conf differs";
    assert_eq!(reasons(&fixture, &services, "1.0.0", "1.1.0"), [template, template, limits, limits, ""]);
    tree::file(fixture.beside("two/units/service.d/all.conf"), "");
    fixture.import("two", "1.2.0");
    let all = "units/service.d is new; units/service.d/all.conf is new";
    assert_eq!(reasons(&fixture, &services, "1.1.0", "1.2.0"), [all; 5]);
    Ok(())
}

fn in_doubt_every_service_is_touched() -> Outcome {
    let fixture = releases(2);
    let unknown = "what it needs of the release is not known, and something differs";
    let found = reasons(&fixture, &units(&["nginx.service", "device-api.service"]), "1.0.0", "1.1.0");
    assert_eq!(found, [unknown, "bin/device-api differs"]);
    std::fs::create_dir(fixture.path("versions/v0.1.0")).unwrap();
    let found = reasons(&fixture, &units(&["device-api.service"]), "0.1.0", "1.0.0");
    assert_eq!(found, ["v0.1.0 was made by hand, so it is not known what differs"]);
    let manifest = fixture.path("store/manifests/v1.1.0");
    std::fs::write(manifest, "no manifest").unwrap();
    let found = reasons(&fixture, &units(&["device-api.service"]), "1.0.0", "1.1.0");
    assert!(found[0].starts_with("it is not known what differs: "), "{found:?}");
    Ok(())
}
