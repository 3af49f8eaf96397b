//! What units wait for, and what they cannot do without.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{self, Files};
use super::units::Unit;
use super::{Subject, View, refuse_if};
use crate::config::UnitName;
use crate::model::preflight::Finding;
use crate::services::Loadable;

/// How many times the units behind those that are known already are asked about.
const ROUNDS: usize = 4;
/// Units in whose name others wait at each boot, which wait for no service.
const EARLY: [&str; 4] = ["basic.target", "shutdown.target", "sysinit.target", "umount.target"];

/// Which unit waits for which.
pub(super) struct Ordering {
    after: BTreeMap<String, BTreeSet<String>>,
}

impl Ordering {
    /// Takes in these units and those that they wait for, as far as the manager tells.
    pub(super) fn new(view: &View<'_>, subject: &Subject<'_>, units: &[(String, Unit)]) -> Self {
        let mut after: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut by_files: BTreeSet<&str> = BTreeSet::new();
        for (unit, as_it_will_be) in units {
            let waits = after.entry(unit.clone()).or_default();
            match as_it_will_be {
                Unit::Loaded(loaded) => waits.extend(loaded.after.iter().cloned()),
                Unit::Files(read) => {
                    by_files.insert(unit);
                    waits.extend(read.definition.words("Unit", "After").into_iter().map(full_name));
                }
                Unit::Unknown => {}
            }
        }
        for (unit, as_it_will_be) in units {
            if let Unit::Files(read) = as_it_will_be {
                for other in read.definition.words("Unit", "Before") {
                    after.entry(full_name(other)).or_default().insert(unit.clone());
                }
            }
        }
        let mut asked: BTreeSet<String> = units.iter().map(|(unit, _)| unit.clone()).collect();
        for _ in 0..ROUNDS {
            let known = after.values().flatten().filter(|unit| can_wait(unit) && !asked.contains(*unit));
            let next: BTreeSet<String> = known.cloned().collect();
            let next: Vec<String> = next.into_iter().collect();
            let Ok(found) = subject.manager.loaded(&next) else { break };
            if next.is_empty() {
                break;
            }
            for loaded in found {
                after.entry(loaded.unit).or_default().extend(loaded.after);
            }
            asked.extend(next);
        }
        let mut ordering = Self { after };
        ordering.forget_what_files_change(view, units, &by_files);
        ordering
    }

    /// What the manager says that others wait for a unit, it may have from files of that unit which the switch changes. It
    /// counts only where their own files say so.
    fn forget_what_files_change(&mut self, view: &View<'_>, units: &[(String, Unit)], by_files: &BTreeSet<&str>) {
        let said_by_files = |changed: &str, other: &str| {
            let own = units.iter().find(|(unit, _)| unit == changed);
            matches!(own, Some((_, Unit::Files(read))) if read.definition.words("Unit", "Before").into_iter().any(|before| full_name(before) == other))
        };
        for (unit, waits) in &mut self.after {
            if by_files.contains(unit.as_str()) {
                continue;
            }
            waits.retain(|other| {
                !by_files.contains(other.as_str())
                    || said_by_files(other, unit)
                    || waits_by_its_files(view, unit, other)
            });
        }
    }

    /// Units that wait for each other; each circle once.
    pub(super) fn cycles(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let mut seen: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
        let mut findings = Vec::new();
        for service in subject.services {
            let Some(circle) = self.circle(&service.unit) else { continue };
            if !seen.insert(circle.iter().copied().collect()) {
                continue;
            }
            let way: Vec<&str> = circle.iter().chain(circle.first()).copied().collect();
            findings.push(Finding {
                kind: "unit-order",
                severity: refuse_if(circle.iter().any(|unit| (subject.touched)(unit))),
                unit: Some(service.unit.clone()),
                what: format!("units wait for each other: {}", way.join(" after ")),
                why: "systemd breaks such a circle by leaving one of them out, and a boot may come up without it",
                remedy: "take one of these After= or Before= out".into(),
            });
        }
        findings
    }

    /// The shortest way from a unit back to itself.
    fn circle<'a>(&'a self, unit: &'a str) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut ahead = vec![unit];
        while !ahead.is_empty() {
            let mut next = Vec::new();
            for at in ahead {
                for other in self.after.get(at).into_iter().flatten().map(String::as_str) {
                    if other == unit {
                        let mut circle = vec![at];
                        while let Some(before) = came_from.get(circle[circle.len() - 1]) {
                            circle.push(before);
                        }
                        circle.reverse();
                        return Some(circle);
                    }
                    if can_wait(other) && !came_from.contains_key(other) {
                        came_from.insert(other, at);
                        next.push(other);
                    }
                }
            }
            ahead = next;
        }
        None
    }
}

/// Whether a unit's own files say that it waits for another.
fn waits_by_its_files(view: &View<'_>, unit: &str, other: &str) -> bool {
    let says = |definition: &crate::services::definition::Definition| {
        definition.words("Unit", "After").into_iter().any(|after| full_name(after) == other)
    };
    matches!(files::of(view, unit), Files::Some(read) if says(&read.definition))
}

/// Whether a unit is of a kind that may wait for a service.
fn can_wait(unit: &str) -> bool {
    let UnitName { kind, instance, .. } = UnitName::of(unit);
    instance != Some("")
        && matches!(kind, Some("service" | "socket" | "target" | "path" | "timer"))
        && !EARLY.contains(&unit)
        && !unit.contains(['%', '/'])
}

fn full_name(unit: &str) -> String {
    UnitName::of(unit).in_full()
}

/// Units that a service cannot be started without, and that cannot be started themselves.
pub(super) fn needs(view: &View<'_>, subject: &Subject<'_>, units: &[(String, Unit)]) -> Vec<Finding> {
    let mut needed: Vec<(&str, String)> = Vec::new();
    for (unit, as_it_will_be) in units {
        let names: Vec<String> = match as_it_will_be {
            Unit::Loaded(loaded) => loaded.requires.clone(),
            Unit::Files(read) => {
                let words = ["Requires", "Requisite", "BindsTo"].map(|key| read.definition.words("Unit", key));
                words.into_iter().flatten().filter(|name| !name.contains('%')).map(full_name).collect()
            }
            Unit::Unknown => Vec::new(),
        };
        // What is one of the services is judged as such.
        let others = names.into_iter().filter(|name| units.iter().all(|(unit, _)| unit != name));
        needed.extend(others.map(|name| (unit.as_str(), name)));
    }
    let names: BTreeSet<String> = needed.iter().map(|(_, name)| name.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let Ok(loaded) = subject.manager.loaded(&names) else { return Vec::new() };
    let found = needed.into_iter().filter_map(|(unit, name)| {
        let loaded = loaded.iter().find(|loaded| loaded.unit == name)?;
        let problem = match loaded.loadable {
            Loadable::Yes => return None,
            Loadable::Missing if matches!(files::of(view, &name), Files::None) => "which does not exist".to_owned(),
            Loadable::Missing => return None,
            Loadable::Masked => "which is masked".to_owned(),
            Loadable::Refused => format!("which cannot be loaded: {}", loaded.problem),
        };
        Some(Finding {
            kind: "unit-needs",
            severity: refuse_if((subject.touched)(unit)),
            unit: Some(unit.to_owned()),
            what: format!("{unit} requires {name}, {problem}"),
            why: "systemd does not start a unit without those that it requires",
            remedy: format!("install or correct {name}, or take it out of {unit}"),
        })
    });
    found.collect()
}
