//! What the preflight says of a supervised switch: a reason to refuse one forward, and a warning after one back.

use super::Supervision;
use super::units::leave_absent;
use crate::config::Service;
use crate::error::{Error, Result};
use crate::model::VersionName;
use crate::model::preflight::{Finding, Severity};
use crate::observe::Observer;
use crate::ops::preflight::{Subject, preflight, standing, supervisor_of};
use crate::ops::switching::Warnings;
use crate::services::affected::Affected;
use crate::services::{Activity, UnitState};
use crate::store::Store;

/// Services, and how they run.
type Known = (Vec<Service>, Vec<UnitState>);

/// Refuses a switch to `target` after which services could not run; gives the services that it handles, and what is to be
/// said all the same.
///
/// # Errors
///
/// [`Error::Preflight`], with all that was found.
pub(super) fn refuse_unready(
    store: &Store,
    supervision: &Supervision<'_>,
    known: Known,
    restarted: &[Affected],
    target: &VersionName,
    warnings: &Warnings<'_>,
) -> Result<(Known, Vec<Finding>)> {
    let touched = |unit: &str| restarted.iter().any(|one| one.unit == unit);
    let (services, states) = &known;
    let runs = |unit: &str| states.iter().any(|state| state.unit == unit && state.activity == Activity::Active);
    let watched = |unit: &str| touched(unit) || runs(unit);
    let Supervision { manager, notify, .. } = *supervision;
    let subject = Subject { manager, services, touched: &touched, watched: &watched, notify, target: Some(target) };
    let findings = preflight(store, &subject);
    if findings.iter().any(|finding| finding.severity == Severity::Refuse) {
        return Err(Error::Preflight { version: target.to_string(), findings });
    }
    findings.iter().for_each(|finding| warnings.warn(&finding.what));
    Ok((leave_absent(store, supervision, known, &touched), findings))
}

/// In the place of a failure to ask the manager: that its programs cannot be run, if so.
pub(super) fn or_unready(store: &Store, supervision: &Supervision<'_>, target: &VersionName, error: Error) -> Error {
    let Supervision { manager, notify, configured, .. } = *supervision;
    let all = |_: &str| true;
    let subject = Subject { manager, services: configured, touched: &all, watched: &all, notify, target: Some(target) };
    match supervisor_of(store, &subject) {
        findings if findings.is_empty() => error,
        findings => Error::Preflight { version: target.to_string(), findings },
    }
}

/// What the preflight finds on the machine as it is now; it is warned of, and refuses nothing.
pub(super) fn warn_unready(store: &Store, supervision: &Supervision<'_>, warnings: &Warnings<'_>) -> Vec<Finding> {
    let findings = standing(store, supervision.manager, supervision.configured, supervision.notify);
    let findings: Vec<Finding> =
        findings.into_iter().map(|finding| Finding { severity: Severity::Warn, ..finding }).collect();
    findings.iter().for_each(|finding| warnings.warn(&finding.what));
    findings
}
