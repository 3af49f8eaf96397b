//! Removal of objects that nothing refers to.
//!
//! Liveness comes from manifests, never from link counts. The caller holds the store's lock alone, so that no import
//! is about to link what is removed here, and nothing changes between the look and the removal.

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

/// A name in `objects/` that is not a live object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The name in its directory.
    pub name: Box<[u8]>,
    /// The key, if the name is one.
    pub key: Option<ObjectKey>,
    /// Its inode.
    pub stat: Stat,
}

/// One directory of `objects/` as it was found.
#[derive(Debug, Default)]
pub struct Fan {
    /// Its name; empty for `objects/` itself.
    pub name: Box<[u8]>,
    /// Inodes of live objects, as the directory numbers them.
    pub live: Vec<u64>,
    /// What is in it and is no live object.
    pub dead: Vec<Dead>,
    /// The file system it lies on, if entries are numbered as their inodes are: a layered one may do otherwise.
    pub numbered: Option<u64>,
}

/// Looks at every name in `objects/` that is not a live object, directories side by side on the threads it is called
/// from. What vanishes meanwhile, where the caller only looks, is passed over.
pub fn look(objects: &Dir, live: &(dyn Fn(&ObjectKey) -> bool + Sync), observer: &dyn Observer) -> Result<Vec<Fan>> {
    let items = objects.items()?;
    let (fans, strays): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| matches!(item.kind, Kind::Directory | Kind::Unknown));
    let stray = |item: &crate::fsys::DirItem| {
        let dead = |stat| Dead { name: item.name.as_bytes().into(), key: None, stat };
        Ok(objects.try_stat(&item.name)?.map(dead))
    };
    let strays: Vec<Dead> = strays.iter().filter_map(|item| stray(item).transpose()).collect::<Result<_>>()?;
    let mut found = fans
        .par_iter()
        .map(|item| {
            observe::check(observer)?;
            Fan::look(objects, item.name.as_bytes(), live)
        })
        .collect::<Result<Vec<_>>>()?;
    if !strays.is_empty() {
        let numbered = found.first().and_then(|fan| fan.numbered);
        found.push(Fan { dead: strays, numbered, ..Fan::default() });
    }
    Ok(found)
}

impl Fan {
    fn look(objects: &Dir, name: &[u8], live: &(dyn Fn(&ObjectKey) -> bool + Sync)) -> Result<Self> {
        let mut dir = objects.open_dir(name)?;
        let device = dir.stat_self()?.device;
        let mut fan = Self { name: name.into(), numbered: Some(device), ..Self::default() };
        let as_numbered = |stat: &Stat, inode| (stat.device, stat.inode) == (device, inode);
        dir.list(|dir, item| {
            let key = ObjectKey::parse(name, item.name);
            if key.as_ref().is_some_and(live) {
                // One is as good as all of them to see how this file system does it.
                if fan.live.is_empty() && !dir.try_stat(item.name)?.is_some_and(|stat| as_numbered(&stat, item.inode)) {
                    fan.numbered = None;
                }
                fan.live.push(item.inode);
            } else if let Some(stat) = dir.try_stat(item.name)? {
                fan.dead.push(Dead { name: item.name.into(), key, stat });
            }
            Ok(())
        })?;
        Ok(fan)
    }
}

/// Removes those of the dead names that `going` picks, directories side by side on the threads it is called from.
pub fn remove(objects: &Dir, fans: &[Fan], going: &(dyn Fn(&Dead) -> bool + Sync)) -> Result<Swept> {
    let remove_from = |fan: &Fan| {
        let mut swept = Swept::default();
        let mut dir = None;
        for dead in fan.dead.iter().filter(|dead| going(dead)) {
            let dir = match &dir {
                Some(dir) => dir,
                None if fan.name.is_empty() => dir.insert(objects.try_clone()?),
                None => dir.insert(objects.open_dir(&fan.name)?),
            };
            remove::file(dir, &dead.name)?;
            let freed_bytes = if dead.stat.links == 1 { dead.stat.allocated_bytes } else { 0 };
            swept = swept.add(Swept { objects: 1, freed_bytes });
        }
        Ok(swept)
    };
    fans.par_iter().map(remove_from).try_reduce(Swept::default, |one, other| Ok(one.add(other)))
}

/// Removes every object that is not live, and everything in `objects/` that is no object.
pub fn sweep(objects: &Dir, live: &(dyn Fn(&ObjectKey) -> bool + Sync), observer: &dyn Observer) -> Result<Swept> {
    remove(objects, &look(objects, live, observer)?, &|_| true)
}
