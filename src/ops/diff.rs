//! In what two versions differ, or a version and a directory, or two directories.
//!
//! Of a version it is compared what was recorded, by the index and without looking at its tree: equal directories are
//! skipped by one comparison, so the answer costs what differs. A directory is read and hashed first.
//!
//! A path into a version's own tree (`versions/current/lib`) means what is recorded of that version from there down:
//! on disk its files have lost their write bits, and what may have become of them since is for `verify` to say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::import::digest::{self, Digested};
use crate::error::{Error, ErrorKind, Result};
use crate::fsys::Dir;
use crate::index::Reader;
use crate::model::diff::{self, Diff, TreeSource};
use crate::model::{Digest, Selector, TreeId, TreePath, VersionName};
use crate::observe::Observer;
use crate::store::Store;

pub use crate::model::diff::Options;

/// One side of a comparison.
#[derive(Debug)]
pub enum Side {
    /// What is recorded of a version.
    Recorded {
        /// The version.
        version: VersionName,
        /// Its digest.
        digest: Digest,
        /// What of it is compared; all of it at the top.
        within: TreePath,
    },
    /// A directory as it is.
    Directory {
        /// Where it lies, as given.
        path: PathBuf,
        /// What is in it that no version could have, with the reason; it is not compared.
        skipped: Vec<(TreePath, &'static str)>,
    },
}

/// Two sides and their differences.
pub struct Comparison<'a> {
    /// The differences.
    pub diff: Diff,
    pub(super) store: &'a Store,
    pub(super) before: Opened,
    pub(super) after: Opened,
}

/// A side with what is needed to read its files.
pub(super) struct Opened {
    pub(super) side: Side,
    pub(super) directory: Option<Dir>,
}

impl Comparison<'_> {
    /// The first side.
    pub fn before(&self) -> &Side {
        &self.before.side
    }

    /// The second side.
    pub fn after(&self) -> &Side {
        &self.after.side
    }
}

/// A side before it is looked up.
enum Named {
    Recorded { version: VersionName, within: TreePath },
    Directory { path: PathBuf, dir: Dir, digested: Digested },
}

/// Compares two sides, each given as a user writes it.
///
/// What contains a slash, `.` and `..` are directories. Everything else is a version, a role or the beginning of a
/// digest if there is such a one, otherwise a directory. A directory in `versions/` that was made by hand is one.
///
/// # Errors
///
/// - [`Error::NoSuchVersion`], [`Error::NotFound`] for a side that is neither, or a path that neither side has;
/// - what hashing a directory meets.
pub fn diff<'a>(
    store: &'a Store,
    before: &OsStr,
    after: &OsStr,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Comparison<'a>> {
    let (before, after) = (named(store, before, observer)?, named(store, after, observer)?);
    let compared = store.ask(|reader| {
        let Some(roots) = recorded_root(reader, &before)?.zip(recorded_root(reader, &after)?) else { return Ok(None) };
        let source = |side| match side {
            &Named::Recorded { .. } => reader as &dyn TreeSource,
            Named::Directory { digested, .. } => &digested.trees,
        };
        let diff = diff::compare((source(&before), roots.0.1), (source(&after), roots.1.1), options)?;
        Ok(Some((roots.0.0, roots.1.0, diff)))
    })?;
    let Some((before_digest, after_digest, diff)) = compared else {
        return Err(unrecorded(store, [&before, &after]));
    };
    Ok(Comparison { diff, store, before: before.open(before_digest), after: after.open(after_digest) })
}

fn named(store: &Store, text: &OsStr, observer: &dyn Observer) -> Result<Named> {
    let bytes = text.as_bytes();
    let is_path = bytes.contains(&b'/') || matches!(bytes, b"." | b"..");
    let selector = text.to_str().filter(|_| !is_path).map(str::parse::<Selector>);
    let version = match selector {
        None => None,
        Some(Err(error)) => Some(Err(Error::Usage(error.to_string()))),
        Some(Ok(selector)) => Some(store.resolve(&selector)),
    };
    let opened = match version {
        Some(Ok(version)) if store.manifests()?.stat(&version)?.is_some() => {
            return Ok(Named::Recorded { version, within: TreePath::top() });
        }
        Some(Ok(unmanaged)) => store.versions().open_dir(&unmanaged),
        // A directory of that name will do; without one, what was wrong with it as a version is the better answer.
        Some(Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Usage) => {
            Ok(Dir::open(text).map_err(|_| error)?)
        }
        Some(Err(error)) => return Err(error),
        None => Dir::open(text),
    };
    let dir = opened.map_err(|error| match error {
        Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::NotFound { what: "directory", name: path.display().to_string() }
        }
        other => other,
    })?;
    if let Some((version, within)) = inside_versions(store, &dir)? {
        return Ok(Named::Recorded { version, within });
    }
    let digested = digest::directory(store, &dir, observer)?;
    Ok(Named::Directory { path: dir.path().to_owned(), dir, digested })
}

/// The managed version in whose tree a directory lies, and where in there.
fn inside_versions(store: &Store, dir: &Dir) -> Result<Option<(VersionName, TreePath)>> {
    // Without /proc it is a directory like any other.
    let (Ok(versions), Ok(place)) = (store.versions().real_path(), dir.real_path()) else { return Ok(None) };
    let Ok(below) = place.strip_prefix(&versions) else { return Ok(None) };
    let mut components = below.components();
    let first = components.next().and_then(|name| name.as_os_str().to_str());
    let name = first.and_then(|name| name.parse::<VersionName>().ok().filter(|parsed| parsed.as_str() == name));
    let Some(name) = name else { return Ok(None) };
    let within = TreePath::parse(components.as_path().as_os_str().as_bytes()).ok();
    let managed = store.manifests()?.stat(&name)?.is_some();
    Ok(within.filter(|_| managed).map(|within| (name, within)))
}

/// The digest of a version and the tree that is compared; `None` if the index does not have it.
fn recorded_root(reader: &Reader<'_>, side: &Named) -> Result<Option<(Option<Digest>, TreeId)>> {
    match side {
        Named::Directory { digested, .. } => Ok(Some((None, digested.root))),
        Named::Recorded { version, within } => {
            let Some(indexed) = reader.version(version)? else { return Ok(None) };
            match reader.tree_at(&indexed.digest.0, within)? {
                Some(tree) => Ok(Some((Some(indexed.digest), tree))),
                None => Err(Error::NotFound { what: "directory", name: format!("{within} in {version}") }),
            }
        }
    }
}

/// Why a version that has a manifest is not in the index.
fn unrecorded(store: &Store, sides: [&Named; 2]) -> Error {
    for side in sides {
        if let Named::Recorded { version, .. } = side
            && let Err(error) = store.manifests().and_then(|manifests| manifests.read(version))
        {
            return error;
        }
    }
    Error::corrupt("index", store.dir().path_of(crate::layout::INDEX), "it lacks a published version")
}

impl Named {
    fn open(self, digest: Option<Digest>) -> Opened {
        match self {
            Self::Recorded { version, within } => {
                let digest = digest.expect("what is recorded was looked up with its digest");
                Opened { side: Side::Recorded { version, digest, within }, directory: None }
            }
            Self::Directory { path, dir, digested } => {
                let side = Side::Directory { path, skipped: digested.skipped };
                Opened { side, directory: Some(dir) }
            }
        }
    }
}

impl Side {
    /// The directory, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory { path, .. } => Some(path),
            Self::Recorded { .. } => None,
        }
    }
}
