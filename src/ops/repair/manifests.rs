//! Manifests that are lost or damaged.
//!
//! What a version's trees were is proven by the digest that the history knows: wherever trees are found that make this
//! digest, they are right. They are looked for in the index, in the source that was given, and in the version's own
//! tree, whose files lost nothing but write bits. How the files were placed is seen in the tree. Of what else a
//! manifest tells, the index or the other store's manifest may know it all; the history knows the import number and
//! the time.

use std::collections::HashMap;

use super::source::Source;
use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, Stat};
use crate::materialise::plan::shared_target;
use crate::model::metadata::WRITE_BITS;
use crate::model::{
    Action, Anchor, Digest, Entry, Event, Extensions, Facts, Manifest, Metadata, Node, ObjectKey, Placement,
    PlacementKind, Sealed, SourceKind, Tree, TreeId, TreePath, TreeSet, VersionName,
};
use crate::observe::Observer;
use crate::ops::import::digest;
use crate::store::ExclusiveStore;
use crate::store::survey::Survey;

/// Makes a version's manifest from what is still known and puts it into its place. With `exact` only if it has the hash
/// that the history recorded: what is there is whole, only not what was published. Otherwise a manifest that lacks
/// something is better than none, and the history learns its hash before it is written. Tells whether it was restored.
///
/// # Errors
///
/// [`Error::Interrupted`]; the source cannot be read; the manifest cannot be written.
pub(super) fn restore(
    store: &ExclusiveStore<'_>,
    survey: &Survey,
    name: &VersionName,
    source: Option<&Source>,
    exact: bool,
    observer: &dyn Observer,
) -> Result<bool> {
    let Some(known) = survey.marks.versions.get(name).filter(|_| survey.history.is_trustworthy()) else {
        return Ok(false);
    };
    let is_published = |manifest: &Manifest| known.manifest.as_ref().is_none_or(|hash| *hash == manifest.checksum());
    // Another store may have the very one.
    if let (Some(source), Some(_)) = (source, &known.manifest)
        && let Some((_, Some(manifest))) = source.trees(store, known.digest, observer)?
        && manifest.facts.name == *name
        && is_published(&manifest)
    {
        store.manifests()?.restore(&manifest)?;
        return Ok(true);
    }
    let found = find_trees(store, name, known.digest, source, observer)?;
    let Some((trees, other)) = found else { return Ok(false) };
    let (mut facts, extensions) = facts(store, name, other)?;
    facts.import_number = known.import_number;
    let root = known.digest.0;
    let Some(placements) = placements(store, &mut facts, root, &trees)? else { return Ok(false) };
    let manifest = Manifest { facts, root, trees, placements, extensions };
    let published = is_published(&manifest);
    if exact && !published {
        return Ok(false);
    }
    if !published {
        record_rewritten(store, &manifest)?;
    }
    store.manifests()?.restore(&manifest)?;
    Ok(true)
}

/// Records that the manifest that follows is the version's from now on.
fn record_rewritten(store: &ExclusiveStore<'_>, manifest: &Manifest) -> Result<()> {
    let event = Event {
        outcome: "done".into(),
        manifest: Some(manifest.checksum()),
        text: Some("wrote the manifest again; not all that it said besides its trees is known".into()),
        ..Event::about(Action::Repair, &manifest.facts.name, Some(manifest.digest()))
    };
    store.with_room(|| store.record(vec![event.clone()])).map(drop)
}

type FoundTrees = Option<(TreeSet, Option<Manifest>)>;

