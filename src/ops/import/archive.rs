//! Importing an archive: a stream that is read once.
//!
//! One thread reads and decompresses; small files are hashed and stored by the others meanwhile, big ones on the way.
//! Contents become objects as they pass. Only when the stream has ended well is the tree made, of links.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::pyc::{self, PycHead, PycPolicy};
use super::tally::Tally;
use super::{Job, Mode, Passed, Report, Warning, publish};
use crate::archive::{self, Built, FileId, Input, Member, MemberKind, Summary, TreeBuilder};
use crate::error::{Error, Result};
use crate::fsys::{Space, file};
use crate::hash::{self, Threads};
use crate::layout;
use crate::materialise::plan::Contents;
use crate::materialise::{Inodes, apply, plan};
use crate::model::{
    ContentId, Digest, Entry, Metadata, Node, ObjectKey, Placement, PlacementKind, Sealed, Source, SourceKind, TreePath,
};
use crate::object::place::{Dress, Spot};
use crate::object::{Objects, Published};
use crate::observe::{self, Stage, Work};
use crate::staging::{Run, TREE};

/// Bytes of small files that wait to be stored; bounds memory.
const WAITING_BYTES: u64 = 16 << 20;

/// Imports an archive.
pub(super) fn import(job: &Job<'_>, input: Input, kind: SourceKind, path: Vec<u8>) -> Result<Report> {
    let existing = job.existing()?;
    let published = job.store.published_objects()?;
    let tally = Tally::default();
    job.observer.stage(Stage::Import, None);
    if existing.is_some() || job.options.mode == Mode::DryRun {
        let intake = Intake::new(job, None, &published, &tally);
        let (built, summary) = intake.read(input)?;
        let outcome = existing.map(|existing| publish::same_or_refused(&existing, Digest(built.root))).transpose()?;
        let passed = passed(&built, &summary, Vec::new(), Vec::new());
        return Ok(job.report(&passed, &tally, outcome));
    }
    let run = Run::begin(&job.store.dir().open_dir(layout::STAGING)?)?;
    let objects = job.objects(&run, &published)?;
    let intake = Intake::new(job, Some(&objects), &published, &tally);
    let facts = &intake.facts;
    let (built, summary) = intake.read(input)?;
    let facts = facts.lock().unwrap_or_else(PoisonError::into_inner);
    let placing = Placing { job, objects: &objects, facts: &facts, tally: &tally };
    let (placements, shared) = placing.placements(&built)?;
    placing.materialise(&built, &placements, &shared, &run)?;
    let passed = passed(&built, &summary, placements, shared);
    job.observer.stage(Stage::Sync, None);
    job.publish(run, passed, &tally, Source { kind, path })
}

fn passed(built: &Built, summary: &Summary, placements: Vec<Placement>, shared: Vec<TreePath>) -> Passed {
    let mut directories = 0;
    let counted = built.trees.walk(built.root, |_, entry| {
        directories += u64::from(matches!(entry.node, Node::Directory { .. }));
        Ok::<(), std::convert::Infallible>(())
    });
    debug_assert!(counted.is_ok_and(|walked| walked.is_ok()), "a builder gives whole trees");
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
    Passed { root: built.root, trees: built.trees.clone(), placements, shared, directories, warnings }
}

/// What the tree does not say and placing needs.
#[derive(Debug, Default)]
struct Facts {
    /// Modification times of empty files and of Python sources.
    mtimes: HashMap<TreePath, (i64, u32)>,
    /// Heads of compiled files by the path of their source.
    heads: HashMap<TreePath, Vec<PycHead>>,
}

struct Intake<'a> {
    job: &'a Job<'a>,
    objects: Option<&'a Objects<'a>>,
    published: &'a dyn Published,
    tally: &'a Tally,
    facts: Mutex<Facts>,
    stored: Mutex<Vec<(FileId, ContentId)>>,
    waiting: AtomicU64,
    failure: OnceLock<Error>,
}

impl<'a> Intake<'a> {
    fn new(job: &'a Job<'a>, objects: Option<&'a Objects<'a>>, published: &'a dyn Published, tally: &'a Tally) -> Self {
        Self {
            job,
            objects,
            published,
            tally,
            facts: Mutex::default(),
            stored: Mutex::default(),
            waiting: AtomicU64::new(0),
            failure: OnceLock::new(),
        }
    }

