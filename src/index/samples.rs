//! Manifests and histories for the tests of this room.

use std::collections::{BTreeMap, BTreeSet};

use super::{HistoryLine, Index, ManifestFile};
use crate::model::event::{CHAIN_START, Event};
use crate::model::{
    Anchor, ContentId, Digest, Entry, EntryName, Extensions, Facts, Manifest, Metadata, Node, ObjectKey, Ownership,
    Placement, PlacementKind, Source, SourceKind, Tree, TreePath, TreeSet, VersionName, Xattrs,
};

pub(super) fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn entry(name: &[u8], mode: u32, node: Node) -> Entry {
    Entry { name: EntryName::new(name).unwrap(), metadata: Metadata::new(mode, 0, 0), node }
}

/// The entry of a file with these contents.
pub(super) fn file(name: &[u8], mode: u32, contents: &str) -> Entry {
    let content = ContentId::of(contents.as_bytes());
    entry(name, mode, Node::File { content, size: contents.len() as u64 })
}

/// What a version is made of: `(path, contents)`. A path that ends in `>` is a symbolic link with this target; one that
/// ends in `*` an executable; one that ends in `@` has its modification time in its object's key.
pub(super) fn manifest(version: &str, number: u64, files: &[(&str, &str)]) -> Manifest {
    let mut trees = TreeSet::default();
    let mut pinned = BTreeSet::new();
    let files: Vec<(Vec<Vec<u8>>, &str, &str)> = files
        .iter()
        .map(|(path, contents)| {
            let bare = path.trim_end_matches(['>', '*', '@']);
            if path.ends_with('@') {
                pinned.insert(bare.as_bytes().to_vec());
            }
            (bare.split('/').map(|part| part.as_bytes().to_vec()).collect(), &path[bare.len()..], *contents)
        })
        .collect();
    let root = directory(&mut trees, &files.iter().map(|(p, k, c)| (p.as_slice(), *k, *c)).collect::<Vec<_>>());
    let mut placements = Vec::new();
    trees
        .walk(root, |path, entry| {
            if let Node::File { size: 1.., content } = entry.node {
                let kind = match pinned.contains(path.as_bytes()) {
                    true => PlacementKind::PinnedMtime,
                    false => PlacementKind::Object,
                };
                // An object has one time, so it follows from the content here.
                let mtime_seconds = 1_600_000_000 + i64::from(content.as_bytes()[0]);
                placements.push(Placement { kind, mtime_seconds, mtime_nanoseconds: 5 });
            }
            Ok::<(), ()>(())
        })
        .unwrap()
        .unwrap();
    let facts = Facts {
        name: name(version),
        import_number: number,
        anchor: Anchor { number: 3 * number, chain: [number as u8; 32] },
        imported_at: 1_700_000_000,
        clock_synchronised: true,
        note: format!("release {version}"),
        labels: BTreeMap::from([("channel".into(), "stable".into()), ("n".into(), number.to_string())]),
        source: Source { kind: SourceKind::Archive, path: b"/in/\xff.tar".to_vec() },
        ownership: Ownership::AsRecorded,
        shared: vec![path("services/app/log"), path("services/app/state")],
        private_empty: Vec::new(),
    };
    let extensions = Extensions::new(BTreeMap::from([(0x8001, number.to_le_bytes().to_vec())]));
    Manifest { facts, root, trees, placements, extensions }
}

/// Path from here on, kind, contents.
type Below<'a> = (&'a [Vec<u8>], &'a str, &'a str);

fn directory(trees: &mut TreeSet, files: &[Below<'_>]) -> crate::model::TreeId {
    let mut groups: BTreeMap<Vec<u8>, Vec<Below<'_>>> = BTreeMap::new();
    for (path, kind, contents) in files {
        groups.entry(path[0].clone()).or_default().push((&path[1..], kind, contents));
    }
    let entries = groups.into_iter().map(|(name, below)| match below[0] {
        ([], ">", target) => entry(&name, 0o777, Node::Symlink { target: target.as_bytes().into() }),
        ([], "*", contents) => file(&name, 0o755, contents),
        ([], _, contents) => file(&name, 0o644, contents),
        _ => {
            let tree = directory(trees, &below);
            entry(&name, 0o755, Node::Directory { tree })
        }
    });
    let entries = entries.collect();
    trees.insert(Tree::new(entries).unwrap())
}

/// A tree with everything that an entry can have.
pub(super) fn rich_tree() -> (TreeSet, Tree) {
    let mut trees = TreeSet::default();
    let empty = trees.insert(Tree::default());
    let xattrs =
        Xattrs::collect([(b"security.capability".to_vec(), vec![0, 1, 2, 255]), (b"user.empty".to_vec(), Vec::new())]);
    let tree = Tree::new(vec![
        Entry {
            name: EntryName::new(&b"a\xff\n'"[..]).unwrap(),
            metadata: Metadata { xattrs, ..Metadata::new(0o6755, u32::MAX, 7) },
            node: Node::File { content: ContentId::of(b"x"), size: (1 << 63) - 1 },
        },
        file(b"empty", 0, ""),
        entry(b"link", 0o777, Node::Symlink { target: b"../\xfe".as_slice().into() }),
        entry(b"sub", 0o1777, Node::Directory { tree: empty }),
    ])
    .unwrap();
    trees.insert(tree.clone());
    (trees, tree)
}

pub(super) fn manifest_file(number: u64) -> ManifestFile {
    ManifestFile { size: 100 + number, mtime_ns: -5, inode: u64::MAX - number }
}

/// The keys and times of all objects of a manifest.
pub(super) fn object_keys(manifest: &Manifest) -> Vec<(ObjectKey, crate::object::Recorded)> {
    let mut keys = Vec::new();
    manifest
        .walk(|_, entry, placement| {
            if let (Some(placement), Node::File { size, .. }) = (placement, &entry.node) {
                let mtime = (placement.mtime_seconds, placement.mtime_nanoseconds);
                let recorded = crate::object::Recorded { size: *size, mtime };
                keys.push((manifest.object_key(entry, placement).unwrap(), recorded));
            }
            Ok::<(), ()>(())
        })
        .unwrap();
    keys
}

/// Numbers events from 1 and chains them.
pub(super) fn history(events: impl IntoIterator<Item = Event>) -> Vec<HistoryLine> {
    let mut chain = CHAIN_START;
    let mut lines = Vec::new();
    for (seq, event) in (1..).zip(events) {
        let event = Event { seq, time: 1000 + seq.cast_signed(), ..event };
        let (line, next) = event.to_line(&chain);
        chain = next;
        let json = String::from_utf8(line[65..line.len() - 1].to_vec()).unwrap();
        lines.push(HistoryLine { event, json, chain });
    }
    lines
}

pub(super) fn digest_of(manifest: &Manifest) -> Digest {
    Digest(manifest.root)
}

/// An index in memory with these versions.
pub(super) fn index_of<'m>(manifests: impl IntoIterator<Item = &'m Manifest>) -> Index {
    let mut index = Index::in_memory().unwrap();
    let mut writer = index.write().unwrap();
    for manifest in manifests {
        writer.insert_version(manifest, &manifest_file(manifest.facts.import_number)).unwrap();
    }
    writer.commit().unwrap();
    index
}
