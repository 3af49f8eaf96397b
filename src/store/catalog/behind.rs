//! What an index lacks of what manifests and history say, and how it gets it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Held;
use crate::error::{Error, Result};
use crate::fsys::{LockFile, LockMode};
use crate::history::{Reading, Recorded};
use crate::index::{self, HistoryLine, Index, ManifestFile, Reader, Reflected, Removed};
use crate::layout;
use crate::model::{Manifest, ObjectKey, VersionName};
use crate::store::Store;

/// What became of an index that was to be caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    /// It lacks something and may not be written.
    Behind,
    /// It lacks nothing.
    Current,
    /// The same, and what only removed versions used was taken out.
    Swept,
}

/// What just went, so that nobody has to find it out again.
pub struct Removal {
    /// Versions, each once, sorted.
    pub versions: Vec<VersionName>,
    /// The objects to which only they referred.
    pub objects: Vec<ObjectKey>,
}

/// What the caller knows of what an index may lack.
#[derive(Clone, Copy, Default)]
pub(super) struct AtHand<'a> {
    pub(super) published: Option<&'a Manifest>,
    pub(super) removed: Option<&'a Removal>,
}

/// What an index lacks.
pub(super) struct Behind {
    missing: Vec<(VersionName, ManifestFile)>,
    gone: Vec<VersionName>,
    /// Those of them that the history knows, or whose tree is there: what the index knows of their trees may be what
    /// makes the manifest again.
    lost: HashSet<VersionName>,
    lines: Vec<HistoryLine>,
}

pub(super) fn line(recorded: &Recorded) -> Option<HistoryLine> {
    recorded.trusted.then(|| HistoryLine {
        event: recorded.event.clone(),
        json: recorded.json.clone(),
        chain: recorded.chain,
    })
}

/// Trusted lines behind event `seq`, if that event is part of this history.
fn lines_after(reading: &Reading, seq: u64, chain: &crate::model::event::Chain) -> Result<Vec<HistoryLine>> {
    let known = reading.events.iter().find(|recorded| recorded.event.seq == seq);
    if seq > 0 && known.is_none_or(|recorded| recorded.trusted && recorded.chain != *chain) {
        return Err(index::foreign_history());
    }
    Ok(reading.events.iter().filter(|recorded| recorded.event.seq > seq).filter_map(line).collect())
}

impl Store {
    /// Brings the index to what manifests and history say; `false` if it is behind and may not be written.
    pub(super) fn catch_up(
        &self,
        index: &mut Index,
        writable: bool,
        held: Held,
        published: Option<&Manifest>,
    ) -> Result<bool> {
        let at_hand = AtHand { published, removed: None };
        Ok(self.catch_up_telling(index, writable, held, at_hand)? != Caught::Behind)
    }

    pub(super) fn catch_up_telling(
        &self,
        index: &mut Index,
        writable: bool,
        held: Held,
        at_hand: AtHand<'_>,
    ) -> Result<Caught> {
        let published = at_hand.published.map(|manifest| &manifest.facts.name);
        let behind = self.behind(&index.read()?, published)?;
        if behind.is_none() {
            return Ok(Caught::Current);
        }
        // What an index knows of manifests that are all gone at once makes them again.
        let gone = behind.as_ref().is_some_and(|behind| !behind.gone.is_empty());
        if !writable || gone && self.losses()?.obstacle().is_some() {
            return Ok(Caught::Behind);
        }
        let _lock = match held {
            Held::Shared | Held::Exclusive => None,
            Held::Nothing => match LockFile::open(self.dir(), layout::LOCK)?.try_lock(LockMode::Shared)? {
                Some(lock) => Some(lock),
                None => return Ok(Caught::Behind),
            },
        };
        let last = behind.and_then(|behind| behind.lines.last().map(|line| line.event.seq));
        if let Some(last) = last {
            // The index must never be ahead of what a power cut leaves of the history. While an append has not ended,
            // that is not known, and the cache can wait.
            let history = self.history()?;
            let durable = history.durable_anchor(Duration::ZERO).and_then(|anchor| match anchor.number < last {
                true => history.settle(Duration::ZERO),
                false => Ok(anchor),
            });
            match durable {
                Err(Error::Locked { .. }) => return Ok(Caught::Behind),
                other => drop(other?),
            }
        }
        let mut writer = index.write()?;
        // Looked at again: somebody may have caught it up while we waited.
        let Some(behind) = self.behind(&writer, published)? else { return Ok(Caught::Current) };
        let (lost, gone): (Vec<_>, Vec<_>) = behind.gone.iter().partition(|name| behind.lost.contains(name));
        // What else went or came would make other objects those that went.
        let removal = at_hand.removed.filter(|removal| {
            behind.missing.is_empty() && lost.is_empty() && gone.iter().copied().eq(&removal.versions)
        });
        let _removed = match removal {
            Some(removal) => writer.remove_versions_with(gone, &removal.objects)?,
            None if gone.is_empty() => Removed::default(),
            None => writer.remove_versions(gone)?,
        };
        writer.forget_versions(lost)?;
        let manifests = self.manifests()?;
        for (name, file) in &behind.missing {
            match at_hand.published.filter(|manifest| manifest.facts.name == *name) {
                Some(manifest) => writer.insert_version(manifest, file)?,
                None => match manifests.read(name) {
                    Ok(manifest) => writer.insert_version(&manifest, file)?,
                    Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        writer.append_events(&behind.lines)?;
        writer.commit()?;
        Ok(if behind.gone.is_empty() { Caught::Current } else { Caught::Swept })
    }

    /// What the index lacks; `None` if nothing. The manifest that is at hand need not be read.
    pub(super) fn behind(&self, reader: &Reader<'_>, at_hand: Option<&VersionName>) -> Result<Option<Behind>> {
        let mut indexed: HashMap<VersionName, ManifestFile> =
            reader.versions()?.into_iter().map(|version| (version.facts.name, version.manifest_file)).collect();
        let manifests = self.manifests()?;
        let (mut missing, mut gone) = (Vec::new(), Vec::new());
        for name in manifests.names()? {
            let Some(stat) = manifests.stat(&name)? else { continue };
            let file = ManifestFile::from(&stat);
            match indexed.remove(&name) {
                Some(known) if known == file => {}
                Some(_) => {
                    gone.push(name.clone());
                    missing.push((name, file));
                }
                None => missing.push((name, file)),
            }
        }
        gone.extend(indexed.into_keys());
        gone.sort();
        // A damaged manifest stays missing for ever, which is no reason to write.
        let unreadable = |name: &VersionName| match manifests.read(name) {
            Err(error) => error.is_unreadable() || matches!(error, Error::NotFound { .. }),
            Ok(_) => false,
        };
        missing.retain(|(name, _)| Some(name) == at_hand || !unreadable(name));
        let history = self.history()?;
        let present = history.present()?;
        let mut lost = HashSet::new();
        for name in &gone {
            if unreadable(name) && (self.has_tree(name)? || present.marks.versions.contains_key(name)) {
                lost.insert(name.clone());
            }
        }
        let Reflected { seq, chain } = reader.reflected()?;
        let lines = if (present.marks.last_event, present.chain) == (seq, chain) {
            Vec::new()
        } else {
            lines_after(&history.read()?, seq, &chain)?
        };
        if missing.is_empty() && gone.is_empty() && lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(Behind { missing, gone, lost, lines }))
    }
}
