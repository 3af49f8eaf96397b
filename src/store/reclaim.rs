//! Objects that an import made and did not publish.
//!
//! gc would remove them in time. But a disk that filled up during an import must not stay full because of it, and
//! what the user stopped is to leave nothing. So an import that fails takes its objects back, and the first import
//! after one that died looks for what that one left.
//!
//! **Invariant:** an object is removed here only while the store's lock is held alone, so that no import is about to
//! link it, and only if every manifest could be read and none refers to it.

use std::collections::HashSet;
use std::time::Duration;

use super::{ExclusiveStore, Store};
use crate::error::Result;
use crate::fsys::{LockFile, LockMode};
use crate::layout;
use crate::model::ObjectKey;
use crate::object::sweep;
use crate::observe::Silent;
use crate::staging;

/// How long a failed import waits for the others, to take its objects back.
const PATIENCE: Duration = Duration::from_millis(300);

impl Store {
    /// Completes or undoes what an interruption left; objects as well, unless others are at work.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn recover(&self) -> Result<()> {
        let died = !staging::abandoned(&self.dir().open_dir(layout::STAGING)?)?.is_empty();
        if died && let Some(alone) = self.try_exclude()? {
            alone.as_shared().heal()?;
            return alone.sweep_unpublished();
        }
        self.share()?.heal()
    }

    /// Removes those of `keys` that no manifest refers to: what a failed import made. If others are at work they may
    /// have linked them in the meantime; then they stay for gc.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn take_back(&self, keys: &[ObjectKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let locked = LockFile::open(self.dir(), layout::LOCK)?.lock(LockMode::Exclusive, PATIENCE);
        let Ok(lock) = locked else { return Ok(()) };
        let alone = ExclusiveStore { store: self, _lock: lock };
        let Some(live) = alone.live_objects()? else { return Ok(()) };
        let objects = self.dir().open_dir(layout::OBJECTS)?;
        for key in keys.iter().filter(|key| !live.contains(*key)) {
            objects.remove_file_if_present(key.path())?;
        }
        Ok(())
    }
}

impl ExclusiveStore<'_> {
    /// Objects that manifests refer to; `None` if a manifest cannot be read or is lost, or the history cannot tell
    /// whether one is, so that nothing may be called dead.
    fn live_objects(&self) -> Result<Option<HashSet<ObjectKey>>> {
        let mut live = HashSet::new();
        let manifests = self.manifests()?;
        let (names, present) = (manifests.names()?, self.history()?.present()?);
        for name in present.marks.versions.keys().filter(|name| !names.contains(name)) {
            if self.has_tree(name)? || self.is_lost_entirely(name)? {
                return Ok(None);
            }
        }
        if !present.state.is_trustworthy() {
            return Ok(None);
        }
        for name in names {
            let Ok(manifest) = manifests.read(&name) else { return Ok(None) };
            let walked = manifest.walk(|_, entry, placement| {
                live.extend(placement.and_then(|placement| manifest.object_key(entry, placement)));
                Ok::<(), std::convert::Infallible>(())
            });
            match walked {
                Ok(()) => {}
            }
        }
        Ok(Some(live))
    }

    /// Removes objects that no manifest refers to, unless a manifest is in doubt.
    fn sweep_unpublished(&self) -> Result<()> {
        if let Some(live) = self.live_objects()? {
            let swept = sweep::sweep(&self.dir().open_dir(layout::OBJECTS)?, &|key| live.contains(key), &Silent)?;
            tracing::info!(objects = swept.objects, bytes = swept.freed_bytes, "removed what a dead import left");
        }
        Ok(())
    }
}
