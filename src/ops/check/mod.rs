//! Checking a version's tree against its manifest.
//!
//! A *quick* check looks at every name: is it there, of its type, size, mode and owner, with the modification time that
//! was recorded, and is it the very inode of its object? A file that is another inode was rotated, copied, or replaced
//! by hand: only such a file is read. A *full* check reads every file, each inode once per [`Checker`].
//!
//! It costs one look per file and one listing per directory: the inodes of objects come from a listing of `objects/`
//! ([`crate::object::listing`]), and only an object that is not the expected inode there is looked at itself.
//!
//! - Private files belong to a service, and so does everything beside them: nothing is said about them.
//! - At a shared path stands a link; what it leads to is no part of the version.
//! - A directory may have lost its write bits: those of the factory version have.
//! - A file that is the inode of a revoked object is damaged, whatever it looks like: it was found to be, and nothing has
//!   taken its place. So nothing proves a revoked object either.
//! - A name that the manifest does not know is reported ([`ProblemKind::Unexpected`]) and is no damage: the version
//!   holds everything it should.
//!
//! **Invariant:** nothing is written, not even an access time where that can be helped. What this user may not look at
//! is counted ([`Checked::unseen`]), never guessed.

mod objects;
mod pass;
mod problem;
mod proofs;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result, chain};
use crate::fsys::{Dir, Stat, file};
use crate::hash;
use crate::layout;
use crate::manifests::Manifests;
use crate::materialise::plan::{Plan, Planner};
use crate::model::{ContentId, Digest, Facts, Manifest, Marks, ObjectKey, TreePath, VersionName, XattrDigest};
use crate::object::check::{Fault, digest};
use crate::object::trust::{Revoked, Suspect, Suspects};
use crate::observe::{Observer, Stage, Work};
use crate::store::Store;

use pass::{Pass, Tally};
use proofs::{Listed, Proofs};

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

/// What becomes of names that the manifest does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Report,
    Ignore,
}

/// Versions with fewer files are checked object by object: listing all of `objects/` would cost more.
const LISTING_PAYS: usize = 500;

/// A manifest of this length has more files than that: a file takes some fifty bytes of it, most of them a hash.
const LONG_MANIFEST_BYTES: u64 = 64 << 10;

/// The bytes of an inode, and its attributes.
struct Hashed {
    content: ContentId,
    xattrs: Option<Box<XattrDigest>>,
}

impl Hashed {
    fn fault(&self, key: &ObjectKey) -> Option<Fault> {
        match self {
            Self { content, .. } if *content != key.content => Some(Fault::Content),
            Self { xattrs, .. } if *xattrs != key.class.xattrs => Some(Fault::Xattrs),
            _ => None,
        }
    }
}

/// Checks versions of one store; remembers which inodes it has read.
pub struct Checker<'a> {
    store: &'a Store,
    depth: Depth,
    from: ReadFrom,
    observer: &'a dyn Observer,
    /// Absent for users who may not look into it.
    objects: Option<Dir>,
    strangers: Strangers,
    /// Made when it first pays.
    proofs: OnceLock<Proofs>,
    passes: AtomicU32,
    /// What was read and is not proved by it: inodes that are no object's, or not what they should be.
    hashed: Mutex<HashMap<(u64, u64), Hashed>>,
    /// Objects that nothing proves: they were found damaged before.
    revoked: Revoked,
    /// Objects that were read and are not what their keys say.
    suspects: Mutex<Suspects>,
    /// Whether there may be more of them, which this user may not see.
    suspects_unseen: AtomicBool,
}

/// What a manifest says of a version, and what should stand where.
pub struct Planned {
    /// Facts about the version.
    pub facts: Facts,
    /// Its digest.
    pub digest: Digest,
    /// Its tree.
    pub plan: Plan,
}

