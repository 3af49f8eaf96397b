//! The index: what manifests and history say, in SQLite, so that questions are answered without reading them all.
//!
//! The index is derived. It decides nothing: a version is what its manifest says, and what happened is what the
//! history says. Missing, damaged, foreign or newer than this build, it is [rebuilt](rebuild()); behind, it is caught
//! up from event [`Reflected::seq`] on; where neither can be done, [`Index::in_memory`] is [filled](fill()) instead and
//! answers the same questions.
//!
//! Nothing is asked or told but in a transaction: [`Index::read`] gives a [`Reader`], one unchanging picture over any
//! number of questions; [`Index::write`] gives a [`Writer`], which is a reader too, and either commits everything or
//! nothing. Neither can cross to another thread (the compiler sees to it); what threads need to ask, they ask of
//! [`PublishedObjects`], a copy.
//!
//! **Invariant:** a tree that is here is here whole: all its entries, with it or in its base, and all trees below it. So
//! a known tree ends the descent of an import.
//!
//! **Invariant:** `objects` holds exactly the keys that published versions refer to, since only those are trusted
//! unread (I-1): [`Writer::remove_versions`] takes away those that went with the last version that used them.
//!
//! **Invariant:** whatever is read by the id of a tree has been compared with that id.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | [`Writer::add_trees`] committed, version not | trees that nothing refers to; [`Writer::prune`] removes them |
//! | publish, before the index commit | an index that is behind: the caller catches up |
//! | any moment of a commit | all of it or nothing (rollback journal, `synchronous=FULL`) |
//! | any moment of [`rebuild`](rebuild()) | the old index; the new one under its own name is written over |
//!
//! - [`open`](mod@open): settings, journal, modes, and why an index cannot be used
//! - [`rebuild`](mod@rebuild): a new index from manifests and history
//! - `bases`: what trees have in common
//! - [`versions`], [`trees`], [`objects`], [`events`], [`stat_cache`]: the tables
//! - [`find`]: paths and contents over all versions
//! - [`remove`]: taking versions out, and what only they used

mod bases;
pub mod events;
mod failure;
pub mod find;
mod migrate;
pub mod objects;
pub mod open;
pub mod rebuild;
pub mod remove;
pub mod stat_cache;
pub mod trees;
pub mod versions;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};

use crate::error::{Error, Result};
use crate::layout;
use crate::model::event::Chain;

pub use events::{EventFilter, HistoryLine, Order};
pub use failure::{contradiction, foreign_history, is_busy, is_damage, is_trouble};
pub use find::Found;
pub use objects::{Lookup, PublishedObjects};
pub use open::{Mode, Opened, Trouble, Unusable, open};
pub use rebuild::{fill, rebuild};
pub use remove::Removed;
pub use stat_cache::{CachedContent, StatKey};
pub use versions::{Counts, IndexedVersion, ManifestFile};

/// An open index. It may move to another thread, and be used by one at a time.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    busy_timeout: Duration,
}

impl Index {
    fn new(connection: Connection, busy_timeout: Duration) -> Self {
        Self { connection, busy_timeout }
    }

    /// Begins to read: everything asked of the reader is answered from one moment.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the engine fails.
    pub fn read(&mut self) -> Result<Reader<'_>> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Deferred);
        begun.map(|transaction| Reader { transaction }).map_err(failure::failed("begin to read"))
    }

    /// Begins to write. Dropping the writer without [`Writer::commit`] undoes everything.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process writes for longer than the timeout given at opening.
    pub fn write(&mut self) -> Result<Writer<'_>> {
        let busy_timeout = self.busy_timeout;
        match self.connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => Ok(Writer { reader: Reader { transaction }, busy_timeout }),
            Err(error) => Err(held_or("begin to write", busy_timeout)(error)),
        }
    }

    /// Closes the file.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the engine cannot; what was committed is kept all the same.
    pub fn close(self) -> Result<()> {
        self.connection.close().map_err(|(_, error)| failure::failed("be closed")(error))
    }
}

/// One unchanging picture of the index.
#[derive(Debug)]
pub struct Reader<'a> {
    transaction: Transaction<'a>,
}

