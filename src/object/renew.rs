//! Renewal: a fresh inode for an object that is missing, or not what its key says.
//!
//! Nothing is mended in place: an inode that is wrong stays as it is, for whoever has it, until every name that leads
//! to it leads elsewhere. The new one is hashed while it is written, made durable, and only then takes the name.
//!
//! | died after | the next run sees |
//! | --- | --- |
//! | writing or syncing the new inode | the object as it was; a file in staging, swept |
//! | the rename | the new inode under the name, complete and durable |
//!
//! **Invariant:** an object's name never leads to an inode whose bytes were not compared with the key just before.

use std::io::{self, Read};

use super::check;
use super::place::Spot;
use super::{Objects, Recorded};
use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, file, remove};
use crate::hash;
use crate::model::{Metadata, ObjectKey};

impl Objects<'_> {
    /// Writes the object anew from these bytes. `false`, and nothing done, if they are not those of its key.
    ///
    /// `metadata` is that of the sealed inode.
    ///
    /// # Errors
    ///
    /// What writing meets. What reading meets counts as other bytes.
    pub fn renew(&self, key: &ObjectKey, metadata: &Metadata, recorded: Recorded, from: &mut dyn Read) -> Result<bool> {
        let staged = self.staging_name();
        let spot = Spot { dir: &self.staging, name: staged.as_bytes() };
        let written = self.write_compared(key, metadata, recorded, from, spot);
        match written {
            Ok(true) => self.take_name(key, &staged).map(|()| true),
            other => {
                self.staging.remove_file_if_present(&staged)?;
                other
            }
        }
    }

    /// Makes an intact inode of this very key, whose bytes the caller has just compared, the object. `false` if it can
    /// get no further name.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn renew_by_link(&self, key: &ObjectKey, dir: &Dir, name: &[u8]) -> Result<bool> {
        let staged = self.staging_name();
        match dir.link(name, &self.staging, &staged) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMLINK | libc::EPERM | libc::EOPNOTSUPP)) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.take_name(key, &staged).map(|()| true)
    }

    /// Links an object to a place if it is as recorded by one look; the caller knows its bytes to be right. `false`, and
    /// nothing done, if it is not.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn place_recorded(&self, key: &ObjectKey, recorded: Recorded, spot: Spot<'_>) -> Result<bool> {
        let name = key.path();
        match self.look(&name)? {
            Some(stat) if check::by_stat(&stat, key, Some(&recorded)).is_ok() => {}
            _ => return Ok(false),
        }
        self.link_or_copy(key, &name, spot).map(|how| how.is_some())
    }

    fn write_compared(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        recorded: Recorded,
        from: &mut dyn Read,
        spot: Spot<'_>,
    ) -> Result<bool> {
        let path = || spot.dir.path_of(spot.name);
        let mut made = spot.dir.create_file(spot.name, metadata.mode)?;
        let mut reading = Unreadable { from, failed: false };
        let copied = hash::copy(&mut reading, &mut made, hash::Threads::One);
        match copied {
            Ok((content, size)) if content == key.content && size == recorded.size => {}
            Ok(_) => return Ok(false),
            Err(_) if reading.failed => return Ok(false),
            Err(error) => return Err(Error::io("write", path(), error)),
        }
        file::dress(spot.dir.holding(&made), metadata, &self.fresh, path)?;
        file::set_mtime(spot.dir.holding(&made), recorded.mtime, path)?;
        file::sync(&made, path)?;
        Ok(true)
    }

    /// Renames what is staged over an object's name, whatever has it, durably.
    fn take_name(&self, key: &ObjectKey, staged: &str) -> Result<()> {
        let name = key.path();
        self.make_fan(&name)?;
        if self.dir.try_stat(&name)?.is_some_and(|stat| stat.kind == Kind::Directory) {
            remove::tree(&self.dir, &name)?;
        }
        self.staging.rename(staged, &self.dir, &name)?;
        // Between two names of one inode the rename does nothing.
        self.staging.remove_file_if_present(staged)?;
        self.dir.sync()?;
        self.dir.open_dir(&name[..2])?.sync()
    }

    /// Compares an inode with a key and with what was recorded, reading it whole.
    ///
    /// # Errors
    ///
    /// As [`check::fully`].
    pub fn is_wholly_intact(&self, dir: &Dir, name: &[u8], key: &ObjectKey, recorded: Recorded) -> Result<bool> {
        check::fully(dir, name, key, Some(&recorded)).map(|checked| checked.is_ok())
    }
}

/// Tells a source that cannot be read from a place that cannot be written.
struct Unreadable<'a> {
    from: &'a mut dyn Read,
    failed: bool,
}

impl Read for Unreadable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).inspect_err(|error| {
            self.failed |= error.kind() != io::ErrorKind::Interrupted;
        })
    }
}