fn find_trees(
    store: &ExclusiveStore<'_>,
    name: &VersionName,
    digest: Digest,
    source: Option<&Source>,
    observer: &dyn Observer,
) -> Result<FoundTrees> {
    // An index that is damaged as well is made anew, and then knows nothing.
    if let Some(Some(trees)) = store.peek(|reader| reader.tree_set(&digest.0)) {
        return Ok(Some((trees, None)));
    }
    if let Some(source) = source
        && let Some(found) = source.trees(store, digest, observer)?
    {
        return Ok(Some(found));
    }
    let Some(top) = store.versions().try_open_dir(name)? else { return Ok(None) };
    match digest::directory(store, &top, observer) {
        Ok(digested) => {
            let hints = hints(store)?;
            let guesses = [(0o200, true), (0o220, true), (0o222, true), (0, true), (0o200, false)];
            Ok(guesses.into_iter().find_map(|(bits, use_hints)| {
                let guess = Guess { store, hints: use_hints.then_some(&hints), bits, trees: &digested.trees };
                let mut made = TreeSet::default();
                let root = guess.unseal(digested.root, &TreePath::top(), &mut made)?;
                (Digest(root) == digest).then_some((made, None))
            }))
        }
        Err(Error::Interrupted) => Err(Error::Interrupted),
        // Whatever keeps it from being read as a release, its trees cannot be told from it.
        Err(_) => Ok(None),
    }
}

/// What is recorded at the same paths in other versions.
fn hints(store: &ExclusiveStore<'_>) -> Result<HashMap<TreePath, Metadata>> {
    let mut hints = HashMap::new();
    let manifests = store.manifests()?;
    for name in manifests.names()? {
        if let Ok(manifest) = manifests.read(&name) {
            manifest.walk(|path, entry, _| {
                hints.insert(path.clone(), entry.metadata.clone());
                Ok::<(), Error>(())
            })?;
        }
    }
    Ok(hints)
}

/// What a tree's metadata may have been before it was sealed.
struct Guess<'a> {
    store: &'a ExclusiveStore<'a>,
    hints: Option<&'a HashMap<TreePath, Metadata>>,
    /// Write bits that files had.
    bits: u32,
    trees: &'a TreeSet,
}

impl Guess<'_> {
    fn unseal(&self, id: TreeId, path: &TreePath, made: &mut TreeSet) -> Option<TreeId> {
        let mut entries = Vec::new();
        for entry in self.trees.get(&id)?.entries() {
            let path = path.join(&entry.name);
            let metadata = self.metadata(&path, entry);
            let node = match &entry.node {
                Node::Directory { tree } => Node::Directory { tree: self.unseal(*tree, &path, made)? },
                other => other.clone(),
            };
            entries.push(Entry { name: entry.name.clone(), metadata, node });
        }
        Some(made.insert(Tree::new(entries).ok()?))
    }

    fn metadata(&self, path: &TreePath, entry: &Entry) -> Metadata {
        let found = &entry.metadata;
        if let Some(hint) = self.hints.and_then(|hints| hints.get(path)) {
            let applied = self.store.ownership().apply(hint);
            let sealed = Sealed::of(&applied, None).metadata;
            if *found == applied || *found == sealed || *found == without_write_bits(&applied) {
                return hint.clone();
            }
        }
        let mode = match entry.node {
            Node::File { .. } => found.mode | self.bits,
            // Those of the factory version have lost theirs.
            Node::Directory { .. } => found.mode | 0o200,
            Node::Symlink { .. } => found.mode,
        };
        Metadata { mode, ..found.clone() }
    }
}

fn without_write_bits(metadata: &Metadata) -> Metadata {
    Metadata { mode: metadata.mode & !WRITE_BITS, ..metadata.clone() }
}

/// What is known of a version besides its trees, and the extensions that its manifest had.
fn facts(store: &ExclusiveStore<'_>, name: &VersionName, other: Option<Manifest>) -> Result<(Facts, Extensions)> {
    let events = store.history()?.read()?;
    let import = events
        .trusted()
        .filter(|event| event.version.as_ref() == Some(name))
        .filter(|event| matches!(event.action, Action::Import | Action::Adopt));
    let import = import.last().cloned();
    let kind = match &import {
        Some(event) if event.action == Action::Adopt => SourceKind::Adopted,
        _ => SourceKind::Directory,
    };
    let indexed = store.peek(|reader| reader.version(name)).flatten();
    let indexed = indexed.map(|version| (version.facts, version.extensions));
    let known = indexed.or(other.map(|manifest| (manifest.facts, manifest.extensions)));
    let unknown = || Facts {
        name: name.clone(),
        import_number: 0,
        anchor: Anchor::START,
        imported_at: import.as_ref().map_or(0, |event| event.time),
        clock_synchronised: import.as_ref().is_some_and(|event| event.synchronised),
        note: String::new(),
        labels: std::collections::BTreeMap::new(),
        source: crate::model::Source { kind, path: Vec::new() },
        ownership: store.ownership(),
        shared: Vec::new(),
        private_empty: Vec::new(),
    };
    let (known, extensions) = known.unwrap_or_else(|| (unknown(), Extensions::default()));
    let facts = Facts {
        name: name.clone(),
        ownership: store.ownership(),
        shared: Vec::new(),
        private_empty: Vec::new(),
        ..known
    };
    Ok((facts, extensions))
}

