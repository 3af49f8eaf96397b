//! Removing versions by name.
//!
//! The protections of gc hold here as well, and no argument overrides them. All versions are checked before the first
//! is touched; then each is taken out as [`store::removal`](crate::store::removal) says, oldest first. Objects that
//! went with them are swept; what no version needed before is left to gc, so that the bytes that come back are those
//! that [`du`](super::du) tells.

use std::collections::BTreeSet;
use std::time::Instant;

use super::footprint::{Anyhow, Footprints, Scope};
use super::gc::{Decided, Mode, Report, end_revocations, protect_held, remove_one, sweep};
use super::inventory::{Inventory, refuse_doubt};
use crate::error::{Error, Refusal, Result};
use crate::fsys::Kind;
use crate::model::VersionName;
use crate::model::retention::{self, Candidate, Reason};
use crate::observe::{Observer, Stage, Work};
use crate::store::Store;
use crate::store::recover::Leftovers;
use crate::store::removal::TakenOut;

/// Removes these versions, all or none.
///
/// [`Report::kept`] then holds only those that somebody began to use after they were checked.
///
/// # Errors
///
/// - [`Error::NotFound`] for a name that is not there;
/// - [`Error::Refused`]: a version is protected (all reasons are said), or is not managed, or there is doubt;
/// - [`Error::Locked`] while imports are at work; what the system refuses.
pub fn remove(store: &Store, names: &[VersionName], mode: Mode, observer: &dyn Observer) -> Result<Report> {
    let start = Instant::now();
    let locked = store.exclude()?;
    locked.expect_understood("remove")?;
    let (mut marks, contents) = refuse_doubt(store, observer)?;
    if mode == Mode::Remove {
        locked.as_shared().heal()?;
        marks = store.history()?.present()?.marks;
    }
    let mut inventory = Inventory::take(store, marks, contents)?;
    let chosen: BTreeSet<VersionName> = names.iter().cloned().collect();
    for name in &chosen {
        refuse_unmanaged(store, &inventory, name)?;
    }
    let nothing = Leftovers::default();
    let footprints = Footprints::measure(store, &inventory, &chosen, &nothing, observer)?;
    protect_held(&mut inventory, &footprints);
    let candidates = inventory.candidates();
    refuse_protected(&candidates, &chosen)?;
    let mut going: Vec<&Candidate> = candidates.iter().filter(|candidate| chosen.contains(&candidate.name)).collect();
    going.sort_by_key(|candidate| candidate.import_number);
    let mut report = Report {
        removed: Vec::new(),
        kept: Vec::new(),
        forgotten: [store.forgotten(), inventory.forgettable.clone()].concat(),
        freed_bytes: 0,
        up_to: footprints.may_share_blocks,
        wanted_bytes: None,
        anyhow: Anyhow::default(),
        hidden_processes: inventory.hidden_processes,
        dry_run: mode == Mode::DryRun,
        interrupted: false,
        elapsed: start.elapsed(),
    };
    observer.stage(Stage::Remove, Some(going.len() as u64));
    for candidate in going {
        if observer.interrupted() {
            if report.removed.is_empty() {
                return Err(Error::Interrupted);
            }
            report.interrupted = true;
            break;
        }
        let name = candidate.name.clone();
        let taken_out = match mode {
            Mode::DryRun => TakenOut::Gone,
            Mode::Remove => remove_one(&locked, &inventory, &name)?,
        };
        match taken_out {
            TakenOut::Gone => report.removed.push(Decided { name, reasons: vec![Reason::Asked] }),
            TakenOut::Kept(reasons) => report.kept.push(Decided { name, reasons }),
        }
        observer.work(Work::Files, 1);
    }
    let removed: Vec<VersionName> = report.removed.iter().map(|removed| removed.name.clone()).collect();
    report.freed_bytes = footprints.freed(&inventory, &removed, Scope::Versions);
    if mode == Mode::Remove {
        sweep(&locked, &inventory, &footprints, &removed, Scope::Versions)?;
        end_revocations(&locked, &inventory, &removed)?;
        if !removed.is_empty() {
            locked.index_removed(&inventory.removal(&removed));
        }
        locked.set_reserve_aside();
    }
    report.elapsed = start.elapsed();
    Ok(report)
}

fn refuse_unmanaged(store: &Store, inventory: &Inventory, name: &VersionName) -> Result<()> {
    if inventory.versions.contains_key(name) {
        return Ok(());
    }
    match store.versions().try_stat(name)? {
        Some(stat) if stat.kind == Kind::Directory => Err(Error::refused_with(
            Refusal::NotAllowed,
            format!("versions/{name} was made by hand and is not managed by this store"),
            format!("take it under management with: tope-store adopt {name}, or remove it with: rm -r"),
        )),
        _ => Err(Error::NotFound { what: "version", name: name.to_string() }),
    }
}

fn refuse_protected(candidates: &[Candidate], chosen: &BTreeSet<VersionName>) -> Result<()> {
    let protections = retention::protections(candidates);
    let protected = chosen.iter().filter_map(|name| protections.get(name).map(|reasons| (name, reasons)));
    let sentences: Vec<String> = protected
        .map(|(name, reasons)| {
            let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            format!("{name} {}", reasons.join(", "))
        })
        .collect();
    if sentences.is_empty() {
        return Ok(());
    }
    Err(Error::refused_with(
        Refusal::Protected,
        format!("nothing was removed: {}", sentences.join("; ")),
        "switch roles, unpin, or stop what uses it first",
    ))
}
