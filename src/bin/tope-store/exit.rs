//! Exit codes: a contract with scripts. Append-only; scripts treat an unknown one as failure.

use tope_store::error::{Error, ErrorKind};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; also "different" for `diff --exit-code`.
    Failed = 1,
    /// Wrong usage; also "trouble" for `diff --exit-code`.
    Usage = 2,
    /// No such version, role or path.
    NotFound = 3,
    /// Refused: protected, exists, bad, superseded, foreign file.
    Refused = 4,
    /// Corruption was found.
    Corrupt = 5,
    /// A lock could not be had in time.
    Locked = 6,
    /// No store here, or one of a format that is not supported.
    NoStore = 9,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl Exit {
    /// The code for an error.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::NoStore => Self::NoStore,
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}
