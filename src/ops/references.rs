//! Which objects versions refer to, by what their manifests say, kept tree by tree.
//!
//! Most trees of a version are those of another one, and equal trees of versions of one ownership use equal objects. So a
//! tree's objects are listed once, and a version is a list of trees: memory and time follow what is there once, not
//! what versions add up to. The exception is a tree that holds, in this version, a file whose modification time is part
//! of its object's key; its objects are listed with the version.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{PoisonError, RwLock};

use crate::error::Result;
use crate::manifests::Manifests;
use crate::model::manifest::{FileMet, Step};
use crate::model::metadata::KeyHasher;
use crate::model::{Digest, Facts, ObjectKey, Ownership, PlacementKind, TreeId, VersionName};
use crate::object::map::KeyMap;

/// A map by something that is a hash already.
type ByHash<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

/// All objects that were met, numbered, and all trees.
#[derive(Default)]
pub(super) struct References {
    /// Objects by their keys, numbered from 0.
    pub(super) keys: KeyMap<u32>,
    /// Trees of versions of one ownership, numbered from 0.
    trees: ByHash<(TreeId, Ownership), u32>,
    /// By tree: the objects of the files directly in it, in their order.
    objects: Vec<Box<[u32]>>,
}

/// What one version refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Referred {
    /// Trees, each once.
    trees: Vec<u32>,
    /// Objects of other trees, each once.
    others: Vec<u32>,
}

impl References {
    fn number(&mut self, key: &ObjectKey) -> u32 {
        let next = u32::try_from(self.keys.len()).expect("a store has fewer than four billion objects");
        *self.keys.get_or_insert(key, next)
    }

    fn take(&mut self, read: Collected, ownership: Ownership) -> Referred {
        let Collected { mut referred, new, others, .. } = read;
        for (tree, keys) in new {
            let number = match self.trees.get(&(tree, ownership)) {
                Some(number) => *number,
                None => {
                    let objects = keys.iter().map(|key| self.number(key)).collect();
                    let next = u32::try_from(self.objects.len()).expect("fewer than four billion trees");
                    self.objects.push(objects);
                    self.trees.insert((tree, ownership), next);
                    next
                }
            };
            referred.trees.push(number);
        }
        referred.others.extend(others.iter().map(|key| self.number(key)));
        for numbers in [&mut referred.trees, &mut referred.others] {
            numbers.sort_unstable();
            numbers.dedup();
            numbers.shrink_to_fit();
        }
        referred
    }

    /// The objects that a version refers to, not each once.
    pub(super) fn objects_of<'s>(&'s self, referred: &'s Referred) -> impl Iterator<Item = u32> + use<'s> {
        let of_trees = referred.trees.iter().flat_map(|tree| &self.objects[*tree as usize]);
        of_trees.chain(&referred.others).copied()
    }
}

/// Reads what a version refers to; several may be read at once.
///
/// # Errors
///
/// As [`Manifests::read`]. Then nothing was taken in.
pub(super) fn read(
    references: &RwLock<References>,
    manifests: &Manifests,
    name: &VersionName,
) -> Result<(Facts, Digest, Referred)> {
    let mut collected = Collected::default();
    let known = |tree: &TreeId, ownership| {
        let references = references.read().unwrap_or_else(PoisonError::into_inner);
        references.trees.get(&(*tree, ownership)).copied()
    };
    let walked = manifests.walk(name, |facts, step| match step {
        Step::Enter(tree, _) => collected.stack.push(Level::new(*tree, known(tree, facts.ownership))),
        Step::File(file) => {
            if let Some(level) = collected.stack.last_mut() {
                level.file(&file);
            }
        }
        Step::Other(_) => {}
        Step::Leave => {
            if let Some(level) = collected.stack.pop() {
                collected.leave(level, references);
            }
        }
    });
    let (facts, digest) = walked?;
    let mut references = references.write().unwrap_or_else(PoisonError::into_inner);
    let referred = references.take(collected, facts.ownership);
    Ok((facts, digest, referred))
}

