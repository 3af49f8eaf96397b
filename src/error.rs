//! What can go wrong, said once.
//!
//! Every failure of the library is one [`Error`]. It carries its data (which path, which version, which lock) and
//! never its presentation: the command turns [`Error::kind`] into an exit code and [`Error::hint`] into advice.
//! *Missing*, *damaged* and *the system refused* are different things and have different variants.
//!
//! Texts are lower-case fragments without a period. `Display` never repeats its source: print the chain.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::preflight::{Finding, reasons};
use crate::model::way::Way;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is tried on a path, where the failure alone says what to do.
pub(crate) const RENAME: &str = "rename to";
pub(crate) const EXCHANGE: &str = "exchange with";
pub(crate) const REAL_PATH: &str = "find the real path of";

/// A failure, with the data that tells what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call.
    #[error("cannot {verb} {}", Shown::path(path))]
    Io {
        /// What was tried, as an infinitive: "open", "link to".
        verb: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// Something of the store is there and is not what it must be.
    #[error("{what} {} is damaged: {detail}", Shown::path(path))]
    Corrupt {
        /// Which kind of thing: "manifest", "object", "history".
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// In what way it is wrong.
        detail: String,
    },
    /// Something of the store has a newer format; that is no damage, and nothing may rewrite it.
    #[error("this binary is too old for the {what} {}: {detail}", Shown::path(path))]
    Newer {
        /// Which kind of thing: "manifest".
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// Which number is not known.
        detail: String,
    },
    /// A version, role or path that does not exist.
    #[error("no such {what}: {}", Shown::text(name))]
    NotFound {
        /// "version", "role", "path".
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// A version that does not exist.
    #[error("no such version: {}", Shown::text(name))]
    NoSuchVersion {
        /// The name or digest as given.
        name: String,
        /// Names of versions that look like it, the likeliest first.
        near: Vec<String>,
    },
    /// A switch back finds neither `previous` nor `factory`, or only bad versions there.
    #[error("{}: {why}", if *bad { "there is nothing good to go back to" } else { "no such version to go back to" })]
    NoWayBack {
        /// Why neither will do.
        why: String,
        /// Whether one is there and is marked bad.
        bad: bool,
        /// Versions that can be gone back to by name, the likeliest first.
        ways: Vec<Way>,
    },
    /// The request is understood and refused.
    #[error("{message}")]
    Refused {
        /// Which rule refuses.
        why: Refusal,
        /// The whole sentence.
        message: String,
        /// What would make it acceptable.
        hint: Option<String>,
    },
    /// The thing to import cannot be imported as it is.
    #[error("{}: {problem}", Shown::bytes(path))]
    Source {
        /// The path within the source (bytes: it need not be UTF-8).
        path: Vec<u8>,
        /// What is wrong with it.
        problem: String,
    },
    /// Too little space or too few inodes; nothing was moved.
    #[error(
        "not enough room in {}: needs {needed_bytes} bytes and {needed_inodes} inodes, has {free_bytes} bytes and {free_inodes} inodes above the minimum of {minimum_bytes} bytes to keep free",
        Shown::path(path)
    )]
    NoSpace {
        /// The store's root.
        path: PathBuf,
        /// What the work would take.
        needed_bytes: u64,
        /// What is free above the minimum.
        free_bytes: u64,
        /// The minimum that is kept free.
        minimum_bytes: u64,
        /// Inodes that the work would take.
        needed_inodes: u64,
        /// Inodes that are free.
        free_inodes: u64,
    },
    /// A lock that somebody else holds was not released in time.
    #[error("{lock} is held by {holder} (waited {waited_ms} ms)")]
    Locked {
        /// Which lock file.
        lock: &'static str,
        /// "pid 812 (tope-store gc) since 2026-01-01T00:00:00Z", or "another process".
        holder: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// There is no store below this root.
    #[error("no store in {}", Shown::path(root))]
    NoStore {
        /// The root that was looked at.
        root: PathBuf,
    },
    /// The store uses a format that this build does not know.
    #[error("the store in {} has a format that this build does not support: {detail}", Shown::path(root))]
    UnsupportedFormat {
        /// The root.
        root: PathBuf,
        /// Which features are unknown.
        detail: String,
    },
    /// The call makes no sense as it stands.
    #[error("{0}")]
    Usage(String),
    /// The index could not answer; the store itself may be fine.
    #[error("the index cannot {action}")]
    Index {
        /// What was tried.
        action: &'static str,
        /// What the database engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What runs the services could not be asked, or would not do it.
    #[error("{manager}: {problem}")]
    Services {
        /// Which manager: "systemd", "commands".
        manager: &'static str,
        /// What it said.
        problem: String,
    },
    /// Services could not run after the switch, so it was not made.
    #[error("{version} is not switched to, since its services could not run: {}", reasons(findings))]
    Preflight {
        /// The version that was asked for.
        version: String,
        /// What keeps them from running, and what the operator should know besides.
        findings: Vec<Finding>,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// The user asked to stop, and something had happened by then, as this says.
    #[error("interrupted: {0}")]
    BrokenOff(String),
}

/// The rule by which a request is refused. The kebab-case name is part of the JSON contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A version of that name exists with another content.
    Exists,
    /// The version is in use: a role, a pin, a trial, a running process.
    Protected,
    /// The version is marked bad.
    Bad,
    /// A file that is not ours lies where ours should go.
    ForeignFile,
    /// The archive is hostile or malformed in a way that no honest tool writes.
    UnsafeArchive,
    /// The source holds something that cannot be part of a version.
    UnsupportedSource,
    /// The name is not allowed.
    Name,
    /// The caller may not do this here (other owner, file system not supported).
    NotAllowed,
    /// A manifest or the history cannot be trusted, so nothing may be removed.
    Doubt,
    /// The version fails its checks.
    Unhealthy,
    /// Somebody else changed what this command was about.
    Superseded,
}

impl Refusal {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Protected => "protected",
            Self::Bad => "bad",
            Self::ForeignFile => "foreign-file",
            Self::UnsafeArchive => "unsafe-archive",
            Self::UnsupportedSource => "unsupported-source",
            Self::Name => "name",
            Self::NotAllowed => "not-allowed",
            Self::Doubt => "doubt",
            Self::Unhealthy => "unhealthy",
            Self::Superseded => "superseded",
        }
    }
}

