//! Trees: rows of distinct directories and their entries.

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, Row};

use super::bases::{self, Bases, Form};
use super::failure::{failed, malformed};
use super::{Reader, Writer, number, optional, unsigned};
use crate::error::Result;
use crate::model::codec::Reader as Bytes;
use crate::model::diff::TreeSource;
use crate::model::{ContentId, Entry, EntryName, Metadata, Node, Tree, TreeId, TreePath, TreeSet, Xattrs};

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;

const TREE_ROW: &str = "SELECT id FROM trees WHERE hash = ?1";
const NEXT_TREE: &str = "SELECT coalesce(max(id), 0) + 1 FROM trees";
const INSERT_TREE: &str = "INSERT INTO trees (id, hash, base) VALUES (?1, ?2, ?3)";
const INSERT_ENTRY: &str = "INSERT INTO entries
    (tree, name, kind, mode, uid, gid, xattrs, size, content, target, subtree)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const ENTRIES: &str = "SELECT e.name, e.kind, e.mode, e.uid, e.gid, e.xattrs, e.size, e.content, e.target,
        e.subtree, t.hash
    FROM entries AS e LEFT JOIN trees AS t ON t.id = e.subtree WHERE e.tree = ?1 ORDER BY e.name";
const ENTRY: &str = "SELECT e.name, e.kind, e.mode, e.uid, e.gid, e.xattrs, e.size, e.content, e.target,
        e.subtree, t.hash
    FROM entries AS e LEFT JOIN trees AS t ON t.id = e.subtree WHERE e.tree = ?1 AND e.name = ?2";
const NEWEST_ROOT: &str = "SELECT tree FROM versions ORDER BY import_number DESC LIMIT 1";
const SUBDIRECTORIES: &str = "SELECT name, subtree FROM entries WHERE tree = ?1 AND subtree IS NOT NULL";

/// Number of a tree's row; means nothing outside this database.
pub(super) type RowId = i64;

impl Reader<'_> {
    /// Whether this tree, and so everything below it, is in the index.
    pub fn has_tree(&self, id: &TreeId) -> Result<bool> {
        self.tree_row(id).map(|row| row.is_some())
    }

    /// One tree, compared with its id; `None` if the index does not have it.
    ///
    /// # Errors
    ///
    /// One that [is damage](super::is_damage()) if the rows make another tree than the id says.
    pub fn tree(&self, id: &TreeId) -> Result<Option<Tree>> {
        let Some(row) = self.tree_row(id)? else { return Ok(None) };
        let entries = self.entries_of(row)?.into_iter().map(|(entry, _)| entry).collect();
        match Tree::new(entries) {
            Ok(tree) if tree.id() == *id => Ok(Some(tree)),
            _ => Err(malformed("read a tree", "the rows of a tree do not make that tree")),
        }
    }

    /// A tree and all trees below it; `None` if the index does not have it.
    pub fn tree_set(&self, root: &TreeId) -> Result<Option<TreeSet>> {
        let mut set = TreeSet::default();
        let mut waiting = vec![*root];
        while let Some(id) = waiting.pop() {
            if set.get(&id).is_some() {
                continue;
            }
            match self.tree(&id)? {
                Some(tree) => {
                    waiting.extend(tree.entries().iter().filter_map(|entry| match entry.node {
                        Node::Directory { tree } => Some(tree),
                        _ => None,
                    }));
                    set.insert(tree);
                }
                None if id == *root => return Ok(None),
                None => return Err(malformed("read a tree", "a tree below a known one is missing")),
            }
        }
        Ok(Some(set))
    }

    /// The entry at a path below a root; `None` if there is none, and for the top, which is no entry.
    ///
    /// Looks at one row per component; the trees on the way are not compared with their ids.
    pub fn entry_at(&self, root: &TreeId, path: &TreePath) -> Result<Option<Entry>> {
        let Some(mut row) = self.tree_row(root)? else { return Ok(None) };
        let mut found = None;
        let mut components = path.components().peekable();
        while let Some(name) = components.next() {
            let Some((entry, subtree)) = self.entry_of(row, name)? else { return Ok(None) };
            match subtree {
                Some(subtree) => row = subtree,
                None if components.peek().is_some() => return Ok(None),
                None => {}
            }
            found = Some(entry);
        }
        Ok(found)
    }

    /// The tree at a path below a root, the root itself for the top; `None` if there is no directory.
    pub fn tree_at(&self, root: &TreeId, path: &TreePath) -> Result<Option<TreeId>> {
        if path.is_top() {
            return Ok(self.tree_row(root)?.map(|_| *root));
        }
        Ok(self.entry_at(root, path)?.and_then(|entry| match entry.node {
            Node::Directory { tree } => Some(tree),
            _ => None,
        }))
    }

    pub(super) fn tree_row(&self, id: &TreeId) -> Result<Option<RowId>> {
        let found = self.transaction.prepare_cached(TREE_ROW).and_then(|mut statement| row_of(&mut statement, id));
        found.map_err(failed("look up a tree"))
    }

    /// A tree's entries in order, with the rows of subtrees.
    pub(super) fn entries_of(&self, tree: RowId) -> Result<Vec<(Entry, Option<RowId>)>> {
        let read = || {
            let mut statement = self.transaction.prepare_cached(ENTRIES)?;
            let mut rows = statement.query([tree])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                entries.push(entry(row)?);
            }
            Ok(entries)
        };
        let entries: Vec<Option<_>> = read().map_err(failed("read a tree"))?;
        let own: Option<Vec<_>> = entries.into_iter().collect();
        let mut whole = own.ok_or_else(|| malformed("read a tree", "an entry makes no sense"))?;
        let inherited = self.inherited(tree, &whole)?;
        if !inherited.is_empty() {
            whole.extend(inherited.into_iter().map(|entry| (entry, None)));
            whole.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        }
        Ok(whole)
    }

    fn entry_of(&self, tree: RowId, name: &[u8]) -> Result<Option<(Entry, Option<RowId>)>> {
        let statement = self.transaction.prepare_cached(ENTRY);
        let found = statement.and_then(|mut statement| optional(statement.query_row((tree, name), entry)));
        match found.map_err(failed("look up a path"))? {
            Some(None) => Err(malformed("look up a path", "an entry makes no sense")),
            Some(found) => Ok(found),
            None => Ok(self.inherited_entry(tree, name)?.map(|entry| (entry, None))),
        }
    }
}

