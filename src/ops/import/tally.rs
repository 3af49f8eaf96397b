//! What an import counts while it works; from many threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::object::place::{How, Placed};

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn set(&self, amount: u64) {
        self.0.store(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of an import.
#[derive(Debug, Default)]
pub(in crate::ops) struct Tally {
    pub(super) files: Count,
    pub(super) symlinks: Count,
    pub(super) total_bytes: Count,
    pub(super) new_objects: Count,
    pub(super) new_bytes: Count,
    pub(super) reflinked_bytes: Count,
    pub(super) linked_files: Count,
    pub(super) copied_files: Count,
    pub(super) private_files: Count,
    pub(super) unread_files: Count,
    pub(super) pinned_files: Count,
    pub(super) pinned_bytes: Count,
    pub(super) setid_files: Count,
}

impl Tally {
    /// Counts what became of a file.
    pub(super) fn placed(&self, placed: &Placed) {
        match placed.how {
            How::New | How::NewReflinked => {
                self.new_objects.add(1);
                self.new_bytes.add(placed.recorded.size);
                if placed.how == How::NewReflinked {
                    self.reflinked_bytes.add(placed.recorded.size);
                }
            }
            How::Linked => self.linked_files.add(1),
            How::Copied => self.copied_files.add(1),
        }
    }
}
