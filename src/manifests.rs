//! `store/manifests/`: one immutable file per published version.
//!
//! **Invariant:** a manifest appears under its version's name whole and durable, and is never rewritten.

use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, Stat, block, durable, memory, remove};
use crate::layout;
use crate::model::codec::DecodeError;
use crate::model::manifest::{
    MANIFEST_HEAD_BYTES, MODEST_BODY_BYTES, Step, body_of, checksum_of, claimed_bytes, facts_of, walk_body,
};
use crate::model::{Digest, Facts, Manifest, VersionName};

/// Of the memory that is available, a body may take one part in so many: its trees are decoded beside it.
const SHARE_OF_MEMORY: u64 = 3;

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
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`] if it cannot be trusted, [`Error::Newer`] if this build
    /// is too old for it.
    pub fn read(&self, name: &VersionName) -> Result<Manifest> {
        self.decode(name, Manifest::decode_body, |manifest| &manifest.facts.name)
    }

    /// Reads a version's facts and digest; its trees are passed over, and take no memory.
    ///
    /// # Errors
    ///
    /// As [`Manifests::read`].
    pub fn facts(&self, name: &VersionName) -> Result<(Facts, Digest)> {
        let bytes = self.file(name)?;
        let (facts, root) = match facts_of(&bytes) {
            // They are longer than what is kept of a body, or it is damaged.
            Err(DecodeError::Truncated { .. }) => {
                return self.walk_body(name, &self.expanded(name, &bytes)?, |_, _| {});
            }
            read => read.map_err(|error| self.unreadable(name, &error))?,
        };
        self.expect_name(name, &facts.name)?;
        Ok((facts, Digest(root)))
    }

    /// Walks through a version's manifest, as [`walk_body`] does; gives its facts and digest.
    ///
    /// # Errors
    ///
    /// As [`Manifests::read`]. Then what was told proves nothing.
    pub fn walk(&self, name: &VersionName, tell: impl FnMut(&Facts, Step<'_>)) -> Result<(Facts, Digest)> {
        self.walk_body(name, &self.body(name)?, tell)
    }

    /// Reads what [`Manifests::walk_body`] walks through: a version's manifest without the file around it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`] if it is damaged, [`Error::Newer`] if its format is newer.
    pub fn body(&self, name: &VersionName) -> Result<Vec<u8>> {
        self.expanded(name, &self.file(name)?)
    }

    fn file(&self, name: &VersionName) -> Result<Vec<u8>> {
        let bytes = self.dir.try_read(name).map_err(|error| match self.dir.try_stat(name) {
            Ok(Some(stat)) if stat.kind != Kind::File => self.damaged(name, format!("it is {}", stat.kind.describe())),
            _ => error,
        })?;
        bytes.ok_or_else(|| Error::NotFound { what: "version", name: name.to_string() })
    }

    fn expanded(&self, name: &VersionName, bytes: &[u8]) -> Result<Vec<u8>> {
        let claimed = claimed_bytes(bytes).map_err(|error| self.unreadable(name, &error))?;
        self.expect_memory(name, claimed)?;
        body_of(bytes).map_err(|error| self.unreadable(name, &error))
    }

    /// A manifest that this machine has no memory for is refused with a reason, before the kernel kills the process.
    fn expect_memory(&self, name: &VersionName, claimed: u64) -> Result<()> {
        if claimed <= MODEST_BODY_BYTES {
            return Ok(());
        }
        match memory::available() {
            Some(available) if claimed > available / SHARE_OF_MEMORY => {
                let said =
                    format!("it claims {claimed} bytes, more than there is memory for ({available} are available)");
                Err(Error::io("read the manifest", self.dir.path_of(name), std::io::Error::other(said)))
            }
            _ => Ok(()),
        }
    }

    /// Walks through the body of a version's manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it cannot be trusted, [`Error::Newer`] as above. Then what was told proves nothing.
    pub fn walk_body(
        &self,
        name: &VersionName,
        body: &[u8],
        tell: impl FnMut(&Facts, Step<'_>),
    ) -> Result<(Facts, Digest)> {
        let read = |body: &[u8]| walk_body(body, tell).map(|(facts, root)| (facts, Digest(root)));
        self.decode_body(name, body, read, |(facts, _)| &facts.name)
    }

    /// The checksum of a version's manifest in hexadecimal digits, as its head has it; whoever reads the body compares it
    /// with that. `None` if the file is no manifest of this format.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn checksum(&self, name: &VersionName) -> Result<Option<String>> {
        block::beginning(&self.dir, name.as_str(), MANIFEST_HEAD_BYTES as u64).map(|head| checksum_of(&head))
    }

    fn unreadable(&self, name: &VersionName, error: &DecodeError) -> Error {
        match error {
            DecodeError::Newer { .. } => {
                Error::Newer { what: "manifest", path: self.dir.path_of(name), detail: error.to_string() }
            }
            _ => self.damaged(name, error.to_string()),
        }
    }

    fn damaged(&self, name: &VersionName, detail: String) -> Error {
        Error::corrupt("manifest", self.dir.path_of(name), detail)
    }

    fn decode<T>(
        &self,
        name: &VersionName,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
        named: impl FnOnce(&T) -> &VersionName,
    ) -> Result<T> {
        self.decode_body(name, &self.body(name)?, decode, named)
    }

    fn decode_body<T>(
        &self,
        name: &VersionName,
        body: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
        named: impl FnOnce(&T) -> &VersionName,
    ) -> Result<T> {
        let decoded = decode(body).map_err(|error| self.unreadable(name, &error))?;
        self.expect_name(name, named(&decoded))?;
        Ok(decoded)
    }

    fn expect_name(&self, name: &VersionName, found: &VersionName) -> Result<()> {
        match found == name {
            true => Ok(()),
            false => Err(self.damaged(name, format!("it is the manifest of {found}"))),
        }
    }

    /// What the file looks like, or `None` if there is none.
    pub fn stat(&self, name: &VersionName) -> Result<Option<Stat>> {
        self.dir.try_stat(name)
    }

    /// Publishes a manifest durably under a name that must be free.
    pub fn publish(&self, manifest: &Manifest) -> Result<()> {
        self.publish_encoded(&manifest.facts.name, &manifest.encode())
    }

    /// The same for a manifest that was encoded before.
    pub fn publish_encoded(&self, name: &VersionName, encoded: &[u8]) -> Result<()> {
        durable::write_new(&self.dir, name.as_str(), encoded, layout::PUBLIC_FILE_MODE)
    }

    /// Puts a manifest that was lost or damaged back, durably, in the place of whatever has its name.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] if what has its name is not damaged but newer: then it stays. What the system refuses.
    pub fn restore(&self, manifest: &Manifest) -> Result<()> {
        let name = manifest.facts.name.as_str();
        if let Err(error @ Error::Newer { .. }) = self.facts(&manifest.facts.name) {
            return Err(error);
        }
        if self.dir.try_stat(name)?.is_some_and(|stat| stat.kind == Kind::Directory) {
            remove::tree(&self.dir, name)?;
        }
        durable::write(&self.dir, name, &manifest.encode(), layout::PUBLIC_FILE_MODE)
    }

    /// Removes a manifest durably; one that is gone is fine.
    pub fn remove(&self, name: &VersionName) -> Result<()> {
        self.dir.remove_file_if_present(name)?;
        self.dir.sync()
    }
}
