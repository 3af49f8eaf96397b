//! Finding paths and contents over all versions.
//!
//! Versions are walked side by side: where several have the same tree at the same path, it is read once for all of
//! them, so ten releases that differ in 1 % of their directories cost little more than one.

use std::collections::{BTreeMap, HashSet};
use std::vec;

use globset::{Candidate, GlobBuilder, GlobMatcher};
use rusqlite::Params;

use super::Reader;
use super::failure::{failed, malformed};
use super::trees::RowId;
use crate::error::{Error, Result};
use crate::model::{ContentId, Entry, EntryName, Node, TreeId, TreePath, VersionName};

const ROOTS: &str = "SELECT name, tree FROM versions ORDER BY import_number";
macro_rules! above {
    ($first:literal, $rest:literal) => {
        concat!(
            "WITH RECURSIVE above (tree) AS (",
            $first,
            " UNION SELECT e.tree FROM above AS a JOIN entries AS e ON e.subtree = a.tree) ",
            $rest
        )
    };
}
const TREES_WITH_CONTENT: &str = above!("SELECT tree FROM entries WHERE content = ?1", "SELECT tree FROM above");
const VERSIONS_WITH_CONTENT: &str = above!(
    "SELECT tree FROM entries WHERE content = ?1",
    "SELECT name FROM versions WHERE tree IN above ORDER BY import_number"
);
const VERSIONS_WITH_TREE: &str = above!(
    "SELECT id FROM trees WHERE hash = ?1",
    "SELECT name FROM versions WHERE tree IN above ORDER BY import_number"
);

/// A glob over paths: `*` and `?` stay within a name, `**` crosses directories, `[…]` and `{a,b}` as in a shell.
/// One without a slash is matched against the last name of a path; a leading slash anchors it at the top.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: GlobMatcher,
    scope: Scope,
    /// Names from the top down that every match begins with; saves looking elsewhere.
    leading: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    LastName,
    WholePath,
}

impl Pattern {
    /// Reads a glob.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is none.
    pub fn new(glob: &str) -> Result<Self> {
        let anchored = glob.strip_prefix('/').or_else(|| glob.strip_prefix("./")).unwrap_or(glob);
        let anchored = anchored.strip_suffix('/').unwrap_or(anchored);
        let scope = if glob.contains('/') { Scope::WholePath } else { Scope::LastName };
        let built = GlobBuilder::new(anchored).literal_separator(true).backslash_escape(true).build();
        let matcher = built.map_err(|error| Error::Usage(format!("not a pattern: {error}")))?.compile_matcher();
        let leading = match scope {
            Scope::LastName => Vec::new(),
            Scope::WholePath => anchored
                .split('/')
                .take_while(|name| !name.contains(['*', '?', '[', ']', '{', '}', '\\', ',']))
                .map(|name| name.as_bytes().to_vec())
                .collect(),
        };
        Ok(Self { matcher, scope, leading })
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &TreePath) -> bool {
        let bytes = path.as_bytes();
        let bytes = match self.scope {
            Scope::WholePath => bytes,
            Scope::LastName => bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes),
        };
        self.matcher.is_match_candidate(&Candidate::from_bytes(bytes))
    }

    fn may_match_below(&self, depth: usize, name: &EntryName) -> bool {
        self.leading.get(depth).is_none_or(|leading| leading == name.as_bytes())
    }
}

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
/// What different versions have under one name.
type Variants = Vec<(Entry, Option<RowId>, Holders)>;

impl Reader<'_> {
    /// Calls `visit` for every entry of any version whose path matches, in order of paths, a directory before its
    /// contents. An error of `visit` ends the search.
    pub fn find(&self, pattern: &Pattern, mut visit: impl FnMut(Found) -> Result<()>) -> Result<()> {
        self.walk_all(
            |depth, name, _| pattern.may_match_below(depth, name),
            |path, _| pattern.matches(path),
            &mut visit,
        )
    }

    /// Calls `visit` for every file of any version that has this content, in order of paths.
    pub fn find_content(&self, content: &ContentId, mut visit: impl FnMut(Found) -> Result<()>) -> Result<()> {
        let action = "find a content";
        let trees = || {
            let mut statement = self.transaction.prepare_cached(TREES_WITH_CONTENT)?;
            statement.query_map([content.as_bytes()], |row| row.get(0))?.collect::<rusqlite::Result<HashSet<RowId>>>()
        };
        let trees = trees().map_err(failed(action))?;
        self.walk_all(
            |_, _, row| row.is_none_or(|row| trees.contains(&row)),
            |_, entry| matches!(&entry.node, Node::File { content: found, .. } if found == content),
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

    /// Walks all versions side by side: entries for which `enter` holds, and below them.
    fn walk_all(
        &self,
        enter: impl Fn(usize, &EntryName, Option<RowId>) -> bool,
        wanted: impl Fn(&TreePath, &Entry) -> bool,
        visit: &mut dyn FnMut(Found) -> Result<()>,
    ) -> Result<()> {
        let (versions, roots) = self.roots()?;
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
            let mut below: BTreeMap<RowId, Holders> = BTreeMap::new();
            for (entry, row, holders) in variants {
                if !enter(depth, &name, row) {
                    continue;
                }
                if let Some(row) = row {
                    below.entry(row).or_default().extend(&holders);
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

    fn roots(&self) -> Result<(Vec<VersionName>, BTreeMap<RowId, Holders>)> {
        let names = self.names(ROOTS, [])?;
        let read = || {
            let mut statement = self.transaction.prepare_cached(ROOTS)?;
            statement.query_map([], |row| row.get(1))?.collect::<rusqlite::Result<Vec<RowId>>>()
        };
        let mut roots: BTreeMap<RowId, Holders> = BTreeMap::new();
        for (at, root) in read().map_err(failed("look up versions"))?.into_iter().enumerate() {
            roots.entry(root).or_default().push(at);
        }
        Ok((names, roots))
    }

    /// What several trees at one path hold, by name; equal entries together.
    fn level(&self, trees: BTreeMap<RowId, Holders>) -> Result<vec::IntoIter<(EntryName, Variants)>> {
        let mut names: BTreeMap<EntryName, Variants> = BTreeMap::new();
        for (tree, holders) in trees {
            for (entry, row) in self.entries_of(tree)? {
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
    use super::super::samples::{index_of, manifest, path};
    use super::*;

    fn found(reader: &Reader<'_>, glob: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let take = |found: Found| {
            let versions: Vec<&str> = found.versions.iter().map(VersionName::as_str).collect();
            lines.push(format!("{} {}", found.path, versions.join("+")));
            Ok(())
        };
        reader.find(&Pattern::new(glob).unwrap(), take).unwrap();
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
        assert_eq!(found(&reader, "./bin/app"), ["bin/app v1+v3", "bin/app v2"]);
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
            .find_content(&one, |found| {
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
        let ended = reader.find(&Pattern::new("*").unwrap(), |_| {
            calls += 1;
            Err(Error::Interrupted)
        });
        assert!(matches!(ended, Err(Error::Interrupted)));
        assert_eq!(calls, 1);
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        assert!(matches!(Pattern::new("[a"), Err(Error::Usage(_))));
    }
}
