//! Retention: removing versions that no rule keeps, and everything that no version needs.
//!
//! Mark, plan and sweep happen in one hold of the store's lock: no import is about to link what is swept. The plan
//! comes from [`retention::plan`] and is the same for a dry run and a real one; so are the bytes that come back
//! ([`Footprints`](super::footprint)). A version is taken out as [`store::removal`](crate::store::removal) says, oldest
//! first; objects are swept once at the end, by what the remaining manifests refer to.
//!
//! **Invariant (I-6):** what is protected is never removed. Protections are looked up twice: for the plan, and again in
//! the step that moves a version out, under `refs.lock` for roles and in trash for processes.
//!
//! **Invariant:** in doubt nothing is removed: a manifest that is damaged or a history that cannot be trusted is a
//! refusal before anything is touched.
//!
//! Works with no free block and no free inode: leftovers go first, nothing is created before something went, and the
//! reserve is given back if even that does not do. It is set aside again at the end, and does not count as freed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::footprint::{Anyhow, Footprints, Scope};
use super::inventory::{Inventory, refuse_doubt};
use crate::error::{Error, Result};
use crate::model::retention::{self, Plan, Policy, Reason};
use crate::model::{Action, Event, ObjectKey, VersionName};
use crate::object::trust::Revoked;
use crate::observe::{Observer, Stage, Work};
use crate::store::recover::Leftovers;
use crate::store::removal::TakenOut;
use crate::store::{ExclusiveStore, Store};

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Remove.
    #[default]
    Remove,
    /// Only say what would be removed.
    DryRun,
}

/// What became of a version, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The version.
    pub name: VersionName,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Versions that went, oldest first.
    pub removed: Vec<Decided>,
    /// Versions that stay, newest first.
    pub kept: Vec<Decided>,
    /// Versions that were forgotten, or would be, since their trees are gone and nothing protects them.
    pub forgotten: Vec<VersionName>,
    /// Bytes that come back in all; includes [`Report::anyhow`].
    pub freed_bytes: u64,
    /// Whether that is an upper bound, since files may share blocks on this file system.
    pub up_to: bool,
    /// How much was asked for, if something was.
    pub wanted_bytes: Option<u64>,
    /// What no version needed, in any case.
    pub anyhow: Anyhow,
    /// Processes that this user may not inspect: what they use is not protected.
    pub hidden_processes: u64,
    /// Nothing was removed because nothing was to be.
    pub dry_run: bool,
    /// The user asked to stop, and versions that were to go are still there.
    pub interrupted: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Removes what `policy` does not keep.
///
/// # Errors
///
/// - [`Error::Usage`] for an empty policy;
/// - [`Error::Refused`] ([`Doubt`](crate::error::Refusal::Doubt)) while a manifest or the history cannot be trusted;
/// - [`Error::Locked`] while imports are at work;
/// - what the system refuses. Versions that were removed until then stay removed; the next run goes on.
pub fn gc(store: &Store, policy: &Policy, mode: Mode, observer: &dyn Observer) -> Result<Report> {
    let start = Instant::now();
    if policy.is_empty() {
        // The planner says it best, and needs no store for it.
        let _ = retention::plan(&[], policy, &mut |_| Ok(0))?;
    }
    let locked = store.exclude()?;
    locked.expect_understood("gc")?;
    let (mut marks, contents) = refuse_doubt(store, observer)?;
    if mode == Mode::Remove {
        locked.as_shared().settle_all()?;
        marks = store.history()?.present()?.marks;
    }
    let mut inventory = Inventory::take(store, marks, contents)?;
    let leftovers = locked.as_shared().leftovers()?;
    let footprints = measure_removable(store, &mut inventory, policy, &leftovers, observer)?;
    let plan = retention::plan(&inventory.candidates(), policy, &mut |names| {
        Ok(footprints.freed(&inventory, names, Scope::WithWhatGoesAnyhow))
    })?;
    let mut report = Report {
        removed: Vec::new(),
        kept: plan.kept().map(|decision| decided(&decision.name, &decision.reasons)).collect(),
        forgotten: [store.forgotten(), inventory.forgettable.clone()].concat(),
        freed_bytes: 0,
        up_to: footprints.may_share_blocks,
        wanted_bytes: plan.freed.map(|freed| freed.wanted_bytes),
        anyhow: footprints.anyhow(&inventory, &leftovers),
        hidden_processes: inventory.hidden_processes,
        dry_run: mode == Mode::DryRun,
        interrupted: false,
        elapsed: Duration::ZERO,
    };
    match mode {
        Mode::DryRun => {
            report.removed = plan.removed().map(|decision| decided(&decision.name, &decision.reasons)).collect();
        }
        Mode::Remove => {
            locked.as_shared().remove_leftovers(&leftovers);
            carry_out(&locked, &inventory, &plan, &mut report, observer)?;
        }
    }
    let removed: Vec<VersionName> = report.removed.iter().map(|removed| removed.name.clone()).collect();
    report.freed_bytes = footprints.freed(&inventory, &removed, Scope::WithWhatGoesAnyhow);
    report.elapsed = start.elapsed();
    if mode == Mode::Remove {
        sweep(&locked, &inventory, &footprints, &removed, Scope::WithWhatGoesAnyhow)?;
        end_revocations(&locked, &inventory, &removed)?;
        if !removed.is_empty() {
            // The medium is waited for meanwhile.
            let forget = || locked.index_removed(&inventory.removal(&removed));
            let ((), recorded) = locked.in_pool(|| rayon::join(forget, || record(&locked, &report)))?;
            recorded?;
        }
        locked.set_reserve_aside();
    }
    Ok(report)
}

