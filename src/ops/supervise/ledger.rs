//! What is written down when a trial ends: which version is good, which is bad and why, or that none holds.

use crate::error::{Result, chain};
use crate::model::lenient::Word;
use crate::model::trial::{Begun, Failure};
use crate::model::{Action, Digest, Event, Role, Trial, VersionName};
use crate::observe::Observer;
use crate::ops::switching::{self, Warnings};
use crate::refs::Place;
use crate::store::Store;
use crate::store::survey::Survey;

/// The version with most units standing; in a tie the one that ran before, then the one that runs now.
pub(super) fn least_bad(trial: &Trial) -> VersionName {
    let rank = |failure: &Failure| {
        let before = trial.from.as_ref() == Some(&failure.version);
        (failure.standing_units, before, failure.version == trial.current)
    };
    let best = trial.failures.iter().max_by_key(|failure| rank(failure));
    best.map_or_else(|| trial.current.clone(), |failure| failure.version.clone())
}

/// The event that marks the target of a failed activation bad, unless there is a reason against it.
pub(super) fn bad_mark(
    store: &Store,
    trial: &Trial,
    now: Option<Digest>,
    warnings: &Warnings<'_>,
) -> Result<Option<Event>> {
    let (Word::Known(Begun::Activation), Some(digest), Some(first)) =
        (&trial.begun, trial.digest, trial.failures.first())
    else {
        return Ok(None);
    };
    let survey = store.survey()?;
    let version = &trial.version;
    let factory = survey.roles.version(Role::Factory);
    if factory == Some(version) || factory.and_then(|factory| survey.digest(store, factory)) == Some(digest) {
        warnings.warn(&format!("{version} is the factory version and is not marked bad"));
        return Ok(None);
    }
    if now == Some(digest) {
        warnings.warn(&format!("{version} holds the same as what is current now and is not marked bad"));
        return Ok(None);
    }
    if survey.marks.bad(&digest).is_some() {
        return Ok(None);
    }
    Ok(Some(Event { evidence: Some(first.evidence.clone()), ..Event::about(Action::Bad, version, Some(digest)) }))
}

/// The event that says that the current version holds, if that is news: it was not good yet, or the store is degraded. A
/// bad mark stays, since only an operator takes it back.
pub(super) fn good_mark(store: &Store, survey: &Survey, current: &VersionName) -> Option<Event> {
    let digest = survey.digest(store, current);
    let standing = digest.map(|digest| survey.marks.standing(&digest)).unwrap_or_default();
    let digest = digest.filter(|_| standing.bad.is_none());
    let degraded = survey.marks.is_degraded_on(current);
    let reason = degraded.then(|| "it passes its checks: the store is no longer degraded".to_owned());
    let is_news = degraded || (digest.is_some() && !standing.good);
    is_news.then(|| Event { outcome: "done".into(), reason, ..Event::about(Action::Good, current, digest) })
}

/// Writes down what was found, before all that is switched later, and ends the trial of this name.
pub(super) fn conclude(store: &Store, id: &str, place: Place, events: Vec<Event>, warnings: &Warnings<'_>) {
    if !events.is_empty() {
        place.wait(store.patience());
        switching::record(store, events, warnings);
    }
    drop(place);
    if let Err(error) = store.end_trial_of(id) {
        warnings
            .warn(&format!("the trial cannot be ended, and is judged once more at the next boot: {}", chain(&error)));
    }
}

/// Writes down that nothing holds, and ends the trial. Gives what is marked bad.
pub(super) fn degraded(
    store: &Store,
    place: Place,
    trial: &Trial,
    warnings: &Warnings<'_>,
) -> Result<Option<VersionName>> {
    let current = &trial.current;
    let survey = store.survey()?;
    let failed = trial.failures.iter().find(|failure| failure.version == *current).or(trial.failures.last());
    let tried: Vec<String> =
        trial.failures.iter().map(|failure| format!("{}: {}", failure.version, failure.evidence)).collect();
    // A probe that fails everywhere says nothing of the release, nor does one more check where no version held before.
    let is_outside = trial.same_probe_everywhere() || survey.marks.is_degraded_on(current);
    let bad = if is_outside { None } else { bad_mark(store, trial, None, warnings)? };
    let marked_bad = bad.as_ref().and_then(|event| event.version.clone());
    let mut events: Vec<Event> = bad.into_iter().collect();
    events.push(Event {
        evidence: failed.map(|failure| failure.evidence.clone()),
        text: Some(tried.join("; ")),
        outcome: "degraded".into(),
        ..Event::about(Action::Degraded, current, survey.digest(store, current))
    });
    conclude(store, &trial.id, place, events, warnings);
    Ok(marked_bad)
}
