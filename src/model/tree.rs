//! Trees: one directory's entries, in canonical order, named by the hash of their encoding.
//!
//! **Invariant:** a [`Tree`] is sorted by name bytes and its names are unique. Equal directories have equal ids on
//! every machine, so whole subtrees are compared, stored and collected by comparing 32 bytes.

use std::collections::HashMap;

use super::codec::{DecodeError, Reader, put_count, put_short_bytes};
use super::id::{ContentId, TREE_CONTEXT, TreeId};
use super::metadata::Metadata;
use super::name::{EntryName, TreePath};

/// Version of the tree encoding; the `1` in `t1:`.
pub const TREE_ENCODING: u8 = 1;
/// Longest target of a symbolic link in bytes (`PATH_MAX` less its NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A regular file.
    File {
        /// Hash of its bytes.
        content: ContentId,
        /// How many there are.
        size: u64,
    },
    /// A directory.
    Directory {
        /// Its tree.
        tree: TreeId,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as it stands; at most [`MAX_TARGET_BYTES`].
        target: Box<[u8]>,
    },
}

impl Node {
    /// One letter as in `ls -l`: `-`, `d` or `l`.
    pub fn letter(&self) -> char {
        match self {
            Self::File { .. } => '-',
            Self::Directory { .. } => 'd',
            Self::Symlink { .. } => 'l',
        }
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// Mode, owner, extended attributes as recorded.
    pub metadata: Metadata,
    /// What it is.
    pub node: Node,
}

/// One directory's entries, sorted and unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tree {
    entries: Vec<Entry>,
}

/// Two entries with one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two entries are named {0}")]
pub struct DuplicateName(pub EntryName);

impl Tree {
    /// Sorts and takes entries.
    ///
    /// # Errors
    ///
    /// [`DuplicateName`] for the first name that occurs twice.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, DuplicateName> {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(DuplicateName(pair[0].name.clone())),
            None => Ok(Self { entries }),
        }
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries in order, to keep.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entry of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name)).ok().map(|at| &self.entries[at])
    }

    /// The canonical encoding, as `schema/FORMAT.md` gives it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + self.entries.len() * 80);
        out.push(TREE_ENCODING);
        put_count(&mut out, self.entries.len());
        for Entry { name, metadata, node } in &self.entries {
            let kind = match node {
                Node::File { .. } => 1,
                Node::Directory { .. } => 2,
                Node::Symlink { .. } => 3,
            };
            out.push(kind);
            put_short_bytes(&mut out, name.as_bytes());
            metadata.encode(&mut out);
            match node {
                Node::File { content, size } => {
                    out.extend_from_slice(content.as_bytes());
                    out.extend_from_slice(&size.to_le_bytes());
                }
                Node::Directory { tree } => out.extend_from_slice(tree.as_bytes()),
                Node::Symlink { target } => put_short_bytes(&mut out, target),
            }
        }
        out
    }

    /// The id of these entries.
    pub fn id(&self) -> TreeId {
        tree_id(&self.encode())
    }

    /// Reads a canonical encoding; any other spelling of the same entries is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != TREE_ENCODING {
            return Err(reader.invalid("an unknown version of the tree encoding"));
        }
        let count = reader.u32()?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let entry = decode_entry(&mut reader)?;
            if entries.last().is_some_and(|last| last.name >= entry.name) {
                return Err(reader.invalid("an entry out of order"));
            }
            entries.push(entry);
        }
        reader.finish()?;
        Ok(Self { entries })
    }
}

/// The id of a tree with this encoding.
pub fn tree_id(encoding: &[u8]) -> TreeId {
    TreeId::from_bytes(blake3::derive_key(TREE_CONTEXT, encoding))
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let kind = reader.u8()?;
    let name = EntryName::new(reader.short_bytes()?).map_err(|_| reader.invalid("a name that is not allowed"))?;
    let metadata = Metadata::decode(reader)?;
    let node = match kind {
        1 => Node::File { content: ContentId::from_bytes(reader.array()?), size: reader.u64()? },
        2 => Node::Directory { tree: TreeId::from_bytes(reader.array()?) },
        3 => {
            let target = reader.short_bytes()?;
            if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                return Err(reader.invalid("a symbolic link's target that is not allowed"));
            }
            Node::Symlink { target: target.into() }
        }
        _ => return Err(reader.invalid("an entry of an unknown kind")),
    };
    Ok(Entry { name, metadata, node })
}

