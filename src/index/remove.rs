//! Taking versions out, with the trees and objects that only they used.

use std::collections::{HashMap, HashSet};

use rusqlite::{CachedStatement, Connection, params_from_iter};

use super::failure::{failed, malformed};
use super::objects::{Classes, plain_class};
use super::trees::{RowId, metadata};
use super::versions::parse_ownership;
use super::{Writer, bases};
use crate::error::Result;
use crate::model::{ObjectKey, Ownership, VersionName};

const DELETE_VERSION: &str = "DELETE FROM versions WHERE name = ?1";
const ROOTS: &str = "SELECT import_number, tree, ownership FROM versions ORDER BY import_number";
const EDGES: &str = "SELECT tree, subtree FROM entries WHERE subtree IS NOT NULL";
const PINNED_TREES: &str = "SELECT version, tree FROM pinned_trees";
const TREES: &str = "SELECT id, registered FROM trees";
const DELETE_ENTRIES: &str = "DELETE FROM entries WHERE tree = ?1";
const DELETE_TREE: &str = "DELETE FROM trees WHERE id = ?1";
const SET_REGISTERED: &str = "UPDATE trees SET registered = ?2 WHERE id = ?1";
const FILES: &str = "SELECT tree, content, mode, uid, gid, xattrs FROM tree_entries WHERE kind = 1 AND size > 0";
const PINNED_OBJECTS: &str = "SELECT DISTINCT content, class FROM pinned_objects";
const OBJECT_KEYS: &str = "SELECT content, class FROM objects";
const DELETE_OBJECT: &str = "DELETE FROM objects WHERE content = ?1 AND class = ?2";
const DELETE_CLASSES: &str =
    "DELETE FROM classes WHERE NOT EXISTS (SELECT 1 FROM objects WHERE objects.class = classes.id)";
const OWNERSHIPS: &str = "SELECT count(DISTINCT ownership) FROM versions";
const UNREFERRED: &str = "SELECT id FROM trees EXCEPT SELECT subtree FROM entries WHERE subtree IS NOT NULL
    EXCEPT SELECT tree FROM versions";
const SUBTREES: &str = "SELECT DISTINCT subtree FROM entries WHERE tree = ?1 AND subtree IS NOT NULL";
const IS_REFERRED: &str = "SELECT EXISTS (SELECT 1 FROM entries WHERE subtree = ?1)
    OR EXISTS (SELECT 1 FROM versions WHERE tree = ?1)";
// For whom they are registered cannot be told without looking at every version; the next import looks.
const DOUBT_PINNED: &str =
    "UPDATE trees SET registered = NULL WHERE registered IS NOT NULL AND id IN (SELECT tree FROM pinned_trees)";

/// What a removal took out of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Removed {
    /// Versions that were there.
    pub versions: u64,
    /// Trees that no version has any longer.
    pub trees: u64,
    /// Objects that no version refers to any longer.
    pub objects: u64,
}

impl Writer<'_> {
    /// Takes out versions, and the trees and objects that no other version uses. Names that are not there are passed
    /// over. Reads the whole index once, however many versions go: remove together what goes together.
    pub fn remove_versions<'n>(&mut self, names: impl IntoIterator<Item = &'n VersionName>) -> Result<Removed> {
        let action = "take out a version";
        let versions = self.delete_versions(names).map_err(failed(action))?;
        Ok(Removed { versions, ..self.sweep(action)? })
    }

    /// The same where it is known which objects went with these versions: those of `dead` and no others. Reads the
    /// numbers of all trees and all of what goes; where versions are of different ownerships, everything.
    pub fn remove_versions_with<'n, 'k>(
        &mut self,
        names: impl IntoIterator<Item = &'n VersionName>,
        dead: impl IntoIterator<Item = &'k ObjectKey>,
    ) -> Result<Removed> {
        let action = "take out a version";
        let ownerships = self.transaction.query_row(OWNERSHIPS, [], |row| row.get::<_, i64>(0));
        if ownerships.map_err(failed(action))? > 1 {
            return self.remove_versions(names);
        }
        let versions = self.delete_versions(names).map_err(failed(action))?;
        let trees = remove_unreferred(&self.transaction).map_err(failed(action))?;
        let objects = remove_objects(&self.transaction, dead).map_err(failed(action))?;
        let objects = objects.ok_or_else(|| malformed(action, "an inode class makes no sense"))?;
        Ok(Removed { versions, trees, objects })
    }

    fn delete_versions<'n>(&self, names: impl IntoIterator<Item = &'n VersionName>) -> rusqlite::Result<u64> {
        let mut statement = self.transaction.prepare_cached(DELETE_VERSION)?;
        let mut versions = 0;
        for name in names {
            versions += statement.execute([name.as_str()])? as u64;
        }
        Ok(versions)
    }

    /// Takes out versions, but leaves their trees and objects until the next [`Writer::prune`]: their manifests are lost
    /// or damaged, and are made anew from these trees.
    pub fn forget_versions<'n>(&mut self, names: impl IntoIterator<Item = &'n VersionName>) -> Result<()> {
        let action = "take out a version";
        self.delete_versions(names).map(drop).map_err(failed(action))
    }

    /// Takes out trees that no version has, as an import that did not publish leaves them.
    ///
    /// Nobody may be between [`add_trees`](Self::add_trees) and its version: gc holds `lock` exclusive.
    pub fn prune(&mut self) -> Result<Removed> {
        self.sweep("be pruned")
    }

    fn sweep(&mut self, action: &'static str) -> Result<Removed> {
        let live = Live::find(&self.transaction).map_err(failed(action))?;
        let live = live.ok_or_else(|| malformed(action, "an ownership makes no sense"))?;
        let trees = sweep_trees(&self.transaction, &live).map_err(failed(action))?;
        let objects = sweep_objects(&self.transaction, &live).map_err(failed(action))?;
        let objects = objects.ok_or_else(|| malformed(action, "a file or an inode class makes no sense"))?;
        Ok(Removed { versions: 0, trees, objects })
    }
}

