//! The stat cache: contents of source files by what their inode said when they were read.
//!
//! Files come in the order of their inodes, and neighbours come and go together; so the files of a block of inode
//! numbers are one row. That is a twentieth of the work of a row for each, while the rest of an import waits.
//!
//! Only a cache: it is lost with a rebuild, and whether an entry may be believed (a file that changed within the
//! granularity of its clock; git's "racy" rule) is for those who ask. Bounded by [`Writer::trim_cached_contents`].

use std::collections::BTreeMap;

use rusqlite::CachedStatement;

use super::failure::failed;
use super::versions::nanoseconds;
use super::{Reader, Writer, number, optional, unsigned};
use crate::error::Result;
use crate::fsys::Stat;
use crate::model::ContentId;

const GET: &str = "SELECT generation, files FROM stat_cache WHERE filesystem = ?1 AND block = ?2";
const PUT: &str = "INSERT INTO stat_cache (filesystem, block, generation, files) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (filesystem, block) DO UPDATE SET generation = excluded.generation, files = excluded.files";
const GENERATIONS: &str = "SELECT generation, length(files) FROM stat_cache";
const TRIM: &str = "DELETE FROM stat_cache WHERE generation <= ?1";

/// Inode numbers of one row: as many as a page of the file has room for.
const BLOCK_INODES: u64 = 64;
/// Bytes of an encoded key, and of a file: its key and its content.
const KEY_BYTES: usize = 1 + 3 * 8;
pub(super) const FILE_BYTES: usize = KEY_BYTES + 32;

/// What a source file's inode said: all of it must be the same for its content to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatKey {
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the contents in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode in nanoseconds since 1970, which the kernel sets.
    pub ctime_ns: i64,
}

impl From<&Stat> for StatKey {
    fn from(stat: &Stat) -> Self {
        Self {
            inode: stat.inode,
            size: stat.size,
            mtime_ns: nanoseconds(stat.mtime),
            ctime_ns: nanoseconds(stat.ctime),
        }
    }
}

impl StatKey {
    fn block(&self) -> u64 {
        self.inode / BLOCK_INODES
    }

    /// As it stands within its block.
    fn encode(&self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[0] = (self.inode % BLOCK_INODES) as u8;
        bytes[1..9].copy_from_slice(&self.size.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.mtime_ns.to_le_bytes());
        bytes[17..].copy_from_slice(&self.ctime_ns.to_le_bytes());
        bytes
    }
}

/// What is remembered of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedContent {
    /// Its bytes.
    pub content: ContentId,
    /// The generation under which it, or a neighbour, was last put. One that is about to be trimmed is put again.
    pub generation: u64,
}

/// Files of one block, in the order of their inodes. Bytes that make no sense are of no file that anybody asks for.
#[derive(Default)]
struct Block {
    generation: u64,
    files: Vec<u8>,
}

impl Block {
    fn get(statement: &mut CachedStatement<'_>, filesystem: &[u8], block: u64) -> rusqlite::Result<Option<Self>> {
        optional(statement.query_row((filesystem, number(block)?), |row| {
            Ok(Self { generation: unsigned(row, 0)?, files: row.get(1)? })
        }))
    }

    fn files(&self) -> &[[u8; FILE_BYTES]] {
        self.files.as_chunks().0
    }

    fn find(&self, key: &StatKey) -> Option<CachedContent> {
        let encoded = key.encode();
        let at = self.files().binary_search_by_key(&encoded[0], |file| file[0]).ok()?;
        let (known, content) = self.files()[at].split_first_chunk()?;
        let content = ContentId::from_bytes(content.try_into().ok()?);
        (*known == encoded).then_some(CachedContent { content, generation: self.generation })
    }

    /// What was known of the inodes of these files is replaced.
    fn put(&mut self, generation: u64, files: &[(StatKey, ContentId)]) {
        let mut merged: BTreeMap<u8, [u8; FILE_BYTES]> = self.files().iter().map(|file| (file[0], *file)).collect();
        for (key, content) in files {
            let mut file = [0; FILE_BYTES];
            file[..KEY_BYTES].copy_from_slice(&key.encode());
            file[KEY_BYTES..].copy_from_slice(content.as_bytes());
            merged.insert(file[0], file);
        }
        *self = Self { generation, files: merged.into_values().flatten().collect() };
    }
}

