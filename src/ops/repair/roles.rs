//! Role links that are gone or lead to no version: they are pointed again where the history recorded them.
//!
//! What is no link is never replaced: somebody put it there, and must take it away.

use super::Mended;
use crate::error::{Error, Refusal, Result, Shown};
use crate::model::{Role, VersionName};
use crate::observe::Observer;
use crate::refs::{LockedRefs, RoleLink, Switch};
use crate::store::ExclusiveStore;
use crate::store::survey::Survey;

/// Points roles that lead nowhere at their recorded versions; gives those that were mended, and what could not be.
///
/// # Errors
///
/// [`Error::Locked`]; the links cannot be read.
pub(super) fn mend(store: &ExclusiveStore<'_>, observer: &dyn Observer) -> Result<(Vec<Mended>, Vec<Error>)> {
    let (mut mended, mut failed, mut switched) = (Vec::new(), Vec::new(), None);
    let refs = store.refs()?;
    // Previous last: switching current may change it.
    for role in [Role::Factory, Role::Current, Role::Previous] {
        let survey = store.survey()?;
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
        match refs.lock(store.settings().lock_timeout).and_then(|locked| point(&locked, role, recorded, &survey)) {
            Ok(switch) => {
                switched = switch.or(switched);
                tracing::info!(%role, version = %recorded, found, "pointed the role at its recorded version");
                mended.push(Mended { version: None, path: format!("versions/{role}").into_bytes(), how: "pointed" });
            }
            Err(error) => failed.push(error),
        }
    }
    if let Some(error) = (!mended.is_empty()).then(|| refs.sync()).and_then(Result::err) {
        mended.clear();
        failed.push(error);
    }
    if let Some(switch) = switched {
        store.announce(&switch, observer);
    }
    Ok((mended, failed))
}

/// Points one role, unless somebody else switched since it was found to need that.
fn point(locked: &LockedRefs<'_>, role: Role, version: &VersionName, found: &Survey) -> Result<Option<Switch>> {
    locked.recover()?;
    if locked.read()?.get(role) != found.roles.get(role) {
        return Err(Error::refused(Refusal::Superseded, format!("somebody else changed {role} meanwhile")));
    }
    match role {
        Role::Current => locked.roll_back_to(version).map(Some),
        Role::Previous => locked.set_previous(version).map(|_| None),
        Role::Factory => locked.set_factory(version).map(|_| None),
    }
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
    for role in [Role::Factory, Role::Current, Role::Previous] {
        let survey = store.survey()?;
        let Some(version) = survey.roles.version(role).filter(|_| !survey.roles.get(role).is_plain()) else { continue };
        let (switch, plain) = {
            let locked = refs.lock(store.settings().lock_timeout)?;
            (point(&locked, role, version, &survey)?, locked.read()?.get(role).is_plain())
        };
        refs.sync()?;
        if let Some(switch) = switch {
            store.announce(&switch, observer);
        }
        if plain {
            done.push(format!("wrote {role} plainly"));
        }
    }
    match failed.into_iter().next() {
        Some(error) if done.is_empty() => Err(error),
        _ => Ok(done),
    }
}
