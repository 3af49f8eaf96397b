//! Doing what a plan says.

use std::sync::{Arc, OnceLock};

use super::plan::{Plan, PlanFile, Private, What};
use crate::error::{Error, Result};
use crate::fsys::{Dir, file};
use crate::model::{Metadata, TreePath};
use crate::object::Objects;
use crate::object::place::Spot;
use crate::observe::{self, Observer, Work};

/// Whether files share their objects' inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inodes {
    /// Links to objects.
    Shared,
    /// Copies, byte by byte: damage to a shared inode or to a shared block cannot reach them.
    Own,
    /// Copies that share blocks where the file system can.
    OwnSharingBlocks,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Files that are links.
    pub linked_files: u64,
    /// Files that are copies, since links cannot be made here.
    pub copied_files: u64,
}

struct Job<'a> {
    plan: &'a Plan,
    objects: &'a Objects<'a>,
    inodes: Inodes,
    empty_mtime: &'a (dyn Fn(&TreePath) -> (i64, u32) + Sync),
    observer: &'a dyn Observer,
    late: std::sync::Mutex<Vec<(Arc<Dir>, Metadata)>>,
    failure: OnceLock<Error>,
    linked: std::sync::atomic::AtomicU64,
    copied: std::sync::atomic::AtomicU64,
}

/// Makes everything in the plan below `target`, an empty directory.
///
/// `empty_mtime` gives the modification time of an empty file. Runs on the thread pool it is called from.
///
/// # Errors
///
/// [`Error::Corrupt`] if an object is missing or not as recorded; what the system refuses.
pub fn apply(
    plan: &Plan,
    objects: &Objects<'_>,
    inodes: Inodes,
    target: Dir,
    empty_mtime: &(dyn Fn(&TreePath) -> (i64, u32) + Sync),
    observer: &dyn Observer,
) -> Result<Applied> {
    let work = Job {
        plan,
        objects,
        inodes,
        empty_mtime,
        observer,
        late: std::sync::Mutex::default(),
        failure: OnceLock::new(),
        linked: 0.into(),
        copied: 0.into(),
    };
    let top = Arc::new(target);
    rayon::scope(|scope| work.start(scope, 0, top));
    if let Some(error) = work.failure.into_inner() {
        return Err(error);
    }
    let late = work.late.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Deepest first: a directory that may not be entered any longer comes after what is in it.
    for (dir, metadata) in late.into_iter().rev() {
        let path = || dir.path().to_owned();
        file::dress(&*dir, &metadata, objects.fresh(), path)?;
        file::set_mode(&*dir, metadata.mode, path)?;
    }
    Ok(Applied { linked_files: work.linked.into_inner(), copied_files: work.copied.into_inner() })
}

impl<'a> Job<'a> {
    fn start<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, dir: Arc<Dir>)
    where
        'a: 's,
    {
        if self.failure.get().is_none()
            && let Err(error) = self.directory(scope, at, &dir)
        {
            drop(self.failure.set(error));
        }
    }

    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, dir: &Arc<Dir>) -> Result<()>
    where
        'a: 's,
    {
        let directory = &self.plan.directories[at];
        for &child in &directory.children {
            let child = &self.plan.directories[child];
            let mode = if may_be_dressed_early(&child.metadata) { child.metadata.mode } else { 0o700 };
            dir.make_dir(last_name(&child.path), mode)?;
        }
        for file in &directory.files {
            observe::check(self.observer)?;
            self.file(&directory.path, dir, file)?;
            self.observer.work(Work::Files, 1);
        }
        if at != 0 {
            if may_be_dressed_early(&directory.metadata) {
                file::dress(&**dir, &directory.metadata, self.objects.fresh(), || dir.path().to_owned())?;
            } else {
                let mut late = self.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                late.push((Arc::clone(dir), directory.metadata.clone()));
            }
        }
        for &child in &directory.children {
            let dir = Arc::clone(dir);
            scope.spawn(move |scope| match dir.open_dir(last_name(&self.plan.directories[child].path)) {
                Ok(inner) => self.start(scope, child, Arc::new(inner)),
                Err(error) => drop(self.failure.set(error)),
            });
        }
        Ok(())
    }

    fn file(&self, above: &TreePath, dir: &Dir, file: &PlanFile) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let spot = Spot { dir, name: file.name.as_bytes() };
        match &file.what {
            What::Object { key, recorded } => match self.inodes {
                Inodes::Shared => {
                    let placed = self.objects.place_known(key, spot)?.ok_or_else(|| {
                        Error::corrupt("object", self.objects.path_of(key), "it is missing or not as recorded")
                    })?;
                    let linked = placed.how == crate::object::place::How::Linked;
                    if linked { &self.linked } else { &self.copied }.fetch_add(1, Relaxed);
                    self.observer.work(Work::Links, u64::from(linked));
                    Ok(())
                }
                Inodes::Own | Inodes::OwnSharingBlocks => {
                    self.objects.place_copy(key, *recorded, self.inodes == Inodes::OwnSharingBlocks, spot)
                }
            },
            What::Private(private) => {
                let Private { key, recorded, metadata } = &**private;
                self.objects.place_private(key, metadata, *recorded, spot)
            }
            What::Empty { metadata } | What::PrivateEmpty { metadata } => {
                self.objects.place_empty(metadata, (self.empty_mtime)(&above.join(&file.name)), spot)
            }
            What::Symlink { target, owner } => {
                let other = !self.objects.fresh().belongs_to(owner.0, owner.1);
                dir.symlink_owned(target, &file.name, other.then_some(*owner))
            }
        }
    }
}

/// Whether a directory may look as recorded while it is being filled: its owner can write it, and it hands nothing
/// down to what is made in it.
pub fn may_be_dressed_early(applied: &Metadata) -> bool {
    applied.mode & 0o700 == 0o700 && applied.mode & 0o2000 == 0 && applied.xattrs.is_empty()
}

fn last_name(path: &TreePath) -> &[u8] {
    path.components().last().unwrap_or_default()
}
