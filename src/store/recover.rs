//! Completing or undoing what an interruption left.
//!
//! | found | means | done |
//! | --- | --- | --- |
//! | manifest and tree, no event | died while publishing, after the tree | the event is appended |
//! | manifest, no tree, no event | died while publishing, before the tree | the manifest is removed |
//! | manifest, event, tree in trash | died while removing | moved back if a process uses it or a rule of gc protects it; else the removal is completed |
//! | manifest, event, no tree anywhere, protected | the tree is lost | kept as `missing-tree`; a repair builds the tree again |
//! | manifest, event, no tree anywhere, not protected | the tree is lost, or was removed by hand | forgotten: recorded, the manifest removed, a message |
//! | tree in trash, no manifest | died while removing, after the manifest | a missing event is appended, the tree deleted |
//! | hand-made tree in staging, no manifest | died while adopting | put back into its place |
//! | entries in staging whose lock is free | died while building | removed; objects: see [`super::reclaim`] |
//! | a file `.NAME.new` among manifests | died while writing it | removed |
//! | a file `.probe-N` among versions | died while trying a link | removed |
//! | `.was`, `.next` and their like among versions | died while switching | as [`crate::refs`] says |
//! | `index.db.new`, `.history.new` | died while rebuilding the index, or beginning a segment | removed |
//!
//! What lies in trash and is in use by a process stays there until it no longer is.
//!
//! **Invariant:** a version is forgotten only if nothing protects it ([`super::protection`]), and never while most
//! versions have lost their trees ([`super::loss`]) or the history is in doubt.
//!
//! **Invariant:** what is removed here is removed under its own lock: a run's directory under the lock on it, a manifest
//! and its temporary file under `publish.lock`, links under `refs.lock`, a half-begun segment under `history.lock`, a
//! half-built index under `lock`, whose exclusive holder alone builds one. A `.probe-N` needs none: its maker removes it
//! as well, and nothing depends on it.

use super::catalog::REBUILT;
use super::removal::{Trashed, leave_for_later};
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

