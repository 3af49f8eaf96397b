//! Completing or undoing what an interruption left.
//!
//! | found | means | done |
//! | --- | --- | --- |
//! | manifest and tree, no event | died while publishing, after the tree | the event is appended |
//! | manifest, no tree, no event | died while publishing, before the tree | the manifest is removed |
//! | manifest, event, tree in trash | died while removing | moved back if a process uses it or a role wants it; else the removal is completed |
//! | manifest, event, no tree anywhere | removed by hand | recorded; the manifest goes unless a role wants it |
//! | tree in trash, no manifest | died while removing, after the manifest | a missing event is appended, the tree deleted |
//! | hand-made tree in staging, no manifest | died while adopting | put back into its place |
//! | entries in staging that nobody builds | died while building | removed; objects: see [`super::reclaim`] |
//! | a file `.NAME.new` among manifests | died while writing it | removed |
//! | a file `.probe-N` among versions | died while trying a link | removed |
//! | `.was`, `.next` and their like among versions | died while switching | as [`crate::refs`] says |
//! | `index.db.new`, `.history.new` | died while rebuilding the index, or beginning a segment | removed |
//!
//! What lies in trash and is in use by a process stays there until it no longer is.

use super::catalog::REBUILT;
use super::removal::{Trashed, leave_for_later, wanting};
use super::{PROBE, SharedStore};
use crate::error::Result;
use crate::fsys::{Dir, durable, remove};
use crate::layout;
use crate::model::{Action, Event, SourceKind, VersionName};
use crate::staging;

/// Things that no version needs: abandoned runs in staging, trees in trash.
#[derive(Debug, Default)]
#[must_use]
pub struct Leftovers {
    /// Abandoned entries of staging, and those of trash that nobody uses; each with the directory it lies in.
    pub names: Vec<(Dir, Vec<u8>)>,
    /// Entries of trash that stay, since processes use them.
    pub in_use: u64,
}

/// Removes files whose names are of a kind.
fn remove_files(dir: &Dir, is_of_kind: impl Fn(&[u8]) -> bool) -> Result<()> {
    for item in dir.items()?.iter().filter(|item| is_of_kind(item.name.as_bytes())) {
        dir.remove_file_if_present(&item.name)?;
    }
    Ok(())
}

