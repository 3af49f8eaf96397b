//! Objects: one immutable inode per content and inode class, shared by every tree that has such a file.
//!
//! **Invariant (I-1):** an object appears under its name complete and verified, or not at all. A file is written at
//! its place in a private staging directory, dressed, and only then linked into `objects/`; nothing there is ever
//! opened for writing.
//!
//! **Invariant:** a name proves nothing. After a power cut a correctly named object may hold zeros. An object is
//! trusted if a published manifest refers to it ([`Published`]) and no finding revoked it ([`trust`]), or if this run made
//! or rehashed it; any other one that is met is rehashed, and replaced if it is wrong. A revoked one is replaced in any
//! case.
//!
//! | died after | the next run sees |
//! | --- | --- |
//! | writing the staging file | nothing in `objects/`; staging is swept |
//! | linking it into `objects/` | an object that no manifest refers to: not trusted, swept by gc |
//! | a power cut before the barrier | the same, perhaps with wrong bytes: rehashed before use |
//!
//! - [`place`]: putting a file into a tree: a link to its object, making the object where there is none
//! - `settle`: a new file takes its object's name, or yields
//! - [`rotate`]: a fresh inode for an object whose link count is full
//! - [`renew`]: a fresh inode for an object that is missing or damaged
//! - [`check`]: is this inode what its key says?
//! - [`trust`]: which objects are revoked, and which inodes were found to be wrong
//! - [`listing`]: which inode each object is
//! - [`map`]: what is recorded of very many objects
//! - [`sweep`]: removal of objects that nothing refers to

mod blamed;
pub mod check;
pub mod listing;
pub mod map;
pub mod place;
pub mod renew;
pub mod rotate;
mod settle;
pub mod sweep;
pub mod trust;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::fsys::Dir;
use crate::fsys::file::Fresh;
use crate::layout;
use crate::model::ObjectKey;
use map::ObjectMap;
use trust::{Replaced, Suspect, Suspects};

/// What published manifests record of an object besides its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Bytes of contents.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// Answers whether a published manifest refers to an object.
pub trait Published: Sync {
    /// What was recorded of it, or `None` if no published manifest refers to it or if it is revoked.
    fn lookup(&self, key: &ObjectKey) -> Result<Option<Recorded>>;

    /// What published manifests record of an object that is revoked; `None` for any other.
    fn revoked(&self, _key: &ObjectKey) -> Result<Option<Recorded>> {
        Ok(None)
    }

    /// Whether an object of this size may exist; `false` only if there is certainly none. Saves reading a big file
    /// twice.
    fn may_have_size(&self, _size: u64) -> bool {
        true
    }
}

/// Nothing is published.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingPublished;

impl Published for NothingPublished {
    fn lookup(&self, _key: &ObjectKey) -> Result<Option<Recorded>> {
        Ok(None)
    }

    fn may_have_size(&self, _size: u64) -> bool {
        false
    }
}

/// `objects/`, and what one run knows of it.
pub struct Objects<'a> {
    dir: Dir,
    /// A directory of this run's staging, for files on their way.
    staging: Dir,
    published: &'a dyn Published,
    fresh: Fresh,
    known: Known,
    rotation: Mutex<()>,
    replaced: Mutex<Replaced>,
    suspects: Mutex<Suspects>,
    links: LinkPolicy,
    counter: std::sync::atomic::AtomicU64,
}

/// What to do where hardlinks cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LinkPolicy {
    /// Copy, count it, say it.
    #[default]
    CopyIfNeeded,
    /// Fail.
    Require,
}

impl<'a> Objects<'a> {
    /// The objects of the store directory `store`, used by a run that stages files in `staging`.
    pub fn open(store: &Dir, staging: Dir, published: &'a dyn Published, links: LinkPolicy) -> Result<Self> {
        let fresh = Fresh::of_this_process().as_in(&staging.stat_self()?);
        Ok(Self {
            dir: store.open_dir(layout::OBJECTS)?,
            staging,
            published,
            fresh,
            known: Known::default(),
            rotation: Mutex::new(()),
            replaced: Mutex::default(),
            suspects: Mutex::default(),
            links,
            counter: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// What this process's fresh inodes look like.
    pub fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    /// Hands over what this run made, replaced and found.
    pub fn into_made(self) -> Made {
        let Self { known, replaced, suspects, .. } = self;
        Made {
            known: known.shards.map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner)).into(),
            replaced: replaced.into_inner().unwrap_or_else(PoisonError::into_inner),
            suspects: suspects.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Takes note that a published object was read and is wrong.
    fn suspect(&self, suspect: Suspect) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(suspect);
    }

    /// The objects that this run read and found to be wrong.
    pub fn suspects(&self) -> Suspects {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name in staging that no other file of this run has.
    fn staging_name(&self) -> String {
        format!("o{}", self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// What a run did to objects.
#[derive(Debug, Default)]
pub struct Made {
    /// Objects that it made or rehashed, to be taken back if they are not published.
    known: Vec<ObjectMap>,
    /// Published objects that it made again: every tree that has the old inode is to have the new one.
    pub replaced: Replaced,
    /// Objects that it found to be wrong.
    pub suspects: Suspects,
}

impl Made {
    /// The keys of what it made or rehashed, in order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = self.known.iter().flat_map(ObjectMap::iter).map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }
}

/// Objects that this run made or rehashed. Many threads ask, so the map is split by content.
#[derive(Debug)]
struct Known {
    shards: [Mutex<ObjectMap>; 16],
}

impl Default for Known {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Known {
    fn shard(&self, key: &ObjectKey) -> MutexGuard<'_, ObjectMap> {
        // Not by the bytes that say where an entry lies in its shard.
        let at = usize::from(key.content.as_bytes()[31] >> 4);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &ObjectKey) -> Option<Recorded> {
        self.shard(key).get(key)
    }

    fn insert(&self, key: &ObjectKey, recorded: Recorded) {
        self.shard(key).insert(key, recorded);
    }
}

/// All objects by inode number. Costs one listing of `objects/`, without looking at a single inode.
pub fn inodes(store: &Dir) -> Result<HashMap<u64, ObjectKey>> {
    let objects = store.open_dir(layout::OBJECTS)?;
    let mut inodes = HashMap::new();
    for fan in objects.items()? {
        let Ok(dir) = objects.open_dir(&fan.name) else { continue };
        for item in dir.items()? {
            if let Some(key) = ObjectKey::parse(fan.name.as_bytes(), item.name.as_bytes()) {
                inodes.insert(item.inode, key);
            }
        }
    }
    Ok(inodes)
}