impl Planned {
    /// Reads a version's manifest without holding all of it.
    ///
    /// # Errors
    ///
    /// As [`Manifests::read`].
    pub fn read(manifests: &Manifests, version: &VersionName) -> Result<Self> {
        Self::of_body(manifests, version, &manifests.body(version)?)
    }

    /// The same from a manifest's body, which was read before.
    ///
    /// # Errors
    ///
    /// As [`Manifests::walk_body`].
    pub fn of_body(manifests: &Manifests, version: &VersionName, body: &[u8]) -> Result<Self> {
        let mut planner = Planner::default();
        let (facts, digest) = manifests.walk_body(version, body, |facts, step| planner.step(facts, step))?;
        Ok(Self { facts, digest, plan: planner.finish() })
    }

    /// That of a manifest that was read.
    ///
    /// # Errors
    ///
    /// As [`Plan::of`].
    pub fn of(manifest: &Manifest) -> Result<Self> {
        Ok(Self { facts: manifest.facts.clone(), digest: manifest.digest(), plan: Plan::of(manifest)? })
    }
}

/// Checks one version, and revokes the objects that it finds to be damaged.
///
/// # Errors
///
/// As [`Checker::version`].
pub fn check_version(
    store: &Store,
    version: &Planned,
    depth: Depth,
    expect: Expect,
    marks: &Marks,
    observer: &dyn Observer,
) -> Result<Checked> {
    let checker = Checker::new(store, depth, ReadFrom::Cache, marks, observer)?;
    let checked = checker.version(version, expect)?;
    let unrecorded = store.revoke(&checked.suspects).unrecorded.or_else(|| checker.unrecorded());
    Ok(Checked { unrecorded, ..checked })
}

