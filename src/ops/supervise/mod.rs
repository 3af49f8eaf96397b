//! Supervised switches: services are restarted and watched, and if they do not hold, the switch is undone by itself.
//!
//! Level 0 is the version that is tried, level 1 `previous`, level 2 `factory`; the same checks at each. After the last
//! the least bad version runs, and the store is degraded until an operator switches or accepts a version, or a check shows
//! that the version holds.
//!
//! | step | died after it, `boot-check` |
//! | --- | --- |
//! | 1. trial written with the units that it is about, durable; the guardian runs | ends it: nothing was switched |
//! | 2. services that must be stopped first are stopped | the same; in the same boot it starts them before, in another the boot does |
//! | 3. switched, durable | counts the boot, watches what runs, and goes on at step 6 or 7 |
//! | 4. event `activate` appended | the same |
//! | 5. changed unit files read by the manager, services restarted, watched | the same |
//! | 6. they hold: event `good` (and `bad` for what was left) appended, trial removed | nothing; without the removal it watches once more |
//! | 7. they do not: trial says why and where to go, durable | makes the switch back that the trial says |
//! | 8. switched back, step 5 again | watches the version that was gone back to |
//!
//! A rollback begins at step 2 and shows the trial right before it switches, and before step 2 as well if something must
//! stop: nothing may be waited for by then. Trial and switch are made durable together, behind the switch. A power cut in between leaves:
//!
//! | on the medium | `boot-check` |
//! | --- | --- |
//! | neither | nothing, or what the trial before says |
//! | the trial | ends it: nothing was switched |
//! | the trial, empty, and not the switch | treats it as one that cannot be read |
//! | the switch, with or without an empty trial, or one from before | ends the trial: the services were started with the version that was gone back to |
//!
//! **Invariant:** whenever the process dies between the first stop and the last start, what the trial lists is started on the
//! version that is current then, and the trial is judged. Its guardian does so as soon as it died: a process outside of
//! its session, armed before the first stop. Should that die too, the next command that changes something arms another,
//! or starts the units itself if it ends the trial; or `boot-check` does.
//!
//! **Invariant:** every step compares first, under `refs.lock`, that the trial is its own and that `current` leads where it
//! left it; else it stops with [`Refusal::Superseded`](crate::error::Refusal::Superseded) and undoes nothing. No lock is
//! held while services stop, start or are watched, and `refs.lock` never while the medium is waited for: what a step writes
//! down is durable before its switch takes the lock, where it compares again.
//!
//! **Invariant:** only the target of an activation becomes bad, and only when it is known what the fallbacks come to: an
//! HTTP or command probe that fails on every version says nothing of the release.

mod boot;
mod guard;
mod ledger;
mod levels;
mod plan;
mod readiness;
mod recheck;
mod units;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::affected::{Touched, affected};
use super::switching::Warnings;
use super::{activate as forward, rollback as back};
use crate::config::Service;
use crate::error::{Error, Result, chain};
use crate::fsys::process;
use crate::history::History;
use crate::model::event::Evidence;
use crate::model::lenient::{Unknown, Word};
use crate::model::preflight::Finding;
use crate::model::trial::{Begun, Restart};
use crate::model::{Digest, Role, Selector, Trial, VersionName};
use crate::observe::Observer;
use crate::refs::LockedRefs;
use crate::services::affected::Affected;
use crate::services::guardian::Arming;
use crate::services::{ServiceManager, Verdict, discover};
use crate::store::Store;

pub use boot::{Boot, Checked, boot_check, guard};
pub use guard::start_left;
pub use levels::outside;
pub use plan::{plan_activate, plan_rollback};
pub use recheck::{is_degraded, is_idle};

use guard::{Ahead, Guard, with_interrupted};
use levels::Levels;
use plan::{Intended, known_if_possible};
use readiness::warn_unready;
use units::{Order, Units};

