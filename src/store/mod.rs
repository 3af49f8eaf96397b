//! An opened store: its parts, and its locks as handles.
//!
//! [`Store`] can look. What changes something is a method of, or takes, a locked handle: [`SharedStore`] for imports
//! and everything that only adds, [`ExclusiveStore`] for what removes or rewrites. Holding the handle is holding the
//! lock, so that an unlocked sweep does not compile.
//!
//! - [`create`]: making a store
//! - [`published`]: which objects published manifests refer to
//! - [`revoke`]: ending the trust in objects that were found to be damaged
//! - [`loss`]: refusing while most versions are gone at once
//! - [`protection`]: why a version is neither removed nor forgotten
//! - [`removal`]: taking a version out, restartable at every step
//! - [`switched`]: what follows a switch: telling who watches, recording in order
//! - [`trial`]: the activation that is on trial
//! - [`adoption`]: putting a tree of links in the place of a hand-made one
//! - [`witnesses`]: what is known of the history outside its log
//! - [`recover`]: completing or undoing what an interruption left
//!
//! Order of locks: `lock` (these handles), `publish.lock`, `refs.lock`, `history.lock`. Nothing waits for the medium under
//! `refs.lock`, and no other lock is taken under it.

pub mod adoption;
pub mod catalog;
pub mod create;
pub mod loss;
pub mod notice;
pub mod protection;
pub mod published;
pub mod reclaim;
pub mod recover;
pub mod removal;
mod replace;
pub mod resolve;
pub mod revoke;
pub mod source_cache;
pub mod survey;
pub mod switched;
pub mod trial;
pub mod understand;
pub mod witnesses;

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Refusal, Result, Shown};
use crate::fsys::actor::actor;
use crate::fsys::{Dir, Identity, LockFile, LockGuard, LockMode, SystemClock, system};
use crate::history::{Doubt, History, State};
use crate::layout::{self, Layout};
use crate::manifests::Manifests;
use crate::model::actor::Claimed;
use crate::model::format::FormatError;
use crate::model::{Event, Format, Marks, Ownership, VersionName};
use crate::refs::Refs;

/// How a store is used by this process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads to work with; by default as many as the machine has.
    pub jobs: Option<NonZeroUsize>,
    /// How long a lock is waited for.
    pub lock_timeout: Duration,
    /// What the environment claims of who is behind this process, for the history.
    pub claimed: Claimed,
}

impl Default for Settings {
    fn default() -> Self {
        Self { jobs: None, lock_timeout: Duration::from_secs(10), claimed: Claimed::default() }
    }
}

/// A store, open for looking.
pub struct Store {
    layout: Layout,
    settings: Settings,
    format: Format,
    /// Why the format file tells nothing, in a store that was opened all the same.
    format_problem: Option<String>,
    clock: Box<dyn Clock + Send>,
    root: Dir,
    versions: Dir,
    dir: Dir,
    owner: (u32, u32),
    /// Whether this process is the owner, or may act as the owner.
    works_as_owner: bool,
    pool: OnceLock<rayon::ThreadPool>,
    /// One for all, so that each look reads only what was added since the last.
    history: OnceLock<History>,
    /// Versions that this process forgot.
    forgotten: Mutex<Vec<VersionName>>,
}

impl Store {
    /// Opens the store at `layout`.
    ///
    /// # Errors
    ///
    /// - [`Error::NoStore`] if there is none;
    /// - [`Error::UnsupportedFormat`] if this build may not read it;
    /// - [`Error::Refused`] if `store/` and `versions/` are on two file systems.
    pub fn open(layout: Layout, settings: Settings) -> Result<Self> {
        Self::open_parts(layout, settings, |dir, layout| {
            let text = dir.try_read(layout::FORMAT)?.ok_or_else(|| Error::NoStore { root: layout.root() })?;
            let format = Format::parse(&text).map_err(|error| match error {
                FormatError::Malformed(detail) => Error::corrupt("format file", dir.path_of(layout::FORMAT), detail),
                FormatError::Incompatible(_) => {
                    Error::UnsupportedFormat { root: layout.root(), detail: error.to_string() }
                }
            })?;
            Ok((format, None))
        })
        .and_then(|store| {
            let together = store.dir.stat_self()?.device == store.versions.stat_self()?.device;
            if together { Ok(store) } else { Err(two_file_systems(&store.layout)) }
        })
    }

