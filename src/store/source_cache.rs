//! Contents of source files by what their inode said, kept in the index between imports.
//!
//! Only a cache: everything here is best effort, and what it costs when it fails is time. Whether it may be asked at
//! all, [`Stamped`](crate::fsys::Stamped) decides.

use rayon::prelude::*;

use super::{SharedStore, Store};
use crate::error::Result;
use crate::index::{self, StatKey};
use crate::model::ContentId;

/// Most source files that are remembered, at about 60 bytes each: those of the last two imports of this size, so that
/// the cache stays small beside what it is a cache of.
const CACHED_IMPORTS: u64 = 2;
/// Files that are remembered however small the last import was.
const FEWEST_CACHED_FILES: u64 = 10_000;

/// A thread that asks for fewer takes longer to open the index than to ask.
const FEWEST_KEYS_OF_A_THREAD: usize = 20_000;

/// What was remembered of a source file that has not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedContent {
    /// Its bytes.
    pub content: ContentId,
    /// Whether it would be forgotten soon unless it is remembered again.
    pub fades: bool,
}

impl Store {
    /// Contents of source files that were read before and have not changed since. The caller's number for each file
    /// comes back with its content, in no order. `file_system` is its [name](crate::fsys::Stamped::name).
    pub fn cached_contents(
        &self,
        file_system: &[u8],
        mut files: Vec<(StatKey, usize)>,
    ) -> impl Iterator<Item = (usize, CachedContent)> + use<> {
        files.par_sort_unstable();
        let ask = |files: &[(StatKey, usize)]| -> Result<Vec<(usize, CachedContent)>> {
            let Ok((mut index, _)) = self.open_index() else { return Ok(Vec::new()) };
            let generation = self.history()?.present()?.marks.highest_import;
            let keys: Vec<StatKey> = files.iter().map(|(key, _)| *key).collect();
            let found = index.read()?.cached_contents(file_system, &keys)?;
            let known = files.iter().zip(found).filter_map(|((_, number), found)| Some((*number, found?)));
            let cached = |(number, known): (usize, index::CachedContent)| {
                (number, CachedContent { content: known.content, fades: known.generation + 1 < generation })
            };
            Ok(known.map(cached).collect())
        };
        // Each thread by a connection of its own; where one fails, its files are read.
        let share = files.len().div_ceil(rayon::current_num_threads()).max(FEWEST_KEYS_OF_A_THREAD);
        let shares: Vec<_> = files.par_chunks(share).map(|files| ask(files).unwrap_or_default()).collect();
        shares.into_iter().flatten()
    }
}

impl SharedStore<'_> {
    /// Remembers contents of source files, of an import that saw so many. Best effort: a cache that cannot be written
    /// costs time, nothing else.
    pub fn remember_contents(&self, file_system: &[u8], files: &mut [(StatKey, ContentId)], seen: u64) {
        if files.is_empty() {
            return;
        }
        let mut remember = || -> Result<()> {
            let Ok((mut index, true)) = self.open_index() else { return Ok(()) };
            let generation = self.history()?.present()?.marks.highest_import;
            let mut writer = index.write()?;
            // Old ones first: the new take their place in the file.
            let keep = (seen * CACHED_IMPORTS).max(FEWEST_CACHED_FILES);
            writer.trim_cached_contents(keep.saturating_sub(files.len() as u64))?;
            writer.cache_contents(file_system, generation, files)?;
            writer.commit()
        };
        if let Err(error) = remember() {
            tracing::debug!(%error, "source files are not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::store::Settings;
    use crate::store::create::{CreateOptions, create};

    #[test]
    fn so_many_files_that_several_threads_ask_are_each_told_their_own() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(temporary.path().join("root"), None);
        let (store, _) = create(layout, Settings::default(), CreateOptions::default()).unwrap();
        let key = |inode: usize| StatKey { inode: inode as u64, size: 1, mtime_ns: 1, ctime_ns: 1 };
        let content = |inode: usize| ContentId::of(&inode.to_le_bytes());
        // Asked for in no order, by three threads; every second one is known.
        let count = 3 * FEWEST_KEYS_OF_A_THREAD + 1;
        let mut known: Vec<_> = (0..count).step_by(2).map(|inode| (key(inode), content(inode))).collect();
        store.share().unwrap().remember_contents(b"fs", &mut known, count as u64);
        let asked: Vec<(StatKey, usize)> = (0..count).rev().map(|inode| (key(inode), 2 * inode)).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let mut told: Vec<_> = pool.install(|| store.cached_contents(b"fs", asked).collect());
        told.sort_by_key(|(number, _)| *number);
        let told = told.into_iter().map(|(number, known)| (number, known.content));
        assert!(told.eq((0..count).step_by(2).map(|inode| (2 * inode, content(inode)))));
    }
}