    fn read(&self, input: Input) -> Result<(Built, Summary)> {
        let mut builder = TreeBuilder::new(&self.job.options.limits);
        if let Some((uid, gid)) = self.job.options.owner {
            builder = builder.owned_by(uid, gid);
        }
        let read = rayon::in_place_scope(|scope| {
            archive::read(input, &self.job.options.limits, &mut builder, &mut |member| self.take(scope, member))
        });
        let summary = match (self.failure.get().is_some(), read) {
            (false, read) => read?,
            (true, _) => Err(Error::Interrupted)?,
        };
        for (file, content) in self.stored.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            builder.store(file, content);
        }
        Ok((builder.finish()?, summary))
    }

    fn take<'s>(&'s self, scope: &rayon::Scope<'s>, member: Member<'_>) -> Result<Option<ContentId>> {
        observe::check(self.job.observer)?;
        self.job.observer.work(Work::Files, 1);
        let mtime = self.job.rules().mtime(member.mtime.map_or((0, 0), |mtime| (mtime.seconds, mtime.nanoseconds)));
        match member.kind {
            MemberKind::Directory | MemberKind::HardLink { .. } => Ok(None),
            MemberKind::Symlink { .. } => {
                self.tally.symlinks.add(1);
                Ok(None)
            }
            MemberKind::File { id, size, reader } => {
                self.take_file(scope, member.path, member.metadata, mtime, (id, size, reader))
            }
        }
    }

    fn take_file<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        path: &TreePath,
        metadata: &Metadata,
        mtime: (i64, u32),
        (id, size, reader): (FileId, u64, &mut dyn Read),
    ) -> Result<Option<ContentId>> {
        self.tally.files.add(1);
        self.tally.total_bytes.add(size);
        if metadata.mode & 0o6000 != 0 || metadata.xattrs.has_capability() {
            self.tally.setid_files.add(1);
        }
        let unreadable = |error: std::io::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::source(path, format!("cannot read it: {error}")),
        };
        if size == 0 || path.as_bytes().ends_with(b".py") {
            self.facts.lock().unwrap_or_else(PoisonError::into_inner).mtimes.insert(path.clone(), mtime);
        }
        if size == 0 {
            return Ok(Some(ContentId::empty()));
        }
        let sealed = Sealed::of(&self.job.store.ownership().apply(metadata), None);
        if size > hash::WHOLE_BYTES {
            let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
            return self.store_stream(size, reader, dress, &unreadable).map(Some);
        }
        self.room_for(size)?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(unreadable)?;
        self.note_head(path, &bytes);
        // Let the others catch up before memory fills; this thread helps where it can.
        while self.waiting.load(Ordering::Acquire) > WAITING_BYTES && self.failure.get().is_none() {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
        if self.failure.get().is_some() {
            return Err(Error::Interrupted);
        }
        self.waiting.fetch_add(size, Ordering::AcqRel);
        scope.spawn(move |_| {
            let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
            match self.store_bytes(&bytes, dress) {
                Ok(content) => self.stored.lock().unwrap_or_else(PoisonError::into_inner).push((id, content)),
                Err(error) => drop(self.failure.set(error)),
            }
            self.waiting.fetch_sub(size, Ordering::AcqRel);
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

    fn store_bytes(&self, bytes: &[u8], dress: Dress<'_>) -> Result<ContentId> {
        let content = ContentId::of(bytes);
        match self.objects {
            Some(objects) => {
                let (dir, name) = objects.aside();
                let placed = objects.place_bytes(bytes, content, dress, Spot { dir, name: name.as_bytes() })?;
                dir.remove_file(&name)?;
                self.placed(&placed);
            }
            None => self.would_place(content, dress, bytes.len() as u64)?,
        }
        Ok(content)
    }

    fn store_stream(
        &self,
        size: u64,
        reader: &mut dyn Read,
        dress: Dress<'_>,
        unreadable: &dyn Fn(std::io::Error) -> Error,
    ) -> Result<ContentId> {
        self.room_for(size)?;
        let Some(objects) = self.objects else {
            let (content, _) = hash::stream(reader, dress.threads).map_err(unreadable)?;
            self.would_place(content, dress, size)?;
            return Ok(content);
        };
        let (dir, name) = objects.aside();
        let placed = objects.place_stream(reader, dress, Spot { dir, name: name.as_bytes() }, unreadable)?;
        dir.remove_file(&name)?;
        self.placed(&placed);
        Ok(placed.key.content)
    }

    fn placed(&self, placed: &crate::object::place::Placed) {
        self.tally.placed(placed);
        if !matches!(placed.how, crate::object::place::How::Linked) {
            self.job.observer.work(Work::WrittenBytes, placed.recorded.size);
        }
    }

    /// Counts for a dry run: the first of equal contents is new.
    fn would_place(&self, content: ContentId, dress: Dress<'_>, size: u64) -> Result<()> {
        let key = ObjectKey { content, class: dress.sealed.class.clone() };
        if self.published.lookup(&key)?.is_some() {
            self.tally.linked_files.add(1);
        } else {
            self.tally.new_objects.add(1);
            self.tally.new_bytes.add(size);
        }
        Ok(())
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
            self.facts.lock().unwrap_or_else(PoisonError::into_inner).heads.entry(path).or_default().push(head);
        }
    }
}

/// From stored contents to a tree.
struct Placing<'a> {
    job: &'a Job<'a>,
    objects: &'a Objects<'a>,
    facts: &'a Facts,
    tally: &'a Tally,
}

