//! How many bytes come back if versions go: exact, before anything is removed.
//!
//! An inode's blocks come back when its last name goes and nobody holds it. So names are counted, per inode, over
//! everything that would be removed: trees, manifests, the objects that no remaining manifest refers to, leftovers. An
//! inode whose names are all among them gives back `st_blocks` x 512, once, however many names it has. A directory
//! has no second name.
//!
//! A name of an object that stays gives back nothing, and one of an object that may go was measured with the object:
//! directories tell the inode numbers of what is in them, so most files of a tree are not looked at.
//!
//! Not counted: inodes that a process holds (they come back when it lets go), directories that shrink. An extended
//! attribute block that several inodes share (ext4) is counted for each. Where files may share blocks with others, the
//! result is an upper bound, and [`Footprints::may_share_blocks`] says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::inventory::Inventory;
use crate::error::Result;
use crate::fsys::{Dir, Kind, Stat, system};
use crate::layout;
use crate::model::{ObjectKey, VersionName};
use crate::object::sweep::{self, Fan, Swept};
use crate::observe::{self, Observer};
use crate::store::Store;
use crate::store::recover::Leftovers;

/// An inode that something to be removed has a name of.
#[derive(Debug, Clone, Copy)]
struct Inode {
    allocated_bytes: u64,
    links: u64,
    held: bool,
}

/// Names and directories of one thing that may be removed.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// One inode (by position) per name, but for names of objects that stay.
    names: Vec<u32>,
    directory_bytes: u64,
    /// Inodes that processes hold, among all that is there.
    held: Vec<u64>,
}

/// What was found below a directory.
#[derive(Default)]
struct Found {
    /// Names of inodes that were measured before.
    measured: Vec<u32>,
    files: Vec<Stat>,
    directory_bytes: u64,
    held: Vec<u64>,
}

