//! Deliberate mistakes, for the tests to find: a suite that cannot fail proves nothing.
//!
//! Only a build with debug assertions has them, as the tests use it, and makes the one that `TOPE_MUTATION` names. In a
//! release they are constant and gone.

/// A mistake that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Directories are not synced.
    DirectorySync,
    /// Files are not synced.
    FileSync,
    /// There is no barrier before a version is published.
    Barrier,
    /// A role is removed and made anew instead of renamed over.
    Rename,
    /// Locks are not taken.
    Lock,
    /// Contents of source files are remembered and believed on read-only mounts.
    ReadOnlyCache,
    /// No mistake, but an older kernel: mounts have no identifier that is never given again.
    NoMountId,
    /// Damage that is found in an object does not end the trust in it.
    Revoke,
    /// A sweep of staging does not take the lock of what it removes.
    SweepLock,
    /// Pins do not protect a version.
    Protection,
    /// The history is not compared with what is known of it elsewhere.
    Anchor,
}

impl Mutation {
    /// Whether it is made.
    #[cfg(not(debug_assertions))]
    #[inline]
    pub const fn is_made(self) -> bool {
        false
    }

    /// Whether it is made.
    #[cfg(debug_assertions)]
    #[allow(clippy::disallowed_methods, reason = "tests choose it from outside")]
    pub fn is_made(self) -> bool {
        static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let name = match self {
            Self::DirectorySync => "directory-sync",
            Self::FileSync => "file-sync",
            Self::Barrier => "barrier",
            Self::Rename => "rename",
            Self::Lock => "lock",
            Self::ReadOnlyCache => "read-only-cache",
            Self::NoMountId => "no-mount-id",
            Self::Revoke => "revoke",
            Self::SweepLock => "sweep-lock",
            Self::Protection => "protection",
            Self::Anchor => "anchor",
        };
        CHOSEN.get_or_init(|| std::env::var("TOPE_MUTATION").unwrap_or_default()) == name
    }
}
