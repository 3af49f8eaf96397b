//! Role links that are gone or lead to no version: they are pointed again where the history recorded them.
//!
//! What is no link is never replaced: somebody put it there, and must take it away.

use super::Mended;
use crate::error::{Error, Refusal, Result, Shown};
use crate::model::Role;
use crate::observe::Observer;
use crate::refs::RoleLink;
use crate::store::ExclusiveStore;

/// Points roles that lead nowhere at their recorded versions; gives those that were mended, and what could not be.
///
/// # Errors
///
/// [`Error::Locked`]; the links cannot be read.
pub(super) fn mend(store: &ExclusiveStore<'_>, observer: &dyn Observer) -> Result<(Vec<Mended>, Vec<Error>)> {
    let (mut mended, mut failed) = (Vec::new(), Vec::new());
    let refs = store.refs()?;
    let locked = refs.lock(store.settings().lock_timeout)?;
    locked.recover()?;
    // Previous last: switching current may change it.
    for role in [Role::Factory, Role::Current, Role::Previous] {
        let survey = store.survey_with(locked.read()?)?;
        let found = match survey.roles.get(role) {
            RoleLink::Version { .. } => continue,
            RoleLink::NotALink(kind) => {
                failed.push(Error::refused_with(
                    Refusal::ForeignFile,
                    format!("versions/{role} is {}, not a link of this store", kind.describe()),
                    "move it away and try again",
                ));
                continue;
            }
            RoleLink::Absent if survey.missing(store, role)?.is_none() => continue,
            RoleLink::Absent => "it was gone".to_owned(),
            RoleLink::Dangling { target } | RoleLink::Foreign { target } => {
                format!("it led to {}", Shown::bytes(target))
            }
        };
        let recorded = survey.marks.roles.get(&role).filter(|_| survey.history.is_trustworthy());
        let Some(recorded) = recorded.filter(|recorded| store.has_tree(recorded).is_ok_and(|there| there)) else {
            continue;
        };
        let pointed = match role {
            Role::Current => locked.roll_back_to(recorded).and_then(|switch| switch.sync(store.clock(), observer)),
            Role::Previous => locked.set_previous(recorded).map(drop),
            Role::Factory => locked.set_factory(recorded).map(drop),
        };
        match pointed {
            Ok(()) => {
                tracing::info!(%role, version = %recorded, found, "pointed the role at its recorded version");
                mended.push(Mended { version: None, path: format!("versions/{role}").into_bytes(), how: "pointed" });
            }
            Err(error) => failed.push(error),
        }
    }
    Ok((mended, failed))
}

/// Mends roles as a repair does, and gives those that lead to the right version in other words, or through another
/// role, the plain spelling. Says what was done.
///
/// # Errors
///
/// [`Error::Locked`]; the links cannot be read; the first that could not be mended, if none was.
pub(in crate::ops) fn point_roles(store: &ExclusiveStore<'_>, observer: &dyn Observer) -> Result<Vec<String>> {
    let (mended, failed) = mend(store, observer)?;
    let mut done: Vec<String> =
        mended.iter().map(|mended| format!("pointed {} where it was recorded", Shown::bytes(&mended.path))).collect();
    let refs = store.refs()?;
    let locked = refs.lock(store.settings().lock_timeout)?;
    for role in [Role::Factory, Role::Current, Role::Previous] {
        let roles = locked.read()?;
        let Some(version) = roles.version(role).filter(|_| !roles.get(role).is_plain()).cloned() else { continue };
        match role {
            Role::Current => locked.roll_back_to(&version).and_then(|switch| switch.sync(store.clock(), observer))?,
            Role::Previous => drop(locked.set_previous(&version)?),
            Role::Factory => drop(locked.set_factory(&version)?),
        }
        if locked.read()?.get(role).is_plain() {
            done.push(format!("wrote {role} plainly"));
        }
    }
    match failed.into_iter().next() {
        Some(error) if done.is_empty() => Err(error),
        _ => Ok(done),
    }
}
