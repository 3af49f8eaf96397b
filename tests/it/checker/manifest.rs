//! Manifests: decoded, checksummed, and unfolded into the list of what a tree must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Seen;
use super::decode::{Cursor, Decoded, hex, keyed};

/// Mode, owner, extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Directory,
    Link(Vec<u8>),
    /// An empty file; whether a service writes it.
    Empty {
        private: bool,
    },
    File {
        content: [u8; 32],
        size: u64,
        placement: u8,
        mtime: (i64, u32),
    },
}

/// One path of a version.
#[derive(Debug, Clone)]
pub struct Item {
    /// As the store applies it, not sealed.
    pub metadata: Metadata,
    pub what: What,
}

/// A version as its manifest tells it.
#[derive(Debug)]
pub struct Manifest {
    pub digest: String,
    pub import_number: u64,
    /// The hash in its head.
    pub hash: String,
    /// Number and chain value of the history's last event at its publication.
    pub anchor: (u64, [u8; 32]),
    pub shared: BTreeSet<Vec<u8>>,
    /// By path; what lies below a shared path is there too, marked by its placement.
    pub items: BTreeMap<Vec<u8>, Item>,
    /// Data of newer builds, by tag.
    pub extensions: BTreeMap<u16, Vec<u8>>,
}

struct Entry {
    name: Vec<u8>,
    metadata: Metadata,
    node: Node,
}

enum Node {
    File([u8; 32], u64),
    Directory([u8; 32]),
    Link(Vec<u8>),
}

/// Reads all of them; a name that begins with a dot is a leftover.
pub fn read_all(store: &Path, seen: &mut Seen) -> BTreeMap<String, Manifest> {
    let mut manifests = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for name in super::names(&store.join("manifests"), seen) {
        if name.starts_with('.') {
            seen.left.push(format!("store/manifests/{name}"));
            continue;
        }
        let read = std::fs::read(store.join("manifests").join(&name)).map_err(|error| error.to_string());
        match read.and_then(|bytes| decode(&name, &bytes)) {
            Ok(manifest) => {
                if let Some(other) = numbers.insert(manifest.import_number, name.clone()) {
                    seen.wrong.push(format!("{name} and {other} have one import number"));
                }
                manifests.insert(name, manifest);
            }
            Err(problem) => seen.wrong.push(format!("store/manifests/{name}: {problem}")),
        }
    }
    manifests
}

/// Decodes one manifest.
pub fn decode(name: &str, bytes: &[u8]) -> Decoded<Manifest> {
    let mut head = Cursor(bytes);
    if head.bytes(8)? != b"tope-man" || head.u32()? != 1 {
        return Err("it is no manifest of format 1".into());
    }
    let (length, checksum) = (head.u64()?, head.hash()?);
    let capacity = usize::try_from(length).map_err(|error| error.to_string())?;
    let body = zstd::bulk::decompress(head.0, capacity).map_err(|error| error.to_string())?;
    if body.len() != capacity || keyed("manifest", &body) != checksum {
        return Err("its checksum is wrong".into());
    }
    Ok(Manifest { hash: hex(&checksum), ..decode_body(name, &body)? })
}

fn label(key: &[u8], value: &[u8]) -> Decoded<()> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
    let control = |c: char| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
    let value = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    match (1..=64).contains(&key.len()) && key.iter().all(allowed) && !value.contains(control) {
        true => Ok(()),
        false => Err(format!("it has the label {:?}, which is not allowed", String::from_utf8_lossy(key))),
    }
}

/// Decodes what a manifest holds behind its head.
pub fn decode_body(name: &str, body: &[u8]) -> Decoded<Manifest> {
    let mut cursor = Cursor(body);
    if cursor.short()? != name.as_bytes() {
        return Err("it is another version's".into());
    }
    if !cursor.list(Cursor::u16)?.is_empty() {
        return Err("it has a critical extension".into());
    }
    let import_number = cursor.u64()?;
    let anchor = (cursor.u64()?, cursor.hash()?);
    cursor.i64()?;
    cursor.u8()?;
    cursor.long()?;
    for (key, value) in cursor.list(|cursor| Ok((cursor.long()?, cursor.long()?)))? {
        label(&key, &value)?;
    }
    cursor.u8()?;
    cursor.long()?;
    let ownership = (cursor.u8()?, cursor.u32()?, cursor.u32()?);
    let shared: BTreeSet<Vec<u8>> = cursor.list(Cursor::long)?.into_iter().collect();
    let private: BTreeSet<Vec<u8>> = cursor.list(Cursor::long)?.into_iter().collect();
    let root = cursor.hash()?;
    let trees: BTreeMap<[u8; 32], Vec<Entry>> = cursor
        .list(Cursor::long)?
        .iter()
        .map(|tree| Ok((keyed("tree", tree), entries(tree)?)))
        .collect::<Decoded<_>>()?;
    let placements = cursor.list(|cursor| Ok((cursor.u8()?, (cursor.i64()?, cursor.u32()?))))?;
    let extensions = cursor.list(|cursor| Ok((cursor.u16()?, cursor.long()?)))?;
    if !extensions.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err("its extensions are not sorted".into());
    }
    cursor.end()?;
    let mut unfolding = Unfolding {
        trees: &trees,
        private: &private,
        ownership,
        placements: placements.into_iter(),
        items: BTreeMap::new(),
    };
    unfolding.directory(root, b"")?;
    if unfolding.placements.next().is_some() {
        return Err("it has more placements than files".into());
    }
    let items = unfolding.items;
    let extensions = extensions.into_iter().collect();
    Ok(Manifest {
        digest: format!("t1:{}", hex(&root)),
        import_number,
        hash: String::new(),
        anchor,
        shared,
        items,
        extensions,
    })
}

