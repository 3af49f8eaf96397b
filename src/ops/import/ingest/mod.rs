//! One pass over a source directory: read, hash, store, link, all at once.
//!
//! Each directory is one task: it opens the source directory, if anything in it has to be read, and makes its
//! counterpart, both from their parents' handles, deals with its files, and starts a task for each directory in it. No two
//! threads work in one directory, so that they do not wait for each other's directory lock. Big files come last, one at
//! a time, hashed by all threads.
//!
//! Without [`Objects`] the pass only hashes: for a dry run, for comparing with a version that exists, and where the
//! exact need must be known before anything is written.

mod assemble;
mod one;
mod origin;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use self::assemble::{assemble, insert, order_placements};
use self::one::One;
use self::origin::{Origin, directories_to_read};
use super::pyc::{self, PycHead, PycPolicy};
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, Stat, file};
use crate::hash::Threads;
use crate::index::StatKey;
use crate::materialise::apply::may_be_dressed_early;
use crate::materialise::plan::shared_target;
use crate::model::glob::PathPatterns;
use crate::model::{
    ContentId, Entry, Metadata, ObjectKey, Ownership, Placement, PlacementKind, TreeId, TreePath, TreeSet,
};
use crate::object::Objects;
use crate::object::map::ObjectMap;
use crate::observe::{self, Observer, Work};
use crate::scan::{Scan, in_source};
use crate::store::source_cache::CachedContent;

/// Files above this size are dealt with one at a time by all threads.
const BIG_BYTES: u64 = 32 << 20;

/// What does not change during the pass.
pub(super) struct Ingest<'a> {
    pub(super) scan: &'a Scan,
    /// The top of what was scanned.
    pub(super) source: &'a Dir,
    /// Where to store; without it the pass only hashes.
    pub(super) objects: Option<&'a Objects<'a>>,
    pub(super) ownership: Ownership,
    pub(super) rules: &'a Rules,
    /// Contents of files that were read before and have not changed since, by positions of directory and file.
    pub(super) cached: &'a (dyn Fn(usize, usize) -> Option<CachedContent> + Sync),
    /// Objects by inode, for sources that were built on links to them.
    pub(super) own_inodes: &'a (dyn Fn(&Stat) -> Option<ObjectKey> + Sync),
    /// Whether an inode that is as it was seen can be told from one that was changed since.
    pub(super) settled: &'a (dyn Fn(&Stat) -> bool + Sync),
    pub(super) private: PrivateFiles,
    pub(super) tally: &'a Tally,
    pub(super) observer: &'a dyn Observer,
}

/// How files are placed that a service writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::ops) enum PrivateFiles {
    /// Copied: the source stays what it is.
    Copied,
    /// Linked to the source: who has them open goes on writing to what stands in the new tree.
    LinkedToSource,
}

/// The choices of the user that concern single files.
pub(super) struct Rules {
    /// Owner to record instead of the source's.
    pub(super) owner: Option<(u32, u32)>,
    /// No object gets a later modification time than this.
    pub(super) latest_mtime: Option<i64>,
    /// Stands in for a modification time that is zero or less.
    pub(super) now: i64,
    pub(super) pyc: PycPolicy,
    pub(super) private: PathPatterns,
    pub(super) shared: PathPatterns,
}

impl Rules {
    /// The modification time that a new object gets.
    pub(super) fn mtime(&self, stat: (i64, u32)) -> (i64, u32) {
        self.clamp(if stat.0 <= 0 { (self.now.max(1), 0) } else { stat })
    }

    fn clamp(&self, mtime: (i64, u32)) -> (i64, u32) {
        match self.latest_mtime {
            Some(latest) if mtime.0 >= latest => (latest.max(1), 0),
            _ => mtime,
        }
    }
}

