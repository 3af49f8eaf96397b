//! Services: their state and what they last said, and whether their units keep them from writing into releases.

use std::path::Path;
use std::time::Duration;

use super::{Asked, Finding, Options, Report, Severity};
use crate::error::{Error, Result, Shown, chain};
use crate::observe::Observer;
use crate::ops::preflight::{self, Subject};
use crate::services::{Activity, UnitState, discover};
use crate::store::Store;

/// Lines of a log that are looked at and shown.
const LOG_LINES: usize = 5;
/// How long the manager may take to say how they run.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Where unit files lie, the one that counts first.
const UNIT_DIRS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// There where the machine was booted with systemd (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

pub(super) fn examine(store: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    let Some(asked) = &options.services else { return Ok(()) };
    let (manager, systemd) = (asked.manager, asked.manager.name() == "systemd");
    let services = match discover::services(manager, asked.configured, store.layout()) {
        Ok(services) => services,
        Err(error) => {
            report.findings.extend(unanswered(store, asked, &error));
            asked.configured.to_vec()
        }
    };
    let all = |_: &str| true;
    let subject =
        Subject { manager, services: &services, touched: &all, watched: &all, notify: asked.notify, target: None };
    let found = preflight::preflight(store, &subject);
    let is_found = |unit: &str| found.iter().any(|finding| finding.unit.as_deref() == Some(unit));
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    match manager.states(&units, ANSWER_LIMIT) {
        _ if units.is_empty() => {}
        Ok(states) => {
            for state in states {
                let log = match state.activity {
                    Activity::Active | Activity::Changing | Activity::Done | Activity::Skipped => Vec::new(),
                    // Why it cannot be loaded is said already.
                    Activity::Absent if is_found(&state.unit) => continue,
                    _ => manager.log(&state.unit, LOG_LINES),
                };
                report.findings.extend(of_state(&state, &log, systemd));
            }
        }
        Err(error) => report.findings.extend(unanswered(store, asked, &error)),
    }
    report.findings.extend(found.into_iter().map(of_preflight));
    if systemd {
        report.findings.extend(units.iter().filter_map(|unit| may_write(store, unit)));
    }
    Ok(())
}

/// What the preflight of a switch finds.
fn of_preflight(found: preflight::Finding) -> Finding {
    let severity = match found.severity {
        preflight::Severity::Refuse => Severity::Trouble,
        preflight::Severity::Warn => Severity::Advice,
    };
    let finding = Finding::new(found.kind, severity, found.what, found.why).remedy(found.remedy);
    match found.unit {
        Some(unit) => finding.at(unit.into_bytes()),
        None => finding,
    }
}

/// A manager that does not answer. On a machine that has none and for which none is configured that is as it should be.
fn unanswered(store: &Store, asked: &Asked<'_>, error: &Error) -> Option<Finding> {
    let is_booted = || store.layout().stat(Path::new(BOOTED)).is_some();
    if asked.configured.is_empty() && !(asked.manager.name() == "systemd" && is_booted()) {
        return None;
    }
    let finding = Finding::new(
        "supervisor-unanswered",
        Severity::Trouble,
        format!("services cannot be asked about: {}", chain(error)),
        "a switch with --restart is refused, and a rollback can restart nothing",
    );
    Some(finding.remedy(match asked.manager.name() {
        "systemd" => "systemctl status tells what is wrong; where there is no systemd: supervisor.kind = \"command\"",
        _ => "run the commands of [supervisor] by hand, and correct them in the configuration",
    }))
}

/// A unit that does not keep its service from writing into releases.
fn may_write(store: &Store, unit: &str) -> Option<Finding> {
    let read = |dir: &&str| store.layout().try_read(&Path::new(dir).join(unit)).ok().flatten();
    let text = UNIT_DIRS.iter().find_map(read)?;
    if keeps_out(&String::from_utf8_lossy(&text), store) {
        return None;
    }
    let root = store.layout().device_root().display().to_string();
    Some(
        Finding::new(
            "unit-may-write",
            Severity::Advice,
            format!("{unit} has neither ReadOnlyPaths={root}/versions nor ProtectSystem=strict"),
            "a service that runs as the store's owner can write into releases, and every version that shares the file has the change",
        )
        .at(unit.as_bytes())
        .remedy(format!("systemctl edit {unit}, and add ReadOnlyPaths={root}/versions {root}/store")),
    )
}