impl Reader<'_> {
    /// What is remembered of files on one file system, in the order of the keys. Sorted keys are answered fastest.
    pub fn cached_contents(&self, filesystem: &[u8], keys: &[StatKey]) -> Result<Vec<Option<CachedContent>>> {
        let read = || {
            let mut statement = self.transaction.prepare_cached(GET)?;
            let mut found = Vec::with_capacity(keys.len());
            for keys in keys.chunk_by(|one, next| one.block() == next.block()) {
                let block = Block::get(&mut statement, filesystem, keys[0].block())?;
                found.extend(keys.iter().map(|key| block.as_ref().and_then(|block| block.find(key))));
            }
            Ok(found)
        };
        read().map_err(failed("look up source files"))
    }
}

impl Writer<'_> {
    /// Remembers files of one file system; what was known of their inodes is replaced. The generation is the number
    /// of the import that saw them.
    pub fn cache_contents(
        &mut self,
        filesystem: &[u8],
        generation: u64,
        files: &mut [(StatKey, ContentId)],
    ) -> Result<()> {
        files.sort_unstable_by_key(|(key, _)| key.inode);
        let write = || {
            let mut get = self.transaction.prepare_cached(GET)?;
            let mut put = self.transaction.prepare_cached(PUT)?;
            for files in files.chunk_by(|(one, _), (next, _)| one.block() == next.block()) {
                let number_of_block = files[0].0.block();
                let mut block = Block::get(&mut get, filesystem, number_of_block)?.unwrap_or_default();
                block.put(generation, files);
                put.execute((filesystem, number(number_of_block)?, number(block.generation)?, block.files))?;
            }
            Ok(())
        };
        write().map_err(failed("remember source files"))
    }

    /// Forgets the oldest generations until at most `keep` files are remembered; tells how many went. A generation
    /// goes as a whole, so one that is bigger than `keep` goes too.
    pub fn trim_cached_contents(&mut self, keep: u64) -> Result<u64> {
        let trim = || {
            let mut generations: BTreeMap<i64, u64> = BTreeMap::new();
            let mut statement = self.transaction.prepare_cached(GENERATIONS)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                *generations.entry(row.get(0)?).or_default() += unsigned(row, 1)? / FILE_BYTES as u64;
            }
            let mut kept = 0;
            let oldest = generations.iter().rev().find(|(_, files)| {
                kept += **files;
                kept > keep
            });
            let Some((oldest, _)) = oldest else { return Ok(0) };
            self.transaction.prepare_cached(TRIM)?.execute([oldest])?;
            Ok(generations.range(..=oldest).map(|(_, files)| files).sum())
        };
        trim().map_err(failed("forget source files"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Index;
    use super::*;

    fn key(inode: u64) -> StatKey {
        StatKey { inode, size: 5, mtime_ns: -1, ctime_ns: 9 }
    }

    fn content(byte: u8) -> ContentId {
        ContentId::from_bytes([byte; 32])
    }

    #[test]
    fn only_an_inode_that_says_the_same_is_known() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        let mut files = [(key(u64::MAX), content(1)), (key(3), content(2))];
        writer.cache_contents(b"fs", 4, &mut files).unwrap();
        let asked = [
            key(u64::MAX),
            key(4),
            key(3),
            StatKey { size: 6, ..key(3) },
            StatKey { mtime_ns: 0, ..key(3) },
            StatKey { ctime_ns: 0, ..key(3) },
        ];
        let known = |byte| Some(CachedContent { content: content(byte), generation: 4 });
        let expected = [known(1), None, known(2), None, None, None];
        assert_eq!(writer.cached_contents(b"fs", &asked).unwrap(), expected);
        assert_eq!(writer.cached_contents(b"other", &asked).unwrap(), [None; 6]);
        // The inode was given to another file: what was known of it goes.
        writer.cache_contents(b"fs", 5, &mut [(StatKey { ctime_ns: 10, ..key(3) }, content(3))]).unwrap();
        assert_eq!(writer.cached_contents(b"fs", &[key(3)]).unwrap(), [None]);
        assert_eq!(writer.totals().unwrap().cached_files, 2);
    }

    #[test]
    fn the_oldest_generations_go_first() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        // Each in a block of its own.
        let apart = |number: u64| key(number * BLOCK_INODES + number);
        for (generation, numbers) in [(1, 0..4), (2, 4..7), (3, 7..10)] {
            let mut files: Vec<_> = numbers.map(|number| (apart(number), content(0))).collect();
            writer.cache_contents(b"fs", generation, &mut files).unwrap();
        }
        writer.cache_contents(b"fs", 3, &mut [(apart(0), content(0))]).unwrap();
        assert_eq!(writer.trim_cached_contents(10).unwrap(), 0);
        assert_eq!(writer.trim_cached_contents(7).unwrap(), 3);
        assert_eq!(writer.trim_cached_contents(5).unwrap(), 3);
        let kept = writer.cached_contents(b"fs", &(0..10).map(apart).collect::<Vec<_>>()).unwrap();
        let kept: Vec<usize> = (0..10).filter(|at| kept[*at].is_some()).collect();
        assert_eq!(kept, [0, 7, 8, 9]);
        assert_eq!(writer.totals().unwrap().cached_files, 4);
    }

    #[test]
    fn a_file_keeps_what_is_known_of_its_neighbours() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        let mut files: Vec<_> = (0..2 * BLOCK_INODES).map(|inode| (key(inode), content(inode as u8))).collect();
        writer.cache_contents(b"fs", 1, &mut files).unwrap();
        writer.cache_contents(b"fs", 2, &mut [(StatKey { size: 9, ..key(7) }, content(200))]).unwrap();
        let known = writer.cached_contents(b"fs", &files.iter().map(|(key, _)| *key).collect::<Vec<_>>()).unwrap();
        for (inode, known) in (0..).zip(known) {
            let generation = if inode < BLOCK_INODES { 2 } else { 1 };
            let expected = (inode != 7).then_some(CachedContent { content: content(inode as u8), generation });
            assert_eq!(known, expected, "{inode}");
        }
    }

    #[test]
    fn bytes_that_make_no_sense_are_nothing_known_and_are_written_over() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        writer.cache_contents(b"fs", 1, &mut [(key(1), content(1)), (key(2), content(2))]).unwrap();
        for damage in ["x''", "x'01'", "substr(files, 2)", "randomblob(570)"] {
            writer.transaction.execute_batch(&format!("UPDATE stat_cache SET files = {damage}")).unwrap();
            assert_eq!(writer.cached_contents(b"fs", &[key(1), key(2)]).unwrap(), [None; 2], "{damage}");
            writer.cache_contents(b"fs", 1, &mut [(key(1), content(1)), (key(2), content(2))]).unwrap();
            let known = writer.cached_contents(b"fs", &[key(1), key(2)]).unwrap();
            assert!(known.iter().all(Option::is_some), "{damage}");
            writer.transaction.execute_batch("DELETE FROM stat_cache").unwrap();
            writer.cache_contents(b"fs", 1, &mut [(key(1), content(1)), (key(2), content(2))]).unwrap();
        }
    }

    #[test]
    fn very_many_keys_are_answered_as_each_by_itself() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        let mut files: Vec<_> = (0..20_000).step_by(3).map(|inode| (key(inode), content(inode as u8))).collect();
        writer.cache_contents(b"fs", 1, &mut files).unwrap();
        // Every third is there, every second of those is another size now, and every fifth key is asked for twice.
        let mut keys: Vec<StatKey> = (1..20_100).step_by(2).map(key).collect();
        keys.iter_mut().step_by(4).for_each(|key| key.size += 1);
        keys.extend(keys.clone().iter().step_by(5));
        keys.sort_unstable();
        let all = writer.cached_contents(b"fs", &keys).unwrap();
        let each: Vec<_> = keys.iter().map(|key| writer.cached_contents(b"fs", &[*key]).unwrap()[0]).collect();
        assert_eq!(all, each);
        assert_eq!(all.iter().flatten().count(), 3_000);
    }
}
