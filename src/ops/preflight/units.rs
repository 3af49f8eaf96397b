//! Whether units can be started: by what the manager has in memory, or by their files where a switch changes those.

use std::path::{Path, PathBuf};

use super::files::{self, Files, Read};
use super::order::{self, Ordering};
use super::{Subject, View, accounts, commands, refuse_if};
use crate::config::UnitName;
use crate::error::Shown;
use crate::model::preflight::{Finding, Severity};
use crate::services::{Loadable, Loaded};

const WHY: &str = "the service manager cannot start it, on any version";
/// Where systemd looks for a program that a unit names without its directory.
const PROGRAM_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A unit as it will be.
pub(super) enum Unit {
    /// The manager has it as it is.
    Loaded(Loaded),
    /// Its files decide.
    Files(Box<Read>),
    /// Nothing can be said of it.
    Unknown,
}

/// Finds what keeps units from starting. Where the manager knows nothing of how units are defined there is nothing to find.
pub(super) fn examine(view: &View<'_>, subject: &Subject<'_>) -> Vec<Finding> {
    let names: Vec<String> = subject.services.iter().map(|service| service.unit.clone()).collect();
    let Ok(loaded) = subject.manager.loaded(&names) else { return Vec::new() };
    if loaded.len() != names.len() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut units: Vec<(String, Unit)> = Vec::new();
    for loaded in loaded {
        let name = loaded.unit.clone();
        let severity = refuse_if((subject.touched)(&name));
        let of = Of { view, unit: &name, severity };
        let unit = as_it_will_be(view, &name, loaded, &of, &mut findings);
        match &unit {
            Unit::Loaded(loaded) => of.loaded(loaded, &mut findings),
            Unit::Files(read) => of.files(read, &mut findings),
            Unit::Unknown => {}
        }
        units.push((name, unit));
    }
    let ordering = Ordering::new(view, subject, &units);
    findings.extend(order::needs(view, subject, &units));
    findings.extend(ordering.cycles(subject));
    findings
}

/// Finds out which of manager and files decides. What neither has is a finding.
fn as_it_will_be(view: &View<'_>, name: &str, loaded: Loaded, of: &Of<'_>, findings: &mut Vec<Finding>) -> Unit {
    if loaded.loadable == Loadable::Masked {
        return Unit::Unknown;
    }
    let moves = |path: &PathBuf| view.follow(path).is_some_and(|led| led.switched);
    let from_release = loaded.files.iter().any(moves);
    let read = match files::of(view, name) {
        Files::Masked => return Unit::Unknown,
        Files::Unknown => return Unit::Loaded(loaded),
        Files::None if loaded.loadable == Loadable::Missing || from_release => {
            let within = view.within(true);
            let what = match from_release {
                true => format!("there will be no {name}: no file defines it{within}"),
                false => format!("there is no {name}, and no file of it{within}"),
            };
            let remedy = "install its unit file, or take it out of the configuration";
            findings.push(of.finding("unit-absent", what, WHY, remedy.into()));
            return Unit::Unknown;
        }
        // Units that are made elsewhere, by generators for instance.
        Files::None => return Unit::Loaded(loaded),
        Files::Some(read) => read,
    };
    match read.switched || from_release || loaded.outdated || loaded.loadable == Loadable::Missing {
        true => Unit::Files(Box::new(read)),
        false => Unit::Loaded(loaded),
    }
}

/// A unit that is judged.
struct Of<'a> {
    view: &'a View<'a>,
    unit: &'a str,
    severity: Severity,
}

impl Of<'_> {
    fn finding(&self, kind: &'static str, what: String, why: &'static str, remedy: String) -> Finding {
        Finding { kind, severity: self.severity, unit: Some(self.unit.to_owned()), what, why, remedy }
    }

    /// Judges a unit by what the manager has in memory.
    fn loaded(&self, loaded: &Loaded, findings: &mut Vec<Finding>) {
        let unit = self.unit;
        if loaded.loadable == Loadable::Refused {
            // What the manager says is short; its file says more.
            let read = match files::of(self.view, unit) {
                Files::Some(read) => read.definition.refusals(),
                _ => Vec::new(),
            };
            let details = if read.is_empty() { String::new() } else { format!(" ({})", read.join("; ")) };
            let what = format!("{unit} cannot be loaded: {}{details}", loaded.problem);
            findings.push(self.finding(
                "unit-refused",
                what,
                WHY,
                format!("systemctl status {unit} says more; correct its file"),
            ));
        }
        self.accounts(loaded.accounts.iter().map(|(key, name)| (*key, name.as_str())), findings);
        for program in &loaded.programs {
            // A release without the program is undone and marked bad by the switch: that says more than a refusal.
            let led = self.view.follow(Path::new(program));
            let judged = commands::at(self.view, Path::new(program));
            if let Some(problem) = judged.problem().filter(|_| led.is_some_and(|led| led.switched)) {
                let finding = self.program(&problem);
                findings.push(Finding { severity: Severity::Warn, ..finding });
            }
        }
    }

    /// Judges a unit by its files.
    fn files(&self, read: &Read, findings: &mut Vec<Finding>) {
        let (unit, definition) = (self.unit, &read.definition);
        if UnitName::of(unit).kind != Some("service") {
            return;
        }
        let path = format!("{}{}", Shown::path(&read.path), self.view.within(read.switched));
        let correct = || format!("correct {path}");
        for refusal in definition.refusals() {
            let what = format!("{unit} cannot be loaded from {path}: {refusal}");
            findings.push(self.finding("unit-refused", what, WHY, correct()));
        }
        for mistake in definition.mistakes() {
            let what = format!("{unit}: {}", Shown::text(mistake));
            let why = "systemd ignores what it does not know, and the service runs without it";
            let finding = self.finding("unit-mistake", what, why, correct());
            findings.push(Finding { severity: Severity::Warn, ..finding });
        }
        self.accounts(definition.accounts(), findings);
        for program in definition.programs() {
            let problem = match program.program.starts_with('/') {
                true => commands::at(self.view, Path::new(&program.program)).problem(),
                false => self.nowhere(&program.program),
            };
            findings.extend(problem.map(|problem| self.program(&problem)));
        }
    }

    fn program(&self, problem: &str) -> Finding {
        let unit = self.unit;
        let what = format!("{unit} cannot start: {problem}");
        let why = "a service does not come up without its program";
        self.finding("unit-program", what, why, "install the program, or correct the unit or the release".into())
    }

    /// That a program is in none of systemd's directories, if so.
    fn nowhere(&self, program: &str) -> Option<String> {
        for directory in PROGRAM_DIRECTORIES {
            match commands::at(self.view, &Path::new(directory).join(program)) {
                commands::Judged::Missing(_) => {}
                other => return other.problem(),
            }
        }
        Some(format!("there is no program {} in {}", Shown::text(program), PROGRAM_DIRECTORIES.join(":")))
    }

    fn accounts<'a>(&self, accounts: impl IntoIterator<Item = (&'static str, &'a str)>, findings: &mut Vec<Finding>) {
        for (key, name) in accounts {
            if accounts::is_missing(self.view.store, key, name) {
                let what = match key {
                    "User" => "user",
                    _ => "group",
                };
                let shown = Shown::text(name);
                findings.push(self.finding(
                    "unit-account",
                    format!("{} runs with {key}={shown}, and there is no such {what}", self.unit),
                    "systemd cannot start a service without its user and groups",
                    match what {
                        "user" => format!("useradd --system {shown}"),
                        _ => format!("groupadd --system {shown}"),
                    },
                ));
            }
        }
    }
}