/// What was read of a version so far.
#[derive(Default)]
struct Collected {
    stack: Vec<Level>,
    referred: Referred,
    /// Trees that were not known when they were met, with the keys of their files in order.
    new: Vec<(TreeId, Vec<ObjectKey>)>,
    /// Keys of files of trees whose objects do not follow from them.
    others: Vec<ObjectKey>,
}

/// A directory that is being read.
struct Level {
    tree: TreeId,
    known: Option<u32>,
    files: usize,
    /// Of a tree that is not known: the keys of its files.
    keys: Vec<ObjectKey>,
    /// Of one that is known: what does not follow from it, by the number of the file.
    pinned: Vec<(usize, ObjectKey)>,
    is_pinned: bool,
}

impl Level {
    fn new(tree: TreeId, known: Option<u32>) -> Self {
        Self { tree, known, files: 0, keys: Vec::new(), pinned: Vec::new(), is_pinned: false }
    }

    fn file(&mut self, file: &FileMet<'_>) {
        let is_pinned = file.placement.kind == PlacementKind::PinnedMtime;
        self.is_pinned |= is_pinned;
        match self.known {
            None => self.keys.push(file.key()),
            Some(_) if is_pinned => self.pinned.push((self.files, file.key())),
            Some(_) => {}
        }
        self.files += 1;
    }
}

impl Collected {
    fn leave(&mut self, level: Level, references: &RwLock<References>) {
        let Level { tree, known, files, keys, pinned, is_pinned } = level;
        match known {
            _ if files == 0 => {}
            Some(tree) if !is_pinned => self.referred.trees.push(tree),
            Some(tree) => {
                let references = references.read().unwrap_or_else(PoisonError::into_inner);
                let objects = references.objects[tree as usize].iter().enumerate();
                let plain = objects.filter(|(at, _)| pinned.binary_search_by_key(at, |(at, _)| *at).is_err());
                self.referred.others.extend(plain.map(|(_, object)| *object));
                self.others.extend(pinned.into_iter().map(|(_, key)| key));
            }
            None if is_pinned => self.others.extend(keys),
            None => self.new.push((tree, keys)),
        }
    }
}

/// How often trees and objects are referred to.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// By tree: how many versions have it.
    trees: Vec<u32>,
    /// By object: how many names it has in trees that some version has, and in lists of versions.
    objects: Vec<u32>,
}

impl Counts {
    /// No version at all.
    pub(super) fn none(references: &References) -> Self {
        Self { trees: vec![0; references.objects.len()], objects: vec![0; references.keys.len()] }
    }

    pub(super) fn add(&mut self, references: &References, referred: &Referred) {
        for tree in &referred.trees {
            let versions = &mut self.trees[*tree as usize];
            *versions += 1;
            if *versions == 1 {
                references.objects[*tree as usize].iter().for_each(|object| self.objects[*object as usize] += 1);
            }
        }
        referred.others.iter().for_each(|object| self.objects[*object as usize] += 1);
    }

    /// Takes out a version that was added.
    pub(super) fn remove(&mut self, references: &References, referred: &Referred) {
        for tree in &referred.trees {
            let versions = &mut self.trees[*tree as usize];
            *versions -= 1;
            if *versions == 0 {
                references.objects[*tree as usize].iter().for_each(|object| self.objects[*object as usize] -= 1);
            }
        }
        referred.others.iter().for_each(|object| self.objects[*object as usize] -= 1);
    }

