//! The pass over a source tree.
//!
//! Every directory is one task, which opens it from its parent's handle: any depth can be walked, and no path is ever
//! resolved from the top. A task lists the directory, looks at every inode that is not a directory, and starts a task
//! for each directory in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Scan, ScanDir, ScanFile, in_source};
use crate::error::{Error, Refusal, Result};
use crate::fsys::{Dir, Kind, Stat, file};
use crate::model::{EntryName, TreePath, Xattrs};
use crate::observe::{self, Observer};

/// A directory that waits for its turn.
struct Waiting {
    /// The directory that it is in, and its name there.
    above: Arc<Dir>,
    name: EntryName,
    path: TreePath,
    number: usize,
}

/// What a directory came to. Numbers are given as directories are met, so they follow no order.
struct Looked {
    number: usize,
    path: TreePath,
    stat: Stat,
    xattrs: Xattrs,
    files: Vec<ScanFile>,
    skipped: Vec<(TreePath, &'static str)>,
    /// Numbers of the directories in it, in order of names.
    children: Vec<usize>,
}

struct Walk<'a> {
    observer: &'a dyn Observer,
    looked: Mutex<Vec<Looked>>,
    met: AtomicUsize,
    failure: OnceLock<Error>,
}

/// Looks at everything below `top`.
pub(super) fn walk(top: &Dir, observer: &dyn Observer) -> Result<Scan> {
    let walk = Walk { observer, looked: Mutex::default(), met: AtomicUsize::new(1), failure: OnceLock::new() };
    // A handle of its own: to list a directory moves the place at which its handle is read.
    let own = top.reopen()?;
    rayon::scope(|scope| walk.directory(scope, own, TreePath::top(), 0));
    if let Some(error) = walk.failure.into_inner() {
        return Err(error);
    }
    Ok(in_order(walk.looked.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl<'a> Walk<'a> {
    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, dir: Dir, path: TreePath, number: usize)
    where
        'a: 's,
    {
        if self.failure.get().is_some() {
            return;
        }
        match self.look(&dir, path, number) {
            Ok((looked, waiting)) => {
                self.looked.lock().unwrap_or_else(PoisonError::into_inner).push(looked);
                let above = Arc::new(dir);
                for (name, path, number) in waiting {
                    let waiting = Waiting { above: Arc::clone(&above), name, path, number };
                    scope.spawn(move |scope| self.enter(scope, waiting));
                }
            }
            Err(error) => drop(self.failure.set(error)),
        }
    }

    fn enter<'s>(&'s self, scope: &rayon::Scope<'s>, waiting: Waiting)
    where
        'a: 's,
    {
        let Waiting { above, name, path, number } = waiting;
        match above.open_dir(&name) {
            Ok(dir) => {
                // A deep tree must not keep a handle for each level.
                drop(above);
                self.directory(scope, dir, path, number);
            }
            Err(error) => drop(self.failure.set(unlistable(&path, &error))),
        }
    }

    /// Looks at one directory. Gives the directories in it as well.
    #[allow(clippy::type_complexity)]
    fn look(&self, dir: &Dir, path: TreePath, number: usize) -> Result<(Looked, Vec<(EntryName, TreePath, usize)>)> {
        observe::check(self.observer)?;
        let (mut files, mut skipped, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let inner = |name: &EntryName| path.join(name);
        let items = dir.items_once().map_err(|error| unlistable(&path, &error))?;
        files.reserve_exact(items.iter().filter(|item| item.kind != Kind::Directory).count());
        for item in items {
            let name = item.name;
            let mut kind = item.kind;
            if kind != Kind::Directory {
                let stat = dir.stat(&name).map_err(|error| in_source(&inner(&name), &error))?;
                kind = stat.kind;
                if matches!(kind, Kind::File | Kind::Symlink) {
                    files.push(ScanFile { name, stat });
                    continue;
                }
            }
            let path = inner(&name);
            match kind {
                Kind::Directory => waiting.push((name, path, self.met.fetch_add(1, Ordering::Relaxed))),
                Kind::Socket => skipped.push((path, "a socket")),
                Kind::Fifo => skipped.push((path, "a FIFO")),
                other => {
                    let message = format!("{path} is {} and cannot be part of a version", other.describe());
                    return Err(Error::refused(Refusal::UnsupportedSource, message));
                }
            }
        }
        let stat = dir.stat_self().map_err(|error| in_source(&path, &error))?;
        let xattrs = file::xattrs(dir, || dir.path().to_owned()).map_err(|error| in_source(&path, &error))?;
        let children = waiting.iter().map(|(_, _, number)| *number).collect();
        Ok((Looked { number, path, stat, xattrs, files, skipped, children }, waiting))
    }
}

/// Puts directories into the order in which a tree is read: the top first, parents before children, by name.
fn in_order(looked: Vec<Looked>) -> Scan {
    let mut by_number: Vec<Option<Looked>> = looked.iter().map(|_| None).collect();
    for one in looked {
        let number = one.number;
        by_number[number] = Some(one);
    }
    let mut scan = Scan { directories: Vec::with_capacity(by_number.len()), skipped: Vec::new() };
    let mut waiting = vec![(0, 0)];
    while let Some((number, parent)) = waiting.pop() {
        let Some(Looked { path, stat, xattrs, files, skipped, children, .. }) = by_number[number].take() else {
            continue;
        };
        let at = scan.directories.len();
        if at > 0 {
            scan.directories[parent].children.push(at);
        }
        waiting.extend(children.iter().rev().map(|child| (*child, at)));
        let children = Vec::with_capacity(children.len());
        scan.directories.push(ScanDir { path, parent, children, stat, xattrs, files });
        scan.skipped.extend(skipped);
    }
    scan
}

fn unlistable(path: &TreePath, error: &Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
            Error::source(path, format!("cannot list it: {source}"))
        }
        other => in_source(path, other),
    }
}
