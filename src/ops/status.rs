//! How things stand: roles, the health of what runs, what is on trial, what was changed by hand, room.
//!
//! Works for every user and on a read-only mount, with any format, and with whatever part of the store damaged: what
//! cannot be found out is told as such.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Checked, Planned, check_version};
use super::switching::{Verify, expect};
use super::who::{self, Which};
use crate::error::{Error, Result, Shown, chain};
use crate::fsys::Space;
use crate::history::State;
use crate::layout;
use crate::model::event::Evidence;
use crate::model::marks::Degraded;
use crate::model::notice::Undelivered;
use crate::model::switch::Switch;
use crate::model::{Digest, Role, VersionName};
use crate::observe::Observer;
use crate::refs::RoleLink;
use crate::staging;
use crate::store::Store;
use crate::store::trial::Found;

/// How long processes are inspected for; those that are left then count as not inspected.
const INSPECTION: Duration = Duration::from_secs(2);

/// What to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// How closely the current version is checked.
    pub verify: Verify,
}

/// Whether a version is held to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It passed its checks, or was confirmed.
    Good,
    /// It is marked bad.
    Bad(Evidence),
    /// Nothing is held of it.
    Unknown,
    /// It was made by hand: nothing can be held of it.
    Unmanaged,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleStatus {
    /// The role.
    pub role: Role,
    /// Its link.
    pub link: RoleLink,
    /// What it leads to by the history.
    pub recorded: Option<VersionName>,
    /// Whether somebody changed it since that was recorded.
    pub changed_by_hand: bool,
    /// The version's digest.
    pub digest: Option<Digest>,
    /// What is held of it.
    pub standing: Standing,
}

/// What a check of the current version gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurrentHealth {
    /// It was compared with its manifest.
    Checked(Checked),
    /// It was not, for this reason.
    NotChecked(String),
    /// It cannot be, which is damage: its manifest cannot be read, or the medium does not answer.
    Failed(String),
    /// This binary is too old for its manifest, as this says.
    Newer(String),
}

/// A version that processes still run although it is not current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The version.
    pub version: VersionName,
    /// How many processes use it.
    pub processes: usize,
    /// The units that they belong to, by name.
    pub units: Vec<String>,
}

/// What processes were found to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InUse {
    /// Versions other than the current one, by name.
    pub running: Vec<Running>,
    /// Processes that could not be inspected: other users', or those that were left when the time was over.
    pub hidden: usize,
    /// Why none could be, if so.
    pub unknown: Option<String>,
}

/// How things stand.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All roles.
    pub roles: Vec<RoleStatus>,
    /// Whether what runs is what was imported.
    pub health: CurrentHealth,
    /// How many versions are managed.
    pub versions: usize,
    /// Versions whose tree is gone.
    pub missing_tree: Vec<VersionName>,
    /// Why no command may change anything, if most versions are gone at once.
    pub loss: Option<String>,
    /// Directories that were made by hand.
    pub unmanaged: Vec<VersionName>,
    /// The open trial.
    pub trial: Found,
    /// Whether the process that began the trial still watches.
    pub trial_is_watched: bool,
    /// The version that runs although it fails its checks, since every other does too, and what failed.
    pub degraded: Option<Degraded>,
    /// The last switch that is recorded.
    pub last_switch: Option<Switch>,
    /// Managed versions that are marked bad, and why.
    pub bad: Vec<(VersionName, Evidence)>,
    /// Versions that a repair could not mend.
    pub unrepaired: Vec<VersionName>,
    /// Versions other than the current one that processes still run.
    pub in_use: InUse,
    /// The notice that was not delivered, if the last one was not.
    pub undelivered: Option<Undelivered>,
    /// Whether the history can be trusted.
    pub history: State,
    /// What interrupted runs left in staging; `None` for users who may not look.
    pub abandoned: Option<Vec<String>>,
    /// Free bytes.
    pub free_bytes: u64,
    /// Free inodes; `None` on file systems that have no fixed number.
    pub free_inodes: Option<u64>,
    /// Why this build may not write here, if it may not.
    pub format_obstacle: Option<String>,
}

impl Report {
    /// One role.
    pub fn role(&self, role: Role) -> Option<&RoleStatus> {
        self.roles.iter().find(|status| status.role == role)
    }

    /// Whether `current` leads to a version.
    pub fn has_current(&self) -> bool {
        self.role(Role::Current).is_some_and(|status| status.link.version().is_some())
    }

    /// The last switch, if a failed check made it, `current` still leads to where it led, and no operator accepted that.
    pub fn rolled_back(&self) -> Option<&Switch> {
        let current = self.role(Role::Current).and_then(|status| status.link.version());
        let is_current = |switch: &&Switch| current == Some(&switch.version);
        self.last_switch.as_ref().filter(|switch| switch.is_unaccepted_rollback()).filter(is_current)
    }
}

