//! Opening: every setting, and a plain answer when the file cannot be used.
//!
//! Nothing that lies at the index's place is an error: it is [`Unusable`], with a reason. A reader then answers from
//! memory ([`Index::in_memory`]), a writer rebuilds.
//!
//! The database has a rollback journal, with these consequences (all tried):
//! - no part of it is mapped into memory, so a full disk gives an error. The shared memory of a write-ahead log is a
//!   mapped file with holes, and the kernel kills who writes to a hole that gets no block;
//! - a reader needs no second file and no permission to write;
//! - a reader waits only for the commit itself. Until then a writer keeps its pages in memory ([`SPILL_KIB`]);
//! - a writer waits for readers before it commits, so nothing slow happens while an index is being read;
//! - the journal of a writer that died is rolled back by the next one to open the index, if it may write: else
//!   [`Trouble::Denied`].
//!
//! POSIX locks vanish when *any* descriptor of the file is closed in this process: while an [`Index`] is open, the file
//! is never opened by other means.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Index;
use super::failure::{failed, is_engine_busy, is_engine_damage};
use super::migrate::{APPLICATION_ID, MIGRATIONS, application_id, migrate, newest, user_version};
use crate::error::Result;
use crate::fsys::file::Handle;
use crate::fsys::{Dir, Kind};

/// Page cache in KiB: holds the upper pages of an index of a million entries, and is a thirtieth of the memory of a
/// small device.
const CACHE_KIB: i32 = 16 * 1024;
/// A writer that changes more holds readers up from then on, since it has to write before it commits. As much as an
/// import of half a million files changes.
const SPILL_KIB: i32 = 64 * 1024;
/// Longest value: a checkpoint of the history, a set of attributes. Stops a damaged length from taking all memory.
const MAX_VALUE_BYTES: i32 = 64 << 20;
/// Bytes of the smallest page that the file format knows.
const SMALLEST_PAGE: u64 = 512;
/// Statements that are kept prepared; more than there are.
const STATEMENTS: usize = 64;

/// What an index is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Reading and writing; an older schema is brought up to date.
    ReadWrite,
    /// Reading, wherever the file can be read: on a read-only mount, and as a user who may not write.
    ReadOnly,
}

/// What came of opening.
#[derive(Debug)]
#[must_use]
pub enum Opened {
    /// It can be asked.
    Usable(Index),
    /// It cannot.
    Unusable(Unusable),
}

/// Why an index cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unusable {
    /// The kind of trouble.
    pub trouble: Trouble,
    /// What was found, as a fragment.
    pub detail: String,
}

impl Unusable {
    fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self { trouble, detail: detail.into() }
    }

    fn of(error: &rusqlite::Error) -> Self {
        let trouble = if is_engine_busy(error) {
            Trouble::Busy
        } else if is_engine_damage(error) {
            Trouble::Damaged
        } else {
            match error.sqlite_error_code() {
                Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Trouble::Denied,
                _ => Trouble::Failed,
            }
        };
        Self::new(trouble, error.to_string())
    }
}

/// The kinds of trouble with an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// There is no such file.
    Missing,
    /// It is not, or no longer, a sound index.
    Damaged,
    /// It is a database of some other program.
    Foreign,
    /// A newer build wrote it.
    Newer,
    /// An older build wrote it, and it was to be read only.
    Older,
    /// Another process held it for longer than the timeout.
    Busy,
    /// It may not be opened so, or what lies there is no file.
    Denied,
    /// The system failed otherwise.
    Failed,
}

impl Trouble {
    /// Whether a rebuild puts it right.
    pub fn needs_rebuild(self) -> bool {
        matches!(self, Self::Missing | Self::Damaged | Self::Foreign | Self::Newer | Self::Older)
    }
}

/// The files that lie beside an index of this name: its journal, and what another program may have left.
pub fn companions(name: &str) -> [String; 3] {
    [journal_of(name), format!("{name}-wal"), format!("{name}-shm")]
}

fn journal_of(name: &str) -> String {
    format!("{name}-journal")
}

/// Opens the index `name` in `dir`. Waits `busy_timeout` for other processes, here and later.
pub fn open(dir: &Dir, name: &str, mode: Mode, busy_timeout: Duration) -> Opened {
    // The engine opens and makes the journal by its path at each transaction, and as root gives it to the owner of the
    // index: in a directory of another user it could be any file. What is asked is answered from memory there.
    if dir.identity().is_some() {
        return Opened::Unusable(Unusable::new(Trouble::Denied, "it is another user's, who can replace its journal"));
    }
    match try_open(dir, name, mode, busy_timeout, MIGRATIONS) {
        Ok(connection) => Opened::Usable(Index::new(connection, busy_timeout)),
        Err(unusable) => Opened::Unusable(unusable),
    }
}

impl Index {
    /// An empty index that lives in memory only; [`fill`](super::fill()) it.
    ///
    /// # Errors
    ///
    /// Only if memory runs out.
    pub fn in_memory() -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_in_memory_with_flags(flags).and_then(|mut connection| {
            configure(&connection, Duration::ZERO)?;
            migrate(&mut connection, MIGRATIONS)?;
            Ok(connection)
        });
        opened.map(|connection| Self::new(connection, Duration::ZERO)).map_err(failed("be made in memory"))
    }
}