    /// Opens the store at `layout` whatever its format is: for going back and for looking, which need links and trees
    /// only. Where the format is not known, nothing but links may be written.
    ///
    /// # Errors
    ///
    /// [`Error::NoStore`] if there is none.
    pub fn open_leniently(layout: Layout, settings: Settings) -> Result<Self> {
        Self::open_parts(layout, settings, |dir, _| {
            let known = match dir.try_read(layout::FORMAT) {
                Ok(Some(text)) => Format::parse(&text).map_err(|error| error.to_string()),
                Ok(None) => Err("the format file is missing".into()),
                Err(error) => Err(error.to_string()),
            };
            let user_owned = dir.stat_self()?.uid != 0;
            Ok(match known {
                Ok(format) => (format, None),
                Err(problem) => (Format::new(user_owned, false), Some(problem)),
            })
        })
    }

    fn open_parts(
        layout: Layout,
        settings: Settings,
        format: impl FnOnce(&Dir, &Layout) -> Result<(Format, Option<String>)>,
    ) -> Result<Self> {
        let no_store = |error: Error| match error {
            error if error.is_io(std::io::ErrorKind::NotFound) => Error::NoStore { root: layout.root() },
            other => other,
        };
        let root = layout.open_dir(layout.device_root()).map_err(no_store)?;
        let dir = root.open_dir(layout::STORE).map_err(no_store)?;
        let versions = root.open_dir(layout::VERSIONS).map_err(no_store)?;
        let stat = dir.stat_self()?;
        let owner = (stat.uid, stat.gid);
        // In a user's store root works as that user. Where it may not, it only looks and switches (`check_user`).
        let identity = Identity::of_owner(&stat).filter(|identity| identity.assume().is_ok());
        let (root, dir) = (root.acting_as(identity), dir.acting_as(identity));
        let versions = versions.acting_as(identity);
        let (format, format_problem) = format(&dir, &layout)?;
        Ok(Self {
            layout,
            settings,
            format,
            format_problem,
            clock: Box::new(SystemClock),
            root,
            versions,
            dir,
            owner,
            works_as_owner: owner.0 == 0 || identity.is_some(),
            pool: OnceLock::new(),
            history: OnceLock::new(),
            forgotten: Mutex::default(),
        })
    }

    /// The same store with another clock; for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + Send + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Where it lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it is used.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its features.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Where its time comes from.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The directory above everything.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// `versions/`.
    pub fn versions(&self) -> &Dir {
        &self.versions
    }

    /// `store/`.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// How it applies recorded owners.
    pub fn ownership(&self) -> Ownership {
        // The format file is the owner's to change, and must not decide what root gives away.
        match self.format.squash() || self.owner.0 != 0 {
            true => Ownership::Squash { uid: self.owner.0, gid: self.owner.1 },
            false => Ownership::AsRecorded,
        }
    }

    /// Its manifests.
    pub fn manifests(&self) -> Result<Manifests> {
        Manifests::open(&self.dir)
    }

    /// `store/objects/`.
    pub fn objects_dir(&self) -> Result<Dir> {
        self.dir.open_dir(layout::OBJECTS)
    }

    /// `store/staging/`.
    pub fn staging_dir(&self) -> Result<Dir> {
        self.dir.open_dir(layout::STAGING)
    }

    /// `store/trash/`.
    pub fn trash_dir(&self) -> Result<Dir> {
        self.dir.open_dir(layout::TRASH)
    }

