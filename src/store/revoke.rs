//! Revoking objects that were found to be damaged, and ending that.
//!
//! Who reads an object and finds it to be wrong says so here, and the history keeps it: from then on nobody links the
//! object because it looks right, until it was made again from right bytes.
//!
//! A finding is about an inode. Between the finding and its record another process may have given the name to a new inode,
//! and that process records afterwards what it made again (`cleared`). So under `history.lock` it is looked up whether
//! the inode still has the name; if it does not, there is nothing to revoke, and if it loses the name a moment later, the
//! event that ends the revocation is still to come.
//!
//! **Invariant:** the event that ends a revocation is appended when the new inode, and every path that leads to it, is
//! durable. Who dies before leaves the object revoked, which is safe.

use std::collections::BTreeSet;

use super::Store;
use crate::error::{Result, chain};
use crate::fsys::mutation::Mutation;
use crate::model::{Action, Event, Marks, ObjectKey};
use crate::object::trust::{Suspect, Suspects, id};

/// Objects that one event names at most, so that a failing medium makes no endless lines.
const OBJECTS_OF_AN_EVENT: usize = 500;

/// What became of findings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Revocation {
    /// Objects that are revoked from now on and were not before.
    pub objects: Vec<ObjectKey>,
    /// Why findings could not be recorded, if they could not.
    pub unrecorded: Option<String>,
}

impl Revocation {
    /// Adds what became of other findings.
    pub fn and(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        Self { objects: self.objects, unrecorded: self.unrecorded.or(other.unrecorded) }
    }
}

impl Store {
    /// Revokes objects whose inodes were found to be wrong. What is revoked already, or was replaced since, is passed over.
    pub fn revoke(&self, suspects: &Suspects) -> Revocation {
        if suspects.is_empty() || Mutation::Revoke.is_made() {
            return Revocation::default();
        }
        match self.try_revoke(suspects) {
            Ok(objects) => Revocation { objects, unrecorded: None },
            Err(error) => Revocation { objects: Vec::new(), unrecorded: Some(chain(&error)) },
        }
    }

    fn try_revoke(&self, suspects: &Suspects) -> Result<Vec<ObjectKey>> {
        let new = |marks: &Marks| -> Result<Vec<ObjectKey>> {
            let objects = self.objects_dir()?;
            let mut new = Vec::new();
            for Suspect { key, inode } in suspects {
                let path = key.path();
                if !marks.revoked.contains(&path) && objects.try_stat(&path)?.is_some_and(|stat| id(&stat) == *inode) {
                    new.push(key.clone());
                }
            }
            Ok(new)
        };
        // Where nothing is new, it does not matter that nothing may be written.
        if new(&self.history()?.present()?.marks)?.is_empty() {
            return Ok(Vec::new());
        }
        self.check_writable()?;
        let mut revoked = Vec::new();
        self.record_decided(|marks| {
            revoked = new(marks)?;
            let events = revoked.chunks(OBJECTS_OF_AN_EVENT).map(|keys| Event {
                objects: keys.iter().map(ObjectKey::path).collect(),
                ..Event::new(Action::Revoke)
            });
            Ok(events.collect())
        })?;
        Ok(revoked)
    }

    /// Records that these objects are no longer revoked; `action` and `text` say by what.
    ///
    /// # Errors
    ///
    /// As [`Store::record`].
    pub fn clear_revoked(&self, action: Action, keys: &BTreeSet<ObjectKey>, text: &str) -> Result<()> {
        let names: Vec<String> = keys.iter().map(ObjectKey::path).collect();
        let events = names.chunks(OBJECTS_OF_AN_EVENT).map(|names| Event {
            cleared: names.to_vec(),
            outcome: "done".into(),
            text: Some(text.to_owned()),
            ..Event::new(action)
        });
        self.record(events.collect()).map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests set the scene with whatever serves")]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::model::{ContentId, InodeClass};
    use crate::store::Settings;
    use crate::store::create::{CreateOptions, create};

    #[test]
    fn a_finding_about_an_inode_that_lost_the_name_revokes_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(temporary.path().join("root"), None);
        let (store, _) = create(layout, Settings::default(), CreateOptions::default()).unwrap();
        let class = InodeClass { mode: 0o444, uid: 0, gid: 0, xattrs: None, mtime: None };
        let key = ObjectKey { content: ContentId::of(b"right"), class };
        let path = temporary.path().join("root/store/objects").join(key.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "wrong").unwrap();
        let stat = || store.objects_dir().unwrap().stat(key.path()).unwrap();
        let stale = Suspects::from([Suspect::new(&key, &stat())]);
        // Another process makes it again, and keeps the old inode busy so that its number is not given away.
        std::fs::rename(&path, temporary.path().join("old")).unwrap();
        std::fs::write(&path, "right").unwrap();
        assert_eq!(store.revoke(&stale), Revocation::default());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(store.revoke(&stale), Revocation::default());
        std::fs::write(&path, "wrong again").unwrap();
        let found = Suspects::from([Suspect::new(&key, &stat())]);
        let revoked = Revocation { objects: vec![key.clone()], unrecorded: None };
        assert_eq!((store.revoke(&found), store.revoke(&found)), (revoked.clone(), Revocation::default()));
        store.clear_revoked(Action::Repair, &BTreeSet::from([key]), "made again").unwrap();
        assert_eq!(store.revoke(&found), revoked, "what was made again may be damaged again");
    }
}
