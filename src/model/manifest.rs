//! Manifests: the exact contents of one version, with its own facts; immutable once published.
//!
//! The file is a fixed head (magic, format, length, checksum) and one zstd frame; `schema/FORMAT.md` gives it byte
//! by byte. Decoding checks everything that can be checked without the file system: the checksum, that every tree is
//! there and named by its hash, that nothing is left over, that there is one placement per file.

use std::collections::BTreeMap;

use super::codec::{DecodeError, Reader, put_count, put_long_bytes, put_short_bytes};
use super::id::{Digest, TreeId};
use super::metadata::{ObjectKey, Ownership, Sealed};
use super::name::{TreePath, VersionName};
use super::tree::{Entry, Node, Tree, TreeSet};

/// First bytes of a manifest.
pub const MANIFEST_MAGIC: &[u8; 8] = b"tope-man";
/// Version of the manifest format.
pub const MANIFEST_FORMAT: u32 = 1;
/// The context under which a manifest's body is checksummed.
pub const MANIFEST_CONTEXT: &str = "tope-store 2026-11 manifest v1";
/// Largest body that is read, so that a damaged length cannot exhaust memory: a million entries take about 100 MiB.
pub const MAX_BODY_BYTES: u64 = 4 << 30;
/// zstd level: manifests are written once per import and read by every check, so speed counts.
const COMPRESSION_LEVEL: i32 = 3;
const HEAD_BYTES: usize = 8 + 4 + 8 + 32;

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
}

impl SourceKind {
    /// All kinds, in the order of their numbers in the format.
    pub const ALL: [Self; 4] = [Self::Directory, Self::Archive, Self::Stream, Self::Adopted];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Archive => "archive",
            Self::Stream => "stream",
            Self::Adopted => "adopted",
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
        let mtime = (placement.kind == PlacementKind::PinnedMtime).then_some(placement.mtime_seconds);
        let applied = self.facts.ownership.apply(&entry.metadata);
        Some(ObjectKey { content, class: Sealed::of(&applied, mtime).class })
    }

    /// Encodes the manifest as a file.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.encode_body();
        let checksum = blake3::derive_key(MANIFEST_CONTEXT, &body);
        let packed =
            zstd::bulk::compress(&body, COMPRESSION_LEVEL).expect("compressing memory into memory does not fail");
        let mut out = Vec::with_capacity(HEAD_BYTES + packed.len());
        out.extend_from_slice(MANIFEST_MAGIC);
        out.extend_from_slice(&MANIFEST_FORMAT.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&checksum);
        out.extend_from_slice(&packed);
        out
    }

    /// The body before compression.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Facts { name, import_number, imported_at, clock_synchronised, note, labels, source, ownership, .. } =
            &self.facts;
        put_short_bytes(&mut out, name.as_ref());
        out.extend_from_slice(&import_number.to_le_bytes());
        out.extend_from_slice(&imported_at.to_le_bytes());
        out.push(u8::from(*clock_synchronised));
        put_long_bytes(&mut out, note.as_bytes());
        put_count(&mut out, labels.len());
        for (key, value) in labels {
            put_long_bytes(&mut out, key.as_bytes());
            put_long_bytes(&mut out, value.as_bytes());
        }
        out.push(SourceKind::ALL.iter().position(|kind| *kind == source.kind).map_or(0, |at| at as u8));
        put_long_bytes(&mut out, &source.path);
        let (squash, uid, gid) = match ownership {
            Ownership::AsRecorded => (0, 0, 0),
            Ownership::Squash { uid, gid } => (1, *uid, *gid),
        };
        out.push(squash);
        out.extend_from_slice(&uid.to_le_bytes());
        out.extend_from_slice(&gid.to_le_bytes());
        for paths in [&self.facts.shared, &self.facts.private_empty] {
            put_count(&mut out, paths.len());
            for path in paths {
                put_long_bytes(&mut out, path.as_bytes());
            }
        }
        out.extend_from_slice(self.root.as_bytes());
        let order = self.trees.reachable(self.root);
        put_count(&mut out, order.len());
        for tree in order.iter().filter_map(|id| self.trees.get(id)) {
            put_long_bytes(&mut out, &tree.encode());
        }
        put_count(&mut out, self.placements.len());
        for placement in &self.placements {
            out.push(match placement.kind {
                PlacementKind::Object => 0,
                PlacementKind::PinnedMtime => 1,
                PlacementKind::Private => 2,
                PlacementKind::Shared => 3,
            });
            out.extend_from_slice(&placement.mtime_seconds.to_le_bytes());
            out.extend_from_slice(&placement.mtime_nanoseconds.to_le_bytes());
        }
        out
    }

    /// Reads a manifest file.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that [`Manifest::encode`] would not write.
    pub fn decode(file: &[u8]) -> Result<Self, DecodeError> {
        let mut head = Reader::new(file);
        if head.bytes(8)? != MANIFEST_MAGIC {
            return Err(head.invalid("not a manifest: wrong first bytes"));
        }
        if head.u32()? != MANIFEST_FORMAT {
            return Err(head.invalid("an unknown version of the manifest format"));
        }
        let length = head.u64()?;
        let checksum: [u8; 32] = head.array()?;
        if length > MAX_BODY_BYTES {
            return Err(head.invalid("a length beyond what a manifest can have"));
        }
        let packed = head.bytes(head.remaining())?;
        let body = unpack(packed, length)
            .ok_or(DecodeError::Invalid { what: "a frame that does not decompress", at: HEAD_BYTES })?;
        if blake3::derive_key(MANIFEST_CONTEXT, &body) != checksum {
            return Err(DecodeError::Invalid { what: "a checksum that does not match", at: HEAD_BYTES });
        }
        Self::decode_body(&body)
    }

    /// Reads a body after decompression.
    pub fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let facts = decode_facts(&mut reader)?;
        let root = TreeId::from_bytes(reader.array()?);
        let mut trees = TreeSet::default();
        let count = reader.u32()?;
        for _ in 0..count {
            trees.insert(Tree::decode(reader.long_bytes()?)?);
        }
        let mut files = 0_u64;
        let walked = trees.walk(root, |_, entry| {
            files += u64::from(matches!(entry.node, Node::File { size: 1.., .. }));
            Ok::<(), DecodeError>(())
        })?;
        if walked.is_err() || trees.reachable(root).len() as u64 != u64::from(count) {
            return Err(reader.invalid("trees that are missing or superfluous"));
        }
        if u64::from(reader.u32()?) != files {
            return Err(reader.invalid("another number of placements than of files"));
        }
        let mut placements = Vec::new();
        for _ in 0..files {
            placements.push(decode_placement(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { facts, root, trees, placements })
    }
}

