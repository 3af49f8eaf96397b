//! Mending one version's tree: every name that is not as recorded is replaced by one that is.
//!
//! What is new is made in staging, made durable, and renamed over the name that is wrong: whoever looks finds the one
//! or the other. A directory in the place of a file, or the other way round, is exchanged. What stands in the way
//! of that (directories without write bits, the immutable flag) is lifted for the moment and put back.
//!
//! Private files are a service's: one is made anew only where its whole directory is gone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Mended;
use crate::error::{Error, Result, chain};
use crate::fsys::{Dir, Kind, Stat, file, remove};
use crate::hash;
use crate::layout::PRIVATE_DIR_MODE;
use crate::materialise::plan::{Plan, PlanDir, PlanFile, Private, What};
use crate::model::{ContentId, Manifest, ObjectKey, TreePath, VersionName, XattrDigest};
use crate::object::check::{by_stat, digest};
use crate::object::place::Spot;
use crate::object::trust::{Replaced, id};
use crate::object::{Objects, Recorded};
use crate::observe::{self, Observer};
use crate::store::Store;

/// Bytes and attributes of an inode; `None` if they cannot be read.
type Read = Option<(ContentId, Option<Box<XattrDigest>>)>;

/// Mends trees.
pub(super) struct Mender<'a> {
    pub(super) store: &'a Store,
    pub(super) objects: &'a Objects<'a>,
    /// A directory of this run, for what is on its way.
    pub(super) aside: &'a Dir,
    pub(super) observer: &'a dyn Observer,
    /// Objects that are damaged and could not be renewed.
    pub(super) lost: &'a BTreeMap<ObjectKey, String>,
    /// Objects that were made again: no tree keeps the inode that had the name before.
    pub(super) replaced: &'a Replaced,
    /// Inodes that were read, each once.
    pub(super) read: RefCell<HashMap<(u64, u64), Read>>,
    pub(super) counter: Cell<u64>,
}

/// What is to be done to one version.
pub(super) struct Task<'t> {
    pub(super) manifest: &'t Manifest,
    /// Paths at which something was found.
    pub(super) damaged: &'t BTreeSet<TreePath>,
    /// Keys whose paths are all looked at.
    pub(super) touched: &'t BTreeSet<ObjectKey>,
    /// Whether its files have inodes of their own.
    pub(super) isolated: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) mended: Vec<Mended>,
    /// Where it failed, and why, unless that is because of an object that is lost, which is said once.
    pub(super) failed: Vec<(TreePath, Option<String>)>,
}

/// What is said of a failure.
fn said(error: &Error) -> Option<String> {
    (!matches!(error, Error::Corrupt { what: "object", .. })).then(|| chain(error))
}

/// A directory whose protection is lifted for the moment.
struct Opened {
    dir: Dir,
    mode: u32,
    immutable: bool,
}

impl Opened {
    fn lift(dir: Dir) -> Result<Self> {
        let immutable = file::immutable(&dir) == Some(true);
        if immutable {
            file::set_immutable(&dir, false, dir.path())?;
        }
        let mode = dir.stat_self()?.mode;
        if mode & 0o300 != 0o300 {
            file::set_mode(&dir, mode | 0o300, || dir.path().to_owned())?;
        }
        Ok(Self { dir, mode, immutable })
    }

    fn restore(self) -> Result<()> {
        if self.mode & 0o300 != 0o300 {
            file::set_mode(&self.dir, self.mode, || self.dir.path().to_owned())?;
        }
        if self.immutable {
            file::set_immutable(&self.dir, true, self.dir.path())?;
        }
        Ok(())
    }
}

