//! What will stand where.

use crate::model::{
    Entry, EntryName, Manifest, Metadata, Node, ObjectKey, Ownership, Placement, PlacementKind, Sealed, TreeId,
    TreePath, TreeSet,
};
use crate::object::Recorded;

/// A whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The top first, parents before children.
    pub directories: Vec<PlanDir>,
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDir {
    /// Its path in the version.
    pub path: TreePath,
    /// Positions of the directories in it.
    pub children: Vec<usize>,
    /// Mode, owner and attributes as they are applied; those of the top are not part of a version.
    pub metadata: Metadata,
    /// Everything else in it.
    pub files: Vec<PlanFile>,
}

impl PlanDir {
    /// Whether a service writes here: into private files, and whatever it puts beside them.
    pub fn holds_private_files(&self) -> bool {
        self.files.iter().any(|file| matches!(file.what, What::Private { .. } | What::PrivateEmpty { .. }))
    }
}

/// One name that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// The name.
    pub name: EntryName,
    /// What stands there.
    pub what: What,
}

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A link to an object.
    Object {
        /// Its key.
        key: ObjectKey,
        /// Its size and time.
        recorded: Recorded,
    },
    /// A writable copy of an object.
    Private {
        /// The object.
        key: ObjectKey,
        /// Its size and time.
        recorded: Recorded,
        /// The copy's mode, owner and attributes.
        metadata: Metadata,
    },
    /// An empty file with an inode of its own.
    Empty {
        /// Its mode, owner and attributes.
        metadata: Metadata,
    },
    /// An empty file that a service writes.
    PrivateEmpty {
        /// Its mode, owner and attributes.
        metadata: Metadata,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
        /// Its owner.
        owner: (u32, u32),
    },
}

/// What a plan is made from, published or not.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// All trees.
    pub trees: &'a TreeSet,
    /// The root tree.
    pub root: TreeId,
    /// One per non-empty file, in order.
    pub placements: &'a [Placement],
    /// Paths at which a link out of the version stands; sorted.
    pub shared: &'a [TreePath],
    /// Empty files that a service writes; sorted.
    pub private_empty: &'a [TreePath],
    /// How owners are applied.
    pub ownership: Ownership,
}

impl<'a> Contents<'a> {
    /// Those of a manifest.
    pub fn of(manifest: &'a Manifest) -> Self {
        Self {
            trees: &manifest.trees,
            root: manifest.root,
            placements: &manifest.placements,
            shared: &manifest.facts.shared,
            private_empty: &manifest.facts.private_empty,
            ownership: manifest.facts.ownership,
        }
    }
}

/// Where the link that stands at a shared path points: up to the root, then into `shared/`. Relative, so that it holds
/// in an offline image as well.
pub fn shared_target(path: &TreePath) -> Vec<u8> {
    // From the directory the link is in, out of the version and out of versions/.
    let levels = path.components().count() - 1 + 2;
    [b"../".repeat(levels).as_slice(), b"shared/", path.as_bytes()].concat()
}

/// Plans the tree of a version. `None` if a tree or a placement is missing, which a decoded manifest rules out.
pub fn plan(contents: Contents<'_>) -> Option<Plan> {
    let top = PlanDir {
        path: TreePath::top(),
        children: Vec::new(),
        metadata: Metadata::new(crate::layout::PUBLIC_DIR_MODE, 0, 0),
        files: Vec::new(),
    };
    let mut planner = Planner {
        contents,
        placements: contents.placements.iter(),
        directories: vec![top],
        line: vec![0],
        hidden: None,
    };
    let walked = contents.trees.walk(contents.root, |path, entry| planner.take(path, entry).ok_or(()));
    (walked.ok()?.is_ok() && planner.placements.next().is_none()).then_some(Plan { directories: planner.directories })
}

struct Planner<'a> {
    contents: Contents<'a>,
    placements: std::slice::Iter<'a, Placement>,
    directories: Vec<PlanDir>,
    /// Positions of the directories from the top down to the one being walked.
    line: Vec<usize>,
    /// The shared path that is being walked: nothing of it stands in the tree.
    hidden: Option<TreePath>,
}

impl Planner<'_> {
    fn take(&mut self, path: &TreePath, entry: &Entry) -> Option<()> {
        let placement = match entry.node {
            Node::File { size: 1.., .. } => Some(*self.placements.next()?),
            _ => None,
        };
        if self.hidden.as_ref().is_some_and(|hidden| path.starts_with(hidden)) {
            return Some(());
        }
        self.hidden = None;
        self.line.truncate(path.components().count());
        let parent = *self.line.last()?;
        let applied = self.contents.ownership.apply(&entry.metadata);
        let name = entry.name.clone();
        if self.contents.shared.binary_search(path).is_ok() {
            self.hidden = Some(path.clone());
            let what = What::Symlink { target: shared_target(path), owner: (applied.uid, applied.gid) };
            self.directories[parent].files.push(PlanFile { name, what });
            return Some(());
        }
        let what = match &entry.node {
            Node::Directory { .. } => {
                let at = self.directories.len();
                let directory =
                    PlanDir { path: path.clone(), children: Vec::new(), metadata: applied, files: Vec::new() };
                self.directories.push(directory);
                self.directories[parent].children.push(at);
                self.line.push(at);
                return Some(());
            }
            Node::Symlink { target } => What::Symlink { target: target.to_vec(), owner: (applied.uid, applied.gid) },
            Node::File { content, size } => match placement {
                None if self.contents.private_empty.binary_search(path).is_ok() => {
                    What::PrivateEmpty { metadata: applied }
                }
                None => What::Empty { metadata: Sealed::of(&applied, None).metadata },
                Some(placement) => file(*content, *size, applied, placement),
            },
        };
        self.directories[parent].files.push(PlanFile { name, what });
        Some(())
    }
}

fn file(content: crate::model::ContentId, size: u64, applied: Metadata, placement: Placement) -> What {
    let mtime = (placement.kind == PlacementKind::PinnedMtime).then_some(placement.mtime_seconds);
    let class = Sealed::of(&applied, mtime).class;
    let key = ObjectKey { content, class };
    let recorded = Recorded { size, mtime: (placement.mtime_seconds, placement.mtime_nanoseconds) };
    match placement.kind {
        PlacementKind::Private => What::Private { key, recorded, metadata: applied },
        _ => What::Object { key, recorded },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_link_leads_out_of_the_version_from_any_depth() {
        let target = |path: &[u8]| String::from_utf8(shared_target(&TreePath::parse(path).unwrap())).unwrap();
        assert_eq!(target(b"state"), "../../shared/state");
        assert_eq!(target(b"services/app/state"), "../../../../shared/services/app/state");
    }
}
