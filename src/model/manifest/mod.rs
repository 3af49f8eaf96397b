//! Manifests: the exact contents of one version, with its own facts; immutable once published.
//!
//! The file is a fixed head (magic, format, length, checksum) and one zstd frame; `schema/FORMAT.md` gives it byte
//! by byte. Decoding checks everything that can be checked without the file system: the checksum, that every tree is
//! there and named by its hash, that nothing is left over, that there is one placement per file.
//!
//! A format number or a critical extension that this build does not know makes a manifest *newer*, which is not damage:
//! the manifest is refused ([`DecodeError::Newer`](super::codec::DecodeError::Newer)) and never rewritten.

mod decode;
mod encode;
mod extensions;

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::anchor::Anchor;
use super::id::{ContentId, Digest, TreeId};
use super::metadata::{Metadata, ObjectKey, Ownership, Sealed};
use super::name::{TreePath, VersionName};
use super::tree::{Entry, Node, TreeSet};

pub use decode::{FileMet, Step, body_of, checksum_of, claimed_bytes, facts_of, walk_body};
pub use extensions::Extensions;

/// First bytes of a manifest.
pub const MANIFEST_MAGIC: &[u8; 8] = b"tope-man";
/// Version of the manifest format.
pub const MANIFEST_FORMAT: u32 = 1;
/// The context under which a manifest's body is checksummed.
pub const MANIFEST_CONTEXT: &str = "tope-store 2026-11 manifest v1";
/// Largest body that is read, so that a damaged length cannot exhaust memory: a million entries take about 100 MiB.
pub const MAX_BODY_BYTES: u64 = 4 << 30;
/// A body of this length is read however small its frame is, and without a look at the machine's memory.
pub const MODEST_BODY_BYTES: u64 = 32 << 20;
/// A longer body has at most so many bytes for each byte of its frame. Half of a body are hashes, and names differ, so a
/// real one has less than 30; where equal directories are repeated without end, the frame is written uncompressed.
pub const MAX_RATIO: u64 = 256;
/// The largest window of the frame, as a power of two: 8 MiB, which RFC 8878 asks every decoder to support.
pub const MAX_WINDOW_LOG: u32 = 23;
/// Most entries that a version can have, equal trees counted as often as they occur.
pub const MAX_ENTRIES: u64 = 1 << 27;
/// Length of what stands before a manifest's frame.
pub const MANIFEST_HEAD_BYTES: usize = 8 + 4 + 8 + 32;

/// Where a version came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it was.
    pub kind: SourceKind,
    /// Its path as given, in bytes; empty for standard input.
    pub path: Vec<u8>,
}

/// The kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// An archive, whatever its compression.
    Archive,
    /// An archive on standard input.
    Stream,
    /// A hand-made tree taken under management in place.
    Adopted,
    /// Reserved: a bundle.
    Bundle,
    /// Reserved: a channel that was pulled from.
    Pull,
    /// One that this build does not know, by its number: it decides nothing, and is kept as it is.
    Unknown(u8),
}

impl SourceKind {
    /// All kinds that this build knows, in the order of their numbers in the format.
    pub const KNOWN: [Self; 6] =
        [Self::Directory, Self::Archive, Self::Stream, Self::Adopted, Self::Bundle, Self::Pull];

    /// The kind of this number.
    pub fn of_number(number: u8) -> Self {
        Self::KNOWN.get(usize::from(number)).copied().unwrap_or(Self::Unknown(number))
    }

    /// Its number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Directory => 0,
            Self::Archive => 1,
            Self::Stream => 2,
            Self::Adopted => 3,
            Self::Bundle => 4,
            Self::Pull => 5,
            Self::Unknown(number) => number,
        }
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        let known = Self::KNOWN.into_iter().find(|kind| kind.name() == name);
        known.or_else(|| name.strip_prefix("unknown-")?.parse().ok().map(Self::of_number))
    }

    /// The stable name; `unknown-9` for a kind that this build does not know.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Directory => "directory".into(),
            Self::Archive => "archive".into(),
            Self::Stream => "stream".into(),
            Self::Adopted => "adopted".into(),
            Self::Bundle => "bundle".into(),
            Self::Pull => "pull".into(),
            Self::Unknown(number) => format!("unknown-{number}").into(),
        }
    }
}

