//! Where good bytes come from when the store has none left: a directory, an archive, or another store.
//!
//! Nothing from there is believed: bytes are compared with the hash that is wanted while they are copied, trees with
//! the digest that the history knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::archive::{self, Limits, MemberKind, TreeBuilder};
use crate::error::{Error, Result};
use crate::fsys::{Dir, file};
use crate::hash;
use crate::layout;
use crate::manifests::Manifests;
use crate::model::{ContentId, Digest, Manifest, ObjectKey, TreeId, TreeSet};
use crate::observe::{self, Observer};
use crate::ops::import::digest;
use crate::scan;
use crate::store::Store;

/// Contents that are wanted, with their sizes.
pub(super) type Wanted = BTreeMap<ContentId, u64>;

/// A file that may hold some content: to be compared when it is used.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// The directory it lies in.
    pub dir: PathBuf,
    /// Its name there.
    pub name: Vec<u8>,
}

/// What was given as a source.
#[derive(Debug)]
pub(super) enum Source {
    /// A directory that holds a release.
    Directory(PathBuf),
    /// An archive of one, and its bounds.
    Archive(PathBuf, Limits),
    /// The root of another store.
    Store(PathBuf),
}

impl Source {
    /// Looks what stands at this path.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(super) fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let dir = match Dir::open(path) {
            Ok(dir) => dir,
            Err(error) if error.is_io(std::io::ErrorKind::NotADirectory) => {
                file::open_source(path)?;
                return Ok(Self::Archive(path.to_owned(), limits.clone()));
            }
            Err(error) => return Err(error),
        };
        let store = dir.try_open_dir(layout::STORE).ok().flatten();
        let is_store = store.is_some_and(|store| {
            [layout::OBJECTS, layout::MANIFESTS]
                .iter()
                .all(|name| store.try_stat(name).is_ok_and(|stat| stat.is_some()))
        });
        Ok(if is_store { Self::Store(path.to_owned()) } else { Self::Directory(path.to_owned()) })
    }

    /// Finds files that may hold the contents that are wanted. What an archive holds is copied into `aside`.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; the source cannot be read.
    pub(super) fn find(
        &self,
        store: &Store,
        wanted: &Wanted,
        aside: &Dir,
        observer: &dyn Observer,
    ) -> Result<BTreeMap<ContentId, Vec<Candidate>>> {
        let mut found: BTreeMap<ContentId, Vec<Candidate>> = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        match self {
            Self::Directory(path) => in_directory(store, &Dir::open(path)?, wanted, &mut found, observer)?,
            Self::Archive(path, limits) => in_archive((path, limits), wanted, aside, &mut found, observer)?,
            Self::Store(path) => {
                let root = Dir::open(path)?;
                in_objects(&root.open_dir(layout::STORE)?.open_dir(layout::OBJECTS)?, wanted, &mut found)?;
                if found.len() < wanted.len() {
                    in_directory(store, &root.open_dir(layout::VERSIONS)?, wanted, &mut found, observer)?;
                }
            }
        }
        Ok(found)
    }

    /// The trees of the version with this digest, if they are there; from another store with its manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; the source cannot be read.
    pub(super) fn trees(
        &self,
        store: &Store,
        digest: Digest,
        observer: &dyn Observer,
    ) -> Result<Option<(TreeSet, Option<Manifest>)>> {
        let only = |root: TreeId, trees: TreeSet| (Digest(root) == digest).then_some((trees, None));
        match self {
            Self::Directory(path) => {
                let digested = digest::directory(store, &Dir::open(path)?, observer)?;
                Ok(only(digested.root, digested.trees))
            }
            Self::Archive(path, limits) => {
                let mut builder = TreeBuilder::new(limits);
                let mut visit = |member: archive::Member<'_>| match member.kind {
                    MemberKind::File { reader, .. } => {
                        observe::check(observer)?;
                        let hashed = hash::stream(reader, hash::Threads::One);
                        Ok(Some(hashed.map_err(|error| Error::io("read", path, error))?.0))
                    }
                    _ => Ok(None),
                };
                let input = archive::Input::File(file::open_source(path)?);
                let _summary = archive::read(input, limits, &mut builder, &mut visit)?;
                let built = builder.finish()?;
                Ok(only(built.root, built.trees))
            }
            Self::Store(path) => {
                let manifests = Manifests::open(&Dir::open(path)?.open_dir(layout::STORE)?)?;
                for name in manifests.names()? {
                    if let Ok(manifest) = manifests.read(&name)
                        && manifest.digest() == digest
                    {
                        return Ok(Some((manifest.trees.clone(), Some(manifest))));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Hashes every file that has one of the sizes that are wanted.
fn in_directory(
    store: &Store,
    top: &Dir,
    wanted: &Wanted,
    found: &mut BTreeMap<ContentId, Vec<Candidate>>,
    observer: &dyn Observer,
) -> Result<()> {
    let scan = store.in_pool(|| scan::scan(top, observer))??;
    for directory in &scan.directories {
        let files = directory.files.iter().filter(|file| file.stat.kind == crate::fsys::Kind::File);
        for file in files.filter(|file| wanted.values().any(|size| *size == file.stat.size)) {
            observe::check(observer)?;
            let dir = top.open_below(&directory.path)?;
            let Ok(opened) = dir.open_file(&file.name) else { continue };
            let Ok((content, _)) = hash::stream(&opened, hash::Threads::One) else { continue };
            if wanted.contains_key(&content) {
                let candidate = Candidate { dir: dir.path().to_owned(), name: file.name.as_bytes().to_vec() };
                found.entry(content).or_default().push(candidate);
            }
        }
    }
    Ok(())
}

fn in_archive(
    (path, limits): (&Path, &Limits),
    wanted: &Wanted,
    aside: &Dir,
    found: &mut BTreeMap<ContentId, Vec<Candidate>>,
    observer: &dyn Observer,
) -> Result<()> {
    let mut number = 0_u64;
    let mut visit = |member: archive::Member<'_>| {
        let MemberKind::File { size, reader, .. } = member.kind else { return Ok(None) };
        observe::check(observer)?;
        let unread = |error| Error::io("read", path, error);
        if !wanted.values().any(|wanted| *wanted == size) {
            return Ok(Some(hash::stream(reader, hash::Threads::One).map_err(unread)?.0));
        }
        let name = format!("from-archive-{number}");
        number += 1;
        let mut copy = aside.create_file(&name, 0o600)?;
        let (content, _) = hash::copy(reader, &mut copy, hash::Threads::One).map_err(unread)?;
        if wanted.contains_key(&content) && !found.contains_key(&content) {
            let candidate = Candidate { dir: aside.path().to_owned(), name: name.into_bytes() };
            found.entry(content).or_default().push(candidate);
        } else {
            aside.remove_file(&name)?;
        }
        Ok(Some(content))
    };
    let mut builder = TreeBuilder::new(limits);
    let input = archive::Input::File(file::open_source(path)?);
    archive::read(input, limits, &mut builder, &mut visit).map(drop)
}

/// Finds objects with the contents that are wanted, whatever their mode and owner.
pub(super) fn in_objects(
    objects: &Dir,
    wanted: &Wanted,
    found: &mut BTreeMap<ContentId, Vec<Candidate>>,
) -> Result<()> {
    let fans: std::collections::BTreeSet<String> =
        wanted.keys().map(|content| content.to_hex()[..2].to_owned()).collect();
    for fan in fans {
        let Ok(dir) = objects.open_dir(&fan) else { continue };
        for item in dir.items()? {
            let key = ObjectKey::parse(fan.as_bytes(), item.name.as_bytes());
            if let Some(content) = key.map(|key| key.content).filter(|content| wanted.contains_key(content)) {
                let candidate = Candidate { dir: dir.path().to_owned(), name: item.name.as_bytes().to_vec() };
                found.entry(content).or_default().push(candidate);
            }
        }
    }
    Ok(())
}
