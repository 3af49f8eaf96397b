//! The comparison against a plain one that flattens both sides, and what a reader may rely on.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::*;
use crate::model::{EntryName, Xattrs};
use proptest::prelude::*;

/// A tree to be: entries by path; directories above them are implied (0755).
#[derive(Debug, Clone, Default, PartialEq)]
struct Plan(BTreeMap<TreePath, (Metadata, Leaf)>);

#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

impl Plan {
    fn put(mut self, at: &str, mode: u32, leaf: Leaf) -> Self {
        self.0.insert(path(at), (Metadata::new(mode, 0, 0), leaf));
        self
    }

    fn file(self, at: &str, bytes: &str) -> Self {
        self.put(at, 0o644, Leaf::File(bytes.into()))
    }

    fn link(self, at: &str, target: &str) -> Self {
        self.put(at, 0o777, Leaf::Symlink(target.into()))
    }

    fn directory(self, at: &str, mode: u32) -> Self {
        self.put(at, mode, Leaf::Directory)
    }

    /// Builds the tree bottom up; gives its root.
    fn build(&self, set: &mut TreeSet) -> TreeId {
        let mut directories: BTreeMap<TreePath, (Metadata, Vec<Entry>)> = BTreeMap::new();
        directories.insert(TreePath::top(), (Metadata::default(), Vec::new()));
        for (at, (metadata, leaf)) in &self.0 {
            let mut above = TreePath::top();
            for name in at.components() {
                directories.entry(above.clone()).or_insert((Metadata::new(0o755, 0, 0), Vec::new()));
                above.push(&EntryName::new(name).unwrap());
            }
            match leaf {
                Leaf::Directory => directories.entry(at.clone()).or_default().0 = metadata.clone(),
                Leaf::File(bytes) => {
                    let node = Node::File { content: ContentId::of(bytes), size: bytes.len() as u64 };
                    put(&mut directories, at, metadata, node);
                }
                Leaf::Symlink(target) => {
                    put(&mut directories, at, metadata, Node::Symlink { target: target.clone().into() });
                }
            }
        }
        while let Some((at, (metadata, entries))) = deepest(&mut directories) {
            let tree = set.insert(Tree::new(entries).unwrap());
            if at.is_top() {
                return tree;
            }
            put(&mut directories, &at, &metadata, Node::Directory { tree });
        }
        unreachable!("the top comes last")
    }
}

type Directories = BTreeMap<TreePath, (Metadata, Vec<Entry>)>;

fn put(directories: &mut Directories, at: &TreePath, metadata: &Metadata, node: Node) {
    let mut above = at.clone();
    above.pop();
    let name = EntryName::new(at.components().last().unwrap()).unwrap();
    directories.get_mut(&above).unwrap().1.push(Entry { name, metadata: metadata.clone(), node });
}

fn deepest(directories: &mut Directories) -> Option<(TreePath, (Metadata, Vec<Entry>))> {
    let at = directories.keys().max_by_key(|at| at.components().count())?.clone();
    directories.remove_entry(&at)
}

fn diff_with(before: &Plan, after: &Plan, options: &Options) -> Result<Diff> {
    let mut set = TreeSet::default();
    let (a, b) = (before.build(&mut set), after.build(&mut set));
    compare((&set, a), (&set, b), options)
}

fn diff(before: &Plan, after: &Plan) -> Diff {
    diff_with(before, after, &Options::default()).unwrap()
}

fn diff_m(before: &Plan, after: &Plan) -> Diff {
    diff_with(before, after, &Options { renames: true, ..Options::default() }).unwrap()
}

/// One line per change, for reading: letter, kinds, path.
fn lines_of(diff: &Diff) -> Vec<String> {
    let line = |change: &Change| match &change.from_path {
        Some(from) => format!("{} {from} -> {}", change.kind.letter(), change.path),
        None => format!("{} {}", change.kind.letter(), change.path),
    };
    diff.changes.iter().map(line).collect()
}

