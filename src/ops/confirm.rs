//! Accepting a version: it counts as good from here on, and a bad mark goes.

use crate::error::{Error, Refusal, Result};
use crate::model::event::Evidence;
use crate::model::{Action, Digest, Event, Role, Selector, VersionName};
use crate::store::Store;

/// Which version, and why.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The version; by default the current one.
    pub version: Option<Selector>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What confirming came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The version.
    pub version: VersionName,
    /// Its digest, which is what is good now.
    pub digest: Digest,
    /// Why it was bad, if it was.
    pub was_bad: Option<Evidence>,
    /// Whether the store was degraded with this version as the least bad one, and is not any longer.
    pub recovered: bool,
    /// Whether that changed anything.
    pub changed: bool,
}

/// Marks a version good.
///
/// # Errors
///
/// [`Error::NotFound`]; [`Error::Refused`] for a directory that was made by hand; the history cannot be written.
pub fn confirm(store: &Store, options: &Options) -> Result<Report> {
    store.check_changeable()?;
    store.expect_understood("confirm")?;
    let survey = store.survey()?;
    let version = survey.resolve(store, options.version.as_ref().unwrap_or(&Selector::Role(Role::Current)))?;
    let digest = survey.digest(store, &version).ok_or_else(|| {
        Error::refused_with(
            Refusal::NotAllowed,
            format!("{version} was made by hand: there is no digest that could be marked good"),
            format!("take it under management with: tope-store adopt {version}"),
        )
    })?;
    let standing = survey.marks.standing(&digest);
    // What a failed check went back to may be good for long: that is how an operator takes note of it.
    let switch = survey.marks.last_switch.as_ref();
    let acknowledges = switch.is_some_and(|switch| switch.version == version && switch.is_unaccepted_rollback());
    let recovered = survey.marks.is_degraded_on(&version);
    let changed = standing.bad.is_some() || !standing.good || recovered || acknowledges;
    if changed {
        let event = Event::about(Action::Confirm, &version, Some(digest));
        store.record(vec![Event { reason: options.reason.clone(), outcome: "done".into(), ..event }])?;
    }
    end_trial_of(store, &version)?;
    Ok(Report { version, digest, was_bad: standing.bad, recovered, changed })
}

/// Nothing is left to be tried of a version that was accepted.
fn end_trial_of(store: &Store, version: &VersionName) -> Result<()> {
    match store.trial()?.open().filter(|trial| trial.current == *version) {
        Some(trial) => store.end_trial_of(&trial.id).map(drop),
        None => Ok(()),
    }
}