fn of_state(state: &UnitState, log: &[String], systemd: bool) -> Option<Finding> {
    let unit = &state.unit;
    let (kind, severity, word) = match state.activity {
        Activity::Active | Activity::Changing | Activity::Done | Activity::Skipped => return None,
        Activity::Failed => ("service-failed", Severity::Trouble, "has failed"),
        Activity::Inactive => ("service-inactive", Severity::Advice, "does not run"),
        Activity::Masked => ("service-masked", Severity::Advice, "is masked: no switch restarts or watches it"),
        Activity::Absent => ("service-absent", Severity::Trouble, "is not known to the service manager"),
        Activity::Unknown => ("service-unknown", Severity::Trouble, "is not answered for"),
    };
    let denied = log.iter().any(|line| line.to_lowercase().contains("permission denied"));
    let mut what = format!("{unit} {word}");
    if !state.detail.is_empty() {
        what.push_str(&format!(" ({})", Shown::text(&state.detail)));
    }
    if let Some(code) = state.exit_code {
        what.push_str(&format!(", exit code {code}"));
    }
    for line in log {
        what.push_str(&format!("\n    {}", Shown::text(line)));
    }
    let (kind, why, remedy) = match (state.activity, denied) {
        (Activity::Absent, _) => (
            kind,
            "it is configured, and cannot be restarted or watched",
            "install its unit, or take it out of the configuration".to_owned(),
        ),
        (Activity::Masked, _) => (
            kind,
            "an operator wished so, and no version is held to run it",
            match systemd {
                true => format!("systemctl unmask {unit}, or take it out of the configuration"),
                false => "allow it to be started, or take it out of the configuration".to_owned(),
            },
        ),
        (Activity::Unknown, _) => (
            kind,
            "a switch counts a unit that is not known to run as failed",
            format!("mend the status command of supervisor in the configuration, or what it asks {unit}"),
        ),
        (_, true) => (
            "service-denied",
            "it was refused a file: modes and owners belong to the release, and what it writes must be declared",
            "tope-store verify current; then private or shared in the configuration, or the owner with import --chown"
                .to_owned(),
        ),
        _ => (
            kind,
            "the device does not do what it is there for",
            match systemd {
                true => format!("journalctl -u {unit}; or: tope-store rollback --restart"),
                false => format!("see what {unit} logs, or start it by hand; or: tope-store rollback --restart"),
            },
        ),
    };
    Some(Finding::new(kind, severity, what, why).at(unit.as_bytes()).remedy(remedy))
}

/// Whether a unit's text keeps its service from writing below `versions/`.
fn keeps_out(text: &str, store: &Store) -> bool {
    let versions = store.layout().device_root().join(crate::layout::VERSIONS);
    text.lines().map(str::trim).any(|line| match line.split_once('=') {
        Some(("ProtectSystem", value)) => value.trim() == "strict",
        Some(("DynamicUser", value)) => matches!(value.trim(), "yes" | "true" | "1" | "on"),
        Some(("ReadOnlyPaths", value)) => {
            value.split_whitespace().any(|path| versions.starts_with(path.trim_start_matches(['-', '+'])))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_file_in_the_log_is_told_apart_from_other_failures() {
        let state = UnitState {
            unit: "api.service".into(),
            activity: Activity::Failed,
            invocation: None,
            restarts: 0,
            detail: "exit-code".into(),
            exit_code: Some(203),
        };
        let denied = of_state(&state, &["open /var/x: Permission denied".into()], true).unwrap();
        assert_eq!(denied.kind, "service-denied");
        assert_eq!(
            denied.what,
            "api.service has failed (exit-code), exit code 203\n    open /var/x: Permission denied"
        );
        assert_eq!(of_state(&state, &[], true).unwrap().kind, "service-failed");
        // Hints name commands that the machine has.
        let remedy = |systemd| of_state(&state, &[], systemd).unwrap().remedy;
        assert!(
            remedy(true).contains("journalctl -u api.service") && !remedy(false).contains("ctl"),
            "{}",
            remedy(false)
        );
        assert_eq!(of_state(&UnitState { activity: Activity::Active, ..state.clone() }, &[], true), None);
    }
}
