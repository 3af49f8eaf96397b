//! Importing an archive: a stream that is read once.
//!
//! One thread reads and decompresses; small files are hashed and stored by the others meanwhile, big ones on the way.
//! Contents become objects as they pass. Only when the stream has ended well is the tree made, of links.
//!
//! Whether a Python source shares its object with other releases depends on compiled files that may come after it. So
//! its bytes wait in staging, and become an object when all heads are known.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::pyc::{self, PycHead, PycPolicy};
use super::tally::Tally;
use super::{Interruptible, Job, Mode, Passed, Report, Warning, publish};
use crate::archive::{self, Built, FileId, Input, Member, MemberKind, Summary, TreeBuilder};
use crate::error::{Error, Result};
use crate::fsys::{Space, file};
use crate::hash::{self, Threads};
use crate::layout;
use crate::materialise::plan::{Contents, Plan, What};
use crate::materialise::{Inodes, apply, plan};
use crate::model::{
    ContentId, Digest, Entry, Node, ObjectKey, Placement, PlacementKind, Sealed, Source, SourceKind, TreePath,
};
use crate::object::place::{Dress, How, Placed, Spot, Staged};
use crate::object::{Objects, Published};
use crate::observe::{self, Stage, Work};
use crate::staging::{Run, TREE};

/// Bytes of small files that wait to be stored; bounds memory.
const WAITING_BYTES: u64 = 16 << 20;
/// What cannot happen to a finished builder's trees.
const LOST: &str = "a directory of the archive is missing";

/// Imports an archive.
pub(super) fn import(job: &Job<'_>, input: Input, kind: SourceKind, path: &[u8]) -> Result<Report> {
    use std::os::unix::ffi::OsStrExt;
    let named = |error: Error| match error {
        _ if path.is_empty() => error,
        Error::Io { verb, path: at, source } if at.as_os_str() == "the archive" => {
            Error::io(verb, std::ffi::OsStr::from_bytes(path), source)
        }
        Error::Source { path: at, problem } if at == b"the archive's beginning" => Error::source(path, problem),
        other => other,
    };
    let existing = job.existing()?;
    let published = job.store.published_objects()?;
    let tally = Tally::default();
    job.observer.stage(Stage::Import, None);
    if existing.is_some() || job.options.mode == Mode::DryRun {
        let (built, summary, facts) = Intake::new(job, None, &tally).read(input).map_err(named)?;
        let (passed, outcome) = match existing {
            Some(existing) => {
                let outcome = publish::same_or_refused(&existing, Digest(built.root))?;
                (passed(&built, &summary, &tally)?, Some(outcome))
            }
            None => {
                would_place(job, &built, &facts, &published, &tally)?;
                (passed(&built, &summary, &tally)?, None)
            }
        };
        return Ok(job.report(&passed, &tally, outcome));
    }
    let run = Run::begin(&job.store.dir().open_dir(layout::STAGING)?)?;
    let objects = job.objects(&run, &published)?;
    let placed = (|| {
        let (built, summary, facts) = Intake::new(job, Some(&objects), &tally).read(input).map_err(named)?;
        let mut placing = Placing { job, objects: &objects, facts, tally: &tally };
        let (placements, shared) = placing.placements(&built)?;
        placing.materialise(&built, &placements, &shared, &run)?;
        Ok(Passed { placements, shared, ..passed(&built, &summary, &tally)? })
    })();
    job.note_made(&objects);
    job.observer.stage(Stage::Sync, None);
    job.publish(run, placed?, &tally, Source { kind, path: path.to_vec() }, &|| {})
}

/// Counts for a dry run what a real one would make: each object once.
fn would_place(job: &Job<'_>, built: &Built, facts: &Facts, published: &dyn Published, tally: &Tally) -> Result<()> {
    let mut seen = HashSet::new();
    let walked = built.trees.walk(built.root, |path, entry| {
        let Node::File { content, size: size @ 1.. } = entry.node else { return Ok::<(), Error>(()) };
        let kind = kind_of(job, path);
        let applied = job.store.ownership().apply(&entry.metadata);
        let pin = facts.pin(path, size, kind);
        if pin.is_some() {
            tally.pinned_files.add(1);
            tally.pinned_bytes.add(size);
        }
        tally.private_files.add(u64::from(kind == PlacementKind::Private));
        let key = ObjectKey { content, class: Sealed::of(&applied, pin.map(|mtime| mtime.0)).class };
        if published.lookup(&key)?.is_none() && seen.insert(key) {
            tally.new_objects.add(1);
            tally.new_bytes.add(size);
        } else {
            tally.linked_files.add(1);
        }
        Ok(())
    })?;
    walked.map_err(|tree| Error::source(tree.to_hex(), LOST))
}

