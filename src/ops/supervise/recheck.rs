//! Watching once more what runs where no version held: the fault may be mended.
//!
//! Nothing is switched, whatever comes of it: every version was tried already. No trial is open, and none is written: a
//! process that dies here leaves the store as degraded as it was.

use std::time::Instant;

use super::ledger::good_mark;
use super::units::{Order, Units, known, leave_absent};
use super::{Attempt, Checked, Outcome, Report, Supervision};
use crate::config::Service;
use crate::error::{Error, Refusal, Result};
use crate::model::{Role, VersionName};
use crate::observe::Observer;
use crate::ops::switching::{self, Warnings};
use crate::services::affected::Affected;
use crate::services::{Activity, Judgement, UnitState};
use crate::store::Store;
use crate::store::trial::Found;

/// Whether no version holds, and the least bad one runs.
pub fn is_degraded(store: &Store) -> bool {
    least_bad(store).is_some()
}

/// The version that runs although it does not hold, if that is so.
fn least_bad(store: &Store) -> Option<VersionName> {
    let survey = store.survey().ok()?;
    let current = survey.roles.version(Role::Current)?;
    survey.marks.is_degraded_on(current).then(|| current.clone())
}

/// Whether there is nothing to look after: neither a trial, nor a degraded state.
///
/// # Errors
///
/// The trial cannot be read.
pub fn is_idle(store: &Store) -> Result<bool> {
    Ok(store.trial()? == Found::None && !is_degraded(store))
}

/// The units that do not run and should, where the store is degraded: one that ended by itself cannot be told from one
/// that an operator stopped.
pub(super) fn down(states: &[UnitState]) -> Vec<Affected> {
    let is_down =
        |state: &&UnitState| matches!(state.activity, Activity::Failed | Activity::Inactive | Activity::Unknown);
    let why = |state: &UnitState| format!("no version holds, and it is {}", state.activity.name());
    let down = states.iter().filter(is_down);
    down.map(|state| Affected { unit: state.unit.clone(), reasons: vec![why(state)] }).collect()
}

/// What is said where nothing was checked that could show that a version holds.
pub(super) fn unchecked(current: &VersionName) -> String {
    format!(
        "no service was watched, so nothing shows that {current} holds, and the store stays degraded; if it works, accept \
         it with: tope-store confirm {current}"
    )
}

/// Starts what does not run, watches all services, and writes down that the version holds if it does.
///
/// # Errors
///
/// The manager cannot be asked; [`Refusal::Superseded`]; [`Error::Interrupted`].
pub(super) fn recheck(
    store: &Store,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
    warnings: &Warnings<'_>,
) -> Result<Checked> {
    let start = Instant::now();
    let Some(current) = least_bad(store) else { return Ok(Checked::NoTrial) };
    let (services, states) = leave_absent(store, supervision, known(store, supervision)?, &|_| false);
    (supervision.say)(&format!("watching {current}, the least bad version"));
    let started = down(&states);
    let names: Vec<String> = started.iter().map(|one| one.unit.clone()).collect();
    let up = |service: &&Service| {
        let state = states.iter().find(|state| state.unit == service.unit);
        state.is_none_or(|state| !matches!(state.activity, Activity::Skipped | Activity::Done))
    };
    let watched: Vec<Service> = services.iter().filter(up).cloned().collect();
    let runs = |unit: &str| states.iter().any(|state| state.unit == unit && state.activity == Activity::Active);
    let runs_still = || store.refs()?.read().map(|roles| roles.version(Role::Current) == Some(&current));
    let is_ours = || runs_still().unwrap_or(false) && matches!(store.trial(), Ok(Found::None));
    let keep_on = || !observer.interrupted() && is_ours();
    let units = Units { supervision, services, observer, warnings };
    let (verdicts, refused) = units.try_out((Order::Start, &names), &watched, &runs, &keep_on);
    let attempt = Attempt { version: current.clone(), level: 0, restarted: started, verdicts, refused };
    if observer.interrupted() {
        return Err(Error::Interrupted);
    }
    let open = attempt.verdicts.iter().any(|verdict| verdict.judgement == Judgement::Open);
    if !is_ours() || (open && attempt.failure().is_none()) {
        return Err(superseded(&current));
    }
    let mut outcome = Outcome::Degraded;
    if attempt.failure().is_none() && !attempt.verdicts.is_empty() {
        // Recorded before all that is switched later.
        let place = {
            let refs = store.refs()?;
            let locked = refs.lock(store.settings().lock_timeout)?;
            locked.expect_current(Some(&current))?;
            locked.place()
        };
        place.wait(store.patience());
        let survey = store.survey()?;
        // An operator may have accepted it while it was watched.
        if good_mark(store, &survey, &current).is_none_or(|good| switching::record(store, vec![good], warnings)) {
            outcome = Outcome::Done;
        }
        drop(place);
    } else if attempt.verdicts.is_empty() {
        warnings.warn(&unchecked(&current));
    }
    let report = Report {
        outcome,
        recovered: outcome == Outcome::Done,
        attempts: vec![attempt],
        ..super::unchanged(store, current.clone(), store.survey()?.digest(store, &current), Vec::new(), start)
    };
    Ok(Checked::Judged(Box::new(report)))
}

fn superseded(current: &VersionName) -> Error {
    Error::refused_with(
        Refusal::Superseded,
        format!("another process switched or began a trial while {current} was being watched; that stands"),
        "see: tope-store history",
    )
}
