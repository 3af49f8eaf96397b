//! Reading a manifest: whole, or step by step.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use super::{
    Extensions, Facts, MANIFEST_CONTEXT, MANIFEST_FORMAT, MANIFEST_HEAD_BYTES, MANIFEST_MAGIC, MAX_BODY_BYTES,
    MAX_ENTRIES, MAX_RATIO, MAX_WINDOW_LOG, MODEST_BODY_BYTES, Manifest, Placement, PlacementKind, Source, SourceKind,
    key_of,
};
use crate::model::anchor::Anchor;
use crate::model::codec::{DecodeError, Reader};
use crate::model::id::{ContentId, TreeId};
use crate::model::label;
use crate::model::metadata::{KeyHasher, ObjectKey, Ownership};
use crate::model::name::{TreePath, VersionName};
use crate::model::tree::{Entries, Entry, Node, Tally, TreeSet, tree_id};

const MISPLACED_TREES: &str = "trees that are missing, superfluous or out of order";
const TOO_MANY_ENTRIES: &str = "more entries than a version can have";
const MISCOUNTED_FILES: &str = "another number of placements than of files";

impl Manifest {
    /// Reads a manifest file.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that [`Manifest::encode`] would not write.
    pub fn decode(file: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_body(&body_of(file)?)
    }

    /// Reads a body after decompression.
    pub fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let facts = decode_facts(&mut reader)?;
        let root = TreeId::from_bytes(reader.array()?);
        let mut trees = TreeSet::default();
        let mut order = Vec::new();
        for _ in 0..reader.u32()? {
            order.push(trees.insert_encoded(reader.long_bytes()?)?);
        }
        let tally = trees.tally(root).filter(|_| trees.reachable(root) == order);
        let Tally { entries, files } = tally.ok_or_else(|| reader.invalid(MISPLACED_TREES))?;
        if entries > MAX_ENTRIES {
            return Err(reader.invalid(TOO_MANY_ENTRIES));
        }
        if u64::from(reader.u32()?) != files {
            return Err(reader.invalid(MISCOUNTED_FILES));
        }
        let mut placements = Vec::new();
        for _ in 0..files {
            placements.push(decode_placement(&mut reader)?);
        }
        let extensions = Extensions::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self { facts, root, trees, placements, extensions })
    }
}

/// A non-empty regular file as a walk meets it.
#[derive(Debug, Clone, Copy)]
pub struct FileMet<'a> {
    /// Its name and metadata.
    pub entry: &'a Entry,
    /// Its bytes.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// How it stands in the tree.
    pub placement: Placement,
    ownership: Ownership,
}

impl FileMet<'_> {
    /// The key of its object.
    pub fn key(&self) -> ObjectKey {
        key_of(self.content, &self.entry.metadata, self.ownership, self.placement)
    }
}

