//! Trust in objects, and its end.
//!
//! An object is trusted while a published manifest refers to it, and only as long as nobody who read it found it to be
//! wrong. A finding is about one inode: after another inode has taken the object's name, an old finding says nothing.
//!
//! **Invariant:** a revoked object is not linked, copied or kept. Who needs it makes a new inode from right bytes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::fsys::Stat;
use crate::model::{Marks, ObjectKey};

/// Says of a revoked object why it is not used.
pub const REVOKED: &str = "it was found damaged and was not made again since";

/// Device and number of an inode.
pub type InodeId = (u64, u64);

/// Objects that were made again, each with the inode that had its name before, if one did.
pub type Replaced = BTreeMap<ObjectKey, Option<InodeId>>;

/// The objects that are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revoked(HashSet<ObjectKey>);

impl Revoked {
    /// Takes them from the history's marks. This build has no object whose name it cannot parse.
    pub fn of(marks: &Marks) -> Self {
        let parse = |name: &String| {
            let (directory, file) = name.split_once('/')?;
            ObjectKey::parse(directory.as_bytes(), file.as_bytes())
        };
        Self(marks.revoked.iter().filter_map(parse).collect())
    }

    /// Whether this object is.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        !self.0.is_empty() && self.0.contains(key)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter()
    }
}

/// An inode that has an object's name, was read, and is not what the name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suspect {
    /// The object.
    pub key: ObjectKey,
    /// The inode.
    pub inode: InodeId,
}

/// Suspects, each once.
pub type Suspects = BTreeSet<Suspect>;

impl Suspect {
    /// The inode that `stat` shows.
    pub fn new(key: &ObjectKey, stat: &Stat) -> Self {
        Self { key: key.clone(), inode: id(stat) }
    }
}

/// The inode that `stat` shows.
pub fn id(stat: &Stat) -> InodeId {
    (stat.device, stat.inode)
}