impl Found {
    fn with(mut self, mut other: Self) -> Self {
        // The shorter list is moved, so that gathering many costs little.
        if self.files.len() + self.measured.len() < other.files.len() + other.measured.len() {
            std::mem::swap(&mut self, &mut other);
        }
        self.measured.extend(other.measured);
        self.files.extend(other.files);
        self.held.extend(other.held);
        self.directory_bytes += other.directory_bytes;
        self
    }
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
    leftovers: Footprint,
    objects: Vec<Object>,
    orphans: u64,
    /// What is in `objects/` and is no object.
    garbage: Footprint,
    held: HashSet<u64>,
    /// Everything in `objects/` that may go.
    fans: Vec<Fan>,
    /// Inodes of objects that stay.
    staying: HashSet<u64>,
    /// The file system of `objects/`, if its directories number their entries as inodes are numbered.
    numbered: Option<u64>,
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
            leftovers: Footprint::default(),
            objects: Vec::new(),
            orphans: 0,
            garbage: Footprint::default(),
            held: inventory.holds.iter().map(|hold| hold.inode).collect(),
            fans: Vec::new(),
            staying: HashSet::new(),
            numbered: None,
            may_share_blocks: system::may_share_blocks(store.versions())?,
        };
        footprints.measure_objects(store, inventory, chosen, observer)?;
        let manifests = store.dir().open_dir(layout::MANIFESTS)?;
        for name in chosen {
            let look = Look { footprints: &footprints, observer };
            let mut found = store.in_pool(|| look.below(store.versions(), name.as_ref()))??;
            found.files.extend(manifests.try_stat(name)?);
            let footprint = footprints.add(found);
            footprints.versions.insert(name.clone(), footprint);
        }
        for (dir, name) in &leftovers.names {
            let look = Look { footprints: &footprints, observer };
            let found = store.in_pool(|| look.below(dir, name))??;
            let footprint = footprints.add(found);
            footprints.leftovers.names.extend(footprint.names);
            footprints.leftovers.directory_bytes += footprint.directory_bytes;
        }
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
        let stays =
            |key: &ObjectKey| inventory.references.keys.get(key).is_some_and(|object| outside.is_referred(object));
        let objects = store.objects_dir()?;
        self.fans = store.in_pool(|| sweep::look(&objects, &stays, observer))??;
        self.numbered = self.fans.first().and_then(|fan| fan.numbered);
        if self.fans.iter().any(|fan| fan.numbered != self.numbered) {
            self.numbered = None;
        }
        for fan in &mut self.fans {
            self.staying.extend(std::mem::take(&mut fan.live));
        }
        let fans = std::mem::take(&mut self.fans);
        for fan in &fans {
            for dead in &fan.dead {
                let found = match dead.stat.kind {
                    Kind::Directory => {
                        let dir =
                            if fan.name.is_empty() { objects.try_clone()? } else { objects.open_dir(&fan.name)? };
                        let look = Look { footprints: self, observer };
                        store.in_pool(|| look.below(&dir, &dead.name))??
                    }
                    _ => Found { files: vec![dead.stat], ..Found::default() },
                };
                let footprint = self.add(found);
                match (&dead.key, footprint.names.as_slice()) {
                    (Some(key), [inode]) if dead.stat.kind != Kind::Directory => {
                        let known = inventory.references.keys.get(key);
                        self.orphans += u64::from(known.is_none());
                        self.objects.push(Object { inode: *inode, known });
                    }
                    _ => {
                        self.garbage.names.extend(footprint.names);
                        self.garbage.directory_bytes += footprint.directory_bytes;
                    }
                }
            }
        }
        self.fans = fans;
        Ok(())
    }

    /// Removes the measured objects to which only these versions refer; with what goes anyhow, everything else that
    /// was measured in `objects/`. Runs on the thread pool it is called from.
    pub(super) fn sweep(
        &self,
        objects: &Dir,
        inventory: &Inventory,
        names: &[VersionName],
        scope: Scope,
    ) -> Result<Swept> {
        let left = inventory.references_without(names);
        sweep::remove(objects, &self.fans, &|dead| match dead
            .key
            .as_ref()
            .and_then(|key| inventory.references.keys.get(key))
        {
            Some(object) => !left.is_referred(object),
            None => scope == Scope::WithWhatGoesAnyhow,
        })
    }

    fn add(&mut self, found: Found) -> Footprint {
        let Found { measured: mut names, files, directory_bytes, held } = found;
        for stat in &files {
            let next = u32::try_from(self.inodes.len()).expect("a file system has fewer than four billion inodes here");
            let at = *self.index.entry((stat.device, stat.inode)).or_insert(next);
            if at == next {
                let held = self.held.contains(&stat.inode);
                let Stat { allocated_bytes, links, .. } = *stat;
                self.inodes.push(Inode { allocated_bytes, links, held });
            }
            names.push(at);
        }
        Footprint { names, directory_bytes, held }
    }

    /// Measured versions that hold one of these inodes, with what was said of it.
    pub(super) fn holders<'a>(&'a self, held: &'a HashMap<u64, String>) -> impl Iterator<Item = (VersionName, String)> {
        self.versions.iter().flat_map(move |(name, footprint)| {
            let users: HashSet<&String> = footprint.held.iter().filter_map(|inode| held.get(inode)).collect();
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
        self.objects.iter().filter(move |object| object.known.is_none_or(|known| !left.is_referred(known)))
    }

    /// All distinct inodes of a version: its tree, its manifest, and its objects, whether they stand in the tree or not.
    pub(super) fn inodes_of(&self, inventory: &Inventory, name: &VersionName) -> HashSet<u32> {
        let version = inventory.versions.get(name);
        let own: HashSet<u32> =
            version.into_iter().flat_map(|version| inventory.references.objects_of(&version.referred)).collect();
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

/// Directories deeper than this are looked at by one thread, to keep the stack small whatever the tree's depth.
const PARALLEL_DEPTH: usize = 64;

/// How trees are looked at.
struct Look<'a> {
    footprints: &'a Footprints,
    observer: &'a dyn Observer,
}

/// A directory that is still to be looked at.
struct Below {
    parent: Arc<Dir>,
    name: Box<[u8]>,
}

impl Look<'_> {
    /// Looks at everything that a removal of `name` would remove. What vanishes meanwhile is passed over; other mounts
    /// are not entered. Runs on the thread pool it is called from.
    fn below(&self, parent: &Dir, name: &[u8]) -> Result<Found> {
        let mut found = Found::default();
        let Some(stat) = parent.try_stat(name)? else { return Ok(found) };
        if stat.kind != Kind::Directory {
            self.file(stat, &mut found);
            return Ok(found);
        }
        match enter(parent, name)? {
            Some(top) => self.tree(top, 0),
            None => Ok(found),
        }
    }

    /// Takes in a directory and everything below it, its directories side by side; below a certain depth one after the
    /// other, which takes no stack.
    fn tree(&self, dir: Dir, depth: usize) -> Result<Found> {
        let (mut found, mut inner) = (Found::default(), Vec::new());
        self.directory(dir, &mut found, &mut inner)?;
        if depth < PARALLEL_DEPTH {
            let below = |Below { parent, name }| match enter(&parent, &name)? {
                Some(dir) => self.tree(dir, depth + 1),
                None => Ok(Found::default()),
            };
            let parts =
                inner.into_par_iter().map(below).try_reduce(Found::default, |one, other| Ok(one.with(other)))?;
            return Ok(found.with(parts));
        }
        // A directory is opened when its turn comes, so that a wide one does not take as many handles.
        while let Some(Below { parent, name }) = inner.pop() {
            if let Some(dir) = enter(&parent, &name)? {
                self.directory(dir, &mut found, &mut inner)?;
            }
        }
        Ok(found)
    }

    /// Takes in a directory and its names, and adds the directories in it to what is still to be looked at.
    fn directory(&self, mut dir: Dir, found: &mut Found, stack: &mut Vec<Below>) -> Result<()> {
        observe::check(self.observer)?;
        let all = self.footprints;
        let stat = dir.stat_self()?;
        found.directory_bytes += stat.allocated_bytes;
        found.held.extend(all.held.contains(&stat.inode).then_some(stat.inode));
        let numbered = all.numbered == Some(stat.device);
        let mut directories: Vec<Box<[u8]>> = Vec::new();
        dir.list(|dir, item| {
            match item.kind {
                Kind::Directory => directories.push(item.name.into()),
                Kind::File if numbered && all.staying.contains(&item.inode) => {
                    found.held.extend(all.held.contains(&item.inode).then_some(item.inode));
                }
                Kind::File if numbered && all.index.contains_key(&(stat.device, item.inode)) => {
                    found.held.extend(all.held.contains(&item.inode).then_some(item.inode));
                    found.measured.push(all.index[&(stat.device, item.inode)]);
                }
                _ => match dir.try_stat(item.name)? {
                    Some(stat) if stat.kind == Kind::Directory => directories.push(item.name.into()),
                    Some(stat) => self.file(stat, found),
                    None => {}
                },
            }
            Ok(())
        })?;
        let parent = Arc::new(dir);
        stack.extend(directories.into_iter().map(|name| Below { parent: Arc::clone(&parent), name }));
        Ok(())
    }

    fn file(&self, stat: Stat, found: &mut Found) {
        found.held.extend(self.footprints.held.contains(&stat.inode).then_some(stat.inode));
        found.files.push(stat);
    }
}

fn enter(parent: &Dir, name: &[u8]) -> Result<Option<Dir>> {
    use std::io::ErrorKind::{CrossesDevices, NotFound};
    match parent.open_dir_same_mount(name) {
        Err(error) if error.is_io(NotFound) || error.is_io(CrossesDevices) => Ok(None),
        other => other.map(Some),
    }
}
