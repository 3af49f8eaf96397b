//! Python sources that come with a compiled file.
//!
//! A timestamp-based `.pyc` is valid only while its source keeps the modification time and size that are written in
//! its head (PEP 552: magic, flags 0, time, size, each 32 bits little-endian). Sharing the source's inode with an
//! older release would change its time and make Python compile again at every start. Such a source gets an inode
//! class of its own, with the time in its key.

use std::collections::HashMap;

use crate::fsys::Dir;
use crate::hash;
use crate::model::EntryName;

/// What to do with sources of timestamp-based compiled files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PycPolicy {
    /// Keep the time that the compiled file names; costs an inode per changed time.
    #[default]
    Pin,
    /// Share them as any other file; Python compiles again.
    Share,
}

/// Length of a compiled file's head.
pub(super) const HEAD_BYTES: usize = 16;
/// Where compiled files lie, beside their sources.
pub(super) const CACHE_DIRECTORY: &[u8] = b"__pycache__";

/// Time and size of the source as a timestamp-based compiled file names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PycHead {
    pub(super) mtime: u32,
    pub(super) size: u32,
}

impl PycHead {
    /// Reads a head; `None` for hash-based compiled files and for what is none.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let word = |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        // Every magic number since Python 1.4 ends with these two bytes.
        (head.get(2..4)? == b"\r\n" && word(4)? == 0).then_some(Self { mtime: word(8)?, size: word(12)? })
    }

    /// Whether the compiled file is valid for a source of this time and size.
    pub(super) fn fits(self, mtime_seconds: i64, size: u64) -> bool {
        // Python compares the low 32 bits of both.
        mtime_seconds & 0xffff_ffff == i64::from(self.mtime) && size & 0xffff_ffff == u64::from(self.size)
    }
}

/// Name of the source that a compiled file in `__pycache__` belongs to: `x.cpython-311.opt-1.pyc` -> `x.py`.
pub(super) fn source_of(compiled: &[u8]) -> Option<Vec<u8>> {
    let stem = compiled.strip_suffix(b".pyc")?;
    let stem = stem.strip_suffix(b".opt-1").or_else(|| stem.strip_suffix(b".opt-2")).unwrap_or(stem);
    let dot = stem.iter().rposition(|byte| *byte == b'.')?;
    (dot > 0).then(|| [&stem[..dot], b".py"].concat())
}

/// The heads of all timestamp-based compiled files in a `__pycache__`, by the name of the source. Files that cannot
/// be read are passed over here: importing them will tell.
pub(super) fn heads<'n>(cache: &Dir, names: impl Iterator<Item = &'n EntryName>) -> HashMap<Vec<u8>, Vec<PycHead>> {
    let mut heads: HashMap<Vec<u8>, Vec<PycHead>> = HashMap::new();
    let mut buffer = Vec::new();
    for name in names {
        let Some(source) = source_of(name.as_bytes()) else { continue };
        let Ok(file) = cache.open_file(name) else { continue };
        if hash::read_whole(std::io::Read::take(&file, HEAD_BYTES as u64), HEAD_BYTES as u64, &mut buffer).is_ok()
            && let Some(head) = PycHead::parse(&buffer)
        {
            heads.entry(source).or_default().push(head);
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_timestamp_based_heads_count() {
        let head = |flags: u8| {
            [&[0xa7, 0x0d, 0x0d, 0x0a, flags, 0, 0, 0][..], &7_u32.to_le_bytes(), &9_u32.to_le_bytes()].concat()
        };
        assert_eq!(
            PycHead::parse(&[&head(0)[..2], b"\r\n", &head(0)[4..]].concat()),
            Some(PycHead { mtime: 7, size: 9 })
        );
        assert_eq!(PycHead::parse(&[&head(3)[..2], b"\r\n", &head(3)[4..]].concat()), None);
        assert_eq!(PycHead::parse(b"short"), None);
        assert!(PycHead { mtime: 7, size: 9 }.fits((1 << 32) + 7, 9));
        assert!(!PycHead { mtime: 7, size: 9 }.fits(8, 9));
    }

    #[test]
    fn compiled_names_lead_to_their_sources() {
        assert_eq!(source_of(b"a.b.cpython-311.pyc").unwrap(), b"a.b.py");
        assert_eq!(source_of(b"x.cpython-311.opt-2.pyc").unwrap(), b"x.py");
        assert_eq!(source_of(b"x.py"), None);
        assert_eq!(source_of(b"x.pyc"), None);
    }
}
