//! Collects an archive's members and makes trees of them.
//!
//! Members come in any order and contents are stored when they are stored. The builder holds the outline of the tree
//! from the first member on, so it is the one place that sees two members fight over a path.
//!
//! **Invariant:** no path is defined twice, but for a directory that is listed again with equal metadata (`tar` does
//! that when it is given overlapping arguments). Nothing lies below a file or below a symbolic link. A hard link names
//! a file (or symbolic link) that came before it.
//!
//! **Invariant:** a parent has a smaller index than its children, so that the trees can be built bottom-up by one pass
//! from the end, without recursion, however deep they are.

use std::collections::BTreeMap;

use crate::error::{Error, Refusal, Result};
use crate::model::{ContentId, Entry, EntryName, Metadata, Node, Tree, TreeId, TreePath, TreeSet};

use super::limits::Limits;
use super::names::refuse;

/// Mode of a directory that an archive only implies.
const IMPLIED_MODE: u32 = 0o755;

/// A regular file of a [`TreeBuilder`], to be asked about and to be given its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// The trees of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Built {
    /// The root tree's id.
    pub root: TreeId,
    /// All trees.
    pub trees: TreeSet,
}

/// Grows a tree member by member.
#[derive(Debug)]
pub struct TreeBuilder {
    owner: Option<(u32, u32)>,
    slots: Vec<Slot>,
    held_bytes: u64,
    max_entries: u64,
    max_held_bytes: u64,
}

#[derive(Debug)]
struct Slot {
    parent: u32,
    metadata: Metadata,
    what: What,
}

#[derive(Debug)]
enum What {
    Directory {
        listed: bool,
        children: BTreeMap<EntryName, u32>,
    },
    File {
        size: u64,
        content: Option<ContentId>,
    },
    Symlink {
        target: Box<[u8]>,
    },
    /// The first name of the same file; never itself a hard link.
    HardLink {
        first: u32,
    },
}

impl TreeBuilder {
    /// An empty tree that will stay within these limits.
    pub fn new(limits: &Limits) -> Self {
        let top = Slot {
            parent: 0,
            metadata: Metadata::default(),
            what: What::Directory { listed: true, children: BTreeMap::new() },
        };
        Self {
            owner: None,
            slots: vec![top],
            held_bytes: 0,
            max_entries: limits.max_entries,
            max_held_bytes: limits.max_held_bytes,
        }
    }

    /// Records this owner and group for everything, whatever the archive says (`--chown`).
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// Metadata as it will be recorded: the archive's, with the owner that was asked for.
    #[must_use]
    pub fn recorded(&self, mut metadata: Metadata) -> Metadata {
        if let Some((uid, gid)) = self.owner {
            (metadata.uid, metadata.gid) = (uid, gid);
        }
        metadata
    }