/// Starts the guardian of this process, for a switch of these services.
pub type Arm<'a> = dyn Fn(&[Service]) -> Arming + 'a;

/// How services are handled.
pub struct Supervision<'a> {
    /// Who starts and stops them.
    pub manager: &'a dyn ServiceManager,
    /// Those that are configured; where none is, they are found by what they run.
    pub configured: &'a [Service],
    /// The command that is told of what happens; empty if there is none.
    pub notify: &'a [String],
    /// Which are restarted.
    pub restart: Restart,
    /// Told each step in a sentence, as it is taken.
    pub say: &'a dyn Fn(&str),
    /// Starts the guardian; `None` where nothing is to be guarded.
    pub guard: Option<&'a Arm<'a>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The version that was asked for runs and holds.
    Done,
    /// It was current already, and no service had to be restarted.
    Unchanged,
    /// It does not hold; a version that was gone back to does.
    RolledBack,
    /// No version holds; the least bad one runs.
    Degraded,
    /// The operator stopped the watch once the switch was made: the version that is current stays on trial.
    Interrupted,
}

impl Outcome {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled-back",
            Self::Degraded => "degraded",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What one version came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The version.
    pub version: VersionName,
    /// 0, 1 or 2.
    pub level: u8,
    /// The units that were restarted, each with the reasons.
    pub restarted: Vec<Affected>,
    /// What the watch says of each unit that was watched.
    pub verdicts: Vec<Verdict>,
    /// Why the manager would not even restart them, if so.
    pub refused: Option<Evidence>,
}

impl Attempt {
    /// The first check that failed, if one did.
    pub fn failure(&self) -> Option<&Evidence> {
        self.refused.as_ref().or_else(|| self.verdicts.iter().find_map(Verdict::failure))
    }
}

/// What a supervised switch came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What was current before, if that was a version.
    pub from: Option<VersionName>,
    /// The version that was switched to first.
    pub to: VersionName,
    /// Its digest; a directory that was made by hand has none.
    pub digest: Option<Digest>,
    /// What is current now.
    pub current: VersionName,
    /// The level of what is current now.
    pub level: u8,
    /// What previous leads to now.
    pub previous: Option<VersionName>,
    /// Each version that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// The version that is marked bad by this, if one is.
    pub marked_bad: Option<VersionName>,
    /// The check that failed on more than one version, if so: the fault is probably outside the release.
    pub same_check: Option<String>,
    /// What the preflight found and did not refuse.
    pub preflight: Vec<Finding>,
    /// Whether the store was degraded before, and is not any longer.
    pub recovered: bool,
    /// The trial that is still open when this is reported.
    pub trial: Option<Trial>,
    /// Whether a guardian goes on with that trial once this process ends.
    pub guarded: bool,
    /// Links that somebody else had changed since the last record.
    pub external_changes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How long it took until the switch that was asked for was visible; `None` if this did not make it.
    pub switched_after: Option<Duration>,
    /// How long it took in all.
    pub elapsed: Duration,
}

