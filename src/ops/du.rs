//! What versions take on the medium, what they share, and what would come back.
//!
//! A version's bytes are those of its tree, its manifest, and its objects, each inode once. A look takes no lock: what is
//! removed meanwhile is passed over.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::footprint::{Footprints, Scope};
use super::inventory::{Contents, Inventory};
use crate::error::{Error, Result};
use crate::model::{ContentId, VersionName};
use crate::observe::Observer;
use crate::store::Store;
use crate::store::recover::Leftovers;

/// What one version takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The version.
    pub name: VersionName,
    /// All that it reaches.
    pub total_bytes: u64,
    /// What no other version reaches.
    pub unique_bytes: u64,
    /// What other versions reach as well.
    pub shared_bytes: u64,
    /// What comes back if it alone is removed.
    pub freed_if_removed_bytes: u64,
}

/// What the store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Number of versions.
    pub versions: u64,
    /// What all versions would take if they shared nothing.
    pub unshared_bytes: u64,
    /// What they take.
    pub stored_bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// Bytes of objects.
    pub object_bytes: u64,
    /// Objects to which no version refers; gc removes them.
    pub orphan_objects: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Objects that have the same bytes as another one, with another mode, owner, attributes or pinned time.
    pub variant_objects: u64,
    /// What they take besides the first of each.
    pub variant_bytes: u64,
}

impl Totals {
    /// How many times as much the versions would take without sharing; 1 for an empty store.
    pub fn ratio(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
        match self.stored_bytes {
            0 => 1.0,
            stored => self.unshared_bytes as f64 / stored as f64,
        }
    }
}

/// How often it is begun anew because a version was removed meanwhile.
const MOST_ATTEMPTS: u32 = 20;

/// What everything takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The versions that were asked for, in their own order.
    pub versions: Vec<Usage>,
    /// The whole store.
    pub store: Totals,
    /// Whether what comes back is an upper bound, since files may share blocks on this file system.
    pub up_to: bool,
}

/// Measures all versions, and reports on `names`, or on all if none is given.
///
/// # Errors
///
/// [`Error::NotFound`] for a version that is not there; [`Error::Corrupt`] for a damaged manifest; what the system
/// refuses: objects are seen by the store's owner and root only.
pub fn du(store: &Store, names: &[VersionName], observer: &dyn Observer) -> Result<Report> {
    let inventory = inventory(store, observer)?;
    if let Some(name) = names.iter().find(|name| !inventory.versions.contains_key(*name)) {
        return Err(Error::NotFound { what: "version", name: name.to_string() });
    }
    let all: BTreeSet<VersionName> = inventory.versions.keys().cloned().collect();
    let footprints = Footprints::measure(store, &inventory, &all, &Leftovers::default(), observer)?;
    let reached: BTreeMap<&VersionName, _> =
        all.iter().map(|name| (name, footprints.inodes_of(&inventory, name))).collect();
    let mut versions_with: HashMap<u32, u32> = HashMap::new();
    for inode in reached.values().flatten() {
        *versions_with.entry(*inode).or_default() += 1;
    }
    let mut store = Totals { versions: all.len() as u64, ..Totals::default() };
    let mut versions = Vec::new();
    for (name, inodes) in &reached {
        let (mut total_bytes, mut shared_bytes) = (footprints.directory_bytes(name), 0);
        for inode in inodes {
            let bytes = footprints.bytes_of(*inode);
            total_bytes += bytes;
            if versions_with[inode] > 1 {
                shared_bytes += bytes;
            }
        }
        store.unshared_bytes += total_bytes;
        store.stored_bytes += total_bytes - shared_bytes;
        if names.is_empty() || names.contains(name) {
            let name = (*name).clone();
            let freed_if_removed_bytes = footprints.freed(&inventory, std::slice::from_ref(&name), Scope::Versions);
            let unique_bytes = total_bytes - shared_bytes;
            versions.push(Usage { name, total_bytes, unique_bytes, shared_bytes, freed_if_removed_bytes });
        }
    }
    let shared = versions_with.iter().filter(|(_, versions)| **versions > 1);
    store.stored_bytes += shared.map(|(inode, _)| footprints.bytes_of(*inode)).sum::<u64>();
    count_objects(&inventory, &footprints, &mut store);
    Ok(Report { versions, store, up_to: footprints.may_share_blocks })
}

/// Everything that is there, while others may import and remove.
fn inventory(store: &Store, observer: &dyn Observer) -> Result<Inventory> {
    let take = || Inventory::take(store, store.history()?.present()?.marks, Contents::read(store, observer)?);
    for _ in 1..MOST_ATTEMPTS {
        match take() {
            // A version went between its name and its manifest.
            Err(Error::NotFound { .. }) => {}
            taken => return taken,
        }
    }
    take()
}

fn count_objects(inventory: &Inventory, footprints: &Footprints, store: &mut Totals) {
    let mut contents: HashMap<u32, ContentId> = HashMap::with_capacity(inventory.references.keys.len());
    contents.extend(inventory.references.keys.iter().map(|(key, at)| (at, key.content)));
    let mut variants: HashMap<ContentId, Vec<u64>> = HashMap::new();
    for (known, bytes) in footprints.object_bytes() {
        store.objects += 1;
        store.object_bytes += bytes;
        match known.and_then(|known| contents.get(&known)) {
            Some(content) => variants.entry(*content).or_default().push(bytes),
            None => {
                store.orphan_objects += 1;
                store.orphan_bytes += bytes;
            }
        }
    }
    for bytes in variants.values().filter(|bytes| bytes.len() > 1) {
        store.variant_objects += bytes.len() as u64 - 1;
        store.variant_bytes += bytes.iter().sum::<u64>() - bytes.iter().max().copied().unwrap_or(0);
    }
}
