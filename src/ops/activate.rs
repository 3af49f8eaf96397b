//! Switching `current` to a version.
//!
//! The check comes first and takes its time; `refs.lock` is held for the switch only, and nothing waits for the medium under
//! it. Neither an import nor a gc is waited for: a version that has its name in `versions/` is complete, and gc takes
//! `refs.lock` before it moves one away.
//!
//! | step | died after it, the next command sees |
//! | --- | --- |
//! | 1. under `refs.lock`: links read again, the switch made, **visible from here on** | as [`crate::refs`] says; not recorded: an external change |
//! | 2. the directory synced | the same, and no power cut takes it back |
//! | 3. recorded, in the order in which switches were made | nothing to do |
//! | 4. `.switched` rewritten; a trial that this overtook is removed under `refs.lock` | a trial of what is not current: dropped |

use std::time::{Duration, Instant};

use super::plan::{self, Plan, TreeCheck};
use super::switching::{self, BadVersions, Health, Verify, Warnings, health};
use crate::error::{Error, Refusal, Result};
use crate::history::State;
use crate::model::{Action, Digest, Event, Role, Selector, Trial, VersionName};
use crate::observe::Observer;
use crate::store::Store;
use crate::store::survey::Survey;

/// How to activate.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How closely the version is checked before.
    pub verify: Verify,
    /// What to do if it is marked bad.
    pub bad: BadVersions,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What a switch forward came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was current before, if that was a version.
    pub from: Option<VersionName>,
    /// What is current now.
    pub to: VersionName,
    /// Its digest; a directory that was made by hand has none.
    pub digest: Option<Digest>,
    /// Whether that is another version than before.
    pub changed: bool,
    /// What previous leads to now.
    pub previous: Option<VersionName>,
    /// Links that somebody else had changed since the last record.
    pub external_changes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How long it took until the switch was visible.
    pub switched_after: Duration,
    /// How long it took in all.
    pub elapsed: Duration,
}

/// Switches `current` to the version that is meant; what was current becomes previous.
///
/// # Errors
///
/// - [`Error::NotFound`] if there is no such version;
/// - [`Error::Refused`] if it is bad, or fails its check, or this user may not switch;
/// - [`Error::Corrupt`] if its manifest cannot be trusted;
/// - [`Error::Locked`] if another switch does not end.
///
/// In all these cases nothing was changed.
pub fn activate(store: &Store, selector: &Selector, options: &Options, observer: &dyn Observer) -> Result<Report> {
    let warnings = Warnings::new(observer);
    let activation = Activation::new(store, selector, options, &warnings)?;
    let report = match activation.is_current() {
        true => activation.unchanged(),
        false => {
            activation.check()?;
            activation.switch(None)?
        }
    };
    Ok(Report { warnings: warnings.finish(), ..report })
}

/// What [`activate`] would do. Every user may ask, and nothing is changed, a finding about damage is not recorded either.
///
/// # Errors
///
/// As [`activate`], except that this user may not switch: that is a warning.
pub fn plan(store: &Store, selector: &Selector, options: &Options, observer: &dyn Observer) -> Result<Plan> {
    let warnings = Warnings::new(observer);
    let activation = Activation::planned(store, selector, options, &warnings)?;
    let plan = match activation.is_current() {
        true => activation.plan(TreeCheck::Unchecked("it is current already".into())),
        false => activation.plan(activation.check()?),
    };
    Ok(Plan { warnings: warnings.finish(), ..plan })
}

/// A switch forward on its way.
pub(super) struct Activation<'a> {
    store: &'a Store,
    survey: Survey,
    pub(super) target: VersionName,
    pub(super) digest: Option<Digest>,
    options: &'a Options,
    warnings: &'a Warnings<'a>,
    start: Instant,
    dry_run: bool,
}

impl<'a> Activation<'a> {
    /// Finds the version that is meant.
    pub(super) fn new(
        store: &'a Store,
        selector: &Selector,
        options: &'a Options,
        warnings: &'a Warnings<'a>,
    ) -> Result<Self> {
        store.check_changeable()?;
        Self::found(store, selector, options, warnings, false)
    }

