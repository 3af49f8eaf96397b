//! Contents of source files by what their inode said, kept in the index between imports.
//!
//! Only a cache: everything here is best effort, and what it costs when it fails is time.

use std::collections::HashMap;

use super::{SharedStore, Store};
use crate::error::Result;
use crate::fsys::Stat;
use crate::index::{self, StatKey};
use crate::model::ContentId;

/// Most source files that are remembered, at about 80 bytes each: those of the last two imports of this size, so that
/// the cache stays small beside what it is a cache of.
const CACHED_IMPORTS: u64 = 2;
/// Files that are remembered however small the last import was.
const FEWEST_CACHED_FILES: u64 = 10_000;

/// What was remembered of a source file that has not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedContent {
    /// Its bytes.
    pub content: ContentId,
    /// Whether it would be forgotten soon unless it is remembered again.
    pub fades: bool,
}

impl Store {
    /// Contents of source files that were read before and have not changed since, by inode.
    pub fn cached_contents<'s>(
        &self,
        file_system: u64,
        stats: impl Iterator<Item = &'s Stat>,
    ) -> HashMap<u64, CachedContent> {
        let mut keys: Vec<StatKey> = stats.map(StatKey::from).collect();
        keys.sort_unstable();
        let find = || -> Result<HashMap<u64, CachedContent>> {
            let Ok((mut index, _)) = self.open_index() else { return Ok(HashMap::new()) };
            let generation = self.history()?.present()?.marks.highest_import;
            let found = index.read()?.cached_contents(&file_system.to_le_bytes(), &keys)?;
            let known = keys.iter().zip(found).filter_map(|(key, found)| Some((key.inode, found?)));
            let cached = |(inode, known): (u64, index::CachedContent)| {
                (inode, CachedContent { content: known.content, fades: known.generation + 1 < generation })
            };
            Ok(known.map(cached).collect())
        };
        find().unwrap_or_default()
    }
}

impl SharedStore<'_> {
    /// Remembers contents of source files, of an import that saw so many. Best effort: a cache that cannot be written
    /// costs time, nothing else.
    pub fn remember_contents(&self, file_system: u64, files: &mut [(StatKey, ContentId)], seen: u64) {
        if files.is_empty() {
            return;
        }
        let mut remember = || -> Result<()> {
            let Ok((mut index, true)) = self.open_index() else { return Ok(()) };
            let generation = self.history()?.present()?.marks.highest_import;
            let mut writer = index.write()?;
            writer.cache_contents(&file_system.to_le_bytes(), generation, files)?;
            writer.trim_cached_contents((seen * CACHED_IMPORTS).max(FEWEST_CACHED_FILES))?;
            writer.commit()
        };
        if let Err(error) = remember() {
            tracing::debug!(%error, "source files are not remembered");
        }
    }
}
