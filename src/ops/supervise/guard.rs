//! What must hold when the process that switches dies: a guardian that goes on, and a trial that says what was stopped.

use super::Supervision;
use super::units::{Order, Units};
use crate::config::Service;
use crate::error::{Error, Refusal, Result, chain};
use crate::model::trial::Watcher;
use crate::model::{Trial, VersionName};
use crate::observe::Observer;
use crate::ops::switching::Warnings;
use crate::services::affected::Affected;
use crate::services::guardian::Arming;
use crate::store::Store;
use crate::store::trial::Found;

/// The guardian of a switch.
pub(super) struct Guard<'a> {
    supervision: &'a Supervision<'a>,
    warnings: &'a Warnings<'a>,
    arming: Option<Arming>,
}

impl<'a> Guard<'a> {
    pub(super) fn new(supervision: &'a Supervision<'a>, warnings: &'a Warnings<'a>) -> Self {
        Self { supervision, warnings, arming: None }
    }

    /// Starts the guardian. It looks for the trial only when this process has ended, so that it can be on its way while
    /// the switch is prepared.
    pub(super) fn begin(&mut self, services: &[Service]) {
        if self.arming.is_none() {
            self.arming = self.supervision.guard.map(|guard| guard(services));
        }
    }

    /// Waits until the guardian is certain to run: from here on services may stop. Tells whether there is one.
    pub(super) fn confirm(mut self, services: &[Service]) -> bool {
        self.begin(services);
        match self.arming.map(Arming::confirm) {
            None => false,
            Some(Ok(weakness)) => {
                weakness.iter().for_each(|weakness| self.warnings.warn(weakness));
                true
            }
            Some(Err(error)) => {
                self.warnings.warn(&format!(
                    "no guardian can be started ({}): if this process dies, the next command that changes something goes on",
                    chain(&error)
                ));
                false
            }
        }
    }
}

/// A trial that says what a switch back is about to stop. It is noted without waiting for the medium: nothing durable may
/// stand in the way of going back, and after a power cut the boot starts what was stopped.
pub(super) struct Ahead {
    pub(super) trial: Trial,
    /// The one that it took the place of.
    displaced: Option<Trial>,
}

impl Ahead {
    /// Notes it. `None` where that cannot be done, or another process watches a trial, which goes on until the switch.
    pub(super) fn note(units: &Units<'_>, store: &Store, mut trial: Trial, stopped: &[Affected]) -> Option<Self> {
        trial.units = stopped.iter().map(|one| one.unit.clone()).collect();
        let noted = (|| {
            let refs = store.refs()?;
            let locked = refs.lock(store.settings().lock_timeout)?;
            locked.expect_current(trial.from.as_ref())?;
            let displaced = store.trial()?.open();
            if displaced.as_ref().is_some_and(|other| store.is_watched(other)) {
                return Ok(None);
            }
            store.show_trial(&locked, &trial)?;
            Ok::<_, Error>(Some(displaced))
        })();
        match noted {
            Ok(displaced) => displaced.map(|displaced| Self { trial, displaced }),
            Err(error) => {
                units.warnings.warn(&format!(
                    "what is stopped cannot be noted, so that nothing starts it if this process dies: {}",
                    chain(&error)
                ));
                None
            }
        }
    }

    /// Takes it back, for a switch that was not made.
    pub(super) fn take_back(self, store: &Store, warnings: &Warnings<'_>) {
        let taken = match &self.displaced {
            Some(displaced) => store.write_trial(displaced, |_| expect_left(store, &self.trial)),
            None => store.end_trial_of(&self.trial.id).map(drop),
        };
        match taken {
            Ok(()) | Err(Error::Refused { why: Refusal::Superseded, .. }) => {}
            Err(error) => warnings.warn(&format!("the open trial cannot be ended: {}", chain(&error))),
        }
    }
}

/// The same, and what a trial restarted, or was about to, whose watcher died: nobody knows how far it came. A guardian
/// that watches this version yields to the operator.
pub(super) fn with_interrupted(
    store: &Store,
    mut restarted: Vec<Affected>,
    version: &VersionName,
) -> Result<Vec<Affected>> {
    let is_interrupted = |trial: &Trial| match store.is_watched(trial) {
        true => trial.watcher.guardian && trial.current == *version,
        false => trial.current == *version || store.is_of_this_boot(trial),
    };
    for unit in store.trial()?.open().filter(is_interrupted).map(|trial| trial.units).unwrap_or_default() {
        if restarted.iter().all(|one| one.unit != unit) {
            restarted.push(Affected { unit, reasons: vec!["its trial was interrupted".into()] });
        }
    }
    Ok(restarted)
}

/// Starts what the watcher of a trial had stopped when it died, once a command has ended that trial by itself; gives what
/// the user should know. Nothing is started while the trial is still open, or another is.
///
/// # Errors
///
/// The trial cannot be read.
pub fn start_left(
    store: &Store,
    left: &Trial,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>> {
    let warnings = Warnings::new(observer);
    if left.units.is_empty() || store.trial()? != Found::None {
        return Ok(Vec::new());
    }
    let services = supervision.configured.to_vec();
    Units { supervision, services, observer, warnings: &warnings }.start_left(&left.units);
    Ok(warnings.finish())
}

impl Units<'_> {
    /// Starts what a process that died may have stopped, once the orders that it gave have ended.
    pub(super) fn start_left(&self, units: &[String]) {
        self.settle_orders(units);
        (self.supervision.say)(&format!("starting {}, since the process that switched died", units.join(", ")));
        self.bring_back(Order::Start, units);
    }
}

/// Whether two watchers are one process.
pub(super) fn is_same(one: &Watcher, other: &Watcher) -> bool {
    (one.pid, one.started, &one.boot) == (other.pid, other.started, &other.boot)
}

/// Makes sure under the lock that a trial that is to be taken over is still there, and that no other process has it.
pub(super) fn expect_left(store: &Store, trial: &Trial) -> Result<()> {
    match store.trial()?.open() {
        Some(found) if found.id == trial.id && found.watcher == trial.watcher => Ok(()),
        _ => Err(Error::refused(Refusal::Superseded, "another process ended this trial, or took it over")),
    }
}
