//! Progress and interruption, seen from outside.
//!
//! The library prints nothing and knows no terminal. It tells an [`Observer`] what it does; the command draws a bar,
//! a test counts the work, a program of its own does as it likes. The same interface carries the one thing that
//! travels inwards: whether the user asked to stop.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A stage of long work, in the order in which an import passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Looking at what is there.
    Scan,
    /// Reading, hashing, storing and linking.
    Import,
    /// Making a tree of links.
    Materialise,
    /// Waiting for the medium.
    Sync,
    /// Comparing with what was recorded.
    Verify,
    /// Removing.
    Remove,
    /// Making the index anew.
    Index,
}

/// Counters of work done, each in the unit of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// Entries of a source that were dealt with.
    Files,
    /// Bytes of file contents that were read.
    ReadBytes,
    /// Bytes that were written into new objects.
    WrittenBytes,
    /// Hardlinks that were made.
    Links,
}

/// Receives what the library does. Called from many threads; must be quick.
pub trait Observer: Sync {
    /// A stage begins. `total` is the number of entries it will deal with, where that is known.
    fn stage(&self, _stage: Stage, _total: Option<u64>) {}

    /// Some work was done.
    fn work(&self, _work: Work, _amount: u64) {}

    /// Something the user should know and that stops nothing.
    fn warn(&self, _message: &str) {}

    /// Whether the user asked to stop. Asked between files.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Fails with [`Error::Interrupted`] if the user asked to stop.
pub fn check(observer: &dyn Observer) -> Result<()> {
    if observer.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Counts work; for tests that assert how much was done, and for benchmarks.
#[derive(Debug, Default)]
pub struct Counts {
    files: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    links: AtomicU64,
}

impl Counts {
    /// How much of this work was done so far.
    pub fn of(&self, work: Work) -> u64 {
        self.counter(work).load(Ordering::Relaxed)
    }

    fn counter(&self, work: Work) -> &AtomicU64 {
        match work {
            Work::Files => &self.files,
            Work::ReadBytes => &self.read_bytes,
            Work::WrittenBytes => &self.written_bytes,
            Work::Links => &self.links,
        }
    }
}

impl Observer for Counts {
    fn work(&self, work: Work, amount: u64) {
        self.counter(work).fetch_add(amount, Ordering::Relaxed);
    }
}