/// A step of a walk through a manifest.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A directory begins, the top first, which no entry stands for.
    Enter(&'a TreeId, Option<&'a Entry>),
    /// A file of the directory that began last and did not end.
    File(FileMet<'a>),
    /// An empty file or a symbolic link of that directory.
    Other(&'a Entry),
    /// That directory ends.
    Leave,
}

/// Walks through the body of a manifest, entries by their names, directories where they stand; gives the version's facts
/// and its root tree. Takes no memory to speak of.
///
/// # Errors
///
/// As [`Manifest::decode`]. Then what was told proves nothing.
pub fn walk_body(body: &[u8], mut tell: impl FnMut(&Facts, Step<'_>)) -> Result<(Facts, TreeId), DecodeError> {
    let mut reader = Reader::new(body);
    let facts = decode_facts(&mut reader)?;
    let root = TreeId::from_bytes(reader.array()?);
    let misplaced = DecodeError::Invalid { what: MISPLACED_TREES, at: body.len() };
    let mut trees: HashMap<_, _, BuildHasherDefault<KeyHasher>> = HashMap::default();
    for number in 0..reader.u32()? {
        let encoding = reader.long_bytes()?;
        if trees.insert(tree_id(encoding), (encoding, number)).is_some() {
            return Err(misplaced);
        }
    }
    let files = reader.u32()?;
    let mut met = 0;
    let mut enter = |tree: &TreeId| {
        let (encoding, number) = *trees.get(tree).ok_or(misplaced.clone())?;
        // Each stands where the walk first meets it.
        match number.cmp(&met) {
            Ordering::Less => {}
            Ordering::Equal => met += 1,
            Ordering::Greater => return Err(misplaced.clone()),
        }
        Entries::of(encoding)
    };
    let mut stack = vec![enter(&root)?];
    tell(&facts, Step::Enter(&root, None));
    let (mut told, mut entries) = (0, 0);
    while let Some(level) = stack.last_mut() {
        let Some(entry) = level.next_entry()? else {
            stack.pop();
            tell(&facts, Step::Leave);
            continue;
        };
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(reader.invalid(TOO_MANY_ENTRIES));
        }
        match entry.node {
            Node::Directory { tree } => {
                stack.push(enter(&tree)?);
                tell(&facts, Step::Enter(&tree, Some(&entry)));
            }
            Node::File { content, size: size @ 1.. } if told < files => {
                let placement = decode_placement(&mut reader)?;
                let (entry, ownership) = (&entry, facts.ownership);
                tell(&facts, Step::File(FileMet { entry, content, size, placement, ownership }));
                told += 1;
            }
            Node::File { size: 1.., .. } => return Err(reader.invalid(MISCOUNTED_FILES)),
            Node::File { .. } | Node::Symlink { .. } => tell(&facts, Step::Other(&entry)),
        }
    }
    if trees.len() as u64 != u64::from(met) {
        return Err(misplaced);
    }
    if told != files {
        return Err(reader.invalid(MISCOUNTED_FILES));
    }
    Extensions::decode(&mut reader)?;
    reader.finish()?;
    Ok((facts, root))
}

/// The checksum in the head of a manifest file, in hexadecimal digits; only the file's beginning is needed. `None` if
/// it is no head.
pub fn checksum_of(file: &[u8]) -> Option<String> {
    let mut head = Reader::new(file);
    let known = head.bytes(8) == Ok(MANIFEST_MAGIC) && head.u32() == Ok(MANIFEST_FORMAT) && head.u64().is_ok();
    let checksum = head.array().ok().filter(|_| known)?;
    Some(blake3::Hash::from_bytes(checksum).to_hex().to_string())
}

/// The body of a manifest file, decompressed and compared with its checksum.
///
/// # Errors
///
/// [`DecodeError::Newer`] for another format, of which nothing but its number is read; another [`DecodeError`] for a
/// file that is damaged, cut or none.
pub fn body_of(file: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let Head { length, checksum, packed } = Head::of(file)?;
    let body = unpack(packed, length)
        .ok_or(DecodeError::Invalid { what: "a frame that does not decompress", at: MANIFEST_HEAD_BYTES })?;
    if blake3::derive_key(MANIFEST_CONTEXT, &body) != checksum {
        return Err(DecodeError::Invalid { what: "a checksum that does not match", at: MANIFEST_HEAD_BYTES });
    }
    Ok(body)
}

/// The length that a manifest file says its body has: what reading it takes at least.
///
/// # Errors
///
/// As [`body_of`], for the head; [`DecodeError::TooLarge`] for a length that no honest frame of this size has.
pub fn claimed_bytes(file: &[u8]) -> Result<u64, DecodeError> {
    Head::of(file).map(|head| head.length)
}

/// What stands before the body, and the frame that holds it.
struct Head<'a> {
    length: u64,
    checksum: [u8; 32],
    packed: &'a [u8],
}

impl<'a> Head<'a> {
    fn of(file: &'a [u8]) -> Result<Self, DecodeError> {
        let mut head = Reader::new(file);
        if head.bytes(8)? != MANIFEST_MAGIC {
            return Err(head.invalid("not a manifest: wrong first bytes"));
        }
        let format = head.u32()?;
        if format != MANIFEST_FORMAT {
            return Err(DecodeError::Newer { what: "manifest format", number: format.into() });
        }
        let length = head.u64()?;
        let checksum: [u8; 32] = head.array()?;
        let packed = head.bytes(head.remaining())?;
        let most = MAX_BODY_BYTES.min(MODEST_BODY_BYTES.max((packed.len() as u64).saturating_mul(MAX_RATIO)));
        if length > most {
            return Err(DecodeError::TooLarge { claimed: length, most, packed: packed.len() });
        }
        Ok(Self { length, checksum, packed })
    }
}

