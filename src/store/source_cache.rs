//! Contents of source files by what their inode said, kept in the index between imports.
//!
//! Only a cache: everything here is best effort, and what it costs when it fails is time.

use std::collections::HashMap;

use super::{SharedStore, Store};
use crate::error::Result;
use crate::fsys::Stat;
use crate::index::StatKey;
use crate::model::ContentId;

/// Most source files that are remembered, at about 80 bytes each: those of the last two imports of this size, so that
/// the cache stays small beside what it is a cache of.
const CACHED_IMPORTS: u64 = 2;
/// Files that are remembered however small the last import was.
const FEWEST_CACHED_FILES: u64 = 10_000;

impl Store {
    /// Contents of source files that were read before and have not changed since, by inode.
    pub fn cached_contents<'s>(
        &self,
        file_system: u64,
        stats: impl Iterator<Item = &'s Stat>,
    ) -> HashMap<u64, ContentId> {
        let Ok((mut index, _)) = self.open_index() else { return HashMap::new() };
        let mut keys: Vec<StatKey> = stats.map(StatKey::from).collect();
        keys.sort_unstable();
        let found = index.read().and_then(|reader| reader.cached_contents(&file_system.to_le_bytes(), &keys));
        let found = found.unwrap_or_default();
        keys.iter().zip(found).filter_map(|(key, found)| Some((key.inode, found?.content))).collect()
    }
}

impl SharedStore<'_> {
    /// Remembers contents of source files. Best effort: a cache that cannot be written costs time, nothing else.
    pub fn remember_contents(&self, file_system: u64, files: &[(Stat, ContentId)]) {
        let remember = || -> Result<()> {
            let Ok((mut index, true)) = self.open_index() else { return Ok(()) };
            let keep = (files.len() as u64 * CACHED_IMPORTS).max(FEWEST_CACHED_FILES);
            let generation = self.history()?.present()?.marks.highest_import;
            let file_system = file_system.to_le_bytes();
            let mut files: Vec<(StatKey, ContentId)> =
                files.iter().map(|(stat, id)| (StatKey::from(stat), *id)).collect();
            files.sort_unstable();
            let keys: Vec<StatKey> = files.iter().map(|(key, _)| *key).collect();
            let known = index.read()?.cached_contents(&file_system, &keys)?;
            let mut fresh = known.iter().map(|known| known.is_none_or(|known| known.generation + 1 < generation));
            files.retain(|_| fresh.next().unwrap_or(true));
            if files.is_empty() {
                return Ok(());
            }
            let mut writer = index.write()?;
            writer.cache_contents(&file_system, generation, &mut files)?;
            writer.trim_cached_contents(keep)?;
            writer.commit()
        };
        if let Err(error) = remember() {
            tracing::debug!(%error, "source files are not remembered");
        }
    }
}
