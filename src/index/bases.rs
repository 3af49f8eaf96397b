//! Bases: files and symbolic links that trees hold with few differences, stored once.
//!
//! Release after release, most directories that change keep most of what is in them. So the first tree at a place lays
//! its files down as a base, and those that follow are stored as what differs from it: their own entries, and the
//! names of the base that they hide. Once too much differs, the next one lays down a base of its own. A base belongs to
//! no tree: it goes with the last tree that refers to it.
//!
//! Subdirectories are never part of a base, so that a base holds no trees.

use std::collections::BTreeSet;

use rusqlite::{CachedStatement, Connection};

use super::failure::{failed, malformed};
use super::trees::{Columns, RowId, entry};
use super::{Reader, optional};
use crate::error::Result;
use crate::model::{Entry, EntryName, Metadata, Node, Tree};

const BASE_OF: &str = "SELECT base FROM trees WHERE id = ?1";
const NEXT_BASE: &str = "SELECT coalesce(max(id), 0) + 1 FROM bases";
const INSERT_BASE: &str = "INSERT INTO bases (id) VALUES (?1)";
const INSERT_BASE_ENTRY: &str = "INSERT INTO base_entries
    (base, name, kind, mode, uid, gid, xattrs, size, content, target)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const INSERT_HIDDEN: &str = "INSERT INTO hidden_names (tree, name) VALUES (?1, ?2)";
macro_rules! base_entries {
    ($condition:literal) => {
        concat!(
            "SELECT name, kind, mode, uid, gid, xattrs, size, content, target, NULL, NULL FROM base_entries WHERE ",
            $condition
        )
    };
}
const ENTRIES: &str = base_entries!("base = ?1 ORDER BY name");
const ENTRY: &str = base_entries!(
    "base = (SELECT base FROM trees WHERE id = ?1) AND name = ?2 AND NOT EXISTS
        (SELECT 1 FROM hidden_names WHERE tree = ?1 AND hidden_names.name = ?2)"
);
const HIDDEN: &str = "SELECT name FROM hidden_names WHERE tree = ?1";
const UNUSED: &str = "SELECT id FROM bases EXCEPT SELECT base FROM trees WHERE base IS NOT NULL";
const DELETE_ENTRIES: &str = "DELETE FROM base_entries WHERE base = ?1";
const DELETE_BASE: &str = "DELETE FROM bases WHERE id = ?1";

/// Directories with fewer files are stored whole: a base would save no more than it takes.
const FEWEST_FILES: usize = 8;
/// A tree of which more than one in so many files differ from the base gets a base of its own. With a twentieth changed
/// from release to release that is every seventh, and three tenths of the rows that storing each whole would take.
const MOST_DIFFERENT: usize = 3;

/// Number of a base; means nothing outside this database.
pub(super) type BaseId = i64;

/// How a tree is stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form<'t> {
    /// Its base, if it has one.
    pub base: Option<BaseId>,
    /// What is stored with the tree itself.
    pub own: Vec<&'t Entry>,
    /// Names of the base that it does not have.
    hidden: Vec<EntryName>,
}

impl Reader<'_> {
    /// What a tree has of its base, in order, but for what it has itself under the same name; `own` is in order.
    pub(super) fn inherited<T>(&self, tree: RowId, own: &[(Entry, T)]) -> Result<Vec<Entry>> {
        let read = || {
            let Some(base) = base_of(&self.transaction, tree)? else { return Ok(Some(Vec::new())) };
            let mut statement = self.transaction.prepare_cached(HIDDEN)?;
            let hidden = statement.query_map([tree], |row| row.get(0))?;
            let hidden: BTreeSet<Vec<u8>> = hidden.collect::<rusqlite::Result<_>>()?;
            let has = |entry: &Entry| {
                !hidden.contains(entry.name.as_bytes())
                    && own.binary_search_by(|(own, _)| own.name.cmp(&entry.name)).is_err()
            };
            Ok(entries(&self.transaction, base)?.map(|mut entries| {
                entries.retain(has);
                entries
            }))
        };
        let inherited: Option<Vec<Entry>> = read().map_err(failed("read a tree"))?;
        inherited.ok_or_else(|| malformed("read a tree", "an entry makes no sense"))
    }

    /// The entry that a tree has of its base under this name, which it does not have itself.
    pub(super) fn inherited_entry(&self, tree: RowId, name: &[u8]) -> Result<Option<Entry>> {
        let action = "look up a path";
        let statement = self.transaction.prepare_cached(ENTRY);
        let found = statement.and_then(|mut statement| optional(statement.query_row((tree, name), entry)));
        match found.map_err(failed(action))? {
            Some(None) => Err(malformed(action, "an entry makes no sense")),
            Some(Some((entry, _))) => Ok(Some(entry)),
            None => Ok(None),
        }
    }
}

