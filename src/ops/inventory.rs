//! What the planner of removals is told: every version with its marks, roles and users, and every object with the
//! number of manifests that refer to it.
//!
//! **Invariant:** nothing is planned in doubt. A manifest that cannot be read, or a history that cannot be trusted, is
//! a refusal: what they would have said might have kept a version or an object.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use rayon::prelude::*;

use super::references::{self, Counts, References, Referred};
use crate::error::{Error, Refusal, Result};
use crate::fsys::held::Hold;
use crate::fsys::kernel::{self, KernelUse};
use crate::fsys::mounts::mounts_below;
use crate::fsys::process::{Use, Uses, processes};
use crate::history::State;
use crate::model::retention::Candidate;
use crate::model::{Digest, EntryName, Facts, Marks, VersionName};
use crate::observe::{self, Observer, Stage};
use crate::store::Store;
use crate::store::catalog::Removal;
use crate::store::protection::Protections;
use crate::store::removal::{Trashed, user, users_of};

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
    pub(super) protections: Protections,
    /// Processes that could not be inspected.
    pub(super) hidden_processes: u64,
    /// Inodes that processes hold.
    pub(super) holds: Vec<Hold>,
    uses: BTreeMap<VersionName, Vec<String>>,
    /// Lost versions that nothing protects.
    pub(super) forgettable: Vec<VersionName>,
    versions_path: Vec<u8>,
}

/// Reads manifests and history; refuses while they cannot be trusted.
pub(super) fn refuse_doubt(store: &Store, observer: &dyn Observer) -> Result<(Marks, Contents)> {
    let witnesses = store.witnesses();
    let reading = store.history()?.read()?.against(&witnesses);
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
        State::Doubt { detail, .. } => return Err(doubt(format!("events of the history are lost: {detail}"))),
        _ => return Err(doubt("the history is missing".into())),
    }
    // Without it nothing tells which objects the version needs. One whose tree is gone as well is forgotten first,
    // unless it is protected.
    let names = store.manifests()?.names()?;
    for name in reading.marks.versions.keys().filter(|name| !names.contains(name)) {
        if store.has_tree(name)? {
            return Err(doubt(format!("the manifest of {name} is gone")));
        }
        if store.is_lost_entirely(name)?
            && let Some(reasons) = store.protections_of_lost([name])?.remove(name)
        {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            return Err(doubt(format!("{name} {}, and its manifest and tree are gone", reasons.join(", "))));
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
    /// Lost versions that nothing protects count as gone: the command that removes forgets them first, and a dry run
    /// says what would remain. So do those whose manifest went since `contents` was read.
    pub(super) fn take(store: &Store, marks: Marks, contents: Contents) -> Result<Self> {
        let (protections, manifests) = (Protections::read(store, marks)?, store.manifests()?);
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
        let lost = store.without_tree(&names)?;
        let kept = store.protections_of_lost(&lost)?;
        for name in names {
            let there = !lost.contains(&name) || kept.contains_key(&name);
            if let Some(version) = read.remove(&name).filter(|_| there) {
                counts.add(&references, &version.referred);
                versions.insert(name, version);
            }
        }
        let mut forgettable = Vec::new();
        for name in lost.into_iter().filter(|name| !kept.contains_key(name)) {
            // A removal that died is completed, which is another matter.
            if !store.is_being_removed(&name)? {
                forgettable.push(name);
            }
        }
        let versions_path = store.versions().real_path()?;
        let mut inventory = Self {
            versions,
            references,
            counts,
            protections,
            hidden_processes: 0,
            holds: Vec::new(),
            uses: BTreeMap::new(),
            forgettable,
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
        let found = processes(&[&path, &trash], Some(store.versions().stat_self()?.device))?;
        self.hidden_processes = found.hidden as u64;
        self.holds = found.holds;
        let [uses, in_trash] = <[_; 2]>::try_from(found.uses).unwrap_or_default();
        let kernel = kernel::uses_below(&path)?;
        let mut uses = Uses { uses, kernel, hidden: found.hidden, hidden_pids: found.hidden_pids };
        for used in in_trash {
            uses.uses.extend(of_trashed(&used.name).map(|name| Use { name, ..used }));
        }
        for used in kernel::uses_below(&trash)? {
            let name = used.name.as_ref().and_then(of_trashed);
            uses.kernel.extend(name.map(|name| KernelUse { name: Some(name), ..used }));
        }
        let mounts = mounts_below(&path)?;
        for name in self.versions.keys() {
            let of_name = |other: &EntryName| other.as_bytes() == name.as_str().as_bytes();
            let mut users = users_of(&uses, name.as_str().as_bytes());
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
        let facts = &version.facts;
        Candidate {
            imported_at: facts.imported_at,
            clock_synchronised: facts.clock_synchronised,
            labels: facts.labels.clone(),
            in_use: self.uses.get(name).cloned().unwrap_or_default(),
            ..self.protections.candidate(name, facts.import_number, &version.digest)
        }
    }
}

/// The version whose tree lies in trash under this name.
fn of_trashed(name: &EntryName) -> Option<EntryName> {
    let trashed = Trashed::parse(name.as_bytes())?;
    EntryName::new(trashed.version.as_str().as_bytes()).ok()
}
