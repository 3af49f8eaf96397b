//! Removal of whole trees.
//!
//! Restartable: whatever is left after an interruption is removed by the next call. Never crosses a mount. Undoes
//! what stands in its way and is ours to undo: directories without write permission, the immutable flag.

use std::io;

use rayon::prelude::*;

use super::dir::Dir;
use super::file;
use super::stat::Kind;
use crate::error::{Error, Result};

/// Directories deeper than this are removed by one thread, to keep the stack small whatever the tree's depth.
const PARALLEL_DEPTH: usize = 64;

/// Removes `name` in `dir` and everything below it; a name that is absent is fine.
///
/// Runs on the thread pool it is called from.
///
/// # Errors
///
/// The first name that cannot be removed; a mount point inside is refused with its path.
pub fn tree(dir: &Dir, name: impl AsRef<[u8]>) -> Result<()> {
    let name = name.as_ref();
    match dir.try_stat(name)? {
        None => Ok(()),
        Some(stat) if stat.kind == Kind::Directory => directory(dir, name, 0),
        Some(_) => remove_name(dir, name, false),
    }
}

/// Removes `name` in `dir`, which was a file when it was listed; a name that is absent is fine, and a directory goes
/// as [`tree`] removes it.
///
/// # Errors
///
/// As [`tree`].
pub fn file(dir: &Dir, name: impl AsRef<[u8]>) -> Result<()> {
    match remove_name(dir, name.as_ref(), false) {
        Err(error) if error.is_io(io::ErrorKind::IsADirectory) => tree(dir, name),
        other => other,
    }
}

/// Takes off what keeps a directory from being moved elsewhere, though it is ours: the immutable flag, and a mode
/// without write permission, which its entry for the parent needs.
pub fn make_movable(dir: &Dir, name: impl AsRef<[u8]>) -> Result<()> {
    let inner = dir.open_dir(&name)?;
    file::set_immutable(&inner, false, inner.path())?;
    let mode = inner.stat_self()?.mode;
    file::set_mode(&inner, mode | 0o300, || inner.path().to_owned())
}

fn open(dir: &Dir, name: &[u8]) -> Result<Dir> {
    match dir.open_dir_same_mount(name) {
        Err(error) if error.is_io(io::ErrorKind::CrossesDevices) => Err(Error::refused_with(
            crate::error::Refusal::NotAllowed,
            format!("{} is a mount point; nothing is removed across it", crate::error::Shown::path(&dir.path_of(name))),
            "unmount it and try again",
        )),
        // A directory of ours that even its owner may not read.
        Err(error) if error.is_io(io::ErrorKind::PermissionDenied) => {
            super::dir::set_dir_mode(dir, name, 0o700)?;
            dir.open_dir_same_mount(name)
        }
        other => other,
    }
}

fn directory(dir: &Dir, name: &[u8], depth: usize) -> Result<()> {
    let mut inner = open(dir, name)?;
    empty_parallel(&mut inner, depth)?;
    match remove_name(dir, name, true) {
        // A file system may leave names out of a listing while others are removed.
        Err(error) if error.is_io(io::ErrorKind::DirectoryNotEmpty) => {
            empty_parallel(&mut inner, depth)?;
            remove_name(dir, name, true)
        }
        other => other,
    }
}

/// Removes what is in a directory: files as they are listed, then the directories side by side.
fn empty_parallel(dir: &mut Dir, depth: usize) -> Result<()> {
    if depth > PARALLEL_DEPTH {
        return empty_deep(dir);
    }
    let mut directories: Vec<Box<[u8]>> = Vec::new();
    dir.list(|dir, item| {
        if kind_of(dir, item.name, item.kind)? == Kind::Directory {
            directories.push(item.name.into());
            Ok(())
        } else {
            remove_name(dir, item.name, false)
        }
    })?;
    let dir = &*dir;
    directories.par_iter().try_for_each(|name| directory(dir, name, depth + 1))
}

/// The same with a stack of its own; one open handle per level, so that no path grows too long.
fn empty_deep(dir: &Dir) -> Result<()> {
    let mut stack = vec![(dir.try_clone()?, dir.items()?)];
    while let Some((here, items)) = stack.last_mut() {
        let Some(item) = items.pop() else {
            stack.pop();
            // The parent's list still ends with the directory that is empty now.
            if let Some((parent, items)) = stack.last_mut()
                && let Some(done) = items.pop()
            {
                remove_name(parent, done.name.as_bytes(), true)?;
            }
            continue;
        };
        if kind_of(here, item.name.as_bytes(), item.kind)? == Kind::Directory {
            let inner = open(here, item.name.as_bytes())?;
            let inner_items = inner.items()?;
            items.push(item);
            stack.push((inner, inner_items));
        } else {
            remove_name(here, item.name.as_bytes(), false)?;
        }
    }
    Ok(())
}

fn kind_of(dir: &Dir, name: &[u8], listed: Kind) -> Result<Kind> {
    match listed {
        Kind::Unknown => Ok(dir.try_stat(name)?.map_or(Kind::Unknown, |stat| stat.kind)),
        kind => Ok(kind),
    }
}

fn remove_name(dir: &Dir, name: &[u8], directory: bool) -> Result<()> {
    let attempt = || if directory { dir.remove_empty_dir(name) } else { dir.remove_file(name) };
    match attempt() {
        Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(()),
        Err(error) if error.is_io(io::ErrorKind::PermissionDenied) => {
            make_removable(dir, name, directory)?;
            attempt()
        }
        other => other,
    }
}

/// Clears what protects a name: the immutable flag of its inode or of its directory, a directory without write
/// permission.
fn make_removable(dir: &Dir, name: &[u8], directory: bool) -> Result<()> {
    file::set_immutable(dir, false, dir.path())?;
    let mode = dir.stat_self()?.mode;
    if mode & 0o300 != 0o300 {
        file::set_mode(dir, mode | 0o300, || dir.path().to_owned())?;
    }
    if directory {
        file::set_immutable(dir.open_dir(name)?, false, &dir.path_of(name))?;
    } else if dir.stat(name)?.kind == Kind::File {
        file::set_immutable(dir.holding(&dir.open_file(name)?), false, &dir.path_of(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let top = Dir::open(temporary.path()).unwrap();
        let mut dir = top.create_dir("deep", 0o755).unwrap();
        for _ in 0..300 {
            dir = dir.create_dir("d".repeat(50), 0o555).unwrap();
        }
        drop(dir);
        tree(&top, "deep").unwrap();
        tree(&top, "deep").unwrap();
        assert_eq!(top.items().unwrap(), []);
    }
}