pub(super) fn try_open(
    dir: &Dir,
    name: &str,
    mode: Mode,
    busy_timeout: Duration,
    migrations: &[&str],
) -> Result<Connection, Unusable> {
    let looked = dir.try_stat(name).map_err(|error| Unusable::new(Trouble::Failed, error.to_string()))?;
    let stat = looked.ok_or_else(|| Unusable::new(Trouble::Missing, "there is none"))?;
    if stat.kind != Kind::File {
        return Err(Unusable::new(Trouble::Denied, format!("it is {}", stat.kind.describe())));
    }
    // The engine takes what is shorter than any page for a new database.
    if stat.size < SMALLEST_PAGE {
        return Err(Unusable::new(Trouble::Damaged, "it is cut short"));
    }
    let journal = dir.try_stat(journal_of(name)).map_err(|error| Unusable::new(Trouble::Failed, error.to_string()))?;
    if let Some(journal) = journal {
        if journal.kind != Kind::File {
            return Err(Unusable::new(Trouble::Damaged, format!("its journal is {}", journal.kind.describe())));
        }
        // Run as root, the engine gives the journal to the owner of the index.
        if journal.links > 1 {
            return Err(Unusable::new(Trouble::Damaged, "its journal has another name as well"));
        }
    }
    let access = match mode {
        Mode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let opened = Connection::open_with_flags(uri(&dir.path_of(name)), flags);
    let mut connection = opened.map_err(|error| Unusable::of(&error))?;
    examine(&mut connection, mode, busy_timeout, migrations)?;
    Ok(connection)
}

/// Settings and checks; the first look at the file happens here.
fn examine(
    connection: &mut Connection,
    mode: Mode,
    busy_timeout: Duration,
    migrations: &[&str],
) -> Result<(), Unusable> {
    let engine = |error: rusqlite::Error| Unusable::of(&error);
    // First: other settings read the file.
    connection.busy_timeout(busy_timeout).map_err(engine)?;
    refuse_write_ahead_log(connection)?;
    configure(connection, busy_timeout).map_err(engine)?;
    if application_id(connection).map_err(engine)? != APPLICATION_ID {
        return Err(Unusable::new(Trouble::Foreign, "it is a database of another program"));
    }
    // The engine falls back to reading only, without a word, where it may not write.
    if mode == Mode::ReadWrite && connection.is_readonly("main").map_err(engine)? {
        return Err(Unusable::new(Trouble::Denied, "it may not be written"));
    }
    let (found, known) = (user_version(connection).map_err(engine)?, newest(migrations));
    if found <= 0 {
        return Err(Unusable::new(Trouble::Damaged, "it has no schema"));
    }
    if found > known {
        return Err(Unusable::new(Trouble::Newer, format!("its schema is number {found}, this build knows {known}")));
    }
    if found < known {
        if mode != Mode::ReadWrite {
            return Err(Unusable::new(Trouble::Older, format!("its schema is number {found}, this build has {known}")));
        }
        migrate(connection, migrations).map_err(engine)?;
    }
    if mode == Mode::ReadWrite {
        set_journal(connection).map_err(engine)?;
    }
    super::Reader::reflected_row(connection).map_err(engine)?;
    Ok(())
}

/// Every setting that differs from the engine's own, on every connection.
pub(super) fn configure(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        // Else a statement may be compiled anew for each value that is bound to it: a third of what reading trees takes.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(option, on)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    // Not every one of these answers with a value, and none of them is to be left to how the engine was built.
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Sorting needs no directory for temporary files, which a rescue system may not have.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // A bad block under a memory map is SIGBUS. (It answers with a row.)
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).or_else(no_row)
}

/// A database in memory has no map, so asking for its size gives no row.
fn no_row(error: rusqlite::Error) -> rusqlite::Result<()> {
    if matches!(error, rusqlite::Error::QueryReturnedNoRows) { Ok(()) } else { Err(error) }
}

/// Refuses a database that another program put into write-ahead mode, before its shared memory is mapped: in exclusive
/// mode the engine keeps that in its own memory. A database with a rollback journal is locked for reading only.
fn refuse_write_ahead_log(connection: &Connection) -> Result<(), Unusable> {
    let engine = |error: rusqlite::Error| Unusable::of(&error);
    locking(connection, "EXCLUSIVE").map_err(engine)?;
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(engine)?;
    if journal == "wal" {
        return Err(Unusable::new(Trouble::Damaged, "another program gave it a write-ahead log"));
    }
    locking(connection, "NORMAL").map_err(engine)
}

fn locking(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "locking_mode", mode, |_| Ok(()))
}

/// The journal of a connection that may write: an empty file between commits, so that readers need only look at its
/// length, and nothing of a big change stays on the medium.
fn set_journal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
    connection.pragma_update(None, "cache_spill", -SPILL_KIB)
}

/// The path as the engine's URI: any byte may be in it, and no path is taken for a URI by its looks.
pub(super) fn uri(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut uri = String::from(if bytes.starts_with(b"/") { "file://" } else { "file:" });
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
