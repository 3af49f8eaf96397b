//! Looking at a source directory: what is there, before anything is read.
//!
//! Two passes. [`discover`](walk::discover) lists names, one thread, without looking at a single inode. Then every
//! directory's inodes are looked at, in parallel, on directory handles. The result is a plain value: directories with
//! their files, parents before children. Nothing is skipped silently: an unreadable directory is an error with its
//! path, what cannot be part of a version is refused or listed in [`Scan::skipped`].
//!
//! What was seen here may change before it is read; the reader compares inode, size and times again.

pub mod walk;

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::{Error, Refusal, Result};
use crate::fsys::{Dir, Kind, Stat};
use crate::model::{EntryName, TreePath};
use crate::observe::{self, Observer, Stage};

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
    /// Regular files and symbolic links in it, in order of names.
    pub files: Vec<ScanFile>,
}

/// A source directory as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The top first, parents before children.
    pub directories: Vec<ScanDir>,
    /// What is there and cannot be part of a version, with the reason.
    pub skipped: Vec<(TreePath, &'static str)>,
}

impl Scan {
    /// How many names there are, without the top.
    pub fn entries(&self) -> u64 {
        self.directories.iter().map(|directory| directory.files.len() as u64 + 1).sum::<u64>() - 1
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
    let found = walk::discover(top, observer)?;
    let looked_at = look(top, &found, observer)?;
    let mut skipped = Vec::new();
    let mut directories = Vec::with_capacity(found.len());
    for (directory, (stat, files)) in found.into_iter().zip(looked_at) {
        let mut kept = Vec::with_capacity(files.len());
        for file in files {
            match file.stat.kind {
                Kind::File | Kind::Symlink => kept.push(file),
                Kind::Socket => skipped.push((directory.path.join(&file.name), "a socket")),
                Kind::Fifo => skipped.push((directory.path.join(&file.name), "a FIFO")),
                other => {
                    let path = directory.path.join(&file.name);
                    let message = format!("{path} is {} and cannot be part of a version", other.describe());
                    return Err(Error::refused(Refusal::UnsupportedSource, message));
                }
            }
        }
        let (path, parent, children) = (directory.path, directory.parent, directory.children);
        directories.push(ScanDir { path, parent, children, stat, files: kept });
    }
    Ok(Scan { directories, skipped })
}

type Looked = (Stat, Vec<ScanFile>);

/// Looks at every inode, directory by directory, each opened from its parent's handle.
fn look(top: &Dir, found: &[walk::Found], observer: &dyn Observer) -> Result<Vec<Looked>> {
    let slots: Vec<std::sync::OnceLock<Looked>> = found.iter().map(|_| std::sync::OnceLock::new()).collect();
    let failure = std::sync::Mutex::new(None);
    let top = Arc::new(top.try_clone()?);
    rayon::scope(|scope| look_into(scope, top, 0, &Looking { found, slots: &slots, failure: &failure, observer }));
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    Ok(slots.into_iter().filter_map(std::sync::OnceLock::into_inner).collect())
}

struct Looking<'a> {
    found: &'a [walk::Found],
    slots: &'a [std::sync::OnceLock<Looked>],
    failure: &'a std::sync::Mutex<Option<Error>>,
    observer: &'a dyn Observer,
}

fn look_into<'s>(scope: &rayon::Scope<'s>, dir: Arc<Dir>, at: usize, looking: &Looking<'s>) {
    let &Looking { found, slots, failure, observer } = looking;
    let fail = |error| {
        failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
    };
    match look_at(&dir, &found[at], observer) {
        Ok(looked) => drop(slots[at].set(looked)),
        Err(error) => return fail(error),
    }
    for &child in &found[at].children {
        let dir = Arc::clone(&dir);
        scope.spawn(move |scope| {
            if failure.lock().is_ok_and(|failure| failure.is_some()) {
                return;
            }
            let name = found[child].path.components().last().unwrap_or_default();
            let looking = Looking { found, slots, failure, observer };
            match dir.open_dir(name) {
                Ok(inner) => look_into(scope, Arc::new(inner), child, &looking),
                Err(error) => {
                    failure
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .get_or_insert(in_source(&found[child].path, &error));
                }
            }
        });
    }
}

fn look_at(dir: &Dir, found: &walk::Found, observer: &dyn Observer) -> Result<Looked> {
    observe::check(observer)?;
    let files = found.files.iter().map(|name| match dir.stat(name) {
        Ok(stat) => Ok(ScanFile { name: name.clone(), stat }),
        Err(error) => Err(in_source(&found.path.join(name), &error)),
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    Ok((dir.stat_self()?, files))
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
