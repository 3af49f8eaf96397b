//! What the planner of removals is told: every version with its marks, roles and users, and every object with the
//! number of manifests that refer to it.
//!
//! **Invariant:** nothing is planned in doubt. A manifest that cannot be read, or a history that cannot be trusted, is
//! a refusal: what they would have said might have kept a version or an object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use rayon::prelude::*;

use super::references::{self, Counts, References, Referred};
use crate::error::{Error, Refusal, Result};
use crate::fsys::held::Hold;
use crate::fsys::mounts::mounts_below;
use crate::fsys::process::{Use, processes};
use crate::history::State;
use crate::layout;
use crate::model::retention::Candidate;
use crate::model::{Digest, Facts, Marks, Role, VersionName};
use crate::observe::{self, Observer, Stage};
use crate::refs::Roles;
use crate::store::Store;
use crate::store::catalog::Removal;
use crate::store::removal::{Trashed, user, users, wanting};

/// One published version.
pub(super) struct Version {
    pub(super) facts: Facts,
    pub(super) digest: Digest,
    pub(super) referred: Referred,
}

/// What all manifests say, each read once.
#[derive(Default)]
pub(super) struct Contents {
    versions: BTreeMap<VersionName, Version>,
    references: References,
}

/// All versions and all objects that they refer to.
pub(super) struct Inventory {
    pub(super) versions: BTreeMap<VersionName, Version>,
    pub(super) references: References,
    /// What all these versions refer to.
    counts: Counts,
    pub(super) marks: Marks,
    pub(super) roles: Roles,
    /// Processes that could not be inspected.
    pub(super) hidden_processes: u64,
    /// Inodes that processes hold.
    pub(super) holds: Vec<Hold>,
    uses: BTreeMap<VersionName, Vec<String>>,
    trial: Option<Vec<u8>>,
    versions_path: Vec<u8>,
}

/// Reads manifests and history; refuses while they cannot be trusted.
pub(super) fn refuse_doubt(store: &Store, observer: &dyn Observer) -> Result<(Marks, Contents)> {
    let reading = store.history()?.read()?;
    let doubt = |detail: String| {
        Error::refused_with(
            Refusal::Doubt,
            format!("nothing is removed while there is doubt: {detail}"),
            "see what is wrong with: tope-store doctor",
        )
    };
    match &reading.state {
        state if state.is_trustworthy() => {}
        State::Broken { segment, line, detail } => {
            return Err(doubt(format!("{segment} of the history is damaged at line {line}: {detail}")));
        }
        _ => return Err(doubt("the history is missing".into())),
    }
    // Without it nobody knows which objects the version needs. (One whose tree is gone as well needs none.)
    let names = store.manifests()?.names()?;
    for name in reading.marks.versions.keys().filter(|name| !names.contains(name)) {
        if store.has_tree(name)? {
            return Err(doubt(format!("the manifest of {name} is gone")));
        }
    }
    match Contents::read(store, observer) {
        Err(error) if error.is_unreadable() => Err(doubt(error.to_string())),
        other => other.map(|contents| (reading.marks, contents)),
    }
}

impl Contents {
    /// Reads all manifests, side by side on the store's threads.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for one that cannot be trusted, [`Error::Newer`] for one that this binary is too old for.
    pub(super) fn read(store: &Store, observer: &dyn Observer) -> Result<Self> {
        observer.stage(Stage::Scan, None);
        let manifests = store.manifests()?;
        let names = manifests.names()?;
        let all = RwLock::default();
        let read = |name: &VersionName| -> Result<_> {
            observe::check(observer)?;
            let (facts, digest, referred) = references::read(&all, &manifests, name)?;
            Ok((name.clone(), Version { facts, digest, referred }))
        };
        let versions = store.in_pool(|| names.par_iter().map(read).collect::<Result<_>>())??;
        Ok(Self { versions, references: all.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }
}

impl Inventory {
    /// Takes the inventory. The caller holds the lock alone, unless it only looks.
    ///
    /// Versions whose directory is neither in `versions/` nor wanted by a role count as gone: the command that removes
    /// settles that first, and the one that only looks says what it would do. So do those whose manifest went since
    /// `contents` was read.
    pub(super) fn take(store: &Store, marks: Marks, contents: Contents) -> Result<Self> {
        let (roles, manifests) = (store.refs()?.read()?, store.manifests()?);
        let names = manifests.names()?;
        let all = RwLock::new(contents.references);
        let mut read = contents.versions;
        for name in &names {
            // One that is not known would leave its objects without a reference.
            if !read.contains_key(name) {
                let (facts, digest, referred) = references::read(&all, &manifests, name)?;
                read.insert(name.clone(), Version { facts, digest, referred });
            }
        }
        let references = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut versions, mut counts) = (BTreeMap::new(), Counts::none(&references));
        for name in names {
            let there = store.versions().try_stat(&name)?.is_some() || !wanting(&roles, &name).is_empty();
            if let Some(version) = read.remove(&name).filter(|_| there) {
                counts.add(&references, &version.referred);
                versions.insert(name, version);
            }
        }
        let versions_path = store.versions().real_path()?;
        let mut inventory = Self {
            versions,
            references,
            counts,
            marks,
            roles,
            hidden_processes: 0,
            holds: Vec::new(),
            uses: BTreeMap::new(),
            trial: store.dir().try_read(layout::TRIAL)?,
            versions_path: std::os::unix::ffi::OsStrExt::as_bytes(versions_path.as_os_str()).to_vec(),
        };
        inventory.find_users(store)?;
        Ok(inventory)
    }

    /// What versions but these refer to.
    pub(super) fn references_without<'n>(&self, names: impl IntoIterator<Item = &'n VersionName>) -> Counts {
        let mut left = self.counts.clone();
        let versions = names.into_iter().filter_map(|name| self.versions.get(name));
        versions.for_each(|version| left.remove(&self.references, &version.referred));
        left
    }