/// Removes trees that no version has and no other tree holds, and then those that only they held.
fn remove_unreferred(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached(DOUBT_PINNED)?.execute([])?;
    let column = |statement: &mut CachedStatement<'_>, parameters: &[RowId]| -> rusqlite::Result<Vec<RowId>> {
        statement.query_map(params_from_iter(parameters), |row| row.get(0))?.collect()
    };
    let mut dead = column(&mut connection.prepare_cached(UNREFERRED)?, &[])?;
    let mut subtrees = connection.prepare_cached(SUBTREES)?;
    let mut delete_entries = connection.prepare_cached(DELETE_ENTRIES)?;
    let mut delete_tree = connection.prepare_cached(DELETE_TREE)?;
    let mut is_referred = connection.prepare_cached(IS_REFERRED)?;
    let mut trees = 0;
    while let Some(tree) = dead.pop() {
        let below = column(&mut subtrees, &[tree])?;
        delete_entries.execute([tree])?;
        delete_tree.execute([tree])?;
        trees += 1;
        for subtree in below {
            if !is_referred.query_row([subtree], |row| row.get::<_, bool>(0))? {
                dead.push(subtree);
            }
        }
    }
    bases::remove_unused(connection)?;
    Ok(trees)
}

/// Removes these objects, and classes that none has any longer; `None` if a row makes no sense.
fn remove_objects<'k>(
    connection: &Connection,
    dead: impl IntoIterator<Item = &'k ObjectKey>,
) -> rusqlite::Result<Option<u64>> {
    let Some(classes) = Classes::all(connection)? else { return Ok(None) };
    let mut objects = 0;
    let mut statement = connection.prepare_cached(DELETE_OBJECT)?;
    // One whose class is unknown was never registered.
    let rows = dead.into_iter().filter_map(|key| classes.get(&key.class).map(|class| (key.content.as_bytes(), class)));
    for row in rows {
        objects += statement.execute(row)? as u64;
    }
    connection.prepare_cached(DELETE_CLASSES)?.execute([])?;
    Ok(Some(objects))
}

/// What the versions that are there reach.
struct Live {
    /// Ownerships in use, with the text that stands for each.
    ownerships: Vec<(Ownership, String)>,
    /// Every tree that a version reaches, with the ownerships (by position) of the versions for which the objects of
    /// its files follow from it; none, if they are listed for all of them.
    trees: HashMap<RowId, Vec<usize>>,
}

impl Live {
    /// `None` if a version's ownership makes no sense.
    fn find(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut below: HashMap<RowId, Vec<RowId>> = HashMap::new();
        each_pair(connection, EDGES, |tree, subtree| below.entry(tree).or_default().push(subtree))?;
        let mut pinned: HashSet<(i64, RowId)> = HashSet::new();
        each_pair(connection, PINNED_TREES, |version, tree| {
            pinned.insert((version, tree));
        })?;
        let mut live = Self { ownerships: Vec::new(), trees: HashMap::new() };
        let mut statement = connection.prepare_cached(ROOTS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (version, root): (i64, RowId) = (row.get(0)?, row.get(1)?);
            let Some(ownership) = live.position(row.get_ref(2)?.as_str()?) else { return Ok(None) };
            let mut seen = HashSet::from([root]);
            let mut waiting = vec![root];
            while let Some(tree) = waiting.pop() {
                let ownerships = live.trees.entry(tree).or_default();
                if !ownerships.contains(&ownership) && !pinned.contains(&(version, tree)) {
                    ownerships.push(ownership);
                }
                let subtrees = below.get(&tree).into_iter().flatten();
                waiting.extend(subtrees.filter(|subtree| seen.insert(**subtree)));
            }
        }
        Ok(Some(live))
    }

