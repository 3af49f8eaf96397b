//! Taking a version out, restartable at every step.
//!
//! | step | died after it, the next command sees |
//! | --- | --- |
//! | 1. `versions/V` renamed to `trash/V.N` (N is its import number), both directories durable | manifest, event, tree in trash: moved back if a process uses it or a role wants it, else completed |
//! | 2. looked once more for processes that use it; moved back if there are any | the same, or nothing |
//! | 3. manifest removed, durable: from here on there is no such version | a tree in trash without manifest: the event is appended, the tree deleted |
//! | 4. event `remove` appended, durable | a tree in trash: deleted |
//! | 5. tree deleted | objects that no manifest refers to: swept by the next gc |
//! | 6. objects swept, index pruned (by the caller, once for all that goes) | nothing |
//!
//! The rename is made under `publish.lock` and `refs.lock`, after the links were read again, and made durable under the
//! former only: who wants to switch does not wait for the medium. No step before the first
//! deletion needs a free block or inode, but for directory entries and the history, where room was set aside; should
//! that not do, the reserve is given back first ([`ExclusiveStore::with_room`]).

use super::{ExclusiveStore, SharedStore, Store, create};
use crate::error::{Error, ErrorKind, Result};
use crate::fsys::process::{Use, Uses, uses_below};
use crate::fsys::{Dir, remove, system};
use crate::layout;
use crate::model::retention::Reason;
use crate::model::{Action, Digest, Event, Role, VersionName};
use crate::refs::{RoleLink, Roles};

/// Stands behind the name of a hand-made tree whose place an adopted one took, while processes still use it.
const DISPLACED: &str = ".displaced";

/// What a name in `trash/` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The version.
    pub version: VersionName,
    /// Its import number.
    pub import_number: u64,
    /// Whether it is the tree that was there before the version was adopted.
    pub displaced: bool,
}

impl Trashed {
    /// The name in `trash/`.
    pub fn name(&self) -> String {
        let end = if self.displaced { DISPLACED } else { "" };
        format!("{}.{}{end}", self.version, self.import_number)
    }

    /// Reads a name in `trash/`; `None` for what this store did not put there.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let (text, displaced) = text.strip_suffix(DISPLACED).map_or((text, false), |text| (text, true));
        let (version, number) = text.rsplit_once('.')?;
        let trashed = Self { version: version.parse().ok()?, import_number: number.parse().ok()?, displaced };
        (trashed.name().as_bytes() == name).then_some(trashed)
    }
}

impl Store {
    /// The trees in trash. Users who may not list it can change nothing here, and see none: for a moment, a version that is
    /// being removed is lost to them.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub(super) fn trashed(&self) -> Result<Vec<Trashed>> {
        let items = match self.trash_dir().and_then(|trash| trash.items()) {
            Err(error) if error.is_io(std::io::ErrorKind::PermissionDenied) && self.check_user().is_err() => Vec::new(),
            other => other?,
        };
        Ok(items.into_iter().filter_map(|item| Trashed::parse(item.name.as_bytes())).collect())
    }

    /// Whether a removal has moved the version's tree out and not yet ended: the tree is in trash, or the manifest is
    /// gone by now.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn is_being_removed(&self, version: &VersionName) -> Result<bool> {
        if self.has_tree(version)? {
            return Ok(false);
        }
        let moved = self.trashed()?.iter().any(|trashed| !trashed.displaced && trashed.version == *version);
        Ok(moved || matches!(self.manifests()?.read(version), Err(Error::NotFound { .. })))
    }
}

/// How taking out a version ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum TakenOut {
    /// There is no such version any longer; its tree is in trash.
    Gone,
    /// It is where it was, for these reasons.
    Kept(Vec<Reason>),
}

impl ExclusiveStore<'_> {
    /// Takes a version out (steps 1 to 4), unless a role leads to it by now or a process uses it.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; what the system refuses. The next command completes or undoes what was begun.
    pub fn take_out(&self, version: &VersionName, import_number: u64, digest: Digest) -> Result<TakenOut> {
        let trashed = Trashed { version: version.clone(), import_number, displaced: false };
        let _publishing = self.publish_lock()?;
        if let Some(reasons) = self.with_room(|| self.move_to_trash(&trashed))? {
            return Ok(TakenOut::Kept(reasons));
        }
        let users = users_of(&self.uses_of_trash()?, trashed.name().as_bytes());
        if !users.is_empty() {
            self.with_room(|| self.move_back(&trashed))?;
            return Ok(TakenOut::Kept(users.into_iter().map(Reason::InUse).collect()));
        }
        self.manifests()?.remove(version)?;
        self.with_room(|| self.record_removal(version, digest, None))?;
        Ok(TakenOut::Gone)
    }

    /// Renames the tree into trash. Gives the reasons why it stays instead, if there are any.
    fn move_to_trash(&self, trashed: &Trashed) -> Result<Option<Vec<Reason>>> {
        let trash = self.trash_dir()?;
        if let Some(reasons) = self.rename_to_trash(trashed, &trash)? {
            return Ok(Some(reasons));
        }
        trash.sync()?;
        self.versions().sync()?;
        Ok(None)
    }

    fn rename_to_trash(&self, trashed: &Trashed, trash: &Dir) -> Result<Option<Vec<Reason>>> {
        let refs = self.refs()?;
        let links = refs.lock(self.settings().lock_timeout)?;
        // A switch that a crash interrupted: `.was` may be the only link to it.
        links.recover()?;
        let roles = wanting(&links.read()?, &trashed.version);
        if !roles.is_empty() {
            return Ok(Some(roles.into_iter().map(Reason::Role).collect()));
        }
        let rename = || self.versions().rename_new(&trashed.version, trash, trashed.name());
        let renamed = rename().or_else(|error| match error.is_io(std::io::ErrorKind::PermissionDenied) {
            // It was isolated as factory once, or its top may not be written.
            true => remove::make_movable(self.versions(), &trashed.version).and_then(|()| rename()),
            false => Err(error),
        });
        match renamed {
            // Removed by hand: there is nothing to move.
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => Ok(None),
            // An overlay does not move a directory of a lower layer (unless mounted with redirect_dir=on).
            Err(error) if error.is_io(std::io::ErrorKind::CrossesDevices) => Ok(Some(vec![Reason::Immovable])),
            other => other.map(|()| None),
        }
    }

    /// Deletes what [`ExclusiveStore::take_out`] left in trash (step 5).
    ///
    /// # Errors
    ///
    /// The first name that cannot be removed; the next command tries again.
    pub fn delete_taken_out(&self, version: &VersionName, import_number: u64) -> Result<()> {
        let trashed = Trashed { version: version.clone(), import_number, displaced: false };
        self.in_pool(|| remove::tree(&self.trash_dir()?, trashed.name()))?
    }

    /// Does a step; if the disk is too full for it, gives the reserve back and does it once more.
    pub fn with_room<T>(&self, step: impl Fn() -> Result<T>) -> Result<T> {
        match step() {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                if !self.dir().remove_file_if_present(layout::RESERVE)? {
                    return Err(error);
                }
                tracing::info!("the disk is full: giving the reserve back");
                step()
            }
            other => other,
        }
    }

    /// Sets the reserve aside again. Best effort: what a removal did is done without it.
    pub fn set_reserve_aside(&self) {
        if let Err(error) = create::reserve(self.dir()) {
            tracing::warn!(%error, "cannot set the reserve aside");
        }
    }
}