/// What a tree takes when its objects are there.
fn need_of(plan: &Plan, space: &Space) -> super::preflight::Need {
    let directories = plan.directories.len() as u64;
    let mut need = super::preflight::Need { bytes: directories * space.block_bytes, inodes: directories };
    for file in plan.directories.iter().flat_map(|directory| &directory.files) {
        let (bytes, inodes) = match &file.what {
            What::Object { .. } => (0, 0),
            What::Private { recorded, .. } => (space.rounded(recorded.size), 1),
            What::Empty { .. } | What::PrivateEmpty { .. } => (0, 1),
            // A short target lies in the inode itself.
            What::Symlink { target, .. } if target.len() < 60 => (0, 1),
            What::Symlink { target, .. } => (space.rounded(target.len() as u64), 1),
        };
        need = need.and(super::preflight::Need { bytes, inodes });
    }
    need
}

/// How the configuration wants a path to be placed.
fn kind_of(job: &Job<'_>, path: &TreePath) -> PlacementKind {
    if job.options.shared.covers(path) {
        PlacementKind::Shared
    } else if job.options.private.covers(path) {
        PlacementKind::Private
    } else {
        PlacementKind::Object
    }
}

/// Counts what the archive holds; each name of a hard link counts, as it does in a directory.
fn passed(built: &Built, summary: &Summary, tally: &Tally) -> Result<Passed> {
    let mut directories = 0;
    let walked = built.trees.walk(built.root, |_, entry| {
        match entry.node {
            Node::Directory { .. } => directories += 1,
            Node::Symlink { .. } => tally.symlinks.add(1),
            Node::File { size, .. } => {
                tally.files.add(1);
                tally.total_bytes.add(size);
                let gives_rights = entry.metadata.mode & 0o6000 != 0 || entry.metadata.xattrs.has_capability();
                tally.setid_files.add(u64::from(gives_rights));
            }
        }
        Ok::<(), Error>(())
    })?;
    walked.map_err(|tree| Error::source(tree.to_hex(), LOST))?;
    let mut warnings: Vec<Warning> = summary
        .warnings
        .iter()
        .map(|warning| Warning {
            kind: if warning.reason.contains("link") { "link-leaves-tree" } else { "skipped" },
            path: Some(warning.path.clone()),
            message: format!("{}: {}", warning.path, warning.reason),
        })
        .collect();
    if summary.further_warnings > 0 {
        let message = format!("{} more warnings of these kinds", summary.further_warnings);
        warnings.push(Warning { kind: "skipped", path: None, message });
    }
    let (placements, shared) = (Vec::new(), Vec::new());
    Ok(Passed { root: built.root, trees: built.trees.clone(), placements, shared, directories, warnings })
}

/// What the tree does not say and placing needs.
#[derive(Debug, Default)]
struct Facts {
    /// Modification times of empty files and of Python sources.
    mtimes: HashMap<TreePath, (i64, u32)>,
    /// Heads of compiled files by the path of their source.
    heads: HashMap<TreePath, Vec<PycHead>>,
    /// Python sources that wait to become objects.
    waiting: HashMap<ContentId, Waiting>,
}

/// Bytes that wait in staging, or the first object that was made of them.
#[derive(Debug)]
enum Waiting {
    Staged(Staged),
    Made(ObjectKey),
}

impl Facts {
    /// The modification time that a Python source has to keep for its compiled file.
    fn pin(&self, path: &TreePath, size: u64, kind: PlacementKind) -> Option<(i64, u32)> {
        let mtime = *self.mtimes.get(path).filter(|_| kind == PlacementKind::Object)?;
        let heads = self.heads.get(path)?;
        heads.iter().any(|head| head.fits(mtime.0, size)).then_some(mtime)
    }
}

