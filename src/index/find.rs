//! Finding paths and contents over all versions.
//!
//! Versions are walked side by side: where several have the same tree at the same path, it is read once for all of
//! them, so ten releases that differ in 1 % of their directories cost little more than one.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::vec;

use rusqlite::Params;

use super::Reader;
use super::failure::{failed, malformed};
use super::trees::RowId;
use crate::error::Result;
use crate::model::glob::Glob;
use crate::model::{ContentId, Entry, EntryName, Node, Tree, TreeId, TreePath, VersionName};

const ROOTS: &str = "SELECT v.name, v.tree, t.hash FROM versions AS v JOIN trees AS t ON t.id = v.tree
    ORDER BY v.import_number";
macro_rules! above {
    ($first:expr, $rest:literal) => {
        concat!(
            "WITH RECURSIVE above (tree) AS (",
            $first,
            " UNION SELECT e.tree FROM above AS a JOIN entries AS e ON e.subtree = a.tree) ",
            $rest
        )
    };
}
// Not by the view `tree_entries`: the engine would go through each base once for every tree that has it.
macro_rules! with_content {
    ($condition:literal) => {
        concat!(
            "SELECT tree FROM entries WHERE content ",
            $condition,
            " UNION SELECT t.id FROM base_entries AS b CROSS JOIN trees AS t ON t.base = b.base WHERE b.content ",
            $condition,
            " AND NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.tree = t.id AND e.name = b.name)
            AND NOT EXISTS (SELECT 1 FROM hidden_names AS h WHERE h.tree = t.id AND h.name = b.name)"
        )
    };
}
const TREES_WITH_CONTENT: &str = above!(with_content!("BETWEEN ?1 AND ?2"), "SELECT tree FROM above");
const VERSIONS_WITH_CONTENT: &str =
    above!(with_content!("= ?1"), "SELECT name FROM versions WHERE tree IN above ORDER BY import_number");
const VERSIONS_WITH_TREE: &str = above!(
    "SELECT id FROM trees WHERE hash = ?1",
    "SELECT name FROM versions WHERE tree IN above ORDER BY import_number"
);

/// One entry that was found, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: TreePath,
    /// What; versions that have another entry there come separately.
    pub entry: Entry,
    /// The versions that have exactly this entry there, oldest import first.
    pub versions: Vec<VersionName>,
}

/// A set of versions by position, in order.
type Holders = Vec<usize>;
/// Trees at one path, each with its id and the versions that have it there.
type Level = BTreeMap<RowId, (TreeId, Holders)>;
/// What different versions have under one name.
type Variants = Vec<(Entry, Option<RowId>, Holders)>;

