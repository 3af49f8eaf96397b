//! One file: read, hashed, stored and placed.
//!
//! **Invariant (I-2):** the bytes hashed are the bytes stored. A file is read between two looks at its inode; if it
//! changed in between it is read again, and one that keeps changing is an error.

use std::cell::RefCell;
use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use super::{Ingest, Origin, PrivateFiles, locked};
use crate::error::{Error, Result};
use crate::fsys::stat::stat_file;
use crate::fsys::{Dir, Kind, Stat, file, system};
use crate::hash::{self, Threads};
use crate::index::StatKey;
use crate::model::{ContentId, Entry, Metadata, Node, ObjectKey, Placement, PlacementKind, Sealed, TreePath, Xattrs};
use crate::object::map::ObjectMap;
use crate::object::place::{Dress, Placed, Spot};
use crate::object::{Objects, Recorded};
use crate::observe::Work;
use crate::ops::import::Interruptible;
use crate::ops::import::pyc::PycHead;
use crate::scan::{ScanFile, in_source};
use crate::store::source_cache::CachedContent;

/// How often a file that changes while it is read is read again.
const READ_ATTEMPTS: usize = 3;

/// File times are as coarse as the kernel's tick: ten milliseconds at most.
const TICK_NANOSECONDS: u64 = 20_000_000;

/// What is needed for the files of one directory.
pub(super) struct One<'a> {
    ingest: &'a Ingest<'a>,
    needed: &'a Mutex<ObjectMap>,
    origin: &'a Origin<'a>,
    /// The directory.
    path: &'a TreePath,
    threads: Threads,
    read: RefCell<Vec<(StatKey, ContentId)>>,
}

impl<'a> One<'a> {
    pub(super) fn new(
        ingest: &'a Ingest<'a>,
        needed: &'a Mutex<ObjectMap>,
        origin: &'a Origin<'a>,
        path: &'a TreePath,
        threads: Threads,
    ) -> Self {
        Self { ingest, needed, origin, path, threads, read: RefCell::default() }
    }

    /// What the next import need not read.
    pub(super) fn into_read(self) -> Vec<(StatKey, ContentId)> {
        self.read.into_inner()
    }

    fn error(&self, file: &ScanFile, error: &Error) -> Error {
        in_source(&self.path.join(&file.name), error)
    }

    fn metadata(&self, stat: &Stat, xattrs: Xattrs) -> Metadata {
        let (uid, gid) = self.ingest.rules.owner.unwrap_or((stat.uid, stat.gid));
        Metadata { xattrs, ..Metadata::new(stat.mode, uid, gid) }
    }

    pub(super) fn symlink(&self, target: Option<&Dir>, file: &ScanFile) -> Result<Entry> {
        let link = self.origin.dir()?.read_link(&file.name).map_err(|error| self.error(file, &error))?;
        let metadata = Metadata { mode: 0o777, ..self.metadata(&file.stat, Xattrs::none()) };
        if let (Some(target), Some(objects)) = (target, self.ingest.objects) {
            let applied = self.ingest.ownership.apply(&metadata);
            let other = !objects.fresh().belongs_to(applied.uid, applied.gid);
            target.symlink_owned(&link, &file.name, other.then_some((applied.uid, applied.gid)))?;
        }
        self.ingest.tally.symlinks.add(1);
        Ok(Entry { name: file.name.clone(), metadata, node: Node::Symlink { target: link.into() } })
    }

    pub(super) fn regular(
        &self,
        target: Option<&Dir>,
        file: &ScanFile,
        cached: Option<CachedContent>,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Result<(Entry, Option<Placement>)> {
        if let Some(unread) = self.without_reading(target, file, cached, kind, heads)? {
            return Ok(unread);
        }
        let source = self.origin.dir()?;
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
        cached: Option<CachedContent>,
        kind: PlacementKind,
        heads: Option<&Vec<PycHead>>,
    ) -> Result<Option<(Entry, Option<Placement>)>> {
        let own = (self.ingest.own_inodes)(&file.stat).filter(|key| key.class.xattrs.is_none());
        let known = match own {
            Some(key) => {
                let fades = cached.is_none_or(|cached| cached.fades || cached.content != key.content);
                Some(CachedContent { content: key.content, fades })
            }
            None => cached,
        };
        // Only what can be linked as it stands is worth it; everything else is rare and read.
        let Some(CachedContent { content, fades }) = known.filter(|_| kind == PlacementKind::Object) else {
            return Ok(None);
        };
        let metadata = self.metadata(&file.stat, Xattrs::none());
        if file.stat.size == 0 {
            let attempt = Attempt { content, size: 0, metadata, pinned: false, placed: None, noted: !fades };
            return self.finish(None, target, file, &file.stat, attempt, kind).map(Some);
        }
        let sealed = self.seal(&metadata, file, &file.stat, kind, heads);
        let key = ObjectKey { content, class: sealed.class.clone() };
        let placed = match (self.ingest.objects, target) {
            (Some(objects), Some(dir)) => objects.place_known(&key, Spot { dir, name: file.name.as_bytes() })?,
            _ => {
                let recorded = Recorded { size: file.stat.size, mtime: (0, 0) };
                locked(self.needed).insert(&key, recorded);
                Some(Placed { key, recorded, how: crate::object::place::How::Linked })
            }
        };
        let Some(placed) = placed else { return Ok(None) };
        self.ingest.tally.unread_files.add(1);
        let pinned = placed.key.class.mtime.is_some();
        let attempt = Attempt { content, size: file.stat.size, metadata, pinned, placed: Some(placed), noted: !fades };
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
            let content = ContentId::empty();
            return Ok(Some(Attempt { content, size: 0, metadata, pinned, placed: None, noted: false }));
        }
        let Some(objects) = self.ingest.objects else {
            let reader = Interruptible::new(opened, self.ingest.observer);
            let hashed = match self.threads {
                Threads::One => hash::whole(reader, stat.size),
                Threads::All => hash::stream(reader, Threads::All),
            };
            let (content, size) = hashed.map_err(unreadable)?;
            let key = ObjectKey { content, class: sealed.class.clone() };
            locked(self.needed).insert(&key, Recorded { size, mtime: (0, 0) });
            let attempt = Attempt { content, size, metadata, pinned, placed: None, noted: false };
            return Ok((size == stat.size).then_some(attempt));
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
            noted: false,
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
        let Attempt { content, size, metadata, pinned, placed, noted } = attempt;
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
        if !noted && entry.metadata.xattrs.is_empty() && (self.ingest.settled)(stat) {
            self.read.borrow_mut().push((StatKey::from(stat), content));
        }
        if size == 0 {
            return Ok((entry, None));
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
    /// Whether the next import will know it without its being noted again.
    noted: bool,
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

/// Whether an inode changed so lately that its times would be the same after another change.
fn just_changed(stat: &Stat) -> bool {
    let nanoseconds = |time: (i64, u32)| i128::from(time.0) * 1_000_000_000 + i128::from(time.1);
    let age = nanoseconds(system::file_time_now()) - nanoseconds(stat.ctime);
    // Times that lie ahead are a clock that was set back.
    age.unsigned_abs() < u128::from(TICK_NANOSECONDS)
}