/// The class of a failure: what a script can act on. Exit codes are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything without a class of its own.
    Failed,
    /// The arguments are wrong.
    Usage,
    /// No such version, role or path.
    NotFound,
    /// Understood and refused.
    Refused,
    /// Damage was found.
    Corrupt,
    /// Not enough bytes or inodes.
    NoSpace,
    /// A lock could not be had.
    Locked,
    /// No store, or one of an unknown format.
    NoStore,
    /// A part of the store has a format that is newer than this build.
    Newer,
    /// Stopped by the user.
    Interrupted,
}

impl Error {
    /// Wraps what the system answered, with the verb and the path.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { verb, path: path.into(), source: source.into() }
    }

    /// Damage of a named thing.
    pub fn corrupt(what: &'static str, path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Corrupt { what, path: path.into(), detail: detail.into() }
    }

    /// A refusal without advice.
    pub fn refused(why: Refusal, message: impl Into<String>) -> Self {
        Self::Refused { why, message: message.into(), hint: None }
    }

    /// A refusal that says what to do instead.
    pub fn refused_with(why: Refusal, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { why, message: message.into(), hint: Some(hint.into()) }
    }

    /// Something in the source that stops an import.
    pub fn source(path: impl AsRef<[u8]>, problem: impl Into<String>) -> Self {
        Self::Source { path: path.as_ref().to_vec(), problem: problem.into() }
    }

    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if is_no_space(source) => ErrorKind::NoSpace,
            Self::Io { .. } | Self::Source { .. } | Self::Index { .. } | Self::Services { .. } => ErrorKind::Failed,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } => ErrorKind::Newer,
            Self::NotFound { .. } | Self::NoSuchVersion { .. } | Self::NoWayBack { bad: false, .. } => {
                ErrorKind::NotFound
            }
            Self::Refused { .. } | Self::Preflight { .. } | Self::NoWayBack { bad: true, .. } => ErrorKind::Refused,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::NoStore { .. } | Self::UnsupportedFormat { .. } => ErrorKind::NoStore,
            Self::Usage(_) => ErrorKind::Usage,
            Self::Interrupted | Self::BrokenOff(_) => ErrorKind::Interrupted,
        }
    }

    /// What the reader can do about it, where the library knows.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Preflight { version, .. } => {
                Some(format!("nothing was changed; to switch without services: tope-store activate {version}"))
            }
            Self::NoSuchVersion { near, .. } if !near.is_empty() => {
                Some(format!("did you mean {}?", near.join(" or ")))
            }
            Self::NoSuchVersion { .. } | Self::NotFound { what: "version", .. } => {
                Some("see what there is with: tope-store list".into())
            }
            Self::NoWayBack { ways, .. } if ways.is_empty() => {
                Some("there is no other version here: import one with: tope-store import".into())
            }
            Self::NoWayBack { bad: true, .. } => {
                Some("to go back to a bad version all the same: --force, or name one of these:".into())
            }
            Self::NoWayBack { .. } => Some("name one of these:".into()),
            Self::NoStore { .. } => Some("create one with: tope-store init, or name another root with --root".into()),
            Self::NoSpace { needed_bytes, free_bytes, .. } => Some(format!(
                "free the difference with: tope-store gc --free {} --dry-run",
                needed_bytes.saturating_sub(*free_bytes).max(1)
            )),
            Self::Io { path, source, .. } if is_no_space(source) && path.as_os_str() != "standard output" => {
                Some("see what would come back with: tope-store gc --keep-last 2 --dry-run".into())
            }
            Self::Io { verb: REAL_PATH, source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "mount /proc, which tells where things are and what processes use: mount -t proc proc /proc".into(),
            ),
            Self::Io { verb: RENAME | EXCHANGE, source, .. } if source.kind() == io::ErrorKind::CrossesDevices => Some(
                "an overlay file system cannot move a directory of a lower layer: put a copy in its place first \
                 (cp -a DIR DIR.copy; rm -r DIR; mv DIR.copy DIR)"
                    .into(),
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some("make the file system writable first, for instance with: mount -o remount,rw".into())
            }
            Self::Locked { .. } => Some("wait for it, or give more time with --lock-timeout SECONDS".into()),
            Self::Corrupt { what: "history" | "format file", .. } => {
                Some("begin it anew, with what can still be read: tope-store doctor --fix".into())
            }
            Self::Corrupt { what: "manifest" | "object", .. } => {
                Some("look for good bytes with: tope-store verify --repair".into())
            }
            Self::UnsupportedFormat { .. } | Self::Newer { .. } => {
                Some("use the tope-store that wrote it, or a newer one".into())
            }
            _ => None,
        }
    }

    /// Versions that the reader can switch to instead, where that is what is missing.
    pub fn ways(&self) -> &[Way] {
        match self {
            Self::NoWayBack { ways, .. } => ways,
            _ => &[],
        }
    }

    /// Whether something of the store is there and this build cannot read it: it is damaged or newer.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Newer { .. })
    }

    /// The stable name of this failure, as it stands in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused { why, .. } => why.name(),
            Self::NoWayBack { bad: true, .. } => Refusal::Bad.name(),
            Self::Source { .. } => "source",
            Self::Index { .. } => "index",
            Self::Services { .. } => "services",
            Self::Preflight { .. } => "preflight",
            _ => match self.kind() {
                ErrorKind::Failed => "io",
                ErrorKind::Usage => "usage",
                ErrorKind::NotFound => "not-found",
                ErrorKind::Refused => "refused",
                ErrorKind::Corrupt => "corrupt",
                ErrorKind::NoSpace => "no-space",
                ErrorKind::Locked => "locked",
                ErrorKind::NoStore => "no-store",
                ErrorKind::Newer => "newer",
                ErrorKind::Interrupted => "interrupted",
            },
        }
    }

    /// Whether the system's answer was this one.
    pub fn is_io(&self, kind: io::ErrorKind) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == kind)
    }

    /// The system's error number, if the system refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Bytes that come from outside, made safe to print: control characters and bytes that are not UTF-8 become escapes,
