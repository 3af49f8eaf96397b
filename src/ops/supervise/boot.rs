//! What a boot does about an open trial.
//!
//! Counting comes first, before any service starts, and needs nothing but the store: a version that brings the device
//! down with it has only so many boots. Where unit files come with the release, and differ in the version that it goes
//! back to, the manager is asked to read them anew. Judging comes when services were started: it watches what runs, as
//! the switch itself would have done.
//!
//! A guardian does the same in the boot in which the switching process died. So may services be stopped: whatever is
//! decided about the trial, what it lists is started.

use std::time::{Duration, Instant};

use super::guard::{Guard, is_same};
use super::ledger::degraded;
use super::levels::{Levels, step_back};
use super::readiness::warn_unready;
use super::recheck::{is_degraded, recheck};
use super::units::{Order, Units, known, leave_absent};
use super::{Report, Supervision, new_trial};
use crate::config::Service;
use crate::error::{Error, ErrorKind, Refusal, Result, chain};
use crate::fsys::process;
use crate::model::event::Evidence;
use crate::model::lenient::Unknown;
use crate::model::trial::{Begun, Failure, MOST_ATTEMPTS, Watcher};
use crate::model::{Role, Trial, VersionName};
use crate::observe::Observer;
use crate::ops::affected::{Touched, affected};
use crate::ops::switching::Warnings;
use crate::services::affected::Affected;
use crate::services::{Activity, answer_limit};
use crate::store::Store;
use crate::store::trial::Found;

/// How often a guardian tries to take a trial over, and how long it waits between two tries: a lock may be held, a manager
/// may not answer.
const TRIES: (u32, Duration) = (30, Duration::from_secs(1));

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Boot {
    /// Count this boot; go back if there were too many.
    Count,
    /// Watch what runs; go back if it does not hold. Without a trial it watches where the store is degraded, and goes
    /// nowhere.
    Judge,
}

/// What it came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// No trial is open, and the store is not degraded.
    NoTrial,
    /// The process that began it still watches.
    Watched,
    /// The trial was ended, for this reason; nothing was switched.
    Dropped(String),
    /// This is the boot of this number for this version.
    Counted {
        /// Which.
        version: VersionName,
        /// From 1.
        attempts: u32,
    },
    /// The version had its boots, or the switch back was not yet made: this one is current now.
    WentBack {
        /// What was current.
        from: VersionName,
        /// What is current now.
        to: VersionName,
        /// 1 or 2.
        level: u8,
        /// Why.
        evidence: Evidence,
    },
    /// The version had its boots, and there is nothing to go back to.
    Degraded {
        /// What stays current.
        version: VersionName,
        /// Why.
        evidence: Evidence,
    },
    /// It was judged.
    Judged(Box<Report>),
}

/// Looks after an open trial, or a degraded store. Gives what the user should know as well.
///
/// # Errors
///
/// The store cannot be read; [`crate::error::Error::Locked`]; those of a supervised switch.
pub fn boot_check(
    store: &Store,
    boot: Boot,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<(Checked, Vec<String>)> {
    match check(store, boot, supervision, observer, false) {
        // Its guardian was faster.
        Err(Error::Refused { why: Refusal::Superseded, .. }) if is_watched_by_guardian(store) => {
            Ok((Checked::Watched, Vec::new()))
        }
        other => other,
    }
}

fn is_watched_by_guardian(store: &Store) -> bool {
    let open = store.trial().ok().and_then(Found::open);
    open.is_some_and(|trial| trial.watcher.guardian && store.is_watched(&trial))
}

/// Waits until a process has ended that supervises a switch, by its number and its start; goes on with its trial then,
/// if it is still open: starts what the trial lists, and judges it.
///
/// # Errors
///
/// As [`boot_check`], once that has failed for half a minute.
pub fn guard(
    store: &Store,
    (pid, started): (u32, u64),
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<(Checked, Vec<String>)> {
    let own = store.watcher();
    let guarded = Watcher { pid, started, ..own.clone() };
    if !process::wait_for_end(pid, started, &|| !observer.interrupted())? {
        return Ok((Checked::NoTrial, Vec::new()));
    }
    let mut tries = 0;
    loop {
        let trial = store.trial()?.open();
        if !trial.is_some_and(|trial| [&guarded, &own].iter().any(|watcher| is_same(watcher, &trial.watcher))) {
            return Ok((Checked::NoTrial, Vec::new()));
        }
        match check(store, Boot::Judge, supervision, observer, true) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Failed | ErrorKind::Locked)
                    && tries < TRIES.0
                    && !observer.interrupted() =>
            {
                (supervision.say)(&format!("trying again: {}", chain(&error)));
                tries += 1;
                std::thread::sleep(TRIES.1);
            }
            other => return other,
        }
    }
}