#[test]
fn every_kind_of_change_has_its_name() {
    let before = Plan::default()
        .file("bin/app", "one")
        .file("bin/gone", "xx")
        .file("bin/mode", "same")
        .file("bin/same", "same")
        .link("lib/a.so", "a.so.1")
        .file("etc/was-file", "text")
        .directory("var", 0o755);
    let after = Plan::default()
        .put("bin/app", 0o755, Leaf::File(b"three".into()))
        .file("bin/new", "n")
        .put("bin/mode", 0o755, Leaf::File(b"same".into()))
        .file("bin/same", "same")
        .link("lib/a.so", "a.so.2")
        .link("etc/was-file", "elsewhere")
        .directory("var", 0o700);
    let diff = diff(&before, &after);
    assert_eq!(
        lines_of(&diff),
        ["M bin/app", "D bin/gone", "P bin/mode", "A bin/new", "T etc/was-file", "M lib/a.so", "P var"]
    );
    let names: Vec<&str> = diff.changes.iter().map(|change| change.kind.name()).collect();
    assert_eq!(names, ["modified", "removed", "metadata", "added", "type", "modified", "metadata"]);
    let app = &diff.changes[0];
    assert_eq!(app.differs, Differs { content: true, mode: true, ..Differs::default() });
    let (old, new) = (app.before.as_ref().unwrap(), app.after.as_ref().unwrap());
    assert_eq!((old.size(), new.size(), new.content()), (Some(3), Some(5), Some(ContentId::of(b"three"))));
    assert_eq!(diff.changes[5].after.as_ref().unwrap().target(), Some(&b"a.so.2"[..]));
    assert_eq!(diff.changes[4].after.as_ref().unwrap().letter(), 'l');
    assert_eq!(
        diff.summary(),
        Summary {
            added: Count { files: 1, directories: 0 },
            removed: Count { files: 1, directories: 0 },
            modified: 2,
            renamed: 0,
            metadata: Count { files: 1, directories: 1 },
            type_changed: 1,
            bytes_added: 5 + 1,
            bytes_removed: 3 + 2 + 4,
        }
    );
    assert_eq!(diff.summary().total(), 7);
}

#[test]
fn directories_do_not_vanish_from_the_answer() {
    let before = Plan::default().directory("empty", 0o755).file("d/x/1", "1").file("keep", "k");
    let after = Plan::default().file("keep", "k").file("n/y/2", "2").directory("n/void", 0o755);
    let diff = diff(&before, &after);
    assert_eq!(lines_of(&diff), ["D d", "D d/x", "D d/x/1", "D empty", "A n", "A n/void", "A n/y", "A n/y/2"]);
    let summary = diff.summary();
    assert_eq!(summary.added, Count { files: 1, directories: 3 });
    assert_eq!(summary.removed, Count { files: 1, directories: 3 });
}

#[test]
fn a_directory_that_becomes_a_file_loses_its_entries() {
    let before = Plan::default().file("d/a", "1").file("d/b/c", "2");
    let after = Plan::default().file("d", "file");
    assert_eq!(lines_of(&diff(&before, &after)), ["T d", "D d/a", "D d/b", "D d/b/c"]);
    assert_eq!(lines_of(&diff(&after, &before)), ["T d", "A d/a", "A d/b", "A d/b/c"]);
    assert_eq!(diff(&before, &after).summary().type_changed, 1);
}

#[test]
fn a_directory_is_never_modified_by_what_is_in_it() {
    let before = Plan::default().directory("d", 0o755).file("d/a", "1");
    let after = Plan::default().directory("d", 0o750).file("d/a", "2");
    assert_eq!(lines_of(&diff(&before, &after)), ["P d", "M d/a"]);
}

#[test]
fn owner_and_attributes_are_told_apart() {
    let facts = |metadata| EntryFacts { metadata, node: Node::File { content: ContentId::empty(), size: 0 } };
    let plain = facts(Metadata::new(0o644, 1, 2));
    let owned = facts(Metadata::new(0o644, 1, 3));
    let mut with_xattrs = Metadata::new(0o644, 1, 2);
    with_xattrs.xattrs = Xattrs::collect([(b"user.x".to_vec(), b"1".to_vec())]);
    assert_eq!(Differs::between(&plain, &owned), Differs { owner: true, ..Differs::default() });
    assert_eq!(Differs::between(&plain, &facts(with_xattrs)), Differs { xattrs: true, ..Differs::default() });
    assert_eq!(Differs::between(&plain, &plain), Differs::default());
}

#[test]
fn the_answer_is_sorted_by_the_bytes_of_paths() {
    let after = Plan::default().file("a/x", "1").file("a-b", "2").file("a.c", "3").file("ab", "4");
    assert_eq!(lines_of(&diff(&Plan::default(), &after)), ["A a", "A a-b", "A a.c", "A a/x", "A ab"]);
}