/// What is true of a version besides its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: VersionName,
    /// Its import number; higher is newer.
    pub import_number: u64,
    /// The history's last event when it was published.
    pub anchor: Anchor,
    /// Wall time of the import in seconds; a label.
    pub imported_at: i64,
    /// Whether the clock was synchronised then.
    pub clock_synchronised: bool,
    /// Free text given at import.
    pub note: String,
    /// Labels given at import.
    pub labels: BTreeMap<String, String>,
    /// Where it came from.
    pub source: Source,
    /// How owners were applied.
    pub ownership: Ownership,
    /// Paths that live outside the version: a symbolic link stands at each; sorted.
    pub shared: Vec<TreePath>,
    /// Empty files that a service writes; sorted. (Of files with contents the placement says it.)
    pub private_empty: Vec<TreePath>,
}

/// How one non-empty regular file was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlacementKind {
    /// A hardlink to its object.
    Object,
    /// A hardlink to an object whose modification time is part of its key.
    PinnedMtime,
    /// A writable copy of its own; the pristine bytes are kept as an object.
    Private,
    /// Below a shared path: only the pristine object is kept.
    Shared,
}

/// Placement of one non-empty regular file, and the modification time of its object when it was linked. A file whose
/// time differs later was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placement {
    /// How it stands in the tree.
    pub kind: PlacementKind,
    /// Modification time of the object: seconds.
    pub mtime_seconds: i64,
    /// Modification time of the object: nanoseconds below a second.
    pub mtime_nanoseconds: u32,
}

/// The exact contents of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Facts about the version.
    pub facts: Facts,
    /// Its root tree.
    pub root: TreeId,
    /// All trees below the root and the root itself.
    pub trees: TreeSet,
    /// One per non-empty regular file, in the order of [`TreeSet::walk`].
    pub placements: Vec<Placement>,
    /// Data of newer builds, which this one keeps.
    pub extensions: Extensions,
}

impl Manifest {
    /// The version's digest.
    pub fn digest(&self) -> Digest {
        Digest(self.root)
    }