    /// How many entries there are, implied directories included.
    pub fn len(&self) -> usize {
        self.slots.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a directory. The top itself is ignored: its mode and owner are no part of a version.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnsafeArchive`] if the path is taken, lies below a file or a link, or a limit is passed. The same
    /// goes for the other kinds.
    pub fn directory(&mut self, path: &TreePath, metadata: Metadata) -> Result<()> {
        let metadata = self.recorded(metadata);
        let Some((parent, name)) = self.place(path)? else { return Ok(()) };
        let Some(index) = self.child(parent, &name) else {
            let what = What::Directory { listed: true, children: BTreeMap::new() };
            return self.push(path, parent, name, metadata, what).map(drop);
        };
        self.hold(path, &metadata, 0)?;
        let slot = &mut self.slots[index as usize];
        match &mut slot.what {
            What::Directory { listed: true, .. } if slot.metadata != metadata => {
                Err(refuse(path, "the directory is listed twice, with different metadata"))
            }
            What::Directory { listed, .. } => {
                *listed = true;
                slot.metadata = metadata;
                Ok(())
            }
            _ => Err(refuse(path, "a directory has the path of another member")),
        }
    }

    /// Takes a regular file, whose content is [stored](Self::store) now or later.
    ///
    /// # Errors
    ///
    /// As [`TreeBuilder::directory`].
    pub fn file(&mut self, path: &TreePath, metadata: Metadata, size: u64) -> Result<FileId> {
        self.add(path, metadata, What::File { size, content: None }).map(FileId)
    }

    /// Takes a symbolic link. Its target is kept as it stands and never followed.
    ///
    /// # Errors
    ///
    /// As [`TreeBuilder::directory`].
    pub fn symlink(&mut self, path: &TreePath, metadata: Metadata, target: &[u8]) -> Result<()> {
        self.add(path, metadata, What::Symlink { target: target.into() }).map(drop)
    }

    /// Takes another name for a file that came before: the same content and metadata. A symbolic link may have a second
    /// name too (GNU tar archives such links like this).
    ///
    /// # Errors
    ///
    /// As [`TreeBuilder::directory`]; and if the target is missing, still to come, or a directory.
    pub fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let Some(index) = self.find(target) else {
            return Err(refuse(path, &format!("a hard link to {target}, which is not among the members before it")));
        };
        let first = match self.slots[index as usize].what {
            What::Directory { .. } => return Err(refuse(path, &format!("a hard link to {target}, a directory"))),
            What::HardLink { first } => first,
            What::File { .. } | What::Symlink { .. } => index,
        };
        self.add(path, Metadata::default(), What::HardLink { first }).map(drop)
    }

    /// Notes under which id a file's bytes were stored.
    pub fn store(&mut self, file: FileId, id: ContentId) {
        if let Some(Slot { what: What::File { content, .. }, .. }) = self.slots.get_mut(file.0 as usize) {
            *content = Some(id);
        }
    }

    /// What is recorded of a file.
    ///
    /// # Panics
    ///
    /// If the id is of another builder.
    pub fn metadata(&self, file: FileId) -> &Metadata {
        &self.slots[file.0 as usize].metadata
    }

    /// Builds the trees, from the deepest up.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] for a file whose content was never stored.
    pub fn finish(mut self) -> Result<Built> {
        let mut trees = TreeSet::default();
        let mut ids: Vec<Option<TreeId>> = vec![None; self.slots.len()];
        for index in (0..self.slots.len()).rev() {
            let What::Directory { children, .. } = &mut self.slots[index].what else { continue };
            let children = std::mem::take(children);
            let mut entries = Vec::with_capacity(children.len());
            for (name, child) in children {
                let (metadata, node) = match ids[child as usize] {
                    Some(tree) => (self.slots[child as usize].metadata.clone(), Node::Directory { tree }),
                    None => self.leaf(child).ok_or_else(|| {
                        // The maps above this directory are whole still: parents come later.
                        Error::source(self.path_of(index).join(&name), "its content was never stored")
                    })?,
                };
                entries.push(Entry { name, metadata, node });
            }
            let tree = Tree::new(entries).expect("the keys of a map are unique");
            ids[index] = Some(trees.insert(tree));
        }
        let root = ids[0].expect("the top is a directory and was visited last");
        Ok(Built { root, trees })
    }

    fn leaf(&self, index: u32) -> Option<(Metadata, Node)> {
        let index = match self.slots[index as usize].what {
            What::HardLink { first } => first,
            _ => index,
        };
        let slot = &self.slots[index as usize];
        let node = match &slot.what {
            What::File { size, content } => Node::File { content: (*content)?, size: *size },
            What::Symlink { target } => Node::Symlink { target: target.clone() },
            What::Directory { .. } | What::HardLink { .. } => return None,
        };
        Some((slot.metadata.clone(), node))
    }

    fn path_of(&self, directory: usize) -> TreePath {
        let (mut names, mut index) = (Vec::new(), u32::try_from(directory).unwrap_or(0));
        while index != 0 {
            let parent = self.slots[index as usize].parent;
            if let What::Directory { children, .. } = &self.slots[parent as usize].what {
                names.extend(children.iter().find(|(_, child)| **child == index).map(|(name, _)| name));
            }
            index = parent;
        }
        let mut path = TreePath::top();
        names.into_iter().rev().for_each(|name| path.push(name));
        path
    }

    fn add(&mut self, path: &TreePath, metadata: Metadata, what: What) -> Result<u32> {
        let metadata = self.recorded(metadata);
        let Some((parent, name)) = self.place(path)? else {
            return Err(refuse(".", "the top of the archive is not a directory"));
        };
        if let Some(index) = self.child(parent, &name) {
            let problem = match self.slots[index as usize].what {
                What::Directory { .. } => "another member has this path as a directory",
                _ => "two members have this path",
            };
            return Err(refuse(path, problem));
        }
        self.push(path, parent, name, metadata, what)
    }

    /// The directory that `path` lies in, made if it is only implied, and the last name; `None` for the top.
    fn place(&mut self, path: &TreePath) -> Result<Option<(u32, EntryName)>> {
        let mut components = path.components().peekable();
        let mut parent = 0;
        while let Some(part) = components.next() {
            let name = EntryName::new(part).expect("the components of a tree path are entry names");
            if components.peek().is_none() {
                return Ok(Some((parent, name)));
            }
            parent = match self.child(parent, &name) {
                Some(index) => match self.slots[index as usize].what {
                    What::Directory { .. } => index,
                    What::Symlink { .. } => {
                        return Err(refuse(path, &format!("it would be written through the symbolic link {name}")));
                    }
                    What::File { .. } | What::HardLink { .. } => {
                        return Err(refuse(path, &format!("it lies below {name}, which is not a directory")));
                    }
                },
                None => {
                    let metadata = self.recorded(Metadata::new(IMPLIED_MODE, 0, 0));
                    let what = What::Directory { listed: false, children: BTreeMap::new() };
                    self.push(path, parent, name, metadata, what)?
                }
            };
        }
        Ok(None)
    }

    fn find(&self, path: &TreePath) -> Option<u32> {
        let mut index = 0;
        for part in path.components() {
            let What::Directory { children, .. } = &self.slots[index as usize].what else { return None };
            index = *children.get(part)?;
        }
        Some(index)
    }

    fn child(&self, parent: u32, name: &EntryName) -> Option<u32> {
        match &self.slots[parent as usize].what {
            What::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn push(&mut self, path: &TreePath, parent: u32, name: EntryName, metadata: Metadata, what: What) -> Result<u32> {
        let target_bytes = if let What::Symlink { target } = &what { target.len() } else { 0 };
        self.hold(path, &metadata, name.as_bytes().len() + target_bytes)?;
        let index = u32::try_from(self.slots.len()).ok().filter(|index| u64::from(*index) <= self.max_entries);
        let index = index.ok_or_else(|| {
            let message =
                format!("{path}: the archive has more than {} entries (import.limits.entries)", self.max_entries);
            Error::refused(Refusal::UnsafeArchive, message)
        })?;
        if let What::Directory { children, .. } = &mut self.slots[parent as usize].what {
            children.insert(name, index);
        }
        self.slots.push(Slot { parent, metadata, what });
        Ok(index)
    }

    fn hold(&mut self, path: &TreePath, metadata: &Metadata, bytes: usize) -> Result<()> {
        let attributes: usize = metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.held_bytes = self.held_bytes.saturating_add((bytes + attributes) as u64);
        if self.held_bytes <= self.max_held_bytes {
            return Ok(());
        }
        let problem = format!(
            "names, link targets and extended attributes come to more than {} bytes by now (import.limits.held_bytes)",
            self.max_held_bytes
        );
        Err(refuse(path, &problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn builder() -> TreeBuilder {
        TreeBuilder::new(&Limits::default())
    }

    fn listing(built: &Built) -> Vec<String> {
        let mut lines = Vec::new();
        let walked = built.trees.walk(built.root, |path, entry| {
            let Metadata { mode, uid, gid, .. } = entry.metadata;
            lines.push(format!("{} {mode:04o} {uid}:{gid} {path}", entry.node.letter()));
            Ok::<(), ()>(())
        });
        assert_eq!(walked, Ok(Ok(())));
        lines
    }

    #[test]
    fn implied_directories_are_roots_until_they_are_listed() {
        let mut builder = builder();
        let file = builder.file(&path("a/b/f"), Metadata::new(0o644, 1, 2), 1).unwrap();
        builder.directory(&path("a"), Metadata::new(0o700, 3, 4)).unwrap();
        builder.directory(&path("a"), Metadata::new(0o700, 3, 4)).unwrap();
        builder.directory(&TreePath::top(), Metadata::new(0o777, 9, 9)).unwrap();
        builder.store(file, ContentId::of(b"x"));
        assert_eq!(builder.metadata(file), &Metadata::new(0o644, 1, 2));
        assert_eq!(builder.len(), 3);
        let built = builder.finish().unwrap();
        assert_eq!(listing(&built), ["d 0700 3:4 a", "d 0755 0:0 a/b", "- 0644 1:2 a/b/f"]);
    }

    #[test]
    fn a_hard_link_is_the_same_entry_under_another_name() {
        let mut builder = builder();
        let file = builder.file(&path("f"), Metadata::new(0o600, 1, 2), 3).unwrap();
        builder.symlink(&path("s"), Metadata::new(0o777, 1, 2), b"f").unwrap();
        builder.hard_link(&path("d/g"), &path("f")).unwrap();
        builder.hard_link(&path("h"), &path("d/g")).unwrap();
        builder.hard_link(&path("t"), &path("s")).unwrap();
        builder.store(file, ContentId::of(b"abc"));
        let built = builder.finish().unwrap();
        let root = built.trees.get(&built.root).unwrap();
        let (f, h) = (root.get(b"f").unwrap(), root.get(b"h").unwrap());
        assert_eq!((&f.node, &f.metadata), (&h.node, &h.metadata));
        assert_eq!(root.get(b"t").unwrap().node, Node::Symlink { target: b"f"[..].into() });
        assert_eq!(f.node, Node::File { content: ContentId::of(b"abc"), size: 3 });
    }

    #[test]
    fn members_that_fight_over_a_path_are_refused_by_name() {
        let metadata = || Metadata::new(0o644, 0, 0);
        let mut builder = builder();
        builder.file(&path("f"), metadata(), 0).unwrap();
        builder.symlink(&path("s"), metadata(), b"/etc").unwrap();
        builder.directory(&path("d"), metadata()).unwrap();
        builder.file(&path("i/x"), metadata(), 0).unwrap();
        let refused = [
            builder.file(&path("f"), metadata(), 0).map(drop),
            builder.file(&path("d"), metadata(), 0).map(drop),
            builder.file(&path("i"), metadata(), 0).map(drop),
            builder.directory(&path("f"), metadata()),
            builder.directory(&path("s"), metadata()),
            builder.directory(&path("d"), Metadata::new(0o700, 0, 0)),
            builder.file(&path("s/passwd"), metadata(), 0).map(drop),
            builder.directory(&path("s/x"), metadata()),
            builder.file(&path("f/x/y"), metadata(), 0).map(drop),
            builder.hard_link(&path("l"), &path("missing")),
            builder.hard_link(&path("l"), &path("l")),
            builder.hard_link(&path("l"), &path("d")),
            builder.hard_link(&path("l"), &TreePath::top()),
            builder.hard_link(&path("f"), &path("i/x")),
            builder.hard_link(&path("l"), &path("s/x")),
            builder.symlink(&TreePath::top(), metadata(), b"x"),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().name(), "unsafe-archive", "{number}");
        }
    }

    #[test]
    fn an_owner_that_was_asked_for_is_everybodys() {
        let mut builder = builder().owned_by(7, 8);
        builder.symlink(&path("d/s"), Metadata::new(0o777, 1, 2), b"x").unwrap();
        assert_eq!(listing(&builder.finish().unwrap()), ["d 0755 7:8 d", "l 0777 7:8 d/s"]);
    }

    #[test]
    fn a_file_without_content_is_named() {
        let mut builder = builder();
        builder.directory(&path("a/b"), Metadata::new(0o755, 0, 0)).unwrap();
        builder.file(&path("a/b/c/f"), Metadata::new(0o644, 0, 0), 1).unwrap();
        assert_eq!(builder.finish().unwrap_err().to_string(), "a/b/c/f: its content was never stored");
    }

    #[test]
    fn entries_and_held_bytes_are_limited_and_depth_is_no_recursion() {
        let limits = Limits { max_entries: 5000, max_held_bytes: 10_000, ..Limits::default() };
        let mut builder = TreeBuilder::new(&limits);
        let deep = path(&"x/".repeat(4999));
        builder.directory(&deep, Metadata::new(0o755, 0, 0)).unwrap();
        builder.directory(&path("y"), Metadata::new(0o755, 0, 0)).unwrap();
        assert!(builder.directory(&path("z"), Metadata::new(0o755, 0, 0)).is_err());
        assert_eq!(builder.finish().unwrap().trees.len(), 5000);
        let mut builder = TreeBuilder::new(&limits);
        let long = vec![b'x'; 4000];
        builder.symlink(&path("a"), Metadata::new(0o777, 0, 0), &long).unwrap();
        builder.symlink(&path("b"), Metadata::new(0o777, 0, 0), &long).unwrap();
        assert!(builder.symlink(&path("c"), Metadata::new(0o777, 0, 0), &long).is_err());
    }
}
