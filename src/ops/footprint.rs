//! How many bytes come back if versions go: exact, before anything is removed.
//!
//! An inode's blocks come back when its last name goes and nobody holds it. So names are counted, per inode, over
//! everything that would be removed: trees, manifests, the objects that no remaining manifest refers to, leftovers. An
//! inode whose names are all among them gives back `st_blocks` x 512, once, however many names it has. A directory
//! has no second name.
//!
//! Not counted: inodes that a process holds (they come back when it lets go), directories that shrink. An extended
//! attribute block that several inodes share (ext4) is counted for each. Where files may share blocks with others, the
//! result is an upper bound, and [`Footprints::may_share_blocks`] says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::inventory::Inventory;
use crate::error::Result;
use crate::fsys::{Dir, Kind, Stat, system};
use crate::layout;
use crate::model::{EntryName, ObjectKey, VersionName};
use crate::observe::{self, Observer};
use crate::store::Store;
use crate::store::recover::Leftovers;

/// An inode that something to be removed has a name of.
#[derive(Debug, Clone, Copy)]
struct Inode {
    number: u64,
    allocated_bytes: u64,
    links: u64,
    held: bool,
}

/// Names and directories of one thing that may be removed.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// One inode (by position) per name.
    names: Vec<u32>,
    directory_bytes: u64,
}

/// What was found below a directory.
#[derive(Default)]
struct Found {
    files: Vec<Stat>,
    directory_bytes: u64,
    directories: Vec<u64>,
}

/// An object that may go, or that goes anyhow.
struct Object {
    inode: u32,
    /// Its position in the inventory; absent if no version refers to it.
    known: Option<u32>,
}

/// Everything that may be removed, measured.
pub(super) struct Footprints {
    inodes: Vec<Inode>,
    index: HashMap<(u64, u64), u32>,
    versions: BTreeMap<VersionName, Footprint>,
    /// Versions whose trees hold directories that processes elsewhere work in, by directory inode.
    directories: BTreeMap<VersionName, Vec<u64>>,
    leftovers: Footprint,
    objects: Vec<Object>,
    orphans: u64,
    /// What is in `objects/` and is no object.
    garbage: Footprint,
    held: HashSet<u64>,
    pub(super) may_share_blocks: bool,
}

/// What is counted besides versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// Nothing.
    Versions,
    /// Leftovers, and objects that no version refers to.
    WithWhatGoesAnyhow,
}

/// What no version refers to and comes back anyhow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anyhow {
    /// Objects that no manifest refers to.
    pub orphan_objects: u64,
    /// Bytes that come back with them.
    pub orphan_bytes: u64,
    /// Abandoned entries of staging and trash.
    pub leftovers: u64,
    /// Bytes that come back with them.
    pub leftover_bytes: u64,
}

impl Footprints {
    /// Measures these versions, the objects that might go with them, and leftovers.
    pub(super) fn measure(
        store: &Store,
        inventory: &Inventory,
        chosen: &BTreeSet<VersionName>,
        leftovers: &Leftovers,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let mut footprints = Self {
            inodes: Vec::new(),
            index: HashMap::new(),
            versions: BTreeMap::new(),
            directories: BTreeMap::new(),
            leftovers: Footprint::default(),
            objects: Vec::new(),
            orphans: 0,
            garbage: Footprint::default(),
            held: inventory.holds.iter().map(|hold| hold.inode).collect(),
            may_share_blocks: system::may_share_blocks(store.versions())?,
        };
        let manifests = store.dir().open_dir(layout::MANIFESTS)?;
        for name in chosen {
            let mut found = store.in_pool(|| below(store.versions(), name.as_ref(), observer))??;
            found.files.extend(manifests.try_stat(name)?);
            footprints.directories.insert(name.clone(), std::mem::take(&mut found.directories));
            let footprint = footprints.add(&found);
            footprints.versions.insert(name.clone(), footprint);
        }
        for (dir, name) in &leftovers.names {
            let found = store.in_pool(|| below(dir, name, observer))??;
            let footprint = footprints.add(&found);
            footprints.leftovers.names.extend(footprint.names);
            footprints.leftovers.directory_bytes += footprint.directory_bytes;
        }
        footprints.measure_objects(store, inventory, chosen, observer)?;
        Ok(footprints)
    }