/// What the pass found.
pub(super) struct Ingested {
    pub(super) root: TreeId,
    pub(super) trees: TreeSet,
    pub(super) placements: Vec<Placement>,
    pub(super) shared: Vec<TreePath>,
    /// Files that were read, for the stat cache.
    pub(super) read: Vec<(StatKey, ContentId)>,
    /// All objects, where the pass only hashed; their times mean nothing.
    pub(super) needed: ObjectMap,
}

/// What one directory came to.
struct Done {
    metadata: Metadata,
    /// Files and symbolic links.
    entries: Vec<Entry>,
    /// One per non-empty file, in order of names.
    placements: Vec<Placement>,
}

struct Pass<'a> {
    ingest: &'a Ingest<'a>,
    done: Vec<OnceLock<Done>>,
    /// Big files, to be dealt with at the end.
    big: Mutex<Vec<Big>>,
    /// Directories whose metadata would change what is made in them later. By position: a handle for each could be
    /// more than a process may have.
    late: Mutex<Vec<(usize, Metadata)>>,
    shared: Mutex<Vec<TreePath>>,
    read: Mutex<Vec<(StatKey, ContentId)>>,
    needed: Mutex<ObjectMap>,
    /// By position: whether anything in the directory or below it has to be read.
    to_read: Vec<bool>,
    failure: OnceLock<Error>,
}

struct Big {
    directory: usize,
    file: usize,
    target: Option<Arc<Dir>>,
    kind: PlacementKind,
}

/// The two sides of a directory that is being worked on.
#[derive(Clone)]
struct Sides {
    /// Absent if nothing in it or below it has to be read.
    source: Option<Arc<Dir>>,
    /// Absent if nothing is materialised here.
    target: Option<Arc<Dir>>,
    /// Whether it lies below a shared path.
    shared: bool,
}

/// Reads, hashes and (with objects) stores and links everything below `source`.
///
/// Runs on the thread pool it is called from.
pub(super) fn run(ingest: &Ingest<'_>, target: Option<Dir>) -> Result<Ingested> {
    let pass = Pass {
        ingest,
        done: ingest.scan.directories.iter().map(|_| OnceLock::new()).collect(),
        big: Mutex::default(),
        late: Mutex::default(),
        shared: Mutex::default(),
        read: Mutex::default(),
        needed: Mutex::default(),
        to_read: directories_to_read(ingest),
        failure: OnceLock::new(),
    };
    let target = target.map(Arc::new);
    let top = Sides { source: Some(Arc::new(ingest.source.try_clone()?)), target: target.clone(), shared: false };
    rayon::scope(|scope| pass.start(scope, 0, top));
    let mut late_files = Vec::new();
    for big in inner(pass.big) {
        if pass.failure.get().is_some() {
            break;
        }
        let file = &ingest.scan.directories[big.directory].files[big.file];
        let path = &ingest.scan.directories[big.directory].path;
        let origin = Origin::new(ingest.source, path, None);
        let one = One::new(ingest, &pass.needed, &origin, path, Threads::All);
        let cached = (ingest.cached)(big.directory, big.file);
        match one.regular(big.target.as_deref(), file, cached, big.kind, None) {
            Ok((entry, placement)) => late_files.push((big.directory, entry, placement)),
            Err(error) => drop(pass.failure.set(error)),
        }
        locked(&pass.read).append(&mut one.into_read());
    }
    if let Some(error) = pass.failure.into_inner() {
        return Err(error);
    }
    if let (Some(objects), Some(target)) = (ingest.objects, target) {
        let mut late = inner(pass.late);
        late.sort_unstable_by_key(|(at, _)| *at);
        // Deepest first: a directory that may not be entered any longer comes after what is in it.
        for (at, metadata) in late.into_iter().rev() {
            let dir = target.open_below(&ingest.scan.directories[at].path)?;
            dress_directory(&dir, &metadata, objects)?;
        }
    }
    let mut done: Vec<Done> = pass.done.into_iter().filter_map(OnceLock::into_inner).collect();
    for (directory, entry, placement) in late_files {
        insert(&mut done[directory], entry, placement);
    }
    let placements = order_placements(ingest.scan, &done);
    let (root, trees) = assemble(ingest.scan, done)?;
    let mut shared = inner(pass.shared);
    shared.sort_unstable();
    Ok(Ingested { root, trees, placements, shared, read: inner(pass.read), needed: inner(pass.needed) })
}

