//! From members of a stream to stored contents.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::facts::{Facts, Waiting};
use crate::archive::{self, Built, FileId, Input, Member, MemberKind, Summary, TreeBuilder};
use crate::error::{Error, Result};
use crate::fsys::Space;
use crate::hash::{self, Threads};
use crate::model::{ContentId, ObjectKey, Sealed, TreePath};
use crate::object::Objects;
use crate::object::place::{Dress, How, Placed, Spot, Staged};
use crate::observe::{self, Work};
use crate::ops::import::pyc::{self, PycHead, PycPolicy};
use crate::ops::import::tally::Tally;
use crate::ops::import::{Interruptible, Job, preflight};

/// Bytes of small files that wait to be stored; bounds memory.
const WAITING_BYTES: u64 = 3 << 20;
/// What a file that waits takes besides its bytes.
const WAITING_FILE_BYTES: u64 = 512;

/// One reading of a stream.
pub(super) struct Intake<'a> {
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
    /// Stores what it reads, or only counts it if there are no objects to store it as.
    pub(super) fn new(job: &'a Job<'a>, objects: Option<&'a Objects<'a>>, tally: &'a Tally) -> Self {
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

    /// Reads the whole stream.
    pub(super) fn read(self, input: Input) -> Result<(Built, Summary, Facts)> {
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
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
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
        self.waiting_bytes.fetch_add(size + WAITING_FILE_BYTES, Ordering::AcqRel);
        scope.spawn(move |_| {
            let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
            match self.store_bytes(&bytes, dress, waits) {
                Ok(content) => self.stored.lock().unwrap_or_else(PoisonError::into_inner).push((id, content)),
                Err(error) => drop(self.failure.set(error)),
            }
            self.waiting_bytes.fetch_sub(size + WAITING_FILE_BYTES, Ordering::AcqRel);
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
        preflight::Need { bytes: space.rounded(size), inodes: 1 }.check(root, &space, minimum)
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
        let placed = objects.keep_bytes(bytes, content, dress)?;
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
