//! Putting a tree of links in the place of a hand-made one.
//!
//! The new tree is built in staging, and beside it lies a note: which version, and which inode the hand-made tree has.
//! An inode keeps its number when it is renamed, so that whatever an interruption left, the note tells which tree is
//! which. From there:
//!
//! | step | died after it, the next command sees |
//! | --- | --- |
//! | 1. note written, everything durable | an abandoned run whose note says that the hand-made tree is in its place: removed |
//! | 2. both trees exchanged, durable | the hand-made tree in the run, no manifest: exchanged back, nothing happened |
//! | 3. the hand-made tree looked at again; exchanged back if it changed | the same |
//! | 4. manifest published, durable: from here on the version is managed | manifest and tree, no event: the event is appended; the run is removed |
//! | 5. event `adopt` appended, durable | the run is removed |
//! | 6. hand-made tree removed; moved to trash if processes still use it | nothing |
//!
//! **Invariant:** `versions/V` is one of the two trees at every instant. Only where two names cannot be exchanged in one
//! step it is absent for a moment, and there `current` is refused.

use super::{SharedStore, Store};
use crate::error::{Error, Refusal, Result};
use crate::fsys::process::uses_below;
use crate::fsys::{Dir, Stat, durable};
use crate::layout;
use crate::model::VersionName;
use crate::staging::TREE;

/// The note in a run's directory.
const NOTE: &str = "adopting";
/// In a run's directory: the hand-made tree, where the exchange takes two steps.
const ASIDE: &str = "aside";

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The version that is being adopted.
    pub version: VersionName,
    /// The inode of the hand-made tree's top.
    pub inode: u64,
}

impl Note {
    /// Leaves the note in a run's directory, durably.
    pub fn write(&self, run: &Dir) -> Result<()> {
        let text = format!("{}\n{}\n", self.version, self.inode);
        durable::write(run, NOTE, text.as_bytes(), layout::PUBLIC_FILE_MODE)
    }

    /// The note of a run, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for a note that does not parse: its run may hold the only copy of a tree.
    pub fn read(run: &Dir) -> Result<Option<Self>> {
        let Some(bytes) = run.try_read(NOTE)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.parse().ok());
        let inode = lines.next().and_then(|line| line.parse().ok());
        let note = version.zip(inode).map(|(version, inode)| Self { version, inode });
        note.map(Some).ok_or_else(|| Error::corrupt("note of an adoption", run.path_of(NOTE), "it does not parse"))
    }
}

/// How two trees were exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchanged {
    /// In one step: the hand-made tree has the new one's name in the run.
    AtOnce,
    /// In two steps: the hand-made tree lies aside in the run.
    InTwoSteps,
}

impl Exchanged {
    /// Where the hand-made tree lies in the run's directory.
    pub fn displaced(self) -> &'static str {
        match self {
            Self::AtOnce => TREE,
            Self::InTwoSteps => ASIDE,
        }
    }
}

impl SharedStore<'_> {
    /// Exchanges the run's tree with `versions/V`. The caller holds `publish.lock` and `refs.lock`, says whether `current`
    /// leads to the version, and makes it durable behind the lock ([`SharedStore::sync_exchange`], step 2).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for `current` where that takes more than one step; what the system refuses.
    pub fn exchange(&self, run: &Dir, version: &VersionName, is_current: bool) -> Result<Exchanged> {
        match run.exchange(TREE, self.versions(), version) {
            Ok(()) => Ok(Exchanged::AtOnce),
            Err(error) if error.is_io(std::io::ErrorKind::Unsupported) => {
                exchange_in_two_steps(self, run, version, is_current)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an exchange durable, or its undoing.
    ///
    /// # Errors
    ///
    /// The system refuses to sync.
    pub fn sync_exchange(&self, run: &Dir) -> Result<()> {
        self.versions().sync()?;
        run.sync()
    }

    /// Puts the hand-made tree back into its place, durably. Does nothing if it is there. For an interrupted adoption
    /// as for one that is given up. Takes `refs.lock`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; what the system refuses.
    pub fn undo_exchange(&self, run: &Dir, note: &Note) -> Result<()> {
        let undone = {
            let refs = self.refs()?;
            let _links = refs.lock(self.settings().lock_timeout)?;
            self.exchange_back(run, note)?
        };
        if undone { self.sync_exchange(run) } else { Ok(()) }
    }

    /// Renames the trees back where they are exchanged; tells whether they were.
    fn exchange_back(&self, run: &Dir, note: &Note) -> Result<bool> {
        let is_original = |stat: Option<Stat>| stat.is_some_and(|stat| stat.inode == note.inode);
        let there = self.versions().try_stat(&note.version)?;
        if is_original(there) {
            return Ok(false);
        }
        let versions = self.versions();
        let Some(from) = original_in(run, note)? else {
            tracing::warn!(version = %note.version, "the tree of an interrupted adoption was moved by somebody else");
            return Ok(false);
        };
        if there.is_none() {
            run.rename_new(from, versions, &note.version)?;
        } else if let Err(error) = run.exchange(from, versions, &note.version) {
            if !error.is_io(std::io::ErrorKind::Unsupported) {
                return Err(error);
            }
            versions.rename_new(&note.version, run, "given-up")?;
            run.rename_new(from, versions, &note.version)?;
        }
        Ok(true)
    }

    /// Whether an abandoned run, whose lock the caller holds, may be removed: it holds no hand-made tree, or one whose
    /// version was adopted and that no process uses.
    ///
    /// # Errors
    ///
    /// It cannot be found out. Then the run stays.
    pub(super) fn may_remove_run(&self, run: &Dir) -> Result<bool> {
        self.settle_adoption(run)?;
        let Some(note) = Note::read(run)? else { return Ok(true) };
        let Some(original) = original_in(run, &note)? else { return Ok(true) };
        let adopted = self.manifests()?.stat(&note.version)?.is_some();
        let uses = uses_below(&run.real_path()?)?;
        Ok(adopted && !uses.is_used(original.as_bytes()))
    }

    /// Undoes an adoption that died in this run, if one did and did not get as far as a manifest.
    pub(super) fn settle_adoption(&self, run: &Dir) -> Result<()> {
        let Some(note) = Note::read(run)? else { return Ok(()) };
        let _publishing = self.publish_lock()?;
        if self.manifests()?.stat(&note.version)?.is_some() {
            return Ok(());
        }
        self.undo_exchange(run, &note)
    }
}

/// The name of the hand-made tree in a run's directory, if it is there.
fn original_in(run: &Dir, note: &Note) -> Result<Option<&'static str>> {
    for name in [TREE, ASIDE] {
        if run.try_stat(name)?.is_some_and(|stat| stat.inode == note.inode) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn exchange_in_two_steps(store: &Store, run: &Dir, version: &VersionName, is_current: bool) -> Result<Exchanged> {
    if is_current {
        return Err(Error::refused_with(
            Refusal::NotAllowed,
            format!("this file system cannot exchange two directories in one step, and {version} is current"),
            "activate another version first",
        ));
    }
    store.versions().rename_new(version, run, ASIDE)?;
    run.rename_new(TREE, store.versions(), version)?;
    Ok(Exchanged::InTwoSteps)
}
