//! Giving a version's files inodes of their own.
//!
//! Every file that shares its inode is copied into staging, all copies are made durable, and each is renamed over the
//! file it was made from. The tree itself stays where it is: services that run from it keep their directories, and what
//! they wrote into private files is not touched.
//!
//! | died after | the next run sees |
//! | --- | --- |
//! | copying | the tree as it was; staging is swept |
//! | some renames | a tree of which some files have inodes of their own; the rest follows |
//!
//! **Invariant:** at every instant every name in the tree holds the bytes that the manifest says.

use super::protection;
use crate::error::{Error, Result};
use crate::fsys::{Dir, Space};
use crate::layout;
use crate::materialise::plan::{Plan, What};
use crate::materialise::{Inodes, apply};
use crate::model::{Manifest, Metadata, TreePath};
use crate::object::{LinkPolicy, NothingPublished, Objects};
use crate::observe::{Observer, Stage};
use crate::staging::{INCOMING, Run, TREE};
use crate::store::SharedStore;

/// Gives every non-empty file that is not private an inode of its own; gives the number of those that had none.
///
/// # Errors
///
/// [`Error::NoSpace`] before anything is written; [`Error::Corrupt`] if an object is not what it should be; what the
/// system refuses. A tree that is done in part is whole all the same.
pub(super) fn isolate(
    store: &SharedStore<'_>,
    manifest: &Manifest,
    inodes: Inodes,
    observer: &dyn Observer,
) -> Result<u64> {
    let name = &manifest.facts.name;
    let tree = store.versions().open_dir(name)?;
    let (plan, need) = shared_files(store, &tree, manifest)?;
    if need.inodes == 0 {
        return Ok(0);
    }
    need.check(store.root(), inodes)?;
    let run = Run::begin(&store.dir().open_dir(layout::STAGING)?)?;
    let incoming = run.dir().create_dir(INCOMING, layout::PRIVATE_DIR_MODE)?;
    let objects = Objects::open(store.dir(), incoming, &NothingPublished, LinkPolicy::Require)?;
    let copies = run.dir().create_dir(TREE, layout::PRIVATE_DIR_MODE)?;
    let target = copies.try_clone()?;
    observer.stage(Stage::Materialise, Some(need.inodes));
    let applied = store.in_pool(|| apply(&plan, &objects, inodes, target, &|_: &TreePath| (0, 0), observer))?;
    // What kept it from being copied is known from here on.
    let _recorded = store.revoke(&objects.suspects());
    let _applied = applied?;
    run.dir().sync_file_system()?;
    // Directories without write bits keep even their owner from renaming in them.
    protection::lift(&tree, manifest)?;
    for directory in plan.directories.iter().filter(|directory| !directory.files.is_empty()) {
        let (from, to) = (copies.open_below(&directory.path)?, tree.open_below(&directory.path)?);
        for file in &directory.files {
            from.rename(&file.name, &to, &file.name)?;
        }
    }
    run.finish()?;
    Ok(need.inodes)
}

/// Room that copies take.
struct Need {
    bytes: u64,
    inodes: u64,
}

impl Need {
    fn check(&self, root: &Dir, inodes: Inodes) -> Result<()> {
        let space = Space::of(root)?;
        // Shared blocks cost nothing, and where they cannot be shared the copy fails cleanly.
        let bytes = if inodes == Inodes::OwnSharingBlocks { 0 } else { self.bytes };
        if bytes <= space.free_bytes && self.inodes <= space.free_inodes {
            return Ok(());
        }
        Err(Error::NoSpace {
            path: root.path().to_owned(),
            needed_bytes: bytes,
            free_bytes: space.free_bytes,
            minimum_bytes: 0,
            needed_inodes: self.inodes,
            free_inodes: space.free_inodes,
        })
    }
}

/// What is left of a version's plan when only files are taken that share their inode.
fn shared_files(store: &SharedStore<'_>, tree: &Dir, manifest: &Manifest) -> Result<(Plan, Need)> {
    let whole = Plan::of(manifest)?;
    let (space, own) = (Space::of(store.root())?, store.dir().stat_self()?);
    let mut need = Need { bytes: 0, inodes: 0 };
    let mut directories = whole.directories;
    for directory in &mut directories {
        let dir = tree.open_below(&directory.path)?;
        // Only a place to copy to: nothing of it reaches the tree.
        directory.metadata = Metadata::new(layout::PRIVATE_DIR_MODE, own.uid, own.gid);
        let mut files = Vec::new();
        for file in directory.files.drain(..) {
            if let What::Object { recorded, .. } = &file.what
                && dir.stat(&file.name)?.links > 1
            {
                need.bytes += space.rounded(recorded.size);
                need.inodes += 1;
                files.push(file);
            }
        }
        directory.files = files;
    }
    Ok((Plan { directories, kept: Vec::new() }, need))
}