impl SharedStore<'_> {
    /// Renames a tree from trash back to its place.
    pub(super) fn move_back(&self, trashed: &Trashed) -> Result<()> {
        move_back(self, trashed)
    }
}

impl ExclusiveStore<'_> {
    fn move_back(&self, trashed: &Trashed) -> Result<()> {
        move_back(self, trashed)
    }
}

fn move_back(store: &Store, trashed: &Trashed) -> Result<()> {
    let trash = store.trash_dir()?;
    trash.rename_new(trashed.name(), store.versions(), &trashed.version)?;
    store.versions().sync()?;
    trash.sync()
}

impl Store {
    /// Uses of what lies in trash.
    pub fn uses_of_trash(&self) -> Result<Uses> {
        uses_below(&self.trash_dir()?.real_path()?)
    }

    /// Records that a version is gone.
    pub(super) fn record_removal(&self, version: &VersionName, digest: Digest, text: Option<&str>) -> Result<()> {
        let event = Event::about(Action::Remove, version, Some(digest));
        let text = text.map(str::to_owned);
        self.record(vec![Event { outcome: "done".into(), text, ..event }]).map(drop)
    }
}

/// The roles that lead to a version, or would if its directory were there.
pub fn wanting(roles: &Roles, version: &VersionName) -> Vec<Role> {
    let wants = |role: &Role| match roles.get(*role) {
        RoleLink::Dangling { target } => target.as_slice() == version.as_str().as_bytes(),
        link => link.version() == Some(version),
    };
    Role::ALL.into_iter().filter(wants).collect()
}

/// Who uses this name, in words: processes, and the kernel.
pub fn users_of(uses: &Uses, name: &[u8]) -> Vec<String> {
    let kernel = uses.kernel.iter().filter(|used| used.may_be_of(name)).map(|used| used.user.clone());
    users(&uses.uses, |used| used.name.as_bytes() == name).into_iter().chain(kernel).collect()
}

/// The processes of those uses that `chosen` picks, each once and in words, with the strongest of its uses.
pub fn users(uses: &[Use], chosen: impl Fn(&Use) -> bool) -> Vec<String> {
    let mut strongest: std::collections::BTreeMap<i32, &Use> = std::collections::BTreeMap::new();
    let strength =
        |used: &Use| ["executes", "is rooted in", "works in", "maps"].iter().position(|how| *how == used.how);
    for used in uses.iter().filter(|used| chosen(used)) {
        let known = strongest.entry(used.pid).or_insert(used);
        if strength(used).unwrap_or(usize::MAX) < strength(known).unwrap_or(usize::MAX) {
            *known = used;
        }
    }
    let describe = |used: &Use| user(used.pid, used.how, &used.path);
    strongest.into_values().map(describe).collect()
}

/// A process and what it does with a path, in words.
pub fn user(pid: i32, how: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(if path.is_empty() { b"its top" } else { path }).into_owned();
    format!("{}, which {how} {path}", system::describe_process(pid))
}

/// Tells whether an error is of a kind that another attempt may not meet, so that it must not stop other work.
pub(super) fn leave_for_later(what: &str, error: &Error) {
    tracing::warn!(what, %error, "cannot remove what an interruption left; the next command will try");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_trash_read_back_and_foreign_ones_do_not() {
        for (name, displaced) in [("v1.2.0.7", false), ("v1.2.0.7.displaced", true), ("a.displaced.7", false)] {
            let trashed = Trashed::parse(name.as_bytes()).unwrap();
            assert_eq!((trashed.name().as_str(), trashed.import_number, trashed.displaced), (name, 7, displaced));
        }
        for name in ["v1", "v1.x", "1.0.7", "v1.07", "v1.+7", "", ".7", "current.7"] {
            assert_eq!(Trashed::parse(name.as_bytes()), None, "{name}");
        }
    }
}