impl Reader<'_> {
    /// Calls `visit` for every entry whose path the glob finds, in order of paths, a directory before its contents.
    /// Looks at these versions, at all if there are none. An error of `visit` ends the search.
    pub fn find(&self, glob: &Glob, among: &[VersionName], mut visit: impl FnMut(Found) -> Result<()>) -> Result<()> {
        self.walk_all(among, |depth, name, _| glob.may_match(depth, name), |path, _| glob.matches(path), &mut visit)
    }

    /// Calls `visit` for every file with a content from this range, in order of paths; otherwise as
    /// [`find`](Self::find).
    pub fn find_content(
        &self,
        contents: &RangeInclusive<ContentId>,
        among: &[VersionName],
        mut visit: impl FnMut(Found) -> Result<()>,
    ) -> Result<()> {
        let action = "find a content";
        let trees = || {
            let mut statement = self.transaction.prepare_cached(TREES_WITH_CONTENT)?;
            let bounds = (contents.start().as_bytes(), contents.end().as_bytes());
            statement.query_map(bounds, |row| row.get(0))?.collect::<rusqlite::Result<HashSet<RowId>>>()
        };
        let trees = trees().map_err(failed(action))?;
        self.walk_all(
            among,
            |_, _, row| row.is_none_or(|row| trees.contains(&row)),
            |_, entry| matches!(&entry.node, Node::File { content, .. } if contents.contains(content)),
            &mut visit,
        )
    }

    /// The versions that have this tree anywhere, or as their root; oldest import first.
    pub fn versions_with_tree(&self, tree: &TreeId) -> Result<Vec<VersionName>> {
        self.names(VERSIONS_WITH_TREE, [tree.as_bytes()])
    }

    /// The versions that have a file of this content; oldest import first.
    pub fn versions_with_content(&self, content: &ContentId) -> Result<Vec<VersionName>> {
        self.names(VERSIONS_WITH_CONTENT, [content.as_bytes()])
    }

    fn names(&self, sql: &str, parameters: impl Params) -> Result<Vec<VersionName>> {
        let action = "look up versions";
        let read = || {
            let mut statement = self.transaction.prepare_cached(sql)?;
            let names = statement.query_map(parameters, |row| row.get::<_, String>(0))?;
            names.collect::<rusqlite::Result<Vec<_>>>()
        };
        let names = read().map_err(failed(action))?;
        let names: Result<_, _> = names.iter().map(|name| name.parse()).collect();
        names.map_err(|_| malformed(action, "a version's name makes no sense"))
    }

    /// Walks versions side by side: entries for which `enter` holds, and below them.
    fn walk_all(
        &self,
        among: &[VersionName],
        enter: impl Fn(usize, &EntryName, Option<RowId>) -> bool,
        wanted: impl Fn(&TreePath, &Entry) -> bool,
        visit: &mut dyn FnMut(Found) -> Result<()>,
    ) -> Result<()> {
        let (versions, roots) = self.roots(among)?;
        let mut path = TreePath::top();
        let mut stack = vec![self.level(roots)?];
        while let Some(level) = stack.last_mut() {
            let Some((name, variants)) = level.next() else {
                stack.pop();
                path.pop();
                continue;
            };
            let depth = stack.len() - 1;
            path.push(&name);
            let mut below = Level::new();
            for (entry, row, holders) in variants {
                if !enter(depth, &name, row) {
                    continue;
                }
                if let (Some(row), Node::Directory { tree }) = (row, &entry.node) {
                    below.entry(row).or_insert_with(|| (*tree, Holders::new())).1.extend(&holders);
                }
                if wanted(&path, &entry) {
                    let versions = holders.iter().map(|at| versions[*at].clone()).collect();
                    visit(Found { path: path.clone(), entry, versions })?;
                }
            }
            if below.is_empty() {
                path.pop();
            } else {
                stack.push(self.level(below)?);
            }
        }
        Ok(())
    }

    fn roots(&self, among: &[VersionName]) -> Result<(Vec<VersionName>, Level)> {
        let action = "look up versions";
        let read = || {
            let mut statement = self.transaction.prepare_cached(ROOTS)?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, RowId, [u8; 32])>>>()
        };
        let (mut names, mut roots) = (Vec::new(), Level::new());
        for (name, row, hash) in read().map_err(failed(action))? {
            let name = name.parse().map_err(|_| malformed(action, "a version's name makes no sense"))?;
            if among.is_empty() || among.contains(&name) {
                let empty = || (TreeId::from_bytes(hash), Holders::new());
                roots.entry(row).or_insert_with(empty).1.push(names.len());
                names.push(name);
            }
        }
        Ok((names, roots))
    }

    /// What several trees at one path hold, by name; equal entries together. Each is compared with its id.
    fn level(&self, trees: Level) -> Result<vec::IntoIter<(EntryName, Variants)>> {
        let mut names: BTreeMap<EntryName, Variants> = BTreeMap::new();
        for (row, (id, holders)) in trees {
            let entries = self.entries_of(row)?;
            let tree = Tree::new(entries.iter().map(|(entry, _)| entry.clone()).collect());
            if !tree.is_ok_and(|tree| tree.id() == id) {
                return Err(malformed("find paths", "the rows of a tree do not make that tree"));
            }
            for (entry, row) in entries {
                let variants = names.entry(entry.name.clone()).or_default();
                match variants.iter_mut().find(|(known, ..)| *known == entry) {
                    Some((_, _, known)) => {
                        known.extend(&holders);
                        known.sort_unstable();
                    }
                    None => variants.push((entry, row, holders.clone())),
                }
            }
        }
        Ok(names.into_iter().collect::<Vec<_>>().into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{index_of, manifest, name, path};
    use super::*;
    use crate::error::Error;

    fn found(reader: &Reader<'_>, glob: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let take = |found: Found| {
            let versions: Vec<&str> = found.versions.iter().map(VersionName::as_str).collect();
            lines.push(format!("{} {}", found.path, versions.join("+")));
            Ok(())
        };
        reader.find(&Glob::new(glob).unwrap(), &[], take).unwrap();
        lines
    }

    #[test]
    fn paths_are_found_in_every_version_that_has_them_and_variants_apart() {
        let first = manifest("v1", 1, &[("bin/app*", "1"), ("lib/x.so", "s"), ("lib/deep/y.so", "s")]);
        let second = manifest("v2", 2, &[("bin/app*", "2"), ("lib/x.so", "s"), ("lib/deep/y.so", "s")]);
        let third = manifest("v3", 3, &[("bin/app*", "1"), ("bin/new", ""), ("lib/x.so", "s")]);
        let mut index = index_of([&first, &second, &third]);
        let reader = index.read().unwrap();
        assert_eq!(found(&reader, "*.so"), ["lib/deep/y.so v1+v2", "lib/x.so v1+v2+v3"]);
        assert_eq!(found(&reader, "lib/*.so"), ["lib/x.so v1+v2+v3"]);
        assert_eq!(found(&reader, "/lib"), ["lib v1+v2", "lib v3"]);
        assert_eq!(found(&reader, "**/y.so"), ["lib/deep/y.so v1+v2"]);
        assert_eq!(found(&reader, "{bin,nothing}/*"), ["bin/app v1+v3", "bin/app v2", "bin/new v3"]);
        assert_eq!(found(&reader, "bin/app"), ["bin/app v1+v3", "bin/app v2"]);
        assert_eq!(found(&reader, "nothing/*"), Vec::<String>::new());
    }

    #[test]
    fn contents_are_found_where_they_are_and_who_has_them_is_told() {
        let first = manifest("v1", 1, &[("a/b", "1"), ("c", "2")]);
        let second = manifest("v2", 2, &[("a/b", "1"), ("c", "1"), ("d/b", "1")]);
        let mut index = index_of([&first, &second]);
        let reader = index.read().unwrap();
        let mut seen = Vec::new();
        let one = ContentId::of(b"1");
        reader
            .find_content(&(one..=one), &[], |found| {
                seen.push((found.path.to_string(), found.versions.len()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [("a/b".to_owned(), 2), ("c".to_owned(), 1), ("d/b".to_owned(), 1)]);
        let names = |names: Vec<VersionName>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(reader.versions_with_content(&one).unwrap()), ["v1", "v2"]);
        assert_eq!(names(reader.versions_with_content(&ContentId::of(b"2")).unwrap()), ["v1"]);
        assert_eq!(names(reader.versions_with_content(&ContentId::of(b"3")).unwrap()), Vec::<String>::new());
        let shared = reader.tree_at(&first.root, &path("a")).unwrap().unwrap();
        assert_eq!(names(reader.versions_with_tree(&shared).unwrap()), ["v1", "v2"]);
        assert_eq!(names(reader.versions_with_tree(&second.root).unwrap()), ["v2"]);
    }

    #[test]
    fn an_error_of_the_visitor_ends_the_search() {
        let mut index = index_of([&manifest("v1", 1, &[("a", "1"), ("b", "1")])]);
        let reader = index.read().unwrap();
        let mut calls = 0;
        let ended = reader.find(&Glob::new("*").unwrap(), &[], |_| {
            calls += 1;
            Err(Error::Interrupted)
        });
        assert!(matches!(ended, Err(Error::Interrupted)));
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_search_may_be_restricted_to_some_versions() {
        let manifests: Vec<_> =
            ["v1", "v2", "v3"].iter().zip(1..).map(|(name, number)| manifest(name, number, &[("a", "1")])).collect();
        let mut index = index_of(&manifests);
        let reader = index.read().unwrap();
        let mut seen = Vec::new();
        let among = [name("v3"), name("v1")];
        let take = |found: Found| {
            seen.push(found.versions);
            Ok(())
        };
        reader.find(&Glob::new("a").unwrap(), &among, take).unwrap();
        assert_eq!(seen, [[name("v1"), name("v3")]]);
    }

    #[test]
    fn a_row_that_was_changed_by_hand_is_damage() {
        let mut index = index_of([&manifest("v1", 1, &[("d/a", "1")])]);
        index.connection.execute("UPDATE entries SET size = size + 1 WHERE name = x'61'", []).unwrap();
        let error = index.read().unwrap().find(&Glob::new("a").unwrap(), &[], |_| Ok(())).unwrap_err();
        assert!(super::super::is_damage(&error), "{error:?}");
    }
}
