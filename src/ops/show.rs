//! Everything about one version.

use super::list::{Around, Listed, State};
use crate::error::{Error, Result};
use crate::index::EventFilter;
use crate::model::{Event, Node, PlacementKind, Selector};
use crate::store::Store;

/// Events about a version that are told.
const RECENT_EVENTS: usize = 10;

/// One version in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What a list tells.
    pub listed: Listed,
    /// How its files are placed; absent if there is no manifest that can be trusted.
    pub placed: Option<Placed>,
    /// The last events about it, newest first.
    pub events: Vec<Event>,
}

/// How the files of a version are placed, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Links to objects.
    pub linked: u64,
    /// Of those, links to objects whose modification time is part of their key.
    pub pinned_mtime: u64,
    /// Writable copies.
    pub private: u64,
    /// Files below shared paths, of which the version has the pristine bytes only.
    pub shared: u64,
    /// Empty files, each with an inode of its own.
    pub empty: u64,
}

/// Tells everything about one version.
///
/// # Errors
///
/// As [`Store::resolve`]; never because the version is damaged.
pub fn show(store: &Store, version: &Selector) -> Result<Report> {
    let name = store.resolve(version)?;
    let around = Around::read(store)?;
    let filter = EventFilter { version: Some(name.clone()), limit: Some(RECENT_EVENTS), ..EventFilter::default() };
    let indexed = around.ask(store, |reader| reader.version(&name))?;
    let events = store.ask(|reader| reader.events(&filter))?;
    let (indexed, placed) = match store.manifests()?.read(&name) {
        Ok(manifest) => {
            let mut placed = Placed::default();
            let walked = manifest.walk(|_, entry, placement| {
                match (placement.map(|placement| placement.kind), &entry.node) {
                    (Some(PlacementKind::Object), _) => placed.linked += 1,
                    (Some(PlacementKind::PinnedMtime), _) => {
                        placed.linked += 1;
                        placed.pinned_mtime += 1;
                    }
                    (Some(PlacementKind::Private), _) => placed.private += 1,
                    (Some(PlacementKind::Shared), _) => placed.shared += 1,
                    (None, Node::File { .. }) => placed.empty += 1,
                    (None, _) => {}
                }
                Ok::<(), std::convert::Infallible>(())
            });
            match walked {
                Ok(()) => (indexed, Some(placed)),
            }
        }
        // The index may still know what it said; the manifest is what counts.
        Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }) => (None, None),
        Err(error) => return Err(error),
    };
    let listed = around.describe(store, &name, indexed)?;
    debug_assert!(placed.is_some() || matches!(listed.state, State::DamagedManifest | State::Newer | State::Unmanaged));
    Ok(Report { listed, placed, events: events.into_iter().map(|(event, _)| event).collect() })
}
