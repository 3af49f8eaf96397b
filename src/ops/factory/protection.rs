//! Protection of a tree against accidents: directories without write bits, and for files with inodes of their own the
//! immutable flag.
//!
//! Private files, empty files (they tend to be locks) and directories that hold private files stay as they are: a
//! service writes there. Both directions can be done any number of times, and after an interruption again.
//!
//! **Invariant:** an inode that is shared with an object never gets the flag: it could get no further link.

use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, file};
use crate::layout::PUBLIC_DIR_MODE;
use crate::materialise::plan::{Plan, PlanDir, What};
use crate::model::metadata::WRITE_BITS;
use crate::model::{Manifest, Metadata};
use crate::object::check::by_stat;
use crate::store::Store;

/// What protecting came to.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protected {
    /// Whether anything was not protected before.
    pub changed: bool,
    /// Whether every inode that should be immutable is.
    pub immutable: bool,
}

/// Protects a version's tree; its files as well if they have inodes of their own.
///
/// # Errors
///
/// What the system refuses; that there are no immutable flags here is none.
pub fn protect(store: &Store, manifest: &Manifest, own_inodes: bool) -> Result<Protected> {
    let top = store.versions().open_dir(&manifest.facts.name)?;
    let mut protected = Protected { changed: false, immutable: own_inodes };
    for directory in directories(manifest) {
        let dir = match top.open_own_below(&directory.path) {
            // In another user's directory, who could undo it.
            Err(Error::Refused { .. }) => {
                protected.immutable = false;
                continue;
            }
            other => other?,
        };
        if own_inodes {
            protect_files(&directory, &dir, &mut protected)?;
        }
        if directory.holds_private_files() {
            continue;
        }
        let (found, wanted) = (dir.stat_self()?.mode, mode_of(&directory) & !WRITE_BITS);
        if found != wanted {
            file::set_immutable(&dir, false, dir.path())?;
            file::set_mode(&dir, wanted, || dir.path().to_owned())?;
            protected.changed = true;
        }
        if own_inodes {
            set_flag(&dir, &dir, &mut protected)?;
        }
    }
    Ok(protected)
}

fn protect_files(directory: &PlanDir, dir: &Dir, protected: &mut Protected) -> Result<()> {
    for object in &directory.files {
        let What::Object { key, recorded } = &object.what else { continue };
        let opened = dir.open_file(&object.name)?;
        let stat = crate::fsys::stat::stat_file(&opened, || dir.path_of(&object.name))?;
        if stat.links == 1 && by_stat(&stat, key, Some(recorded)).is_ok() {
            set_flag(dir.holding(&opened), dir, protected)?;
        } else {
            protected.immutable = false;
        }
    }
    Ok(())
}

fn set_flag(fd: impl file::Handle, dir: &Dir, protected: &mut Protected) -> Result<()> {
    if file::immutable(&fd) == Some(true) {
        return Ok(());
    }
    if file::set_immutable(&fd, true, dir.path())? {
        protected.changed = true;
    } else {
        protected.immutable = false;
    }
    Ok(())
}

/// Undoes [`protect`]. A removal does without it: it undoes what is in its way.
///
/// # Errors
///
/// What the system refuses.
pub fn lift(tree: &Dir, manifest: &Manifest) -> Result<()> {
    for directory in directories(manifest) {
        let dir = match tree.open_own_below(&directory.path) {
            Ok(dir) => dir,
            // Whatever became of it, it is not protected.
            Err(Error::Refused { .. }) => continue,
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => continue,
            Err(error) => return Err(error),
        };
        file::set_immutable(&dir, false, dir.path())?;
        for object in directory.files.iter().filter(|file| matches!(file.what, What::Object { .. })) {
            if dir.try_stat(&object.name)?.is_some_and(|stat| stat.kind == Kind::File && stat.links == 1) {
                file::set_immutable(dir.holding(&dir.open_file(&object.name)?), false, &dir.path_of(&object.name))?;
            }
        }
        let (found, recorded) = (dir.stat_self()?.mode, mode_of(&directory));
        if found != recorded && found == recorded & !WRITE_BITS {
            file::set_mode(&dir, recorded, || dir.path().to_owned())?;
        }
    }
    Ok(())
}

/// The mode that a directory is to have, write bits included.
fn mode_of(directory: &PlanDir) -> u32 {
    let Metadata { mode, .. } = directory.metadata;
    if directory.path.is_top() { PUBLIC_DIR_MODE } else { mode }
}

fn directories(manifest: &Manifest) -> Vec<PlanDir> {
    Plan::of(manifest).map(|plan| plan.directories).unwrap_or_default()
}