/// A transaction that changes the index. Reads what it wrote.
#[derive(Debug)]
#[must_use]
pub struct Writer<'a> {
    reader: Reader<'a>,
    busy_timeout: Duration,
}

impl<'a> Deref for Writer<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

/// Up to where the index reflects the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reflected {
    /// Number of the last event taken in; 0 for none.
    pub seq: u64,
    /// Its chain value.
    pub chain: Chain,
}

const REFLECTED: &str = "SELECT last_event, chain FROM meta";
const SET_REFLECTED: &str = "UPDATE meta SET last_event = ?1, chain = ?2";
const COUNT: &str = "SELECT (SELECT count(*) FROM versions), (SELECT count(*) FROM trees),
    (SELECT count(*) FROM entries) + (SELECT count(*) FROM base_entries), (SELECT count(*) FROM objects),
    (SELECT count(*) FROM events), (SELECT coalesce(sum(length(files)), 0) FROM stat_cache)";

/// How many rows there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Published versions.
    pub versions: u64,
    /// Distinct directories.
    pub trees: u64,
    /// Entries of distinct directories, those once that several have in common.
    pub entries: u64,
    /// Objects that published versions use.
    pub objects: u64,
    /// Events.
    pub events: u64,
    /// Remembered source files.
    pub cached_files: u64,
}

impl Reader<'_> {
    fn reflected_row(connection: &Connection) -> rusqlite::Result<Reflected> {
        connection
            .prepare_cached(REFLECTED)?
            .query_row([], |row| Ok(Reflected { seq: unsigned(row, 0)?, chain: row.get(1)? }))
    }

    /// Lets the engine check every page; gives the first thing that is wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Index`]; one that [is damage](is_damage()) if not even that can be done.
    pub fn quick_check(&self) -> Result<Option<String>> {
        let first: rusqlite::Result<String> = self.transaction.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        first.map(|text| (text != "ok").then_some(text)).map_err(failure::failed("be checked"))
    }

    /// Up to where the index reflects the history.
    pub fn reflected(&self) -> Result<Reflected> {
        Self::reflected_row(&self.transaction).map_err(failure::failed("tell how far it is"))
    }

    /// How many rows there are of each kind. Reads the whole index.
    pub fn totals(&self) -> Result<Totals> {
        let counted = self.transaction.query_row(COUNT, [], |row| {
            Ok(Totals {
                versions: unsigned(row, 0)?,
                trees: unsigned(row, 1)?,
                entries: unsigned(row, 2)?,
                objects: unsigned(row, 3)?,
                events: unsigned(row, 4)?,
                cached_files: unsigned(row, 5)? / stat_cache::FILE_BYTES as u64,
            })
        });
        counted.map_err(failure::failed("be counted"))
    }
}

impl Writer<'_> {
    /// Makes everything that this writer did durable and visible.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process reads for longer than the timeout given at opening, [`Error::Io`] with
    /// "storage full" for a full disk, else [`Error::Index`]; then nothing was done.
    pub fn commit(self) -> Result<()> {
        self.reader.transaction.commit().map_err(held_or("be written", self.busy_timeout))
    }

    /// Records up to where the index reflects the history, where that is not what
    /// [`append_events`](Self::append_events) took in.
    pub fn set_reflected(&mut self, reflected: Reflected) -> Result<()> {
        let set = number(reflected.seq)
            .and_then(|seq| self.transaction.prepare_cached(SET_REFLECTED)?.execute((seq, reflected.chain)));
        set.map(drop).map_err(failure::failed("record how far it is"))
    }
}

/// Wraps an answer of the engine to who wants to write: another process that holds the index is named as a lock.
fn held_or(action: &'static str, busy_timeout: Duration) -> impl FnOnce(rusqlite::Error) -> Error {
    move |error| match failure::is_engine_busy(&error) {
        true => Error::Locked {
            lock: layout::INDEX,
            holder: "another process".into(),
            waited_ms: u64::try_from(busy_timeout.as_millis()).unwrap_or(u64::MAX),
        },
        false => failure::failed(action)(error),
    }
}

/// A count or size as the engine has it: signed.
fn number(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A count or size that was stored by [`number`].
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// One value, or none.
fn optional<T>(result: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    result.optional()
}
