//! Putting one file into a tree.
//!
//! A file whose object is trusted costs one look and one link. A new one is written at its final place in the tree
//! that is being built, and that inode is then linked into `objects/`: no copy, no rename.

use std::fs::File;
use std::io::{self, Write};

use super::blamed::Blamed;
use super::check;
use super::trust::{self, Suspect};
use super::{LinkPolicy, Objects, Recorded};
use crate::error::{Error, Result};
use crate::fsys::{Dir, file};
use crate::hash;
use crate::model::{ContentId, InodeClass, ObjectKey, Sealed};

/// A place for a file: a directory and a free name in it.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// The name.
    pub name: &'a [u8],
}

impl Spot<'_> {
    pub(super) fn path(&self) -> std::path::PathBuf {
        self.dir.path_of(self.name)
    }
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its object.
    pub key: ObjectKey,
    /// Size and modification time of the object.
    pub recorded: Recorded,
    /// How it got there.
    pub how: How,
}

/// How a file got to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// A new object was made, and the file is a link to it.
    New,
    /// A new object was made by sharing the source's blocks.
    NewReflinked,
    /// A link to an object that was there.
    Linked,
    /// A copy, since no link could be made here.
    Copied,
}

/// Bytes that wait in staging until it is known what object they become. Goes with the run's staging.
#[derive(Debug)]
#[must_use = "what is staged takes space until it is placed or discarded"]
pub struct Staged {
    /// Their hash.
    pub content: ContentId,
    /// How many they are.
    pub size: u64,
    name: String,
}

/// What a new inode is to look like.
#[derive(Debug, Clone, Copy)]
pub struct Dress<'a> {
    /// Sealed metadata and class.
    pub sealed: &'a Sealed,
    /// Modification time if a new object is made.
    pub mtime: (i64, u32),
    /// How many threads may hash it.
    pub threads: hash::Threads,
}

