//! Services: their state and what they last said, and whether their units keep them from writing into releases.

use super::{Finding, Options, Report, Severity};
use crate::error::{Result, Shown, chain};
use crate::observe::Observer;
use crate::services::{Activity, UnitState};
use crate::store::Store;

/// Lines of a log that are looked at and shown.
const LOG_LINES: usize = 5;
/// Where unit files lie, the one that counts first.
const UNIT_DIRS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) fn examine(store: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    let Some((manager, units)) = &options.services else { return Ok(()) };
    if units.is_empty() {
        return Ok(());
    }
    match manager.states(units) {
        Ok(states) => {
            for state in states {
                let log = match state.activity {
                    Activity::Active | Activity::Changing | Activity::Done | Activity::Skipped => Vec::new(),
                    _ => manager.log(&state.unit, LOG_LINES),
                };
                report.findings.extend(of_state(&state, &log));
            }
        }
        Err(error) => report.not_done.push(format!("asking {} for the services: {}", manager.name(), chain(&error))),
    }
    for unit in units {
        let text = UNIT_DIRS
            .iter()
            .find_map(|dir| store.layout().try_read(&std::path::Path::new(dir).join(unit)).ok().flatten());
        if let Some(text) = text.filter(|text| !keeps_out(&String::from_utf8_lossy(text), store)) {
            drop(text);
            let root = store.layout().device_root().display().to_string();
            report.findings.push(
                Finding::new(
                    "unit-may-write",
                    Severity::Advice,
                    format!("{unit} has neither ReadOnlyPaths={root}/versions nor ProtectSystem=strict"),
                    "a service that runs as the store's owner can write into releases, and every version that shares the file has the change",
                )
                .at(unit.as_bytes())
                .remedy(format!("systemctl edit {unit}, and add ReadOnlyPaths={root}/versions {root}/store")),
            );
        }
    }
    Ok(())
}

fn of_state(state: &UnitState, log: &[String]) -> Option<Finding> {
    let unit = &state.unit;
    let (kind, severity, word) = match state.activity {
        Activity::Active | Activity::Changing | Activity::Done | Activity::Skipped => return None,
        Activity::Failed => ("service-failed", Severity::Trouble, "has failed"),
        Activity::Inactive => ("service-inactive", Severity::Advice, "does not run"),
        Activity::Masked => ("service-masked", Severity::Advice, "is masked: no switch restarts or watches it"),
        Activity::Absent => ("service-absent", Severity::Trouble, "is not known to the service manager"),
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
            format!("systemctl unmask {unit}, or take it out of the configuration"),
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
            format!("journalctl -u {unit}; or: tope-store rollback"),
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
        let denied = of_state(&state, &["open /var/x: Permission denied".into()]).unwrap();
        assert_eq!(denied.kind, "service-denied");
        assert_eq!(
            denied.what,
            "api.service has failed (exit-code), exit code 203\n    open /var/x: Permission denied"
        );
        assert_eq!(of_state(&state, &[]).unwrap().kind, "service-failed");
        assert_eq!(of_state(&UnitState { activity: Activity::Active, ..state }, &[]), None);
    }
}