/// so that a hostile name can neither forge a line of output nor drive the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

impl<'a> Shown<'a> {
    /// A path of the file system.
    pub fn path(path: &'a Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self(path.as_os_str().as_bytes())
    }

    /// A name in bytes.
    pub fn bytes(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(bytes.as_ref())
    }

    /// Text that somebody typed.
    pub fn text(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("''");
        }
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\r' => f.write_str("\\r")?,
                    '\\' => f.write_str("\\\\")?,
                    // Bidirectional overrides can make a name read as another one.
                    c if c.is_control()
                        || ('\u{202a}'..='\u{202e}').contains(&c)
                        || ('\u{2066}'..='\u{2069}').contains(&c) =>
                    {
                        write!(f, "\\u{{{:x}}}", u32::from(c))?;
                    }
                    c => fmt::Write::write_char(f, c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_forge_output() {
        assert_eq!(Shown::bytes(b"a\nb\x1b[2J\xff\\").to_string(), "a\\nb\\u{1b}[2J\\xff\\\\");
        assert_eq!(Shown::text("").to_string(), "''");
        assert_eq!(Shown::text("gr\u{fc}n").to_string(), "gr\u{fc}n");
    }

    #[test]
    fn a_full_disk_has_its_own_kind_wherever_it_is_met() {
        let error = Error::io("write", "/x", io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.hint().is_some());
    }
}