impl<'a> Checker<'a> {
    /// For checks of this depth; objects that the marks revoke are damaged whatever they look like.
    ///
    /// # Errors
    ///
    /// `objects/` is missing.
    pub fn new(
        store: &'a Store,
        depth: Depth,
        from: ReadFrom,
        marks: &Marks,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let objects = match store.dir().open_dir(layout::OBJECTS) {
            Ok(dir) => Some(dir),
            Err(error) if error.is_io(std::io::ErrorKind::PermissionDenied) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            store,
            depth,
            from,
            observer,
            objects,
            strangers: Strangers::Report,
            proofs: OnceLock::new(),
            passes: AtomicU32::default(),
            hashed: Mutex::default(),
            revoked: Revoked::of(marks),
            suspects: Mutex::default(),
            suspects_unseen: AtomicBool::default(),
        })
    }

    /// The same without looking for names that the manifest does not know, which are no damage: no directory of the
    /// tree has to be listed.
    #[must_use]
    pub fn ignoring_strangers(self) -> Self {
        Self { strangers: Strangers::Ignore, ..self }
    }

    /// Compares a version's tree with its manifest, directories side by side on the store's threads.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; what keeps it from looking at all. What is wrong with the tree is no error.
    pub fn version(&self, version: &Planned, expect: Expect) -> Result<Checked> {
        let Planned { facts: Facts { name, .. }, plan, .. } = version;
        let names: usize = plan.directories.iter().map(|directory| directory.files.len() + 1).sum();
        if names >= LISTING_PAYS {
            self.store.in_pool(|| self.list_objects())?;
        }
        self.observer.stage(Stage::Verify, Some(names as u64));
        let pass = Pass {
            checker: self,
            plan,
            version: name,
            expect,
            number: 1 + self.passes.fetch_add(1, Ordering::Relaxed),
            tally: Tally::default(),
            problems: Mutex::default(),
            failure: OnceLock::new(),
        };
        match self.store.versions().open_dir(name) {
            Ok(top) => self.store.in_pool(|| rayon::scope(|scope| pass.start(scope, 0, top)))?,
            Err(error) => pass.cannot_enter(&TreePath::top(), &error)?,
        }
        pass.finish().map(|checked| Checked { suspects: self.suspects(), ..checked })
    }

    /// Reads a version's manifest, and looks at the objects meanwhile if it is a long one; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it cannot be trusted; the system refuses.
    pub fn read(&self, version: &VersionName) -> Result<Option<Planned>> {
        let manifests = self.store.manifests()?;
        let stat = manifests.stat(version)?;
        let list = || {
            if stat.is_some_and(|stat| stat.size >= LONG_MANIFEST_BYTES) {
                self.list_objects();
            }
        };
        let (planned, ()) = self.store.in_pool(|| rayon::join(|| Planned::read(&manifests, version), list))?;
        match planned {
            Ok(planned) => Ok(Some(planned)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects that were found to be damaged so far.
    pub fn suspects(&self) -> Suspects {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why damage that was found cannot be recorded because this user may not see objects.
    pub fn unrecorded(&self) -> Option<String> {
        let unseen = self.suspects_unseen.load(Ordering::Relaxed);
        self.store.check_user().err().filter(|_| unseen).map(|error| chain(&error))
    }

    /// Takes note of an object's inode that is wrong.
    fn suspect(&self, key: &ObjectKey, stat: &Stat) {
        if self.objects.is_none() {
            // Whether it is the object's is a guess.
            self.suspects_unseen.store(true, Ordering::Relaxed);
            return;
        }
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(Suspect::new(key, stat));
    }

    fn list_objects(&self) {
        if let Some(objects) = &self.objects
            && self.proofs.get().is_none()
        {
            // If another thread was faster, its listing serves as well.
            drop(self.proofs.set(Proofs::read(objects)));
        }
    }

    /// The object of this key in the listing, if there is one and `stat` shows its inode.
    fn listed(&self, key: &ObjectKey, stat: &Stat) -> Option<(&Proofs, Listed)> {
        let proofs = self.proofs.get()?;
        Some((proofs, proofs.of(key, stat)?))
    }

    /// Whether an inode of a tree is the one of this object, which the listing does not say.
    fn is_object(&self, key: &ObjectKey, stat: &Stat) -> Result<bool> {
        match &self.objects {
            Some(objects) => Ok(objects.try_stat(key.path())?.is_some_and(|object| object.same_inode(stat))),
            // Where one may not look, a file with other names is taken for a link to its object.
            None => Ok(stat.links > 1),
        }
    }

    /// Reads an inode unless it was read before, and compares it with a key. If it is that of a listed object and is
    /// what the key says, that is remembered instead of the bytes' hash, as proved by this pass.
    fn content_fault(
        &self,
        (dir, name): (&Dir, &[u8]),
        stat: &Stat,
        key: &ObjectKey,
        listed: Option<(&Proofs, Listed, u32)>,
    ) -> Result<Option<Fault>> {
        if let Some((proofs, object, pass)) = listed.filter(|(proofs, object, _)| proofs.is_proved(*object)) {
            proofs.prove(object, pass);
            return Ok(None);
        }
        let id = (stat.device, stat.inode);
        let lock = || self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashed) = lock().get(&id) {
            return Ok(hashed.fault(key));
        }
        let hashed = self.hash(dir, name, stat)?;
        let fault = hashed.fault(key);
        match listed {
            Some((proofs, object, pass)) if fault.is_none() => proofs.prove(object, pass),
            _ => drop(lock().insert(id, hashed)),
        }
        Ok(fault)
    }

    fn hash(&self, dir: &Dir, name: &[u8], stat: &Stat) -> Result<Hashed> {
        let opened = dir.open_file(name)?;
        let path = || dir.path_of(name);
        let xattrs = digest(&file::xattrs(&opened, path)?);
        if self.from == ReadFrom::Medium {
            file::forget_cached(&opened);
        }
        let (content, size) = hash::whole(&opened, stat.size).map_err(|error| Error::io("read", path(), error))?;
        self.observer.work(Work::ReadBytes, size);
        Ok(Hashed { content, xattrs })
    }
}