/// Trees by id: everything that hangs below one or more roots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeSet(HashMap<TreeId, Tree>);

impl TreeSet {
    /// Takes a tree and gives its id.
    pub fn insert(&mut self, tree: Tree) -> TreeId {
        let id = tree.id();
        self.0.entry(id).or_insert(tree);
        id
    }

    /// The tree with this id.
    pub fn get(&self, id: &TreeId) -> Option<&Tree> {
        self.0.get(id)
    }

    /// How many distinct trees there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all trees of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The ids of all trees below `root` and its own, each once, parents before children, in order of names. Stops
    /// short at trees that are missing.
    pub fn reachable(&self, root: TreeId) -> Vec<TreeId> {
        let mut seen = std::collections::HashSet::from([root]);
        let (mut order, mut stack) = (Vec::new(), vec![root]);
        while let Some(id) = stack.pop() {
            let Some(tree) = self.0.get(&id) else { continue };
            order.push(id);
            for entry in tree.entries().iter().rev() {
                if let Node::Directory { tree } = entry.node
                    && seen.insert(tree)
                {
                    stack.push(tree);
                }
            }
        }
        order
    }

    /// Calls `visit` for every entry below `root`, depth first, in order of names, a directory before its contents.
    /// Gives the id of the first tree that is missing, if one is.
    pub fn walk<E>(
        &self,
        root: TreeId,
        mut visit: impl FnMut(&TreePath, &Entry) -> Result<(), E>,
    ) -> Result<Result<(), TreeId>, E> {
        let mut path = TreePath::top();
        let Some(tree) = self.0.get(&root) else { return Ok(Err(root)) };
        let mut stack = vec![tree.entries().iter()];
        while let Some(level) = stack.last_mut() {
            let Some(entry) = level.next() else {
                stack.pop();
                path.pop();
                continue;
            };
            path.push(&entry.name);
            visit(&path, entry)?;
            if let Node::Directory { tree } = entry.node {
                let Some(tree) = self.0.get(&tree) else { return Ok(Err(tree)) };
                stack.push(tree.entries().iter());
            } else {
                path.pop();
            }
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn file(name: &str, bytes: &[u8]) -> Entry {
        Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o644, 0, 0),
            node: Node::File { content: ContentId::of(bytes), size: bytes.len() as u64 },
        }
    }

    #[test]
    fn encoding_reads_back_and_does_not_depend_on_the_order_given() {
        let tree = Tree::new(vec![file("b", b"2"), file("a", b"1")]).unwrap();
        assert_eq!(Tree::decode(&tree.encode()), Ok(tree.clone()));
        assert_eq!(tree.id(), Tree::new(vec![file("a", b"1"), file("b", b"2")]).unwrap().id());
    }

    #[test]
    fn other_spellings_are_refused() {
        assert!(Tree::new(vec![file("a", b""), file("a", b"")]).is_err());
        let encoded = Tree::new(vec![file("a", b"1")]).unwrap().encode();
        for end in 0..encoded.len() {
            assert!(Tree::decode(&encoded[..end]).is_err(), "cut at {end}");
        }
        let mut longer = encoded.clone();
        longer.push(0);
        assert!(Tree::decode(&longer).is_err());
        let mut climbing = encoded;
        climbing[8] = b'/';
        assert!(Tree::decode(&climbing).is_err());
    }

    #[test]
    fn walking_goes_depth_first_and_names_a_missing_tree() {
        let mut set = TreeSet::default();
        let inner = set.insert(Tree::new(vec![file("x", b"1")]).unwrap());
        let directory = |name: &str, tree| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::Directory { tree },
        };
        let root = set.insert(Tree::new(vec![directory("d", inner), directory("e", inner), file("f", b"")]).unwrap());
        let mut seen = Vec::new();
        let walked = set.walk(root, |path, _| {
            seen.push(path.to_string());
            Ok::<(), ()>(())
        });
        assert_eq!(walked, Ok(Ok(())));
        assert_eq!(seen, ["d", "d/x", "e", "e/x", "f"]);
        assert_eq!(set.reachable(root), [root, inner]);
        let lost = TreeId::from_bytes([0; 32]);
        let broken = set.insert(Tree::new(vec![directory("d", lost)]).unwrap());
        assert_eq!(set.walk(broken, |_, _| Ok::<(), ()>(())), Ok(Err(lost)));
    }
}
