//! What a file is besides its bytes: mode, owner, extended attributes; and the inode class made from them.
//!
//! Hardlinks share an inode, so they share all of this. Two files may share an inode only if their *class* is the
//! same, which is why an object's key is content **and** class.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use super::codec::{DecodeError, Reader, put_count, put_long_bytes, put_short_bytes};
use super::id::{ContentId, XattrDigest};

/// The context under which extended attributes are hashed; see `schema/FORMAT.md`.
pub const XATTR_CONTEXT: &str = "tope-store 2026-11 xattrs v1";

/// All mode bits that a file can have: permissions, set-id bits, sticky.
pub const MODE_MASK: u32 = 0o7777;
/// The bits that sealing takes away.
pub const WRITE_BITS: u32 = 0o222;

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
const USER_PREFIX: &[u8] = b"user.";

/// Extended attributes: sorted by name, names unique. Almost no file has any, so having none takes no more than a word:
/// the box is there only if something is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[allow(clippy::box_collection)]
pub struct Xattrs(Option<Box<Vec<Xattr>>>);

/// A name and its value.
type Xattr = (Box<[u8]>, Box<[u8]>);

impl Xattrs {
    /// None.
    pub const fn none() -> Self {
        Self(None)
    }

    fn new(list: Vec<Xattr>) -> Self {
        Self((!list.is_empty()).then(|| Box::new(list)))
    }

    fn list(&self) -> &[Xattr] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Whether an attribute of this name is part of a version: file capabilities, `user.*` and POSIX ACLs.
    pub fn is_recorded(name: &[u8]) -> bool {
        name.starts_with(USER_PREFIX) || matches!(name, CAPABILITY | ACL_ACCESS | ACL_DEFAULT)
    }

    /// Sorts and takes attributes; of two with one name the later stays. Others than [recorded](Self::is_recorded)
    /// ones are dropped.
    pub fn collect(attributes: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let sorted: std::collections::BTreeMap<Box<[u8]>, Box<[u8]>> = attributes
            .into_iter()
            .filter(|(name, _)| Self::is_recorded(name))
            .map(|(name, value)| (name.into_boxed_slice(), value.into_boxed_slice()))
            .collect();
        Self::new(sorted.into_iter().collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The attributes in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list().iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether a file capability is among them.
    pub fn has_capability(&self) -> bool {
        self.iter().any(|(name, _)| name == CAPABILITY)
    }

    /// The digest that stands for them in an object's name.
    pub fn digest(&self) -> XattrDigest {
        let mut encoded = Vec::new();
        self.encode(&mut encoded);
        XattrDigest::from_bytes(blake3::derive_key(XATTR_CONTEXT, &encoded))
    }

    /// As they are on a sealed inode: no entry of an access list may write.
    #[must_use]
    fn sealed(&self) -> Self {
        let seal = |(name, value): &Xattr| {
            let value = if **name == *ACL_ACCESS { seal_acl(value) } else { value.clone() };
            (name.clone(), value)
        };
        Self::new(self.list().iter().map(seal).collect())
    }

    /// Those that an ordinary user may set: `user.*` only.
    #[must_use]
    fn squashed(&self) -> Self {
        Self::new(self.list().iter().filter(|(name, _)| name.starts_with(USER_PREFIX)).cloned().collect())
    }

    /// The canonical encoding, as `schema/FORMAT.md` gives it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.list().len());
        for (name, value) in self.iter() {
            put_short_bytes(out, name);
            put_long_bytes(out, value);
        }
    }

    /// Reads a canonical encoding.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut list: Vec<Xattr> = Vec::new();
        for _ in 0..reader.u32()? {
            let name: Box<[u8]> = reader.short_bytes()?.into();
            if !Self::is_recorded(&name) || list.last().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.invalid("extended attributes out of order or of an unknown kind"));
            }
            list.push((name, reader.long_bytes()?.into()));
        }
        Ok(Self::new(list))
    }
}

/// Clears the write bit of every entry of a POSIX ACL in its on-disk form (`acl(5)`, linux/posix_acl_xattr.h: a
/// 32-bit version, then entries of tag, permissions, id). A value of another form is left as it is.
fn seal_acl(value: &[u8]) -> Box<[u8]> {
    let mut sealed: Box<[u8]> = value.into();
    if let Some(entries) = sealed.get_mut(4..) {
        for entry in entries.chunks_exact_mut(8) {
            entry[2] &= !2;
        }
    }
    sealed
}

