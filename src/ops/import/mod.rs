//! Importing a release: `source -> scan -> hash -> objects -> trees -> materialise -> publish`.
//!
//! A directory is looked at, checked against the free space, and then read, stored and linked in one parallel pass
//! ([`ingest`]). An archive is a stream: its contents become objects as they pass, and the tree is made of links
//! when the stream has ended well ([`archive`]). Both end in [`publish`].
//!
//! Importing what exists under the same name is no work: it is hashed, compared and said to be there.

mod archive;
pub mod digest;
mod ingest;
mod preflight;
pub mod pyc;
mod tally;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::publish::{self, Draft, Outcome};
use crate::archive::{Input as ArchiveInput, Limits};
use crate::clock::Moment;
use crate::error::{Error, Refusal, Result, Shown};
use crate::fsys::{Dir, Kind, Space, Stat, file, system};
use crate::layout;
use crate::model::glob::PathPatterns;
use crate::model::{
    ContentId, Digest, Facts, Manifest, ObjectKey, Placement, Source, SourceKind, TreeId, TreePath, TreeSet,
    VersionName,
};
use crate::object::{LinkPolicy, Objects, Published};
use crate::observe::{self, Observer, Stage};
use crate::scan::{self, Scan};
use crate::staging::{INCOMING, Run, TREE};
use crate::store::{SharedStore, Store};
use digest::KnownContents;
pub(super) use ingest::PrivateFiles;
use pyc::PycPolicy;
pub(super) use tally::Tally;

/// What to import.
pub enum Input {
    /// A directory, or an archive (tar, tar.gz, tar.xz, tar.zst, zip), by its path.
    Path(PathBuf),
    /// A tar archive, plain or compressed, as a stream.
    Stream(Box<dyn Read + Send>),
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Import.
    #[default]
    Write,
    /// Read and hash everything, write nothing, say what would happen.
    DryRun,
}

/// Whether unchanged source files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reread {
    /// A file whose inode did not change since it was read is not read again.
    #[default]
    Changed,
    /// Everything is read.
    All,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Free text, kept with the version.
    pub note: String,
    /// Labels, kept with the version.
    pub labels: BTreeMap<String, String>,
    /// Record this owner for everything, instead of the source's.
    pub owner: Option<(u32, u32)>,
    /// No new object gets a later modification time than this (seconds since 1970), as `SOURCE_DATE_EPOCH` asks.
    pub latest_mtime: Option<i64>,
    /// Whether unchanged files are read again.
    pub reread: Reread,
    /// Python sources with compiled files.
    pub pyc: PycPolicy,
    /// Where hardlinks cannot be made.
    pub links: LinkPolicy,
    /// Bytes to leave free.
    pub minimum_free_bytes: u64,
    /// Paths that a service writes, one copy per version.
    pub private: PathPatterns,
    /// Paths that a service writes, one for all versions.
    pub shared: PathPatterns,
    /// Bounds for archives.
    pub limits: Limits,
    /// Whether anything is written.
    pub mode: Mode,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The version.
    pub version: VersionName,
    /// Its digest.
    pub digest: Digest,
    /// Its import number; `None` for a dry run of a new version.
    pub import_number: Option<u64>,
    /// It was there already, with the same contents; nothing was written.
    pub already_there: bool,
    /// Nothing was written because nothing was to be.
    pub dry_run: bool,
    /// Regular files.
    pub files: u64,
    /// Directories, without the top.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all regular files.
    pub total_bytes: u64,
    /// Objects that were made (or would be).
    pub new_objects: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Of those, bytes that share the source's blocks.
    pub reflinked_bytes: u64,
    /// Files that are a link to an object that was there.
    pub linked_files: u64,
    /// Files that had to be copied, since no link can be made here.
    pub copied_files: u64,
    /// Files that are private copies by configuration.
    pub private_files: u64,
    /// Files that were not read, since they have not changed.
    pub unread_files: u64,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Something the user should know and that stopped nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable word: `skipped`, `pyc`, `setid`, `copied`, `link-leaves-tree`.
    pub kind: &'static str,
    /// The path it is about, if it is about one.
    pub path: Option<TreePath>,
    /// The sentence.
    pub message: String,
}

