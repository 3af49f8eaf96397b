//! From one level to the next: restart, watch, conclude or step back.

use std::cell::RefCell;
use std::time::Instant;

use super::guard::expect_left;
use super::ledger::{bad_mark, conclude, degraded, good_mark, least_bad};
use super::units::{Order, Units};
use super::{Attempt, Outcome, Report, all, is_degraded};
use crate::error::{Error, Refusal, Result, chain};
use crate::model::lenient::Unknown;
use crate::model::trial::{Failure, Watcher};
use crate::model::{Digest, Event, Role, Selector, Trial, VersionName};
use crate::observe::Observer;
use crate::ops::affected::{Touched, affected};
use crate::ops::rollback::{self as back, Left, Supervised, go_back};
use crate::ops::switching::{BadVersions, Verify, Warnings};
use crate::refs::{LockedRefs, Place};
use crate::services::affected::Affected;
use crate::services::{Activity, Judgement, UnitState};
use crate::store::Store;
use crate::store::trial::Found;

/// A supervised switch under way.
pub(super) struct Levels<'a> {
    store: &'a Store,
    units: Units<'a>,
    trial: Trial,
    attempts: Vec<Attempt>,
}

/// What it came to.
pub(super) struct Ended {
    outcome: Outcome,
    current: VersionName,
    level: u8,
    attempts: Vec<Attempt>,
    marked_bad: Option<VersionName>,
    same_check: Option<String>,
    /// The trial that is left open.
    trial: Option<Trial>,
}

impl Ended {
    /// The report, with what was known before; also whether the store was degraded then.
    pub(super) fn report(
        self,
        store: &Store,
        (from, to, digest): (Option<VersionName>, VersionName, Option<Digest>),
        was_degraded: bool,
        start: Instant,
    ) -> Report {
        let roles = store.refs().and_then(|refs| refs.read()).ok();
        Report {
            outcome: self.outcome,
            from,
            to,
            digest,
            current: self.current,
            level: self.level,
            previous: roles.and_then(|roles| roles.version(Role::Previous).cloned()),
            attempts: self.attempts,
            marked_bad: self.marked_bad,
            same_check: self.same_check,
            preflight: Vec::new(),
            recovered: was_degraded && self.outcome != Outcome::Degraded && !is_degraded(store),
            trial: self.trial,
            guarded: false,
            external_changes: Vec::new(),
            warnings: Vec::new(),
            switched_after: None,
            elapsed: start.elapsed(),
        }
    }
}

impl<'a> Levels<'a> {
    pub(super) fn new(store: &'a Store, units: Units<'a>, trial: Trial) -> Self {
        Self { store, units, trial, attempts: Vec::new() }
    }

    pub(super) fn trial(&self) -> &Trial {
        &self.trial
    }

