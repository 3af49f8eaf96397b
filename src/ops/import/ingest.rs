//! One pass over a source directory: read, hash, store, link, all at once.
//!
//! Each directory is one task: it opens the source directory and makes its counterpart from their parents' handles,
//! deals with its files, and starts a task for each directory in it. No two threads work in one directory, so that
//! they do not wait for each other's directory lock. Big files come last, one at a time, hashed by all threads.
//!
//! Without [`Objects`] the pass only hashes: for a dry run, for comparing with a version that exists, and where the
//! exact need must be known before anything is written.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::Interruptible;
use super::pyc::{self, PycHead, PycPolicy};
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::fsys::dir::stat_file;
use crate::fsys::{Dir, Kind, Stat, file, system};
use crate::hash::{self, Threads};
use crate::materialise::apply::may_be_dressed_early;
use crate::materialise::plan::shared_target;
use crate::model::glob::PathPatterns;
use crate::model::{
    ContentId, Entry, Metadata, Node, ObjectKey, Ownership, Placement, PlacementKind, Sealed, Tree, TreeId, TreePath,
    TreeSet, Xattrs,
};
use crate::object::place::{Dress, Placed, Spot};
use crate::object::{Objects, Recorded};
use crate::observe::{self, Observer, Work};
use crate::scan::{Scan, ScanFile, in_source};

/// Files above this size are dealt with one at a time by all threads.
const BIG_BYTES: u64 = 32 << 20;
/// How often a file that changes while it is read is read again.
const READ_ATTEMPTS: usize = 3;

/// File times are as coarse as the kernel's tick: ten milliseconds at most.
const TICK_NANOSECONDS: u64 = 20_000_000;

/// What does not change during the pass.
pub(super) struct Ingest<'a> {
    pub(super) scan: &'a Scan,
    /// Where to store; without it the pass only hashes.
    pub(super) objects: Option<&'a Objects<'a>>,
    pub(super) ownership: Ownership,
    pub(super) rules: &'a Rules,
    /// Contents of files that were read before and have not changed since.
    pub(super) cached: &'a (dyn Fn(&Stat) -> Option<ContentId> + Sync),
    /// Objects by inode, for sources that were built on links to them.
    pub(super) own_inodes: &'a (dyn Fn(&Stat) -> Option<ObjectKey> + Sync),
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
    pub(super) read: Vec<(Stat, ContentId)>,
    /// Keys and sizes of all objects, where the pass only hashed.
    pub(super) needed: HashMap<ObjectKey, u64>,
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
    read: Mutex<Vec<(Stat, ContentId)>>,
    needed: Mutex<HashMap<ObjectKey, u64>>,
    failure: OnceLock<Error>,
}

struct Big {
    directory: usize,
    file: usize,
    source: Arc<Dir>,
    target: Option<Arc<Dir>>,
    kind: PlacementKind,
}

/// The two sides of a directory that is being worked on.
#[derive(Clone)]
struct Sides {
    source: Arc<Dir>,
    /// Absent if nothing is materialised here.
    target: Option<Arc<Dir>>,
    /// Whether it lies below a shared path.
    shared: bool,
}