/// What becomes of versions that lost their trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Those that nothing protects are forgotten.
    ForgetUnprotected,
    /// All stay.
    Keep,
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
        if let Err(error) = self.mark_versions() {
            tracing::debug!(%error, "versions/ stays without a mark");
        }
        self.remove_leftovers(&self.leftovers()?);
        Ok(())
    }

    /// As [`SharedStore::heal`], but forgets no version whose tree is gone: for a repair.
    ///
    /// # Errors
    ///
    /// As [`SharedStore::heal`].
    pub fn heal_keeping_lost(&self) -> Result<()> {
        self.settle_with(Lost::Keep)?;
        self.remove_leftovers(&self.leftovers()?);
        Ok(())
    }

    /// The first half of [`SharedStore::heal`]: brings trees, manifests and history to agree, and deletes nothing.
    ///
    /// # Errors
    ///
    /// As [`SharedStore::heal`].
    pub fn settle_all(&self) -> Result<()> {
        self.settle_with(Lost::ForgetUnprotected)
    }

    fn settle_with(&self, lost: Lost) -> Result<()> {
        let staging = self.staging_dir()?;
        for name in staging::abandoned(&staging)? {
            // One that cannot be opened now is settled before it is removed.
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
        // A history that lost events knows too little: by it, versions would be forgotten.
        if self.lost_events()?.is_some() {
            return Ok(());
        }
        let _publishing = self.publish_lock()?;
        // Under the lock nobody is writing one.
        remove_files(&manifests, half_written)?;
        if !self.history()?.read()?.state.is_trustworthy() {
            tracing::warn!("the history cannot be trusted: what an interruption left stays");
            return Ok(());
        }
        // Looked at again: another run may have been publishing.
        for name in self.unsettled()? {
            self.settle(&name, lost)?;
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
        {
            let links = refs.lock(self.settings().lock_timeout)?;
            links.recover()?;
            remove_files(self.versions(), |name| name == switched.as_bytes())?;
            self.dir().remove_file_if_present(&trial)?;
        }
        refs.sync()
    }

    /// What no version needs.
    pub fn leftovers(&self) -> Result<Leftovers> {
        let mut leftovers = Leftovers::default();
        let staging = self.staging_dir()?;
        for name in staging::abandoned(&staging)? {
            leftovers.names.push((staging.try_clone()?, name.as_bytes().to_vec()));
        }
        let trash = self.trash_dir()?;
        let items = trash.items()?;
        if items.is_empty() {
            return Ok(leftovers);
        }
        let uses = self.uses_of_trash()?;
        for item in items {
            if !self.may_delete_trashed(item.name.as_bytes())? {
                continue;
            }
            if uses.is_used(item.name.as_bytes()) {
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
            let remove = || match in_staging {
                true => staging::remove_abandoned(dir, name, |run| self.may_remove_run(run)),
                false => remove::tree(dir, name),
            };
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
        for name in marks.versions.keys() {
            if !names.contains(name) && self.is_lost_entirely(name)? {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    fn settle(&self, name: &VersionName, lost: Lost) -> Result<()> {
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
                let checksum = manifests.checksum(name)?;
                self.record(vec![Event { import_number, manifest: checksum, text, outcome: "done".into(), ..event }])?;
                Ok(())
            }
            (false, false) => match self.protections_of_lost([name])?.is_empty() {
                true => manifests.remove(name),
                false => Ok(()),
            },
            (true, false) => self.settle_missing_tree(name, lost),
            (true, true) => Ok(()),
        }
    }

    fn settle_missing_tree(&self, name: &VersionName, lost: Lost) -> Result<()> {
        let in_trash = self.trash_dir()?.items()?.into_iter().find_map(|item| {
            let trashed = Trashed::parse(item.name.as_bytes())?;
            (trashed.version == *name && !trashed.displaced).then_some((item.name, trashed))
        });
        let kept = self.protections_of_lost([name])?.remove(name);
        match (in_trash, kept) {
            // It got as far as the manifest, and is completed as such.
            (Some(_), _) if self.manifests()?.stat(name)?.is_none() => Ok(()),
            (None, _) if lost == Lost::Keep => Ok(()),
            (Some((item, trashed)), kept) => {
                let uses = self.uses_of_trash()?.uses;
                if kept.is_some() || uses.iter().any(|used| used.name == item) {
                    return self.move_back(&trashed);
                }
                let known = self.history()?.present()?.marks.versions.get(name).map(|known| known.digest);
                self.manifests()?.remove(name)?;
                known
                    .map_or(Ok(()), |digest| self.record_removal(name, digest, Some("completed after an interruption")))
            }
            (None, Some(reasons)) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                let reasons = reasons.join(", ");
                tracing::warn!(
                    "{name} is missing-tree: it {reasons}, and its tree is gone; tope-store verify {name} --repair builds it again"
                );
                Ok(())
            }
            (None, None) => {
                self.record(vec![Event::about(Action::RemovedByHand, name, None)])?;
                self.manifests()?.remove(name)?;
                tracing::warn!("{name} is forgotten: its tree was removed by hand, and nothing protects it");
                self.note_forgotten(name);
                Ok(())
            }
        }
    }

    /// Whether a name in trash belongs to no version, or to one whose removal is to be completed.
    fn may_delete_trashed(&self, name: &[u8]) -> Result<bool> {
        match Trashed::parse(name) {
            Some(trashed) if !trashed.displaced => {
                let version = &trashed.version;
                let managed = self.manifests()?.stat(version)?.is_some() && !self.has_tree(version)?;
                let kept = managed && !self.protections_of_lost([version])?.is_empty();
                Ok(!kept && self.history()?.present()?.state.is_trustworthy())
            }
            _ => Ok(true),
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