/// Imports `input` as `version`.
///
/// # Errors
///
/// - [`Error::Refused`] if the name is taken by another content, or the source holds what cannot be part of a
///   version, or an archive is hostile;
/// - [`Error::Source`] for what cannot be read, vanished, or kept changing;
/// - [`Error::NoSpace`] before anything is written;
/// - [`Error::Interrupted`].
///
/// On an error there is no version, and nothing of it stays; but while others are at work, objects that it made stay
/// for the next gc.
pub fn import(
    store: &Store,
    input: Input,
    version: &VersionName,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report> {
    let start = Instant::now();
    store.check_writable()?;
    let writes = options.mode == Mode::Write;
    if writes {
        store.prepare_index()?;
        store.recover()?;
    }
    let (imported, made) = {
        let shared = if writes { store.share()? } else { store.share_to_look()? };
        let (private, made) = (PrivateFiles::Copied, Mutex::default());
        let job = Job { store: &shared, version, options, observer, start, private, made };
        let imported = store.in_pool(|| match input {
            Input::Stream(stream) => archive::import(&job, ArchiveInput::Stream(stream), SourceKind::Stream, b""),
            Input::Path(path) => job.import_path(&path),
        })?;
        (imported, job.made.into_inner().unwrap_or_else(PoisonError::into_inner))
    };
    if imported.is_err() {
        // What went wrong first is what the user has to know.
        if let Err(error) = store.take_back(&made) {
            tracing::warn!(%error, "cannot remove the objects of a failed import; gc will");
        }
    }
    imported
}

/// What the steps of one import have in common.
pub(super) struct Job<'a> {
    pub(super) store: &'a SharedStore<'a>,
    pub(super) version: &'a VersionName,
    pub(super) options: &'a Options,
    pub(super) observer: &'a dyn Observer,
    pub(super) start: Instant,
    pub(super) private: PrivateFiles,
    /// Objects that were made, to be taken back if they are not published.
    pub(super) made: Mutex<Vec<ObjectKey>>,
}

/// A reader that ends with [`Error::Interrupted`] as soon as the user asks to stop: a big file takes a while.
struct Interruptible<'a, R> {
    reader: R,
    observer: &'a dyn Observer,
}

impl<'a, R> Interruptible<'a, R> {
    fn new(reader: R, observer: &'a dyn Observer) -> Self {
        Self { reader, observer }
    }
}

impl<R: Read> Read for Interruptible<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        observe::check(self.observer).map_err(std::io::Error::other)?;
        self.reader.read(buffer)
    }
}

/// What a pass over a source came to, whatever the source.
pub(super) struct Passed {
    pub(super) root: TreeId,
    pub(super) trees: TreeSet,
    placements: Vec<Placement>,
    pub(super) shared: Vec<TreePath>,
    directories: u64,
    warnings: Vec<Warning>,
}

/// A source directory, built in staging.
pub(super) struct Built {
    pub(super) run: Run,
    pub(super) passed: Passed,
    /// Files that were read, for the stat cache.
    pub(super) read: Vec<(Stat, ContentId)>,
}

