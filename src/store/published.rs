//! Which objects published manifests refer to, and may be used as they are: the history revokes those that were found to
//! be damaged.
//!
//! The newest manifests answer from memory: a next release has 90-99 % of its files in them. What they do not know
//! the index answers by one lookup in a B-tree, so that an import does not grow with the number of versions. Where
//! there is no usable index, all manifests are read.

use std::collections::HashSet;

use super::SharedStore;
use crate::error::{Error, Result};
use crate::hash;
use crate::index::Lookup;
use crate::model::manifest::Step;
use crate::model::{Entry, Manifest, Node, ObjectKey, Placement};
use crate::object::map::ObjectMap;
use crate::object::trust::Revoked;
use crate::object::{Published, Recorded};

/// Objects of published manifests, and which of them are revoked.
pub struct PublishedObjects {
    revoked: Revoked,
    recent: ObjectMap,
    /// Of big files only: who has a small one in memory need not ask.
    sizes: HashSet<u64>,
    index: Option<Lookup>,
}

impl SharedStore<'_> {
    /// Opens the answer to which objects are published.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn published_objects(&self) -> Result<PublishedObjects> {
        let manifests = self.manifests()?;
        // With a damaged history the best that can be had: what it revokes is doubtful enough.
        let marks = self.history()?.present()?.marks;
        let mut published = PublishedObjects {
            revoked: Revoked::of(&marks),
            recent: ObjectMap::default(),
            sizes: HashSet::new(),
            index: None,
        };
        let mut names = manifests.names()?;
        if let Some(index) = self.usable_index()? {
            // The history's numbers say which is newest; one is enough, since the index knows the others.
            names.sort_by_key(|name| marks.versions.get(name).map(|known| known.import_number));
            names.drain(..names.len().saturating_sub(1));
            if !names.is_empty() {
                published.index = Some(index.into_lookup());
            }
        }
        for name in names {
            let mut told = ObjectMap::default();
            let told_all = manifests.walk(&name, |_, step| {
                if let Step::File(file) = step {
                    let mtime = (file.placement.mtime_seconds, file.placement.mtime_nanoseconds);
                    told.insert(&file.key(), Recorded { size: file.size, mtime });
                }
            });
            match told_all {
                Ok(_) => published.take(told),
                // What cannot be read vouches for nothing.
                Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(published)
    }
}

impl PublishedObjects {
    fn take(&mut self, told: ObjectMap) {
        self.sizes.extend(told.iter().map(|(_, recorded)| recorded.size).filter(|size| *size > hash::WHOLE_BYTES));
        if self.recent.is_empty() {
            self.recent = told;
        } else {
            told.iter().for_each(|(key, recorded)| self.recent.insert(&key, recorded));
        }
    }

    fn recorded(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        if let Some(recorded) = self.recent.get(key) {
            return Ok(Some(recorded));
        }
        match &self.index {
            Some(index) => index.object(key),
            None => Ok(None),
        }
    }
}

/// The object that a file of a manifest refers to.
pub fn object_of(manifest: &Manifest, entry: &Entry, placement: Placement) -> Option<(ObjectKey, Recorded)> {
    let Node::File { size, .. } = entry.node else { return None };
    let key = manifest.object_key(entry, placement)?;
    Some((key, Recorded { size, mtime: (placement.mtime_seconds, placement.mtime_nanoseconds) }))
}

impl Published for PublishedObjects {
    fn lookup(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        if self.revoked.contains(key) {
            return Ok(None);
        }
        // An object that nothing vouches for is read before it is used, which costs time, nothing else.
        Ok(self.recorded(key).unwrap_or_else(|error| {
            tracing::debug!(%error, "the index does not vouch for an object");
            None
        }))
    }

    fn revoked(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        if self.revoked.contains(key) { self.recorded(key) } else { Ok(None) }
    }

    fn may_have_size(&self, size: u64) -> bool {
        size <= hash::WHOLE_BYTES || self.sizes.contains(&size) || self.index.is_some() && !self.recent.is_empty()
    }
}