/// Finds out how things stand.
///
/// # Errors
///
/// The links or the free space cannot be read; [`Error::Interrupted`].
pub fn status(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Report> {
    let mut survey = store.survey()?;
    // What manifests and index name is compared as well, where they can be read.
    if let Ok(state @ State::Doubt { .. }) = store.history_state() {
        survey.history = state;
    }
    let trusted = survey.history.is_trustworthy();
    let roles = Role::ALL.into_iter().map(|role| {
        let link = survey.roles.get(role).clone();
        let digest = link.version().and_then(|version| survey.digest(store, version));
        let standing = match digest.map(|digest| survey.marks.standing(&digest)) {
            Some(standing) => match (standing.bad, standing.good) {
                (Some(evidence), _) => Standing::Bad(evidence),
                (None, true) => Standing::Good,
                (None, false) => Standing::Unknown,
            },
            None if link.version().is_some() => Standing::Unmanaged,
            None => Standing::Unknown,
        };
        let recorded = survey.marks.roles.get(&role);
        let changed_by_hand = trusted && link.version() != recorded;
        RoleStatus { role, recorded: recorded.cloned(), changed_by_hand, link, digest, standing }
    });
    let roles: Vec<RoleStatus> = roles.collect();
    let health = health(store, &survey, options, observer)?;
    let names = store.manifests().and_then(|manifests| manifests.names()).unwrap_or_default();
    let mut missing_tree = Vec::new();
    for name in &names {
        if !store.has_tree(name)? {
            missing_tree.push(name.clone());
        }
    }
    let bad = |name: &VersionName| survey.digest(store, name).and_then(|digest| survey.marks.bad(&digest)).cloned();
    let bad = names.iter().filter_map(|name| Some((name.clone(), bad(name)?))).collect();
    // A switch by hand that no command has seen yet has ended it.
    let runs = survey.roles.version(Role::Current).cloned();
    let trial = store.trial().unwrap_or_else(|error| Found::Unreadable(chain(&error)));
    let space = Space::of(store.dir())?;
    let abandoned = store.dir().open_dir(layout::STAGING).and_then(|staging| staging::abandoned(&staging));
    Ok(Report {
        roles,
        health,
        versions: names.len(),
        missing_tree,
        loss: store.losses().map_or_else(|error| Some(chain(&error)), |losses| losses.obstacle()),
        unmanaged: store.made_by_hand().unwrap_or_default().versions,
        trial_is_watched: matches!(&trial, Found::Open(trial) if store.is_watched(trial)),
        trial,
        last_switch: survey.marks.last_switch,
        bad,
        unrepaired: names.iter().filter(|name| survey.marks.damaged.contains_key(*name)).cloned().collect(),
        in_use: in_use(store),
        undelivered: store.undelivered().unwrap_or_default(),
        degraded: survey.marks.degraded.filter(|degraded| runs.is_none_or(|runs| runs == degraded.version)),
        history: survey.history,
        abandoned: abandoned
            .ok()
            .map(|names| names.iter().map(|name| Shown::bytes(name.as_bytes()).to_string()).collect()),
        free_bytes: space.free_bytes,
        free_inodes: (space.free_inodes != u64::MAX).then_some(space.free_inodes),
        format_obstacle: store.format_obstacle(),
    })
}

fn health(
    store: &Store,
    survey: &crate::store::survey::Survey,
    options: &Options,
    observer: &dyn Observer,
) -> Result<CurrentHealth> {
    let not_checked = |why: &str| Ok(CurrentHealth::NotChecked(why.to_owned()));
    // What this user may not read is no damage.
    let failed = |error: &Error| match error.is_io(std::io::ErrorKind::PermissionDenied) {
        true => not_checked(&chain(error)),
        false => Ok(CurrentHealth::Failed(chain(error))),
    };
    let Verify::To(depth) = options.verify else { return not_checked("not asked for") };
    let Some(version) = survey.roles.version(Role::Current) else { return not_checked("there is no current version") };
    let planned = match Planned::read(&store.manifests()?, version) {
        Ok(planned) => planned,
        Err(Error::NotFound { .. }) => return not_checked("it was made by hand"),
        Err(error @ Error::Newer { .. }) => return Ok(CurrentHealth::Newer(chain(&error))),
        Err(error) => return failed(&error),
    };
    match check_version(store, &planned, depth, expect(survey, version), &survey.marks, observer) {
        Ok(checked) => Ok(CurrentHealth::Checked(checked)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => failed(&error),
    }
}

/// What processes still run. That it cannot be found out is said, and nothing else fails for it.
fn in_use(store: &Store) -> InUse {
    let found = match who::who_within(store, Which::Stale, INSPECTION) {
        Ok(found) => found,
        Err(error) => return InUse { unknown: Some(chain(&error)), ..InUse::default() },
    };
    let mut running: BTreeMap<VersionName, Running> = BTreeMap::new();
    for process in found.processes {
        let new = || Running { version: process.version.clone(), processes: 0, units: Vec::new() };
        let entry = running.entry(process.version.clone()).or_insert_with(new);
        entry.processes += 1;
        entry.units.extend(process.unit);
    }
    let mut running: Vec<Running> = running.into_values().collect();
    for one in &mut running {
        one.units.sort_unstable();
        one.units.dedup();
    }
    InUse { running, hidden: found.hidden, unknown: None }
}