    /// Its history.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn history(&self) -> Result<&History> {
        match self.history.get() {
            Some(history) => Ok(history),
            None => {
                let history = History::new(self.dir.try_clone()?);
                Ok(self.history.get_or_init(|| history))
            }
        }
    }

    /// Its role links.
    pub fn refs(&self) -> Result<Refs> {
        Ok(Refs::new(self.versions.try_clone()?, self.dir.try_clone()?, &self.layout))
    }

    /// Appends events to the history, as this process.
    ///
    /// # Errors
    ///
    /// As [`History::append`].
    pub fn record(&self, events: Vec<Event>) -> Result<Vec<Event>> {
        self.record_decided(|_| Ok(events))
    }

    /// Appends what `decide` makes of the marks while nobody else appends.
    ///
    /// # Errors
    ///
    /// As [`History::append_decided`].
    pub fn record_decided(&self, decide: impl FnOnce(&Marks) -> Result<Vec<Event>>) -> Result<Vec<Event>> {
        self.record_by(Doubt::Refuse, self.settings.lock_timeout, decide)
    }

    /// Appends events about a switch that was made, in doubt as well.
    ///
    /// # Errors
    ///
    /// As [`History::append_decided`].
    pub fn record_switch(&self, events: Vec<Event>) -> Result<Vec<Event>> {
        self.record_by(Doubt::PassOver, self.patience(), |_| Ok(events))
    }

    fn record_by(
        &self,
        doubt: Doubt,
        timeout: Duration,
        decide: impl FnOnce(&Marks) -> Result<Vec<Event>>,
    ) -> Result<Vec<Event>> {
        let who = actor(&self.settings.claimed);
        let signed = |marks: &Marks| {
            let events = decide(marks)?.into_iter();
            Ok(events.map(|event| Event { who: who.clone(), ..event }).collect())
        };
        let history = self.history()?;
        // A log that somebody removed must not look sound again because one line was written.
        if history.present()?.state == State::Missing && !self.manifests()?.names()?.is_empty() {
            return Err(Error::corrupt("history", self.dir.path_of(layout::HISTORY), "it is gone"));
        }
        Ok(history.append_decided(self.clock(), timeout, doubt, signed)?.events)
    }

    /// Runs work on this store's own threads.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn in_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if self.pool.get().is_none() {
            let jobs = self.settings.jobs.or_else(|| std::thread::available_parallelism().ok());
            let built = rayon::ThreadPoolBuilder::new()
                .num_threads(jobs.map_or(1, NonZeroUsize::get))
                .thread_name(|at| format!("tope-{at}"))
                .build()
                .map_err(|error| Error::io("start threads for", self.layout.root(), std::io::Error::other(error)))?;
            // If another thread was faster, its pool serves as well.
            drop(self.pool.set(built));
        }
        Ok(self.pool.get().expect("it was set just above").install(work))
    }

    /// Takes the store's lock together with others who only add.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when the time is over, [`Error::Refused`] if this user or build may not write here.
    pub fn share(&self) -> Result<SharedStore<'_>> {
        let shared = self.share_to_look()?;
        check_links(&self.layout, &self.dir, &self.versions)?;
        Ok(shared)
    }

    /// The same for a run that writes nothing: not even links are tried.
    ///
    /// # Errors
    ///
    /// As [`Store::share`].
    pub fn share_to_look(&self) -> Result<SharedStore<'_>> {
        self.check_writable()?;
        let lock = LockFile::open(&self.dir, layout::LOCK)?.lock(LockMode::Shared, self.settings.lock_timeout)?;
        Ok(SharedStore { store: self, _lock: Some(lock) })
    }

    /// Takes the store's lock alone.
    ///
    /// # Errors
    ///
    /// As [`Store::share`]; [`Error::Refused`] while most versions are gone.
    pub fn exclude(&self) -> Result<ExclusiveStore<'_>> {
        self.check_changeable()?;
        let lock = LockFile::open(&self.dir, layout::LOCK)?.lock(LockMode::Exclusive, self.settings.lock_timeout)?;
        Ok(ExclusiveStore { store: self, _lock: lock })
    }

    /// Takes the store's lock alone if that is possible at once.
    pub fn try_exclude(&self) -> Result<Option<ExclusiveStore<'_>>> {
        self.check_changeable()?;
        let lock = LockFile::open(&self.dir, layout::LOCK)?.try_lock(LockMode::Exclusive)?;
        Ok(lock.map(|lock| ExclusiveStore { store: self, _lock: lock }))
    }

    /// The versions that this process forgot, in the order in which it did.
    pub fn forgotten(&self) -> Vec<VersionName> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_forgotten(&self, version: &VersionName) {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).push(version.clone());
    }

    /// Takes the lock under which one version at a time is published, taken out or put back.
    pub fn publish_lock(&self) -> Result<LockGuard> {
        LockFile::open(&self.dir, layout::PUBLISH_LOCK)?.lock(LockMode::Exclusive, self.settings.lock_timeout)
    }

    /// Whether this process may write here at all.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] says why not.
    pub fn check_writable(&self) -> Result<()> {
        self.check_format()?;
        self.check_user()
    }

    /// Whether this build may write here, as far as the format is concerned.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedFormat`] says why not.
    pub fn check_format(&self) -> Result<()> {
        match self.format_obstacle() {
            Some(detail) => Err(Error::UnsupportedFormat { root: self.layout.root(), detail }),
            None => Ok(()),
        }
    }

    /// Why this build may write nothing but links: the format cannot be read, or has incompatible features that this
    /// build does not know. Under others a switch back still records itself: they change no line of history or trial.
    pub fn record_obstacle(&self) -> Option<&str> {
        self.format_problem.as_deref()
    }

    /// Why this build may not write to this store, as far as its format is concerned.
    pub fn format_obstacle(&self) -> Option<String> {
        if self.format_problem.is_some() {
            return self.format_problem.clone();
        }
        let unknown = self.format.unwritable_because();
        let detail = || format!("writing needs features that this build does not know: {}", unknown.join(", "));
        (!unknown.is_empty()).then(detail)
    }

    /// Whether the format file tells nothing, rather than something that this build does not know.
    pub fn has_damaged_format(&self) -> bool {
        let text = self.dir.try_read(layout::FORMAT).ok().flatten();
        self.format_problem.is_some()
            && !text.is_some_and(|text| matches!(Format::parse(&text), Err(FormatError::Incompatible(_))))
    }

    /// Whether this user may write here.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for everybody but the store's owner and root.
    pub fn check_user(&self) -> Result<()> {
        let uid = system::effective_uid();
        if uid != self.owner.0 && uid != 0 {
            return Err(Error::refused_with(
                Refusal::NotAllowed,
                format!("this store belongs to user {}, and you are user {uid}", self.owner.0),
                "run the command as that user or as root",
            ));
        }
        self.check_owners()
    }

    /// Whether root may work here: as the user whom all parts of the store belong to.
    fn check_owners(&self) -> Result<()> {
        if system::effective_uid() != 0 {
            return Ok(());
        }
        let owner = self.owner.0;
        if !self.works_as_owner {
            return Err(Error::refused_with(
                Refusal::NotAllowed,
                format!("this store belongs to user {owner}, and this process may not act as that user"),
                "run the command as that user, or with CAP_SETUID and CAP_SETGID",
            ));
        }
        let other = self.versions.stat_self()?.uid;
        if other != owner {
            return Err(Error::refused_with(
                Refusal::NotAllowed,
                format!(
                    "{} belongs to user {other} and {} to user {owner}: one of them could be replaced at any time",
                    Shown::path(self.versions.path()),
                    Shown::path(self.dir.path())
                ),
                "give both to one user",
            ));
        }
        Ok(())
    }
}

