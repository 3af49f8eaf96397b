//! Checking a version's tree against its manifest.
//!
//! A *quick* check looks at every name: is it there, of its type, size, mode and owner, with the modification time that
//! was recorded, and is it the very inode of its object? A file that is another inode was rotated, copied, or replaced
//! by hand: only such a file is read. A *full* check reads every file, each inode once per [`Checker`].
//!
//! - Private files belong to a service, and so does everything beside them: nothing is said about them.
//! - At a shared path stands a link; what it leads to is no part of the version.
//! - A directory may have lost its write bits: those of the factory version have.
//! - A name that the manifest does not know is reported ([`ProblemKind::Unexpected`]) and is no damage: the version
//!   holds everything it should.
//!
//! **Invariant:** nothing is written, not even an access time where that can be helped. What this user may not look at
//! is counted ([`Checked::unseen`]), never guessed.

mod objects;
mod problem;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result, Shown, chain};
use crate::fsys::{Dir, Kind, Stat, file};
use crate::hash;
use crate::layout;
use crate::materialise::plan::{Contents, Plan, PlanDir, PlanFile, What, plan};
use crate::model::metadata::WRITE_BITS;
use crate::model::{ContentId, Manifest, Metadata, ObjectKey, TreePath, VersionName, XattrDigest};
use crate::object::Recorded;
use crate::object::check::{Fault, by_stat, digest};
use crate::observe::{self, Observer, Stage, Work};
use crate::store::Store;

pub use problem::{Checked, Problem, ProblemKind};

/// How closely a tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Depth {
    /// Every name, by a look at its inode.
    #[default]
    Quick,
    /// Every byte as well.
    Full,
}

impl Depth {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

/// Where bytes are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadFrom {
    /// From memory if they are there: what a process would see now.
    #[default]
    Cache,
    /// From the medium.
    Medium,
}

/// What a version's files share with objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expect {
    /// Every file is a link to its object; any other inode is read.
    #[default]
    Links,
    /// Every file has an inode of its own ([`crate::model::Marks::isolated`]); a look at it suffices.
    OwnInodes,
}

/// The bytes of an inode, and its attributes.
type Hashed = (ContentId, Option<Box<XattrDigest>>);

/// Checks versions of one store; remembers which inodes it has read.
pub struct Checker<'a> {
    store: &'a Store,
    depth: Depth,
    from: ReadFrom,
    observer: &'a dyn Observer,
    /// Absent for users who may not look into it.
    objects: Option<Dir>,
    hashed: Mutex<HashMap<(u64, u64), Hashed>>,
}

/// Checks one version.
///
/// # Errors
///
/// As [`Checker::version`].
pub fn check_version(
    store: &Store,
    manifest: &Manifest,
    depth: Depth,
    expect: Expect,
    observer: &dyn Observer,
) -> Result<Checked> {
    Checker::new(store, depth, ReadFrom::Cache, observer)?.version(manifest, expect)
}

impl<'a> Checker<'a> {
    /// For checks of this depth.
    ///
    /// # Errors
    ///
    /// `objects/` is missing.
    pub fn new(store: &'a Store, depth: Depth, from: ReadFrom, observer: &'a dyn Observer) -> Result<Self> {
        let objects = match store.dir().open_dir(layout::OBJECTS) {
            Ok(dir) => Some(dir),
            Err(error) if error.is_io(std::io::ErrorKind::PermissionDenied) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { store, depth, from, observer, objects, hashed: Mutex::default() })
    }

    /// Compares a version's tree with its manifest, directories side by side on the store's threads.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; what keeps it from looking at all. What is wrong with the tree is no error.
    pub fn version(&self, manifest: &Manifest, expect: Expect) -> Result<Checked> {
        let name = &manifest.facts.name;
        let plan = plan(Contents::of(manifest)).ok_or_else(|| {
            Error::corrupt("manifest", layout::MANIFESTS, format!("the trees of {name} are not whole"))
        })?;
        let names: usize = plan.directories.iter().map(|directory| directory.files.len() + 1).sum();
        self.observer.stage(Stage::Verify, Some(names as u64));
        let pass = Pass {
            checker: self,
            plan: &plan,
            version: name,
            expect,
            tally: Tally::default(),
            problems: Mutex::default(),
            failure: OnceLock::new(),
        };
        match self.store.versions().open_dir(name) {
            Ok(top) => {
                let top = Arc::new(top);
                self.store.in_pool(|| rayon::scope(|scope| pass.start(scope, 0, top)))?;
            }
            Err(error) => pass.cannot_enter(&TreePath::top(), &error)?,
        }
        pass.finish()
    }