/// Decompresses at most `length` bytes; `None` if the frame is damaged or holds another number of bytes.
fn unpack(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut body = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?.single_frame();
    decoder.take(length + 1).read_to_end(&mut body).ok()?;
    (body.len() as u64 == length).then_some(body)
}

fn decode_facts(reader: &mut Reader<'_>) -> Result<Facts, DecodeError> {
    let name = std::str::from_utf8(reader.short_bytes()?).ok().and_then(|name| name.parse().ok());
    let name: VersionName = name.ok_or_else(|| reader.invalid("a version name that is not allowed"))?;
    let (import_number, imported_at) = (reader.u64()?, reader.i64()?);
    let clock_synchronised = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(reader.invalid("neither true nor false")),
    };
    let note = reader.text()?;
    let mut labels = BTreeMap::new();
    for _ in 0..reader.u32()? {
        let key = reader.text()?;
        if labels.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(reader.invalid("labels out of order"));
        }
        labels.insert(key, reader.text()?);
    }
    let kind = SourceKind::ALL.get(usize::from(reader.u8()?)).copied();
    let kind = kind.ok_or_else(|| reader.invalid("an unknown kind of source"))?;
    let source = Source { kind, path: reader.long_bytes()?.to_vec() };
    let ownership = match (reader.u8()?, reader.u32()?, reader.u32()?) {
        (0, 0, 0) => Ownership::AsRecorded,
        (1, uid, gid) => Ownership::Squash { uid, gid },
        _ => return Err(reader.invalid("an unknown kind of ownership")),
    };
    let (shared, private_empty) = (decode_paths(reader)?, decode_paths(reader)?);
    Ok(Facts {
        name,
        import_number,
        imported_at,
        clock_synchronised,
        note,
        labels,
        source,
        ownership,
        shared,
        private_empty,
    })
}

fn decode_paths(reader: &mut Reader<'_>) -> Result<Vec<TreePath>, DecodeError> {
    let mut paths: Vec<TreePath> = Vec::new();
    for _ in 0..reader.u32()? {
        let bytes = reader.long_bytes()?;
        let path = TreePath::parse(bytes).ok().filter(|path| path.as_bytes() == bytes && !path.is_top());
        let path = path.ok_or_else(|| reader.invalid("a path that is not allowed"))?;
        if paths.last().is_some_and(|last| *last >= path) {
            return Err(reader.invalid("paths out of order"));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn decode_placement(reader: &mut Reader<'_>) -> Result<Placement, DecodeError> {
    let kind = match reader.u8()? {
        0 => PlacementKind::Object,
        1 => PlacementKind::PinnedMtime,
        2 => PlacementKind::Private,
        3 => PlacementKind::Shared,
        _ => return Err(reader.invalid("an unknown kind of placement")),
    };
    Ok(Placement { kind, mtime_seconds: reader.i64()?, mtime_nanoseconds: reader.u32()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContentId, EntryName, Metadata};

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
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let manifest = manifest();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
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
            assert!(Manifest::decode(&encoded[..at]).is_err(), "cut at {at}");
        }
    }
}
