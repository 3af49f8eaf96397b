//! Losing most versions at once, and what may still be done then.
//!
//! Versions go one by one. If most of their trees or manifests are gone at the same moment, something lies over the
//! directory or took its place: a mount, an empty directory, a restored copy of another age. A command that went on would
//! forget versions that are all there. So every command that changes anything refuses, except a rollback, which needs
//! links only, and a repair, which may go on where `versions/` still is the directory that this store made.
//!
//! `versions/` is known by a mark in it ([`layout::MARK`]) that holds the same line as [`layout::IDENTITY`]. A copy of the
//! whole root (`cp -a`, a restored backup) has both and is known again. A directory that was put in its place has no mark,
//! and a mount over it is seen as a mount, whatever it holds.

use std::collections::BTreeSet;

use super::{ExclusiveStore, SharedStore, Store};
use crate::error::{Error, Refusal, Result};
use crate::fsys::{Dir, LockFile, LockMode, durable};
use crate::layout::{self, IDENTITY, MARK, PUBLIC_FILE_MODE};
use crate::model::VersionName;

/// Fewer losses than this are never most.
const FEWEST: usize = 2;
/// How often the state is read again while other commands change it.
const ATTEMPTS: usize = 20;

/// What is gone of the published versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Published versions.
    pub published: usize,
    /// Those without a tree.
    pub trees: Vec<VersionName>,
    /// Those without a manifest.
    pub manifests: Vec<VersionName>,
    /// Directories of the store that another file system is mounted over, from the root.
    pub covered: Vec<String>,
}

impl Losses {
    fn most(&self, gone: &[VersionName]) -> bool {
        gone.len() >= FEWEST && gone.len() * 2 > self.published
    }

    /// Why no command may change anything, if most is lost.
    pub fn obstacle(&self) -> Option<String> {
        let sentence = |what: &str, place: &str, gone: &[VersionName]| {
            let (lost, all) = (gone.len(), self.published);
            format!("the {what} of {lost} of {all} versions are gone from {place} at once")
        };
        let mut found: Vec<String> =
            self.covered.iter().map(|place| format!("another file system is mounted over {place}")).collect();
        if self.most(&self.trees) {
            found.push(sentence("trees", "versions", &self.trees));
        }
        if self.most(&self.manifests) {
            found.push(sentence("manifests", "store/manifests", &self.manifests));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }

    fn refusal(&self, hint: impl Into<String>) -> Result<()> {
        match self.obstacle() {
            None => Ok(()),
            Some(found) => {
                let text = format!("nothing is changed while most of the store is missing: {found}");
                Err(Error::refused_with(Refusal::Doubt, text, hint))
            }
        }
    }
}

impl Store {
    /// Compares the versions that the history knows with the trees and manifests that are there.
    ///
    /// # Errors
    ///
    /// The system refuses to list or read.
    pub fn losses(&self) -> Result<Losses> {
        let covered = self.covered()?;
        let mut losses = Losses::default();
        for _ in 0..ATTEMPTS {
            let present = self.history()?.present()?;
            let manifests = self.manifest_names()?;
            let published: BTreeSet<VersionName> = match present.state.is_trustworthy() {
                true => present.marks.versions.keys().cloned().collect(),
                false => manifests.iter().cloned().collect(),
            };
            let trees = names(&self.versions)?;
            // A removal moves the tree here first, and its event comes before the tree goes.
            let trashed: BTreeSet<VersionName> = self.trashed()?.into_iter().map(|trashed| trashed.version).collect();
            let without = |there: &BTreeSet<VersionName>| {
                let gone = published.iter().filter(|name| !there.contains(*name) && !trashed.contains(*name));
                gone.cloned().collect::<Vec<_>>()
            };
            losses = Losses {
                published: published.len(),
                trees: without(&trees),
                manifests: without(&manifests),
                covered: covered.clone(),
            };
            let grave = losses.most(&losses.trees) || losses.most(&losses.manifests);
            // Between the two looks a removal may have taken away what the first one knew.
            if !grave || self.history()?.present()?.marks.last_event == present.marks.last_event {
                break;
            }
        }
        Ok(losses)
    }