impl TreeSource for Reader<'_> {
    /// As [`Reader::tree`], but a tree that is missing is [damage](super::is_damage()) too.
    fn tree(&self, id: &TreeId) -> Result<Cow<'_, Tree>> {
        let found = Reader::tree(self, id)?;
        found.map(Cow::Owned).ok_or_else(|| malformed("read a tree", "a tree below a known one is missing"))
    }
}

/// An entry from a row; `None` within if the row makes no sense.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Option<(Entry, Option<RowId>)>> {
    let name = EntryName::new(row.get_ref(0)?.as_blob()?).ok();
    let subtree: Option<RowId> = row.get(9)?;
    let node = match row.get(1)? {
        FILE => Some(Node::File { content: ContentId::from_bytes(row.get(7)?), size: unsigned(row, 6)? }),
        DIRECTORY => Some(Node::Directory { tree: TreeId::from_bytes(row.get(10)?) }),
        SYMLINK => Some(Node::Symlink { target: row.get(8)? }),
        _ => None,
    };
    let metadata = metadata(row, 2)?;
    Ok(name.zip(node).zip(metadata).map(|((name, node), metadata)| (Entry { name, metadata, node }, subtree)))
}

/// Mode, owner, group and attributes from four columns; `None` if the attributes make no sense.
pub(super) fn metadata(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Metadata>> {
    let xattrs = match row.get_ref(first + 3)?.as_blob_or_null()? {
        None => Some(Xattrs::none()),
        Some(bytes) => {
            let mut bytes = Bytes::new(bytes);
            Xattrs::decode(&mut bytes).ok().filter(|_| bytes.remaining() == 0)
        }
    };
    let (mode, uid, gid) = (row.get(first)?, row.get(first + 1)?, row.get(first + 2)?);
    Ok(xattrs.map(|xattrs| Metadata { mode, uid, gid, xattrs }))
}

/// The columns of an entry that its kind decides.
pub(super) struct Columns<'e> {
    pub kind: u8,
    pub xattrs: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub content: Option<&'e [u8; 32]>,
    pub target: Option<&'e [u8]>,
}

impl<'e> Columns<'e> {
    pub(super) fn of(entry: &'e Entry) -> rusqlite::Result<Self> {
        let xattrs = (!entry.metadata.xattrs.is_empty()).then(|| {
            let mut encoded = Vec::new();
            entry.metadata.xattrs.encode(&mut encoded);
            encoded
        });
        let (kind, size, content, target) = match &entry.node {
            Node::File { content, size } => (FILE, Some(number(*size)?), Some(content.as_bytes()), None),
            Node::Directory { .. } => (DIRECTORY, None, None, None),
            Node::Symlink { target } => (SYMLINK, None, None, Some(&**target)),
        };
        Ok(Self { kind, xattrs, size, content, target })
    }
}

fn row_of(statement: &mut CachedStatement<'_>, id: &TreeId) -> rusqlite::Result<Option<RowId>> {
    optional(statement.query_row([id.as_bytes()], |row| row.get(0)))
}