impl Job<'_> {
    fn import_path(&self, path: &Path) -> Result<Report> {
        use std::os::unix::ffi::OsStrExt;
        match Dir::open(path) {
            Ok(source) => self.import_directory(&source, path),
            Err(error) if error.is_io(std::io::ErrorKind::NotADirectory) => {
                let file = file::open_source(path)?;
                archive::import(self, ArchiveInput::File(file), SourceKind::Archive, path.as_os_str().as_bytes())
            }
            Err(error) => Err(error),
        }
    }

    fn import_directory(&self, source: &Dir, path: &Path) -> Result<Report> {
        use std::os::unix::ffi::OsStrExt;
        self.refuse_own_parts(source)?;
        // The walk keeps one thread busy; the newest manifest is read by another.
        let (scan, published) = rayon::join(|| scan::scan(source, self.observer), || self.store.published_objects());
        let scan = scan?;
        self.refuse_own_parts_inside(&scan)?;
        let published = published?;
        let reader = Reader::new(self, source, &scan, &published)?;
        let tally = Tally::default();
        self.observer.stage(Stage::Import, Some(scan.entries()));
        if let Some(existing) = self.existing()? {
            let ingested = reader.ingest(None, None, &tally)?;
            let outcome = publish::same_or_refused(&existing, Digest(ingested.root))?;
            let passed = passed(&scan, ingested);
            return Ok(self.report(&passed, &tally, Some(outcome)));
        }
        let rehearsed = self.rehearse(&scan, &reader)?;
        if let Some((passed, dry)) = rehearsed.filter(|_| self.options.mode == Mode::DryRun) {
            return Ok(self.report(&passed, &dry, None));
        }
        let Built { run, passed, read } = self.build(&scan, &reader, &tally)?;
        let source = Source { kind: SourceKind::Directory, path: path.as_os_str().as_bytes().to_vec() };
        self.publish(run, passed, &tally, source, &|| reader.remember(&read))
    }

    /// Checks that there is room. A source that might not fit, and a dry run, are read whole for it: then what would be
    /// made is told.
    pub(super) fn rehearse(&self, scan: &Scan, reader: &Reader<'_>) -> Result<Option<(Passed, Tally)>> {
        let (root, minimum) = (self.store.root(), self.options.minimum_free_bytes);
        let space = Space::of(root)?;
        let copies = match self.private {
            PrivateFiles::Copied => preflight::Need::copies(scan, &space, self.options),
            PrivateFiles::LinkedToSource => preflight::Need::default(),
        };
        let fits = preflight::Need::at_most(scan, &space).and(copies).check(root, &space, minimum);
        if fits.is_ok() && self.options.mode == Mode::Write {
            return Ok(None);
        }
        let dry = Tally::default();
        let ingested = reader.ingest(None, None, &dry)?;
        let mut new = Vec::new();
        for (key, size) in &ingested.needed {
            if reader.published.lookup(key)?.is_none() {
                new.push(*size);
            }
        }
        preflight::Need::exactly(scan, &space, new.iter().copied()).and(copies).check(root, &space, minimum)?;
        dry.new_objects.add(new.len() as u64);
        dry.new_bytes.add(new.iter().sum());
        let placed = ingested.placements.len() as u64;
        dry.linked_files.add(placed - (new.len() as u64).min(placed));
        Ok(Some((passed(scan, ingested), dry)))
    }

    /// Reads, stores and links everything into a tree in staging.
    pub(super) fn build(&self, scan: &Scan, reader: &Reader<'_>, tally: &Tally) -> Result<Built> {
        let run = Run::begin(&self.store.staging_dir()?)?;
        let objects = self.objects(&run, reader.published)?;
        let tree = run.dir().create_dir(TREE, layout::PUBLIC_DIR_MODE)?;
        file::set_mode(&tree, layout::PUBLIC_DIR_MODE, || tree.path().to_owned())?;
        let ingested = reader.ingest(Some(&objects), Some(tree), tally);
        self.note_made(&objects);
        let mut ingested = ingested?;
        let read = std::mem::take(&mut ingested.read);
        self.observer.stage(Stage::Sync, None);
        Ok(Built { run, passed: passed(scan, ingested), read })
    }

    /// Notes what was made: it is taken back if it is not published in the end.
    fn note_made(&self, objects: &Objects<'_>) {
        let made = objects.made().into_iter().map(|(key, _)| key);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
    }

    /// Importing the store into itself would never end, and its own files are no release.
    fn refuse_own_parts(&self, source: &Dir) -> Result<()> {
        let refuse = |problem: &str| {
            Err(Error::refused_with(
                Refusal::UnsupportedSource,
                format!("{} {problem}", Shown::path(source.path())),
                "import the directory that the release was built in",
            ))
        };
        let (root, store) = (self.store.root().stat_self()?, self.store.dir().stat_self()?);
        let own = source.stat_self()?;
        if above(source)?.iter().any(|stat| stat.same_inode(&store)) {
            return refuse("is part of the store");
        }
        if above(self.store.root())?.iter().any(|stat| stat.same_inode(&own)) {
            return refuse(if own.same_inode(&root) { "is the store's root" } else { "holds the store" });
        }
        if self.store.versions().stat_self()?.same_inode(&own) {
            return refuse("holds the versions of this store");
        }
        Ok(())
    }

    /// The same for what lies below a source by way of a mount.
    fn refuse_own_parts_inside(&self, scan: &Scan) -> Result<()> {
        let (root, store) = (self.store.root().stat_self()?, self.store.dir().stat_self()?);
        let own = |directory: &&scan::ScanDir| directory.stat.same_inode(&root) || directory.stat.same_inode(&store);
        match scan.directories.iter().find(own) {
            Some(directory) => {
                Err(Error::refused(Refusal::UnsupportedSource, format!("{} is part of the store", directory.path)))
            }
            None => Ok(()),
        }
    }

    /// The version of this name, if it is published. Nobody is publishing while this looks, so what it gives is whole
    /// and durable.
    fn existing(&self) -> Result<Option<Manifest>> {
        let _publishing = self.store.publish_lock()?;
        let manifests = self.store.manifests()?;
        if manifests.stat(self.version)?.is_none() {
            return publish::check_name_is_free(self.store, self.version).map(|()| None);
        }
        if self.store.versions().try_stat(self.version)?.is_none() {
            return Err(Error::refused_with(
                Refusal::Exists,
                format!("{} exists, but its tree was removed by hand while it is in use", self.version),
                format!("bring it back with: tope-store verify {} --repair --from SOURCE", self.version),
            ));
        }
        manifests.read(self.version).map(Some)
    }

    fn objects<'o>(&self, run: &Run, published: &'o dyn Published) -> Result<Objects<'o>> {
        let incoming = run.dir().create_dir(INCOMING, layout::PRIVATE_DIR_MODE)?;
        Objects::open(self.store.dir(), incoming, published, self.options.links)
    }

    fn rules(&self) -> ingest::Rules {
        ingest::Rules {
            owner: self.options.owner,
            latest_mtime: self.options.latest_mtime,
            now: system::file_time_now().0,
            pyc: self.options.pyc,
            private: self.options.private.clone(),
            shared: self.options.shared.clone(),
        }
    }

    fn publish(
        &self,
        run: Run,
        mut passed: Passed,
        tally: &Tally,
        source: Source,
        meanwhile: &dyn Fn(),
    ) -> Result<Report> {
        let draft = self.draft(&mut passed, source);
        let seed = |draft: &Draft| {
            super::shared_state::seed(self.store, &run, &draft.trees, draft.root, &draft.facts.shared, None)
        };
        let outcome = publish::publish(self.store, &run, draft, &seed, meanwhile)?;
        run.finish()?;
        Ok(self.report(&passed, tally, Some(outcome)))
    }

    /// Empty files that a service writes, sorted.
    fn private_empty(&self, trees: &TreeSet, root: TreeId) -> Vec<TreePath> {
        let Options { private, shared, .. } = self.options;
        let mut paths = Vec::new();
        if !private.is_empty() {
            let walked = trees.walk(root, |path, entry| {
                let empty = matches!(entry.node, crate::model::Node::File { size: 0, .. });
                if empty && private.covers(path) && !shared.covers(path) {
                    paths.push(path.clone());
                }
                Ok::<(), std::convert::Infallible>(())
            });
            debug_assert!(walked.is_ok_and(|walked| walked.is_ok()), "an import has all its trees");
        }
        paths.sort_unstable();
        paths
    }

    /// What is to be published, but for its import number. Takes trees and placements out of what was passed over.
    pub(super) fn draft(&self, passed: &mut Passed, source: Source) -> Draft {
        let Moment { unix_seconds, synchronised, .. } = self.store.clock().now();
        let facts = Facts {
            name: self.version.clone(),
            import_number: 0,
            imported_at: unix_seconds,
            clock_synchronised: synchronised,
            note: self.options.note.clone(),
            labels: self.options.labels.clone(),
            source,
            ownership: self.store.ownership(),
            shared: passed.shared.clone(),
            private_empty: self.private_empty(&passed.trees, passed.root),
        };
        let (trees, placements) = (std::mem::take(&mut passed.trees), std::mem::take(&mut passed.placements));
        Draft { facts, root: passed.root, trees, placements }
    }

    pub(super) fn report(&self, passed: &Passed, tally: &Tally, outcome: Option<Outcome>) -> Report {
        let (import_number, already_there) = match outcome {
            Some(Outcome::Published { import_number }) => (Some(import_number), false),
            Some(Outcome::AlreadyThere { import_number }) => (Some(import_number), true),
            None => (None, false),
        };
        let mut warnings = passed.warnings.clone();
        let mut warn = |kind, message| warnings.push(Warning { kind, path: None, message });
        if tally.setid_files.get() > 0 {
            warn(
                "setid",
                format!(
                    "{} files are set-user-id, set-group-id or have file capabilities; see them with: tope-store ls -l",
                    tally.setid_files.get()
                ),
            );
        }
        if tally.pinned_files.get() > 0 {
            let (files, bytes) = (tally.pinned_files.get(), tally.pinned_bytes.get());
            warn(
                "pyc",
                format!(
                    "{files} Python sources ({bytes} bytes) keep their own modification time for their compiled files and are shared only with releases that have the same time; compile with --invalidation-mode unchecked-hash to share them, or import with --pyc share"
                ),
            );
        }
        if tally.copied_files.get() > 0 {
            warn(
                "copied",
                format!(
                    "{} files were copied, since this file system makes no hardlinks here",
                    tally.copied_files.get()
                ),
            );
        }
        Report {
            version: self.version.clone(),
            digest: Digest(passed.root),
            import_number,
            already_there,
            dry_run: self.options.mode == Mode::DryRun,
            files: tally.files.get(),
            directories: passed.directories,
            symlinks: tally.symlinks.get(),
            total_bytes: tally.total_bytes.get(),
            new_objects: tally.new_objects.get(),
            new_bytes: tally.new_bytes.get(),
            reflinked_bytes: tally.reflinked_bytes.get(),
            linked_files: if already_there { 0 } else { tally.linked_files.get() },
            copied_files: tally.copied_files.get(),
            private_files: tally.private_files.get(),
            unread_files: tally.unread_files.get(),
            warnings,
            elapsed: self.start.elapsed(),
        }
    }
}

