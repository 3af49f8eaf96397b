//! What a supervised switch does to services: found out before it, and answered instead of it by `--dry-run`.

use super::readiness::{or_unready, refuse_unready};
use super::recheck::{down, is_degraded, unchecked};
use super::units::{Units, known, leave_absent};
use super::{Supervision, all, forward, join, restarted_by_going_back, stale, with_interrupted};
use crate::config::Service;
use crate::error::{Result, chain};
use crate::model::Selector;
use crate::model::preflight::Finding;
use crate::model::trial::Restart;
use crate::observe::Observer;
use crate::ops::affected::{Touched, affected};
use crate::ops::plan::{Plan, TreeCheck};
use crate::ops::rollback as back;
use crate::ops::switching::Warnings;
use crate::services::UnitState;
use crate::store::Store;

/// What a switch forward is to do to services.
pub(super) struct Intended {
    pub(super) services: Vec<Service>,
    /// How they run before it.
    pub(super) before: Vec<UnitState>,
    pub(super) restarted: Touched,
    /// What the preflight found and did not refuse.
    pub(super) preflight: Vec<Finding>,
    /// Whether no version holds before it.
    pub(super) was_degraded: bool,
    /// Whether there is nothing to switch, to restart or to watch.
    pub(super) is_idle: bool,
}

impl Intended {
    /// Finds it out.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked; [`Error::Preflight`](crate::error::Error::Preflight) if services could not run after
    /// it; manifests or processes cannot be read.
    pub(super) fn of(
        store: &Store,
        activation: &forward::Activation<'_>,
        supervision: &Supervision<'_>,
        warnings: &Warnings<'_>,
    ) -> Result<Self> {
        let (target, is_current) = (&activation.target, activation.is_current());
        let known = known(store, supervision).map_err(|error| or_unready(store, supervision, target, error))?;
        let was_degraded = is_degraded(store);
        let rechecked = was_degraded && is_current && !known.0.is_empty();
        let mut restarted = match (supervision.restart, is_current) {
            (Restart::All, _) => Touched::in_doubt(all(&known.0, "all are to be restarted")),
            (Restart::Changed, true) => Touched::in_doubt(stale(store, &known.0)?),
            (Restart::Changed, false) => {
                affected(store, supervision.manager, &known.0, activation.from(), target)?.only_affected()
            }
        };
        restarted.doubt.iter().for_each(|doubt| warnings.warn(doubt));
        restarted.units = with_interrupted(store, restarted.units, target)?;
        if rechecked {
            join(&mut restarted.units, down(&known.1));
        }
        let is_idle = is_current && restarted.units.is_empty() && !rechecked;
        if is_idle && was_degraded {
            warnings.warn(&unchecked(target));
        }
        let ((services, before), preflight) = match is_idle {
            true => (known, Vec::new()),
            false => refuse_unready(store, supervision, known, &restarted.units, target, warnings)?,
        };
        Ok(Self { services, before, restarted, preflight, was_degraded, is_idle })
    }
}

/// What [`activate`](super::activate()) would do. Nothing is changed, and every user may ask.
///
/// # Errors
///
/// As [`activate`](super::activate()) before its switch, except that this user may not switch: that is a warning.
pub fn plan_activate(
    store: &Store,
    selector: &Selector,
    options: &forward::Options,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<Plan> {
    let warnings = Warnings::new(observer);
    let activation = forward::Activation::planned(store, selector, options, &warnings)?;
    let tree: TreeCheck = activation.check()?;
    let plan = activation.plan(tree);
    let Intended { services, before, restarted, .. } = Intended::of(store, &activation, supervision, &warnings)?;
    let planned = Units { supervision, services, observer, warnings: &warnings }.planned(&restarted.units, &before);
    Ok(Plan { services: Some(planned), warnings: warnings.finish(), ..plan })
}

/// What [`rollback`](super::rollback()) would do. Nothing is changed, and every user may ask.
///
/// # Errors
///
/// As [`rollback`](super::rollback()) before its switch, except that this user may not switch: that is a warning.
pub fn plan_rollback(
    store: &Store,
    options: &back::Options,
    supervision: &Supervision<'_>,
    observer: &dyn Observer,
) -> Result<Plan> {
    let unguarded = back::Supervised {
        prepare: &|_, _| Ok(()),
        guard: &|_, _, _| Ok(()),
        settle: &|| {},
        excluded: &[],
        failed: None,
    };
    let plan = back::plan_of(store, options, Some(&unguarded), observer)?;
    let warnings = Warnings::new(observer);
    plan.warnings.iter().for_each(|warning| warnings.warn(warning));
    let (services, states) = known_if_possible(store, supervision, &warnings);
    let units = Units { supervision, services, observer, warnings: &warnings };
    let restarted = match plan.changes {
        true => restarted_by_going_back(store, &units, plan.from.as_ref(), &plan.to).units,
        false => Vec::new(),
    };
    let planned = units.planned(&restarted, &states);
    Ok(Plan { services: Some(planned), warnings: warnings.finish(), ..plan })
}

/// The services; none where the manager cannot be asked, which must not stand in the way of going back.
pub(super) fn known_if_possible(
    store: &Store,
    supervision: &Supervision<'_>,
    warnings: &Warnings<'_>,
) -> (Vec<Service>, Vec<UnitState>) {
    let known = known(store, supervision).unwrap_or_else(|error| {
        warnings.warn(&format!("services are not known: {}", chain(&error)));
        (Vec::new(), Vec::new())
    });
    leave_absent(store, supervision, known, &|_| false)
}
