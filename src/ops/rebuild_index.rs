//! Making the index anew from manifests and history.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::index::{Reader, Totals};
use crate::model::VersionName;
use crate::store::Store;

/// What the new index holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Rows by kind.
    pub totals: Totals,
    /// Versions that are not in it, since their manifests cannot be trusted.
    pub damaged: Vec<VersionName>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Makes the index anew. What was remembered of source files is forgotten.
///
/// # Errors
///
/// [`Error::Locked`](crate::error::Error::Locked) while an import, gc or repair holds the store's lock; what the system refuses.
pub fn rebuild_index(store: &Store) -> Result<Report> {
    let start = Instant::now();
    let exclusive = store.exclude()?;
    exclusive.rebuild_index()?;
    let (totals, indexed) = exclusive.ask(|reader| Ok((Reader::totals(reader)?, reader.versions()?)))?;
    let manifests = exclusive.manifests()?;
    let mut damaged = manifests.names()?;
    damaged.retain(|name| !indexed.iter().any(|version| version.facts.name == *name));
    damaged.retain(|name| !matches!(manifests.stat(name), Ok(None)));
    Ok(Report { totals, damaged, elapsed: start.elapsed() })
}
