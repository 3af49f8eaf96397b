//! Rotation: a fresh inode for an object whose link count is full.
//!
//! The limit (65,000 on ext4) belongs to the inode, not to the file system. A copy takes the object's name; trees
//! that were linked before keep the old inode, which lives as long as they do.
//!
//! | died after | the next run sees |
//! | --- | --- |
//! | writing and syncing the copy | the old object; a file in staging, swept |
//! | the rename | the new inode under the name, complete and durable |

use super::check;
use super::place::Spot;
use super::trust::Suspect;
use super::{Objects, Recorded};
use crate::error::{Error, Result};
use crate::fsys::file;
use crate::hash;
use crate::model::{Metadata, ObjectKey};

impl Objects<'_> {
    /// Gives the object a fresh inode, unless somebody else just did, and links that to the place.
    pub(super) fn link_rotated(&self, key: &ObjectKey, name: &str, spot: Spot<'_>) -> Result<()> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.dir.link(name, spot.dir, spot.name).is_ok() {
            return Ok(());
        }
        tracing::info!(object = name, "link count is full, giving the object a fresh inode");
        let staged = self.rotate(key, name)?;
        self.dir.link(name, spot.dir, spot.name).inspect_err(|_| {
            // Renamed already or not: nothing of it may stay in staging.
            let _ = self.staging.remove_file_if_present(&staged);
        })
    }

    fn rotate(&self, key: &ObjectKey, name: &str) -> Result<String> {
        let staged = self.staging_name();
        let path = || self.staging.path_of(&staged);
        let object = self.dir.open_file(name)?;
        let stat = crate::fsys::stat::stat_file(&object, || self.dir.path_of(name))?;
        let recorded = Recorded { size: stat.size, mtime: stat.mtime };
        let xattrs = file::xattrs(&object, || self.dir.path_of(name))?;
        if check::digest(&xattrs) != key.class.xattrs {
            self.suspect(Suspect::new(key, &stat));
            return Err(Error::corrupt("object", self.dir.path_of(name), check::Fault::Xattrs.to_string()));
        }
        // Hash while copying: a damaged inode must not be the start of a second life.
        let mut copy = self.staging.create_file(&staged, key.class.mode)?;
        let (content, _) =
            hash::copy(&object, &mut copy, hash::Threads::One).map_err(|error| Error::io("copy to", path(), error))?;
        if content != key.content {
            self.suspect(Suspect::new(key, &stat));
            return Err(Error::corrupt("object", self.dir.path_of(name), check::Fault::Content.to_string()));
        }
        let metadata = Metadata { mode: key.class.mode, uid: key.class.uid, gid: key.class.gid, xattrs };
        file::dress(self.staging.holding(&copy), &metadata, &self.fresh, path)?;
        file::set_mtime(self.staging.holding(&copy), recorded.mtime, path)?;
        file::sync(&copy, path)?;
        self.staging.rename(&staged, &self.dir, name)?;
        Ok(staged)
    }
}