/// Reads, hashes and (with objects) stores and links everything below `source`.
///
/// Runs on the thread pool it is called from.
pub(super) fn run(ingest: &Ingest<'_>, source: &Dir, target: Option<Dir>) -> Result<Ingested> {
    let pass = Pass {
        ingest,
        done: ingest.scan.directories.iter().map(|_| OnceLock::new()).collect(),
        big: Mutex::default(),
        late: Mutex::default(),
        shared: Mutex::default(),
        read: Mutex::default(),
        needed: Mutex::default(),
        failure: OnceLock::new(),
    };
    let target = target.map(Arc::new);
    let top = Sides { source: Arc::new(source.try_clone()?), target: target.clone(), shared: false };
    rayon::scope(|scope| pass.start(scope, 0, top));
    let mut late_files = Vec::new();
    for big in inner(pass.big) {
        if pass.failure.get().is_some() {
            break;
        }
        let file = &ingest.scan.directories[big.directory].files[big.file];
        let path = &ingest.scan.directories[big.directory].path;
        let one = One { ingest, read: &pass.read, needed: &pass.needed, path, threads: Threads::All };
        match one.regular(&big.source, big.target.as_deref(), file, big.kind, None) {
            Ok((entry, placement)) => late_files.push((big.directory, entry, placement)),
            Err(error) => drop(pass.failure.set(error)),
        }
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
        let xattrs = file::xattrs(&*sides.source, || sides.source.path().to_owned())
            .map_err(|error| in_source(&directory.path, &error))?;
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
            return Ok(Sides { source: Arc::clone(&sides.source), target: None, shared: true });
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
        let source = parent.source.open_dir(name).map_err(|error| in_source(&directory.path, &error))?;
        let target = parent.target.map(|target| target.open_dir(name)).transpose()?;
        Ok(Sides { source: Arc::new(source), target: target.map(Arc::new), shared: parent.shared })
    }

    fn link_shared(&self, path: &TreePath, target: &Dir, name: &[u8], stat: &Stat) -> Result<()> {
        target.symlink(shared_target(path), name)?;
        let (uid, gid) = self.ingest.rules.owner.unwrap_or((stat.uid, stat.gid));
        let applied = self.ingest.ownership.apply(&Metadata::new(0o777, uid, gid));
        if !self.ingest.objects.is_some_and(|objects| objects.fresh().belongs_to(applied.uid, applied.gid)) {
            target.set_owner(name, applied.uid, applied.gid)?;
        }
        locked(&self.shared).push(path.clone());
        Ok(())
    }

    fn files(&self, at: usize, sides: &Sides, done: &mut Done) -> Result<()> {
        let ingest = self.ingest;
        let directory = &ingest.scan.directories[at];
        let heads = self.pyc_heads(at, &sides.source);
        let one = One { ingest, read: &self.read, needed: &self.needed, path: &directory.path, threads: Threads::One };
        for (number, file) in directory.files.iter().enumerate() {
            observe::check(ingest.observer)?;
            let path = directory.path.join(&file.name);
            let mut target = sides.target.as_deref();
            let kind = if sides.shared {
                PlacementKind::Shared
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
                done.entries.push(one.symlink(&sides.source, target, file)?);
            } else if file.stat.size > BIG_BYTES {
                let (source, target) = (Arc::clone(&sides.source), target.and(sides.target.clone()));
                locked(&self.big).push(Big { directory: at, file: number, source, target, kind });
            } else {
                let (entry, placement) =
                    one.regular(&sides.source, target, file, kind, heads.get(file.name.as_bytes()))?;
                done.entries.push(entry);
                done.placements.extend(placement);
            }
            ingest.observer.work(Work::Files, 1);
        }
        Ok(())
    }

    fn pyc_heads(&self, at: usize, source: &Dir) -> HashMap<Vec<u8>, Vec<PycHead>> {
        let directory = &self.ingest.scan.directories[at];
        let cache = directory
            .children
            .iter()
            .map(|child| &self.ingest.scan.directories[*child])
            .find(|child| child.path.components().last() == Some(pyc::CACHE_DIRECTORY));
        match cache {
            Some(cache) if self.ingest.rules.pyc == PycPolicy::Pin => match source.open_dir(pyc::CACHE_DIRECTORY) {
                Ok(dir) => pyc::heads(&dir, cache.files.iter().map(|file| &file.name)),
                Err(_) => HashMap::new(),
            },
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

/// Whether an inode changed so lately that its times would be the same after another change.
fn just_changed(stat: &Stat) -> bool {
    let nanoseconds = |time: (i64, u32)| i128::from(time.0) * 1_000_000_000 + i128::from(time.1);
    let age = nanoseconds(system::file_time_now()) - nanoseconds(stat.ctime);
    // Times that lie ahead are a clock that was set back.
    age.unsigned_abs() < u128::from(TICK_NANOSECONDS)
}

/// What is needed for one file.
struct One<'a> {
    ingest: &'a Ingest<'a>,
    read: &'a Mutex<Vec<(Stat, ContentId)>>,
    needed: &'a Mutex<HashMap<ObjectKey, u64>>,
    /// The directory it is in.
    path: &'a TreePath,
    threads: Threads,
}

impl One<'_> {
    fn error(&self, file: &ScanFile, error: &Error) -> Error {
        in_source(&self.path.join(&file.name), error)
    }

    fn metadata(&self, stat: &Stat, xattrs: Xattrs) -> Metadata {
        let (uid, gid) = self.ingest.rules.owner.unwrap_or((stat.uid, stat.gid));
        Metadata { xattrs, ..Metadata::new(stat.mode, uid, gid) }
    }

    fn symlink(&self, source: &Dir, target: Option<&Dir>, file: &ScanFile) -> Result<Entry> {
        let link = source.read_link(&file.name).map_err(|error| self.error(file, &error))?;
        let metadata = Metadata { mode: 0o777, ..self.metadata(&file.stat, Xattrs::none()) };
        if let (Some(target), Some(objects)) = (target, self.ingest.objects) {
            target.symlink(&link, &file.name)?;
            let applied = self.ingest.ownership.apply(&metadata);
            if !objects.fresh().belongs_to(applied.uid, applied.gid) {
                target.set_owner(&file.name, applied.uid, applied.gid)?;
            }
        }
        self.ingest.tally.symlinks.add(1);
        Ok(Entry { name: file.name.clone(), metadata, node: Node::Symlink { target: link.into() } })
    }

    fn regular(
        &self,
        source: &Dir,
        target: Option<&Dir>,
        file: &ScanFile,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Result<(Entry, Option<Placement>)> {
        if let Some(unread) = self.without_reading(target, file, kind, heads)? {
            return Ok(unread);
        }
        let opened = source.open_file(&file.name).map_err(|error| self.error(file, &error))?;
        let mut before = file.stat;
        for round in 0..READ_ATTEMPTS {
            if round > 0 {
                rewind(&opened).map_err(|error| self.error(file, &Error::io("read", "", error)))?;
            }
            if just_changed(&before) {
                // What is written to it in the same tick would not show.
                std::thread::sleep(Duration::from_millis(TICK_NANOSECONDS / 1_000_000));
                let now =
                    stat_file(&opened, || source.path_of(&file.name)).map_err(|error| self.error(file, &error))?;
                if now.kind == Kind::File && !before.unchanged(&now) {
                    before = now;
                    continue;
                }
            }
            let attempt = self.read_once(&opened, target, file, &before, kind, heads);
            let after = stat_file(&opened, || source.path_of(&file.name)).map_err(|error| self.error(file, &error))?;
            if after.kind != Kind::File {
                // Something else took its name between looking and opening.
                break;
            }
            let attempt = attempt?;
            if before.unchanged(&after)
                && let Some(attempt) = attempt
            {
                return self.finish(Some(source), target, file, &before, attempt, kind);
            }
            if let (Some(target), Some(_)) = (target, self.ingest.objects) {
                target.remove_file_if_present(&file.name)?;
            }
            before = after;
        }
        let problem = "changed while it was being read; import a copy, or when nobody writes to it any longer";
        Err(Error::source(self.path.join(&file.name), problem))
    }

    /// Deals with a file whose bytes are known without reading them.
    fn without_reading(
        &self,
        target: Option<&Dir>,
        file: &ScanFile,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Result<Option<(Entry, Option<Placement>)>> {
        let own = (self.ingest.own_inodes)(&file.stat).filter(|key| key.class.xattrs.is_none());
        let content = match own {
            Some(key) => Some(key.content),
            None => (self.ingest.cached)(&file.stat),
        };
        // Only what can be linked as it stands is worth it; everything else is rare and read.
        let Some(content) = content.filter(|_| kind == PlacementKind::Object && file.stat.size > 0) else {
            return Ok(None);
        };
        let metadata = self.metadata(&file.stat, Xattrs::none());
        let sealed = self.seal(&metadata, file, &file.stat, kind, heads);
        let key = ObjectKey { content, class: sealed.class.clone() };
        let placed = match (self.ingest.objects, target) {
            (Some(objects), Some(dir)) => objects.place_known(&key, Spot { dir, name: file.name.as_bytes() })?,
            _ => {
                locked(self.needed).insert(key.clone(), file.stat.size);
                let recorded = Recorded { size: file.stat.size, mtime: (0, 0) };
                Some(Placed { key, recorded, how: crate::object::place::How::Linked })
            }
        };
        let Some(placed) = placed else { return Ok(None) };
        self.ingest.tally.unread_files.add(1);
        let pinned = placed.key.class.mtime.is_some();
        let attempt = Attempt { content, size: file.stat.size, metadata, pinned, placed: Some(placed) };
        self.finish(None, target, file, &file.stat, attempt, kind).map(Some)
    }

    fn seal(
        &self,
        metadata: &Metadata,
        file: &ScanFile,
        stat: &Stat,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Sealed {
        let fits = |heads: &Vec<PycHead>| heads.iter().any(|head| head.fits(stat.mtime.0, stat.size));
        let kept = self.ingest.rules.mtime(stat.mtime).0 == stat.mtime.0;
        let source = kind == PlacementKind::Object && stat.size > 0 && file.name.as_bytes().ends_with(b".py");
        let pinned = source && kept && heads.is_some_and(fits);
        Sealed::of(&self.ingest.ownership.apply(metadata), pinned.then_some(stat.mtime.0))
    }

    /// Reads, hashes and stores once; `None` if the file plainly changed.
    fn read_once(
        &self,
        opened: &File,
        target: Option<&Dir>,
        file: &ScanFile,
        stat: &Stat,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Result<Option<Attempt>> {
        let unreadable = |error: std::io::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => self.error(file, &Error::io("read", std::path::Path::new(""), error)),
        };
        let path = || std::path::PathBuf::new();
        let xattrs = file::xattrs(opened, path).map_err(|error| self.error(file, &error))?;
        let metadata = self.metadata(stat, xattrs);
        let sealed = self.seal(&metadata, file, stat, kind, heads);
        let pinned = sealed.class.mtime.is_some();
        let dress = Dress { sealed: &sealed, mtime: self.ingest.rules.mtime(stat.mtime), threads: self.threads };
        if stat.size == 0 {
            return Ok(Some(Attempt { content: ContentId::empty(), size: 0, metadata, pinned, placed: None }));
        }
        let Some(objects) = self.ingest.objects else {
            let (content, size) =
                hash::stream(Interruptible::new(opened, self.ingest.observer), self.threads).map_err(unreadable)?;
            locked(self.needed).insert(ObjectKey { content, class: sealed.class.clone() }, size);
            return Ok((size == stat.size).then_some(Attempt { content, size, metadata, pinned, placed: None }));
        };
        // A private or shared file's bytes are kept as an object that is made aside.
        let aside = match target {
            Some(_) if kind == PlacementKind::Object => None,
            _ => Some(objects.aside()),
        };
        let spot = match (&aside, target) {
            (Some((dir, name)), _) => Spot { dir, name: name.as_bytes() },
            (None, Some(dir)) => Spot { dir, name: file.name.as_bytes() },
            (None, None) => return Ok(None),
        };
        let placed = if stat.size <= hash::WHOLE_BYTES {
            with_buffer(|buffer| {
                hash::read_whole(opened, stat.size, buffer).map_err(unreadable)?;
                if buffer.len() as u64 != stat.size {
                    return Ok(None);
                }
                objects.place_bytes(buffer, ContentId::of(buffer), dress, spot).map(Some)
            })?
        } else {
            Some(self.place_large(objects, opened, stat, dress, spot, &unreadable)?)
        };
        if let Some((dir, name)) = &aside {
            dir.remove_file_if_present(name)?;
        }
        Ok(placed.map(|placed| Attempt {
            content: placed.key.content,
            size: placed.recorded.size,
            metadata,
            pinned,
            placed: Some(placed),
        }))
    }

    /// A file that does not fit into a buffer: by sharing its blocks; else, if its bytes may be there already, hashed
    /// first and copied only if they are not; else hashed while it is copied.
    fn place_large(
        &self,
        objects: &Objects<'_>,
        opened: &File,
        stat: &Stat,
        dress: Dress<'_>,
        spot: Spot<'_>,
        unreadable: &dyn Fn(std::io::Error) -> Error,
    ) -> Result<Placed> {
        if let Some(placed) = objects.place_clone(opened, dress, spot)? {
            return Ok(placed);
        }
        if objects.may_have_size(stat.size) {
            let (content, _) =
                hash::stream(Interruptible::new(opened, self.ingest.observer), self.threads).map_err(unreadable)?;
            let key = ObjectKey { content, class: dress.sealed.class.clone() };
            if let Some(placed) = objects.place_known(&key, spot)? {
                return Ok(placed);
            }
            rewind(opened).map_err(unreadable)?;
        }
        objects.place_stream(&mut Interruptible::new(opened, self.ingest.observer), dress, spot, unreadable)
    }

    /// Counts, and makes what is not a link to an object: empty files and private copies.
    fn finish(
        &self,
        source: Option<&Dir>,
        target: Option<&Dir>,
        file: &ScanFile,
        stat: &Stat,
        attempt: Attempt,
        kind: PlacementKind,
    ) -> Result<(Entry, Option<Placement>)> {
        let Attempt { content, size, metadata, pinned, placed } = attempt;
        let tally = self.ingest.tally;
        tally.files.add(1);
        tally.total_bytes.add(size);
        if metadata.mode & 0o6000 != 0 || metadata.xattrs.has_capability() {
            tally.setid_files.add(1);
        }
        if size > 0 && placed.as_ref().is_some_and(|placed| !matches!(placed.how, crate::object::place::How::Linked)) {
            self.ingest.observer.work(Work::WrittenBytes, size);
        }
        if let (Some(objects), Some(target)) = (self.ingest.objects, target) {
            let applied = self.ingest.ownership.apply(&metadata);
            let spot = Spot { dir: target, name: file.name.as_bytes() };
            let source = source.filter(|_| kind == PlacementKind::Private);
            match (&placed, kind) {
                _ if source.is_some_and(|source| self.link_to_source(source, file, stat, spot)) => {}
                (None, _) => {
                    let dressed =
                        if kind == PlacementKind::Private { applied } else { Sealed::of(&applied, None).metadata };
                    objects.place_empty(&dressed, self.ingest.rules.mtime(stat.mtime), spot)?;
                }
                (Some(placed), PlacementKind::Private) => {
                    objects.place_private(&placed.key, &applied, placed.recorded, spot)?;
                }
                (Some(_), _) => {}
            }
        }
        let node = Node::File { content, size };
        let entry = Entry { name: file.name.clone(), metadata, node };
        if size == 0 {
            return Ok((entry, None));
        }
        if entry.metadata.xattrs.is_empty() {
            locked(self.read).push((*stat, content));
        }
        if pinned {
            tally.pinned_files.add(1);
            tally.pinned_bytes.add(size);
        }
        tally.private_files.add(u64::from(kind == PlacementKind::Private));
        let Some(placed) = placed else { return Ok((entry, Some(UNPLACED))) };
        tally.placed(&placed);
        let kind = if kind == PlacementKind::Object && pinned { PlacementKind::PinnedMtime } else { kind };
        let (mtime_seconds, mtime_nanoseconds) = placed.recorded.mtime;
        Ok((entry, Some(Placement { kind, mtime_seconds, mtime_nanoseconds })))
    }
}

impl One<'_> {
    /// Gives a private file of the source a second name in the tree. Not one that has other names already: those may be
    /// objects.
    fn link_to_source(&self, source: &Dir, file: &ScanFile, stat: &Stat, spot: Spot<'_>) -> bool {
        self.ingest.private == PrivateFiles::LinkedToSource
            && stat.links == 1
            && source.link(&file.name, spot.dir, spot.name).is_ok()
    }
}

/// Stands where nothing was placed because the pass only hashed.
const UNPLACED: Placement = Placement { kind: PlacementKind::Object, mtime_seconds: 0, mtime_nanoseconds: 0 };

/// What reading a file came to.
struct Attempt {
    content: ContentId,
    size: u64,
    metadata: Metadata,
    /// Whether its modification time is part of its key.
    pinned: bool,
    /// Absent for empty files, and where the pass only hashes.
    placed: Option<Placed>,
}

fn rewind(mut file: &File) -> std::io::Result<()> {
    std::io::Seek::rewind(&mut file)
}

/// Lends a buffer that this thread keeps from file to file.
fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local!(static BUFFER: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) });
    let mut buffer = BUFFER.take();
    let result = work(&mut buffer);
    BUFFER.set(buffer);
    result
}

