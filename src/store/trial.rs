//! The open trial, in `store/trial`.
//!
//! It is written under `refs.lock` before the switch that it announces, and removed under it when its outcome is in the
//! history. So whoever holds the lock knows whether a switch is still the one that it began.

use super::Store;
use crate::error::{Error, Refusal, Result};
use crate::fsys::{durable, process};
use crate::layout;
use crate::model::trial::Watcher;
use crate::model::{Role, Trial, VersionName};
use crate::refs::LockedRefs;

/// What there is of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// None is open.
    None,
    /// This one.
    Open(Box<Trial>),
    /// One that cannot be read, for this reason.
    Unreadable(String),
}

impl Found {
    /// The open one, if it can be read.
    pub fn open(self) -> Option<Trial> {
        match self {
            Self::Open(trial) => Some(*trial),
            _ => None,
        }
    }
}

impl Store {
    /// The open trial.
    ///
    /// # Errors
    ///
    /// The system refuses to read; never because of what is read.
    pub fn trial(&self) -> Result<Found> {
        Ok(match self.dir().try_read(layout::TRIAL)? {
            None => Found::None,
            Some(bytes) => match Trial::parse(&bytes) {
                Ok(trial) => Found::Open(Box::new(trial)),
                Err(why) => Found::Unreadable(why),
            },
        })
    }

    /// Writes a trial durably, over whatever other there is. The lock shows that nobody else does.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn write_trial(&self, _locked: &LockedRefs<'_>, trial: &Trial) -> Result<()> {
        durable::write(self.dir(), layout::TRIAL, trial.to_line().as_bytes(), layout::PUBLIC_FILE_MODE)
    }

    /// Ends the trial, durably; tells whether there was one.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn end_trial(&self, _locked: &LockedRefs<'_>) -> Result<bool> {
        if self.dir().try_stat(layout::TRIAL)?.is_none() {
            return Ok(false);
        }
        self.dir().remove_file_if_present(layout::TRIAL)?;
        self.dir().sync()?;
        Ok(true)
    }

    /// Makes sure that a trial is still this one, and that `current` leads where it was left.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`] if somebody switched, confirmed, or began another trial.
    pub fn expect_trial(&self, locked: &LockedRefs<'_>, id: &str, current: Option<&VersionName>) -> Result<()> {
        locked.expect_current(current)?;
        match self.trial()? {
            Found::Open(trial) if trial.id == id => Ok(()),
            _ => Err(Error::refused(Refusal::Superseded, "somebody else ended this trial, or began another")),
        }
    }

    /// Whether a trial is still open and `current` where it left it; without a lock, for a look in between. That it
    /// cannot be found out is no reason to stop.
    pub fn is_on_trial(&self, id: &str, current: &VersionName) -> bool {
        let open = !matches!(self.trial(), Ok(found) if found.clone().open().is_none_or(|trial| trial.id != id));
        let there = self.refs().and_then(|refs| refs.read());
        open && there.is_ok_and(|roles| roles.version(Role::Current) == Some(current))
    }

    /// This process as a watcher.
    pub fn watcher(&self) -> Watcher {
        let pid = std::process::id();
        Watcher {
            pid,
            started: process::started(pid).ok().flatten().unwrap_or_default(),
            boot: self.clock().now().boot_id,
        }
    }

    /// Whether the process that watches a trial still runs, and is not this one.
    pub fn is_watched(&self, trial: &Trial) -> bool {
        let Watcher { pid, started, boot } = &trial.watcher;
        *pid != std::process::id()
            && *boot == self.clock().now().boot_id
            // One that cannot be looked at may watch, and so may one whose beginning was not known when it began.
            && process::started(*pid).map_or(true, |found| found.is_some_and(|found| found == *started || *started == 0))
    }
}