    pub(super) fn units(&self) -> &Units<'a> {
        &self.units
    }

    fn say(&self, sentence: &str) {
        (self.units.supervision.say)(sentence);
    }

    /// Writes the trial, before anything else happens.
    pub(super) fn open(&mut self, restarted: &[Affected]) -> Result<()> {
        self.take_units(restarted);
        self.store.write_trial(&self.trial, |locked| {
            locked.recover()?;
            locked.expect_current(self.trial.from.as_ref())
        })
    }

    /// Takes a trial whose watcher died; that this cannot be written down keeps nothing from going on.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`] if another process was faster.
    pub(super) fn take_over(&mut self, guardian: bool) -> Result<()> {
        let left = self.trial.clone();
        self.trial.watcher = Watcher { guardian, ..self.store.watcher() };
        match self.store.write_trial(&self.trial, |_| expect_left(self.store, &left)) {
            Ok(()) => Ok(()),
            Err(error @ Error::Refused { why: Refusal::Superseded, .. }) => Err(error),
            Err(error) => {
                self.units.warnings.warn(&format!("the trial cannot be written: {}", chain(&error)));
                self.trial.id.clear();
                Ok(())
            }
        }
    }

    pub(super) fn take_units(&mut self, restarted: &[Affected]) {
        for one in restarted {
            if !self.trial.units.contains(&one.unit) {
                self.trial.units.push(one.unit.clone());
            }
        }
    }

    /// Takes back what was prepared for a switch that was not made.
    pub(super) fn give_up(&self, stopped: &[String]) {
        self.start_again(stopped);
        if let Err(error) = self.store.end_trial_of(&self.trial.id) {
            self.units.warnings.warn(&format!("the open trial cannot be ended: {}", chain(&error)));
        }
    }

    /// Starts what was stopped for a switch that is not made, but for what somebody else's trial starts.
    fn start_again(&self, stopped: &[String]) {
        let other = self.store.trial().ok().and_then(Found::open).filter(|trial| trial.id != self.trial.id);
        let taken = other.filter(|trial| self.store.is_watched(trial)).map(|trial| trial.units).unwrap_or_default();
        let left: Vec<String> = stopped.iter().filter(|unit| !taken.contains(unit)).cloned().collect();
        self.units.bring_back(Order::Start, &left);
    }

    /// Goes through the levels until one holds, none is left, or the operator interrupts: then the version that is current
    /// stays on trial. How services ran right before, if that was looked at, need not be asked again.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`].
    pub(super) fn run(&mut self, order: Order, restarted: Touched, before: Option<Vec<UnitState>>) -> Result<Ended> {
        match self.go_through(order, restarted, before) {
            Err(Error::Interrupted) => Ok(self.interrupted()),
            other => other,
        }
    }

    /// Leaves the trial open, and says in it that all was ordered to start.
    fn interrupted(&mut self) -> Ended {
        self.trial.ordered = true;
        let current = self.trial.current.clone();
        // A failure of what stays current is found again.
        self.trial.failures.retain(|failure| failure.version != current);
        if let Err(error) = write(self.store, &mut self.trial, &current, self.units.warnings) {
            self.units.warnings.warn(&format!("the trial cannot be written: {}", chain(&error)));
        }
        // One that could not be written has no name.
        let trial = Some(self.trial.clone()).filter(|trial| !trial.id.is_empty());
        Ended { trial, ..self.ended(Outcome::Interrupted, None) }
    }

    fn go_through(&mut self, order: Order, restarted: Touched, before: Option<Vec<UnitState>>) -> Result<Ended> {
        let (mut order, mut restarted, mut before) = (order, restarted, before);
        loop {
            // What was started by a boot was read by it.
            if order == Order::Restart && restarted.definitions {
                self.units.reload();
            }
            let attempt = self.attempt(order, restarted.units, before.take());
            let failure = attempt.failure().cloned();
            let standing_units = attempt.verdicts.iter().filter(|verdict| verdict.failure().is_none()).count();
            let open = attempt.verdicts.iter().any(|verdict| verdict.judgement == Judgement::Open);
            self.attempts.push(attempt);
            self.still_ours()?;
            let Some(evidence) = failure else {
                // A watch that was broken off has judged nothing.
                return if open { Err(superseded(&self.trial.current)) } else { self.passed() };
            };
            let version = self.trial.current.clone();
            self.say(&format!("{version} does not hold: {evidence}"));
            self.trial.failures.push(Failure {
                version: version.clone(),
                evidence,
                standing_units,
                unknown: Unknown::new(),
            });
            if let Some(check) = self.trial.same_check_twice() {
                self.say(&outside(check));
            }
            let stopped = self.units.stop_first(&self.used_units());
            let stepped = self.still_ours();
            let stepped =
                stepped.and_then(|()| step_back(self.store, &mut self.trial, self.units.observer, self.units.warnings));
            let to = match stepped {
                Ok(Some(to)) => to,
                Ok(None) => return self.degrade(&stopped),
                Err(error) => {
                    self.start_again(&stopped);
                    return Err(error);
                }
            };
            self.say(&format!("switched back to {to} (level {})", self.trial.level));
            restarted = self.affected(&version, &to);
            order = Order::Restart;
        }
    }

    fn used_units(&self) -> Vec<Affected> {
        let why = || vec!["it was restarted before".to_owned()];
        self.trial.units.iter().map(|unit| Affected { unit: unit.clone(), reasons: why() }).collect()
    }

    /// What a step back restarts: all that differs, all that was restarted before, and what ran before and does not now.
    fn affected(&mut self, from: &VersionName, to: &VersionName) -> Touched {
        let manager = self.units.manager();
        let touched = affected(self.store, manager, &self.units.services, Some(from), to);
        let touched = touched.unwrap_or_else(|error| Touched::in_doubt(all(&self.units.services, &chain(&error))));
        let Touched { mut units, definitions, doubt } = touched.only_affected();
        let watched = self.attempts.iter().flat_map(|attempt| &attempt.verdicts).map(|verdict| verdict.unit.clone());
        let watched: Vec<String> = watched.collect();
        let down = self.units.states(&watched).into_iter().filter(|state| state.activity != Activity::Active);
        let down = down.map(|state| Affected { unit: state.unit, reasons: vec!["it went down with the other".into()] });
        for one in self.used_units().into_iter().chain(down) {
            if units.iter().all(|other| other.unit != one.unit) {
                units.push(one);
            }
        }
        self.take_units(&units);
        Touched { units, definitions, doubt }
    }

    fn attempt(&self, order: Order, restarted: Vec<Affected>, before: Option<Vec<UnitState>>) -> Attempt {
        // What nobody touches must go on, if it went on before.
        let states = before.unwrap_or_else(|| self.units.states(&self.units.names()));
        let runs = |unit: &str| states.iter().any(|state| state.unit == unit && state.activity == Activity::Active);
        let watched = self.units.watched(&restarted, &states);
        let units: Vec<String> = restarted.iter().map(|one| one.unit.clone()).collect();
        for one in restarted.iter().filter(|_| order == Order::Restart) {
            self.say(&format!("restarting {}: {}", one.unit, one.reasons.join("; ")));
        }
        let keep_on = || self.goes_on();
        let (verdicts, refused) = self.units.try_out((order, &units), &watched, &runs, &keep_on);
        Attempt { version: self.trial.current.clone(), level: self.trial.level, restarted, verdicts, refused }
    }

    fn goes_on(&self) -> bool {
        !self.units.observer.interrupted() && self.is_ours()
    }

    fn is_ours(&self) -> bool {
        let Trial { id, current, .. } = &self.trial;
        match id.is_empty() {
            true => {
                let roles = self.store.refs().and_then(|refs| refs.read());
                roles.is_ok_and(|roles| roles.version(Role::Current) == Some(current))
            }
            false => self.store.is_on_trial(id, current),
        }
    }

    fn still_ours(&self) -> Result<()> {
        match (self.is_ours(), self.units.observer.interrupted()) {
            (false, _) => Err(superseded(&self.trial.current)),
            (true, true) => Err(Error::Interrupted),
            (true, false) => Ok(()),
        }
    }

    /// Writes down that the current version holds, and ends the trial.
    fn passed(&mut self) -> Result<Ended> {
        let place = place_of_ours(self.store, &self.trial)?;
        let survey = self.store.survey()?;
        let current = self.trial.current.clone();
        let digest = survey.digest(self.store, &current);
        let was_checked = self.attempts.last().is_some_and(|attempt| !attempt.verdicts.is_empty());
        let good = if was_checked { good_mark(self.store, &survey, &current) } else { None };
        let mut events: Vec<Event> = good.into_iter().collect();
        let marked_bad = bad_mark(self.store, &self.trial, digest, self.units.warnings)?;
        events.extend(marked_bad.clone());
        conclude(self.store, &self.trial.id, place, events, self.units.warnings);
        let outcome = if self.trial.failures.is_empty() { Outcome::Done } else { Outcome::RolledBack };
        Ok(self.ended(outcome, marked_bad.and_then(|event| event.version)))
    }

    fn ended(&mut self, outcome: Outcome, marked_bad: Option<VersionName>) -> Ended {
        Ended {
            outcome,
            current: self.trial.current.clone(),
            level: self.trial.level,
            attempts: std::mem::take(&mut self.attempts),
            marked_bad,
            same_check: self.trial.same_check_twice().map(str::to_owned),
            trial: None,
        }
    }

    /// Nothing holds: goes to the least bad version and stays there, with all that was `stopped` for that.
    fn degrade(&mut self, stopped: &[String]) -> Result<Ended> {
        let best = least_bad(&self.trial);
        let gone = if best == self.trial.current { Ok(()) } else { self.go_to_least_bad(best) };
        self.start_again(stopped);
        gone?;
        let place = place_of_ours(self.store, &self.trial)?;
        let marked_bad = degraded(self.store, place, &self.trial, self.units.warnings)?;
        Ok(self.ended(Outcome::Degraded, marked_bad))
    }

    fn go_to_least_bad(&mut self, best: VersionName) -> Result<()> {
        let left = self.trial.current.clone();
        let level = self.level_of(&best);
        let next = RefCell::new(self.trial.clone());
        let prepare = |to: &VersionName, _: u8| {
            let mut trial = next.borrow_mut();
            (trial.current, trial.level) = (to.clone(), level);
            write(self.store, &mut trial, &left, self.units.warnings)
        };
        let guard =
            |locked: &LockedRefs<'_>, _: &VersionName, _: u8| expect_ours(self.store, locked, &next.borrow(), &left);
        let options = back::Options {
            to: Some(Selector::Name(best.clone())),
            verify: Verify::None,
            bad: BadVersions::Accept,
            left: Left::Unmarked,
            reason: Some("no version holds; this one is the least bad".into()),
        };
        let failed = self.trial.failures.first();
        let settle = || {};
        let supervised = Supervised { prepare: &prepare, guard: &guard, settle: &settle, excluded: &[], failed };
        let switched = go_back(self.store, &options, Some(&supervised), self.units.observer)?;
        switched.warnings.iter().for_each(|warning| self.units.warnings.warn(warning));
        self.trial = next.into_inner();
        self.say(&format!("no version holds; switched back to {best}, the least bad one"));
        let touched = self.affected(&left, &best);
        if touched.definitions {
            self.units.reload();
        }
        let units: Vec<String> = touched.units.into_iter().map(|one| one.unit).collect();
        self.units.bring_back(Order::Restart, &units);
        Ok(())
    }

    fn level_of(&self, version: &VersionName) -> u8 {
        self.attempts.iter().find(|attempt| attempt.version == *version).map_or(0, |attempt| attempt.level)
    }
}

