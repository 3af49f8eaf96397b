//! Comparing the trees of two versions.
//!
//! [`compare`] gives a sorted list of [`Change`]s. What counts as one:
//!
//! - every entry that only one side has, directories included: an added directory gives one change for itself and one
//!   for everything in it, so that an empty directory does not vanish from the answer;
//! - a file with other bytes or a symbolic link with another target ([`ChangeKind::Modified`]);
//! - the same content under another mode, owner or other attributes ([`ChangeKind::Metadata`]), directories included;
//! - another kind of entry at the same path ([`ChangeKind::Type`]); what was or is inside a directory is then removed
//!   or added entry by entry.
//!
//! A directory is never *modified*: that is what happens to the entries in it.
//!
//! **Invariant:** a path is the path of one change at most, the list is sorted by it (by bytes), and equal subtrees are
//! never loaded: the cost follows what differs, not what there is.

use std::borrow::Cow;

use super::id::{ContentId, TreeId};
use super::metadata::Metadata;
use super::name::TreePath;
use super::tree::{Entry, Node, Tree, TreeSet};
use crate::error::{Error, Result};

pub mod lines;
mod renames;
#[cfg(test)]
mod tests;
mod walk;

pub use walk::compare;

/// Where trees come from: a manifest, the index, a directory that was just scanned.
pub trait TreeSource {
    /// The tree with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is missing: whoever names a tree promises that it exists.
    fn tree(&self, id: &TreeId) -> Result<Cow<'_, Tree>>;
}

impl TreeSource for TreeSet {
    fn tree(&self, id: &TreeId) -> Result<Cow<'_, Tree>> {
        match self.get(id) {
            Some(tree) => Ok(Cow::Borrowed(tree)),
            None => Err(Error::corrupt("tree", id.to_hex(), "something refers to it, and it is missing")),
        }
    }
}

/// What a comparison looks at and how it answers.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these paths and what lies below them; all if there are none.
    pub paths: Vec<TreePath>,
    /// Whether a file that disappeared here and appeared there with the same bytes is shown as renamed.
    pub renames: bool,
}

/// The kind of a change. The lower-case name is part of the JSON contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// Other bytes or another target; metadata may differ too.
    Modified,
    /// The same bytes at another path; metadata may differ too.
    Renamed,
    /// Only mode, owner or extended attributes differ.
    Metadata,
    /// A file, directory or symbolic link became another of these.
    Type,
}

impl ChangeKind {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Modified => "modified",
            Self::Renamed => "renamed",
            Self::Metadata => "metadata",
            Self::Type => "type",
        }
    }

    /// One letter, as `git diff --name-status` has it; `P` (properties) for metadata, which git does not know.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Removed => 'D',
            Self::Modified => 'M',
            Self::Renamed => 'R',
            Self::Metadata => 'P',
            Self::Type => 'T',
        }
    }
}

/// What is known of one side of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    /// Mode, owner, attributes as recorded.
    pub metadata: Metadata,
    /// What it is.
    pub node: Node,
}

impl EntryFacts {
    /// One letter as in `ls -l`: `-`, `d` or `l`.
    pub fn letter(&self) -> char {
        self.node.letter()
    }

    /// How many bytes a file has.
    pub fn size(&self) -> Option<u64> {
        match self.node {
            Node::File { size, .. } => Some(size),
            _ => None,
        }
    }

    /// The hash of a file's bytes.
    pub fn content(&self) -> Option<ContentId> {
        match self.node {
            Node::File { content, .. } => Some(content),
            _ => None,
        }
    }

    /// The target of a symbolic link.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.node {
            Node::Symlink { target } => Some(target),
            _ => None,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory { .. })
    }
}

impl From<&Entry> for EntryFacts {
    fn from(entry: &Entry) -> Self {
        Self { metadata: entry.metadata.clone(), node: entry.node.clone() }
    }
}

/// In what two entries differ. All false where there is only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Differs {
    /// Bytes, target or kind.
    pub content: bool,
    /// Permission, set-id or sticky bits.
    pub mode: bool,
    /// Owner or group.
    pub owner: bool,
    /// Recorded extended attributes.
    pub xattrs: bool,
}

