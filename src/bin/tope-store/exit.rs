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
    /// A health check failed, and it was gone back to a version that holds.
    RolledBack = 7,
    /// No version holds: manual intervention is needed.
    Degraded = 8,
    /// No store here, or one of a format that is not supported.
    NoStore = 9,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl Exit {
    /// The code of another run of this program; an unknown one is a failure.
    pub fn from_code(code: i32) -> Self {
        let all = [
            Self::Done,
            Self::Failed,
            Self::Usage,
            Self::NotFound,
            Self::Refused,
            Self::Corrupt,
            Self::Locked,
            Self::RolledBack,
            Self::Degraded,
            Self::NoStore,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Self::Failed)
    }

    /// The code for an error.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::NoStore | ErrorKind::Newer => Self::NoStore,
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}
