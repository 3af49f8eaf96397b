//! Ways back by name, for where `previous` and `factory` lead nowhere: versions that ran before or are good, and where none
//! did, those that never ran.
//!
//! It works with what can be read. Without the history it is not known what ran and what is bad: then every version that
//! has a tree is a way, the newest import first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Options, likeliest};
use crate::error::Result;
use crate::fsys::Kind;
use crate::model::way::Way;
use crate::model::{Action, Role, VersionName};
use crate::store::Store;
use crate::store::survey::Survey;

/// The ways back.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// What is current, if that is a version.
    pub current: Option<VersionName>,
    /// Where a rollback leads by itself, if anywhere.
    pub to: Option<VersionName>,
    /// All versions that can be gone back to by name, the likeliest first.
    pub ways: Vec<Way>,
    /// Why the history does not tell which of them ran and which are bad, if so.
    pub doubt: Option<String>,
}

/// Lists the ways back. Every user may ask.
///
/// # Errors
///
/// The links cannot be read.
pub fn ways(store: &Store) -> Result<Ways> {
    let survey = store.survey()?;
    Ok(Ways {
        current: survey.roles.version(Role::Current).cloned(),
        to: likeliest(store, &Options::default()).ok().flatten(),
        ways: by_name(store, &survey, false),
        doubt: (!survey.history.is_trustworthy()).then(|| "the history cannot be trusted".to_owned()),
    })
}

/// The same, with commands that restart services where this is to be `supervised`. What cannot be read is left out.
pub(super) fn by_name(store: &Store, survey: &Survey, supervised: bool) -> Vec<Way> {
    let ran = last_current(store);
    let current = survey.roles.version(Role::Current);
    let found = trees(store).into_iter().filter(|version| current != Some(version));
    let mut found: Vec<Found> = found.map(|version| Found::of(store, survey, &ran, version)).collect();
    let trusted = survey.history.is_trustworthy();
    if !trusted || found.iter().any(|one| one.ran || one.good) {
        found.retain(|one| one.ran || one.good || !trusted);
        found.iter_mut().for_each(|one| one.verb = "rollback --to");
    }
    found.sort_by_key(|one| (one.bad, Reverse((one.last, one.import_number)), one.version.clone()));
    found.into_iter().map(|one| one.way(supervised)).collect()
}

/// A version with a tree, and what is known of it.
struct Found {
    version: VersionName,
    state: &'static str,
    ran: bool,
    good: bool,
    bad: bool,
    /// When it became current the last time: the number of the event, and its wall time.
    last: Option<(u64, i64)>,
    import_number: Option<u64>,
    verb: &'static str,
}

impl Found {
    fn of(store: &Store, survey: &Survey, ran: &BTreeMap<VersionName, (u64, i64)>, version: VersionName) -> Self {
        let is_managed = store.manifests().and_then(|all| all.stat(&version)).is_ok_and(|stat| stat.is_some());
        // What the history remembers of a name says nothing about a directory that was made by hand.
        let digest = survey.digest(store, &version).filter(|_| is_managed);
        let standing = digest.map(|digest| survey.marks.standing(&digest)).unwrap_or_default();
        let (good, bad) = (standing.good && standing.bad.is_none(), standing.bad.is_some());
        let last = ran.get(&version).copied();
        let state = match () {
            () if !is_managed => "unmanaged",
            () if survey.marks.damaged.contains_key(&version) => "damaged",
            () if bad => "bad",
            () if good => "good",
            () => "unconfirmed",
        };
        let import_number = survey.import_number(store, &version);
        Self {
            state,
            ran: last.is_some() || standing.was_current,
            good,
            bad,
            last,
            import_number,
            verb: "activate",
            version,
        }
    }

    fn way(self, supervised: bool) -> Way {
        let restart = if supervised { " --restart" } else { "" };
        let force = if self.bad { " --force" } else { "" };
        Way {
            command: format!("tope-store {} {}{restart}{force}", self.verb, self.version),
            version: self.version,
            state: self.state,
            last_current: self.last.map(|(_, time)| time),
        }
    }
}

/// The directories in `versions/` that can be a version.
fn trees(store: &Store) -> Vec<VersionName> {
    let items = store.versions().items().unwrap_or_default();
    let names = items.iter().filter_map(|item| {
        let name: VersionName = std::str::from_utf8(item.name.as_bytes()).ok()?.parse().ok()?;
        (name.as_str().as_bytes() == item.name.as_bytes()).then_some(name)
    });
    let is_tree = |name: &VersionName| {
        store.versions().try_stat(name).is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == Kind::Directory))
    };
    names.filter(is_tree).collect()
}

/// When each version became current the last time, as far as the history can be read.
fn last_current(store: &Store) -> BTreeMap<VersionName, (u64, i64)> {
    let Ok(reading) = store.history().and_then(crate::history::History::read) else { return BTreeMap::new() };
    let events = reading.events.into_iter().map(|recorded| recorded.event);
    let switches = events.filter(|event| match event.action {
        // One with the role `previous` says only what previous leads to.
        Action::Activate | Action::Rollback => event.role.is_none(),
        Action::ExternalChange => event.role == Some(Role::Current),
        _ => false,
    });
    switches.filter_map(|event| Some((event.version?, (event.seq, event.time)))).collect()
}