    /// Calls `visit` for every entry, in order, with the placement of those that have one.
    ///
    /// # Panics
    ///
    /// Not for a manifest that was decoded: those are whole.
    pub fn walk<E>(
        &self,
        mut visit: impl FnMut(&TreePath, &Entry, Option<Placement>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut placements = self.placements.iter().copied();
        let walked = self.trees.walk(self.root, |path, entry| {
            let placement = matches!(entry.node, Node::File { size: 1.., .. }).then(|| placements.next()).flatten();
            visit(path, entry, placement)
        })?;
        walked.expect("a manifest holds every tree that it names");
        Ok(())
    }

    /// The key of the object that holds this file's bytes.
    pub fn object_key(&self, entry: &Entry, placement: Placement) -> Option<ObjectKey> {
        let Node::File { content, .. } = entry.node else { return None };
        Some(key_of(content, &entry.metadata, self.facts.ownership, placement))
    }
}

fn key_of(content: ContentId, recorded: &Metadata, ownership: Ownership, placement: Placement) -> ObjectKey {
    let mtime = (placement.kind == PlacementKind::PinnedMtime).then_some(placement.mtime_seconds);
    ObjectKey { content, class: Sealed::of(&ownership.apply(recorded), mtime).class }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::codec::DecodeError;
    use crate::model::{EntryName, Tree};

    fn manifest() -> Manifest {
        let mut trees = TreeSet::default();
        let file = |name: &str, bytes: &[u8]| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::File { content: ContentId::of(bytes), size: bytes.len() as u64 },
        };
        let root = trees.insert(Tree::new(vec![file("app", b"one"), file("empty", b"")]).unwrap());
        Manifest {
            facts: Facts {
                name: "v1.0.0".parse().unwrap(),
                import_number: 7,
                anchor: Anchor { number: 12, chain: [9; 32] },
                imported_at: 1_700_000_000,
                clock_synchronised: true,
                note: "first".into(),
                labels: BTreeMap::from([("channel".into(), "stable".into())]),
                source: Source { kind: SourceKind::Archive, path: b"app\xff.tar".to_vec() },
                ownership: Ownership::Squash { uid: 1, gid: 2 },
                shared: vec![TreePath::parse(b"services/app/state").unwrap()],
                private_empty: vec![TreePath::parse(b"empty").unwrap()],
            },
            root,
            trees,
            placements: vec![Placement { kind: PlacementKind::PinnedMtime, mtime_seconds: 5, mtime_nanoseconds: 6 }],
            extensions: Extensions::new(BTreeMap::from([(7, b"seven".to_vec()), (300, Vec::new())])),
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let manifest = manifest();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn a_format_or_critical_extension_that_is_not_known_is_newer_and_no_damage() {
        let mut encoded = manifest().encode();
        encoded[8] = 2;
        let newer = DecodeError::Newer { what: "manifest format", number: 2 };
        assert_eq!(Manifest::decode(&encoded), Err(newer));
        // Nothing behind the number can be relied on.
        assert!(matches!(body_of(&encoded[..12]), Err(DecodeError::Newer { .. })));
        assert!(matches!(body_of(&encoded[..11]), Err(DecodeError::Truncated { .. })));
        let body = manifest().encode_body();
        let name = 2 + "v1.0.0".len();
        assert_eq!(body[name..name + 4], [0; 4]);
        let critical = [&body[..name], &[1, 0, 0, 0, 44, 1], &body[name + 4..]].concat();
        let newer = DecodeError::Newer { what: "critical extension", number: 300 };
        assert_eq!(Manifest::decode_body(&critical), Err(newer.clone()));
        assert_eq!(walk_body(&critical, |_, _| {}), Err(newer));
    }

    #[test]
    fn extensions_are_sorted_and_each_there_once() {
        let body = manifest().encode_body();
        let area = [&2_u32.to_le_bytes()[..], &[7, 0, 5, 0, 0, 0], b"seven", &[44, 1, 0, 0, 0, 0]].concat();
        assert!(body.ends_with(&area));
        for wrong in [[7_u8, 0], [6, 0]] {
            let mut body = body.clone();
            let at = body.len() - 6;
            body[at..at + 2].copy_from_slice(&wrong);
            assert!(matches!(Manifest::decode_body(&body), Err(DecodeError::Invalid { .. })));
            assert!(matches!(walk_body(&body, |_, _| {}), Err(DecodeError::Invalid { .. })));
        }
    }

    #[test]
    fn the_objects_of_a_file_are_those_of_its_files() {
        let mut manifest = manifest();
        let leaf = manifest.trees.get(&manifest.root).unwrap().clone();
        let directory = |name: &str| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::Directory { tree: leaf.id() },
        };
        // One tree at two places: its file has a placement for each.
        manifest.root = manifest.trees.insert(Tree::new(vec![directory("a"), directory("b")]).unwrap());
        manifest.placements.push(Placement { kind: PlacementKind::Object, mtime_seconds: 8, mtime_nanoseconds: 9 });
        let mut expected = Vec::new();
        let walked = manifest.walk(|_, entry, placement| {
            expected.extend(placement.and_then(|placed| Some((manifest.object_key(entry, placed)?, 3, placed))));
            Ok::<(), ()>(())
        });
        walked.unwrap();
        let mut objects = Vec::new();
        let facts = walk_body(&body_of(&manifest.encode()).unwrap(), |_, step| {
            if let Step::File(file) = step {
                objects.push((file.key(), file.size, file.placement));
            }
        });
        assert_eq!((facts, objects), (Ok((manifest.facts.clone(), manifest.root)), expected));
        manifest.placements.pop();
        assert!(walk_body(&body_of(&manifest.encode()).unwrap(), |_, _| {}).is_err());
        manifest.placements.clear();
        manifest.trees.insert(Tree::default());
        manifest.root = Tree::default().id();
        let mut steps = Vec::new();
        walk_body(&body_of(&manifest.encode()).unwrap(), |_, step| steps.push(format!("{step:?}"))).unwrap();
        assert_eq!(steps, [format!("Enter({:?}, None)", manifest.root), "Leave".into()]);
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let encoded = manifest().encode();
        for at in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 1;
            // A flipped bit in zstd's own frame header may leave the same contents behind; then nothing was lost.
            if let Ok(read) = Manifest::decode(&damaged) {
                assert_eq!(read, manifest(), "byte {at}");
            }
            assert_eq!(
                body_of(&damaged).is_ok_and(|body| walk_body(&body, |_, _| {}).is_ok()),
                Manifest::decode(&damaged).is_ok(),
                "byte {at}"
            );
            assert!(Manifest::decode(&encoded[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_kind_of_source_that_is_not_known_is_kept() {
        for number in 0..=u8::MAX {
            let kind = SourceKind::of_number(number);
            assert_eq!((kind.number(), SourceKind::of_name(&kind.name())), (number, Some(kind)));
            let mut manifest = manifest();
            manifest.facts.source.kind = kind;
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
        assert_eq!(SourceKind::of_number(9).name(), "unknown-9");
    }

    #[test]
    fn labels_that_nobody_may_give_are_refused() {
        for (key, value) in [("", "x"), ("a b", "x"), ("a\n", "x"), ("a", "x\ny"), ("a", "\u{85}")] {
            let mut manifest = manifest();
            manifest.facts.labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(Manifest::decode(&manifest.encode()).is_err(), "{key:?}={value:?}");
        }
    }

    #[test]
    fn the_facts_are_read_without_the_trees_and_a_flipped_bit_is_noticed() {
        let manifest = manifest();
        let file = manifest.encode();
        assert_eq!(facts_of(&file), Ok((manifest.facts, manifest.root)));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            // A frame may say the same in another way; never something else.
            assert!(facts_of(&damaged).is_err() || body_of(&damaged) == body_of(&file), "byte {at}");
        }
    }

    #[test]
    fn a_body_has_no_more_than_its_frame_can_honestly_become() {
        let mut bomb = manifest().encode();
        bomb[12..20].copy_from_slice(&(3_u64 << 30).to_le_bytes());
        let message = "it claims 3221225472 bytes, more than the 33554432 that ";
        for error in [body_of(&bomb).unwrap_err(), facts_of(&bomb).unwrap_err()] {
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }

    /// Every directory holds the one below it twice: few trees, and a placement for each of very many files.
    #[test]
    fn a_manifest_that_compresses_too_well_is_written_uncompressed() {
        let mut manifest = manifest();
        let directory = |name: &str, tree: TreeId| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o755, 0, 0),
            node: Node::Directory { tree },
        };
        for _ in 0..22 {
            let below = manifest.root;
            let tree = Tree::new(vec![directory("a", below), directory("b", below)]).unwrap();
            manifest.root = manifest.trees.insert(tree);
        }
        let placement = manifest.placements[0];
        manifest.placements = vec![placement; 1 << 22];
        let file = manifest.encode();
        let claimed = claimed_bytes(&file).unwrap();
        assert!(claimed > MODEST_BODY_BYTES && file.len() as u64 > claimed, "{claimed} {}", file.len());
        assert_eq!(facts_of(&file), Ok((manifest.facts.clone(), manifest.root)));
        assert!(Manifest::decode(&file) == Ok(manifest));
    }
}
