//! Files that are replaced under `refs.lock`, and durably all the same: the trial, and `.switched`.
//!
//! The lock must not be held while the medium is waited for, so the steps stand apart:
//!
//! | step | died after it, or the power went |
//! | --- | --- |
//! | 1. written in a directory of staging, durable | the old file; staging is swept |
//! | 2. under `refs.lock`: compared that the caller may, renamed into place | old or new |
//! | 3. without the lock: the directory synced | the new file |

use super::Store;
use crate::error::Result;
use crate::fsys::{Dir, durable};
use crate::layout;
use crate::refs::LockedRefs;
use crate::staging::Run;

/// The file's name while it is in staging.
const STAGED: &str = "file";

impl Store {
    /// Replaces a file durably, if `allowed` says under `refs.lock` that it is to be. Tells whether it was.
    ///
    /// # Errors
    ///
    /// Those of `allowed`; [`crate::error::Error::Locked`]; the system refuses. If that was the last step, the file is
    /// there, and a power cut may take it.
    pub(super) fn replace(
        &self,
        dir: &Dir,
        name: &str,
        bytes: &[u8],
        allowed: impl FnOnce(&LockedRefs<'_>) -> Result<bool>,
    ) -> Result<bool> {
        let run = Run::begin(&self.staging_dir()?)?;
        durable::prepare(run.dir(), STAGED, bytes, layout::PUBLIC_FILE_MODE)?;
        {
            let refs = self.refs()?;
            let locked = refs.lock(self.settings.lock_timeout)?;
            if !allowed(&locked)? {
                return Ok(false);
            }
            run.dir().rename(STAGED, dir, name)?;
        }
        dir.sync()?;
        Ok(true)
    }
}
