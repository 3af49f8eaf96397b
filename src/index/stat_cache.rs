//! The stat cache: contents of source files by what their inode said when they were read.
//!
//! Only a cache: it is lost with a rebuild, and whether an entry may be believed (a file that changed within the
//! granularity of its clock; git's "racy" rule) is for those who ask. Bounded by [`Writer::trim_cached_contents`].

use std::collections::BTreeMap;

use super::failure::failed;
use super::versions::nanoseconds;
use super::{Reader, Writer, number, optional, unsigned};
use crate::error::Result;
use crate::fsys::Stat;
use crate::model::ContentId;

const GET: &str = "SELECT content, generation FROM stat_cache
    WHERE filesystem = ?1 AND inode = ?2 AND size = ?3 AND mtime_ns = ?4 AND ctime_ns = ?5";
const GET_RANGE: &str = "SELECT inode, size, mtime_ns, ctime_ns, content, generation FROM stat_cache
    WHERE filesystem = ?1 AND inode BETWEEN ?2 AND ?3 ORDER BY inode";
const PUT: &str = "INSERT OR REPLACE INTO stat_cache
    (filesystem, inode, size, mtime_ns, ctime_ns, content, generation) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const GENERATIONS: &str = "SELECT generation FROM stat_cache";
const TRIM: &str = "DELETE FROM stat_cache WHERE generation <= ?1";

/// From so many keys on it is faster to read the rows between the first and the last than to look each up.
const MANY_KEYS: usize = 8_000;

/// What a source file's inode said: all of it must be the same for its content to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatKey {
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the contents in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode in nanoseconds since 1970; nobody can set it back.
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

/// What is remembered of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedContent {
    /// Its bytes.
    pub content: ContentId,
    /// The generation it was last put under. One that is about to be trimmed is put again.
    pub generation: u64,
}

impl Reader<'_> {
    /// What is remembered of files on one file system, in the order of the keys. Sorted keys are answered fastest.
    pub fn cached_contents(&self, filesystem: &[u8], keys: &[StatKey]) -> Result<Vec<Option<CachedContent>>> {
        // Inode numbers are stored signed, so those beyond the half of the numbers come in another order.
        let ordered = keys.is_sorted_by_key(|key| key.inode) && keys.last().is_some_and(|key| key.inode >> 63 == 0);
        if keys.len() >= MANY_KEYS && ordered {
            return self.cached_range(filesystem, keys).map_err(failed("look up source files"));
        }
        let read = || {
            let mut statement = self.transaction.prepare_cached(GET)?;
            let get = |key: &StatKey| {
                let parameters = (filesystem, key.inode.cast_signed(), number(key.size)?, key.mtime_ns, key.ctime_ns);
                optional(statement.query_row(parameters, |row| {
                    Ok(CachedContent { content: ContentId::from_bytes(row.get(0)?), generation: unsigned(row, 1)? })
                }))
            };
            keys.iter().map(get).collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(failed("look up source files"))
    }

    /// The same for very many keys in order: one pass over both.
    fn cached_range(&self, filesystem: &[u8], keys: &[StatKey]) -> rusqlite::Result<Vec<Option<CachedContent>>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(Vec::new()) };
        let mut statement = self.transaction.prepare_cached(GET_RANGE)?;
        let mut rows = statement.query((filesystem, first.inode.cast_signed(), last.inode.cast_signed()))?;
        let mut found = vec![None; keys.len()];
        let mut at = 0;
        while let Some(row) = rows.next()? {
            let inode = row.get::<_, i64>(0)?.cast_unsigned();
            at += keys[at..].iter().take_while(|key| key.inode < inode).count();
            for (key, found) in keys.iter().zip(&mut found).skip(at).take_while(|(key, _)| key.inode == inode) {
                if (key.size, key.mtime_ns, key.ctime_ns) == (unsigned(row, 1)?, row.get(2)?, row.get(3)?) {
                    let content = ContentId::from_bytes(row.get(4)?);
                    *found = Some(CachedContent { content, generation: unsigned(row, 5)? });
                }
            }
        }
        Ok(found)
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
            let mut statement = self.transaction.prepare_cached(PUT)?;
            for (key, content) in files.iter() {
                statement.execute((
                    filesystem,
                    key.inode.cast_signed(),
                    number(key.size)?,
                    key.mtime_ns,
                    key.ctime_ns,
                    content.as_bytes(),
                    number(generation)?,
                ))?;
            }
            Ok(())
        };
        write().map_err(failed("remember source files"))
    }

    /// Forgets the oldest generations until at most `keep` files are remembered; tells how many went. A generation
    /// goes as a whole, so one that is bigger than `keep` goes too.
    pub fn trim_cached_contents(&mut self, keep: u64) -> Result<u64> {
        let trim = || {
            // Generations are few, so counting them takes less than having the engine sort the rows.
            let mut generations: BTreeMap<i64, u64> = BTreeMap::new();
            let mut statement = self.transaction.prepare_cached(GENERATIONS)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                *generations.entry(row.get(0)?).or_default() += 1;
            }
            let mut kept = 0;
            let oldest = generations.iter().rev().find(|(_, files)| {
                kept += **files;
                kept > keep
            });
            let Some((generation, _)) = oldest else { return Ok(0) };
            self.transaction.prepare_cached(TRIM)?.execute([generation]).map(|count| count as u64)
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
        for (generation, inodes) in [(1, 0..4), (2, 4..7), (3, 7..10)] {
            let mut files: Vec<_> = inodes.map(|inode| (key(inode), content(0))).collect();
            writer.cache_contents(b"fs", generation, &mut files).unwrap();
        }
        writer.cache_contents(b"fs", 3, &mut [(key(0), content(0))]).unwrap();
        assert_eq!(writer.trim_cached_contents(10).unwrap(), 0);
        assert_eq!(writer.trim_cached_contents(7).unwrap(), 3);
        assert_eq!(writer.trim_cached_contents(5).unwrap(), 3);
        let kept = writer.cached_contents(b"fs", &(0..10).map(key).collect::<Vec<_>>()).unwrap();
        let kept: Vec<usize> = (0..10).filter(|at| kept[*at].is_some()).collect();
        assert_eq!(kept, [0, 7, 8, 9]);
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
        assert!(keys.len() >= MANY_KEYS);
        let all = writer.cached_contents(b"fs", &keys).unwrap();
        let each: Vec<_> = keys.iter().map(|key| writer.cached_contents(b"fs", &[*key]).unwrap()[0]).collect();
        assert_eq!(all, each);
        assert_eq!(all.iter().flatten().count(), 3_000);
    }
}