    fn manifest_names(&self) -> Result<BTreeSet<VersionName>> {
        match self.manifests() {
            Ok(manifests) => Ok(manifests.names()?.into_iter().collect()),
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Directories of the store over which another file system is mounted.
    fn covered(&self) -> Result<Vec<String>> {
        let store = &self.dir;
        let parts = [layout::OBJECTS, layout::MANIFESTS, layout::STAGING, layout::TRASH].map(|name| (store, name));
        let mut covered = Vec::new();
        for (above, name) in [(&self.root, layout::VERSIONS)].into_iter().chain(parts) {
            match above.open_dir_same_mount(name) {
                Err(error) if error.is_io(std::io::ErrorKind::CrossesDevices) => {
                    let place =
                        if name == layout::VERSIONS { name.into() } else { format!("{}/{name}", layout::STORE) };
                    covered.push(place);
                }
                // It is not there, or this user may not enter it: that is for others to report.
                _ => {}
            }
        }
        Ok(covered)
    }

    /// Whether this process may change anything here: it may write, and most versions are there.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] says why not.
    pub fn check_changeable(&self) -> Result<()> {
        self.check_writable()?;
        self.check_losses()
    }

    /// The same for a user who asks what a command would do: only whether most versions are there.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] says what is missing.
    pub fn check_losses(&self) -> Result<()> {
        self.losses()?.refusal(
            "unmount what lies over it or put the directory back; if the trees are really gone: tope-store verify --repair",
        )
    }

    /// The same for a repair, which builds what is gone unless that would be in a directory of another store.
    fn check_repairable(&self) -> Result<()> {
        self.check_writable()?;
        let losses = self.losses()?;
        let known = losses.covered.is_empty() && (!losses.most(&losses.trees) || self.knows_versions()?);
        if known {
            return Ok(());
        }
        let root = self.layout.root();
        let (identity, mark) = (root.join(layout::STORE).join(IDENTITY), root.join(layout::VERSIONS).join(MARK));
        losses.refusal(format!(
            "versions/ is not the directory that this store made: unmount what lies over it or put it back; if it is to \
             be filled again: cp {} {}",
            identity.display(),
            mark.display()
        ))
    }

    /// Whether `versions/` bears the mark of this store.
    fn knows_versions(&self) -> Result<bool> {
        let (identity, mark) = (self.dir.try_read(IDENTITY)?, self.versions.try_read(MARK)?);
        Ok(identity.is_some_and(|identity| !identity.is_empty() && Some(identity) == mark))
    }

    /// Takes the store's lock alone, to repair.
    ///
    /// # Errors
    ///
    /// As [`Store::exclude`], except that a loss of trees is no reason where `versions/` is known.
    pub fn exclude_to_repair(&self) -> Result<ExclusiveStore<'_>> {
        self.check_repairable()?;
        let lock = LockFile::open(&self.dir, layout::LOCK)?.lock(LockMode::Exclusive, self.settings.lock_timeout)?;
        Ok(ExclusiveStore { store: self, _lock: lock })
    }
}

impl SharedStore<'_> {
    /// Marks `versions/` as this store's where a mark is missing: in a copy that left out hidden files, say. The caller
    /// made sure that most trees are there.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub(super) fn mark_versions(&self) -> Result<()> {
        if self.knows_versions()? {
            return Ok(());
        }
        let _publishing = self.publish_lock()?;
        mark(self.dir(), self.versions())
    }
}

/// Writes the identity of a store, and its mark in `versions/`.
///
/// # Errors
///
/// What the system refuses.
pub(super) fn mark(store: &Dir, versions: &Dir) -> Result<()> {
    let identity = match store.try_read(IDENTITY)?.filter(|identity| !identity.is_empty()) {
        Some(identity) => identity,
        None => {
            // No two directories are made at the same nanosecond with the same number.
            let stat = versions.stat_self()?;
            let place = format!("{} {} {:?} {}", stat.device, stat.inode, stat.ctime, std::process::id());
            let line = format!("{}\n", blake3::hash(place.as_bytes()).to_hex());
            durable::write(store, IDENTITY, line.as_bytes(), PUBLIC_FILE_MODE)?;
            line.into_bytes()
        }
    };
    durable::write(versions, MARK, &identity, PUBLIC_FILE_MODE)
}

fn names(dir: &Dir) -> Result<BTreeSet<VersionName>> {
    let items = dir.items()?;
    let names = items.iter().filter_map(|item| std::str::from_utf8(item.name.as_bytes()).ok()?.parse().ok());
    Ok(names.collect())
}