    fn position(&mut self, text: &str) -> Option<usize> {
        let known = self.ownerships.iter().position(|(_, known)| known == text);
        known.or_else(|| {
            self.ownerships.push((parse_ownership(text)?, text.to_owned()));
            Some(self.ownerships.len() - 1)
        })
    }
}

fn each_pair(connection: &Connection, sql: &str, mut take: impl FnMut(i64, i64)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row.get(0)?, row.get(1)?);
    }
    Ok(())
}

/// Removes trees that are not live, and corrects for whom the others are registered.
fn sweep_trees(connection: &Connection, live: &Live) -> rusqlite::Result<u64> {
    let mut dead = Vec::new();
    let mut changed: Vec<(RowId, Option<&str>)> = Vec::new();
    {
        let mut statement = connection.prepare_cached(TREES)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let tree: RowId = row.get(0)?;
            let registered = row.get_ref(1)?.as_str_or_null()?;
            match live.trees.get(&tree) {
                None => dead.push(tree),
                Some(ownerships) => {
                    let mut right = ownerships.iter().map(|at| live.ownerships[*at].1.as_str());
                    if registered.is_some_and(|registered| !right.any(|right| right == registered)) {
                        // Another one's objects may be there too, but that cannot be told: the next import looks.
                        changed.push((tree, None));
                    }
                }
            }
        }
    }
    let mut statement = connection.prepare_cached(SET_REGISTERED)?;
    for change in changed {
        statement.execute(change)?;
    }
    // All entries first: trees refer to each other through them.
    let mut statement = connection.prepare_cached(DELETE_ENTRIES)?;
    for tree in &dead {
        statement.execute([tree])?;
    }
    let mut statement = connection.prepare_cached(DELETE_TREE)?;
    for tree in &dead {
        statement.execute([tree])?;
    }
    bases::remove_unused(connection)?;
    Ok(dead.len() as u64)
}