    /// Looks at every object that only chosen versions refer to, or none.
    fn measure_objects(
        &mut self,
        store: &Store,
        inventory: &Inventory,
        chosen: &BTreeSet<VersionName>,
        observer: &dyn Observer,
    ) -> Result<()> {
        let outside = inventory.references_without(chosen);
        let stays = |key: &ObjectKey| inventory.keys.get(key).is_some_and(|object| outside[*object as usize] > 0);
        let seen: Mutex<Vec<(Option<Option<u32>>, Found)>> = Mutex::default();
        let objects = store.objects_dir()?;
        store.in_pool(|| {
            crate::object::sweep::dead(&objects, &stays, observer, &|dir, name, key, stat| {
                let found = match stat.kind {
                    Kind::Directory => below(dir, name, observer)?,
                    _ => Found { files: vec![*stat], ..Found::default() },
                };
                let known = key.map(|key| inventory.keys.get(key).copied());
                seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((known, found));
                Ok(())
            })
        })??;
        for (known, found) in seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let footprint = self.add(&found);
            match (known, footprint.names.as_slice()) {
                (Some(known), [inode]) if footprint.directory_bytes == 0 => {
                    self.orphans += u64::from(known.is_none());
                    self.objects.push(Object { inode: *inode, known });
                }
                _ => {
                    self.garbage.names.extend(footprint.names);
                    self.garbage.directory_bytes += footprint.directory_bytes;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, found: &Found) -> Footprint {
        let mut footprint = Footprint { names: Vec::new(), directory_bytes: found.directory_bytes };
        for stat in &found.files {
            let next = u32::try_from(self.inodes.len()).expect("a file system has fewer than four billion inodes here");
            let at = *self.index.entry((stat.device, stat.inode)).or_insert(next);
            if at == next {
                let held = self.held.contains(&stat.inode);
                let Stat { inode: number, allocated_bytes, links, .. } = *stat;
                self.inodes.push(Inode { number, allocated_bytes, links, held });
            }
            footprint.names.push(at);
        }
        footprint
    }

    /// Measured versions that hold one of these inodes, with what was said of it.
    pub(super) fn holders<'a>(&'a self, held: &'a HashMap<u64, String>) -> impl Iterator<Item = (VersionName, String)> {
        self.versions.iter().flat_map(move |(name, footprint)| {
            let files = footprint.names.iter().map(|at| self.inodes[*at as usize].number);
            let directories = self.directories.get(name).into_iter().flatten().copied();
            let users: HashSet<&String> = files.chain(directories).filter_map(|inode| held.get(&inode)).collect();
            users.into_iter().map(|user| (name.clone(), user.clone())).collect::<Vec<_>>()
        })
    }

    /// Bytes that come back if exactly these go.
    pub(super) fn freed(&self, inventory: &Inventory, names: &[VersionName], scope: Scope) -> u64 {
        let mut going = Going::default();
        if scope == Scope::WithWhatGoesAnyhow {
            going.add(&self.leftovers);
            going.add(&self.garbage);
        }
        let dead = self.dead(inventory, names);
        let dead = dead.filter(|object| scope == Scope::WithWhatGoesAnyhow || object.known.is_some());
        going.names.extend(dead.map(|object| object.inode));
        for footprint in names.iter().filter_map(|name| self.versions.get(name)) {
            going.add(footprint);
        }
        going.bytes(self)
    }

    /// What comes back whatever is decided.
    pub(super) fn anyhow(&self, inventory: &Inventory, leftovers: &Leftovers) -> Anyhow {
        let mut going = Going::default();
        going.add(&self.leftovers);
        let leftover_bytes = going.bytes(self);
        Anyhow {
            orphan_objects: self.orphans,
            orphan_bytes: self.freed(inventory, &[], Scope::WithWhatGoesAnyhow) - leftover_bytes,
            leftovers: leftovers.names.len() as u64,
            leftover_bytes,
        }
    }

    /// Objects to which only these versions refer, or none.
    fn dead<'s>(&'s self, inventory: &Inventory, names: &[VersionName]) -> impl Iterator<Item = &'s Object> + use<'s> {
        let left = inventory.references_without(names);
        self.objects.iter().filter(move |object| object.known.is_none_or(|known| left[known as usize] == 0))
    }

