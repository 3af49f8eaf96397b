//! Objects that are missing or not what their keys say: good bytes are looked for, and a fresh inode takes the name.
//!
//! In this order: an intact inode of the same key in a tree (an old one after a rotation; the only one if just the
//! name is lost), which costs nothing, but never the one that had the name; the object's own bytes, if only its mode, owner or time is wrong; another
//! object with the same content; any tree that has the content, isolated factory trees and private copies too; the
//! source that was given.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::source::{Candidate, Source, Wanted, in_objects};
use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind};
use crate::model::{ContentId, Marks, Metadata, Node, ObjectKey, PlacementKind, Sealed, TreePath, VersionName};
use crate::object::trust::{InodeId, Replaced, id};
use crate::object::{Objects, Recorded};
use crate::observe::{self, Observer};
use crate::store::Store;
use crate::store::published::object_of;

/// What an object that is to be renewed must be like, and where its bytes may be.
struct Need {
    metadata: Metadata,
    recorded: Recorded,
    import_number: u64,
    /// Places of this very key in trees that share their inodes.
    linked: Vec<(VersionName, TreePath)>,
}

/// What renewing came to.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    /// Objects that are whole again.
    pub objects: Replaced,
    /// Objects for which no good bytes were found, or that could not be written, and why.
    pub failed: BTreeMap<ObjectKey, String>,
}

/// Renews these objects.
///
/// # Errors
///
/// [`Error::Interrupted`]; the source cannot be read.
pub(super) fn renew(
    store: &Store,
    objects: &Objects<'_>,
    bad: &BTreeSet<ObjectKey>,
    source: Option<&Source>,
    marks: &Marks,
    aside: &Dir,
    observer: &dyn Observer,
) -> Result<Renewed> {
    let mut renewed = Renewed::default();
    if bad.is_empty() {
        return Ok(renewed);
    }
    let (mut needs, mut places) = look_for(store, bad, marks)?;
    let mut wanted: Wanted = Wanted::new();
    for (key, need) in &needs {
        wanted.insert(key.content, need.recorded.size);
    }
    let mut same_content = BTreeMap::new();
    in_objects(&store.objects_dir()?, &wanted, &mut same_content)?;
    for (content, in_trees) in std::mem::take(&mut places) {
        same_content.entry(content).or_default().extend(in_trees);
    }
    let mut waiting = Vec::new();
    for key in bad {
        observe::check(observer)?;
        // Nothing needs it any longer.
        let Some(need) = needs.remove(key) else { continue };
        let before = store.objects_dir()?.try_stat(key.path()).ok().flatten().map(|stat| id(&stat));
        match from_here(store, objects, key, &need, before, same_content.get(&key.content)) {
            Ok(true) => drop(renewed.objects.insert(key.clone(), before)),
            Ok(false) => waiting.push((key, need, before)),
            Err(error) => drop(renewed.failed.insert(key.clone(), crate::error::chain(&error))),
        }
    }
    let wanted: Wanted = waiting.iter().map(|(key, need, _)| (key.content, need.recorded.size)).collect();
    let found = match source {
        Some(source) => source.find(store, &wanted, aside, observer)?,
        None => BTreeMap::new(),
    };
    for (key, need, before) in waiting {
        match copy_from(objects, key, &need, found.get(&key.content).into_iter().flatten()) {
            Ok(true) => drop(renewed.objects.insert(key.clone(), before)),
            Ok(false) => drop(renewed.failed.insert(key.clone(), "its bytes are nowhere to be found intact".into())),
            Err(error) => drop(renewed.failed.insert(key.clone(), crate::error::chain(&error))),
        }
    }
    Ok(renewed)
}

type Places = BTreeMap<ContentId, Vec<Candidate>>;