/// Counts how many trees are loaded.
struct Counting<'a>(&'a TreeSet, Cell<usize>);

impl TreeSource for Counting<'_> {
    fn tree(&self, id: &TreeId) -> Result<Cow<'_, Tree>> {
        self.1.set(self.1.get() + 1);
        self.0.tree(id)
    }
}

#[test]
fn equal_subtrees_are_not_loaded() {
    let mut before = Plan::default();
    for directory in 0..100 {
        for file in 0..3 {
            before = before.file(&format!("d{directory}/sub/f{file}"), &format!("{directory}.{file}"));
        }
    }
    let after = before.clone().file("d7/sub/f1", "other");
    let mut set = TreeSet::default();
    let (a, b) = (before.build(&mut set), after.build(&mut set));
    let (old, new) = (Counting(&set, Cell::new(0)), Counting(&set, Cell::new(0)));
    let diff = compare((&old, a), (&new, b), &Options::default()).unwrap();
    assert_eq!(lines_of(&diff), ["M d7/sub/f1"]);
    assert_eq!((old.1.get(), new.1.get()), (3, 3), "the top, d7 and d7/sub");
    let same = compare((&old, a), (&old, a), &Options::default()).unwrap();
    assert!(same.is_empty());
    assert_eq!(old.1.get(), 3, "nothing more");
    let only = Options { paths: vec![path("d9/sub")], renames: true };
    assert!(compare((&old, a), (&new, b), &only).unwrap().is_empty());
    assert_eq!(old.1.get(), 5, "the top and d9 on the way down");
}

#[test]
fn paths_restrict_the_answer_to_them_and_what_lies_below() {
    let before = Plan::default().file("a/b/1", "1").file("a/b-c", "1").file("x", "1").file("gone/f", "1");
    let after = Plan::default().file("a/b/1", "2").file("a/b-c", "2").file("x", "2").file("new", "1");
    let only = |paths: &[&str]| {
        let paths = paths.iter().map(|p| path(p)).collect();
        diff_with(&before, &after, &Options { paths, renames: false }).map(|diff| lines_of(&diff))
    };
    assert_eq!(only(&["a/b"]).unwrap(), ["M a/b/1"]);
    assert_eq!(only(&["a/b/1"]).unwrap(), ["M a/b/1"]);
    assert_eq!(only(&["x", "a/b-c"]).unwrap(), ["M a/b-c", "M x"]);
    assert_eq!(only(&["a/b", "a", "a/b-c", "a"]).unwrap(), ["M a/b-c", "M a/b/1"], "each once");
    assert_eq!(only(&["gone", "new"]).unwrap(), ["D gone", "D gone/f", "A new"]);
    assert_eq!(only(&["gone/f"]).unwrap(), ["D gone/f"]);
    assert_eq!(only(&["."]).unwrap().len(), 6);
    for nowhere in ["nowhere", "x/below-a-file", "a/b/1/2"] {
        let error = only(&[nowhere]).unwrap_err();
        assert!(matches!(error, Error::NotFound { what: "path", .. }), "{nowhere}: {error}");
    }
}

#[test]
fn a_missing_tree_is_damage_and_not_a_difference() {
    let mut set = TreeSet::default();
    let root = Plan::default().file("d/f", "1").build(&mut set);
    let lost = TreeId::from_bytes([9; 32]);
    let error = compare((&set, root), (&set, lost), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { what: "tree", .. }), "{error}");
}

#[test]
fn trees_of_thousands_of_levels_are_compared() {
    let chain = |set: &mut TreeSet, bytes: &[u8]| {
        let mut node = Node::File { content: ContentId::of(bytes), size: 1 };
        for _ in 0..5_000 {
            let name = EntryName::new(&b"d"[..]).unwrap();
            let entry = Entry { name, metadata: Metadata::new(0o755, 0, 0), node };
            node = Node::Directory { tree: set.insert(Tree::new(vec![entry]).unwrap()) };
        }
        match node {
            Node::Directory { tree } => tree,
            _ => unreachable!(),
        }
    };
    let mut set = TreeSet::default();
    let (a, b) = (chain(&mut set, b"a"), chain(&mut set, b"b"));
    let diff = compare((&set, a), (&set, b), &Options::default()).unwrap();
    assert_eq!((diff.changes.len(), diff.changes[0].path.components().count()), (1, 5_000));
    let deep = Options { paths: vec![diff.changes[0].path.clone()], renames: true };
    assert_eq!(compare((&set, a), (&set, b), &deep).unwrap(), diff);
    let empty = set.insert(Tree::default());
    assert_eq!(compare((&set, a), (&set, empty), &Options::default()).unwrap().summary().removed.directories, 4_999);
}

