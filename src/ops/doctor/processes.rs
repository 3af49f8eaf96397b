//! Processes that use versions: those that a switch left behind, those that may write, those that cannot be seen.

use std::collections::BTreeMap;

use super::{Finding, Options, Report, Severity};
use crate::error::{Result, Shown};
use crate::fsys::process;
use crate::model::manifest::PlacementKind;
use crate::model::{Node, TreePath, VersionName};
use crate::observe::Observer;
use crate::ops::who::{Process, Which, who};
use crate::store::Store;

/// Most processes that are named.
const MOST_NAMED: usize = 5;

pub(super) fn examine(store: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    // What runs on this machine uses nothing of an image by its paths there.
    if store.layout().is_image() {
        return Ok(());
    }
    let found = who(store, Which::All)?;
    if let Some(current) = &found.current {
        let systemd = options.services.is_none_or(|asked| asked.manager.name() == "systemd");
        stale(current, systemd, &found.processes, report);
    }
    written(store, &found.processes, report);
    if found.hidden > 0 {
        let named: Vec<String> = found.hidden_pids.iter().map(|pid| named(*pid, &process::command_of(*pid))).collect();
        let what = match named.is_empty() {
            true => "no process could be inspected, since /proc is not mounted".to_owned(),
            false => format!("processes that could not be inspected: {}", list(&named)),
        };
        report.findings.push(
            Finding::new(
                "processes-hidden",
                Severity::Advice,
                what,
                "they may run from an old version, or write into one: gc keeps what was current while it cannot tell",
            )
            .remedy("run it as root, with the right to inspect others (CAP_SYS_PTRACE) and with /proc mounted"),
        );
    }
    Ok(())
}

fn named(pid: i32, command: &str) -> String {
    match command.chars().take(40).collect::<String>() {
        command if command.is_empty() => pid.to_string(),
        command => format!("{pid} ({command})"),
    }
}

fn list(names: &[String]) -> String {
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", "))
}

/// Processes of another version than the current one, by unit.
fn stale(current: &VersionName, systemd: bool, processes: &[Process], report: &mut Report) {
    let mut groups: BTreeMap<(Option<&str>, &VersionName), Vec<&Process>> = BTreeMap::new();
    for one in processes.iter().filter(|one| one.version != *current) {
        groups.entry((one.unit.as_deref(), &one.version)).or_default().push(one);
    }
    for ((unit, version), processes) in groups {
        let runs = |one: &&Process| one.uses.iter().any(|used| !matches!(used.how, "works in" | "is rooted in"));
        // A shell that somebody left in an old version, a pager that shows one of its files.
        let is_session = unit.is_some_and(|unit| unit.ends_with(".scope"));
        let is_service = unit.is_some_and(|unit| unit.ends_with(".service"));
        let severity = match is_service || (!is_session && processes.iter().any(runs)) {
            true => Severity::Trouble,
            false => Severity::Advice,
        };
        let names: Vec<String> = processes.iter().map(|one| named(one.pid, &one.command)).collect();
        let whose = unit.filter(|_| is_service).map(|unit| format!("{unit}: ")).unwrap_or_default();
        let kind = if severity == Severity::Trouble { "service-stale" } else { "process-stale" };
        let finding = Finding::new(
            kind,
            severity,
            format!("{whose}{version} is used while {current} is current, by {}", list(&names)),
            "it was started before the switch: the device runs two versions at once, and the old one cannot be removed",
        );
        let finding = finding.of(version).remedy(match (is_service, systemd) {
            (true, _) => format!("tope-store activate {current} --restart"),
            (false, _) if severity == Severity::Advice => "end it when it is not needed any longer".to_owned(),
            (false, true) => "restart what started it, or end it".to_owned(),
            (false, false) => format!("tope-store activate {current} --restart=all"),
        });
        report.findings.push(match unit {
            Some(unit) => finding.at(unit.as_bytes()),
            None => finding,
        });
    }
}

/// Processes that have files of a version open for writing which no service has to itself.
fn written(store: &Store, processes: &[Process], report: &mut Report) {
    let mut private: BTreeMap<&VersionName, Vec<TreePath>> = BTreeMap::new();
    for one in processes.iter().filter(|one| one.uses.iter().any(|used| used.writes)) {
        let own = private.entry(&one.version).or_insert_with(|| private_paths(store, &one.version));
        let is_own = |path: &[u8]| own.iter().any(|own| own.as_bytes() == path);
        let paths: Vec<&[u8]> =
            one.uses.iter().filter(|used| used.writes && !is_own(&used.path)).map(|used| &*used.path).collect();
        let Some(first) = paths.first() else { continue };
        let more = match paths.len() {
            1 => String::new(),
            more => format!(" and {} more", more - 1),
        };
        let (who, version, shown) = (named(one.pid, &one.command), &one.version, Shown::bytes(first));
        report.findings.push(
            Finding::new(
                "being-written",
                Severity::Trouble,
                format!("{who} may write to {shown}{more} of {version}"),
                "every version that shares the file has the change",
            )
            .of(version)
            .at(*first)
            .remedy(format!(
                "end it; declare what a service writes as private or shared; then: tope-store verify {version}"
            )),
        );
    }
}

/// The files that a version's services have to themselves; all that can be said of one without a manifest is nothing.
fn private_paths(store: &Store, version: &VersionName) -> Vec<TreePath> {
    let mut found = Vec::new();
    let Ok(Some(manifest)) = store.manifest(version) else { return found };
    let walked = manifest.walk(|path, entry, placement| {
        // Empty files are shared with no version, and are there to be locked.
        let is_empty = matches!(entry.node, Node::File { size: 0, .. });
        if is_empty || placement.is_some_and(|placement| placement.kind == PlacementKind::Private) {
            found.push(path.clone());
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match walked {
        Ok(()) => found,
    }
}