fn insert(done: &mut Done, entry: Entry, placement: Option<Placement>) {
    let by_name = |other: &Entry| other.name.cmp(&entry.name);
    let at = done.entries.binary_search_by(by_name).unwrap_or_else(|at| at);
    let placed_before =
        done.entries[..at].iter().filter(|entry| matches!(entry.node, Node::File { size: 1.., .. })).count();
    done.entries.insert(at, entry);
    if let Some(placement) = placement {
        done.placements.insert(placed_before, placement);
    }
}

/// Makes the trees, deepest first.
fn assemble(scan: &Scan, mut done: Vec<Done>) -> Result<(TreeId, TreeSet)> {
    let mut trees = TreeSet::default();
    let mut ids: Vec<Option<TreeId>> = vec![None; done.len()];
    for (at, directory) in scan.directories.iter().enumerate().rev() {
        let mut entries = std::mem::take(&mut done[at].entries);
        for &child in &directory.children {
            let name = directory_name(&scan.directories[child].path)?;
            let tree = ids[child].expect("children come after their parents in a scan, so they are done");
            entries.push(Entry { name, metadata: done[child].metadata.clone(), node: Node::Directory { tree } });
        }
        let tree = Tree::new(entries).map_err(|error| Error::source(&directory.path, error.to_string()))?;
        ids[at] = Some(trees.insert(tree));
    }
    let root = ids[0].expect("a scan has a top");
    Ok((root, trees))
}