#[test]
fn a_moved_file_is_renamed_and_keeps_its_own_facts() {
    let before = Plan::default().file("lib/a.so", "code").file("empty", "");
    let after = Plan::default().put("lib64/a.so", 0o755, Leaf::File(b"code".into())).file("void", "");
    let diff = diff_m(&before, &after);
    assert_eq!(lines_of(&diff), ["D empty", "D lib", "A lib64", "R lib/a.so -> lib64/a.so", "A void"]);
    let renamed = &diff.changes[3];
    assert_eq!(renamed.differs, Differs { mode: true, ..Differs::default() });
    assert_eq!(renamed.before.as_ref().unwrap().metadata.mode, 0o644);
    assert_eq!(renamed.after.as_ref().unwrap().metadata.mode, 0o755);
    let summary = diff.summary();
    assert_eq!((summary.renamed, summary.bytes_added, summary.bytes_removed), (1, 0, 0));
}

#[test]
fn without_renames_a_move_is_a_removal_and_an_addition() {
    let (before, after) = (Plan::default().file("a", "1"), Plan::default().file("b", "1"));
    assert_eq!(lines_of(&diff(&before, &after)), ["D a", "A b"]);
    assert_eq!(lines_of(&diff_m(&before, &after)), ["R a -> b"]);
}

/// Only the renames of files with one and the same content.
fn renamed(before: &[&str], after: &[&str]) -> Vec<String> {
    let plan = |paths: &[&str]| paths.iter().fold(Plan::default(), |plan, at| plan.file(at, "same"));
    let diff = diff_m(&plan(before), &plan(after));
    lines_of(&diff).into_iter().filter(|line| line.starts_with('R')).map(|line| line[2..].to_owned()).collect()
}

#[test]
fn the_same_base_name_comes_first() {
    assert_eq!(renamed(&["x/LICENSE", "x/COPYING"], &["y/COPYING"]), ["x/COPYING -> y/COPYING"]);
    assert_eq!(renamed(&["a/1", "b/2"], &["a/2", "b/1"]), ["b/2 -> a/2", "a/1 -> b/1"]);
}

#[test]
fn of_equal_base_names_the_most_similar_path_is_taken() {
    assert_eq!(
        renamed(&["old/x/f", "old/y/f", "old/z/f"], &["new/z/f", "new/x/f"]),
        ["old/x/f -> new/x/f", "old/z/f -> new/z/f"]
    );
    assert_eq!(renamed(&["a-1.0/LICENSE", "b-1.0/LICENSE"], &["b-1.1/LICENSE"]), ["b-1.0/LICENSE -> b-1.1/LICENSE"]);
    assert_eq!(renamed(&["p/q/f", "r/s/f"], &["r/t/f", "p/t/f"]), ["p/q/f -> p/t/f", "r/s/f -> r/t/f"]);
}

#[test]
fn each_file_is_used_once_and_as_many_as_possible_are_paired() {
    assert_eq!(renamed(&["a"], &["b", "c"]), ["a -> b"]);
    assert_eq!(renamed(&["a", "b"], &["c"]), ["a -> c"]);
    assert_eq!(renamed(&["d/a", "d/b"], &["e/c", "e/d"]), ["d/a -> e/c", "d/b -> e/d"]);
}

