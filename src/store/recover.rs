//! Completing or undoing what an interruption left.
//!
//! | found | means | done |
//! | --- | --- | --- |
//! | manifest and tree, no event | died while publishing, after the tree | the event is appended |
//! | manifest, no tree, no event | died while publishing, before the tree | the manifest is removed |
//! | manifest, event, tree in trash | died while removing | the removal is completed |
//! | manifest, event, no tree anywhere | removed by hand | recorded; the manifest goes unless a role points at it |
//! | entries in staging that nobody builds | died while building | removed |

use super::SharedStore;
use crate::error::Result;
use crate::layout;
use crate::model::{Action, Event, Role, VersionName};
use crate::staging;

impl SharedStore<'_> {
    /// Looks for what an interruption left, and mends it. Cheap when there is nothing.
    ///
    /// # Errors
    ///
    /// What the system refuses; a manifest that is damaged is left for `verify`.
    pub fn heal(&self) -> Result<()> {
        staging::sweep(&self.dir().open_dir(layout::STAGING)?)?;
        if self.unsettled()?.is_empty() {
            return Ok(());
        }
        let _publishing = self.publish_lock()?;
        // Looked at again: another run may have been publishing.
        for name in self.unsettled()? {
            self.settle(&name)?;
        }
        Ok(())
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
                let event = Event::about(Action::Import, name, Some(manifest.digest()));
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
        let roles = self.refs()?.read()?;
        if Role::ALL.into_iter().any(|role| roles.version(role) == Some(name)) {
            tracing::warn!(version = %name, "the tree of a version that is in use was removed by hand");
            return Ok(());
        }
        self.record(vec![Event::about(Action::RemovedByHand, name, None)])?;
        self.manifests()?.remove(name)
    }
}
