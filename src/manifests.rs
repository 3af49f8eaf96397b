//! `store/manifests/`: one immutable file per published version.
//!
//! **Invariant:** a manifest appears under its version's name whole and durable, and is never rewritten.

use crate::error::{Error, Result};
use crate::fsys::{Dir, Stat, durable};
use crate::layout;
use crate::model::{Manifest, VersionName};

/// The directory of manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: Dir,
}

impl Manifests {
    /// The manifests of the store directory `store`.
    pub fn open(store: &Dir) -> Result<Self> {
        Ok(Self { dir: store.open_dir(layout::MANIFESTS)? })
    }

    /// Names of all versions that have one, in order. Files that cannot be a version's are passed over.
    pub fn names(&self) -> Result<Vec<VersionName>> {
        let items = self.dir.items()?;
        let names = items.iter().filter_map(|item| {
            let name: VersionName = std::str::from_utf8(item.name.as_bytes()).ok()?.parse().ok()?;
            (name.as_str().as_bytes() == item.name.as_bytes()).then_some(name)
        });
        let mut names: Vec<VersionName> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Reads a version's manifest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`] if it cannot be trusted.
    pub fn read(&self, name: &VersionName) -> Result<Manifest> {
        let bytes = self.dir.try_read(name)?;
        let bytes = bytes.ok_or_else(|| Error::NotFound { what: "version", name: name.to_string() })?;
        let damaged = |detail: String| Error::corrupt("manifest", self.dir.path_of(name), detail);
        let manifest = Manifest::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.facts.name != *name {
            return Err(damaged(format!("it is the manifest of {}", manifest.facts.name)));
        }
        Ok(manifest)
    }

    /// What the file looks like, or `None` if there is none.
    pub fn stat(&self, name: &VersionName) -> Result<Option<Stat>> {
        self.dir.try_stat(name)
    }

    /// Publishes a manifest durably under a name that must be free.
    pub fn publish(&self, manifest: &Manifest) -> Result<()> {
        durable::write_new(&self.dir, manifest.facts.name.as_str(), &manifest.encode(), layout::PUBLIC_FILE_MODE)
    }

    /// Removes a manifest durably; one that is gone is fine.
    pub fn remove(&self, name: &VersionName) -> Result<()> {
        self.dir.remove_file_if_present(name)?;
        self.dir.sync()
    }
}