struct Intake<'a> {
    job: &'a Job<'a>,
    objects: Option<&'a Objects<'a>>,
    tally: &'a Tally,
    facts: Mutex<Facts>,
    stored: Mutex<Vec<(FileId, ContentId)>>,
    waiting_bytes: AtomicU64,
    failure: OnceLock<Error>,
}

/// A file as it comes out of the archive.
struct Incoming<'m> {
    id: FileId,
    path: &'m TreePath,
    sealed: Sealed,
    mtime: (i64, u32),
    /// Whether it waits until all heads of compiled files are known.
    waits: bool,
}

impl<'a> Intake<'a> {
    fn new(job: &'a Job<'a>, objects: Option<&'a Objects<'a>>, tally: &'a Tally) -> Self {
        Self {
            job,
            objects,
            tally,
            facts: Mutex::default(),
            stored: Mutex::default(),
            waiting_bytes: AtomicU64::new(0),
            failure: OnceLock::new(),
        }
    }

    fn read(self, input: Input) -> Result<(Built, Summary, Facts)> {
        let mut builder = TreeBuilder::new(&self.job.options.limits);
        if let Some((uid, gid)) = self.job.options.owner {
            builder = builder.owned_by(uid, gid);
        }
        let read = rayon::in_place_scope(|scope| {
            archive::read(input, &self.job.options.limits, &mut builder, &mut |member| self.take(scope, member))
        });
        // What a helping thread failed with is why the reading one stopped.
        let summary = match self.failure.into_inner() {
            Some(failure) => return Err(failure),
            // However the reader was told to stop, the user asked for it.
            None => read.map_err(|error| if self.job.observer.interrupted() { Error::Interrupted } else { error })?,
        };
        for (file, content) in self.stored.into_inner().unwrap_or_else(PoisonError::into_inner) {
            builder.store(file, content);
        }
        Ok((builder.finish()?, summary, self.facts.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<'s>(&'s self, scope: &rayon::Scope<'s>, member: Member<'_>) -> Result<Option<ContentId>> {
        observe::check(self.job.observer)?;
        self.job.observer.work(Work::Files, 1);
        let mtime = self.job.rules().mtime(member.mtime.map_or((0, 0), |mtime| (mtime.seconds, mtime.nanoseconds)));
        match member.kind {
            MemberKind::Directory => Ok(None),
            MemberKind::HardLink { target } => {
                // Another name for the same inode, so the same time.
                let mut facts = self.facts();
                if let Some(mtime) = facts.mtimes.get(target).copied() {
                    facts.mtimes.insert(member.path.clone(), mtime);
                }
                Ok(None)
            }
            MemberKind::Symlink { .. } => Ok(None),
            MemberKind::File { id, size, reader } => {
                let python = member.path.as_bytes().ends_with(b".py");
                let waits = python && self.job.options.pyc == PycPolicy::Pin;
                if size == 0 || python {
                    self.facts().mtimes.insert(member.path.clone(), mtime);
                }
                let sealed = Sealed::of(&self.job.store.ownership().apply(member.metadata), None);
                self.take_file(scope, Incoming { id, path: member.path, sealed, mtime, waits }, size, reader)
            }
        }
    }

    fn take_file<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        incoming: Incoming<'_>,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<Option<ContentId>> {
        if size == 0 {
            return Ok(Some(ContentId::empty()));
        }
        self.room_for(size)?;
        let Incoming { id, path, sealed, mtime, waits } = incoming;
        let unreadable = |error: std::io::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::source(path, format!("cannot read it: {error}")),
        };
        if size > hash::WHOLE_BYTES {
            let mut head = Vec::new();
            reader.take(pyc::HEAD_BYTES as u64).read_to_end(&mut head).map_err(unreadable)?;
            self.note_head(path, &head);
            let mut whole = Interruptible::new(Read::chain(&*head, reader), self.job.observer);
            let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
            return self.store_stream(&mut whole, dress, waits, &unreadable).map(Some);
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(unreadable)?;
        self.note_head(path, &bytes);
        // Let the others catch up before memory fills; this thread helps where it can.
        while self.waiting_bytes.load(Ordering::Acquire) > WAITING_BYTES && self.failure.get().is_none() {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
        if self.failure.get().is_some() {
            return Err(Error::Interrupted);
        }
        self.waiting_bytes.fetch_add(size, Ordering::AcqRel);
        scope.spawn(move |_| {
            let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
            match self.store_bytes(&bytes, dress, waits) {
                Ok(content) => self.stored.lock().unwrap_or_else(PoisonError::into_inner).push((id, content)),
                Err(error) => drop(self.failure.set(error)),
            }
            self.waiting_bytes.fetch_sub(size, Ordering::AcqRel);
        });
        Ok(None)
    }

    /// A stream is checked entry by entry: nothing is known of what is still to come.
    fn room_for(&self, size: u64) -> Result<()> {
        if self.objects.is_none() {
            return Ok(());
        }
        let (root, minimum) = (self.job.store.root(), self.job.options.minimum_free_bytes);
        let space = Space::of(root)?;
        super::preflight::Need { bytes: space.rounded(size), inodes: 1 }.check(root, &space, minimum)
    }

    fn store_bytes(&self, bytes: &[u8], dress: Dress<'_>, waits: bool) -> Result<ContentId> {
        let content = ContentId::of(bytes);
        let Some(objects) = self.objects else { return Ok(content) };
        if waits {
            if !self.waits_for_nothing(objects, content, dress)? {
                let staged = objects.stage(&mut &*bytes, Threads::One, &|error| Error::io("read", "memory", error))?;
                self.wait(objects, staged)?;
            }
            return Ok(content);
        }
        let (dir, name) = objects.aside();
        let placed = objects.place_bytes(bytes, content, dress, Spot { dir, name: name.as_bytes() })?;
        dir.remove_file(&name)?;
        self.placed(&placed);
        Ok(content)
    }

    fn store_stream(
        &self,
        reader: &mut dyn Read,
        dress: Dress<'_>,
        waits: bool,
        unreadable: &dyn Fn(std::io::Error) -> Error,
    ) -> Result<ContentId> {
        let Some(objects) = self.objects else {
            return Ok(hash::stream(reader, dress.threads).map_err(unreadable)?.0);
        };
        if waits {
            let staged = objects.stage(reader, dress.threads, unreadable)?;
            let content = staged.content;
            self.wait(objects, staged)?;
            return Ok(content);
        }
        let (dir, name) = objects.aside();
        let placed = objects.place_stream(reader, dress, Spot { dir, name: name.as_bytes() }, unreadable)?;
        dir.remove_file(&name)?;
        self.placed(&placed);
        Ok(placed.key.content)
    }

    /// Whether an object with these bytes is there already, from which any other can be made.
    fn waits_for_nothing(&self, objects: &Objects<'_>, content: ContentId, dress: Dress<'_>) -> Result<bool> {
        if self.facts().waiting.contains_key(&content) {
            return Ok(true);
        }
        let mut class = dress.sealed.class.clone();
        for mtime in [None, Some(dress.mtime.0)] {
            class.mtime = mtime;
            let key = ObjectKey { content, class: class.clone() };
            if objects.is_known(&key)?.is_some() {
                self.facts().waiting.insert(content, Waiting::Made(key));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keeps the first of equal contents.
    fn wait(&self, objects: &Objects<'_>, staged: Staged) -> Result<()> {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        let superfluous = match self.facts().waiting.entry(staged.content) {
            Occupied(_) => staged,
            Vacant(vacant) => {
                vacant.insert(Waiting::Staged(staged));
                return Ok(());
            }
        };
        objects.discard(superfluous)
    }

    fn placed(&self, placed: &Placed) {
        self.tally.placed(placed);
        if !matches!(placed.how, How::Linked) {
            self.job.observer.work(Work::WrittenBytes, placed.recorded.size);
        }
    }

    fn note_head(&self, path: &TreePath, bytes: &[u8]) {
        if self.job.options.pyc != PycPolicy::Pin {
            return;
        }
        let components: Vec<&[u8]> = path.components().collect();
        if let [above @ .., pyc::CACHE_DIRECTORY, name] = components.as_slice()
            && let Some(source) = pyc::source_of(name)
            && let Some(head) = PycHead::parse(bytes)
            && let Ok(path) = TreePath::parse(&[above.join(&b'/'), source].join(&b'/'))
        {
            self.facts().heads.entry(path).or_default().push(head);
        }
    }
}

/// From stored contents to a tree.
struct Placing<'a> {
    job: &'a Job<'a>,
    objects: &'a Objects<'a>,
    facts: Facts,
    tally: &'a Tally,
}

impl Placing<'_> {
    /// Decides how each file is placed, and makes objects of what waited for that.
    fn placements(&mut self, built: &Built) -> Result<(Vec<Placement>, Vec<TreePath>)> {
        let (mut placements, mut shared) = (Vec::new(), Vec::new());
        let options = self.job.options;
        let walked = built.trees.walk(built.root, |path, entry| {
            if options.shared.covering(path).as_ref() == Some(path) {
                shared.push(path.clone());
            }
            if let Node::File { content, size: size @ 1.. } = entry.node {
                placements.push(self.placement(path, entry, content, size)?);
            }
            Ok::<(), Error>(())
        })?;
        walked.map_err(|tree| Error::source(tree.to_hex(), LOST))?;
        // Each object was made for one name; every other name is a link.
        let made = self.tally.new_objects.get() + self.tally.copied_files.get();
        self.tally.linked_files.set((placements.len() as u64).saturating_sub(made));
        shared.sort_unstable();
        Ok((placements, shared))
    }

    fn placement(&mut self, path: &TreePath, entry: &Entry, content: ContentId, size: u64) -> Result<Placement> {
        let kind = kind_of(self.job, path);
        let applied = self.job.store.ownership().apply(&entry.metadata);
        let pin = self.facts.pin(path, size, kind);
        let sealed = Sealed::of(&applied, pin.map(|mtime| mtime.0));
        let key = ObjectKey { content, class: sealed.class.clone() };
        let mtime = self.facts.mtimes.get(path).copied();
        let recorded = match (self.objects.is_known(&key)?, self.facts.waiting.remove(&content)) {
            (Some(recorded), waiting) => {
                self.facts.waiting.extend(waiting.map(|waiting| (content, waiting)));
                recorded
            }
            (None, Some(waiting)) => {
                let mtime = mtime.unwrap_or_else(|| self.job.rules().mtime((0, 0)));
                let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
                let placed = match waiting {
                    Waiting::Staged(staged) => self.objects.place_staged(staged, dress)?,
                    Waiting::Made(from) => self.objects.derive(&from, dress)?,
                };
                self.facts.waiting.insert(content, Waiting::Made(placed.key.clone()));
                self.tally.placed(&placed);
                placed.recorded
            }
            (None, None) => {
                return Err(Error::corrupt(
                    "object",
                    self.objects.path_of(&key),
                    "it was stored just now and is not as recorded",
                ));
            }
        };
        let kind = match pin {
            Some(_) => {
                self.tally.pinned_files.add(1);
                self.tally.pinned_bytes.add(size);
                PlacementKind::PinnedMtime
            }
            None => kind,
        };
        self.tally.private_files.add(u64::from(kind == PlacementKind::Private));
        Ok(Placement { kind, mtime_seconds: recorded.mtime.0, mtime_nanoseconds: recorded.mtime.1 })
    }

    fn materialise(&self, built: &Built, placements: &[Placement], shared: &[TreePath], run: &Run) -> Result<()> {
        let private_empty = self.job.private_empty(&built.trees, built.root);
        let contents = Contents {
            trees: &built.trees,
            root: built.root,
            placements,
            shared,
            private_empty: &private_empty,
            ownership: self.job.store.ownership(),
        };
        let plan = plan(contents).ok_or_else(|| Error::source("", "the archive's trees are not whole"))?;
        let names: u64 = plan.directories.iter().map(|directory| directory.files.len() as u64).sum();
        self.job.observer.stage(Stage::Materialise, Some(names));
        let space = Space::of(self.job.store.root())?;
        need_of(&plan, &space).check(self.job.store.root(), &space, self.job.options.minimum_free_bytes)?;
        let tree = run.dir().create_dir(TREE, layout::PUBLIC_DIR_MODE)?;
        file::set_mode(&tree, layout::PUBLIC_DIR_MODE, || tree.path().to_owned())?;
        let now = (crate::fsys::system::file_time_now().0, 0);
        let empty_mtime = |path: &TreePath| self.facts.mtimes.get(path).copied().unwrap_or(now);
        apply(&plan, self.objects, Inodes::Shared, tree, &empty_mtime, self.job.observer)?;
        Ok(())
    }
}
