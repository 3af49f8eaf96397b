//! A way to another version, for an operator who has to choose one.

use super::name::VersionName;

/// A version that `current` can be switched to by name, with the command that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The version.
    pub version: VersionName,
    /// How it stands with it, in a word of `list`: `good`, `bad`, `unconfirmed`, `damaged`, `unmanaged`.
    pub state: &'static str,
    /// When it became current the last time, by wall time in seconds; `None` if it never did as far as is known.
    pub last_current: Option<i64>,
    /// The whole command.
    pub command: String,
}
