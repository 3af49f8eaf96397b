//! What is found of units before a switch, with a manager that says what a systemd would. No systemd is needed.

use std::path::PathBuf;
use std::time::Duration;

use tope_store::config::Service;
use tope_store::error::Result;
use tope_store::layout::Layout;
use tope_store::model::VersionName;
use tope_store::ops::preflight::{Finding, Severity, Subject, preflight};
use tope_store::services::{Loadable, Loaded, Patience, ServiceManager, UnitState};
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, Outcome, releases};

tests![
    units_that_the_manager_cannot_load_are_found,
    users_and_groups_that_do_not_exist_are_found,
    units_that_wait_for_each_other_are_found,
    units_that_need_one_which_cannot_be_loaded_are_found,
    a_program_that_a_release_lacks_is_only_warned_of,
    a_manager_that_does_not_answer_is_no_finding,
];

/// A manager that knows these units and no others.
#[derive(Default)]
struct Told {
    units: Vec<Loaded>,
    is_silent: bool,
}

impl ServiceManager for Told {
    fn name(&self) -> &'static str {
        "systemd"
    }
    fn tells_starting(&self) -> bool {
        true
    }
    fn states(&self, _: &[String], _: Duration) -> Result<Vec<UnitState>> {
        unreachable!("how units run is not asked")
    }
    fn start(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        unreachable!("nothing is started")
    }
    fn stop(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        unreachable!("nothing is stopped")
    }
    fn restart(&self, _: &[String], _: Patience<'_>) -> Result<()> {
        unreachable!("nothing is restarted")
    }
    fn loaded(&self, units: &[String]) -> Result<Vec<Loaded>> {
        if self.is_silent {
            let problem = "no answer".to_owned();
            return Err(tope_store::error::Error::Services { manager: "systemd", problem });
        }
        let missing = |unit: &String| Loaded { unit: unit.clone(), loadable: Loadable::Missing, ..Loaded::default() };
        let known = |unit: &String| self.units.iter().find(|known| known.unit == *unit).cloned();
        Ok(units.iter().map(|unit| known(unit).unwrap_or_else(|| missing(unit))).collect())
    }
    fn log(&self, _: &str, _: usize) -> Vec<String> {
        Vec::new()
    }
}

/// Names that no machine has files of.
fn unit(name: &str) -> String {
    format!("tope-test-{name}.service")
}

fn loaded(name: &str) -> Loaded {
    Loaded { unit: unit(name), ..Loaded::default() }
}

fn of(fixture: &Fixture, units: Vec<Loaded>, services: &[&str], touched: &[&str]) -> Vec<(String, Severity, String)> {
    let manager = Told { units, is_silent: false };
    found(fixture, &manager, services, touched)
        .into_iter()
        .map(|one| (one.kind.to_owned(), one.severity, one.what))
        .collect()
}

fn found(fixture: &Fixture, manager: &Told, services: &[&str], touched: &[&str]) -> Vec<Finding> {
    let store = Store::open(Layout::new(fixture.root(), None), Settings::default()).expect("a store");
    let services: Vec<Service> = services.iter().map(|name| Service::of(unit(name))).collect();
    let is_touched = |name: &str| touched.iter().any(|touched| unit(touched) == name);
    let target: VersionName = "v1.1.0".parse().unwrap();
    let subject = Subject {
        manager,
        services: &services,
        touched: &is_touched,
        watched: &is_touched,
        notify: &[],
        target: Some(&target),
    };
    preflight(&store, &subject)
}

fn units_that_the_manager_cannot_load_are_found() -> Outcome {
    let fixture = releases(2);
    let refused = |name: &str| Loaded { loadable: Loadable::Refused, problem: "bad-setting".into(), ..loaded(name) };
    let masked = Loaded { loadable: Loadable::Masked, ..loaded("masked") };
    let units = vec![loaded("good"), refused("bad"), refused("other"), masked];
    let found = of(&fixture, units, &["good", "bad", "other", "masked", "gone"], &["good", "bad", "masked", "gone"]);
    let expected = [
        ("unit-refused", Severity::Refuse, "tope-test-bad.service cannot be loaded: bad-setting"),
        ("unit-absent", Severity::Refuse, "there is no tope-test-gone.service, and no file of it in v1.1.0"),
        ("unit-refused", Severity::Warn, "tope-test-other.service cannot be loaded: bad-setting"),
    ];
    assert_eq!(found, expected.map(|(kind, severity, what)| (kind.to_owned(), severity, what.to_owned())));
    Ok(())
}

