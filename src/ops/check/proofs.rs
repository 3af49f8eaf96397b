//! What looks at trees prove of objects.
//!
//! A file of a tree that is the very inode of its object, and is what was recorded, proves that the object is: nobody
//! has to look at it again by its own name. What is left are objects of which no tree holds the inode: rotated ones,
//! the pristine bytes of private files, those whose file was replaced or damaged.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::fsys::{Dir, Stat};
use crate::model::ObjectKey;
use crate::object::listing::Listing;

/// A listing of `objects/`, and what is known of each object in it by now.
pub(super) struct Proofs {
    listing: Listing,
    /// The last pass that saw it through a tree, as it was recorded there; 0: none.
    seen: Vec<AtomicU32>,
    /// Whether a manifest refers to it.
    needed: Vec<AtomicBool>,
}

/// An object's place in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed(usize);

impl Proofs {
    /// Lists `objects/`, of which nothing is proved.
    pub(super) fn read(objects: &Dir) -> Self {
        let listing = Listing::read(objects);
        let count = listing.len();
        let seen = std::iter::repeat_with(AtomicU32::default).take(count).collect();
        let needed = std::iter::repeat_with(AtomicBool::default).take(count).collect();
        Self { listing, seen, needed }
    }

    /// The object of this key, if `stat` shows its inode.
    pub(super) fn of(&self, key: &ObjectKey, stat: &Stat) -> Option<Listed> {
        self.listing.find(key).filter(|found| found.is(stat)).map(|found| Listed(found.position))
    }

    /// A pass found the object to be what its version says, by a look or by reading, as deep as it goes.
    pub(super) fn prove(&self, object: Listed, pass: u32) {
        self.seen[object.0].fetch_max(pass, Relaxed);
    }

    /// Whether any pass proved it.
    pub(super) fn is_proved(&self, object: Listed) -> bool {
        self.seen[object.0].load(Relaxed) != 0
    }

    /// Takes note that a manifest refers to it; tells whether the pass over that manifest's tree, or a later one,
    /// proved it.
    pub(super) fn need(&self, key: &ObjectKey, pass: u32) -> bool {
        self.listing.find(key).is_some_and(|found| {
            self.needed[found.position].store(true, Relaxed);
            self.seen[found.position].load(Relaxed) >= pass
        })
    }

    /// Whether it is known that a manifest refers to it.
    pub(super) fn is_needed(&self, key: &ObjectKey) -> bool {
        self.listing.find(key).is_some_and(|found| self.needed[found.position].load(Relaxed))
    }

    /// How many objects manifests refer to.
    pub(super) fn count_needed(&self) -> u64 {
        self.needed.iter().filter(|needed| needed.load(Relaxed)).count() as u64
    }

    /// How many are proved.
    pub(super) fn count_proved(&self) -> u64 {
        self.seen.iter().filter(|pass| pass.load(Relaxed) != 0).count() as u64
    }
}
