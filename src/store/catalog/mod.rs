//! The index as the store uses it: always answering, never trusted more than what it was made from.
//!
//! Before it is asked, the index is compared with the truth: the manifest files by name and stat, the history by the
//! number and chain value of its last event. Behind, it is caught up; missing, damaged or foreign, it is rebuilt;
//! where neither can be done now (another user, a read-only mount, a full disk, a gc or import holding the lock), the
//! same schema is filled in memory and answers from there. A question that meets damage is asked once more of a rebuilt
//! index.
//!
//! **Invariant:** no command fails because the index has no room, or cannot be read or written: readers answer from
//! memory, and who changes the store leaves the index behind and says so.

mod behind;

use std::collections::HashSet;
use std::time::Duration;

pub use self::behind::Removal;
use self::behind::{AtHand, Caught, line};
use super::witnesses::{doubt, lost};
use super::{ExclusiveStore, SharedStore, Store};
use crate::error::{Error, Result, chain};
use crate::index::{self, Index, ManifestFile, Mode, Opened, Reader};
use crate::layout;
use crate::model::{Anchor, Manifest, TreeId, TreeSet};

/// How long a process that holds the index is waited for, before the answer is made in memory.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// Name of an index that is being rebuilt.
pub(super) const REBUILT: &str = "index.db.new";

/// How the index compares with manifests and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexState {
    /// It says what they say.
    Current,
    /// It lacks what was added since.
    Behind,
    /// There is none.
    Missing,
    /// It is damaged, and in what way.
    Damaged(String),
    /// It cannot be asked now, and why.
    Unknown(String),
}

/// Says that an answer is made without the index, unless another process only holds it for the moment.
fn answer_without(error: &Error) {
    if index::is_busy(error) {
        tracing::debug!(%error, "answering from memory");
    } else {
        tracing::warn!("answering without the index: {}", chain(error));
    }
}

/// Says that the index was left behind by a change that is done.
fn leave_behind(error: &Error) {
    if index::is_busy(error) {
        tracing::info!(%error, "the index will be caught up by the next command");
    } else {
        tracing::warn!("the index is left for a later command to catch up: {}", chain(error));
    }
}

/// Which lock the caller holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Shared,
    Exclusive,
}