impl Writer<'_> {
    /// Takes in a tree and all trees below it. Those that are known are skipped with everything below them.
    ///
    /// May be done, and committed, before the version is published: a tree that no version has does no harm, and
    /// [`prune`](Self::prune) removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Index`](crate::error::Error::Index) if the engine fails, or if `trees` lacks one that is needed.
    pub fn add_trees(&mut self, trees: &TreeSet, root: &TreeId) -> Result<()> {
        self.add_tree_rows(trees, root).map(drop)
    }

    pub(super) fn add_tree_rows(&mut self, trees: &TreeSet, root: &TreeId) -> Result<RowId> {
        let action = "take in trees";
        let mut rows = HashMap::new();
        let new = new_trees(&self.transaction, trees, root, &mut rows).map_err(failed(action))?;
        let new = new.ok_or_else(|| malformed(action, "a tree is not among those given"))?;
        insert(&self.transaction, &new, &rows).map_err(failed(action))?;
        Ok(rows[root])
    }
}

/// A tree that the index lacks.
struct New<'t> {
    row: RowId,
    id: TreeId,
    tree: &'t Tree,
    /// What the newest version has in its place.
    earlier: Option<RowId>,
}

/// The trees below `root` that the index lacks, with the rows that they will have, parents first; `None` if one of
/// them is not at hand. `rows` then has them and the known ones next to them.
fn new_trees<'t>(
    connection: &Connection,
    trees: &'t TreeSet,
    root: &TreeId,
    rows: &mut HashMap<TreeId, RowId>,
) -> rusqlite::Result<Option<Vec<New<'t>>>> {
    let mut known = connection.prepare_cached(TREE_ROW)?;
    // Numbers follow the walk, so that a version read from top to bottom reads the file from front to back.
    let mut next: RowId = connection.query_row(NEXT_TREE, [], |row| row.get(0))?;
    let newest = optional(connection.query_row(NEWEST_ROOT, [], |row| row.get(0)))?;
    let (mut new, mut waiting) = (Vec::new(), vec![(*root, newest)]);
    while let Some((id, earlier)) = waiting.pop() {
        if rows.contains_key(&id) {
            continue;
        }
        if let Some(row) = row_of(&mut known, &id)? {
            rows.insert(id, row);
            continue;
        }
        let Some(tree) = trees.get(&id) else { return Ok(None) };
        rows.insert(id, next);
        new.push(New { row: next, id, tree, earlier });
        next += 1;
        let below = earlier.map_or_else(|| Ok(HashMap::new()), |earlier| subdirectories(connection, earlier))?;
        waiting.extend(tree.entries().iter().rev().filter_map(|entry| match entry.node {
            Node::Directory { tree } => Some((tree, below.get(entry.name.as_bytes()).copied())),
            _ => None,
        }));
    }
    Ok(Some(new))
}