    /// Whether a version refers to this object.
    pub(super) fn is_referred(&self, object: u32) -> bool {
        self.objects[object as usize] > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::fsys::Dir;
    use crate::model::{
        Anchor, ContentId, Entry, EntryName, Extensions, Manifest, Metadata, Node, Placement, Source, SourceKind,
    };
    use crate::model::{Tree, TreeSet};

    /// Files of one directory of a version: contents, and whether its time is part of its key.
    type Files = Vec<(u8, bool)>;

    fn manifest(number: u64, directories: &[Files], owner: u32) -> Manifest {
        let (mut trees, mut placements) = (TreeSet::default(), Vec::new());
        let entry = |name: String, node| Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            metadata: Metadata::new(0o644, 0, 0),
            node,
        };
        let mut top = Vec::new();
        for (at, files) in directories.iter().enumerate() {
            let mut inside = Vec::new();
            for (at, (content, is_pinned)) in files.iter().enumerate() {
                let node = Node::File { content: ContentId::of(&[*content]), size: 1 };
                inside.push(entry(format!("{at:02}"), node));
                let kind = if *is_pinned { PlacementKind::PinnedMtime } else { PlacementKind::Object };
                placements.push(Placement { kind, mtime_seconds: 7, mtime_nanoseconds: 0 });
            }
            let tree = trees.insert(Tree::new(inside).unwrap());
            top.push(entry(format!("{at:02}"), Node::Directory { tree }));
        }
        let root = trees.insert(Tree::new(top).unwrap());
        let facts = Facts {
            name: format!("v{number}").parse().unwrap(),
            import_number: number,
            anchor: Anchor::START,
            imported_at: 0,
            clock_synchronised: true,
            note: String::new(),
            labels: std::collections::BTreeMap::new(),
            source: Source { kind: SourceKind::Directory, path: b"/".to_vec() },
            ownership: Ownership::Squash { uid: owner, gid: owner },
            shared: Vec::new(),
            private_empty: Vec::new(),
        };
        Manifest { facts, root, trees, placements, extensions: Extensions::default() }
    }

    fn keys_of(manifest: &Manifest) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        let walked = manifest.walk(|_, entry, placement| {
            keys.extend(placement.and_then(|placement| manifest.object_key(entry, placement)));
            Ok::<(), ()>(())
        });
        walked.unwrap();
        keys
    }

    fn any_version() -> impl Strategy<Value = (Vec<Files>, u32)> {
        let files = prop::collection::vec((0..4_u8, prop::bool::weighted(0.1)), 0..4);
        (prop::collection::vec(files, 0..4), 0..2_u32)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_referred_to_is_what_the_manifests_of_the_versions_say(
            versions in prop::collection::vec(any_version(), 1..6),
            gone in prop::collection::vec(any::<bool>(), 6),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let store = Dir::open(directory.path()).unwrap();
            store.make_dir(crate::layout::MANIFESTS, 0o755).unwrap();
            let manifests = Manifests::open(&store).unwrap();
            let references = RwLock::default();
            let mut all = Vec::new();
            for ((directories, owner), number) in versions.iter().zip(1..) {
                let manifest = manifest(number, directories, *owner);
                manifests.publish(&manifest).unwrap();
                let (facts, digest, referred) = read(&references, &manifests, &manifest.facts.name).unwrap();
                prop_assert_eq!((&facts, digest), (&manifest.facts, manifest.digest()));
                all.push((manifest, referred));
            }
            let references = references.into_inner().unwrap();
            let mut counts = Counts::none(&references);
            for (manifest, referred) in &all {
                counts.add(&references, referred);
                let numbers: BTreeSet<u32> = references.objects_of(referred).collect();
                let expected: BTreeSet<u32> = keys_of(manifest).iter().filter_map(|key| references.keys.get(key)).collect();
                prop_assert_eq!(numbers, expected);
            }
            for ((_, referred), _) in all.iter().zip(&gone).filter(|(_, gone)| **gone) {
                counts.remove(&references, referred);
            }
            let left = all.iter().zip(&gone).filter(|(_, gone)| !**gone).flat_map(|((manifest, _), _)| keys_of(manifest));
            let left: BTreeSet<ObjectKey> = left.collect();
            for (key, object) in references.keys.iter() {
                prop_assert_eq!(counts.is_referred(object), left.contains(&key), "{}", key.path());
            }
        }
    }
}