    /// The same for a switch that is not made.
    pub(super) fn planned(
        store: &'a Store,
        selector: &Selector,
        options: &'a Options,
        warnings: &'a Warnings<'a>,
    ) -> Result<Self> {
        store.check_format()?;
        store.check_losses()?;
        if let Err(error) = store.check_user() {
            warnings.warn(&plan::not_allowed(&error));
        }
        let planned = Self::found(store, selector, options, warnings, true)?;
        let refs = store.refs()?;
        [Role::Current, Role::Previous].iter().try_for_each(|role| refs.require_link(&planned.survey.roles, *role))?;
        Ok(planned)
    }

    fn found(
        store: &'a Store,
        selector: &Selector,
        options: &'a Options,
        warnings: &'a Warnings<'a>,
        dry_run: bool,
    ) -> Result<Self> {
        let start = Instant::now();
        store.expect_understood("activate")?;
        let survey = store.survey()?;
        let target = survey.resolve(store, selector)?;
        let digest = survey.digest(store, &target);
        Ok(Self { store, survey, target, digest, options, warnings, start, dry_run })
    }

    /// What it would do, by what the check of the version gave.
    pub(super) fn plan(&self, tree: TreeCheck) -> Plan {
        let changes = self.from() != Some(&self.target);
        Plan {
            from: self.from().cloned(),
            to: self.target.clone(),
            digest: self.digest,
            level: 0,
            changes,
            previous: match self.from() {
                Some(from) if changes => Some(from.clone()),
                _ => self.survey.roles.version(Role::Previous).cloned(),
            },
            bad: None,
            tree,
            services: None,
            warnings: Vec::new(),
        }
    }

    /// What is current.
    pub(super) fn from(&self) -> Option<&VersionName> {
        self.survey.roles.version(Role::Current)
    }

    /// Whether there is nothing to switch.
    pub(super) fn is_current(&self) -> bool {
        self.from() == Some(&self.target) && self.survey.roles.current.is_plain()
    }

    fn unchanged(&self) -> Report {
        Report {
            from: Some(self.target.clone()),
            to: self.target.clone(),
            digest: self.digest,
            changed: false,
            previous: self.survey.roles.version(Role::Previous).cloned(),
            external_changes: Vec::new(),
            warnings: Vec::new(),
            switched_after: self.start.elapsed(),
            elapsed: self.start.elapsed(),
        }
    }

    /// Refuses a version that is bad or damaged, and every version while the history is in doubt.
    pub(super) fn check(&self) -> Result<TreeCheck> {
        self.refuse_missing_tree()?;
        self.refuse_doubt()?;
        self.refuse_bad(&self.survey)?;
        self.check_tree(&self.survey)
    }

    fn refuse_missing_tree(&self) -> Result<()> {
        let target = &self.target;
        if self.store.has_tree(target)? || self.store.is_being_removed(target)? {
            return Ok(());
        }
        Err(Error::refused_with(
            Refusal::Unhealthy,
            format!("{target} is missing-tree: its tree is gone"),
            format!("build it again with: tope-store verify {target} --repair"),
        ))
    }

    /// Which versions are bad is not known while events are lost.
    fn refuse_doubt(&self) -> Result<()> {
        let detail = match self.store.history_state() {
            Ok(State::Doubt { detail, .. }) => detail,
            Ok(State::Missing) => "it is gone".to_owned(),
            _ => return Ok(()),
        };
        let message = format!("the history is in doubt, and {} may be bad: {detail}", self.target);
        if self.options.bad == BadVersions::Refuse {
            let hint = "see what was lost with: tope-store doctor; to activate it all the same: --force";
            return Err(Error::refused_with(Refusal::Doubt, message, hint));
        }
        self.warnings.warn(&message);
        Ok(())
    }

