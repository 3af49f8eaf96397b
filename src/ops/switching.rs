//! What activation and rollback have in common: the check before a switch, and the record after it.

use std::sync::{Mutex, PoisonError};

use super::check::{Checked, Checker, Depth, Expect, Problem, ReadFrom};
use crate::error::{Error, Result, chain};
use crate::model::{Event, VersionName};
use crate::observe::{Observer, Stage, Work};
use crate::store::Store;
use crate::store::survey::Survey;
use crate::store::trial::Standing;

/// How the target of a switch is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Compared with its manifest to this depth.
    To(Depth),
    /// Not at all.
    None,
}

impl Default for Verify {
    fn default() -> Self {
        Self::To(Depth::Quick)
    }
}

/// What to do about versions that are marked bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BadVersions {
    /// Refuse them.
    #[default]
    Refuse,
    /// Take them all the same.
    Accept,
}

/// What is known of a target before the switch.
#[derive(Debug)]
pub(super) enum Health {
    /// It is what its manifest says.
    Sound,
    /// It was not checked, by order.
    Skipped,
    /// There is no manifest: somebody made it by hand.
    Unmanaged,
    /// It cannot be checked.
    Unknown(Error),
    /// It was checked and is damaged.
    Damaged(Checked),
}

/// Checks a target. One that a repair left damaged is read whole.
///
/// # Errors
///
/// [`Error::Interrupted`] only.
pub(super) fn health(
    store: &Store,
    survey: &Survey,
    version: &VersionName,
    verify: Verify,
    observer: &dyn Observer,
) -> Result<Health> {
    let Verify::To(mut depth) = verify else { return Ok(Health::Skipped) };
    // Damage that a look does not show, and that could not be mended.
    if survey.marks.damaged.contains_key(version) {
        depth = Depth::Full;
    }
    let check = || {
        if store.manifests()?.stat(version)?.is_none() {
            return Ok(None);
        }
        // What does not belong there keeps nothing from running.
        let checker = Checker::new(store, depth, ReadFrom::Cache, &survey.marks, observer)?.ignoring_strangers();
        let planned = checker.read(version)?;
        planned.map(|planned| checker.version(&planned, expect(survey, version))).transpose()
    };
    let checked = match check() {
        Ok(None) => return Ok(Health::Unmanaged),
        Ok(Some(checked)) => Ok(checked),
        Err(error) => Err(error),
    };
    match checked {
        Ok(checked) if checked.is_sound() => Ok(Health::Sound),
        Ok(checked) => Ok(Health::Damaged(checked)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => Ok(Health::Unknown(error)),
    }
}

/// What the files of a version are expected to share with objects.
pub(super) fn expect(survey: &Survey, version: &VersionName) -> Expect {
    match survey.history.is_trustworthy() && survey.marks.isolated.contains(version) {
        true => Expect::OwnInodes,
        false => Expect::Links,
    }
}

/// "3 problems, the first: bin/app: it has 3 bytes instead of 5".
pub(super) fn summary(checked: &Checked) -> String {
    let damage: Vec<&Problem> = checked.damage().collect();
    match damage.as_slice() {
        [] => "no problem".into(),
        [only] => only.to_string(),
        [first, ..] => format!("{} problems, the first: {first}", damage.len()),
    }
}

/// Appends events if that can be had; if not, the switch stands all the same. Tells whether it could be had.
pub(super) fn record(store: &Store, events: Vec<Event>, warnings: &Warnings<'_>) -> bool {
    let recorded = match store.record_obstacle() {
        Some(obstacle) => Err(obstacle.to_owned()),
        None => store.record_switch(events).map_err(|error| chain(&error)),
    };
    if let Err(why) = &recorded {
        warnings.warn(&format!("the switch is made but cannot be recorded in the history: {why}"));
    }
    recorded.is_ok()
}

/// Brings the record to agree with the links where another switch was recorded meanwhile.
pub(super) fn restate(store: &Store, known: &Survey, found: &Survey, warnings: &Warnings<'_>) {
    if let Err(error) = store.restate_roles(known, found) {
        warnings
            .warn(&format!("the history names other roles than the links, until the next switch: {}", chain(&error)));
    }
}

/// Ends the trial that was open when a switch by hand overtook it. If it cannot be, whoever watches it sees the switch
/// itself. One that was begun since then is another.
pub(super) fn end_trial(store: &Store, overtaken: Result<Option<Standing>>, warnings: &Warnings<'_>) {
    let ended = overtaken.and_then(|overtaken| match overtaken {
        Some(overtaken) => store.end_trial(|standing| *standing == overtaken),
        None => Ok(false),
    });
    match ended {
        Ok(false) => {}
        Ok(true) => warnings.warn("the version that was current was still on trial; that ends with this switch"),
        Err(error) => warnings.warn(&format!("the open trial cannot be ended: {}", chain(&error))),
    }
}

/// Hands everything on to another observer, but keeps warnings: they belong into the report.
pub(super) struct Warnings<'a> {
    observer: &'a dyn Observer,
    kept: Mutex<Vec<String>>,
}

impl<'a> Warnings<'a> {
    pub(super) fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, kept: Mutex::default() }
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Warnings<'_> {
    fn stage(&self, stage: Stage, total: Option<u64>) {
        self.observer.stage(stage, total);
    }

    fn work(&self, work: Work, amount: u64) {
        self.observer.work(work, amount);
    }

    fn warn(&self, message: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
    }

    fn interrupted(&self) -> bool {
        self.observer.interrupted()
    }
}
