//! Importing a release: `source -> scan -> hash -> objects -> trees -> materialise -> publish`.
//!
//! A directory is looked at, checked against the free space, and then read, stored and linked in one parallel pass
//! ([`ingest`]). An archive is a stream: its contents become objects as they pass, and the tree is made of links
//! when the stream has ended well ([`archive`]). Both end in [`publish`].
//!
//! Importing what exists under the same name is no work: it is hashed, compared and said to be there.

mod archive;
pub mod digest;
mod directory;
mod ingest;
mod preflight;
pub mod pyc;
mod report;
mod source;
mod tally;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::publish::{self, Draft};
use super::repair::{self, Unfinished};
use crate::archive::{Input as ArchiveInput, Limits};
use crate::clock::Moment;
use crate::error::{Error, Refusal, Result};
use crate::fsys::{Dir, file, system};
use crate::layout;
use crate::model::glob::PathPatterns;
use crate::model::label;
use crate::model::{
    Anchor, Digest, Facts, Manifest, Placement, Source, SourceKind, TreeId, TreePath, TreeSet, VersionName,
};
use crate::object::{LinkPolicy, Made, Objects, Published};
use crate::observe::{self, Observer};
use crate::staging::{INCOMING, Run};
use crate::store::{SharedStore, Store};
pub(super) use directory::Built;
pub(super) use ingest::PrivateFiles;
use pyc::PycPolicy;
pub use report::{Report, Warning};
pub(super) use source::Reader;
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
/// Objects that were found damaged, and whose right bytes the source has, are made again for all versions.
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
    store.expect_understood("import")?;
    for (key, value) in &options.labels {
        label::check(key, value).map_err(|error| Error::Usage(error.to_string()))?;
    }
    let writes = options.mode == Mode::Write;
    if writes {
        store.check_changeable()?;
        store.prepare_index();
        store.recover()?;
    }
    let path = match &input {
        Input::Path(path) => Some(path.clone()),
        Input::Stream(_) => None,
    };
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
    revoke_suspects(store, &made);
    match imported {
        Ok(report) if writes => {
            let source = path.as_deref().filter(|_| report.already_there).map(|path| (path, &options.limits));
            Ok(renewed(store, report, made, source, observer))
        }
        Err(error) => {
            // What went wrong first is what the user has to know.
            let made: Vec<_> = made.iter().flat_map(Made::keys).collect();
            if let Err(error) = store.take_back(&made) {
                tracing::warn!(%error, "cannot remove the objects of a failed import; gc will");
            }
            Err(error)
        }
        dry => dry,
    }
}

/// Revokes the objects that a run read and found to be damaged.
pub(super) fn revoke_suspects(store: &Store, made: &[Made]) {
    let suspects = made.iter().flat_map(|made| made.suspects.iter().cloned()).collect();
    if let Some(why) = store.revoke(&suspects).unrecorded {
        tracing::warn!(why, "the damage that was found cannot be recorded");
    }
}

/// Puts the objects that this import made again into every version that has the damaged ones. A version that was there
/// already, with the same contents, has its revoked objects made again from `source`.
pub(super) fn renewed(
    store: &Store,
    mut report: Report,
    made: Vec<Made>,
    source: Option<(&Path, &Limits)>,
    observer: &dyn Observer,
) -> Report {
    let complete = || {
        let mut unfinished = match report.already_there {
            true => Unfinished::of_version(store, &store.history()?.present()?.marks, &report.version)?,
            false => Unfinished::default(),
        };
        unfinished.made.extend(made.into_iter().flat_map(|made| made.replaced));
        match unfinished.is_empty() {
            true => Ok(Vec::new()),
            false => repair::complete(store, unfinished, source, observer),
        }
    };
    let (kind, said) = match complete() {
        Ok(said) => ("renewed", said),
        Err(error) => {
            let way_out = "to have it done: tope-store verify --repair";
            let why = crate::error::chain(&error);
            ("not-relinked", vec![format!("versions still have objects that are damaged ({why}); {way_out}")])
        }
    };
    report.warnings.extend(said.into_iter().map(|message| Warning { kind, path: None, message }));
    report
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
    pub(super) made: Mutex<Vec<Made>>,
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

    /// Notes what was made: it is taken back if it is not published in the end.
    fn note_made(&self, objects: Objects<'_>) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(objects.into_made());
    }

    /// The version of this name, if it is published. Nobody is publishing while this looks, so what it gives is whole
    /// and durable.
    fn existing(&self) -> Result<Option<(Facts, Digest)>> {
        let _publishing = self.store.publish_lock()?;
        let manifests = self.store.manifests()?;
        if manifests.stat(self.version)?.is_none() {
            return publish::check_name_is_free(self.store, self.version).map(|()| None);
        }
        if self.store.versions().try_stat(self.version)?.is_none() {
            return Err(Error::refused_with(
                Refusal::Exists,
                format!("{} exists and is missing-tree: its tree is gone", self.version),
                format!("build it again with: tope-store verify {} --repair", self.version),
            ));
        }
        manifests.facts(self.version).map(Some)
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
        meanwhile: &(dyn Fn() + Sync),
    ) -> Result<Report> {
        let draft = self.draft(&mut passed, source);
        let seed = |manifest: &Manifest| {
            super::shared_state::seed(self.store, &run, &manifest.trees, manifest.root, &manifest.facts.shared, None)
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
            anchor: Anchor::START,
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
}