fn entries(tree: &[u8]) -> Decoded<Vec<Entry>> {
    let mut cursor = Cursor(tree);
    if cursor.u8()? != 1 {
        return Err("a tree of another encoding".into());
    }
    let entries = cursor.list(|cursor| {
        let (kind, name) = (cursor.u8()?, cursor.short()?);
        let (mode, uid, gid) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let xattrs = cursor.list(|cursor| Ok((cursor.short()?, cursor.long()?)))?;
        let node = match kind {
            1 => Node::File(cursor.hash()?, cursor.u64()?),
            2 => Node::Directory(cursor.hash()?),
            3 => Node::Link(cursor.short()?),
            other => return Err(format!("an entry of kind {other}")),
        };
        Ok(Entry { name, metadata: Metadata { mode, uid, gid, xattrs }, node })
    })?;
    cursor.end()?;
    if !entries.is_sorted_by(|one, next| one.name < next.name) {
        return Err("a tree whose entries are not sorted".into());
    }
    Ok(entries)
}

struct Unfolding<'a> {
    trees: &'a BTreeMap<[u8; 32], Vec<Entry>>,
    private: &'a BTreeSet<Vec<u8>>,
    ownership: (u8, u32, u32),
    placements: std::vec::IntoIter<(u8, (i64, u32))>,
    items: BTreeMap<Vec<u8>, Item>,
}

impl Unfolding<'_> {
    fn directory(&mut self, tree: [u8; 32], path: &[u8]) -> Decoded<()> {
        let trees = self.trees;
        for entry in trees.get(&tree).ok_or("a tree that it refers to is missing")? {
            let path = if path.is_empty() { entry.name.clone() } else { [path, b"/", &entry.name].concat() };
            let what = match &entry.node {
                Node::Directory(_) => What::Directory,
                Node::Link(target) => What::Link(target.clone()),
                Node::File(_, 0) => What::Empty { private: self.private.contains(&path) },
                Node::File(content, size) => {
                    let (placement, mtime) = self.placements.next().ok_or("it has fewer placements than files")?;
                    What::File { content: *content, size: *size, placement, mtime }
                }
            };
            self.items.insert(path.clone(), Item { metadata: self.applied(&entry.metadata), what });
            if let Node::Directory(tree) = entry.node {
                self.directory(tree, &path)?;
            }
        }
        Ok(())
    }

    fn applied(&self, recorded: &Metadata) -> Metadata {
        let (squashed, uid, gid) = self.ownership;
        if squashed == 0 {
            return recorded.clone();
        }
        let own = recorded.uid == uid && recorded.gid == gid;
        let mode = if own { recorded.mode } else { recorded.mode & !0o6000 };
        let xattrs = recorded.xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).cloned().collect();
        Metadata { mode, uid, gid, xattrs }
    }
}

impl Metadata {
    /// Without write bits, as an object has it.
    pub fn sealed(&self) -> Self {
        let seal = |(name, value): &(Vec<u8>, Vec<u8>)| {
            let mut value = value.clone();
            if name == b"system.posix_acl_access" {
                value.iter_mut().skip(4).skip(2).step_by(8).for_each(|permissions| *permissions &= !2);
            }
            (name.clone(), value)
        };
        Self { mode: self.mode & !0o222, xattrs: self.xattrs.iter().map(seal).collect(), ..self.clone() }
    }
}

impl Item {
    /// The path of its object in `objects/`, if it has one.
    pub fn object(&self) -> Option<String> {
        let What::File { content, placement, mtime, .. } = &self.what else { return None };
        let sealed = self.metadata.sealed();
        let content = hex(content);
        let mut name = format!("{}/{}.{:04o}.{}.{}", &content[..2], &content[2..], sealed.mode, sealed.uid, sealed.gid);
        if !sealed.xattrs.is_empty() {
            let count = u32::try_from(sealed.xattrs.len()).expect("few");
            let mut bytes = count.to_le_bytes().to_vec();
            for (name, value) in &sealed.xattrs {
                bytes.extend(u16::try_from(name.len()).expect("short").to_le_bytes());
                bytes.extend(name);
                bytes.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
                bytes.extend(value);
            }
            name = format!("{name}.{}", hex(&keyed("xattrs", &bytes)));
        }
        Some(if *placement == 1 { format!("{name}.m{}", mtime.0) } else { name })
    }
}