/// Mode, owner and extended attributes as recorded in a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Metadata {
    /// Permission, set-id and sticky bits; 0o777 for symbolic links.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Recorded extended attributes.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Without extended attributes; bits of `mode` beyond [`MODE_MASK`] are dropped.
    pub fn new(mode: u32, uid: u32, gid: u32) -> Self {
        Self { mode: mode & MODE_MASK, uid, gid, xattrs: Xattrs::none() }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        self.xattrs.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (mode, uid, gid) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if mode & !MODE_MASK != 0 {
            return Err(reader.invalid("a mode with unknown bits"));
        }
        Ok(Self { mode, uid, gid, xattrs: Xattrs::decode(reader)? })
    }
}

/// How a store applies recorded owners: as they are, or (a store of an ordinary user) all as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ownership {
    /// Mode, owner and attributes are applied as recorded.
    AsRecorded,
    /// Everything belongs to this user and group; set-id bits and privileged attributes are recorded, not applied.
    Squash {
        /// The store's user.
        uid: u32,
        /// The store's group.
        gid: u32,
    },
}

impl Ownership {
    /// What an inode of this store shows for recorded metadata, before sealing.
    #[must_use]
    pub fn apply(self, recorded: &Metadata) -> Metadata {
        match self {
            Self::AsRecorded => recorded.clone(),
            Self::Squash { uid, gid } => {
                // A set-id bit on a file that changed hands would grant another user's rights than the one meant.
                let same_owner = (recorded.uid, recorded.gid) == (uid, gid);
                let mode = if same_owner { recorded.mode } else { recorded.mode & !0o6000 };
                Metadata { mode, uid, gid, xattrs: recorded.xattrs.squashed() }
            }
        }
    }
}

/// Everything that hardlinks share besides content: what an object's inode looks like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeClass {
    /// Mode without write bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Digest of the attributes as they stand on the inode, if there are any.
    pub xattrs: Option<Box<XattrDigest>>,
    /// Modification time in seconds, where it is part of the identity (Python sources with a timestamp `.pyc`).
    pub mtime: Option<i64>,
}

/// The metadata of a sealed inode and the class it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What the inode gets.
    pub metadata: Metadata,
    /// Its class.
    pub class: InodeClass,
}

impl Sealed {
    /// Seals applied metadata: write bits go, everything else stays.
    pub fn of(applied: &Metadata, mtime: Option<i64>) -> Self {
        let xattrs = applied.xattrs.sealed();
        let mode = applied.mode & !WRITE_BITS;
        let class = InodeClass {
            mode,
            uid: applied.uid,
            gid: applied.gid,
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs.digest())),
            mtime,
        };
        Self { metadata: Metadata { mode, uid: applied.uid, gid: applied.gid, xattrs }, class }
    }
}

/// An object's key: content and inode class. Its text is the object's name on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The bytes.
    pub content: ContentId,
    /// The inode.
    pub class: InodeClass,
}

/// Hashes object keys for maps in memory: their contents are hashes already, so a few bytes of each part do.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let taken = bytes.len().min(8);
        word[..taken].copy_from_slice(&bytes[..taken]);
        self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

impl ObjectKey {
    /// Name of the directory under `objects/`: the first two hexadecimal digits.
    pub fn directory(&self) -> String {
        self.path()[..2].to_owned()
    }

    /// Name of the file in that directory.
    pub fn file_name(&self) -> String {
        self.path().split_off(3)
    }

    /// Path below `objects/`: directory, slash, file name. Asked for once or twice per file of every import, so it
    /// allocates once.
    pub fn path(&self) -> String {
        use fmt::Write;
        let InodeClass { mode, uid, gid, xattrs, mtime } = &self.class;
        let hex = blake3::Hash::from_bytes(*self.content.as_bytes()).to_hex();
        let mut path = String::with_capacity(96);
        path.push_str(&hex[..2]);
        path.push('/');
        path.push_str(&hex[2..]);
        let written = write!(path, ".{mode:04o}.{uid}.{gid}")
            .and_then(|()| xattrs.as_ref().map_or(Ok(()), |digest| write!(path, ".{digest}")))
            .and_then(|()| mtime.map_or(Ok(()), |mtime| write!(path, ".m{mtime}")));
        written.expect("writing to a string does not fail");
        path
    }