impl Differs {
    /// Between two entries; directories count by themselves, not by what is in them.
    pub fn between(before: &EntryFacts, after: &EntryFacts) -> Self {
        let content = match (&before.node, &after.node) {
            (Node::Directory { .. }, Node::Directory { .. }) => false,
            (before, after) => before != after,
        };
        let (a, b) = (&before.metadata, &after.metadata);
        Self { content, mode: a.mode != b.mode, owner: (a.uid, a.gid) != (b.uid, b.gid), xattrs: a.xattrs != b.xattrs }
    }

    /// Whether anything but the content differs.
    pub fn metadata(self) -> bool {
        self.mode || self.owner || self.xattrs
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What kind of difference.
    pub kind: ChangeKind,
    /// Where; for a renamed file its new path.
    pub path: TreePath,
    /// For a renamed file its old path.
    pub from_path: Option<TreePath>,
    /// The first side; absent for what was added.
    pub before: Option<EntryFacts>,
    /// The second side; absent for what was removed.
    pub after: Option<EntryFacts>,
    /// In what the sides differ, where there are two.
    pub differs: Differs,
}

impl Change {
    /// The change between two sides of which one at least is there; `None` if they do not differ.
    fn between(path: &TreePath, before: Option<EntryFacts>, after: Option<EntryFacts>) -> Option<Self> {
        let (kind, differs) = match (&before, &after) {
            (None, None) => return None,
            (None, Some(_)) => (ChangeKind::Added, Differs::default()),
            (Some(_), None) => (ChangeKind::Removed, Differs::default()),
            (Some(a), Some(b)) => {
                let differs = Differs::between(a, b);
                match (a.letter() == b.letter(), differs.content, differs.metadata()) {
                    (false, ..) => (ChangeKind::Type, differs),
                    (true, true, _) => (ChangeKind::Modified, differs),
                    (true, false, true) => (ChangeKind::Metadata, differs),
                    (true, false, false) => return None,
                }
            }
        };
        Some(Self { kind, path: path.clone(), from_path: None, before, after, differs })
    }

    /// Whether this is about a directory on every side there is.
    pub fn is_directory(&self) -> bool {
        self.before.iter().chain(&self.after).all(EntryFacts::is_directory)
    }
}

/// What two trees differ in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Diff {
    /// The changes, sorted by path.
    pub changes: Vec<Change>,
}

impl Diff {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in numbers.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.changes.iter().for_each(|change| summary.count(change));
        summary
    }
}

/// How many entries, directories counted apart from everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Count {
    /// Regular files and symbolic links.
    pub files: u64,
    /// Directories.
    pub directories: u64,
}

/// A comparison in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Summary {
    /// Entries that only the second side has.
    pub added: Count,
    /// Entries that only the first side has.
    pub removed: Count,
    /// Files with other bytes and symbolic links with another target.
    pub modified: u64,
    /// Files at another path.
    pub renamed: u64,
    /// Entries of which only mode, owner or attributes differ.
    pub metadata: Count,
    /// Entries that became another kind of entry.
    pub type_changed: u64,
    /// Sizes of all files that are new, or new in content, on the second side.
    pub bytes_added: u64,
    /// Sizes of all files that are gone, or gone in content, from the first side.
    pub bytes_removed: u64,
}

impl Summary {
    /// All changes together.
    pub fn total(&self) -> u64 {
        let both = |count: Count| count.files + count.directories;
        both(self.added) + both(self.removed) + both(self.metadata) + self.modified + self.renamed + self.type_changed
    }

    fn count(&mut self, change: &Change) {
        let entry = |count: &mut Count| match change.is_directory() {
            true => count.directories += 1,
            false => count.files += 1,
        };
        match change.kind {
            ChangeKind::Added => entry(&mut self.added),
            ChangeKind::Removed => entry(&mut self.removed),
            ChangeKind::Metadata => entry(&mut self.metadata),
            ChangeKind::Modified => self.modified += 1,
            ChangeKind::Renamed => self.renamed += 1,
            ChangeKind::Type => self.type_changed += 1,
        }
        if !matches!(change.kind, ChangeKind::Renamed | ChangeKind::Metadata) {
            let size = |side: &Option<EntryFacts>| side.as_ref().and_then(EntryFacts::size).unwrap_or(0);
            self.bytes_added = self.bytes_added.saturating_add(size(&change.after));
            self.bytes_removed = self.bytes_removed.saturating_add(size(&change.before));
        }
    }
}
