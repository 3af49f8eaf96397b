//! Removal of objects that nothing refers to.
//!
//! Liveness comes from manifests, never from link counts. The caller holds the store's lock alone, so that no import
//! is about to link what is removed here.

use rayon::prelude::*;

use crate::error::Result;
use crate::fsys::{Dir, Kind, Stat, remove};
use crate::model::ObjectKey;
use crate::observe::{self, Observer};

/// What a sweep found or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Objects.
    pub objects: u64,
    /// Bytes on the medium of those whose last name this was.
    pub freed_bytes: u64,
}

impl Swept {
    fn add(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, freed_bytes: self.freed_bytes + other.freed_bytes }
    }
}

/// Told of a name in `objects/` that is not a live object: the directory, the name, the key if the name is one, and
/// its inode.
pub type Visit<'v> = dyn Fn(&Dir, &[u8], Option<&ObjectKey>, &Stat) -> Result<()> + Sync + 'v;

/// Calls `visit` with every name in `objects/` that is not a live object.
pub fn dead(
    objects: &Dir,
    live: &(dyn Fn(&ObjectKey) -> bool + Sync),
    observer: &dyn Observer,
    visit: &Visit<'_>,
) -> Result<()> {
    objects.items()?.par_iter().try_for_each(|fan| {
        observe::check(observer)?;
        if !matches!(fan.kind, Kind::Directory | Kind::Unknown) {
            return visit(objects, fan.name.as_bytes(), None, &objects.stat(&fan.name)?);
        }
        let dir = objects.open_dir(&fan.name)?;
        for item in dir.items()? {
            let key = ObjectKey::parse(fan.name.as_bytes(), item.name.as_bytes());
            if !key.as_ref().is_some_and(live) {
                visit(&dir, item.name.as_bytes(), key.as_ref(), &dir.stat(&item.name)?)?;
            }
        }
        Ok(())
    })
}

/// Removes every object that is not live, and everything in `objects/` that is no object.
pub fn sweep(objects: &Dir, live: &(dyn Fn(&ObjectKey) -> bool + Sync), observer: &dyn Observer) -> Result<Swept> {
    let swept = std::sync::Mutex::new(Swept::default());
    dead(objects, live, observer, &|dir, name, _, stat| {
        remove::tree(dir, name)?;
        let freed_bytes = if stat.links == 1 { stat.allocated_bytes } else { 0 };
        let mut swept = swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *swept = swept.add(Swept { objects: 1, freed_bytes });
        Ok(())
    })?;
    Ok(swept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