impl Mender<'_> {
    /// Mends what it can of a version whose top directory is there.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; the tree cannot be entered at all; the manifest is not whole. What cannot be mended is in
    /// the answer.
    pub(super) fn mend(&self, task: &Task<'_>) -> Result<Done> {
        let name = &task.manifest.facts.name;
        let mut done = Done::default();
        let plan = Plan::of(task.manifest)?;
        let top = self.store.versions().open_dir(name)?;
        let mut fresh = vec![false; plan.directories.len()];
        for at in 0..plan.directories.len() {
            observe::check(self.observer)?;
            let directory = &plan.directories[at];
            if !fresh[at] && !concerns(&plan, directory, task) {
                continue;
            }
            match self.directory(&top, &plan, at, task, &mut fresh, &mut done) {
                Ok(()) => {}
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => done.failed.push((directory.path.clone(), said(&error))),
            }
        }
        Ok(done)
    }

    fn directory(
        &self,
        top: &Dir,
        plan: &Plan,
        at: usize,
        task: &Task<'_>,
        fresh: &mut [bool],
        done: &mut Done,
    ) -> Result<()> {
        let mut opened = Opened::lift(top.open_own_below(&plan.directories[at].path)?)?;
        let mended = self.inside(&mut opened, plan, at, task, fresh, done);
        opened.restore()?;
        mended
    }

    fn inside(
        &self,
        opened: &mut Opened,
        plan: &Plan,
        at: usize,
        task: &Task<'_>,
        fresh: &mut [bool],
        done: &mut Done,
    ) -> Result<()> {
        let (directory, version) = (&plan.directories[at], &task.manifest.facts.name);
        for &child in &directory.children {
            let path = &plan.directories[child].path;
            if fresh[at] || task.damaged.contains(path) {
                let name = path.components().last().unwrap_or_default();
                if opened.dir.try_stat(name)?.is_none_or(|stat| stat.kind != Kind::Directory) {
                    let made = self.next();
                    self.aside.make_dir(&made, PRIVATE_DIR_MODE)?;
                    self.put(&made, &opened.dir, name)?;
                    fresh[child] = true;
                    done.mended.push(Mended::at(version, path, "made"));
                }
            }
        }
        for file in &directory.files {
            let path = directory.path.join(&file.name);
            match self.file(&opened.dir, file, &path, task, fresh[at]) {
                Ok(None) => {}
                Ok(Some(how)) => done.mended.push(Mended::at(version, &path, how)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => done.failed.push((path, said(&error))),
            }
        }
        if fresh[at] || (at != 0 && task.damaged.contains(&directory.path)) {
            let metadata = &directory.metadata;
            file::redress(&opened.dir, metadata, || opened.dir.path().to_owned())?;
            opened.mode = metadata.mode;
            if !fresh[at] {
                done.mended.push(Mended::at(version, &directory.path, "dressed"));
            }
        }
        Ok(())
    }

    /// Puts a file right unless it is; tells how.
    fn file(
        &self,
        dir: &Dir,
        file: &PlanFile,
        path: &TreePath,
        task: &Task<'_>,
        fresh: bool,
    ) -> Result<Option<&'static str>> {
        let name = file.name.as_bytes();
        let damaged = task.damaged.contains(path);
        let staged = self.next();
        let spot = Spot { dir: self.aside, name: staged.as_bytes() };
        let how = match &file.what {
            What::Object { key, recorded } => {
                let found = dir.try_stat(name)?;
                let suspect = damaged || task.touched.contains(key);
                let right = |stat: &Stat| self.is_right(dir, name, stat, key, *recorded);
                if !fresh && (!suspect || found.as_ref().is_some_and(right)) {
                    return Ok(None);
                }
                self.stage_object(key, *recorded, task.isolated, spot)?
            }
            // A service's own; only with its whole directory it is made anew.
            What::Private(_) | What::PrivateEmpty { .. } if !fresh => return Ok(None),
            _ if !fresh && !damaged => return Ok(None),
            What::Private(private) => {
                let Private { key, recorded, metadata } = &**private;
                self.refuse_lost(key)?;
                self.objects.place_private(key, metadata, *recorded, spot)?;
                self.sync(&staged)?;
                "copied"
            }
            What::Empty { metadata } | What::PrivateEmpty { metadata } => {
                let mtime = (task.manifest.facts.imported_at, 0);
                self.objects.place_empty(metadata, mtime, spot)?;
                self.sync(&staged)?;
                "made"
            }
            What::Symlink { target, owner } => {
                self.aside.symlink_owned(target, &staged, Some(*owner))?;
                "made"
            }
        };
        self.put(&staged, dir, name)?;
        Ok(Some(how))
    }

    /// Stages a link to the object, or a copy where the tree is to have inodes of its own.
    fn stage_object(
        &self,
        key: &ObjectKey,
        recorded: Recorded,
        isolated: bool,
        spot: Spot<'_>,
    ) -> Result<&'static str> {
        self.refuse_lost(key)?;
        if !isolated && self.objects.place_recorded(key, recorded, spot)? {
            return Ok("relinked");
        }
        self.objects.place_copy(key, recorded, false, spot)?;
        file::sync(&spot.dir.open_file(spot.name)?, || spot.dir.path_of(spot.name))?;
        Ok("copied")
    }

    fn refuse_lost(&self, key: &ObjectKey) -> Result<()> {
        match self.lost.get(key) {
            Some(why) => Err(Error::corrupt("object", self.objects.path_of(key), why)),
            None => Ok(()),
        }
    }

    /// Whether what stands at a name is the inode of its object, or another one with the right bytes.
    fn is_right(&self, dir: &Dir, name: &[u8], stat: &Stat, key: &ObjectKey, recorded: Recorded) -> bool {
        let was_object = self.replaced.get(key).is_some_and(|before| *before == Some(id(stat)));
        if was_object || by_stat(stat, key, Some(&recorded)).is_err() {
            return false;
        }
        let read = self.read.borrow().get(&(stat.device, stat.inode)).cloned();
        let read = read.unwrap_or_else(|| {
            let read = read_inode(dir, name);
            self.read.borrow_mut().insert((stat.device, stat.inode), read.clone());
            read
        });
        read.is_some_and(|(content, attributes)| content == key.content && attributes == key.class.xattrs)
    }

    /// Renames what is staged over a name, whatever has it.
    fn put(&self, staged: &str, dir: &Dir, name: &[u8]) -> Result<()> {
        let found = dir.try_stat(name)?;
        let made_directory = self.aside.stat(staged)?.kind == Kind::Directory;
        match found {
            Some(stat) if made_directory || stat.kind == Kind::Directory => {
                if stat.kind == Kind::Directory {
                    dir.check_own(name, &stat)?;
                    remove::make_movable(dir, name)?;
                }
                match self.aside.exchange(staged, dir, name) {
                    Err(error) if error.is_io(std::io::ErrorKind::Unsupported) => {
                        let displaced = self.next();
                        dir.rename_new(name, self.aside, &displaced)?;
                        self.aside.rename_new(staged, dir, name)?;
                        remove::tree(self.aside, &displaced)
                    }
                    other => other.and_then(|()| remove::tree(self.aside, staged)),
                }
            }
            found => {
                if found.is_some_and(|stat| stat.kind == Kind::File)
                    && let Ok(old) = dir.open_file(name)
                {
                    file::set_immutable(dir.holding(&old), false, &dir.path_of(name))?;
                }
                self.aside.rename(staged, dir, name)?;
                // Between two names of one inode the rename does nothing.
                self.aside.remove_file_if_present(staged).map(drop)
            }
        }
    }

    fn sync(&self, staged: &str) -> Result<()> {
        // An empty file that its owner may not read is durable with the directory.
        match self.aside.open_file(staged) {
            Ok(made) => file::sync(&made, || self.aside.path_of(staged)),
            Err(error) if error.is_io(std::io::ErrorKind::PermissionDenied) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("m{}", self.counter.get())
    }
}

/// Whether anything in a directory may have to be done.
fn concerns(plan: &Plan, directory: &PlanDir, task: &Task<'_>) -> bool {
    let of_file = |file: &PlanFile| {
        let touched = matches!(&file.what, What::Object { key, .. } if task.touched.contains(key));
        touched || task.damaged.contains(&directory.path.join(&file.name))
    };
    task.damaged.contains(&directory.path)
        || directory.children.iter().any(|child| task.damaged.contains(&plan.directories[*child].path))
        || directory.files.iter().any(of_file)
}

fn read_inode(dir: &Dir, name: &[u8]) -> Read {
    let opened = dir.open_file(name).ok()?;
    let attributes = digest(&file::xattrs(&opened, || dir.path_of(name)).ok()?);
    let (content, _) = hash::stream(&opened, hash::Threads::One).ok()?;
    Some((content, attributes))
}

impl Mended {
    fn at(version: &VersionName, path: &TreePath, how: &'static str) -> Self {
        Self { version: Some(version.clone()), path: path.as_bytes().to_vec(), how }
    }
}