impl Store {
    /// Asks the index. See the module's documentation for where the answer comes from.
    ///
    /// # Errors
    ///
    /// What the question fails with; what the system refuses.
    pub fn ask<T>(&self, question: impl Fn(&Reader<'_>) -> Result<T>) -> Result<T> {
        self.ask_holding(Held::Nothing, question)
    }

    /// Asks the index as it is, without bringing it up to date, which would forget versions whose manifests are lost.
    /// `None` if it cannot answer.
    pub fn peek<T>(&self, question: impl Fn(&Reader<'_>) -> Result<T>) -> Option<T> {
        let (mut index, _) = self.open_index().ok()?;
        let reader = index.read().ok()?;
        question(&reader).ok()
    }

    /// Compares the index with what it is made from, every tree with its hash.
    ///
    /// # Errors
    ///
    /// Manifests or history cannot be read.
    pub fn index_state(&self) -> Result<IndexState> {
        let mut index = match self.open_index() {
            Ok((index, _)) => index,
            Err(index::Trouble::Missing) => return Ok(IndexState::Missing),
            Err(trouble) if trouble.needs_rebuild() => return Ok(IndexState::Damaged(format!("{trouble:?}"))),
            Err(trouble) => return Ok(IndexState::Unknown(format!("it cannot be opened ({trouble:?})"))),
        };
        let compared = index.read().and_then(|reader| {
            if let Some(problem) = reader.quick_check()? {
                return Ok(IndexState::Damaged(problem));
            }
            if self.behind(&reader, None)?.is_some() {
                return Ok(IndexState::Behind);
            }
            for version in reader.versions()? {
                let root = version.digest.0;
                let manifest = self.manifests()?.read(&version.facts.name);
                let agrees =
                    manifest.is_ok_and(|manifest| manifest.root == root && manifest.facts.note == version.facts.note);
                if !agrees || reader.tree_set(&root)?.is_none() {
                    return Ok(IndexState::Damaged(format!("it has other contents for {}", version.facts.name)));
                }
            }
            Ok(IndexState::Current)
        });
        match compared {
            Err(error) if index::is_damage(&error) => Ok(IndexState::Damaged(chain(&error))),
            Err(error) if index::is_trouble(&error) => Ok(IndexState::Unknown(chain(&error))),
            other => other,
        }
    }

    /// Makes the index anew if it is missing or damaged and that can be done at once. Without it everything works, only
    /// slower.
    pub fn prepare_index(&self) {
        match self.open_index() {
            Err(trouble) if trouble.needs_rebuild() => drop(self.try_rebuild(Held::Nothing)),
            _ => {}
        }
    }

    fn ask_holding<T>(&self, held: Held, question: impl Fn(&Reader<'_>) -> Result<T>) -> Result<T> {
        let mut index = self.current_index(held)?;
        let mut answer = index.read().and_then(|reader| question(&reader));
        if let Err(error) = &answer
            && index::is_damage(error)
        {
            tracing::warn!(%error, "the index is damaged");
            drop(index);
            index = self.renewed_index(held)?;
            answer = index.read().and_then(|reader| question(&reader));
        }
        match answer {
            Err(error) if index::is_trouble(&error) => {
                answer_without(&error);
                question(&self.index_in_memory()?.read()?)
            }
            other => other,
        }
    }

    /// An index that reflects the truth as of now.
    fn current_index(&self, held: Held) -> Result<Index> {
        let opened = self.open_index();
        let (mut index, writable) = match opened {
            Ok(found) => found,
            Err(trouble) if trouble.needs_rebuild() => return self.renewed_index(held),
            Err(_) => return self.index_in_memory(),
        };
        match self.catch_up(&mut index, writable, held, None) {
            Ok(true) => Ok(index),
            Ok(false) => self.index_in_memory(),
            Err(error) if index::is_damage(&error) => {
                drop(index);
                self.renewed_index(held)
            }
            Err(error) if index::is_trouble(&error) => {
                answer_without(&error);
                self.index_in_memory()
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the file as well as this process may; tells whether it may be written.
    pub(super) fn open_index(&self) -> Result<(Index, bool), index::Trouble> {
        let attempts = match self.check_writable() {
            Ok(()) => &[Mode::ReadWrite, Mode::ReadOnly][..],
            Err(_) => &[Mode::ReadOnly],
        };
        let mut first = None;
        for &mode in attempts {
            match index::open(self.dir(), layout::INDEX, mode, BUSY_TIMEOUT) {
                Opened::Usable(index) => return Ok((index, mode == Mode::ReadWrite)),
                Opened::Unusable(unusable) => {
                    tracing::debug!(?mode, %unusable, "the index cannot be used");
                    // One that is held is held against readers too: waiting twice would not help.
                    if unusable.trouble.needs_rebuild() || unusable.trouble == index::Trouble::Busy {
                        return Err(unusable.trouble);
                    }
                    first.get_or_insert(unusable.trouble);
                }
            }
        }
        Err(first.unwrap_or(index::Trouble::Missing))
    }

    /// A rebuilt index, or one in memory where it cannot be rebuilt at once.
    fn renewed_index(&self, held: Held) -> Result<Index> {
        match self.try_rebuild(held) {
            true => self.open_index().map_or_else(|_| self.index_in_memory(), |(index, _)| Ok(index)),
            false => self.index_in_memory(),
        }
    }

    /// Rebuilds the index if that can be done at once; tells whether it was.
    fn try_rebuild(&self, held: Held) -> bool {
        if self.check_writable().is_err() {
            return false;
        }
        let rebuilt = match held {
            Held::Exclusive => self.rebuild_locked(),
            // Another importer may be at work; the next command rebuilds.
            Held::Shared => return false,
            Held::Nothing => match self.try_exclude() {
                Ok(Some(exclusive)) => exclusive.rebuild_locked(),
                Ok(None) | Err(_) => return false,
            },
        };
        if let Err(error) = &rebuilt {
            tracing::warn!("the index cannot be rebuilt now ({}): this works without it", chain(error));
        }
        rebuilt.is_ok()
    }

    /// Writes a new index beside the old one and puts it in its place. The caller holds the lock alone.
    fn rebuild_locked(&self) -> Result<()> {
        let witnesses = self.witnesses();
        let reading = self.history()?.read()?.against(&witnesses);
        if let Some(detail) = lost(&reading.state, &witnesses) {
            return Err(doubt(&format!("{detail}; the index may be all that is left of what was lost")));
        }
        tracing::info!("rebuilding the index");
        index::rebuild(self.dir(), REBUILT, self.all_manifests()?, reading.events.iter().filter_map(line).map(Ok))?;
        let placed = index::rebuild::replace(self.dir(), REBUILT, layout::INDEX);
        if placed.is_err() {
            // The next command that recovers removes it otherwise.
            let _ = self.dir().remove_file_if_present(REBUILT);
        }
        placed
    }

    fn index_in_memory(&self) -> Result<Index> {
        let reading = self.history()?.read()?;
        let mut index = Index::in_memory()?;
        index::rebuild::fill(&mut index, self.all_manifests()?, reading.events.iter().filter_map(line).map(Ok))?;
        Ok(index)
    }

    /// All manifests that can be trusted, one at a time, oldest import first. What cannot is left out here; `verify`
    /// and gc deal with it.
    fn all_manifests(&self) -> Result<impl Iterator<Item = Result<(Manifest, ManifestFile)>>> {
        let manifests = self.manifests()?;
        let marks = self.history()?.present()?.marks;
        let mut names = manifests.names()?;
        names.sort_by_key(|name| marks.versions.get(name).map_or(u64::MAX, |known| known.import_number));
        // A manifest that somebody copied by hand has the number of another one.
        let mut numbers = HashSet::new();
        Ok(names.into_iter().filter_map(move |name| match (manifests.read(&name), manifests.stat(&name)) {
            (Ok(manifest), Ok(Some(stat))) if numbers.insert(manifest.facts.import_number) => {
                Some(Ok((manifest, ManifestFile::from(&stat))))
            }
            (Ok(_), Ok(_)) | (Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }), _) => None,
            (Err(error), _) | (_, Err(error)) => Some(Err(error)),
        }))
    }
}

impl ExclusiveStore<'_> {
    /// Asks the index while holding the lock alone.
    ///
    /// # Errors
    ///
    /// As [`Store::ask`].
    pub fn ask<T>(&self, question: impl Fn(&Reader<'_>) -> Result<T>) -> Result<T> {
        self.ask_holding(Held::Exclusive, question)
    }

    /// Makes the index anew from manifests and history.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn rebuild_index(&self) -> Result<()> {
        self.rebuild_locked()
    }

    /// Takes removed versions, with the objects to which only they referred, and trees that nothing refers to out of
    /// the index. Best effort: one that is behind is caught up by the next command.
    pub fn index_removed(&self, removal: &Removal) {
        let settle = || -> Result<()> {
            let Ok((mut index, true)) = self.open_index() else { return Ok(()) };
            let at_hand = AtHand { removed: Some(removal), ..AtHand::default() };
            if self.catch_up_telling(&mut index, true, Held::Exclusive, at_hand)? == Caught::Swept {
                return Ok(());
            }
            let mut writer = index.write()?;
            let _removed = writer.prune()?;
            writer.commit()
        };
        if let Err(error) = settle() {
            leave_behind(&error);
        }
    }
}

impl SharedStore<'_> {
    /// Asks the index while holding the lock with others.
    ///
    /// # Errors
    ///
    /// As [`Store::ask`].
    pub fn ask<T>(&self, question: impl Fn(&Reader<'_>) -> Result<T>) -> Result<T> {
        self.ask_holding(Held::Shared, question)
    }

    /// An open, current index, or `None` if the answer would have to be made in memory.
    pub(super) fn usable_index(&self) -> Result<Option<Index>> {
        let opened = self.open_index();
        if let Err(trouble) = &opened
            && *trouble == index::Trouble::Missing
        {
            // The first import of a store: an empty index is a current one.
            return Ok(None);
        }
        let Ok((mut index, writable)) = opened else { return Ok(None) };
        match self.catch_up(&mut index, writable, Held::Shared, None) {
            Ok(true) => Ok(Some(index)),
            Ok(false) | Err(_) => Ok(None),
        }
    }

    /// Takes the trees of a version that is about to be published into the index. Best effort, as above.
    pub fn index_trees(&self, trees: &TreeSet, root: TreeId) {
        let take_in = || -> Result<()> {
            let Ok((mut index, true)) = self.open_index() else { return Ok(()) };
            let mut writer = index.write()?;
            writer.add_trees(trees, &root)?;
            writer.commit()
        };
        if let Err(error) = take_in() {
            leave_behind(&error);
        }
    }

    /// Takes a version that was just published into the index. Best effort, as above.
    pub fn index_published(&self, manifest: &Manifest) {
        let take_in = || -> Result<()> {
            match self.open_index() {
                Ok((mut index, true)) => self.catch_up(&mut index, true, Held::Shared, Some(manifest)).map(drop),
                _ => Ok(()),
            }
        };
        if let Err(error) = take_in() {
            leave_behind(&error);
        }
    }

    /// The number of the next import, one more than the highest that was ever given, and the anchor that its manifest
    /// carries: the history's last event. Call it under the publish lock.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn next_import(&self) -> Result<(u64, Anchor)> {
        let history = self.history()?;
        let anchor = history.durable_anchor(self.settings().lock_timeout)?;
        let present = history.present()?;
        let mut highest = present.marks.highest_import;
        let manifests = self.manifests()?;
        for name in manifests.names()? {
            // The history knows almost all of them; what it does not know is read.
            if present.state.is_trustworthy() && present.marks.versions.contains_key(&name) {
                continue;
            }
            if let Ok(manifest) = manifests.read(&name) {
                highest = highest.max(manifest.facts.import_number);
            }
        }
        Ok((highest + 1, anchor))
    }
}