/// How much of a body's beginning is kept where only the facts are wanted.
const BEGINNING_BYTES: usize = 1 << 20;

/// Reads the facts and the id of the root tree from a manifest file, and holds no more of the body than its beginning.
///
/// The whole body is expanded and compared with its checksum, so that these are the facts that were written. The trees are
/// passed over: that they make sense is not shown.
///
/// # Errors
///
/// As [`Manifest::decode`], for what is read; [`DecodeError::Truncated`] also for facts that are longer than the
/// beginning.
pub fn facts_of(file: &[u8]) -> Result<(Facts, TreeId), DecodeError> {
    use std::io::Read;
    let Head { length, checksum, packed } = Head::of(file)?;
    let unreadable = || DecodeError::Invalid { what: "a frame that does not decompress", at: MANIFEST_HEAD_BYTES };
    let mut decoder = frame(packed).ok_or_else(unreadable)?;
    let mut hasher = blake3::Hasher::new_derive_key(MANIFEST_CONTEXT);
    let (mut beginning, mut buffer, mut total) = (Vec::new(), vec![0; 64 << 10], 0);
    loop {
        let read = decoder.read(&mut buffer).map_err(|_| unreadable())?;
        total += read as u64;
        if read == 0 || total > length {
            break;
        }
        hasher.update(&buffer[..read]);
        let kept = read.min(BEGINNING_BYTES - beginning.len());
        beginning.extend_from_slice(&buffer[..kept]);
    }
    if total != length || !decoder.finish().is_empty() {
        return Err(unreadable());
    }
    if *hasher.finalize().as_bytes() != checksum {
        return Err(DecodeError::Invalid { what: "a checksum that does not match", at: MANIFEST_HEAD_BYTES });
    }
    let mut reader = Reader::new(&beginning);
    let facts = decode_facts(&mut reader)?;
    Ok((facts, TreeId::from_bytes(reader.array()?)))
}

/// A decoder of one frame, whose window is bounded.
fn frame(packed: &[u8]) -> Option<zstd::stream::read::Decoder<'_, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG).ok()?;
    Some(decoder)
}

/// Decompresses at most `length` bytes; `None` if the frame is damaged, holds another number of bytes, or does not end
/// the file.
fn unpack(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    use std::io::Read;
    // No more than the frame can plausibly hold, whatever the head says.
    let plausible = packed.len().saturating_mul(16);
    let mut body = Vec::with_capacity(usize::try_from(length).map_or(plausible, |length| length.min(plausible)));
    let mut decoder = frame(packed)?;
    decoder.by_ref().take(length + 1).read_to_end(&mut body).ok()?;
    (body.len() as u64 == length && decoder.finish().is_empty()).then_some(body)
}

fn decode_facts(reader: &mut Reader<'_>) -> Result<Facts, DecodeError> {
    let bytes = reader.short_bytes()?;
    let name = std::str::from_utf8(bytes).ok().and_then(|name| name.parse().ok());
    // In full: where people may leave out the `v`, a manifest does not.
    let name = name.filter(|name: &VersionName| name.as_str().as_bytes() == bytes);
    let name = name.ok_or_else(|| reader.invalid("a version name that is not allowed"))?;
    Extensions::refuse_critical(reader)?;
    let import_number = reader.u64()?;
    let anchor = Anchor { number: reader.u64()?, chain: reader.array()? };
    let imported_at = reader.i64()?;
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
        let value = reader.text()?;
        label::check(&key, &value).map_err(|_| reader.invalid("a label that is not allowed"))?;
        labels.insert(key, value);
    }
    let kind = SourceKind::of_number(reader.u8()?);
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
        anchor,
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