fn check(
    store: &Store,
    boot: Boot,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
    guardian: bool,
) -> Result<(Checked, Vec<String>)> {
    let warnings = Warnings::new(observer);
    let trial = match store.trial()? {
        Found::None if boot == Boot::Judge => {
            let checked = recheck(store, supervision, observer, &warnings)?;
            return Ok((checked, warnings.finish()));
        }
        Found::None => return Ok((Checked::NoTrial, Vec::new())),
        Found::Open(trial) => *trial,
        Found::Unreadable(why) => match stand_in(store, &why, supervision, &warnings)? {
            Some(trial) => trial,
            None => return Ok((Checked::Dropped(format!("it cannot be read: {why}")), warnings.finish())),
        },
    };
    if store.is_watched(&trial) {
        return Ok((Checked::Watched, Vec::new()));
    }
    let checked = match boot {
        Boot::Count => count(store, trial, supervision, observer, &warnings)?,
        Boot::Judge => judge(store, trial, supervision, observer, &warnings, guardian)?,
    };
    Ok((checked, warnings.finish()))
}

/// In the place of a trial that cannot be read: what is current is what was tried, and it had its boots. `None` if
/// nothing is current, or what is current is known to be good.
fn stand_in(store: &Store, why: &str, supervision: &Supervision<'_>, warnings: &Warnings<'_>) -> Result<Option<Trial>> {
    warnings.warn(&format!(
        "the trial cannot be read ({why}): it counts as failed, unless its version is known to be good"
    ));
    let Some(unreadable) = store.standing_trial()? else { return Ok(None) };
    let survey = store.survey()?;
    let current = survey.roles.version(Role::Current);
    let digest = current.and_then(|current| survey.digest(store, current));
    let is_good = digest.is_some_and(|digest| survey.marks.standing(&digest).good);
    // The power went while an operator went back: the switch is there, and neither its trial nor its record.
    let went_back = unreadable.is_blank()
        && survey.history.is_trustworthy()
        && current.is_some_and(|current| survey.marks.roles.get(&Role::Current).is_some_and(|known| known != current));
    match current.filter(|_| !is_good && !went_back) {
        None => store.end_trial(|standing| *standing == unreadable).map(|_| None),
        Some(current) => {
            let mut trial = new_trial(store, Begun::Rollback, supervision, (current, digest), None);
            (trial.attempts, trial.watcher, trial.boot) = (MOST_ATTEMPTS, Default::default(), String::new());
            store.write_trial(&trial, |locked| {
                locked.expect_current(Some(current))?;
                match store.standing_trial()? == Some(unreadable) {
                    true => Ok(()),
                    false => Err(Error::refused(Refusal::Superseded, "somebody else began another trial")),
                }
            })?;
            Ok(Some(trial))
        }
    }
}

fn count(
    store: &Store,
    mut trial: Trial,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
    warnings: &Warnings<'_>,
) -> Result<Checked> {
    let Some(evidence) = (match place_now(store, &trial)? {
        Place::There => count_boot(store, &mut trial)?,
        Place::Before | Place::Elsewhere => return abandon(store, trial, supervision, observer, warnings),
        // The decision was written down, and the switch back was not made.
        Place::Failed => {
            let failure = trial.failures.pop().map(|failure| (failure.version, failure.evidence));
            let (version, evidence) = failure.unwrap_or_else(|| (trial.current.clone(), Evidence::default()));
            (trial.current, trial.level) = (version, trial.level.saturating_sub(1));
            store.write_trial(&trial, |locked| store.expect_trial(locked, &trial.id, Some(&trial.current)))?;
            Some(evidence)
        }
    }) else {
        return Ok(Checked::Counted { version: trial.current, attempts: trial.attempts });
    };
    let from = trial.current.clone();
    let (version, unknown) = (from.clone(), Unknown::new());
    trial.failures.push(Failure { version, evidence: evidence.clone(), standing_units: 0, unknown });
    match step_back(store, &mut trial, observer, warnings)? {
        Some(to) => {
            // The boot has read what the other version defines, and starts services by it.
            let touched = affected(store, supervision.manager, &[], Some(&from), &to);
            if touched.map_or(true, |touched| touched.definitions) {
                Units { supervision, services: Vec::new(), observer, warnings }.reload();
            }
            Ok(Checked::WentBack { from, to, level: trial.level, evidence })
        }
        None => {
            if store.is_of_this_boot(&trial) && !trial.units.is_empty() {
                let services = supervision.configured.to_vec();
                Units { supervision, services, observer, warnings }.start_left(&trial.units);
            }
            let place = {
                let refs = store.refs()?;
                let locked = refs.lock(store.settings().lock_timeout)?;
                locked.expect_current(Some(&from))?;
                locked.place()
            };
            degraded(store, place, &trial, warnings)?;
            Ok(Checked::Degraded { version: from, evidence })
        }
    }
}

/// Where `current` leads, as a trial sees it.
enum Place {
    /// Where the trial says.
    There,
    /// Where it led before the trial.
    Before,
    /// To the version whose failure was written down last.
    Failed,
    /// To none of these.
    Elsewhere,
}

fn place(trial: &Trial, current: Option<&VersionName>) -> Place {
    match current {
        _ if current == Some(&trial.current) => Place::There,
        _ if trial.failures.last().is_some_and(|failure| current == Some(&failure.version)) => Place::Failed,
        _ if trial.failures.is_empty() && current == trial.from.as_ref() => Place::Before,
        _ => Place::Elsewhere,
    }
}