/// Removes objects that no live tree and no list refers to; `None` if a row makes no sense.
fn sweep_objects(connection: &Connection, live: &Live) -> rusqlite::Result<Option<u64>> {
    let Some(classes) = Classes::all(connection)? else { return Ok(None) };
    let mut used: HashSet<([u8; 32], i64)> = HashSet::new();
    {
        let mut statement = connection.prepare_cached(FILES)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(ownerships) = live.trees.get(&row.get(0)?) else { continue };
            let Some(metadata) = metadata(row, 2)? else { return Ok(None) };
            for at in ownerships {
                // A class that is unknown was never registered, so there is nothing to keep under it.
                if let Some(class) = classes.get(&plain_class(live.ownerships[*at].0, &metadata)) {
                    used.insert((row.get(1)?, class));
                }
            }
        }
        let mut statement = connection.prepare_cached(PINNED_OBJECTS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            used.insert((row.get(0)?, row.get(1)?));
        }
    }
    let mut dead: Vec<([u8; 32], i64)> = Vec::new();
    {
        let mut statement = connection.prepare_cached(OBJECT_KEYS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = (row.get(0)?, row.get(1)?);
            if !used.contains(&key) {
                dead.push(key);
            }
        }
    }
    let mut statement = connection.prepare_cached(DELETE_OBJECT)?;
    for key in &dead {
        statement.execute(*key)?;
    }
    connection.prepare_cached(DELETE_CLASSES)?.execute([])?;
    Ok(Some(dead.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::samples::{index_of, manifest, manifest_file, name, object_keys};
    use super::super::{Index, Totals};
    use super::*;
    use crate::model::Manifest;

    /// Whether objects and trees are exactly those of `expected`.
    fn assert_holds(index: &mut Index, expected: &[&Manifest], story: &str) {
        let bases = "SELECT (SELECT count(*) FROM bases) - (SELECT count(DISTINCT base) FROM trees)";
        assert_eq!(index.connection.query_row(bases, [], |row| row.get::<_, i64>(0)), Ok(0), "{story}: unused bases");
        let reader = index.read().unwrap();
        let published = reader.published_objects().unwrap();
        let keys: BTreeMap<ObjectKey, _> = expected.iter().flat_map(|manifest| object_keys(manifest)).collect();
        for (key, recorded) in &keys {
            assert_eq!(published.get(key), Some(*recorded), "{story}: {key}");
        }
        assert_eq!(published.len(), keys.len(), "{story}");
        for manifest in expected {
            assert_eq!(reader.tree_set(&manifest.root).unwrap().as_ref(), Some(&manifest.trees), "{story}");
        }
    }

    #[test]
    fn what_only_a_removed_version_used_goes_and_all_else_stays() {
        let first = manifest("v1", 1, &[("a/x", "1"), ("b/y", "2"), ("c@", "3")]);
        let second = manifest("v2", 2, &[("a/x", "1"), ("b/y", "4"), ("c", "3")]);
        let mut index = index_of([&first, &second]);
        let mut writer = index.write().unwrap();
        let removed = writer.remove_versions(&[name("v1"), name("v7")]).unwrap();
        writer.commit().unwrap();
        assert_eq!(removed, Removed { versions: 1, trees: 2, objects: 2 });
        assert_holds(&mut index, &[&second], "v2 stays");
        let mut writer = index.write().unwrap();
        let _ = writer.remove_versions(&[name("v2")]).unwrap();
        assert_eq!(writer.totals().unwrap(), Totals::default());
        let classes: i64 = writer.transaction.query_row("SELECT count(*) FROM classes", [], |row| row.get(0)).unwrap();
        assert_eq!(classes, 0);
    }

    #[test]
    fn pruning_takes_what_an_import_left_that_did_not_publish() {
        let published = manifest("v1", 1, &[("a/x", "1")]);
        let left = manifest("v2", 2, &[("a/x", "1"), ("b/y", "2")]);
        let mut index = index_of([&published]);
        let mut writer = index.write().unwrap();
        writer.add_trees(&left.trees, &left.root).unwrap();
        assert_eq!(writer.prune().unwrap(), Removed { versions: 0, trees: 2, objects: 0 });
        assert_eq!(writer.prune().unwrap(), Removed::default());
        writer.commit().unwrap();
        assert_holds(&mut index, &[&published], "v1 stays");
    }

    /// A file at one of few paths with one of few contents, so that versions share much.
    fn any_file() -> impl Strategy<Value = (String, String)> {
        let paths = prop::sample::select(vec!["a", "d/a", "d/b", "d/e/a", "d/k1", "f/a", "f/b", "f/e/a"]);
        (paths, prop::sample::select(vec!["", "*", "@"]), 0..3_u8)
            .prop_map(|(path, mark, contents)| (format!("{path}{mark}"), "x".repeat(contents.into())))
    }

    fn any_version() -> impl Strategy<Value = (Vec<(String, String)>, u8)> {
        (prop::collection::vec(any_file(), 0..8), 0..2_u8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn objects_are_exactly_those_of_the_versions_that_are_there(
            versions in prop::collection::vec(any_version(), 1..6),
            removals in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            return_one: bool,
            objects_are_known: bool,
        ) {
            let manifests: Vec<Manifest> = versions.iter().zip(1..).map(|((files, owner), number)| {
                // One entry for each path, whatever its mark.
                let files: BTreeMap<&str, (&str, &str)> = files.iter()
                    .map(|(path, contents)| (path.trim_end_matches(['*', '@']), (path.as_str(), contents.as_str())))
                    .collect();
                // Enough that stay, in one directory, for its trees to have a base.
                let kept: Vec<String> = (0..8).map(|at| format!("d/k{at}")).collect();
                let kept = kept.iter().filter(|path| !files.contains_key(path.as_str()));
                let files: Vec<(&str, &str)> =
                    kept.map(|path| (path.as_str(), "k")).chain(files.values().copied()).collect();
                let mut made = manifest(&format!("v{number}"), number, &files);
                if *owner == 1 {
                    made.facts.ownership = Ownership::Squash { uid: 7, gid: 7 };
                }
                made
            }).collect();
            let mut index = index_of(&manifests);
            assert_holds(&mut index, &manifests.iter().collect::<Vec<_>>(), "all in");
            let mut there: Vec<&Manifest> = manifests.iter().collect();
            for removal in removals {
                if there.is_empty() { break; }
                let gone = there.remove(removal.index(there.len()));
                let mut writer = index.write().unwrap();
                if objects_are_known {
                    let left: BTreeMap<ObjectKey, _> = there.iter().flat_map(|manifest| object_keys(manifest)).collect();
                    let dead: BTreeMap<ObjectKey, _> = object_keys(gone).into_iter().collect();
                    let dead = dead.keys().filter(|key| !left.contains_key(key));
                    let _ = writer.remove_versions_with([&gone.facts.name], dead).unwrap();
                } else {
                    let _ = writer.remove_versions([&gone.facts.name]).unwrap();
                }
                assert_eq!(writer.prune().unwrap(), Removed::default(), "nothing is left over");
                writer.commit().unwrap();
                assert_holds(&mut index, &there, "after a removal");
                if return_one {
                    let mut writer = index.write().unwrap();
                    writer.insert_version(gone, &manifest_file(gone.facts.import_number)).unwrap();
                    writer.commit().unwrap();
                    there.push(gone);
                    assert_holds(&mut index, &there, "after its return");
                }
            }
        }
    }
}
