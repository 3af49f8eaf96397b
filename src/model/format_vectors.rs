//! The formats of this layer, written and read as `schema/FORMAT.md` specifies them.

use std::collections::BTreeMap;

use super::*;
use crate::test_vectors::{vector, vector_bytes};

/// A vector of one line.
fn line(name: &str) -> &'static str {
    vector(name).trim_end()
}

fn xattrs() -> Xattrs {
    Xattrs::collect([(b"user.b".to_vec(), Vec::new()), (b"user.a".to_vec(), b"1".to_vec())])
}

fn entry(name: &str, metadata: Metadata, node: Node) -> Entry {
    Entry { name: EntryName::new(name.as_bytes()).unwrap(), metadata, node }
}

fn file(name: &str, metadata: Metadata, bytes: &[u8]) -> Entry {
    entry(name, metadata, Node::File { content: ContentId::of(bytes), size: bytes.len() as u64 })
}

#[test]
fn version_names_are_read_as_specified() {
    for line in vector("version-names").lines() {
        let (given, expected) = line.split_once(" => ").unwrap();
        let read = given.parse::<VersionName>().map_or("refused".to_owned(), |name| name.to_string());
        assert_eq!(read, expected, "{given}");
    }
}

#[test]
fn the_format_file_is_written_as_specified() {
    for (name, format) in
        [("format-file", Format::new(false, false)), ("format-file-squash-network", Format::new(true, true))]
    {
        assert_eq!(format.to_text(), vector(name));
        assert_eq!(Format::parse(vector(name).as_bytes()), Ok(format));
    }
}

#[test]
fn extended_attributes_are_encoded_as_specified() {
    let mut encoded = Vec::new();
    xattrs().encode(&mut encoded);
    assert_eq!(encoded, vector_bytes("xattrs"));
    assert_eq!(xattrs().digest().to_hex(), line("xattr-digest"));
}

#[test]
fn access_lists_are_sealed_as_specified() {
    let acl = |bytes: Vec<u8>| Xattrs::collect([(b"system.posix_acl_access".to_vec(), bytes)]);
    let recorded = Metadata { xattrs: acl(vector_bytes("acl-recorded")), ..Metadata::new(0o664, 0, 0) };
    let expected = Metadata { xattrs: acl(vector_bytes("acl-sealed")), ..Metadata::new(0o444, 0, 0) };
    assert_eq!(Sealed::of(&recorded, None).metadata, expected);
}

#[test]
fn a_squash_store_applies_as_specified() {
    let squash = Ownership::Squash { uid: 1000, gid: 1000 };
    for line in vector("squash").lines() {
        let read = |text: &str| {
            let parts: Vec<&str> = text.split(' ').collect();
            let mode = u32::from_str_radix(parts[0], 8).unwrap();
            Metadata::new(mode, parts[1].parse().unwrap(), parts[2].parse().unwrap())
        };
        let (recorded, applied) = line.split_once(" => ").unwrap();
        assert_eq!(squash.apply(&read(recorded)), read(applied), "{line}");
    }
    let mixed = Xattrs::collect([(b"security.capability".to_vec(), vec![1]), (b"user.a".to_vec(), vec![2])]);
    let applied = squash.apply(&Metadata { xattrs: mixed, ..Metadata::new(0o755, 0, 0) });
    assert_eq!(applied.xattrs, Xattrs::collect([(b"user.a".to_vec(), vec![2])]));
}

#[test]
fn objects_are_named_as_specified() {
    let key = |mode: u32, xattrs: Xattrs, mtime: Option<i64>| {
        let applied = Metadata { xattrs, ..Metadata::new(mode, 0, 12) };
        ObjectKey { content: ContentId::of(b"x"), class: Sealed::of(&applied, mtime).class }
    };
    let keys = [
        key(0o644, Xattrs::none(), None),
        key(0o4755, Xattrs::none(), None),
        key(0o644, xattrs(), None),
        key(0o644, Xattrs::none(), Some(1_767_225_600)),
        key(0o644, xattrs(), Some(-1)),
    ];
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(names, vector("object-names").lines().collect::<Vec<_>>());
    for (name, key) in names.iter().zip(keys) {
        let (directory, file_name) = name.split_once('/').unwrap();
        assert_eq!(ObjectKey::parse(directory.as_bytes(), file_name.as_bytes()), Some(key));
    }
}

#[test]
fn a_tree_is_encoded_as_specified() {
    let plain = |mode| Metadata::new(mode, 0, 0);
    let empty = Tree::default();
    let tree = Tree::new(vec![
        entry("link", plain(0o777), Node::Symlink { target: b"bin/../x\xff".as_slice().into() }),
        file("empty", Metadata::new(0o644, 1000, 50), b""),
        entry("bin", plain(0o755), Node::Directory { tree: empty.id() }),
    ]);
    let tree = tree.unwrap();
    assert_eq!(tree.encode(), vector_bytes("tree"));
    assert_eq!(Tree::decode(&vector_bytes("tree")), Ok(tree.clone()));
    assert_eq!(tree.id().to_hex(), line("tree-id"));
    assert_eq!(empty.id().to_hex(), line("empty-tree-id"));
    assert_eq!(Digest(tree.id()).to_string(), format!("t1:{}", line("tree-id")));
}

fn manifest() -> Manifest {
    let mut trees = TreeSet::default();
    let mode = |mode| Metadata::new(mode, 0, 0);
    let leaf = trees.insert(Tree::new(vec![file("f", mode(0o644), b"x")]).unwrap());
    let directory = |name| entry(name, mode(0o755), Node::Directory { tree: leaf });
    let root = vec![directory("a"), directory("b"), file("c.py", mode(0o644), b"x"), file("d", mode(0o644), b"")];
    let root = trees.insert(Tree::new(root).unwrap());
    let placement = |kind, mtime_seconds, mtime_nanoseconds| Placement { kind, mtime_seconds, mtime_nanoseconds };
    Manifest {
        facts: Facts {
            name: "v1.0.0".parse().unwrap(),
            import_number: 7,
            anchor: Anchor { number: 12, chain: [0xc4; 32] },
            imported_at: 1_767_225_600,
            clock_synchronised: true,
            note: "first".into(),
            labels: BTreeMap::from([("channel".into(), "stable".into())]),
            source: Source { kind: SourceKind::Archive, path: b"app\xff.tar".to_vec() },
            ownership: Ownership::Squash { uid: 1, gid: 2 },
            shared: vec![TreePath::parse(b"b/f").unwrap()],
            private_empty: vec![TreePath::parse(b"d").unwrap()],
        },
        root,
        trees,
        placements: vec![
            placement(PlacementKind::Object, 1_767_225_599, 500_000_000),
            placement(PlacementKind::Shared, -1, 0),
            placement(PlacementKind::PinnedMtime, 5, 6),
        ],
        extensions: Extensions::new(BTreeMap::from([(0x8001, b"kept".to_vec())])),
    }
}

#[test]
fn a_manifest_is_encoded_as_specified() {
    let manifest = manifest();
    let body = vector_bytes("manifest-body");
    assert_eq!(manifest.encode_body(), body);
    let head = vector_bytes("manifest-head");
    assert!(manifest.encode().starts_with(&head));
    // Who compressed it, and how hard, does not matter.
    let packed = zstd::bulk::compress(&body, 19).unwrap();
    assert_eq!(Manifest::decode(&[head, packed].concat()), Ok(manifest));
}
