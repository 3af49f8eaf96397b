//! What `doctor --fix` does: only what is safe whoever asks for it.
//!
//! A role is pointed where the history recorded it, never at a version of doctor's choice. Bytes are `verify --repair`'s
//! business, and what is not ours is nobody's.

use std::collections::BTreeSet;

use super::{Options, Report};
use crate::error::{Error, Result, chain};
use crate::fsys::actor::actor;
use crate::fsys::{Dir, Kind, durable, system};
use crate::layout;
use crate::model::{Event, Format};
use crate::observe::Observer;
use crate::ops::link::{self, Mode, Outcome, Writing};
use crate::ops::repair::point_roles;
use crate::store::{Store, create};

/// Mends what the report says can be mended.
///
/// # Errors
///
/// [`Error::Interrupted`] only.
pub(super) fn fix(
    store: &Store,
    options: &Options<'_>,
    report: &Report,
    fixed: &mut Vec<String>,
    not_done: &mut Vec<String>,
    observer: &dyn Observer,
) -> Result<()> {
    let kinds: BTreeSet<&str> =
        report.findings.iter().filter(|finding| finding.fixable).map(|finding| finding.kind).collect();
    let has = |names: &[&str]| names.iter().any(|name| kinds.contains(name));
    let mut step = |wanted: bool, what: &str, work: &dyn Fn() -> Result<Vec<String>>| -> Result<()> {
        if !wanted {
            return Ok(());
        }
        crate::observe::check(observer)?;
        match work() {
            Ok(done) => fixed.extend(done),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => not_done.push(format!("{what}: {}", chain(&error))),
        }
        Ok(())
    };
    // Everything else needs a store that may be written: the next round finds it so.
    step(has(&["format-damaged"]), "writing the format anew", &|| format(store))?;
    let untrusted = ["history-broken", "history-missing", "history-doubt"];
    step(has(&untrusted), "beginning the history again", &|| history(store))?;
    step(has(&["history-head"]), "making the head of the history", &|| head(store))?;
    step(has(&["leftovers"]), "removing what interrupted commands left", &|| {
        store.recover()?;
        Ok(vec!["removed what interrupted commands left".into()])
    })?;
    step(has(&["index"]), "making the index anew", &|| {
        store.exclude()?.rebuild_index()?;
        Ok(vec!["made the index anew".into()])
    })?;
    let roles = ["role-missing", "role-dangling", "role-foreign", "role-roundabout", "role-through-role"];
    step(has(&roles), "pointing roles", &|| point_roles(&store.exclude()?, observer))?;
    let links = ["link-missing", "link-wrong", "link-stale"];
    step(has(&links), "making links to programs", &|| {
        let wanted = link::Options { bin_dir: options.bin_dir.clone(), mode: Mode::Create, writing: Writing::Done };
        let made = link::link(store, &wanted)?;
        let changed = made.links.iter().filter(|link| !matches!(link.outcome, Outcome::Unchanged | Outcome::Foreign));
        Ok(changed.map(|link| format!("{} {}", link.outcome.name(), link.path.display())).collect())
    })?;
    step(has(&["reserve"]), "setting the reserve aside", &|| {
        store.check_writable()?;
        Ok(if create::reserve(store.dir())? { vec!["set the reserve aside".into()] } else { Vec::new() })
    })
}

/// Writes the format that such a store has: who owns it is seen, and nothing else can be told.
fn format(store: &Store) -> Result<Vec<String>> {
    store.check_user()?;
    let squash = store.dir().stat_self()?.uid != 0;
    let network = system::network_file_system(store.dir())?.is_some();
    let format = Format::new(squash, network);
    let dir = store.dir();
    if dir.try_stat(layout::FORMAT)?.is_some_and(|stat| stat.kind == Kind::Directory) {
        crate::fsys::remove::tree(dir, layout::FORMAT)?;
    }
    durable::write(dir, layout::FORMAT, format.to_text().as_bytes(), layout::PUBLIC_FILE_MODE)?;
    Ok(vec!["wrote the format anew".into()])
}

/// What is no file cannot be replaced by one, and may be somebody's: it gets another name.
fn move_aside(dir: &Dir) -> Result<()> {
    let found = dir.try_stat(layout::HISTORY)?;
    if found.is_none_or(|stat| stat.kind == Kind::File) {
        return Ok(());
    }
    let mut number = 1;
    while dir.try_stat(format!("{}.found-{number}", layout::HISTORY))?.is_some() {
        number += 1;
    }
    dir.rename_new(layout::HISTORY, dir, format!("{}.found-{number}", layout::HISTORY))
}

/// Begins a new chain with the marks that are still known.
fn history(store: &Store) -> Result<Vec<String>> {
    let locked = store.exclude()?;
    let history = locked.history()?;
    let timeout = locked.settings().lock_timeout;
    let who = actor(&locked.settings().claimed);
    move_aside(locked.dir())?;
    let memory = locked.memory()?;
    let begun = history.reset(locked.clock(), timeout, who, "doctor --fix", &memory)?;
    if let Some(begun) = &begun {
        tracing::warn!(event = begun.seq, "the history was begun anew");
        // The old one may know of events that are lost for good.
        if let Err(error) = locked.rebuild_index() {
            tracing::warn!(%error, "the index will be caught up by the next command");
        }
    }
    // Versions of which only the damaged lines told.
    locked.as_shared().heal()?;
    let text = |event: Event| format!("began the history again: {}", event.text.unwrap_or_default());
    Ok(begun.map(text).into_iter().collect())
}

/// Makes the head of a history that is sound.
fn head(store: &Store) -> Result<Vec<String>> {
    let locked = store.exclude()?;
    let dir = locked.dir();
    let found = dir.try_stat(layout::HEAD)?;
    if found.is_some_and(|stat| stat.kind == Kind::Directory) {
        crate::fsys::remove::tree(dir, layout::HEAD)?;
    }
    locked.refuse_doubt()?;
    locked.history()?.make_head(locked.settings().lock_timeout)?;
    Ok(vec!["made the head of the history".into()])
}