fn decided(name: &VersionName, reasons: &[Reason]) -> Decided {
    Decided { name: name.clone(), reasons: reasons.to_vec() }
}

/// Measures the versions that protections and rules let go. Measuring shows what else processes hold, which may protect
/// some of them.
fn measure_removable(
    store: &Store,
    inventory: &mut Inventory,
    policy: &Policy,
    leftovers: &Leftovers,
    observer: &dyn Observer,
) -> Result<Footprints> {
    let all = retention::plan(&inventory.candidates(), policy, &mut |_| Ok(0))?;
    let removable: BTreeSet<VersionName> = all.removed().map(|decision| decision.name.clone()).collect();
    let footprints = Footprints::measure(store, inventory, &removable, leftovers, observer)?;
    protect_held(inventory, &footprints);
    Ok(footprints)
}

/// Protects versions whose inodes processes hold by paths that say nothing.
pub(super) fn protect_held(inventory: &mut Inventory, footprints: &Footprints) {
    let held = inventory.held_elsewhere();
    let holders: Vec<_> = footprints.holders(&held).collect();
    for (name, user) in holders {
        inventory.add_user(&name, user);
    }
}

fn carry_out(
    locked: &ExclusiveStore<'_>,
    inventory: &Inventory,
    plan: &Plan,
    report: &mut Report,
    observer: &dyn Observer,
) -> Result<()> {
    let going: Vec<&retention::Decision> = plan.removed().collect();
    observer.stage(Stage::Remove, Some(going.len() as u64));
    let mut kept = Vec::new();
    for decision in going {
        if observer.interrupted() {
            if report.removed.is_empty() {
                return Err(Error::Interrupted);
            }
            report.interrupted = true;
            break;
        }
        match remove_one(locked, inventory, &decision.name)? {
            TakenOut::Gone => report.removed.push(decided(&decision.name, &decision.reasons)),
            TakenOut::Kept(reasons) => kept.push(Decided { name: decision.name.clone(), reasons }),
        }
        observer.work(Work::Files, 1);
    }
    report.kept.extend(kept);
    // Newest first, as the plan has them.
    let order: BTreeMap<&VersionName, usize> =
        plan.versions.iter().enumerate().map(|(at, decision)| (&decision.name, at)).collect();
    report.kept.sort_by_key(|kept| order.get(&kept.name).copied());
    Ok(())
}

/// Takes a version out and deletes its tree.
pub(super) fn remove_one(locked: &ExclusiveStore<'_>, inventory: &Inventory, name: &VersionName) -> Result<TakenOut> {
    let Some(version) = inventory.versions.get(name) else {
        return Err(Error::NotFound { what: "version", name: name.to_string() });
    };
    let import_number = version.facts.import_number;
    let taken_out = locked.take_out(name, import_number, version.digest)?;
    if taken_out == TakenOut::Gone
        && let Err(error) = locked.delete_taken_out(name, import_number)
    {
        // The version is gone; what is left of its tree is a leftover like any other.
        tracing::warn!(version = %name, %error, "cannot remove all of its tree; the next command will try");
    }
    Ok(taken_out)
}

/// Removes the objects that went with these versions; with what goes anyhow, everything that no manifest refers to.
///
/// Not to be interrupted: the versions are gone, and the rest is quick.
pub(super) fn sweep(
    locked: &ExclusiveStore<'_>,
    inventory: &Inventory,
    footprints: &Footprints,
    removed: &[VersionName],
    scope: Scope,
) -> Result<()> {
    let objects = locked.objects_dir()?;
    let swept = locked.in_pool(|| footprints.sweep(&objects, inventory, removed, scope))??;
    tracing::debug!(objects = swept.objects, "swept");
    Ok(())
}

/// Ends the revocation of objects that no version refers to and that are gone: one that is made later is made from right
/// bytes. An object that lies there still, or that a version needs, stays revoked.
pub(super) fn end_revocations(
    locked: &ExclusiveStore<'_>,
    inventory: &Inventory,
    removed: &[VersionName],
) -> Result<()> {
    let revoked = Revoked::of(inventory.protections.marks());
    if revoked.is_empty() {
        return Ok(());
    }
    let (objects, left) = (locked.objects_dir()?, inventory.references_without(removed));
    let is_needed = |key: &ObjectKey| inventory.references.keys.get(key).is_some_and(|object| left.is_referred(object));
    let is_gone = |key: &ObjectKey| matches!(objects.try_stat(key.path()), Ok(None));
    let ended: BTreeSet<ObjectKey> = revoked.iter().filter(|key| !is_needed(key) && is_gone(key)).cloned().collect();
    if ended.is_empty() {
        return Ok(());
    }
    locked.with_room(|| locked.clear_revoked(Action::Gc, &ended, "swept objects that were damaged"))
}

fn record(locked: &ExclusiveStore<'_>, report: &Report) -> Result<()> {
    let names: Vec<&str> = report.removed.iter().map(|removed| removed.name.as_str()).collect();
    let event = Event {
        outcome: "done".into(),
        freed_bytes: Some(report.freed_bytes),
        duration_ms: u64::try_from(report.elapsed.as_millis()).ok(),
        text: Some(format!("removed {}", names.join(", "))),
        ..Event::new(Action::Gc)
    };
    locked.with_room(|| locked.record(vec![event.clone()])).map(drop)
}