/// Begins the name of a file in `versions/` that is made and removed at once.
pub(super) const PROBE: &str = ".probe-";

/// Tries whether a link from `store/` to `versions/` can be made: bind mounts split what has one device number.
fn check_links(layout: &Layout, store: &Dir, versions: &Dir) -> Result<()> {
    let probe = format!("{PROBE}{}", std::process::id());
    versions.remove_file_if_present(&probe)?;
    match store.link(layout::LOCK, versions, &probe) {
        Ok(()) => versions.remove_file_if_present(&probe).map(drop),
        Err(error) if error.is_io(std::io::ErrorKind::CrossesDevices) => Err(two_file_systems(layout)),
        // No hardlinks at all here: files will be copied, counted and said.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn two_file_systems(layout: &Layout) -> Error {
    Error::refused_with(
        Refusal::NotAllowed,
        format!(
            "{} and {} are on two file systems, so files cannot be linked from one to the other",
            layout.root().join(layout::STORE).display(),
            layout.root().join(layout::VERSIONS).display()
        ),
        "mount one file system at the root instead of at either of them",
    )
}

/// A store with its lock held together with others who only add.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct SharedStore<'a> {
    store: &'a Store,
    /// Absent if an exclusive holder lends its own.
    _lock: Option<LockGuard>,
}

/// A store with its lock held alone.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct ExclusiveStore<'a> {
    store: &'a Store,
    _lock: LockGuard,
}

impl ExclusiveStore<'_> {
    /// Whoever holds the lock alone may do what those may who hold it together.
    pub fn as_shared(&self) -> SharedStore<'_> {
        SharedStore { store: self.store, _lock: None }
    }
}

impl Deref for SharedStore<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

impl Deref for ExclusiveStore<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}