/// Reads all manifests: what do these objects look like, and which trees have their contents?
fn look_for(store: &Store, bad: &BTreeSet<ObjectKey>, marks: &Marks) -> Result<(BTreeMap<ObjectKey, Need>, Places)> {
    let contents: HashSet<ContentId> = bad.iter().map(|key| key.content).collect();
    let (mut needs, mut places): (BTreeMap<ObjectKey, Need>, Places) = Default::default();
    let manifests = store.manifests()?;
    for name in manifests.names()? {
        let manifest = match manifests.read(&name) {
            Ok(manifest) => manifest,
            Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        let top = store.versions().path_of(&name);
        let facts = &manifest.facts;
        manifest.walk(|path, entry, placement| {
            let Node::File { content, .. } = &entry.node else { return Ok(()) };
            let Some(placement) = placement.filter(|_| contents.contains(content)) else { return Ok(()) };
            let mut above = path.clone();
            above.pop();
            let dir = top.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(above.as_bytes()));
            let candidate = Candidate { dir, name: path.components().last().unwrap_or_default().to_vec() };
            if placement.kind != PlacementKind::Shared {
                places.entry(*content).or_default().push(candidate);
            }
            let Some((key, recorded)) = object_of(&manifest, entry, placement).filter(|(key, _)| bad.contains(key))
            else {
                return Ok(());
            };
            let metadata = || Sealed::of(&facts.ownership.apply(&entry.metadata), key.class.mtime).metadata;
            let need = needs.entry(key.clone()).or_insert_with(|| Need {
                metadata: metadata(),
                recorded,
                import_number: facts.import_number,
                linked: Vec::new(),
            });
            if need.import_number < facts.import_number {
                (need.recorded, need.import_number) = (recorded, facts.import_number);
            }
            let shares = matches!(placement.kind, PlacementKind::Object | PlacementKind::PinnedMtime);
            if shares && !marks.isolated.contains(&facts.name) {
                need.linked.push((facts.name.clone(), path.clone()));
            }
            Ok::<(), Error>(())
        })?;
    }
    Ok((needs, places))
}

fn from_here(
    store: &Store,
    objects: &Objects<'_>,
    key: &ObjectKey,
    need: &Need,
    before: Option<InodeId>,
    same_content: Option<&Vec<Candidate>>,
) -> Result<bool> {
    // The inode that was found damaged is no object again, even if it can be read now. Its bytes may be copied.
    let mut seen: HashSet<InodeId> = before.into_iter().collect();
    for (version, path) in &need.linked {
        let mut above = path.clone();
        above.pop();
        let dir = store.versions().open_dir(version).and_then(|top| top.open_below(&above));
        let (Ok(dir), Some(name)) = (dir, path.components().last()) else { continue };
        let Ok(stat) = dir.stat(name) else { continue };
        if !seen.insert((stat.device, stat.inode)) {
            continue;
        }
        // What cannot be read is no candidate.
        let intact = objects.is_wholly_intact(&dir, name, key, need.recorded).unwrap_or(false);
        if intact && objects.renew_by_link(key, &dir, name)? {
            return Ok(true);
        }
    }
    copy_from(objects, key, need, same_content.into_iter().flatten())
}

fn copy_from<'c>(
    objects: &Objects<'_>,
    key: &ObjectKey,
    need: &Need,
    candidates: impl Iterator<Item = &'c Candidate>,
) -> Result<bool> {
    let mut seen = HashSet::new();
    for candidate in candidates {
        let Some(dir) = look(candidate, &mut seen) else { continue };
        let Ok(file) = dir.open_file(&candidate.name) else { continue };
        if objects.renew(key, &need.metadata, need.recorded, &mut &file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens a candidate's directory, unless it is no file, or an inode that was looked at before.
fn look(candidate: &Candidate, seen: &mut HashSet<(u64, u64)>) -> Option<Dir> {
    let dir = Dir::open(&candidate.dir).ok()?;
    let stat = dir.stat(&candidate.name).ok()?;
    (stat.kind == Kind::File && seen.insert((stat.device, stat.inode))).then_some(dir)
}