    /// Reads an inode unless it was read before.
    fn hash(&self, dir: &Dir, name: &[u8], stat: &Stat) -> Result<Hashed> {
        let id = (stat.device, stat.inode);
        let lock = || self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashed) = lock().get(&id) {
            return Ok(hashed.clone());
        }
        let opened = dir.open_file(name)?;
        let path = || dir.path_of(name);
        let attributes = digest(&file::xattrs(&opened, path)?);
        if self.from == ReadFrom::Medium {
            file::forget_cached(&opened);
        }
        let (content, size) =
            hash::stream(&opened, hash::Threads::One).map_err(|error| Error::io("read", path(), error))?;
        self.observer.work(Work::ReadBytes, size);
        let hashed = (content, attributes);
        lock().insert(id, hashed.clone());
        Ok(hashed)
    }
}

#[derive(Default)]
struct Tally {
    entries: AtomicU64,
    hashed_files: AtomicU64,
    own_inodes: AtomicU64,
    linked_files: AtomicU64,
    unseen: AtomicU64,
}

/// One version being checked.
struct Pass<'a> {
    checker: &'a Checker<'a>,
    plan: &'a Plan,
    version: &'a VersionName,
    expect: Expect,
    tally: Tally,
    problems: Mutex<Vec<Problem>>,
    failure: OnceLock<Error>,
}