impl Objects<'_> {
    /// Links a trusted, intact object to a place. `None` if there is none: the caller makes it from its bytes.
    pub fn place_known(&self, key: &ObjectKey, spot: Spot<'_>) -> Result<Option<Placed>> {
        let Some(recorded) = self.recorded(key)? else { return Ok(None) };
        let name = key.path();
        let placed = |how| Some(Placed { key: key.clone(), recorded, how });
        match self.dir.link(&name, spot.dir, spot.name) {
            Ok(()) => {}
            Err(error) if is_fan_missing(&error) => return Ok(None),
            // Not linked, whatever the reason: what is copied or rotated is looked at before.
            Err(_) if !self.is_intact(key, &name, &recorded)? => return Ok(None),
            Err(error) => return Ok(self.link_otherwise(error, key, &name, spot)?.and_then(placed)),
        }
        // An object that was written to through one of its links must not spread. What is looked at is what was linked,
        // and nobody else sees the place yet.
        if check::by_stat(&spot.dir.stat(spot.name)?, key, Some(&recorded)).is_ok() {
            return Ok(placed(How::Linked));
        }
        spot.dir.remove_file(spot.name)?;
        Ok(None)
    }

    /// What is recorded of an object that this run made or rehashed, or that is published; `None` for any other.
    pub fn recorded(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        match self.known.get(key) {
            Some(recorded) => Ok(Some(recorded)),
            None => self.published.lookup(key),
        }
    }

    pub(super) fn is_intact(&self, key: &ObjectKey, name: &str, recorded: &Recorded) -> Result<bool> {
        Ok(self.look(name)?.is_some_and(|stat| check::by_stat(&stat, key, Some(recorded)).is_ok()))
    }

    /// Whether an object is trusted and intact by one look.
    pub fn is_known(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        let Some(recorded) = self.recorded(key)? else { return Ok(None) };
        Ok(self.is_intact(key, &key.path(), &recorded)?.then_some(recorded))
    }

    /// Makes an object of bytes that are in memory, hashed to `content`, and have no place in a tree yet; one that is
    /// there already is only looked at.
    pub fn keep_bytes(&self, bytes: &[u8], content: ContentId, dress: Dress<'_>) -> Result<Placed> {
        let key = ObjectKey { content, class: dress.sealed.class.clone() };
        if let Some(recorded) = self.is_known(&key)? {
            return Ok(Placed { key, recorded, how: How::Linked });
        }
        let (dir, name) = self.aside();
        let placed = self.place_bytes(bytes, content, dress, Spot { dir, name: name.as_bytes() })?;
        dir.remove_file(&name)?;
        Ok(placed)
    }

    /// Puts bytes that are in memory, hashed to `content`, to a place.
    pub fn place_bytes(&self, bytes: &[u8], content: ContentId, dress: Dress<'_>, spot: Spot<'_>) -> Result<Placed> {
        let key = ObjectKey { content, class: dress.sealed.class.clone() };
        if let Some(placed) = self.place_known(&key, spot)? {
            return Ok(placed);
        }
        let mut made = spot.dir.create_file(spot.name, dress.sealed.metadata.mode)?;
        made.write_all(bytes).map_err(|error| Error::io("write", spot.path(), error))?;
        self.finish(&made, key, bytes.len() as u64, How::New, dress, spot)
    }

    /// Puts a stream to a place, hashing it on the way. Used where the bytes cannot be looked at twice.
    ///
    /// `source_error` names the source in an error of reading.
    pub fn place_stream(
        &self,
        from: &mut dyn io::Read,
        dress: Dress<'_>,
        spot: Spot<'_>,
        source_error: &dyn Fn(io::Error) -> Error,
    ) -> Result<Placed> {
        let made = spot.dir.create_file(spot.name, dress.sealed.metadata.mode)?;
        let mut to = Blamed { file: &made, failed: None };
        let copied = hash::copy(from, &mut to, dress.threads);
        let (content, size) = match (copied, to.failed) {
            (_, Some(error)) => return Err(Error::io("write", spot.path(), error)),
            (Err(error), None) => return Err(source_error(error)),
            (Ok(copied), None) => copied,
        };
        let key = ObjectKey { content, class: dress.sealed.class.clone() };
        self.keep_or_link(&made, key, size, How::New, dress, spot)
    }

    /// Writes a stream aside, hashed, without making an object of it.
    pub fn stage(
        &self,
        from: &mut dyn io::Read,
        threads: hash::Threads,
        source_error: &dyn Fn(io::Error) -> Error,
    ) -> Result<Staged> {
        let name = self.staging_name();
        let made = self.staging.create_file(&name, 0o600)?;
        let mut to = Blamed { file: &made, failed: None };
        let copied = hash::copy(from, &mut to, threads);
        match (copied, to.failed) {
            (_, Some(error)) => Err(Error::io("write", self.staging.path_of(&name), error)),
            (Err(error), None) => Err(source_error(error)),
            (Ok((content, size)), None) => Ok(Staged { content, size, name }),
        }
    }

    /// Makes an object of what was staged: that very inode, dressed.
    pub fn place_staged(&self, staged: Staged, dress: Dress<'_>) -> Result<Placed> {
        let spot = Spot { dir: &self.staging, name: staged.name.as_bytes() };
        let made = spot.dir.open_file(spot.name)?;
        // Dressing starts from an inode that was created with its mode.
        file::set_mode(spot.dir.holding(&made), dress.sealed.metadata.mode, || spot.path())?;
        let key = ObjectKey { content: staged.content, class: dress.sealed.class.clone() };
        let placed = self.finish(&made, key, staged.size, How::New, dress, spot)?;
        self.discard(staged)?;
        Ok(placed)
    }

    /// Drops what was staged.
    #[allow(clippy::needless_pass_by_value)]
    pub fn discard(&self, staged: Staged) -> Result<()> {
        self.staging.remove_file(&staged.name)
    }

    /// Puts a clone of `source` to a place by sharing its blocks; `None` where the file system cannot.
    ///
    /// The clone is what is hashed: nobody else can write it, so the bytes hashed are the bytes stored.
    pub fn place_clone(&self, source: &File, dress: Dress<'_>, spot: Spot<'_>) -> Result<Option<Placed>> {
        let made = spot.dir.create_file(spot.name, dress.sealed.metadata.mode)?;
        if !file::reflink(source, &made, &spot.path())? {
            spot.dir.remove_file(spot.name)?;
            return Ok(None);
        }
        let size = crate::fsys::stat::stat_file(&made, || spot.path())?.size;
        let content =
            hash::map::private(&made, size, dress.threads).map_err(|error| Error::io("read", spot.path(), error))?;
        let key = ObjectKey { content, class: dress.sealed.class.clone() };
        self.keep_or_link(&made, key, size, How::NewReflinked, dress, spot).map(Some)
    }

    /// A file was written and turned out to have this key: keep it as the object, or link the object that is there.
    fn keep_or_link(
        &self,
        made: &File,
        key: ObjectKey,
        size: u64,
        how: How,
        dress: Dress<'_>,
        spot: Spot<'_>,
    ) -> Result<Placed> {
        if self.recorded(&key)?.is_some() {
            // Until it is clear that the object can be linked, the bytes are kept.
            let aside = self.staging_name();
            spot.dir.rename(spot.name, &self.staging, &aside)?;
            if let Some(placed) = self.place_known(&key, spot)? {
                self.staging.remove_file(&aside)?;
                return Ok(placed);
            }
            self.staging.rename(&aside, spot.dir, spot.name)?;
        }
        self.finish(made, key, size, how, dress, spot)
    }

    /// What stands under an object's name, if anything.
    pub(super) fn look(&self, name: &str) -> Result<Option<crate::fsys::Stat>> {
        match self.dir.try_stat(name) {
            Err(error) if is_fan_missing(&error) => Ok(None),
            other => other,
        }
    }

    /// Makes the directory that an object's name lies in, in the place of whatever else is there.
    pub(super) fn make_fan(&self, name: &str) -> Result<()> {
        let fan = &name[..2];
        if self.dir.try_stat(fan)?.is_some_and(|stat| stat.kind != crate::fsys::Kind::Directory) {
            tracing::warn!(fan, "replacing what stands in the place of a directory of objects");
            self.dir.remove_file_if_present(fan)?;
        }
        self.dir.ensure_dir(fan, crate::layout::PRIVATE_DIR_MODE).map(drop)
    }

    /// Links an object to a place; rotates it where its link count is full, copies it where links cannot be made.
    /// `None` if there is no such object.
    pub(super) fn link_or_copy(&self, key: &ObjectKey, name: &str, spot: Spot<'_>) -> Result<Option<How>> {
        match self.dir.link(name, spot.dir, spot.name) {
            Ok(()) => Ok(Some(How::Linked)),
            Err(error) => self.link_otherwise(error, key, name, spot),
        }
    }

    /// What is left when an object could not be linked for this reason.
    fn link_otherwise(&self, error: Error, key: &ObjectKey, name: &str, spot: Spot<'_>) -> Result<Option<How>> {
        if error.is_io(io::ErrorKind::NotFound) {
            Ok(None)
        } else if error.raw_os_error() == Some(libc::EMLINK) {
            self.link_rotated(key, name, spot)?;
            Ok(Some(How::Linked))
        } else if self.may_copy(&error) {
            self.copy_out(key, name, spot)?;
            Ok(Some(How::Copied))
        } else {
            Err(error)
        }
    }

    pub(super) fn may_copy(&self, error: &Error) -> bool {
        self.links == LinkPolicy::CopyIfNeeded
            && matches!(error.raw_os_error(), Some(libc::EPERM | libc::EXDEV | libc::EOPNOTSUPP | libc::EMLINK))
    }

    /// Copies an object to a place.
    fn copy_out(&self, key: &ObjectKey, name: &str, spot: Spot<'_>) -> Result<()> {
        let object = self.dir.open_file(name)?;
        let stat = crate::fsys::stat::stat_file(&object, || self.dir.path_of(name))?;
        let InodeClass { mode, uid, gid, .. } = key.class;
        let xattrs = file::xattrs(&object, || self.dir.path_of(name))?;
        let metadata = crate::model::Metadata { mode, uid, gid, xattrs };
        self.copy_file(&object, spot, &metadata, Recorded { size: stat.size, mtime: stat.mtime })
    }

    /// Copies a file, by sharing blocks where that is possible, and dresses the copy.
    pub(super) fn copy_file(
        &self,
        from: &File,
        spot: Spot<'_>,
        metadata: &crate::model::Metadata,
        recorded: Recorded,
    ) -> Result<()> {
        use io::Seek;
        let mut to = spot.dir.create_file(spot.name, metadata.mode)?;
        if !file::reflink(from, &to, &spot.path())? {
            let copied = (&*from).rewind().and_then(|()| io::copy(&mut &*from, &mut to));
            copied.map_err(|error| Error::io("copy to", spot.path(), error))?;
        }
        file::dress(spot.dir.holding(&to), metadata, &self.fresh, || spot.path())?;
        file::set_mtime(spot.dir.holding(&to), recorded.mtime, || spot.path())
    }

    /// Puts a writable file of its own to a place: a private copy of an object, with its mode as recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for a revoked object that this run did not make again; what the system refuses.
    pub fn place_private(
        &self,
        key: &ObjectKey,
        metadata: &crate::model::Metadata,
        recorded: Recorded,
        spot: Spot<'_>,
    ) -> Result<()> {
        if self.known.get(key).is_none() && self.published.revoked(key)?.is_some() {
            return Err(Error::corrupt("object", self.path_of(key), trust::REVOKED));
        }
        let object = self.dir.open_file(key.path())?;
        self.copy_file(&object, spot, metadata, recorded)
    }

    /// Puts a sealed copy with an inode of its own to a place. Hashed while it is copied, unless blocks are shared.
    pub fn place_copy(&self, key: &ObjectKey, recorded: Recorded, share_blocks: bool, spot: Spot<'_>) -> Result<()> {
        let name = key.path();
        let object = self.dir.open_file(&name)?;
        let path = || self.dir.path_of(&name);
        let xattrs = file::xattrs(&object, path)?;
        let suspect = || crate::fsys::stat::stat_file(&object, path).map(|stat| self.suspect(Suspect::new(key, &stat)));
        if check::digest(&xattrs) != key.class.xattrs {
            suspect()?;
            return Err(Error::corrupt("object", path(), check::Fault::Xattrs.to_string()));
        }
        let InodeClass { mode, uid, gid, .. } = key.class;
        let mut copy = spot.dir.create_file(spot.name, mode)?;
        if !(share_blocks && file::reflink(&object, &copy, &spot.path())?) {
            let copied = hash::copy(&object, &mut copy, hash::Threads::One);
            let (content, _) = copied.map_err(|error| Error::io("copy to", spot.path(), error))?;
            if content != key.content {
                suspect()?;
                return Err(Error::corrupt("object", path(), check::Fault::Content.to_string()));
            }
        }
        let metadata = crate::model::Metadata { mode, uid, gid, xattrs };
        file::dress(spot.dir.holding(&copy), &metadata, &self.fresh, || spot.path())?;
        file::set_mtime(spot.dir.holding(&copy), recorded.mtime, || spot.path())
    }

    /// Makes an object of another class from one with the same bytes.
    pub fn derive(&self, from: &ObjectKey, dress: Dress<'_>) -> Result<Placed> {
        let source = self.dir.open_file(from.path())?;
        let (dir, name) = self.aside();
        let spot = Spot { dir, name: name.as_bytes() };
        let placed = match self.place_clone(&source, dress, spot)? {
            Some(placed) => placed,
            None => {
                self.place_stream(&mut &source, dress, spot, &|error| Error::io("read", self.path_of(from), error))?
            }
        };
        dir.remove_file(&name)?;
        Ok(placed)
    }

    /// Where an object lies; for messages.
    pub fn path_of(&self, key: &ObjectKey) -> std::path::PathBuf {
        self.dir.path_of(key.path())
    }

    /// Puts an empty file to a place: always an inode of its own, since empty files tend to be locks, and a lock
    /// belongs to the inode.
    pub fn place_empty(&self, metadata: &crate::model::Metadata, mtime: (i64, u32), spot: Spot<'_>) -> Result<()> {
        let made = spot.dir.create_file(spot.name, metadata.mode)?;
        file::dress(spot.dir.holding(&made), metadata, &self.fresh, || spot.path())?;
        file::set_mtime(spot.dir.holding(&made), mtime, || spot.path())
    }

    /// A place aside, for bytes that become an object and have no place in the tree: a directory and a name that no
    /// other file of this run has. The caller removes the name when the object is made.
    pub fn aside(&self) -> (&Dir, String) {
        (&self.staging, self.staging_name())
    }

    /// Whether an object of this size may exist already.
    pub fn may_have_size(&self, size: u64) -> bool {
        self.published.may_have_size(size)
    }
}

/// Whether the directory that an object's name lies in is not there, or is none.
pub(super) fn is_fan_missing(error: &Error) -> bool {
    error.is_io(io::ErrorKind::NotFound) || error.is_io(io::ErrorKind::NotADirectory)
}