fn users_and_groups_that_do_not_exist_are_found() -> Outcome {
    crate::support::needs_program("getent")?;
    let fixture = releases(2);
    let accounts = [("User", "root"), ("Group", "no-such-group-here"), ("SupplementaryGroups", "root")];
    let accounts = accounts.map(|(key, name)| (key, name.to_owned())).into();
    let units = vec![
        Loaded { accounts, ..loaded("api") },
        Loaded { accounts: vec![("User", "no-such-user-here".into())], ..loaded("web") },
    ];
    let found = of(&fixture, units, &["api", "web"], &["api", "web"]);
    let whats: Vec<&str> = found.iter().map(|(_, _, what)| what.as_str()).collect();
    let expected = [
        "tope-test-api.service runs with Group=no-such-group-here, and there is no such group",
        "tope-test-web.service runs with User=no-such-user-here, and there is no such user",
    ];
    assert_eq!(whats, expected);
    assert!(found.iter().all(|(kind, severity, _)| kind == "unit-account" && *severity == Severity::Refuse));
    Ok(())
}

fn after(name: &str, others: &[&str]) -> Loaded {
    Loaded { after: others.iter().map(|other| (*other).to_owned()).collect(), ..loaded(name) }
}

fn units_that_wait_for_each_other_are_found() -> Outcome {
    let fixture = releases(2);
    let (a, b, c) = (unit("a"), unit("b"), unit("c"));
    let two = vec![after("a", &["basic.target", &b]), after("b", &[&a]), after("c", &[&a])];
    let found = of(&fixture, two, &["a", "b", "c"], &["b"]);
    let what = format!("units wait for each other: {a} after {b} after {a}");
    assert_eq!(found, [("unit-order".to_owned(), Severity::Refuse, what)], "one finding for one circle");
    // By way of a unit that is none of the services, and of nothing that is touched.
    let target = Loaded { unit: "app.target".into(), after: vec![c.clone()], ..Loaded::default() };
    let three = vec![after("a", &[&b]), after("b", &["app.target"]), after("c", &[&a]), target];
    let found = of(&fixture, three.clone(), &["a", "b", "c"], &["c"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0.as_str(), found[0].1), ("unit-order", Severity::Refuse));
    assert!(found[0].2.contains("app.target after"), "{found:?}");
    let found = of(&fixture, three, &["a", "b", "c"], &[]);
    assert_eq!(found[0].1, Severity::Warn);
    // A long chain is no circle, and what ends a machine is none either.
    let chain = vec![after("a", &[&b, "shutdown.target"]), after("b", &[&c]), after("c", &[])];
    assert_eq!(of(&fixture, chain, &["a", "b", "c"], &["a"]), []);
    Ok(())
}

fn units_that_need_one_which_cannot_be_loaded_are_found() -> Outcome {
    let fixture = releases(2);
    let needs = |name: &str, other: &str| Loaded { requires: vec![other.to_owned()], ..loaded(name) };
    let masked = Loaded { loadable: Loadable::Masked, ..loaded("masked") };
    let units =
        vec![needs("a", &unit("gone")), needs("b", &unit("masked")), needs("c", &unit("good")), loaded("good"), masked];
    let found = of(&fixture, units, &["a", "b", "c"], &["a", "c"]);
    let expected = [
        (Severity::Refuse, "tope-test-a.service requires tope-test-gone.service, which does not exist"),
        (Severity::Warn, "tope-test-b.service requires tope-test-masked.service, which is masked"),
    ];
    assert_eq!(found, expected.map(|(severity, what)| ("unit-needs".to_owned(), severity, what.to_owned())));
    Ok(())
}

/// The switch undoes such a release and marks it bad, which says more than a refusal.
fn a_program_that_a_release_lacks_is_only_warned_of() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    let at = |path: &str| fixture.path("versions/current").join(path).display().to_string();
    let programs = vec![at("bin/device-api"), at("bin/none"), "/no/such/program".to_owned()];
    let found = of(&fixture, vec![Loaded { programs, ..loaded("api") }], &["api"], &["api"]);
    let what = format!("tope-test-api.service cannot start: there is no {} in v1.1.0", at("bin/none"));
    assert_eq!(found, [("unit-program".to_owned(), Severity::Warn, what)]);
    // A unit whose file comes with a release is gone with one that does not bring it.
    let files = vec![PathBuf::from(at("units/api.service"))];
    let found = of(&fixture, vec![Loaded { files, ..loaded("api") }], &["api"], &["api"]);
    let what = "there will be no tope-test-api.service: no file defines it in v1.1.0".to_owned();
    assert_eq!(found, [("unit-absent".to_owned(), Severity::Refuse, what)]);
    Ok(())
}

fn a_manager_that_does_not_answer_is_no_finding() -> Outcome {
    let fixture = releases(2);
    let silent = Told { is_silent: true, ..Told::default() };
    assert_eq!(found(&fixture, &silent, &["a"], &["a"]), []);
    Ok(())
}