fn inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives a finished directory its recorded mode, owner and attributes.
fn dress_directory(dir: &Dir, applied: &Metadata, objects: &Objects<'_>) -> Result<()> {
    let path = || dir.path().to_owned();
    file::dress(dir, applied, objects.fresh(), path)?;
    // Made with 0700, whatever it is to be in the end.
    file::set_mode(dir, applied.mode, path)
}

impl<'a> Pass<'a> {
    fn start<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, sides: Sides)
    where
        'a: 's,
    {
        if self.failure.get().is_some() {
            return;
        }
        if let Err(error) = self.directory(scope, at, &sides) {
            drop(self.failure.set(error));
        }
    }

    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, sides: &Sides) -> Result<()>
    where
        'a: 's,
    {
        let ingest = self.ingest;
        let directory = &ingest.scan.directories[at];
        observe::check(ingest.observer)?;
        let xattrs = directory.xattrs.clone();
        let (uid, gid) = ingest.rules.owner.unwrap_or((directory.stat.uid, directory.stat.gid));
        let metadata = Metadata { xattrs, ..Metadata::new(directory.stat.mode, uid, gid) };
        let mut inner_sides = Vec::with_capacity(directory.children.len());
        for &child in &directory.children {
            inner_sides.push((child, self.open_child(child, sides)?));
        }
        let mut done = Done { metadata, entries: Vec::with_capacity(directory.files.len()), placements: Vec::new() };
        self.files(at, sides, &mut done)?;
        if let Some(target) = &sides.target
            && at != 0
        {
            self.dress(at, target, &done.metadata)?;
        }
        drop(self.done[at].set(done));
        for (child, sides) in inner_sides {
            scope.spawn(move |scope| match self.enter(child, sides) {
                Ok(sides) => self.start(scope, child, sides),
                Err(error) => drop(self.failure.set(error)),
            });
        }
        Ok(())
    }

    /// Makes a child's counterpart. Its handles are opened only when its turn comes, so that a directory with very
    /// many children does not take as many handles.
    fn open_child(&self, child: usize, sides: &Sides) -> Result<Sides> {
        let directory = &self.ingest.scan.directories[child];
        let name = directory.path.components().last().unwrap_or_default();
        if !sides.shared && self.ingest.rules.shared.matches(&directory.path) {
            if let Some(target) = &sides.target {
                self.link_shared(&directory.path, target, name, &directory.stat)?;
            }
            return Ok(Sides { source: sides.source.clone(), target: None, shared: true });
        }
        let Some(target) = &sides.target else { return Ok(sides.clone()) };
        let (uid, gid) = self.ingest.rules.owner.unwrap_or((directory.stat.uid, directory.stat.gid));
        let applied = self.ingest.ownership.apply(&Metadata::new(directory.stat.mode, uid, gid));
        let mode = if may_be_dressed_early(&applied) { applied.mode } else { 0o700 };
        target.make_dir(name, mode)?;
        Ok(sides.clone())
    }

    /// Opens both sides of a child from its parent's.
    fn enter(&self, child: usize, parent: Sides) -> Result<Sides> {
        let directory = &self.ingest.scan.directories[child];
        let name = directory.path.components().last().unwrap_or_default();
        let source = parent.source.filter(|_| self.to_read[child]).map(|source| source.open_dir(name)).transpose();
        let source = source.map_err(|error| in_source(&directory.path, &error))?;
        let target = parent.target.map(|target| target.open_dir(name)).transpose()?;
        Ok(Sides { source: source.map(Arc::new), target: target.map(Arc::new), shared: parent.shared })
    }

    fn link_shared(&self, path: &TreePath, target: &Dir, name: &[u8], stat: &Stat) -> Result<()> {
        let (uid, gid) = self.ingest.rules.owner.unwrap_or((stat.uid, stat.gid));
        let applied = self.ingest.ownership.apply(&Metadata::new(0o777, uid, gid));
        let own = self.ingest.objects.is_some_and(|objects| objects.fresh().belongs_to(applied.uid, applied.gid));
        target.symlink_owned(shared_target(path), name, (!own).then_some((applied.uid, applied.gid)))?;
        locked(&self.shared).push(path.clone());
        Ok(())
    }

    fn files(&self, at: usize, sides: &Sides, done: &mut Done) -> Result<()> {
        let ingest = self.ingest;
        let directory = &ingest.scan.directories[at];
        let origin = Origin::new(ingest.source, &directory.path, sides.source.clone());
        let heads = self.pyc_heads(at, &origin);
        let one = One::new(ingest, &self.needed, &origin, &directory.path, Threads::One);
        let paths_matter = !ingest.rules.shared.is_empty() || !ingest.rules.private.is_empty();
        for (number, file) in directory.files.iter().enumerate() {
            observe::check(ingest.observer)?;
            let mut target = sides.target.as_deref();
            let path = if paths_matter { directory.path.join(&file.name) } else { TreePath::top() };
            let kind = if sides.shared {
                PlacementKind::Shared
            } else if !paths_matter {
                PlacementKind::Object
            } else if ingest.rules.shared.matches(&path) {
                if let Some(dir) = target.take() {
                    self.link_shared(&path, dir, file.name.as_bytes(), &file.stat)?;
                }
                PlacementKind::Shared
            } else if ingest.rules.private.covers(&path) {
                PlacementKind::Private
            } else {
                PlacementKind::Object
            };
            if file.stat.kind == Kind::Symlink {
                done.entries.push(one.symlink(target, file)?);
            } else if file.stat.size > BIG_BYTES {
                let target = target.and(sides.target.clone());
                locked(&self.big).push(Big { directory: at, file: number, target, kind });
            } else {
                let (cached, heads) = ((ingest.cached)(at, number), heads.get(file.name.as_bytes()));
                let (entry, placement) = one.regular(target, file, cached, kind, heads)?;
                done.entries.push(entry);
                done.placements.extend(placement);
            }
            ingest.observer.work(Work::Files, 1);
        }
        let mut read = one.into_read();
        if !read.is_empty() {
            locked(&self.read).append(&mut read);
        }
        Ok(())
    }

    fn pyc_heads(&self, at: usize, origin: &Origin<'_>) -> HashMap<Vec<u8>, Vec<PycHead>> {
        let directory = &self.ingest.scan.directories[at];
        let cache = directory
            .children
            .iter()
            .map(|child| &self.ingest.scan.directories[*child])
            .find(|child| child.path.components().last() == Some(pyc::CACHE_DIRECTORY));
        match cache {
            Some(cache) if self.ingest.rules.pyc == PycPolicy::Pin => {
                match origin.dir().and_then(|source| source.open_dir(pyc::CACHE_DIRECTORY)) {
                    Ok(dir) => pyc::heads(&dir, cache.files.iter().map(|file| &file.name)),
                    Err(_) => HashMap::new(),
                }
            }
            _ => HashMap::new(),
        }
    }

    fn dress(&self, at: usize, target: &Dir, recorded: &Metadata) -> Result<()> {
        let Some(objects) = self.ingest.objects else { return Ok(()) };
        let applied = self.ingest.ownership.apply(recorded);
        if may_be_dressed_early(&applied) {
            return file::dress(target, &applied, objects.fresh(), || target.path().to_owned());
        }
        locked(&self.late).push((at, applied));
        Ok(())
    }
}