fn base_of(connection: &Connection, tree: RowId) -> rusqlite::Result<Option<BaseId>> {
    connection.prepare_cached(BASE_OF)?.query_row([tree], |row| row.get(0))
}

/// What a base has; `None` if a row makes no sense.
fn entries(connection: &Connection, base: BaseId) -> rusqlite::Result<Option<Vec<Entry>>> {
    let mut statement = connection.prepare_cached(ENTRIES)?;
    let mut rows = statement.query([base])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let Some((entry, _)) = entry(row)? else { return Ok(None) };
        entries.push(entry);
    }
    Ok(Some(entries))
}

/// Decides how trees are stored, and lays down the bases that they need.
pub(super) struct Bases<'c> {
    connection: &'c Connection,
    next: BaseId,
    insert: CachedStatement<'c>,
    insert_entry: CachedStatement<'c>,
}

impl<'c> Bases<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            next: connection.query_row(NEXT_BASE, [], |row| row.get(0))?,
            insert: connection.prepare_cached(INSERT_BASE)?,
            insert_entry: connection.prepare_cached(INSERT_BASE_ENTRY)?,
        })
    }

    /// The form of a tree that stands where `earlier` stood, if that is known.
    pub(super) fn form<'t>(&mut self, tree: &'t Tree, earlier: Option<RowId>) -> rusqlite::Result<Form<'t>> {
        let files = tree.entries().iter().filter(|entry| is_of_bases(entry)).count();
        if files < FEWEST_FILES {
            return Ok(Form { own: tree.entries().iter().collect(), ..Form::default() });
        }
        if let Some(form) = self.beside_earlier(tree, earlier, files / MOST_DIFFERENT)? {
            return Ok(form);
        }
        let base = self.next;
        self.next += 1;
        self.insert.execute([base])?;
        let (shared, own): (Vec<_>, Vec<_>) = tree.entries().iter().partition(|entry| is_of_bases(entry));
        for entry in shared {
            let name = entry.name.as_bytes();
            let Metadata { mode, uid, gid, .. } = entry.metadata;
            let Columns { kind, xattrs, size, content, target } = Columns::of(entry)?;
            self.insert_entry.execute((base, name, kind, mode, uid, gid, xattrs, size, content, target))?;
        }
        Ok(Form { base: Some(base), own, hidden: Vec::new() })
    }

    /// The form by the base of an earlier tree, unless it has none or more than `most` differ. A base that cannot be
    /// read is left alone: whoever reads a tree that has it is told.
    fn beside_earlier<'t>(
        &self,
        tree: &'t Tree,
        earlier: Option<RowId>,
        most: usize,
    ) -> rusqlite::Result<Option<Form<'t>>> {
        let Some(earlier) = earlier else { return Ok(None) };
        let Some(base) = base_of(self.connection, earlier)? else { return Ok(None) };
        let Some(entries) = entries(self.connection, base)? else { return Ok(None) };
        let form = differences(base, entries, tree);
        let files = form.own.iter().filter(|entry| is_of_bases(entry)).count();
        Ok((files + form.hidden.len() <= most).then_some(form))
    }
}

fn is_of_bases(entry: &Entry) -> bool {
    !matches!(entry.node, Node::Directory { .. })
}

/// A tree as what differs from a base with these entries. Both are in order.
fn differences(base: BaseId, entries: Vec<Entry>, tree: &Tree) -> Form<'_> {
    let mut form = Form { base: Some(base), ..Form::default() };
    let mut of_base = entries.into_iter().peekable();
    for entry in tree.entries() {
        while let Some(other) = of_base.next_if(|other| other.name < entry.name) {
            form.hidden.push(other.name);
        }
        let same_name = of_base.next_if(|other| other.name == entry.name);
        if same_name.as_ref() != Some(entry) {
            form.own.push(entry);
        }
    }
    form.hidden.extend(of_base.map(|entry| entry.name));
    form
}

/// Records which names of their bases trees hide, once the trees are there.
pub(super) fn hide(connection: &Connection, tree: RowId, form: &Form<'_>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(INSERT_HIDDEN)?;
    form.hidden.iter().try_for_each(|name| statement.execute((tree, name.as_bytes())).map(drop))
}

