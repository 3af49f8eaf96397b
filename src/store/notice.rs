//! Whether the last notice was delivered, in `store/notice`: there only while the last one was not.
//!
//! It is a remark for `status`. Nothing depends on it, and what cannot be written changes nothing else.

use super::Store;
use crate::error::Result;
use crate::fsys::durable;
use crate::layout;
use crate::model::notice::Undelivered;

impl Store {
    /// The notice that was not delivered, if the last one was not.
    ///
    /// # Errors
    ///
    /// The system refuses to read; never because of what is read.
    pub fn undelivered(&self) -> Result<Option<Undelivered>> {
        Ok(self.dir().try_read(layout::NOTICE)?.map(|bytes| Undelivered::parse(&bytes)))
    }

    /// Records whether a notice was delivered. Under a format that this build does not know nothing is written.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn record_delivery(&self, failed: Option<&Undelivered>) -> Result<()> {
        match failed {
            _ if self.record_obstacle().is_some() => Ok(()),
            Some(failed) => {
                let line = failed.to_line();
                durable::write(self.dir(), layout::NOTICE, line.as_bytes(), layout::PUBLIC_FILE_MODE)
            }
            None if self.dir().try_stat(layout::NOTICE)?.is_none() => Ok(()),
            None => self.dir().remove_file_if_present(layout::NOTICE).map(drop),
        }
    }
}