/// Switches `current` forward, restarts services, and watches them.
///
/// # Errors
///
/// As [`activate`](forward::activate()), with nothing switched; so are these:
///
/// - [`Error::Preflight`] if services could not run after the switch;
/// - [`Error::Services`] if the manager cannot be asked;
/// - [`Error::BrokenOff`] if the operator stopped it while services were being stopped, which then run again.
///
/// Also, once the switch was made, [`Error::Refused`] (superseded) if another process switched: that stands.
pub fn activate(
    store: &Store,
    selector: &Selector,
    options: &forward::Options,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<Report> {
    let start = Instant::now();
    let warnings = Warnings::new(observer);
    let activation = forward::Activation::new(store, selector, options, &warnings)?;
    activation.check()?;
    let (from, target) = (activation.from().cloned(), activation.target.clone());
    let mut guard = Guard::new(supervision, &warnings);
    // On its way while the switch is prepared.
    if !activation.is_current() && !supervision.configured.is_empty() {
        guard.begin(supervision.configured);
    }
    let intended = Intended::of(store, &activation, supervision, &warnings)?;
    if intended.is_idle {
        let digest = activation.digest;
        return Ok(unchanged(store, target, digest, warnings.finish(), start));
    }
    let Intended { services, before, restarted, preflight, was_degraded, .. } = intended;
    let trial = new_trial(store, Begun::Activation, supervision, (&target, activation.digest), from.as_ref());
    let units = Units { supervision, services, observer, warnings: &warnings };
    let mut levels = Levels::new(store, units, trial);
    let overtaken = store.trial()?.open().is_some();
    levels.open(&restarted.units)?;
    if overtaken {
        // Another process, or its guardian, may be in the middle of its orders: what they do is not this version's doing.
        levels.units().settle_orders(&levels.units().names());
    }
    let before = if overtaken { None } else { Some(before) };
    let guarded = guard.confirm(&levels.units().services);
    let stopped = levels.units().stop_first(&restarted.units);
    let switched = match observer.interrupted() {
        true => Err(Error::Interrupted),
        false => activation.switch(Some(levels.trial())),
    };
    let switched = match switched {
        Ok(switched) => switched,
        Err(error) => {
            levels.give_up(&stopped);
            return Err(not_switched(error, &stopped, supervision, warnings));
        }
    };
    if switched.changed {
        (supervision.say)(&format!("switched to {target}"));
    }
    let ended = levels.run(Order::Restart, restarted, before)?;
    let report = ended.report(store, (from, target, activation.digest), was_degraded, start);
    if report.outcome == Outcome::Done && is_degraded(store) {
        warnings.warn(&recheck::unchecked(&report.current));
    }
    let (external_changes, switched_after) = (switched.external_changes, Some(switched.switched_after));
    Ok(Report { preflight, guarded, external_changes, warnings: warnings.finish(), switched_after, ..report })
}

/// Switches `current` back, restarts services, and watches them. Where no trial can be written (a full disk), the switch
/// is made all the same.
///
/// # Errors
///
/// As [`rollback`](back::rollback()), and those of [`activate`] once the switch was made.
pub fn rollback(
    store: &Store,
    options: &back::Options,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<Report> {
    let start = Instant::now();
    let warnings = Warnings::new(observer);
    let (services, _) = known_if_possible(store, supervision, &warnings);
    let mut guard = Guard::new(supervision, &warnings);
    guard.begin(&services);
    let from = store.refs()?.read()?.version(Role::Current).cloned();
    let was_degraded = is_degraded(store);
    let left = store.left_trial().map(|left| left.units).unwrap_or_default();
    let units = Units { supervision, services, observer, warnings: &warnings };
    let begun = |to: &VersionName| new_trial(store, Begun::Rollback, supervision, (to, None), from.as_ref());
    let expected = expected(store, options, &units, from.as_ref());
    let ahead = expected.as_ref().and_then(|expected| {
        let Expected { to, restarted } = expected;
        Ahead::note(&units, store, begun(to), &restarted.units)
    });
    let guarded = guard.confirm(&units.services);
    let stopped = expected.as_ref().map_or_else(Vec::new, |expected| units.stop_first(&expected.restarted.units));
    let (trial, left_open) = (RefCell::new(None), RefCell::new(None));
    let guard = |locked: &LockedRefs<'_>, to: &VersionName, level: u8| {
        locked.expect_current(from.as_ref())?;
        let mut new = ahead.as_ref().map_or_else(|| begun(to), |ahead| ahead.trial.clone());
        (new.version, new.current, new.level) = (to.clone(), to.clone(), level);
        if let Err(error) = store.show_trial(locked, &new) {
            warnings.warn(&format!("no trial can be written, so that a power cut ends it: {}", chain(&error)));
            new.id.clear();
            drop(left_open.replace(store.standing_trial().ok().flatten()));
        }
        drop(trial.replace(Some(new)));
        Ok(())
    };
    let settle = || {
        let shown = trial.borrow().as_ref().is_some_and(|trial| !trial.id.is_empty());
        if let Some(error) = shown.then(|| store.settle_trial()).and_then(Result::err) {
            warnings.warn(&format!("a power cut may end the trial: {}", chain(&error)));
        }
        if let Some(overtaken) = left_open.take() {
            let _ = store.end_trial(|standing| *standing == overtaken);
        }
    };
    let before = start.elapsed();
    let prepare = |_: &VersionName, _: u8| Ok(());
    let supervised =
        back::Supervised { prepare: &prepare, guard: &guard, settle: &settle, excluded: &[], failed: None };
    let switched = match observer.interrupted() && !stopped.is_empty() {
        true => Err(Error::Interrupted),
        false => back::go_back(store, options, Some(&supervised), observer),
    };
    let switched = match switched {
        Ok(switched) => switched,
        Err(error) => {
            units.bring_back(Order::Start, &stopped);
            ahead.into_iter().for_each(|ahead| ahead.take_back(store, &warnings));
            return Err(not_switched(error, &stopped, supervision, warnings));
        }
    };
    switched.warnings.iter().for_each(|warning| warnings.warn(warning));
    let Some(trial) = trial.into_inner() else {
        units.bring_back(Order::Start, &stopped);
        ahead.into_iter().for_each(|ahead| ahead.take_back(store, &warnings));
        return Ok(unchanged(store, switched.to, switched.digest, warnings.finish(), start));
    };
    (supervision.say)(&format!("switched back to {}", switched.to));
    let mut restarted = match expected {
        Some(expected) if expected.to == switched.to => expected.restarted,
        _ => restarted_by_going_back(store, &units, from.as_ref(), &switched.to),
    };
    let stopped = stopped.into_iter().map(|unit| (unit, "it was stopped before the switch"));
    let left = left.into_iter().map(|unit| (unit, "its trial was interrupted"));
    let more = stopped.chain(left).map(|(unit, why)| Affected { unit, reasons: vec![why.to_owned()] });
    join(&mut restarted.units, more);
    let mut levels = Levels::new(store, units, trial);
    levels.take_units(&restarted.units);
    let ended = levels.run(Order::Restart, restarted, None)?;
    let marked_bad = switched.from.clone().filter(|_| switched.marked_bad);
    let report = ended.report(store, (from, switched.to, switched.digest), was_degraded, start);
    // Behind the switch and the watch, which it must not delay.
    let preflight = warn_unready(store, supervision, &warnings);
    let (external_changes, warnings) = (switched.external_changes, warnings.finish());
    let switched_after = Some(before + switched.switched_after);
    Ok(Report { marked_bad, preflight, guarded, external_changes, warnings, switched_after, ..report })
}

/// The error of a switch that was not made, once services that were stopped for it were ordered to start again. No report
/// carries the warnings, so they are said.
fn not_switched(error: Error, stopped: &[String], supervision: &Supervision<'_>, warnings: Warnings<'_>) -> Error {
    let warnings = warnings.finish();
    warnings.iter().for_each(|warning| (supervision.say)(&format!("warning: {warning}")));
    match error {
        Error::Interrupted if !stopped.is_empty() => Error::BrokenOff(format!(
            "nothing was switched; {} had been stopped, and was ordered to start again",
            stopped.join(", ")
        )),
        other => other,
    }
}

/// What a switch back between these versions restarts. In doubt that is everything.
fn restarted_by_going_back(store: &Store, units: &Units<'_>, from: Option<&VersionName>, to: &VersionName) -> Touched {
    let Units { supervision, services, .. } = units;
    match supervision.restart {
        Restart::All => Touched::in_doubt(all(services, "all are to be restarted")),
        Restart::Changed => {
            let touched = affected(store, supervision.manager, services, from, to);
            touched.unwrap_or_else(|error| Touched::in_doubt(all(services, &chain(&error)))).only_affected()
        }
    }
}

/// Where a switch back most likely leads, and all that it restarts.
struct Expected {
    to: VersionName,
    restarted: Touched,
}

/// Where a switch back most likely leads, if something must stop before it.
fn expected(store: &Store, options: &back::Options, units: &Units<'_>, from: Option<&VersionName>) -> Option<Expected> {
    // That there is nothing to go back to is found and said by the attempt.
    let to = match units.any_stops_first() {
        true => back::first_candidate(store, options).ok().flatten(),
        false => None,
    };
    to.map(|to| Expected { restarted: restarted_by_going_back(store, units, from, &to), to })
}

/// The unit that this process runs in, if it is one of the services: it would be killed with it.
pub fn own_unit(store: &Store, supervision: &Supervision<'_>) -> Option<String> {
    let own = process::unit_of(std::process::id().cast_signed())?;
    let services = discover::services(supervision.manager, supervision.configured, store.layout()).ok()?;
    services.into_iter().map(|service| service.unit).find(|unit| *unit == own)
}

fn all(services: &[Service], why: &str) -> Vec<Affected> {
    services.iter().map(|one| Affected { unit: one.unit.clone(), reasons: vec![why.to_owned()] }).collect()
}

/// Adds units that are not among these.
fn join(units: &mut Vec<Affected>, more: impl IntoIterator<Item = Affected>) {
    for one in more {
        if units.iter().all(|other| other.unit != one.unit) {
            units.push(one);
        }
    }
}

/// Services of which processes still use another version than the current one.
fn stale(store: &Store, services: &[Service]) -> Result<Vec<Affected>> {
    let mut found = Vec::new();
    for one in super::who::who(store, super::who::Which::Stale)?.processes {
        let unit = one.unit.filter(|unit| services.iter().any(|service| service.unit == *unit));
        if let Some(unit) = unit.filter(|unit| found.iter().all(|affected: &Affected| affected.unit != *unit)) {
            let why = format!("process {} still uses {}", one.pid, one.version);
            found.push(Affected { unit, reasons: vec![why] });
        }
    }
    Ok(found)
}

fn new_trial(
    store: &Store,
    begun: Begun,
    supervision: &Supervision<'_>,
    (version, digest): (&VersionName, Option<Digest>),
    from: Option<&VersionName>,
) -> Trial {
    let now = store.clock().now();
    let watcher = store.watcher();
    let last = store.history().and_then(History::present).map_or(0, |present| present.marks.last_event);
    Trial {
        id: format!("{:x}-{:x}-{:x}-{last:x}", now.unix_seconds, watcher.pid, watcher.started),
        begun: Word::Known(begun),
        version: version.clone(),
        digest,
        from: from.cloned(),
        current: version.clone(),
        level: 0,
        restart: Word::Known(supervision.restart),
        units: Vec::new(),
        ordered: false,
        attempts: 0,
        boot: now.boot_id,
        watcher,
        failures: Vec::new(),
        unknown: Unknown::new(),
    }
}

fn unchanged(
    store: &Store,
    version: VersionName,
    digest: Option<Digest>,
    warnings: Vec<String>,
    start: Instant,
) -> Report {
    Report {
        outcome: Outcome::Unchanged,
        from: Some(version.clone()),
        current: version.clone(),
        to: version,
        digest,
        level: 0,
        previous: store
            .refs()
            .and_then(|refs| refs.read())
            .ok()
            .and_then(|roles| roles.version(Role::Previous).cloned()),
        attempts: Vec::new(),
        marked_bad: None,
        same_check: None,
        preflight: Vec::new(),
        recovered: false,
        trial: None,
        guarded: false,
        external_changes: Vec::new(),
        warnings,
        switched_after: None,
        elapsed: start.elapsed(),
    }
}
