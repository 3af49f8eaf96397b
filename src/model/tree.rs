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
/// A symbolic link with name and target of one byte: kind, two lengths, metadata without attributes.
const SHORTEST_ENTRY_BYTES: usize = 1 + 3 + 16 + 3;
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
        self.encode_into(&mut out);
        out
    }

    /// Appends the canonical encoding.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(TREE_ENCODING);
        put_count(out, self.entries.len());
        for Entry { name, metadata, node } in &self.entries {
            let kind = match node {
                Node::File { .. } => 1,
                Node::Directory { .. } => 2,
                Node::Symlink { .. } => 3,
            };
            out.push(kind);
            put_short_bytes(out, name.as_bytes());
            metadata.encode(out);
            match node {
                Node::File { content, size } => {
                    out.extend_from_slice(content.as_bytes());
                    out.extend_from_slice(&size.to_le_bytes());
                }
                Node::Directory { tree } => out.extend_from_slice(tree.as_bytes()),
                Node::Symlink { target } => put_short_bytes(out, target),
            }
        }
    }

    /// The id of these entries.
    pub fn id(&self) -> TreeId {
        tree_id(&self.encode())
    }

    /// Reads a canonical encoding; any other spelling of the same entries is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reading = Entries::of(bytes)?;
        // No entry is shorter than this, so that a damaged count cannot take all memory.
        let fitting = reading.reader.remaining() / SHORTEST_ENTRY_BYTES;
        let mut entries = Vec::with_capacity(fitting.min(reading.left as usize));
        while let Some(entry) = reading.next_entry()? {
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

/// Reads a canonical encoding entry by entry.
pub(super) struct Entries<'a> {
    reader: Reader<'a>,
    left: u32,
    last: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The entries of a tree with this encoding.
    pub(super) fn of(encoding: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(encoding);
        if reader.u8()? != TREE_ENCODING {
            return Err(reader.invalid("an unknown version of the tree encoding"));
        }
        let left = reader.u32()?;
        Ok(Self { reader, left, last: &[] })
    }

    /// The next entry; `None` when there are no more, which includes that nothing is left over.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return self.reader.clone().finish().map(|()| None) };
        self.left = left;
        let (name, entry) = decode_entry(&mut self.reader)?;
        // No name is empty, so the first one is behind this.
        if self.last >= name {
            return Err(self.reader.invalid("an entry out of order"));
        }
        self.last = name;
        Ok(Some(entry))
    }
}

/// The id of a tree with this encoding.
pub fn tree_id(encoding: &[u8]) -> TreeId {
    TreeId::from_bytes(blake3::derive_key(TREE_CONTEXT, encoding))
}

fn decode_entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Entry), DecodeError> {
    let kind = reader.u8()?;
    let bytes = reader.short_bytes()?;
    let name = EntryName::new(bytes).map_err(|_| reader.invalid("a name that is not allowed"))?;
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
    Ok((bytes, Entry { name, metadata, node }))
}

/// How much there is below a tree; numbers beyond 64 bits stay at the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Entries of every kind.
    pub entries: u64,
    /// Files that are not empty.
    pub files: u64,
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

    /// Takes a tree in its canonical encoding and gives its id.
    ///
    /// # Errors
    ///
    /// As [`Tree::decode`].
    pub fn insert_encoded(&mut self, encoding: &[u8]) -> Result<TreeId, DecodeError> {
        // Only the canonical spelling is read, so that its hash is the id.
        let (tree, id) = (Tree::decode(encoding)?, tree_id(encoding));
        self.0.entry(id).or_insert(tree);
        Ok(id)
    }

    /// Takes a tree whose id is known.
    pub fn insert_known(&mut self, id: TreeId, tree: Tree) {
        debug_assert_eq!(tree.id(), id, "an id is that of its tree");
        self.0.entry(id).or_insert(tree);
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

    /// The ids of all trees below `root` and its own, each once where a walk first meets it. Stops short at trees that
    /// are missing.
    pub fn reachable(&self, root: TreeId) -> Vec<TreeId> {
        let mut seen = std::collections::HashSet::new();
        let (mut order, mut stack) = (Vec::new(), vec![root]);
        while let Some(id) = stack.pop() {
            let Some(tree) = self.0.get(&id) else { continue };
            if !seen.insert(id) {
                continue;
            }
            order.push(id);
            stack.extend(tree.entries().iter().rev().filter_map(|entry| match entry.node {
                Node::Directory { tree } => Some(tree),
                _ => None,
            }));
        }
        order
    }

    /// What a [walk](Self::walk) below `root` would meet, without walking: equal trees are counted once and multiplied,
    /// since a few of them within each other make more entries than there are atoms. `None` if a tree is missing.
    pub fn tally(&self, root: TreeId) -> Option<Tally> {
        let mut known: HashMap<TreeId, Tally> = HashMap::new();
        let mut stack = vec![root];
        while let Some(id) = stack.last().copied() {
            if known.contains_key(&id) {
                stack.pop();
                continue;
            }
            let entries = self.0.get(&id)?.entries();
            let (mut tally, before) = (Tally::default(), stack.len());
            for entry in entries {
                tally.entries = tally.entries.saturating_add(1);
                match &entry.node {
                    Node::File { size, .. } => tally.files = tally.files.saturating_add(u64::from(*size > 0)),
                    Node::Symlink { .. } => {}
                    Node::Directory { tree } => match known.get(tree) {
                        Some(below) => {
                            tally.entries = tally.entries.saturating_add(below.entries);
                            tally.files = tally.files.saturating_add(below.files);
                        }
                        None => stack.push(*tree),
                    },
                }
            }
            if stack.len() == before {
                stack.pop();
                known.insert(id, tally);
            }
        }
        known.remove(&root)
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
        assert_eq!(set.tally(root), Some(Tally { entries: 5, files: 2 }));
        let lost = TreeId::from_bytes([0; 32]);
        let broken = set.insert(Tree::new(vec![directory("d", lost)]).unwrap());
        assert_eq!(set.walk(broken, |_, _| Ok::<(), ()>(())), Ok(Err(lost)));
        assert_eq!(set.tally(broken), None);
    }

    #[test]
    fn trees_are_listed_where_a_walk_first_meets_them() {
        let mut set = TreeSet::default();
        let directory = |name: &str, tree| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::Directory { tree },
        };
        let x = set.insert(Tree::new(vec![file("x", b"x")]).unwrap());
        let y = set.insert(Tree::new(vec![file("y", b"y")]).unwrap());
        let both = set.insert(Tree::new(vec![directory("x", x), directory("y", y)]).unwrap());
        let root = set.insert(Tree::new(vec![directory("a", both), directory("b", x)]).unwrap());
        assert_eq!(set.reachable(root), [root, both, x, y]);
    }

    #[test]
    fn trees_within_each_other_are_counted_without_a_walk() {
        let mut set = TreeSet::default();
        let directory = |name: &str, tree| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::Directory { tree },
        };
        let mut root = set.insert(Tree::new(vec![file("f", b"1")]).unwrap());
        for _ in 0..62 {
            root = set.insert(Tree::new(vec![directory("a", root), directory("b", root)]).unwrap());
        }
        assert_eq!(set.tally(root), Some(Tally { entries: (1 << 63) - 2 + (1 << 62), files: 1 << 62 }));
        for _ in 0..3 {
            root = set.insert(Tree::new(vec![directory("a", root), directory("b", root)]).unwrap());
        }
        assert_eq!(set.tally(root), Some(Tally { entries: u64::MAX, files: u64::MAX }));
    }
}
