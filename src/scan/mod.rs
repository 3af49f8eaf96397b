//! Looking at a source directory: what is there, before anything is read.
//!
//! [One parallel pass](walk), directory by directory, each opened from its parent's handle: names, inodes, and the
//! directory's own attributes. The result is a plain value: directories with their files, parents before children.
//! Nothing is skipped silently: an unreadable directory is an error with its path, what cannot be part of a version is
//! refused or listed in [`Scan::skipped`].
//!
//! What was seen here may change before it is read; the reader compares inode, size and times again.

mod walk;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::fsys::{Dir, Stat};
use crate::model::{EntryName, TreePath, Xattrs};
use crate::observe::{Observer, Stage};

/// One name that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanFile {
    /// Its name.
    pub name: EntryName,
    /// Its inode as seen.
    pub stat: Stat,
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanDir {
    /// Its path in the source.
    pub path: TreePath,
    /// Position of the directory it is in; the top's is its own.
    pub parent: usize,
    /// Positions of the directories in it, in order of names.
    pub children: Vec<usize>,
    /// Its inode as seen.
    pub stat: Stat,
    /// Its recorded extended attributes.
    pub xattrs: Xattrs,
    /// Regular files and symbolic links in it, in order of names.
    pub files: Vec<ScanFile>,
}

/// A source directory as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The top first, parents before children, in order of names.
    pub directories: Vec<ScanDir>,
    /// What is there and cannot be part of a version, with the reason.
    pub skipped: Vec<(TreePath, &'static str)>,
}

impl Scan {
    /// How many names there are, without the top.
    pub fn entries(&self) -> u64 {
        self.directories.iter().map(|directory| directory.files.len() as u64 + 1).sum::<u64>() - 1
    }

    /// Regular files and symbolic links, directory by directory.
    pub fn files(&self) -> impl Iterator<Item = &ScanFile> {
        self.directories.iter().flat_map(|directory| &directory.files)
    }
}

/// Looks at everything below `top`.
///
/// Runs on the thread pool it is called from.
///
/// # Errors
///
/// - [`Error::Refused`] for a device node, by path;
/// - [`Error::Source`] for what cannot be listed or looked at, or vanished in between.
pub fn scan(top: &Dir, observer: &dyn Observer) -> Result<Scan> {
    observer.stage(Stage::Scan, None);
    walk::walk(top, observer)
}

/// Tells a failure about the source by the path within it.
pub fn in_source(path: &TreePath, error: &Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::source(path, "vanished while it was being imported")
        }
        Error::Io { verb, source, .. } => Error::source(path, format!("cannot {verb} it: {source}")),
        other => Error::source(path, other.to_string()),
    }
}

/// Sums a value over all files, in parallel.
pub fn sum_files(scan: &Scan, value: impl Fn(&ScanFile) -> u64 + Sync) -> u64 {
    scan.directories.par_iter().map(|directory| directory.files.iter().map(&value).sum::<u64>()).sum()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::observe::Silent;

    fn scanned(path: &std::path::Path) -> Result<Scan> {
        scan(&Dir::open(path).unwrap(), &Silent)
    }

    #[test]
    fn everything_is_seen_in_order_of_names() {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path();
        for directory in ["b", "a/inner", "empty"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        std::fs::write(top.join("a/inner/x"), "1").unwrap();
        std::fs::write(top.join("a/\n-weird"), "2").unwrap();
        std::os::unix::fs::symlink("loop", top.join("loop")).unwrap();
        std::os::unix::fs::symlink("..", top.join("b/up")).unwrap();
        let scan = scanned(top).unwrap();
        let seen: Vec<String> = scan
            .directories
            .iter()
            .map(|d| format!("{}: {:?}", d.path, d.files.iter().map(|f| f.name.to_string()).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            seen,
            [". [\"loop\"]", "a [\"\\\\n-weird\"]", "a/inner [\"x\"]", "b [\"up\"]", "empty []"]
                .map(|line| line.replacen(' ', ": ", 1))
        );
        assert_eq!(scan.entries(), 8);
    }

    #[test]
    fn paths_longer_than_the_system_allows_are_seen() {
        let temporary = tempfile::tempdir().unwrap();
        let mut dir = Dir::open(temporary.path()).unwrap();
        for _ in 0..60 {
            dir = dir.create_dir("d".repeat(200), 0o755).unwrap();
        }
        drop(dir.create_file("leaf", 0o644).unwrap());
        let scan = scanned(temporary.path()).unwrap();
        let last = scan.directories.last().unwrap();
        assert_eq!((last.path.as_bytes().len(), last.files.len()), (60 * 201 - 1, 1));
        crate::fsys::remove::tree(&Dir::open(temporary.path()).unwrap(), "d".repeat(200)).unwrap();
    }

    #[test]
    fn sockets_are_skipped_and_said() {
        let temporary = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(temporary.path().join("s")).unwrap();
        let scan = scanned(temporary.path()).unwrap();
        assert_eq!(scan.skipped, [(TreePath::parse(b"s").unwrap(), "a socket")]);
    }
}