impl Pass<'_> {
    fn finish(self) -> Result<Checked> {
        if let Some(error) = self.failure.into_inner() {
            return Err(error);
        }
        let mut problems = self.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        problems.sort_unstable();
        let Tally { entries, hashed_files, own_inodes, linked_files, unseen } = self.tally;
        Ok(Checked {
            problems,
            entries: entries.into_inner(),
            hashed_files: hashed_files.into_inner(),
            own_inodes: own_inodes.into_inner(),
            linked_files: linked_files.into_inner(),
            unseen: unseen.into_inner(),
        })
    }

    fn report(&self, path: &TreePath, kind: ProblemKind, detail: impl Into<String>) {
        let problem = Problem { path: path.clone(), kind, version: self.version.clone(), detail: detail.into() };
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    fn start<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, dir: Arc<Dir>) {
        if self.failure.get().is_none()
            && let Err(error) = self.directory(scope, at, &dir)
        {
            drop(self.failure.set(error));
        }
    }

    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, dir: &Arc<Dir>) -> Result<()> {
        let directory = &self.plan.directories[at];
        if at != 0 {
            self.directory_itself(directory, dir)?;
        }
        self.tally.entries.fetch_add(1 + directory.files.len() as u64, Relaxed);
        for file in &directory.files {
            observe::check(self.checker.observer)?;
            let path = directory.path.join(&file.name);
            if let Err(error) = self.file(&path, dir, file) {
                self.cannot_look(&path, &error)?;
            }
            self.checker.observer.work(Work::Files, 1);
        }
        if let Err(error) = self.strangers(directory, dir) {
            self.cannot_look(&directory.path, &error)?;
        }
        for &child in &directory.children {
            let dir = Arc::clone(dir);
            scope.spawn(move |scope| {
                let path = &self.plan.directories[child].path;
                match dir.open_dir(path.components().last().unwrap_or_default()) {
                    Ok(inner) => self.start(scope, child, Arc::new(inner)),
                    Err(error) => {
                        if let Err(error) = self.cannot_enter(path, &error) {
                            drop(self.failure.set(error));
                        }
                    }
                }
            });
        }
        Ok(())
    }

    fn directory_itself(&self, directory: &PlanDir, dir: &Dir) -> Result<()> {
        let (stat, expected) = (dir.stat_self()?, &directory.metadata);
        if stat.mode != expected.mode && stat.mode != expected.mode & !WRITE_BITS {
            let detail = format!("its mode is {:04o} instead of {:04o}", stat.mode, expected.mode);
            self.report(&directory.path, ProblemKind::Mode, detail);
        }
        self.owner(&directory.path, &stat, (expected.uid, expected.gid));
        if self.checker.depth == Depth::Full && file::xattrs(dir, || dir.path().to_owned())? != expected.xattrs {
            self.report(&directory.path, ProblemKind::Attributes, Fault::Xattrs.to_string());
        }
        Ok(())
    }

    fn owner(&self, path: &TreePath, stat: &Stat, expected: (u32, u32)) {
        if (stat.uid, stat.gid) != expected {
            let fault = Fault::Owner { expected, found: (stat.uid, stat.gid) };
            self.report(path, ProblemKind::Owner, fault.to_string());
        }
    }

    fn file(&self, path: &TreePath, dir: &Dir, file: &PlanFile) -> Result<()> {
        if matches!(file.what, What::Private { .. } | What::PrivateEmpty { .. }) {
            return Ok(());
        }
        let Some(stat) = dir.try_stat(&file.name)? else {
            self.report(path, ProblemKind::Missing, "it is not there");
            return Ok(());
        };
        match &file.what {
            What::Private { .. } | What::PrivateEmpty { .. } => Ok(()),
            What::Object { key, recorded } => self.object(path, (dir, file.name.as_bytes()), &stat, key, *recorded),
            What::Empty { metadata } => {
                self.empty(path, &stat, metadata);
                Ok(())
            }
            What::Symlink { target, owner } => {
                if stat.kind != Kind::Symlink {
                    self.report(path, ProblemKind::Type, format!("it is {}", stat.kind.describe()));
                    return Ok(());
                }
                let found = dir.read_link(&file.name)?;
                if found != *target {
                    let detail = format!("it leads to {} instead of {}", Shown::bytes(&found), Shown::bytes(target));
                    self.report(path, ProblemKind::Target, detail);
                }
                self.owner(path, &stat, *owner);
                Ok(())
            }
        }
    }

    fn empty(&self, path: &TreePath, stat: &Stat, expected: &Metadata) {
        if stat.kind != Kind::File {
            self.report(path, ProblemKind::Type, Fault::Kind(stat.kind).to_string());
        } else if stat.size != 0 {
            self.report(path, ProblemKind::Size, Fault::Size { expected: 0, found: stat.size }.to_string());
        } else if stat.mode != expected.mode {
            let fault = Fault::Mode { expected: expected.mode, found: stat.mode };
            self.report(path, ProblemKind::Mode, fault.to_string());
        } else {
            self.owner(path, stat, (expected.uid, expected.gid));
        }
    }

    fn object(
        &self,
        path: &TreePath,
        (dir, name): (&Dir, &[u8]),
        stat: &Stat,
        key: &ObjectKey,
        recorded: Recorded,
    ) -> Result<()> {
        if let Err(fault) = by_stat(stat, key, Some(&recorded)) {
            self.report(path, ProblemKind::of(&fault), fault.to_string());
            return Ok(());
        }
        let linked = match &self.checker.objects {
            Some(objects) => objects.try_stat(key.to_string())?.is_some_and(|object| object.same_inode(stat)),
            // Where one may not look, a file with other names is taken for a link to its object.
            None => stat.links > 1,
        };
        if linked { &self.tally.linked_files } else { &self.tally.own_inodes }.fetch_add(1, Relaxed);
        let as_expected = linked || (self.expect == Expect::OwnInodes && stat.links == 1);
        if as_expected && self.checker.depth == Depth::Quick {
            return Ok(());
        }
        let (content, attributes) = self.checker.hash(dir, name, stat)?;
        self.tally.hashed_files.fetch_add(1, Relaxed);
        let fault = if content != key.content {
            Fault::Content
        } else if attributes != key.class.xattrs {
            Fault::Xattrs
        } else {
            return Ok(());
        };
        self.report(path, ProblemKind::of(&fault), fault.to_string());
        Ok(())
    }

    /// Reports names that do not belong into a directory, unless a service has files of its own there.
    fn strangers(&self, directory: &PlanDir, dir: &Dir) -> Result<()> {
        if directory.holds_private_files() {
            return Ok(());
        }
        let children = directory.children.iter().map(|child| &self.plan.directories[*child].path);
        let mut known: Vec<&[u8]> = children.map(|path| path.components().last().unwrap_or_default()).collect();
        known.extend(directory.files.iter().map(|file| file.name.as_bytes()));
        known.sort_unstable();
        for item in dir.items()?.iter().filter(|item| known.binary_search(&item.name.as_bytes()).is_err()) {
            let detail = format!("{} that is no part of the version", item.kind.describe());
            self.report(&directory.path.join(&item.name), ProblemKind::Unexpected, detail);
        }
        Ok(())
    }

    fn cannot_enter(&self, path: &TreePath, error: &Error) -> Result<()> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        // With O_NOFOLLOW a symbolic link to a directory answers so as well.
        let something_else = error.is_io(NotADirectory) || error.raw_os_error() == Some(libc::ELOOP);
        if error.is_io(NotFound) {
            self.report(path, ProblemKind::Missing, "it is not there");
        } else if something_else {
            self.report(path, ProblemKind::Type, "it is not a directory");
        } else {
            return self.cannot_look(path, error);
        }
        Ok(())
    }

    /// What cannot be read is a finding; what this user may not read is none.
    fn cannot_look(&self, path: &TreePath, error: &Error) -> Result<()> {
        match error {
            Error::Interrupted => Err(Error::Interrupted),
            error if error.is_io(std::io::ErrorKind::PermissionDenied) => {
                self.tally.unseen.fetch_add(1, Relaxed);
                Ok(())
            }
            error if error.is_io(std::io::ErrorKind::NotFound) => {
                self.report(path, ProblemKind::Missing, "it vanished while it was looked at");
                Ok(())
            }
            error => {
                self.report(path, ProblemKind::Unreadable, chain(error));
                Ok(())
            }
        }
    }
}