impl Placing<'_> {
    /// Decides how each file is placed.
    fn placements(&self, built: &Built) -> Result<(Vec<Placement>, Vec<TreePath>)> {
        let (mut placements, mut shared) = (Vec::new(), Vec::new());
        let options = self.job.options;
        let walked = built.trees.walk(built.root, |path, entry| {
            let covering = options.shared.covering(path);
            if covering.as_ref() == Some(path) {
                shared.push(path.clone());
            }
            if let Node::File { content, size: 1.. } = entry.node {
                let kind = match covering {
                    Some(_) => PlacementKind::Shared,
                    None if options.private.covers(path) => PlacementKind::Private,
                    None => PlacementKind::Object,
                };
                placements.push(self.placement(path, entry, content, kind)?);
            }
            Ok::<(), Error>(())
        })?;
        match walked {
            Ok(()) => Ok((placements, shared)),
            Err(tree) => Err(Error::source(tree.to_hex(), "a directory of the archive is missing")),
        }
    }

    fn placement(&self, path: &TreePath, entry: &Entry, content: ContentId, kind: PlacementKind) -> Result<Placement> {
        let applied = self.job.store.ownership().apply(&entry.metadata);
        let plain = ObjectKey { content, class: Sealed::of(&applied, None).class };
        let recorded = self.objects.is_known(&plain)?.ok_or_else(|| {
            Error::corrupt("object", self.objects.path_of(&plain), "it was stored just now and is not as recorded")
        })?;
        let mtime = self.facts.mtimes.get(path).copied();
        let fits = |mtime: (i64, u32)| {
            self.facts.heads.get(path).is_some_and(|heads| heads.iter().any(|head| head.fits(mtime.0, recorded.size)))
        };
        let (kind, mtime) = match mtime {
            Some(mtime) if kind == PlacementKind::Object && fits(mtime) => {
                let sealed = Sealed::of(&applied, Some(mtime.0));
                let placed = self.objects.derive(&plain, Dress { sealed: &sealed, mtime, threads: Threads::One })?;
                self.tally.pinned_files.add(1);
                self.tally.pinned_bytes.add(recorded.size);
                (PlacementKind::PinnedMtime, placed.recorded.mtime)
            }
            _ => (kind, recorded.mtime),
        };
        Ok(Placement { kind, mtime_seconds: mtime.0, mtime_nanoseconds: mtime.1 })
    }

    fn materialise(&self, built: &Built, placements: &[Placement], shared: &[TreePath], run: &Run) -> Result<()> {
        let contents = Contents {
            trees: &built.trees,
            root: built.root,
            placements,
            shared,
            ownership: self.job.store.ownership(),
        };
        let plan = plan(contents).ok_or_else(|| Error::source("", "the archive's trees are not whole"))?;
        let names: u64 = plan.directories.iter().map(|directory| directory.files.len() as u64).sum();
        self.job.observer.stage(Stage::Materialise, Some(names));
        let space = Space::of(self.job.store.root())?;
        let directories = plan.directories.len() as u64;
        super::preflight::Need { bytes: directories * space.block_bytes, inodes: directories }.check(
            self.job.store.root(),
            &space,
            self.job.options.minimum_free_bytes,
        )?;
        let tree = run.dir().create_dir(TREE, layout::PUBLIC_DIR_MODE)?;
        file::set_mode(&tree, layout::PUBLIC_DIR_MODE, || tree.path().to_owned())?;
        let now = (crate::fsys::system::file_time_now().0, 0);
        let empty_mtime = |path: &TreePath| self.facts.mtimes.get(path).copied().unwrap_or(now);
        apply(&plan, self.objects, Inodes::Shared, tree, &empty_mtime, self.job.observer)?;
        Ok(())
    }
}