/// What is said when one check fails on more than one version.
pub fn outside(check: &str) -> String {
    format!(
        "the same check ({check}) fails on more than one version: the fault is probably outside the release (network, \
         disk, configuration, the check itself)"
    )
}

fn superseded(current: &VersionName) -> Error {
    Error::refused_with(
        Refusal::Superseded,
        format!("somebody else switched or ended the trial while {current} was being watched; that stands"),
        "see: tope-store history",
    )
}

/// Makes sure under the lock that a step is still ours, and that `current` leads where we left it. A trial that could not
/// be written has no name.
fn expect_ours(store: &Store, locked: &LockedRefs<'_>, trial: &Trial, current: &VersionName) -> Result<()> {
    match trial.id.is_empty() {
        true => locked.expect_current(Some(current)),
        false => store.expect_trial(locked, &trial.id, Some(current)),
    }
}

/// The place of what is to be recorded about a trial that is still ours: before all that is switched later.
fn place_of_ours(store: &Store, trial: &Trial) -> Result<Place> {
    let refs = store.refs()?;
    let locked = refs.lock(store.settings().lock_timeout)?;
    expect_ours(store, &locked, trial, &trial.current)?;
    Ok(locked.place())
}

/// Writes a trial while `current` leads where it was left, if that can be had: going back must not fail for it.
///
/// # Errors
///
/// [`Refusal::Superseded`] if the trial is no longer ours.
fn write(store: &Store, trial: &mut Trial, left: &VersionName, warnings: &Warnings<'_>) -> Result<()> {
    if trial.id.is_empty() {
        return Ok(());
    }
    match store.write_trial(trial, |locked| expect_ours(store, locked, trial, left)) {
        Ok(()) => Ok(()),
        Err(error @ Error::Refused { why: Refusal::Superseded, .. }) => Err(error),
        Err(error) => {
            warnings.warn(&format!("the trial cannot be written, so that a power cut ends it: {}", chain(&error)));
            let _ = store.end_trial_of(&trial.id);
            trial.id.clear();
            Ok(())
        }
    }
}

