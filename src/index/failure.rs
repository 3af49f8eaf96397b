//! What the database engine says, as this library's errors.

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::error::Error;
use crate::layout;

/// A row that says what this build cannot have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Wraps an answer of the engine with what was tried.
pub(super) fn failed(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| match source.sqlite_error_code() {
        // A full disk has its own exit code and hint, wherever it is met.
        Some(ErrorCode::DiskFull) => {
            Error::io("write to", layout::INDEX, std::io::Error::from(std::io::ErrorKind::StorageFull))
        }
        _ => Error::Index { action, source: Box::new(source) },
    }
}

/// A row, or something that was to become one, that makes no sense.
pub(super) fn malformed(action: &'static str, what: &'static str) -> Error {
    Error::Index { action, source: Box::new(Malformed(what)) }
}

/// Whether the failure says that the index is not what it must be, so that rebuilding it mends it: damaged pages,
/// rows that make no sense, a missing table, a conflict with what is to be mirrored, a block that cannot be read.
///
/// `false` for a full disk, for a lock that could not be had, and for errors of other rooms.
pub fn is_damage(error: &Error) -> bool {
    let Error::Index { source, .. } = error else { return false };
    source.is::<Malformed>() || source.downcast_ref::<rusqlite::Error>().is_some_and(is_engine_damage)
}

/// The index reflects a history that is not the store's: damage, since it has to be made anew.
pub fn foreign_history() -> Error {
    malformed("be caught up", "it reflects another history than the store's")
}

/// The index contradicts what it was made from: damage, since it has to be made anew.
pub fn contradiction() -> Error {
    malformed("be trusted", "it has another digest for a version than the history")
}

/// Whether the index failed, in whatever way, rather than what it was made from.
pub fn is_trouble(error: &Error) -> bool {
    match error {
        Error::Index { .. } => true,
        Error::Locked { lock, .. } => *lock == layout::INDEX,
        Error::Io { path, .. } => path.file_name().is_some_and(|name| name == layout::INDEX),
        _ => false,
    }
}

/// Whether the failure says that another process holds the index; trying again may help.
pub fn is_busy(error: &Error) -> bool {
    match error {
        Error::Locked { lock, .. } => *lock == layout::INDEX,
        Error::Index { source, .. } => source.downcast_ref::<rusqlite::Error>().is_some_and(is_engine_busy),
        _ => false,
    }
}

pub(super) fn is_engine_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn is_engine_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    let (code, extended) = match error {
        E::SqliteFailure(error, _) | E::SqlInputError { error, .. } => (error.code, error.extended_code),
        // A column holds a value of a type or range that was never written.
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => return true,
        _ => return false,
    };
    match code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => true,
        // All statements are constants that tests have run: one that makes no sense here means that the schema is
        // not ours.
        ErrorCode::Unknown => extended == ffi::SQLITE_ERROR,
        // Bad blocks of the medium. An error while writing is no damage of what is there.
        ErrorCode::SystemIoFailure => {
            matches!(
                extended,
                ffi::SQLITE_IOERR_READ
                    | ffi::SQLITE_IOERR_SHORT_READ
                    | ffi::SQLITE_IOERR_DATA
                    | ffi::SQLITE_IOERR_CORRUPTFS
            )
        }
        _ => false,
    }
}
