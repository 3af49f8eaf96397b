//! Listing a source tree without looking at inodes.
//!
//! walkdir goes by path, and no path may be longer than `PATH_MAX`. So the walk is cut where paths grow long and goes
//! on from a handle to the directory it was cut at, named by `/proc/self/fd/N`: any depth can be walked.

use std::os::unix::ffi::OsStrExt;

use walkdir::WalkDir;

use crate::error::{Error, Result};
use crate::fsys::Dir;
use crate::model::{EntryName, TreePath};
use crate::observe::{self, Observer};

/// A directory and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path in the source.
    pub path: TreePath,
    /// Position of the directory it is in; the top's is its own.
    pub parent: usize,
    /// Positions of the directories in it, in order of names.
    pub children: Vec<usize>,
    /// Names of everything else in it, in order.
    pub files: Vec<EntryName>,
}

/// Where a walk is cut: with a name of 255 bytes and the prefix behind it a path is still shorter than `PATH_MAX`.
const CUT_BYTES: usize = 3 * 1024;

/// Lists everything below `top`: the top first, parents before children.
///
/// # Errors
///
/// [`Error::Source`] with the path of what cannot be listed.
pub fn discover(top: &Dir, observer: &dyn Observer) -> Result<Vec<Found>> {
    let mut found = vec![Found { path: TreePath::top(), parent: 0, children: Vec::new(), files: Vec::new() }];
    let mut cuts = vec![0];
    while let Some(at) = cuts.pop() {
        let start = top.open_below(&found[at].path).map_err(|error| super::in_source(&found[at].path, &error))?;
        walk_from(&start, at, &mut found, &mut cuts, observer)?;
    }
    Ok(found)
}

/// Walks from the directory at position `from`; directories at which it was cut are added to `cuts`.
fn walk_from(
    start: &Dir,
    from: usize,
    found: &mut Vec<Found>,
    cuts: &mut Vec<usize>,
    observer: &dyn Observer,
) -> Result<()> {
    // Positions of the directories from `from` down to the one being listed.
    let mut line = vec![from];
    let prefix = start.proc_path();
    // Names of one directory, told apart by whole paths: taking the last component off costs more than the rest.
    let mut walk = WalkDir::new(&prefix)
        .min_depth(1)
        .follow_root_links(true)
        .sort_by(|a, b| a.path().as_os_str().cmp(b.path().as_os_str()))
        .into_iter();
    while let Some(item) = walk.next() {
        observe::check(observer)?;
        let item = item.map_err(|error| unlistable(&error, &prefix, &found[from].path))?;
        line.truncate(item.depth());
        let parent = line[item.depth() - 1];
        let name = EntryName::new(item.file_name().as_bytes())
            .map_err(|error| Error::source(item.file_name().as_bytes(), error.to_string()))?;
        if !item.file_type().is_dir() {
            found[parent].files.push(name);
            continue;
        }
        let at = found.len();
        let path = found[parent].path.join(&name);
        found.push(Found { path, parent, children: Vec::new(), files: Vec::new() });
        found[parent].children.push(at);
        line.push(at);
        if item.path().as_os_str().len() > CUT_BYTES {
            cuts.push(at);
            walk.skip_current_dir();
        }
    }
    Ok(())
}

fn unlistable(error: &walkdir::Error, prefix: &std::path::Path, from: &TreePath) -> Error {
    let below = error.path().and_then(|path| path.strip_prefix(prefix).ok()).unwrap_or(std::path::Path::new(""));
    let mut path = from.as_bytes().to_vec();
    if !path.is_empty() && !below.as_os_str().is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(below.as_os_str().as_bytes());
    match error.io_error() {
        Some(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Error::source(path, "vanished while it was being imported")
        }
        Some(error) => Error::source(path, format!("cannot list it: {error}")),
        None => Error::source(path, "cannot be listed"),
    }
}