/// Removes bases that no tree refers to any longer.
pub(super) fn remove_unused(connection: &Connection) -> rusqlite::Result<()> {
    let mut unused = connection.prepare_cached(UNUSED)?;
    let unused: Vec<BaseId> = unused.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut delete_entries = connection.prepare_cached(DELETE_ENTRIES)?;
    let mut delete_base = connection.prepare_cached(DELETE_BASE)?;
    for base in unused {
        delete_entries.execute([base])?;
        delete_base.execute([base])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{index_of, manifest, manifest_file, name, path};
    use super::super::{Index, is_damage};
    use super::*;
    use crate::model::{ContentId, Manifest};

    /// A version with a directory of twenty files, of which these differ: `(name, contents)`, no contents for one that
    /// is not there.
    fn version(number: u64, differing: &[(&str, Option<&str>)]) -> Manifest {
        let mut files: Vec<(String, &str)> = Vec::new();
        for at in 0..20 {
            let name = format!("f{at:02}");
            if !differing.iter().any(|(other, _)| other.split('/').next() == Some(&name)) {
                files.push((format!("d/{name}"), "same"));
            }
        }
        files.extend(differing.iter().filter_map(|(name, contents)| Some((format!("d/{name}"), (*contents)?))));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, contents)| (name.as_str(), *contents)).collect();
        manifest(&format!("v{number}"), number, &files)
    }

    fn count(index: &Index, table: &str) -> i64 {
        let sql = ["SELECT count(*) FROM ", table].concat();
        index.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    fn assert_reads_back(index: &mut Index, manifests: &[&Manifest]) {
        let reader = index.read().unwrap();
        for manifest in manifests {
            assert_eq!(reader.tree_set(&manifest.root).unwrap().as_ref(), Some(&manifest.trees));
        }
    }

    const CHANGES: [(&str, Option<&str>); 5] =
        [("a", Some("new")), ("f03", None), ("f05", Some("other")), ("f07/below", Some("x")), ("z>", Some("f01"))];

    #[test]
    fn a_release_costs_what_differs_and_reads_back_whole() {
        let (first, second) = (version(1, &[]), version(2, &CHANGES));
        let mut index = index_of([&first]);
        assert_eq!((count(&index, "base_entries"), count(&index, "entries")), (20, 1));
        let mut writer = index.write().unwrap();
        writer.insert_version(&second, &manifest_file(2)).unwrap();
        writer.commit().unwrap();
        assert_eq!((count(&index, "bases"), count(&index, "base_entries")), (1, 20));
        assert_eq!(count(&index, "hidden_names"), 1);
        // The directory and its subdirectory in the root's and the directory's rows, one file below, three others.
        assert_eq!(count(&index, "entries"), 1 + 1 + 1 + 1 + 3);
        assert_reads_back(&mut index, &[&first, &second]);
        let reader = index.read().unwrap();
        for (text, in_first, in_second) in [
            ("d/f00", Some("f00"), Some("f00")),
            ("d/f03", Some("f03"), None),
            ("d/f05", Some("f05"), Some("f05")),
            ("d/f07", Some("f07"), Some("f07")),
            ("d/f07/below", None, Some("below")),
            ("d/f04/below", None, None),
            ("d/a", None, Some("a")),
            ("d/z", None, Some("z")),
        ] {
            for (manifest, expected) in [(&first, in_first), (&second, in_second)] {
                let found = reader.entry_at(&manifest.root, &path(text)).unwrap();
                assert_eq!(found.as_ref().map(|entry| entry.name.to_string()).as_deref(), expected, "{text}");
            }
        }
        let content = |manifest: &Manifest| match reader.entry_at(&manifest.root, &path("d/f05")).unwrap().unwrap().node
        {
            Node::File { content, .. } => content,
            node => panic!("{node:?}"),
        };
        assert_eq!((content(&first), content(&second)), (ContentId::of(b"same"), ContentId::of(b"other")));
    }

    #[test]
    fn the_views_and_the_search_by_content_see_through_bases() {
        let (first, second) = (version(1, &[]), version(2, &CHANGES));
        let mut index = index_of([&first, &second]);
        let paths = |version: &str| -> Vec<String> {
            let sql = "SELECT path FROM version_files WHERE version = ?1 ORDER BY path";
            let mut statement = index.connection.prepare(sql).unwrap();
            statement.query_map([version], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        for manifest in [&first, &second] {
            let mut expected = Vec::new();
            let take = |path: &crate::model::TreePath, _: &Entry| {
                expected.push(path.to_string());
                Ok::<(), ()>(())
            };
            manifest.trees.walk(manifest.root, take).unwrap().unwrap();
            expected.sort();
            assert_eq!(paths(manifest.facts.name.as_str()), expected);
        }
        assert_eq!(count(&index, "tree_entries"), 1 + 20 + 1 + 21 + 1);
        let reader = index.read().unwrap();
        let holders = |contents: &str| reader.versions_with_content(&ContentId::of(contents.as_bytes())).unwrap();
        assert_eq!(holders("same"), [name("v1"), name("v2")]);
        assert_eq!(holders("other"), [name("v2")]);
        let other = ContentId::of(b"same");
        let mut found = Vec::new();
        let take = |one: super::super::Found| {
            found.push((one.path.to_string(), one.versions.len()));
            Ok(())
        };
        reader.find_content(&(other..=other), &[], take).unwrap();
        assert_eq!(found.len(), 20);
        let by_one: Vec<&str> = found.iter().filter(|(_, versions)| *versions == 1).map(|(path, _)| &**path).collect();
        assert_eq!(by_one, ["d/f03", "d/f05", "d/f07"]);
    }

    #[test]
    fn a_content_that_only_a_base_has_is_nobodys() {
        let (first, second) = (version(1, &[("f01", Some("old"))]), version(2, &[("f01", Some("new"))]));
        let mut index = index_of([&first, &second]);
        let mut writer = index.write().unwrap();
        let removed = writer.remove_versions([&name("v1")]).unwrap();
        assert_eq!((removed.trees, removed.objects), (2, 1));
        writer.commit().unwrap();
        assert_eq!(count(&index, "base_entries"), 20, "the other tree refers to it");
        assert_reads_back(&mut index, &[&second]);
        let old = ContentId::of(b"old");
        let reader = index.read().unwrap();
        assert_eq!(reader.versions_with_content(&old).unwrap(), []);
        reader.find_content(&(old..=old), &[], |found| panic!("{found:?}")).unwrap();
    }

    #[test]
    fn a_base_goes_with_the_last_tree_that_has_it() {
        let manifests = [version(1, &[]), version(2, &[("f01", Some("x"))]), version(3, &CHANGES)];
        let mut index = index_of(&manifests);
        for (gone, bases) in [("v1", 1), ("v3", 1), ("v2", 0)] {
            let mut writer = index.write().unwrap();
            let _ = writer.remove_versions_with([&name(gone)], []).unwrap();
            writer.commit().unwrap();
            assert_eq!((count(&index, "bases"), count(&index, "base_entries")), (bases, 20 * bases), "{gone}");
        }
        assert_eq!((count(&index, "hidden_names"), count(&index, "entries")), (0, 0));
    }

    #[test]
    fn where_too_much_differs_a_base_of_its_own_is_laid_down() {
        let names: Vec<String> = (0..7).map(|at| format!("f{at:02}")).collect();
        for (differing, bases) in [(6, 1), (7, 2)] {
            let changes: Vec<_> = names[..differing].iter().map(|name| (name.as_str(), Some("new"))).collect();
            let (first, second) = (version(1, &[]), version(2, &changes));
            let mut index = index_of([&first, &second]);
            assert_eq!(count(&index, "bases"), bases, "{differing}");
            assert_reads_back(&mut index, &[&first, &second]);
        }
        let few: Vec<String> = (0..FEWEST_FILES - 1).map(|at| format!("d/{at}")).collect();
        let few: Vec<(&str, &str)> = few.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(count(&index_of([&manifest("v1", 1, &few)]), "bases"), 0, "too few files for one");
    }

    #[test]
    fn what_was_changed_by_hand_is_damage() {
        let (first, second) = (version(1, &[]), version(2, &CHANGES));
        for change in [
            "UPDATE base_entries SET mode = mode + 1 WHERE name = CAST('f01' AS BLOB)",
            "DELETE FROM base_entries WHERE name = CAST('f02' AS BLOB)",
            "UPDATE base_entries SET xattrs = x'ff' WHERE name = CAST('f01' AS BLOB)",
            "DELETE FROM hidden_names",
            "UPDATE trees SET base = NULL",
        ] {
            let mut index = index_of([&first, &second]);
            assert_ne!(index.connection.execute(change, []).unwrap(), 0, "{change}");
            let error = index.read().unwrap().tree_set(&second.root).unwrap_err();
            assert!(is_damage(&error), "{change}: {error:?}");
        }
    }
}
