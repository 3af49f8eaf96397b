//! `store/head`: the number and chain value of the last event, in a block of its own.
//!
//! A log that is cut at the end of a line, or is an older copy of itself, is sound by itself. What betrays it is the
//! head, which does not go back with it.
//!
//! The head is made with the store and overwritten in place after each append, under the same lock. Overwriting takes no
//! block, no inode and no directory entry, so that a rollback on a full disk can do it; an append whose head cannot be
//! overwritten stands all the same. A head is never synced: the line that it names is durable before it is written.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | a part of the line, or the line without its sync | a torn line; the head names an earlier event |
//! | the sync of the line | the line; a head that is behind by it, which is no doubt: the next append overwrites it |
//! | a part of the head | on the medium a sector is old or new; in memory readers see a wrong checksum, and read again |
//! | the head, before the kernel wrote it back | as after the sync of the line, by as many lines as were appended since |
//! | the head, written back before the line's blocks | impossible, since the line was durable before, whatever the order in which the kernel writes (`data=writeback` included) |
//!
//! So a head that names an event behind the end of the log, or another event under its number, never comes from a crash.
//! Readers read the head *before* the log: an append between the two makes the log longer, never the head.
//!
//! A head that is missing or unreadable answers nothing; manifests and index still do. `doctor` reports it, the next
//! append overwrites an unreadable one, and `doctor --fix` makes a missing one. A head of a newer format is left alone.

use crate::error::{Error, Result};
use crate::fsys::{Dir, block, durable};
use crate::layout;
use crate::model::Anchor;
use crate::model::anchor::HEAD_BYTES;
use crate::model::codec::DecodeError;

/// How often a head is read that is being overwritten.
const ATTEMPTS: usize = 5;

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The last event.
    At(Anchor),
    /// There is none.
    Missing,
    /// It is damaged, in this way.
    Unreadable(String),
    /// Its format is newer than this build.
    Newer(String),
}

impl Head {
    /// The event that it names.
    pub fn anchor(&self) -> Option<Anchor> {
        match self {
            Self::At(anchor) => Some(*anchor),
            Self::Missing | Self::Unreadable(_) | Self::Newer(_) => None,
        }
    }

    /// Reads it. Never fails: a head that cannot be read says so.
    pub(super) fn read(store: &Dir) -> Self {
        let mut head = Self::Missing;
        for _ in 0..ATTEMPTS {
            let unreadable = |error: Error| Self::Unreadable(crate::error::chain(&error));
            head = match store.try_read(layout::HEAD) {
                Ok(None) => Self::Missing,
                Ok(Some(bytes)) => match Anchor::from_block(&bytes) {
                    Ok(anchor) => Self::At(anchor),
                    Err(error @ DecodeError::Newer { .. }) => Self::Newer(error.to_string()),
                    Err(error) => Self::Unreadable(error.to_string()),
                },
                Err(error) => unreadable(error),
            };
            if !matches!(head, Self::Unreadable(_)) {
                break;
            }
        }
        head
    }

    /// Makes the head name this event, unless it is missing or newer. Best effort: one that is behind is no doubt.
    pub(super) fn advance(&self, store: &Dir, anchor: Anchor) {
        if let Self::At(_) | Self::Unreadable(_) = self
            && let Err(error) = overwrite(store, anchor)
        {
            tracing::warn!(%error, "the head of the history stays behind");
        }
    }
}

fn overwrite(store: &Dir, anchor: Anchor) -> Result<()> {
    let block = anchor.to_block();
    // A longer file would be unreadable for ever.
    match store.stat(layout::HEAD)?.size {
        size if size == HEAD_BYTES as u64 => block::overwrite(store, layout::HEAD, &block),
        _ => make(store, anchor),
    }
}

/// Makes the file, with its block, durably.
pub(super) fn make(store: &Dir, anchor: Anchor) -> Result<()> {
    durable::write(store, layout::HEAD, &anchor.to_block(), layout::PUBLIC_FILE_MODE)
}
