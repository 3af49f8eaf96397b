//! Looking into a version: what is at a path, and what is in a file.
//!
//! What is told is what was recorded, not what may have become of the tree since: `verify` looks at that.

use std::io::Write;

use super::contents::{Contents, Wanted};
use crate::error::{Error, Refusal, Result};
use crate::index::Reader;
use crate::model::diff::TreeSource;
use crate::model::{Digest, Entry, Node, Selector, TreeId, TreePath, VersionName};
use crate::store::Store;

/// How far down a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Depth {
    /// A directory's own entries.
    #[default]
    One,
    /// Everything below it.
    All,
}

/// What is at a path of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The version.
    pub version: VersionName,
    /// Its digest.
    pub digest: Digest,
    /// A directory's entries by their paths from the top, each before what is in it; or the one entry at the path.
    pub entries: Vec<(TreePath, Entry)>,
}

/// Lists what is at `path`.
///
/// # Errors
///
/// As [`published`]; [`Error::NotFound`] for a path that the version does not have.
pub fn list(store: &Store, version: &Selector, path: &TreePath, depth: Depth) -> Result<Listing> {
    let (version, digest) = published(store, version)?;
    let entries = store.ask(|reader| match entry_at(reader, digest, path)? {
        Some(entry) => match entry.node {
            Node::Directory { tree } => below(reader, tree, path, depth).map(Some),
            _ => Ok(Some(vec![(path.clone(), entry)])),
        },
        None if path.is_top() => below(reader, digest.0, path, depth).map(Some),
        None => Ok(None),
    })?;
    match entries {
        Some(entries) => Ok(Listing { version, digest, entries }),
        None => Err(no_such_path(&version, path)),
    }
}

/// Writes the bytes of the file at `path` to `out`, as they were when it was imported. A symbolic link is not followed.
///
/// # Errors
///
/// - as [`published`]; [`Error::NotFound`] for a path that the version does not have;
/// - [`Error::Refused`] for what is no file;
/// - [`Error::Corrupt`] if the bytes are nowhere to be found intact: see [`Contents::write`].
pub fn cat(store: &Store, version: &Selector, path: &TreePath, out: &mut dyn Write) -> Result<()> {
    let (version, digest) = published(store, version)?;
    let entry = store.ask(|reader| entry_at(reader, digest, path))?;
    let no_file =
        |what: &str| Err(Error::refused(Refusal::UnsupportedSource, format!("{path} in {version} is {what}")));
    match entry {
        None if path.is_top() => no_file("a directory"),
        None => Err(no_such_path(&version, path)),
        Some(Entry { metadata, node: Node::File { content, size }, .. }) => {
            let wanted = Wanted { version: &version, path, metadata: &metadata, content, size };
            Contents::of(store)?.write(wanted, out)
        }
        Some(Entry { node: Node::Directory { .. }, .. }) => no_file("a directory"),
        Some(Entry { node: Node::Symlink { target }, .. }) => {
            no_file(&format!("a symbolic link to {}, which is not followed", crate::error::Shown::bytes(&target)))
        }
    }
}

/// The version that is meant, which must be managed, and its digest.
///
/// # Errors
///
/// As [`Store::resolve`]; [`Error::Refused`] for a directory that was made by hand; [`Error::Corrupt`] if the manifest
/// cannot be trusted.
pub fn published(store: &Store, version: &Selector) -> Result<(VersionName, Digest)> {
    let name = store.resolve(version)?;
    if let Some(indexed) = store.ask(|reader| reader.version(&name))? {
        return Ok((name, indexed.digest));
    }
    match store.manifests()?.read(&name) {
        Ok(manifest) => Ok((name, manifest.digest())),
        Err(Error::NotFound { .. }) => Err(Error::refused_with(
            Refusal::NotAllowed,
            format!("{name} was made by hand, so nothing is recorded of what is in it"),
            format!("take it under management with: tope-store adopt {name}"),
        )),
        Err(error) => Err(error),
    }
}

fn no_such_path(version: &VersionName, path: &TreePath) -> Error {
    Error::NotFound { what: "path", name: format!("{path} in {version}") }
}

/// The entry at a path, every tree on the way compared with its id; `None` for the top.
fn entry_at(reader: &Reader<'_>, digest: Digest, path: &TreePath) -> Result<Option<Entry>> {
    let (mut tree, mut found) = (Some(digest.0), None);
    for name in path.components() {
        let Some(id) = tree else { return Ok(None) };
        let Some(entry) = TreeSource::tree(reader, &id)?.get(name).cloned() else { return Ok(None) };
        tree = match entry.node {
            Node::Directory { tree } => Some(tree),
            _ => None,
        };
        found = Some(entry);
    }
    Ok(found)
}

/// The entries of a tree by their paths.
fn below(reader: &Reader<'_>, tree: TreeId, path: &TreePath, depth: Depth) -> Result<Vec<(TreePath, Entry)>> {
    let entries =
        |tree: TreeId| Ok::<_, Error>(TreeSource::tree(reader, &tree)?.into_owned().into_entries().into_iter());
    let (mut all, mut path, mut stack) = (Vec::new(), path.clone(), vec![entries(tree)?]);
    while let Some(level) = stack.last_mut() {
        let Some(entry) = level.next() else {
            stack.pop();
            path.pop();
            continue;
        };
        path.push(&entry.name);
        let descend = match entry.node {
            Node::Directory { tree } if depth == Depth::All => Some(tree),
            _ => None,
        };
        all.push((path.clone(), entry));
        match descend {
            Some(tree) => stack.push(entries(tree)?),
            None => path.pop(),
        }
    }
    Ok(all)
}