fn directory_name(path: &TreePath) -> Result<crate::model::EntryName> {
    let name = path.components().last().unwrap_or_default();
    crate::model::EntryName::new(name).map_err(|error| Error::source(path, error.to_string()))
}

/// Placements in the order in which a tree is walked.
fn order_placements(scan: &Scan, done: &[Done]) -> Vec<Placement> {
    enum Step {
        File,
        Directory(usize),
    }
    let steps = |at: usize| {
        let files = done[at].entries.iter().filter(|entry| matches!(entry.node, Node::File { size: 1.., .. }));
        let mut steps: Vec<(&[u8], Step)> = files.map(|entry| (entry.name.as_bytes(), Step::File)).collect();
        let children = scan.directories[at].children.iter();
        steps.extend(children.map(|&child| {
            (scan.directories[child].path.components().last().unwrap_or_default(), Step::Directory(child))
        }));
        steps.sort_unstable_by(|a, b| a.0.cmp(b.0));
        steps.into_iter()
    };
    let mut placements = Vec::new();
    let mut stack = vec![(steps(0), done[0].placements.iter())];
    while let Some((level, placed)) = stack.last_mut() {
        match level.next() {
            Some((_, Step::File)) => placements.extend(placed.next()),
            Some((_, Step::Directory(child))) => stack.push((steps(child), done[child].placements.iter())),
            None => drop(stack.pop()),
        }
    }
    placements
}
