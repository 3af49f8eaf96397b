//! temporary
use super::Store;
use crate::error::Result;
use crate::fsys::Stat;
use crate::model::{ContentId, Manifest};
use std::collections::HashMap;

impl Store {
    /// x
    pub fn cached_contents<'s>(
        &self,
        _fs: u64,
        _device: u64,
        _stats: impl Iterator<Item = &'s Stat>,
    ) -> Result<HashMap<u64, ContentId>> {
        Ok(HashMap::new())
    }
    /// x
    pub fn remember_contents(&self, _fs: u64, _rows: &[(Stat, ContentId)]) {}
    /// x
    pub fn index_published(&self, _manifest: &Manifest) {}
    /// The number of the next import: one more than the highest ever given.
    pub fn next_import_number(&self) -> Result<u64> {
        let mut highest = self.history()?.present()?.marks.highest_import;
        let manifests = self.manifests()?;
        for name in manifests.names()? {
            if let Ok(manifest) = manifests.read(&name) {
                highest = highest.max(manifest.facts.import_number);
            }
        }
        Ok(highest + 1)
    }
}
