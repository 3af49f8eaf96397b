//! A new file becomes an object: it takes the object's name, or yields to the object that has it.
//!
//! What takes the name of an object that manifests refer to is made durable first (I-1): such an object is trusted by one
//! look from that moment on. Any other name is trusted only when it is published, which the barrier comes before.
//!
//! | died after | the next run sees |
//! | --- | --- |
//! | syncing the new inode | the object as it was; a file in staging, swept |
//! | the rename | the new inode under the name; trees that still have the old one, which is no longer their object's and is read by every check |

use std::fs::File;
use std::io;
use std::sync::PoisonError;

use super::check;
use super::place::{Dress, How, Placed, Spot, is_fan_missing};
use super::trust::{self, InodeId};
use super::{Objects, Recorded};
use crate::error::{Error, Result};
use crate::fsys::{Kind, file, remove};
use crate::model::{Metadata, ObjectKey};

/// A file that was written and is to be an object.
struct Ours<'a> {
    made: &'a File,
    metadata: &'a Metadata,
    recorded: Recorded,
    how: How,
    /// Whether the object that it is to be is revoked.
    revoked: bool,
}

impl Objects<'_> {
    /// Dresses a new file and links it into `objects/`.
    pub(super) fn finish(
        &self,
        made: &File,
        key: ObjectKey,
        size: u64,
        how: How,
        dress: Dress<'_>,
        spot: Spot<'_>,
    ) -> Result<Placed> {
        let path = || spot.path();
        // One that is made again keeps its time, so that every tree can link to it.
        let revoked = self.published.revoked(&key)?;
        let mtime = revoked.map_or(dress.mtime, |recorded| recorded.mtime);
        let mtime = dress.sealed.class.mtime.map_or(mtime, |seconds| (seconds, 0));
        file::dress(spot.dir.holding(made), &dress.sealed.metadata, &self.fresh, path)?;
        file::set_mtime(spot.dir.holding(made), mtime, path)?;
        let recorded = Recorded { size, mtime };
        let name = key.path();
        match self.link_in(spot, &name) {
            Ok(()) => {
                if revoked.is_some() {
                    self.note_replaced(&key, None);
                }
                self.known.insert(&key, recorded);
                Ok(Placed { key, recorded, how })
            }
            Err(error) if error.is_io(io::ErrorKind::AlreadyExists) => {
                let ours = Ours { made, metadata: &dress.sealed.metadata, recorded, how, revoked: revoked.is_some() };
                self.settle(key, &name, ours, spot)
            }
            Err(error) if self.may_copy(&error) => {
                self.copy_in(made, &name, &dress.sealed.metadata, recorded)?;
                if revoked.is_some() {
                    self.note_replaced(&key, None);
                }
                self.known.insert(&key, recorded);
                Ok(Placed { key, recorded, how: How::Copied })
            }
            Err(error) => Err(error),
        }
    }

    /// The name is taken. Either another thread or run was faster, or a crash left it, or it is damaged: it is looked
    /// at whole, used if it is right and replaced if it is not. A revoked one is replaced without a look.
    fn settle(&self, key: ObjectKey, name: &str, ours: Ours<'_>, spot: Spot<'_>) -> Result<Placed> {
        let known = match self.known.get(&key) {
            Some(recorded) => self.is_intact(&key, name, &recorded)?,
            None => false,
        };
        if !known && ours.revoked {
            if let Some(placed) = self.replace_revoked(&key, name, &ours, spot)? {
                return Ok(placed);
            }
        } else if !known {
            match check::fully(&self.dir, name, &key, None) {
                Ok(Ok(stat)) if stat.size == ours.recorded.size => {
                    self.known.insert(&key, Recorded { size: stat.size, mtime: stat.mtime });
                }
                Ok(_) => {
                    tracing::warn!(object = name, "replacing an object that is not what its name says");
                    let recorded = self.published.lookup(&key)?;
                    return self.replace(&key, name, &ours, recorded, spot);
                }
                // Swept in this instant by nobody we share the lock with: then ours takes the name after all.
                Err(error) if error.is_io(io::ErrorKind::NotFound) => {
                    self.link_in(spot, name)?;
                    self.known.insert(&key, ours.recorded);
                    return Ok(Placed { key, recorded: ours.recorded, how: ours.how });
                }
                Err(error) => return Err(error),
            }
        }
        let recorded = self.known.get(&key).unwrap_or(ours.recorded);
        spot.dir.remove_file(spot.name)?;
        let how = self
            .link_or_copy(&key, name, spot)?
            .ok_or_else(|| Error::corrupt("object", self.dir.path_of(name), "it vanished while it was being linked"))?;
        Ok(Placed { key, recorded, how })
    }

    /// Replaces a revoked object, unless another thread of this run just did.
    fn replace_revoked(&self, key: &ObjectKey, name: &str, ours: &Ours<'_>, spot: Spot<'_>) -> Result<Option<Placed>> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorded) = self.known.get(key)
            && self.is_intact(key, name, &recorded)?
        {
            return Ok(None);
        }
        tracing::info!(object = name, "making a revoked object again");
        self.replace(key, name, ours, Some(ours.recorded), spot).map(Some)
    }

    /// Puts our file under an object's name in one step, whatever has the name now. Where manifests refer to the object,
    /// `recorded` is what they say: then ours looks like that, and is durable before it takes the name.
    fn replace(
        &self,
        key: &ObjectKey,
        name: &str,
        ours: &Ours<'_>,
        recorded: Option<Recorded>,
        spot: Spot<'_>,
    ) -> Result<Placed> {
        let staged = self.staging_name();
        let before = self.look(name)?;
        if let Some(recorded) = recorded {
            file::set_mtime(spot.dir.holding(ours.made), recorded.mtime, || spot.path())?;
        }
        let recorded =
            Recorded { mtime: recorded.map_or(ours.recorded.mtime, |recorded| recorded.mtime), ..ours.recorded };
        let how = match spot.dir.link(spot.name, &self.staging, &staged) {
            Ok(()) => ours.how,
            Err(error) if self.may_copy(&error) => {
                self.copy_file(
                    ours.made,
                    Spot { dir: &self.staging, name: staged.as_bytes() },
                    ours.metadata,
                    recorded,
                )?;
                How::Copied
            }
            Err(error) => return Err(error),
        };
        let is_published = ours.revoked || self.published.lookup(key)?.is_some();
        if is_published {
            let made = self.staging.open_file(&staged);
            file::sync(made.as_ref().unwrap_or(ours.made), || self.staging.path_of(&staged))?;
        }
        if before.as_ref().is_some_and(|stat| stat.kind == Kind::Directory) {
            remove::tree(&self.dir, name)?;
        }
        self.staging.rename(&staged, &self.dir, name)?;
        if is_published {
            self.note_replaced(key, before.as_ref().map(trust::id));
        }
        self.known.insert(key, recorded);
        Ok(Placed { key: key.clone(), recorded, how })
    }

    /// Takes note that every tree that refers to an object is to have its new inode. The oldest one that was replaced is
    /// the one that trees have.
    fn note_replaced(&self, key: &ObjectKey, before: Option<InodeId>) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_insert(before);
    }

    fn link_in(&self, spot: Spot<'_>, name: &str) -> Result<()> {
        match spot.dir.link(spot.name, &self.dir, name) {
            Err(error) if is_fan_missing(&error) => {
                self.make_fan(name)?;
                spot.dir.link(spot.name, &self.dir, name)
            }
            other => other,
        }
    }

    /// Copies the file at hand into `objects/`, by way of staging.
    fn copy_in(&self, made: &File, name: &str, metadata: &Metadata, recorded: Recorded) -> Result<()> {
        let staged = self.staging_name();
        self.copy_file(made, Spot { dir: &self.staging, name: staged.as_bytes() }, metadata, recorded)?;
        match self.staging.rename_new(&staged, &self.dir, name) {
            Err(error) if is_fan_missing(&error) => {
                self.make_fan(name)?;
                self.staging.rename(&staged, &self.dir, name)
            }
            Err(error) if error.is_io(io::ErrorKind::AlreadyExists) => self.staging.rename(&staged, &self.dir, name),
            other => other,
        }
    }
}