    /// Reads directory and file name; `None` for anything that [`ObjectKey::file_name`] does not write: one key has one
    /// spelling, so signs, leading zeros and swapped parts make no names of objects.
    pub fn parse(directory: &[u8], file_name: &[u8]) -> Option<Self> {
        let (digits, class) = file_name.split_at_checked(62)?;
        let mut hex = [0; 64];
        hex[..2].copy_from_slice(directory.get(..2).filter(|two| *two == directory)?);
        hex[2..].copy_from_slice(digits);
        let content = ContentId::from_hex(hex)?;
        let mut parts = class.strip_prefix(b".")?.split(|byte| *byte == b'.');
        let mode = octal_mode(parts.next()?)?;
        let (uid, gid) = (decimal(parts.next()?)?, decimal(parts.next()?)?);
        let (mut xattrs, mut mtime) = (None, None);
        for part in parts {
            match part.strip_prefix(b"m") {
                Some(seconds) if mtime.is_none() => mtime = Some(decimal(seconds)?),
                None if xattrs.is_none() && mtime.is_none() => xattrs = Some(Box::new(XattrDigest::from_hex(part)?)),
                _ => return None,
            }
        }
        Some(Self { content, class: InodeClass { mode, uid, gid, xattrs, mtime } })
    }
}

/// Reads a mode as keys spell it: four octal digits at least.
fn octal_mode(digits: &[u8]) -> Option<u32> {
    let canonical = digits.len() == 4 || (digits.len() > 4 && digits[0] != b'0');
    let octal = digits.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    let text = std::str::from_utf8(digits).ok()?;
    (canonical && octal).then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

/// Reads a number as keys spell it: no plus sign, no leading zeros.
fn decimal<T: FromStr>(digits: &[u8]) -> Option<T> {
    let bare = digits.strip_prefix(b"-").unwrap_or(digits);
    let canonical = bare.first().is_some_and(|first| matches!(first, b'1'..=b'9')) || digits == b"0";
    let text = std::str::from_utf8(digits).ok()?;
    canonical.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(xattrs: Xattrs, mtime: Option<i64>) -> ObjectKey {
        let metadata = Metadata { xattrs, ..Metadata::new(0o100_644, 0, 12) };
        ObjectKey { content: ContentId::of(b"x"), class: Sealed::of(&metadata, mtime).class }
    }

    #[test]
    fn object_names_read_back_and_have_one_spelling() {
        let xattrs = Xattrs::collect([(b"user.a".to_vec(), b"1".to_vec())]);
        for key in
            [key(Xattrs::none(), None), key(xattrs.clone(), None), key(xattrs, Some(-5)), key(Xattrs::none(), Some(7))]
        {
            let (directory, name) = (key.directory(), key.file_name());
            assert_eq!(ObjectKey::parse(directory.as_bytes(), name.as_bytes()), Some(key), "{name}");
            for wrong in
                [format!("{name}."), format!("{name}.m+1"), name.replace(".0444", ".444"), name[1..].to_owned()]
            {
                assert_eq!(ObjectKey::parse(directory.as_bytes(), wrong.as_bytes()), None, "{wrong}");
            }
        }
        assert!(key(Xattrs::none(), None).file_name().ends_with(".0444.0.12"));
    }

    #[test]
    fn sealing_takes_write_bits_and_nothing_else() {
        let sealed = Sealed::of(&Metadata::new(0o6755, 1, 2), None);
        assert_eq!(sealed.metadata, Metadata::new(0o6555, 1, 2));
    }

    #[test]
    fn sealing_an_access_list_takes_its_write_bits() {
        // version 2; user:: rwx; user:1000 rw-; mask rwx
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [(1_u16, 7_u16, u32::MAX), (2, 6, 1000), (0x10, 7, u32::MAX)] {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&permissions.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        let xattrs = Xattrs::collect([(ACL_ACCESS.to_vec(), acl)]).sealed();
        let (_, value) = xattrs.iter().next().unwrap();
        let permissions: Vec<u8> = value[4..].chunks(8).map(|entry| entry[2]).collect();
        assert_eq!(permissions, [5, 4, 5]);
    }

    #[test]
    fn a_squashed_set_id_bit_is_not_applied_for_another_owner() {
        let squash = Ownership::Squash { uid: 1000, gid: 1000 };
        assert_eq!(squash.apply(&Metadata::new(0o4755, 0, 0)), Metadata::new(0o755, 1000, 1000));
        assert_eq!(squash.apply(&Metadata::new(0o4755, 1000, 1000)), Metadata::new(0o4755, 1000, 1000));
    }
}