#[test]
fn ten_thousand_copies_are_paired_quickly() {
    let many = |prefix: &str| -> Vec<String> { (0..10_000).map(|i| format!("{prefix}-{i}/{}", i % 7)).collect() };
    let (before, after) = (many("old"), many("new"));
    let change = |at: &String, kind| {
        let facts =
            EntryFacts { metadata: Metadata::default(), node: Node::File { content: ContentId::of(b"x"), size: 1 } };
        let (before, after) = if kind == ChangeKind::Added { (None, Some(facts)) } else { (Some(facts), None) };
        Change { kind, path: path(at), from_path: None, before, after, differs: Differs::default() }
    };
    let changes = before.iter().map(|at| change(at, ChangeKind::Removed));
    let changes: Vec<Change> = changes.chain(after.iter().map(|at| change(at, ChangeKind::Added))).collect();
    let start = std::time::Instant::now();
    let paired = renames::pair(changes);
    assert_eq!(paired.len(), 10_000);
    assert!(paired.iter().all(|change| change.kind == ChangeKind::Renamed));
    // Comparing all with all would take minutes in a debug build.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// What a plan holds, flat: the plainest reading of "which entries differ".
fn flat(plan: &Plan) -> BTreeMap<TreePath, EntryFacts> {
    let mut set = TreeSet::default();
    let root = plan.build(&mut set);
    let mut flat = BTreeMap::new();
    let walked = set.walk(root, |path, entry| {
        flat.insert(path.clone(), EntryFacts::from(entry));
        Ok::<(), ()>(())
    });
    assert_eq!(walked, Ok(Ok(())));
    flat
}

fn plans() -> impl Strategy<Value = Plan> {
    let leaf = prop_oneof![
        "[xy]{0,2}".prop_map(|bytes| Leaf::File(bytes.into_bytes())),
        "[xy]".prop_map(|target| Leaf::Symlink(target.into_bytes())),
        Just(Leaf::Directory),
    ];
    let entry = ("[abc](/[abc-]){0,3}", prop_oneof![Just(0o755_u32), Just(0o644)], leaf);
    proptest::collection::vec(entry, 0..12).prop_map(|entries| {
        let mut plan = Plan::default();
        for (at, mode, leaf) in entries {
            // What would need a file to be a directory is left out.
            let at = path(&at);
            let is_leaf = |plan: &Plan, p: &TreePath| plan.0.get(p).is_some_and(|(_, leaf)| *leaf != Leaf::Directory);
            let clash = plan.0.keys().any(|other| at.starts_with(other) && is_leaf(&plan, other))
                || leaf != Leaf::Directory && plan.0.keys().any(|other| other.starts_with(&at));
            if !clash {
                plan.0.insert(at, (Metadata::new(mode, 0, 0), leaf));
            }
        }
        plan
    })
}

proptest! {
    #[test]
    fn the_walk_agrees_with_a_comparison_of_flat_lists(before in plans(), after in plans(), restrict in "[abc](/[abc])?") {
        let (old, new) = (flat(&before), flat(&after));
        let paths: std::collections::BTreeSet<&TreePath> = old.keys().chain(new.keys()).collect();
        let expected: Vec<Change> =
            paths.iter().filter_map(|at| Change::between(at, old.get(at).cloned(), new.get(at).cloned())).collect();
        let diff = diff(&before, &after);
        prop_assert_eq!(&diff.changes, &expected);
        let top = path(&restrict);
        let below: Vec<Change> = expected.into_iter().filter(|change| change.path.starts_with(&top)).collect();
        let restricted = diff_with(&before, &after, &Options { paths: vec![top.clone()], renames: false });
        match paths.contains(&top) {
            true => prop_assert_eq!(restricted.unwrap().changes, below),
            false => prop_assert!(restricted.is_err()),
        }
    }

    #[test]
    fn renames_only_join_a_removal_and_an_addition_of_the_same_bytes(before in plans(), after in plans()) {
        let (plain, joined) = (diff(&before, &after), diff_m(&before, &after));
        let mut split: Vec<Change> = Vec::new();
        for change in joined.changes.clone() {
            if change.kind != ChangeKind::Renamed {
                split.push(change);
                continue;
            }
            let (old, new) = (change.before.unwrap(), change.after.unwrap());
            prop_assert_eq!(old.content(), new.content());
            prop_assert!(old.content().is_some() && old.size() > Some(0));
            split.extend(Change::between(&change.from_path.unwrap(), Some(old), None));
            split.extend(Change::between(&change.path, None, Some(new)));
        }
        split.sort_by(|a, b| a.path.cmp(&b.path));
        prop_assert_eq!(&split, &plain.changes);
        // As many as possible: no content is left on both sides.
        let left = |kind| joined.changes.iter().filter(move |change| change.kind == kind);
        for removed in left(ChangeKind::Removed).filter_map(|c| c.before.as_ref().filter(|f| f.size() > Some(0))) {
            prop_assert!(left(ChangeKind::Added).all(|c| c.after.as_ref().unwrap().content() != removed.content()));
        }
        prop_assert_eq!(joined, diff_m(&before, &after), "deterministic");
    }
}
