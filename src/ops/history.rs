//! Who switched what, when, why: the events of the history, as they are asked for.

use crate::error::Result;
use crate::history::{Recorded, State};
use crate::model::{Action, Selector, VersionName};
use crate::store::Store;

/// In which order events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// At most so many, the newest ones.
    pub limit: Option<usize>,
    /// Only those about this version, or that left it.
    pub version: Option<Selector>,
    /// Only those of these kinds; all if there are none.
    pub actions: Vec<Action>,
    /// In which order.
    pub order: Order,
}

/// What was asked for.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The events.
    pub events: Vec<Recorded>,
    /// Whether the log can be trusted.
    pub state: State,
}

/// Reads the history.
///
/// # Errors
///
/// [`crate::error::Error::NotFound`] for a version that neither exists nor ever did; the system refuses to read.
pub fn history(store: &Store, options: &Options) -> Result<Report> {
    let witnesses = store.witnesses();
    let reading = store.history()?.read()?.against(&witnesses);
    let about = |recorded: &Recorded, version: &VersionName| {
        [&recorded.event.version, &recorded.event.from].into_iter().flatten().any(|named| named == version)
    };
    let version = match &options.version {
        // Versions that were removed have a history, too.
        Some(Selector::Name(name)) if reading.events.iter().any(|event| about(event, name)) => Some(name.clone()),
        Some(selector) => Some(store.survey()?.resolve(store, selector)?),
        None => None,
    };
    let newest_first = reading.events.into_iter().rev();
    let wanted = newest_first
        .filter(|recorded| version.as_ref().is_none_or(|version| about(recorded, version)))
        .filter(|recorded| options.actions.is_empty() || options.actions.contains(&recorded.event.action));
    let mut events: Vec<Recorded> = wanted.take(options.limit.unwrap_or(usize::MAX)).collect();
    if options.order == Order::OldestFirst {
        events.reverse();
    }
    Ok(Report { events, state: reading.state })
}
