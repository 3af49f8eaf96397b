//! First contents of shared paths.
//!
//! A shared path lives in `shared/`, outside all versions. The first release that has it seeds it; what is there is
//! never replaced, since it is what a service wrote.

use crate::error::{Error, Result};
use crate::fsys::{Dir, file, remove, rooted};
use crate::layout;
use crate::model::{Metadata, Node, ObjectKey, Sealed, TreeId, TreePath, TreeSet};
use crate::object::place::Spot;
use crate::object::{LinkPolicy, NothingPublished, Objects, Recorded};
use crate::staging::Run;
use crate::store::SharedStore;

/// Seeds those of `paths` that are not in `shared/` yet, from the objects of the version that is being published.
///
/// A path is copied whole into staging, made durable, and renamed into place. With `source`, the version's tree as
/// somebody made it by hand, its files are linked instead: who has them open goes on writing to what is seeded.
///
/// # Errors
///
/// What the system refuses.
pub(super) fn seed(
    store: &SharedStore<'_>,
    run: &Run,
    trees: &TreeSet,
    root: TreeId,
    paths: &[TreePath],
    source: Option<&Dir>,
) -> Result<()> {
    for (number, path) in paths.iter().enumerate() {
        let (parent, name) = parent_of(store, path)?;
        if parent.try_stat(&name)?.is_some() {
            continue;
        }
        let building = run.dir().create_dir(format!("seed-{number}"), layout::PRIVATE_DIR_MODE)?;
        let objects = Objects::open(store.dir(), building.try_clone()?, &NothingPublished, LinkPolicy::CopyIfNeeded)?;
        Seeding { store, objects: &objects, trees, source }.copy(root, path, &building)?;
        run.dir().sync_file_system()?;
        match building.rename_new("copy", &parent, &name) {
            Err(error) if error.is_io(std::io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error),
            Ok(()) => parent.sync()?,
        }
        remove::tree(run.dir(), format!("seed-{number}"))?;
    }
    Ok(())
}

/// Opens the directory that a shared path lies in, making what is missing above it.
fn parent_of(store: &SharedStore<'_>, path: &TreePath) -> Result<(Dir, Vec<u8>)> {
    let mut dir = store.root().ensure_dir(layout::SHARED, layout::PUBLIC_DIR_MODE)?;
    let components: Vec<&[u8]> = path.components().collect();
    let (name, above) = components.split_last().ok_or_else(|| Error::source(path, "the top cannot be shared"))?;
    for component in above {
        dir = rooted::create_dir(&dir, component, layout::PUBLIC_DIR_MODE)?;
    }
    Ok((dir, name.to_vec()))
}

struct Seeding<'a> {
    store: &'a SharedStore<'a>,
    objects: &'a Objects<'a>,
    trees: &'a TreeSet,
    source: Option<&'a Dir>,
}

impl Seeding<'_> {
    /// Copies what stands at `path` to `building/copy`.
    fn copy(&self, root: TreeId, path: &TreePath, building: &Dir) -> Result<()> {
        let lost = || Error::source(path, "is not part of this version");
        let mut tree = self.trees.get(&root).ok_or_else(lost)?;
        let components: Vec<&[u8]> = path.components().collect();
        let mut source = self.source.map(Dir::try_clone).transpose()?;
        for (depth, component) in components.iter().enumerate() {
            let entry = tree.get(component).ok_or_else(lost)?;
            if depth + 1 == components.len() {
                return self.entry(building, entry, source);
            }
            source = source.map(|source| source.open_dir(component)).transpose()?;
            let Node::Directory { tree: inner } = entry.node else { return Err(lost()) };
            tree = self.trees.get(&inner).ok_or_else(lost)?;
        }
        Err(lost())
    }

    /// Copies one entry to `building/copy` and, for a directory, all below it; state is small, so one thread does it.
    fn entry(&self, building: &Dir, entry: &crate::model::Entry, source: Option<Dir>) -> Result<()> {
        let mut stack = vec![(building.try_clone()?, b"copy".to_vec(), entry, source)];
        let mut finished: Vec<(Dir, Metadata)> = Vec::new();
        while let Some((dir, name, entry, source)) = stack.pop() {
            let applied = self.store.ownership().apply(&entry.metadata);
            match &entry.node {
                Node::File { .. } if source.as_ref().is_some_and(|source| link(source, entry, &dir, &name)) => {}
                Node::File { size: 0, .. } => {
                    let now = (crate::fsys::system::file_time_now().0, 0);
                    self.objects.place_empty(&applied, now, Spot { dir: &dir, name: &name })?;
                }
                Node::File { content, size } => {
                    let key = ObjectKey { content: *content, class: Sealed::of(&applied, None).class };
                    let now = (crate::fsys::system::file_time_now().0, 0);
                    self.objects.place_private(
                        &key,
                        &applied,
                        Recorded { size: *size, mtime: now },
                        Spot { dir: &dir, name: &name },
                    )?;
                }
                Node::Symlink { target } => {
                    dir.symlink_owned(target, &name, Some((applied.uid, applied.gid)))?;
                }
                Node::Directory { tree } => {
                    let inner = dir.create_dir(&name, layout::PRIVATE_DIR_MODE)?;
                    let source = source.map(|source| source.open_dir(&entry.name)).transpose()?;
                    for entry in self.trees.get(tree).map_or(&[][..], crate::model::Tree::entries) {
                        let source = source.as_ref().map(Dir::try_clone).transpose()?;
                        stack.push((inner.try_clone()?, entry.name.as_bytes().to_vec(), entry, source));
                    }
                    finished.push((inner, applied));
                }
            }
        }
        for (dir, applied) in finished.iter().rev() {
            let path = || dir.path().to_owned();
            file::dress(dir, applied, self.objects.fresh(), path)?;
            file::set_mode(dir, applied.mode, path)?;
        }
        Ok(())
    }
}

/// Gives a file of the source a second name. Not one that has other names already: those may be objects.
fn link(source: &Dir, entry: &crate::model::Entry, dir: &Dir, name: &[u8]) -> bool {
    source.try_stat(&entry.name).is_ok_and(|stat| stat.is_some_and(|stat| stat.links == 1))
        && source.link(&entry.name, dir, name).is_ok()
}
