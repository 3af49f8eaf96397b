//! What a check finds.

use crate::model::{TreePath, VersionName};
use crate::object::check::Fault;
use crate::object::trust::Suspects;

/// In what way a tree differs from its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It is not there.
    Missing,
    /// The whole tree is not there.
    MissingTree,
    /// It is something else, as a directory instead of a file.
    Type,
    /// Another number of bytes.
    Size,
    /// Another mode.
    Mode,
    /// Another owner or group.
    Owner,
    /// Written to: its modification time changed.
    Modified,
    /// Other extended attributes.
    Attributes,
    /// Other bytes.
    Content,
    /// A symbolic link to something else.
    Target,
    /// The medium does not give it.
    Unreadable,
    /// A name that does not belong there. No damage.
    Unexpected,
}

impl ProblemKind {
    /// The kind of what is wrong with an inode.
    pub(super) fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Kind(_) => Self::Type,
            Fault::Size { .. } => Self::Size,
            Fault::Mode { .. } => Self::Mode,
            Fault::Owner { .. } => Self::Owner,
            Fault::Mtime => Self::Modified,
            Fault::Xattrs => Self::Attributes,
            Fault::Content => Self::Content,
        }
    }

    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::MissingTree => "missing-tree",
            Self::Type => "type",
            Self::Size => "size",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Modified => "modified",
            Self::Attributes => "attributes",
            Self::Content => "content",
            Self::Target => "target",
            Self::Unreadable => "unreadable",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether something that should be there is not, or not as it should be.
    pub fn is_damage(self) -> bool {
        self != Self::Unexpected
    }
}

/// One thing that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where in the version.
    pub path: TreePath,
    /// In what way.
    pub kind: ProblemKind,
    /// Which version.
    pub version: VersionName,
    /// The sentence: "it has 3 bytes instead of 5".
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}

/// What checking a version came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Everything that is not as recorded, by path.
    pub problems: Vec<Problem>,
    /// Names that were looked at, directories included.
    pub entries: u64,
    /// Files that were read.
    pub hashed_files: u64,
    /// Non-empty files that share no inode with their object.
    pub own_inodes: u64,
    /// Non-empty files that are links to their object.
    pub linked_files: u64,
    /// Names that this user may not look at.
    pub unseen: u64,
    /// Objects that were read and are damaged.
    pub(in crate::ops) suspects: Suspects,
    /// Why the damage of objects could not be recorded, if there was any and it could not.
    pub unrecorded: Option<String>,
    /// Which pass of its checker this was, from 1.
    pub(super) pass: u32,
}

impl Checked {
    /// The problems that are damage.
    pub fn damage(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.kind.is_damage())
    }

    /// Whether nothing that was seen is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage().next().is_none()
    }
}