fn subdirectories(connection: &Connection, tree: RowId) -> rusqlite::Result<HashMap<Vec<u8>, RowId>> {
    let mut statement = connection.prepare_cached(SUBDIRECTORIES)?;
    statement.query_map([tree], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn insert(connection: &Connection, new: &[New<'_>], rows: &HashMap<TreeId, RowId>) -> rusqlite::Result<()> {
    let mut bases = Bases::new(connection)?;
    let forms = new.iter().map(|new| bases.form(new.tree, new.earlier)).collect::<rusqlite::Result<Vec<Form<'_>>>>()?;
    // By hash, since the index over hashes is the bigger part of it; entries follow in the order of their rows. All
    // trees come before all entries, which refer to them.
    let mut by_hash: Vec<(&New<'_>, &Form<'_>)> = new.iter().zip(&forms).collect();
    by_hash.sort_unstable_by_key(|(new, _)| new.id);
    let mut statement = connection.prepare_cached(INSERT_TREE)?;
    for (new, form) in by_hash {
        statement.execute((new.row, new.id.as_bytes(), form.base))?;
    }
    let mut statement = connection.prepare_cached(INSERT_ENTRY)?;
    for (new, form) in new.iter().zip(&forms) {
        for entry in &form.own {
            let subtree = match &entry.node {
                Node::Directory { tree } => Some(rows[tree]),
                _ => None,
            };
            let name = entry.name.as_bytes();
            let Metadata { mode, uid, gid, .. } = entry.metadata;
            let Columns { kind, xattrs, size, content, target } = Columns::of(entry)?;
            statement.execute((new.row, name, kind, mode, uid, gid, xattrs, size, content, target, subtree))?;
        }
        bases::hide(connection, new.row, form)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{index_of, manifest, path, rich_tree};
    use super::super::{Index, is_damage};
    use super::*;

    #[test]
    fn a_tree_with_everything_in_it_reads_back_to_its_id() {
        let (trees, tree) = rich_tree();
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        writer.add_trees(&trees, &tree.id()).unwrap();
        writer.commit().unwrap();
        let reader = index.read().unwrap();
        assert_eq!(reader.tree(&tree.id()).unwrap().unwrap(), tree);
        assert_eq!(reader.tree_set(&tree.id()).unwrap().unwrap(), trees);
        assert_eq!(reader.tree(&TreeId::from_bytes([9; 32])).unwrap(), None);
    }

    #[test]
    fn the_index_is_a_source_of_trees_for_comparisons() {
        let first = manifest("v1", 1, &[("a/b", "1"), ("d/e", "2")]);
        let mut index = index_of([&first]);
        let reader = index.read().unwrap();
        assert_eq!(TreeSource::tree(&reader, &first.root).unwrap().as_ref(), first.trees.get(&first.root).unwrap());
        let error = TreeSource::tree(&reader, &TreeId::from_bytes([9; 32])).unwrap_err();
        assert!(is_damage(&error), "{error:?}");
    }

    #[test]
    fn known_trees_end_the_descent() {
        let first = manifest("v1", 1, &[("a/b/c", "1"), ("d/e", "2")]);
        let second = manifest("v2", 2, &[("a/b/c", "1"), ("d/e", "3")]);
        let mut index = index_of([&first]);
        let mut writer = index.write().unwrap();
        let before = writer.totals().unwrap();
        // Only the trees that differ are at hand: what is known is not asked for.
        let mut trees = TreeSet::default();
        for id in [second.root, *tree_id_at(&second, "d")] {
            trees.insert(second.trees.get(&id).unwrap().clone());
        }
        writer.add_trees(&trees, &second.root).unwrap();
        let after = writer.totals().unwrap();
        assert_eq!((after.trees - before.trees, after.entries - before.entries), (2, 3));
        assert_eq!(writer.tree_set(&second.root).unwrap().unwrap(), second.trees);
    }

    fn tree_id_at<'m>(manifest: &'m crate::model::Manifest, name: &str) -> &'m TreeId {
        match &manifest.trees.get(&manifest.root).unwrap().get(name.as_bytes()).unwrap().node {
            Node::Directory { tree } => tree,
            _ => panic!("{name} is no directory"),
        }
    }

    #[test]
    fn a_tree_that_is_not_at_hand_is_an_error_and_leaves_nothing() {
        let whole = manifest("v1", 1, &[("a/b", "1")]);
        let mut trees = TreeSet::default();
        trees.insert(whole.trees.get(&whole.root).unwrap().clone());
        let mut index = Index::in_memory().unwrap();
        assert!(index.write().unwrap().add_trees(&trees, &whole.root).is_err());
        assert_eq!(index.read().unwrap().totals().unwrap(), super::super::Totals::default());
    }

    #[test]
    fn paths_are_looked_up_name_by_name() {
        let manifest = manifest("v1", 1, &[("bin/app*", "x"), ("bin/link>", "app")]);
        let mut index = index_of([&manifest]);
        let reader = index.read().unwrap();
        let at = |text: &str| reader.entry_at(&manifest.root, &path(text)).unwrap().map(|entry| entry.name.to_string());
        assert_eq!(at("bin/app").as_deref(), Some("app"));
        assert_eq!(at("bin").as_deref(), Some("bin"));
        for missing in ["", "nothing", "bin/nothing", "bin/app/below", "bin/link/below"] {
            assert_eq!(at(missing), None, "{missing}");
        }
        assert_eq!(reader.tree_at(&manifest.root, &path("")).unwrap(), Some(manifest.root));
        assert_eq!(reader.tree_at(&manifest.root, &path("bin")).unwrap().as_ref(), Some(tree_id_at(&manifest, "bin")));
        assert_eq!(reader.tree_at(&manifest.root, &path("bin/app")).unwrap(), None);
    }

    #[test]
    fn rows_that_were_changed_by_hand_are_damage() {
        let manifest = manifest("v1", 1, &[("a", "1"), ("b", "2")]);
        for change in [
            "UPDATE entries SET mode = mode + 1 WHERE name = x'61'",
            "DELETE FROM entries WHERE name = x'62'",
            "UPDATE entries SET name = x'2f' WHERE name = x'61'",
            "UPDATE entries SET xattrs = x'ff' WHERE name = x'61'",
        ] {
            let mut index = index_of([&manifest]);
            index.connection.execute_batch(change).unwrap();
            let error = index.read().unwrap().tree(&manifest.root).unwrap_err();
            assert!(is_damage(&error), "{change}: {error:?}");
        }
    }
}