/// Where `current` leads, once what a crash left is finished.
fn place_now(store: &Store, trial: &Trial) -> Result<Place> {
    let refs = store.refs()?;
    let locked = refs.lock(store.settings().lock_timeout)?;
    locked.recover()?;
    Ok(place(trial, locked.read()?.version(Role::Current)))
}

/// Counts this boot; gives the evidence if there were too many, or it cannot be counted.
fn count_boot(store: &Store, trial: &mut Trial) -> Result<Option<Evidence>> {
    let boot = store.clock().now().boot_id;
    if trial.boot == boot && !boot.is_empty() && trial.attempts <= MOST_ATTEMPTS {
        return Ok(None);
    }
    trial.attempts += 1;
    trial.boot = boot;
    let detail = if trial.attempts > MOST_ATTEMPTS {
        format!("{MOST_ATTEMPTS} boots ended before it had proven itself")
    } else {
        match store.write_trial(trial, |locked| store.expect_trial(locked, &trial.id, Some(&trial.current))) {
            Ok(()) => return Ok(None),
            Err(error @ (Error::Locked { .. } | Error::Refused { why: Refusal::Superseded, .. })) => return Err(error),
            Err(error) => format!("this boot cannot be counted: {}", chain(&error)),
        }
    };
    Ok(Some(Evidence { check: "boot".into(), detail, ..Evidence::default() }))
}

/// Ends a trial whose version is not current. What it lists may have been stopped in this boot, and is started before.
fn abandon(
    store: &Store,
    trial: Trial,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
    warnings: &Warnings<'_>,
) -> Result<Checked> {
    let (id, units) = (trial.id.clone(), trial.units.clone());
    let current = store.refs()?.read()?.version(Role::Current).cloned();
    let why = match place(&trial, current.as_ref()) {
        Place::Before => "the switch was never made",
        _ => "somebody else switched",
    };
    let mut why = why.to_owned();
    if store.is_of_this_boot(&trial) && !units.is_empty() {
        let services = supervision.configured.to_vec();
        let mut levels = Levels::new(store, Units { supervision, services, observer, warnings }, trial);
        levels.take_over(true)?;
        levels.units().start_left(&units);
        why = format!("{why}; {} ordered to start", units.join(", "));
    }
    store.end_trial_of(&id)?;
    Ok(Checked::Dropped(why))
}

/// What has to run: what the switch restarted, and every other service, but for one that was stopped as it should be.
fn to_be_up(trial: &Trial, services: &[Service], supervision: &Supervision<'_>) -> Vec<Affected> {
    let manager = supervision.manager;
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    let limit = answer_limit(services.iter().map(|service| service.timeout).max().unwrap_or_default());
    let states = if units.is_empty() { Vec::new() } else { manager.states(&units, limit).unwrap_or_default() };
    let stopped = |unit: &String| {
        let state = states.iter().find(|state| state.unit == *unit);
        manager.tells_starting()
            && state.is_some_and(|state| matches!(state.activity, Activity::Inactive | Activity::Skipped))
    };
    let wanted = units.iter().filter(|unit| trial.units.contains(unit) || !stopped(unit));
    wanted.map(|unit| Affected { unit: unit.clone(), reasons: vec!["the trial".into()] }).collect()
}

fn judge(
    store: &Store,
    trial: Trial,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
    warnings: &Warnings<'_>,
    guardian: bool,
) -> Result<Checked> {
    let (start, was_degraded) = (Instant::now(), is_degraded(store));
    let current = store.refs()?.read()?.version(Role::Current).cloned();
    match place(&trial, current.as_ref()) {
        Place::There => {}
        // Not counted by anybody: done now.
        Place::Failed => return count(store, trial, supervision, observer, warnings),
        Place::Before | Place::Elsewhere => return abandon(store, trial, supervision, observer, warnings),
    }
    let (services, _) = leave_absent(store, supervision, known(store, supervision)?, &|_| false);
    let mut guard = Guard::new(supervision, warnings);
    guard.begin(&services);
    let started = to_be_up(&trial, &services, supervision);
    (supervision.say)(&format!("watching {}", trial.current));
    // In another boot everything was started anew; in the same one nobody knows what was restarted already.
    let order = if store.is_of_this_boot(&trial) && !trial.ordered { Order::Restart } else { Order::Start };
    let before = (trial.from.clone(), trial.version.clone(), trial.digest);
    let orders: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    let units = Units { supervision, services, observer, warnings };
    let mut levels = Levels::new(store, units, trial);
    levels.take_over(guardian)?;
    let guarded = guard.confirm(&levels.units().services);
    levels.units().settle_orders(&orders);
    let ended = levels.run(order, Touched::in_doubt(started), None)?;
    let report = ended.report(store, before, was_degraded, start);
    let preflight = warn_unready(store, supervision, warnings);
    Ok(Checked::Judged(Box::new(Report { preflight, guarded, ..report })))
}