/// Goes back to the next level whose version did not fail yet; gives it. `None` if there is none.
pub(super) fn step_back(
    store: &Store,
    trial: &mut Trial,
    observer: &dyn Observer,
    warnings: &Warnings<'_>,
) -> Result<Option<VersionName>> {
    let excluded: Vec<VersionName> = trial.failures.iter().map(|failure| failure.version.clone()).collect();
    let factory = store.refs()?.read()?.version(Role::Factory).cloned();
    let to = match trial.level {
        0 => None,
        1 if factory.is_some_and(|factory| !excluded.contains(&factory)) => Some(Selector::Role(Role::Factory)),
        _ => return Ok(None),
    };
    let reason = trial.failures.last().map(|failure| format!("{} failed: {}", failure.version, failure.evidence));
    let next = RefCell::new(trial.clone());
    let prepare = |to: &VersionName, level: u8| {
        let mut next = next.borrow_mut();
        (next.current, next.level, next.attempts, next.ordered) = (to.clone(), level, 0, false);
        write(store, &mut next, &trial.current, warnings)
    };
    let guard =
        |locked: &LockedRefs<'_>, _: &VersionName, _: u8| expect_ours(store, locked, &next.borrow(), &trial.current);
    let failed = trial.failures.first();
    let settle = || {};
    let supervised = Supervised { prepare: &prepare, guard: &guard, settle: &settle, excluded: &excluded, failed };
    let options = back::Options { to, left: Left::Unmarked, reason, ..back::Options::default() };
    match go_back(store, &options, Some(&supervised), observer) {
        Ok(switched) => {
            switched.warnings.iter().for_each(|warning| warnings.warn(warning));
            *trial = next.into_inner();
            Ok(Some(switched.to))
        }
        Err(error @ (Error::NotFound { .. } | Error::NoWayBack { .. } | Error::Refused { why: Refusal::Bad, .. })) => {
            warnings.warn(&format!("there is no further way back: {}", chain(&error)));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
