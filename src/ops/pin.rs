//! Pins: versions that gc never removes.

use crate::error::{Error, Result};
use crate::model::{Action, Event, Selector, VersionName};
use crate::store::Store;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pin {
    /// The version is to be kept.
    Set,
    /// It need not be kept any longer.
    Lift,
}

/// What pinning came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The version.
    pub version: VersionName,
    /// Whether it is pinned now.
    pub pinned: bool,
    /// Whether it was not before.
    pub changed: bool,
}

/// Pins a version, or lifts its pin.
///
/// # Errors
///
/// [`Error::NotFound`]; the history cannot be written.
pub fn pin(store: &Store, selector: &Selector, pin: Pin, reason: Option<&str>) -> Result<Report> {
    store.check_changeable()?;
    store.expect_understood(if pin == Pin::Set { "pin" } else { "unpin" })?;
    let survey = store.survey()?;
    let version = match (survey.resolve(store, selector), selector) {
        // A pin may outlive what it was on, and can be lifted then.
        (Err(Error::NoSuchVersion { .. }), Selector::Name(name))
            if survey.marks.pins.contains(name) && pin == Pin::Lift =>
        {
            name.clone()
        }
        (resolved, _) => resolved?,
    };
    let pinned = pin == Pin::Set;
    let changed = survey.marks.pins.contains(&version) != pinned;
    if changed {
        let action = if pinned { Action::Pin } else { Action::Unpin };
        let event = Event::about(action, &version, survey.digest(store, &version));
        store.record(vec![Event { reason: reason.map(str::to_owned), ..event }])?;
    }
    Ok(Report { version, pinned, changed })
}