    fn refuse_bad(&self, survey: &Survey) -> Result<()> {
        let evidence = self.digest.and_then(|digest| survey.marks.bad(&digest));
        // Nothing is switched to what runs already, and its checks may end a degraded state.
        let runs = self.is_current() && survey.marks.is_degraded_on(&self.target);
        match evidence {
            Some(evidence) if self.options.bad == BadVersions::Refuse && !runs => Err(Error::refused_with(
                Refusal::Bad,
                format!("{} is marked bad: {evidence}", self.target),
                format!("accept it with: tope-store confirm {0}, or take it all the same with: --force", self.target),
            )),
            Some(evidence) => {
                self.warnings.warn(&format!("{} is marked bad: {evidence}", self.target));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn check_tree(&self, survey: &Survey) -> Result<TreeCheck> {
        match health(self.store, survey, &self.target, self.options.verify, self.warnings)? {
            Health::Sound => Ok(TreeCheck::Sound),
            Health::Skipped => Ok(TreeCheck::Unchecked("not asked for".into())),
            Health::Unmanaged => {
                let target = &self.target;
                self.warnings.warn(&format!(
                    "{target} was made by hand and cannot be checked; take it under management with: tope-store adopt {target}"
                ));
                Ok(TreeCheck::Unchecked("it was made by hand".into()))
            }
            Health::Unknown(error) => Err(error),
            Health::Damaged(_) if self.store.is_being_removed(&self.target)? => {
                Err(Error::NotFound { what: "version", name: self.target.to_string() })
            }
            Health::Damaged(checked) => {
                if !self.dry_run
                    && let Some(why) = self.store.revoke(&checked.suspects).unrecorded
                {
                    self.warnings.warn(&format!("the damage that was found cannot be recorded: {why}"));
                }
                Err(Error::refused_with(
                    Refusal::Unhealthy,
                    format!("{} fails its check: {}", self.target, switching::summary(&checked)),
                    format!("see all with: tope-store verify {}; to activate it unchecked: --verify none", self.target),
                ))
            }
        }
    }

    /// Switches. A trial that this belongs to must still be open; without one, any other ends: somebody took matters in
    /// hand.
    pub(super) fn switch(&self, trial: Option<&Trial>) -> Result<Report> {
        let refs = self.store.refs()?;
        let (before, overtaken, place, switch, switched_after) = {
            let locked = refs.lock(self.store.settings().lock_timeout)?;
            locked.recover()?;
            let before = locked.read()?;
            if let Some(trial) = trial {
                self.store.expect_trial(&locked, &trial.id, trial.from.as_ref())?;
            }
            let switch = locked.activate(&self.target)?;
            let switched_after = self.start.elapsed();
            // While the lock is held nobody else takes a place, or ends a trial.
            (before, self.store.standing_trial(), locked.place(), switch, switched_after)
        };
        let synced = refs.sync();
        let (from, changed) = (switch.from.clone(), switch.changed);
        let survey = self.store.survey_in_turn(&place, before)?;
        let mut events = survey.external_changes(self.store).unwrap_or_default();
        let external_changes = events.iter().filter_map(|event| event.text.clone()).collect();
        if changed {
            events.push(Event {
                from: from.clone(),
                from_digest: from.as_ref().and_then(|from| survey.digest(self.store, from)),
                reason: self.options.reason.clone(),
                outcome: "done".into(),
                duration_ms: u64::try_from(self.start.elapsed().as_millis()).ok(),
                ..Event::about(Action::Activate, &self.target, self.digest)
            });
        }
        if !events.is_empty() {
            switching::record(self.store, events, self.warnings);
        }
        drop(place);
        switching::restate(self.store, &self.survey, &survey, self.warnings);
        self.store.announce(&switch, self.warnings);
        if trial.is_none() && changed {
            switching::end_trial(self.store, overtaken, self.warnings);
        }
        synced?;
        Ok(Report {
            from,
            to: self.target.clone(),
            digest: self.digest,
            changed,
            previous: refs.read()?.version(Role::Previous).cloned(),
            external_changes,
            warnings: Vec::new(),
            switched_after,
            elapsed: self.start.elapsed(),
        })
    }
}

/// What happened, in a sentence.
pub fn sentence(report: &Report) -> String {
    let Report { from, to, .. } = report;
    match (report.changed, from) {
        (false, _) => format!("{to} is current already"),
        (true, Some(from)) => format!("current is now {to} (was {from})"),
        (true, None) => format!("current is now {to}"),
    }
}
