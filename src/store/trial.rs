//! The open trial, in `store/trial`.
//!
//! It takes its name under `refs.lock` before the switch that it announces, and is removed under it when its outcome is in
//! the history. So whoever holds the lock knows whether a switch is still the one that it began. The medium is waited for
//! without the lock: before the name is taken, and behind that, before the switch ([`super::replace`]).
//!
//! A rollback by an operator waits for nothing before it switches: its trial is shown ([`Store::show_trial`]), and made
//! durable behind the switch. A power cut in between may leave an empty file, see [`Standing::is_blank`].

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

/// A trial as it stands in its file, whatever it says: by this it is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing(Vec<u8>);

impl Standing {
    /// Whether the power went before it reached the medium: it is empty, or holds NUL bytes only. Only what was shown
    /// by [`Store::show_trial`] becomes so by a power cut.
    pub fn is_blank(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether it can be read and has this name.
    pub fn has_id(&self, id: &str) -> bool {
        Trial::parse(&self.0).is_ok_and(|trial| trial.id == id)
    }
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

    /// The open trial as it stands in its file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn standing_trial(&self) -> Result<Option<Standing>> {
        Ok(self.dir().try_read(layout::TRIAL)?.map(Standing))
    }

    /// Writes a trial durably, over whatever other there is, if `allowed` says so under `refs.lock`.
    ///
    /// # Errors
    ///
    /// Those of `allowed`, and then nothing was written; [`Error::Locked`]; the system refuses.
    pub fn write_trial(&self, trial: &Trial, allowed: impl FnOnce(&LockedRefs<'_>) -> Result<()>) -> Result<()> {
        let line = trial.to_line();
        self.replace(self.dir(), layout::TRIAL, line.as_bytes(), |locked| allowed(locked).map(|()| true)).map(drop)
    }

    /// Shows a trial to every process, over whatever other there is, and waits for nothing. The lock shows that nobody
    /// else writes one. [`Store::settle_trial`] makes it durable.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn show_trial(&self, _locked: &LockedRefs<'_>, trial: &Trial) -> Result<()> {
        durable::show(self.dir(), layout::TRIAL, trial.to_line().as_bytes(), layout::PUBLIC_FILE_MODE)
    }

    /// Makes a trial durable that was shown. One that was ended meanwhile needs nothing.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn settle_trial(&self) -> Result<()> {
        match durable::settle(self.dir(), layout::TRIAL) {
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }

    /// Ends a trial, durably, if it still is the one that `is_it` knows; tells whether it was.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; the system refuses.
    pub fn end_trial(&self, is_it: impl FnOnce(&Standing) -> bool) -> Result<bool> {
        {
            let refs = self.refs()?;
            let _locked = refs.lock(self.settings().lock_timeout)?;
            match self.standing_trial()? {
                Some(standing) if is_it(&standing) => self.dir().remove_file_if_present(layout::TRIAL)?,
                _ => return Ok(false),
            };
        }
        self.dir().sync()?;
        Ok(true)
    }

    /// Ends the trial of this name, as [`Store::end_trial`].
    ///
    /// # Errors
    ///
    /// As [`Store::end_trial`].
    pub fn end_trial_of(&self, id: &str) -> Result<bool> {
        self.end_trial(|standing| standing.has_id(id))
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
            guardian: false,
        }
    }

    /// Whether a trial was watched last in this boot: then what it stopped may be stopped still.
    pub fn is_of_this_boot(&self, trial: &Trial) -> bool {
        let boot = self.clock().now().boot_id;
        !boot.is_empty() && trial.watcher.boot == boot
    }

    /// The open trial of this boot whose watcher died, if there is one: what it stopped may be stopped still.
    pub fn left_trial(&self) -> Option<Trial> {
        let trial = self.trial().ok().and_then(Found::open)?;
        (self.is_of_this_boot(&trial) && !self.is_watched(&trial)).then_some(trial)
    }

    /// Whether the process that watches a trial still runs, and is not this one.
    pub fn is_watched(&self, trial: &Trial) -> bool {
        let Watcher { pid, started, boot, .. } = &trial.watcher;
        *pid != std::process::id()
            && *boot == self.clock().now().boot_id
            // One that cannot be looked at may watch, and so may one whose beginning was not known when it began.
            && process::started(*pid).map_or(true, |found| found.is_some_and(|found| found == *started || *started == 0))
    }
}