impl SharedStore<'_> {
    /// Looks for what an interruption left, and mends it. Cheap when there is nothing.
    ///
    /// # Errors
    ///
    /// What the system refuses; a manifest that is damaged is left for `verify`.
    pub fn heal(&self) -> Result<()> {
        self.settle_all()?;
        self.remove_leftovers(&self.leftovers()?);
        Ok(())
    }

    /// The first half of [`SharedStore::heal`]: brings trees, manifests and history to agree, and deletes nothing.
    pub fn settle_all(&self) -> Result<()> {
        let staging = self.staging_dir()?;
        for name in staging::abandoned(&staging)? {
            if let Ok(run) = staging.open_dir(&name) {
                self.settle_adoption(&run)?;
            }
        }
        remove_files(self.versions(), |name| name.starts_with(PROBE.as_bytes()))?;
        self.settle_links()?;
        // Only who holds the store's lock alone builds one.
        remove_files(self.dir(), |name| name.starts_with(REBUILT.as_bytes()))?;
        self.history()?.sweep(self.settings().lock_timeout)?;
        let manifests = self.dir().open_dir(layout::MANIFESTS)?;
        let half_written = |name: &[u8]| name.starts_with(b".") && name.ends_with(b".new");
        if self.unsettled()?.is_empty()
            && self.trash_dir()?.items()?.is_empty()
            && !manifests.items()?.iter().any(|item| half_written(item.name.as_bytes()))
        {
            return Ok(());
        }
        let _publishing = self.publish_lock()?;
        // Under the lock nobody is writing one.
        remove_files(&manifests, half_written)?;
        // Looked at again: another run may have been publishing.
        for name in self.unsettled()? {
            self.settle(&name)?;
        }
        self.settle_trash()
    }

    /// Finishes or drops what a switch left that died.
    fn settle_links(&self) -> Result<()> {
        let switched = durable::temporary_name(layout::SWITCHED);
        let names = [layout::WAS, layout::NEXT, layout::PREVIOUS_NEW, layout::FACTORY_NEW, &switched];
        let items = self.versions().items()?;
        let trial = durable::temporary_name(layout::TRIAL);
        if !items.iter().any(|item| names.iter().any(|name| item.name.as_bytes() == name.as_bytes()))
            && self.dir().try_stat(&trial)?.is_none()
        {
            return Ok(());
        }
        let refs = self.refs()?;
        let links = refs.lock(self.settings().lock_timeout)?;
        links.recover()?;
        remove_files(self.versions(), |name| name == switched.as_bytes())?;
        self.dir().remove_file_if_present(&trial)?;
        self.versions().sync()
    }

    /// What no version needs.
    pub fn leftovers(&self) -> Result<Leftovers> {
        let mut leftovers = Leftovers::default();
        let staging = self.staging_dir()?;
        for name in staging::abandoned(&staging)? {
            leftovers.names.push((staging.try_clone()?, name.into_bytes()));
        }
        let trash = self.trash_dir()?;
        let items = trash.items()?;
        if items.is_empty() {
            return Ok(leftovers);
        }
        let uses = self.uses_of_trash()?.uses;
        for item in items {
            if uses.iter().any(|used| used.name == item.name) {
                leftovers.in_use += 1;
            } else {
                leftovers.names.push((trash.try_clone()?, item.name.as_bytes().to_vec()));
            }
        }
        Ok(leftovers)
    }

    /// Deletes leftovers. What cannot be deleted is said, and left for the next command: it must not stop this one.
    pub fn remove_leftovers(&self, leftovers: &Leftovers) {
        for (dir, name) in &leftovers.names {
            let in_staging = dir.path().ends_with(layout::STAGING);
            let remove = || if in_staging { staging::remove_abandoned(dir, name) } else { remove::tree(dir, name) };
            let removed = self.in_pool(remove).and_then(|removed| removed);
            if let Err(error) = removed {
                leave_for_later(&dir.path_of(name).display().to_string(), &error);
            }
        }
    }

    /// Versions whose manifest, tree and history do not agree.
    fn unsettled(&self) -> Result<Vec<VersionName>> {
        let marks = self.history()?.present()?.marks;
        let mut names = Vec::new();
        for name in self.manifests()?.names()? {
            if !marks.versions.contains_key(&name) || self.versions().try_stat(&name)?.is_none() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn settle(&self, name: &VersionName) -> Result<()> {
        let manifests = self.manifests()?;
        let known = self.history()?.present()?.marks.versions.contains_key(name);
        let tree = self.versions().try_stat(name)?.is_some();
        match (known, tree) {
            (false, true) => {
                let manifest = manifests.read(name)?;
                let text = Some("completed after an interruption".to_owned());
                let adopted = manifest.facts.source.kind == SourceKind::Adopted;
                let action = if adopted { Action::Adopt } else { Action::Import };
                let event = Event::about(action, name, Some(manifest.digest()));
                let import_number = Some(manifest.facts.import_number);
                self.record(vec![Event { import_number, text, outcome: "done".into(), ..event }])?;
                Ok(())
            }
            (false, false) => manifests.remove(name),
            (true, false) => self.settle_missing_tree(name),
            (true, true) => Ok(()),
        }
    }

    fn settle_missing_tree(&self, name: &VersionName) -> Result<()> {
        let wanted = !wanting(&self.refs()?.read()?, name).is_empty();
        let in_trash = self.trash_dir()?.items()?.into_iter().find(|item| {
            Trashed::parse(item.name.as_bytes()).is_some_and(|trashed| trashed.version == *name && !trashed.displaced)
        });
        match in_trash.as_ref().and_then(|item| Trashed::parse(item.name.as_bytes())) {
            Some(trashed) => {
                let uses = self.uses_of_trash()?.uses;
                if wanted || uses.iter().any(|used| Some(&used.name) == in_trash.as_ref().map(|item| &item.name)) {
                    return self.move_back(&trashed);
                }
                let known = self.history()?.present()?.marks.versions.get(name).map(|known| known.digest);
                self.manifests()?.remove(name)?;
                known
                    .map_or(Ok(()), |digest| self.record_removal(name, digest, Some("completed after an interruption")))
            }
            None if wanted => {
                tracing::warn!(version = %name, "the tree of a version that a role points at was removed by hand");
                Ok(())
            }
            None => {
                self.record(vec![Event::about(Action::RemovedByHand, name, None)])?;
                self.manifests()?.remove(name)
            }
        }
    }

    /// Records removals that died between the manifest and the event.
    fn settle_trash(&self) -> Result<()> {
        for item in self.trash_dir()?.items()? {
            let Some(trashed) = Trashed::parse(item.name.as_bytes()).filter(|trashed| !trashed.displaced) else {
                continue;
            };
            let known = self.history()?.present()?.marks.versions.get(&trashed.version).cloned();
            if let Some(known) = known.filter(|known| known.import_number == trashed.import_number)
                && self.manifests()?.stat(&trashed.version)?.is_none()
            {
                self.record_removal(&trashed.version, known.digest, Some("completed after an interruption"))?;
            }
        }
        Ok(())
    }
}