    /// All distinct inodes of a version: its tree, its manifest, and its objects, whether they stand in the tree or not.
    pub(super) fn inodes_of(&self, inventory: &Inventory, name: &VersionName) -> HashSet<u32> {
        let own: HashSet<u32> =
            inventory.versions.get(name).map_or_else(HashSet::new, |version| version.objects.iter().copied().collect());
        let objects = self.objects.iter().filter(|object| object.known.is_some_and(|known| own.contains(&known)));
        let names = self.versions.get(name).into_iter().flat_map(|footprint| footprint.names.iter().copied());
        names.chain(objects.map(|object| object.inode)).collect()
    }

    /// Bytes of the directories of a version.
    pub(super) fn directory_bytes(&self, name: &VersionName) -> u64 {
        self.versions.get(name).map_or(0, |footprint| footprint.directory_bytes)
    }

    /// Bytes of an inode.
    pub(super) fn bytes_of(&self, inode: u32) -> u64 {
        self.inodes[inode as usize].allocated_bytes
    }

    /// Bytes of the measured objects by their position in the inventory; `None` for those that no version refers to.
    pub(super) fn object_bytes(&self) -> impl Iterator<Item = (Option<u32>, u64)> {
        self.objects.iter().map(|object| (object.known, self.bytes_of(object.inode)))
    }
}

/// Names that go.
#[derive(Default)]
struct Going {
    names: Vec<u32>,
    directory_bytes: u64,
}

impl Going {
    fn add(&mut self, footprint: &Footprint) {
        self.names.extend_from_slice(&footprint.names);
        self.directory_bytes += footprint.directory_bytes;
    }

    fn bytes(&self, all: &Footprints) -> u64 {
        let mut going = vec![0_u64; all.inodes.len()];
        for name in &self.names {
            going[*name as usize] += 1;
        }
        let gone = all.inodes.iter().zip(going).filter(|(inode, going)| *going > 0 && *going >= inode.links);
        let files: u64 = gone.filter(|(inode, _)| !inode.held).map(|(inode, _)| inode.allocated_bytes).sum();
        files + self.directory_bytes
    }
}

/// Looks at everything that a removal of `name` would remove. What vanishes meanwhile is passed over; other mounts are
/// not entered. Runs on the thread pool it is called from.
fn below(parent: &Dir, name: &[u8], observer: &dyn Observer) -> Result<Found> {
    let mut found = Found::default();
    let Some(stat) = parent.try_stat(name)? else { return Ok(found) };
    if stat.kind != Kind::Directory {
        found.files.push(stat);
        return Ok(found);
    }
    let Some(top) = enter(parent, name)? else { return Ok(found) };
    // The directories of the top are shared out among threads; each goes down alone.
    let mut inner = Vec::new();
    look(top, &stat, observer, &mut found, &mut inner)?;
    let parts = inner.into_par_iter().map(|below| {
        let (mut found, mut stack) = (Found::default(), vec![below]);
        // A directory is opened when its turn comes, so that a wide one does not take as many handles.
        while let Some(Below { parent, name, stat }) = stack.pop() {
            if let Some(dir) = enter(&parent, name.as_bytes())? {
                look(dir, &stat, observer, &mut found, &mut stack)?;
            }
        }
        Ok(found)
    });
    for part in parts.collect::<Result<Vec<Found>>>()? {
        found.files.extend(part.files);
        found.directories.extend(part.directories);
        found.directory_bytes += part.directory_bytes;
    }
    Ok(found)
}

/// A directory that is still to be looked at.
struct Below {
    parent: Arc<Dir>,
    name: EntryName,
    stat: Stat,
}

fn enter(parent: &Dir, name: &[u8]) -> Result<Option<Dir>> {
    use std::io::ErrorKind::{CrossesDevices, NotFound};
    match parent.open_dir_same_mount(name) {
        Err(error) if error.is_io(NotFound) || error.is_io(CrossesDevices) => Ok(None),
        other => other.map(Some),
    }
}

/// Takes in a directory and its names, and adds the directories in it to what is still to be looked at.
fn look(dir: Dir, stat: &Stat, observer: &dyn Observer, found: &mut Found, stack: &mut Vec<Below>) -> Result<()> {
    observe::check(observer)?;
    found.directory_bytes += stat.allocated_bytes;
    found.directories.push(stat.inode);
    let dir = Arc::new(dir);
    for item in dir.items()? {
        match dir.try_stat(&item.name)? {
            Some(stat) if stat.kind == Kind::Directory => {
                stack.push(Below { parent: Arc::clone(&dir), name: item.name, stat });
            }
            Some(stat) => found.files.push(stat),
            None => {}
        }
    }
    Ok(())
}