/// A directory and all those above it.
fn above(dir: &Dir) -> Result<Vec<Stat>> {
    let mut line = vec![dir.stat_self()?];
    let mut dir = dir.open_dir("..")?;
    loop {
        let stat = dir.stat_self()?;
        if line.last().is_some_and(|last| last.same_inode(&stat)) {
            return Ok(line);
        }
        line.push(stat);
        dir = dir.open_dir("..")?;
    }
}

fn passed(scan: &Scan, ingested: ingest::Ingested) -> Passed {
    let skipped = scan.skipped.iter().map(|(path, reason)| Warning {
        kind: "skipped",
        path: Some(path.clone()),
        message: format!("{path} is {reason} and was skipped"),
    });
    Passed {
        root: ingested.root,
        trees: ingested.trees,
        placements: ingested.placements,
        shared: ingested.shared,
        directories: scan.directories.len() as u64 - 1,
        warnings: skipped.collect(),
    }
}

/// A source directory with everything that is known about its files before they are read.
pub(super) struct Reader<'a> {
    job: &'a Job<'a>,
    source: &'a Dir,
    scan: &'a Scan,
    rules: ingest::Rules,
    cached: KnownContents,
    own_inodes: HashMap<u64, ObjectKey>,
    published: &'a dyn Published,
    store_device: u64,
    source_device: u64,
    started: (i64, u32),
    file_system_id: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(job: &'a Job<'a>, source: &'a Dir, scan: &'a Scan, published: &'a dyn Published) -> Result<Self> {
        let source_device = source.stat_self()?.device;
        let store_device = job.store.dir().stat_self()?.device;
        let file_system_id = Space::of(source)?.file_system_id;
        let mut reader = Self {
            job,
            source,
            scan,
            rules: job.rules(),
            cached: KnownContents::default(),
            own_inodes: HashMap::new(),
            published,
            store_device,
            source_device,
            started: system::file_time_now(),
            file_system_id,
        };
        if job.options.reread == Reread::Changed {
            let files = || {
                scan.directories
                    .iter()
                    .flat_map(|directory| &directory.files)
                    .filter(|file| file.stat.kind == Kind::File)
            };
            reader.cached = KnownContents::of(job.store, source, scan)?;
            if source_device == store_device && files().any(|file| file.stat.links > 1) {
                reader.own_inodes = crate::object::inodes(job.store.dir())?;
            }
        }
        Ok(reader)
    }

    fn ingest(&self, objects: Option<&Objects<'_>>, target: Option<Dir>, tally: &Tally) -> Result<ingest::Ingested> {
        let cached = |stat: &Stat| self.cached.get(stat);
        let own_inodes = |stat: &Stat| {
            let key =
                self.own_inodes.get(&stat.inode).filter(|_| stat.device == self.store_device && stat.links > 1)?;
            // A name proves nothing: only what is published and looks as recorded stands in for its bytes.
            let recorded = self.published.lookup(key).ok().flatten()?;
            crate::object::check::by_stat(stat, key, Some(&recorded)).ok().map(|()| key.clone())
        };
        let pass = ingest::Ingest {
            scan: self.scan,
            objects,
            ownership: self.job.store.ownership(),
            rules: &self.rules,
            cached: &cached,
            own_inodes: &own_inodes,
            private: self.job.private,
            tally,
            observer: self.job.observer,
        };
        ingest::run(&pass, self.source, target)
    }

    /// Keeps what was read for the next import. Best effort: a cache that cannot be written costs time, nothing else.
    pub(super) fn remember(&self, read: &[(Stat, ContentId)]) {
        // A file that changed in the same tick as it was read could change again without showing it.
        let settled = |stat: &Stat| stat.ctime < self.settled_before() && stat.device == self.source_device;
        let rows: Vec<(Stat, ContentId)> = read.iter().filter(|(stat, _)| settled(stat)).copied().collect();
        self.job.store.remember_contents(self.file_system_id, &rows);
    }

    /// Two seconds before the start: the coarsest clock of any file system that is supported.
    fn settled_before(&self) -> (i64, u32) {
        (self.started.0 - 2, self.started.1)
    }
}
