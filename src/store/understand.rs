//! Whether this build understands enough of the history for what a command decides.
//!
//! A newer build may record events that this one does not know. Most decide nothing here; one that does names the
//! commands that must understand it, and only those refuse. `rollback`, `boot-check` and everything that only reads never
//! ask.

use super::Store;
use crate::error::{Error, Result, Shown};

impl Store {
    /// Makes sure that no event of a newer build decides what this command does. `command` is the command's name; the
    /// repair of `verify` is `repair`.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedFormat`] names the event; the system refuses to read the history.
    pub fn expect_understood(&self, command: &str) -> Result<()> {
        match self.history()?.present()?.marks.obstacle(command) {
            None => Ok(()),
            Some(obstacle) => Err(Error::UnsupportedFormat {
                root: self.layout().root(),
                detail: format!(
                    "this binary is too old for event {} of the history ({}), which {command} must understand",
                    obstacle.seq,
                    Shown::text(&obstacle.action)
                ),
            }),
        }
    }
}