/// How each file that is not empty was placed, by what stands in the tree; fills in the paths that are shared or a
/// service's. `None` if a tree is missing.
fn placements(
    store: &ExclusiveStore<'_>,
    facts: &mut Facts,
    root: TreeId,
    trees: &TreeSet,
) -> Result<Option<Vec<Placement>>> {
    let look = Look { objects: store.objects_dir()?, top: store.versions().try_open_dir(&facts.name)? };
    let mut placements = Vec::new();
    let walked = trees.walk(root, |path, entry| {
        let below_shared = facts.shared.last().is_some_and(|shared| path.starts_with(shared));
        let found = look.at(path);
        if !below_shared && look.is_shared(path, entry, found.as_ref()) {
            facts.shared.push(path.clone());
        }
        let below_shared = facts.shared.last().is_some_and(|shared| path.starts_with(shared));
        let Node::File { content, size } = entry.node else { return Ok(()) };
        let applied = facts.ownership.apply(&entry.metadata);
        let writable = applied.mode & WRITE_BITS != 0
            && found.as_ref().is_some_and(|(_, stat)| stat.kind == Kind::File && stat.mode == applied.mode);
        if size == 0 {
            if writable && !below_shared {
                facts.private_empty.push(path.clone());
            }
            return Ok(());
        }
        let key = |mtime| ObjectKey { content, class: Sealed::of(&applied, mtime).class };
        let object = look.object(&key(None));
        let (kind, mtime) = if below_shared {
            (PlacementKind::Shared, object)
        } else if writable {
            (PlacementKind::Private, object)
        } else {
            let pinned =
                found.as_ref().map(|(_, stat)| stat.mtime).filter(|mtime| look.object(&key(Some(mtime.0))).is_some());
            match pinned {
                Some(mtime) => (PlacementKind::PinnedMtime, Some(mtime)),
                None => (PlacementKind::Object, object.or(found.as_ref().map(|(_, stat)| stat.mtime))),
            }
        };
        let (mtime_seconds, mtime_nanoseconds) = mtime.unwrap_or((facts.imported_at, 0));
        placements.push(Placement { kind, mtime_seconds, mtime_nanoseconds });
        Ok::<(), Error>(())
    })?;
    facts.shared.sort_unstable();
    facts.private_empty.sort_unstable();
    Ok(walked.is_ok().then_some(placements))
}

struct Look {
    objects: Dir,
    top: Option<Dir>,
}

impl Look {
    /// What stands at a path of the tree, and in which directory.
    fn at(&self, path: &TreePath) -> Option<(Dir, Stat)> {
        let mut above = path.clone();
        above.pop();
        let dir = self.top.as_ref()?.open_below(&above).ok()?;
        let stat = dir.try_stat(path.components().last()?).ok()??;
        Some((dir, stat))
    }

    fn is_shared(&self, path: &TreePath, entry: &Entry, found: Option<&(Dir, Stat)>) -> bool {
        let Some((dir, stat)) = found else { return false };
        let target = shared_target(path);
        let name = path.components().last().unwrap_or_default();
        let is_itself = matches!(&entry.node, Node::Symlink { target: own } if **own == *target);
        stat.kind == Kind::Symlink && !is_itself && dir.read_link(name).is_ok_and(|found| found == target)
    }

    fn object(&self, key: &ObjectKey) -> Option<(i64, u32)> {
        self.objects.try_stat(key.path()).ok().flatten().map(|stat| stat.mtime)
    }
}
