//! Notes on a version: what changed, what is known not to work.

use crate::error::{Error, Result};
use crate::model::{Action, Event, Selector, VersionName};
use crate::store::Store;

/// What was noted.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The version.
    pub version: VersionName,
    /// How many notes it has now.
    pub notes: usize,
}

/// Adds a note to a version.
///
/// # Errors
///
/// [`Error::NotFound`]; [`Error::Usage`] for an empty text; the history cannot be written.
pub fn note(store: &Store, selector: &Selector, text: &str) -> Result<Report> {
    store.check_changeable()?;
    store.expect_understood("note")?;
    if text.trim().is_empty() {
        return Err(Error::Usage("a note needs a text".into()));
    }
    let survey = store.survey()?;
    let version = survey.resolve(store, selector)?;
    let digest = survey.digest(store, &version);
    store.record(vec![Event { text: Some(text.to_owned()), ..Event::about(Action::Note, &version, digest) }])?;
    let notes = survey.marks.notes.get(&version).map_or(0, Vec::len) + 1;
    Ok(Report { version, notes })
}