    /// What goes from the index with these versions.
    pub(super) fn removal(&self, names: &[VersionName]) -> Removal {
        let left = self.references_without(names);
        let gone = self.references.keys.iter().filter(|(_, object)| !left.is_referred(*object));
        let mut versions = names.to_vec();
        versions.sort();
        Removal { versions, objects: gone.map(|(key, _)| key).collect() }
    }

    /// Finds the processes and mounts that use versions by their paths. A process that still works in the tree whose
    /// place an adopted one took uses that version.
    fn find_users(&mut self, store: &Store) -> Result<()> {
        let (path, trash) = (store.versions().real_path()?, store.trash_dir()?.real_path()?);
        let found = processes(&[&path, &trash], Some(store.versions().stat_self()?.device));
        self.hidden_processes = found.hidden as u64;
        self.holds = found.holds;
        let [mut uses, in_trash] = <[_; 2]>::try_from(found.uses).unwrap_or_default();
        for used in in_trash {
            let version = Trashed::parse(used.name.as_bytes()).and_then(|trashed| entry_name(&trashed.version));
            uses.extend(version.map(|name| Use { name, ..used }));
        }
        let mounts = mounts_below(&path);
        for name in self.versions.keys() {
            let of_name = |other: &crate::model::EntryName| other.as_bytes() == name.as_str().as_bytes();
            let mut users = users(&uses, |used| of_name(&used.name));
            let mounted = mounts.iter().filter(|(other, _)| of_name(other));
            users.extend(mounted.map(|(_, path)| format!("the mount at {name}/{}", String::from_utf8_lossy(path))));
            self.uses.insert(name.clone(), users);
        }
        Ok(())
    }

    /// Inodes that processes hold by a path that leads to no version: those of other mount namespaces, bind mounts,
    /// removed files.
    pub(super) fn held_elsewhere(&self) -> HashMap<u64, String> {
        let below = |hold: &Hold| {
            hold.path.strip_prefix(self.versions_path.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        let elsewhere = self.holds.iter().filter(|hold| !below(hold));
        elsewhere.map(|hold| (hold.inode, user(hold.pid, hold.how, &hold.path))).collect()
    }

    /// Says that a version is used, by what only its inodes tell.
    pub(super) fn add_user(&mut self, name: &VersionName, user: String) {
        self.uses.entry(name.clone()).or_default().push(user);
    }

    /// The versions as the planner sees them.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.versions.iter().map(|(name, version)| self.candidate(name, version)).collect()
    }

    fn candidate(&self, name: &VersionName, version: &Version) -> Candidate {
        let standing = self.marks.standing(&version.digest);
        let facts = &version.facts;
        Candidate {
            name: name.clone(),
            import_number: facts.import_number,
            imported_at: facts.imported_at,
            clock_synchronised: facts.clock_synchronised,
            labels: facts.labels.clone(),
            bad: standing.bad.is_some(),
            good: standing.good,
            was_current: standing.was_current,
            left_by_rollback: standing.left,
            roles: BTreeSet::from_iter(wanting(&self.roles, name)),
            recorded_factory: self.marks.roles.get(&Role::Factory) == Some(name),
            pinned: self.marks.pins.contains(name),
            on_trial: self.trial.as_ref().is_some_and(|trial| names(trial, name)),
            in_use: self.uses.get(name).cloned().unwrap_or_default(),
        }
    }
}

fn entry_name(version: &VersionName) -> Option<crate::model::EntryName> {
    crate::model::EntryName::new(version.as_str().as_bytes()).ok()
}

/// Whether a text names this version, whatever the text's format: a trial that cannot be understood must still protect.
fn names(text: &[u8], version: &VersionName) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    text.split(|byte| !in_name(byte)).any(|word| word == version.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_names_its_versions_in_any_format() {
        let named = |text: &str, version: &str| names(text.as_bytes(), &version.parse().unwrap());
        assert!(named(r#"{"from":"v1.0.0","to":"v1.1.0"}"#, "v1.1.0"));
        assert!(named("from=v1.0.0\nto=v1.1.0\n", "v1.0.0"));
        assert!(!named(r#"{"to":"v1.1.0-rc.1"}"#, "v1.1.0"));
    }
}
