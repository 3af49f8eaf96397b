//! The three role links and their atomic switch.
//!
//! `current`, `previous` and `factory` are symbolic links in `versions/` that hold a plain version name. What runs is
//! what they say; nothing else is asked. People change them by hand (`ln -sfn`), so reading accepts every spelling
//! that leads to a version ([`Spelling`]); writing always makes the plain one.
//!
//! **Invariant:** nobody, at any instant, finds `current` missing or dangling, and no crash leaves it on anything but
//! the old or the new version. A target is looked at under the lock before a link to it is made.
//!
//! **Invariant:** on activation the old version stays reachable through `current`, `previous` or `.was` throughout.
//!
//! **Invariant:** rolling back to `previous` or `factory` needs no free block and no free inode, reads neither the
//! index nor the history, and is visible before anything is synced.
//!
//! **Invariant:** nothing waits for the medium under `refs.lock`: what must be durable before a switch is made so before
//! the lock is taken, and the switch itself once it is released ([`Refs::sync`]). So whoever wants to switch waits for
//! renames only, however slow the medium is for others.
//!
//! All changes are methods of [`LockedRefs`], which holds `refs.lock`. Each begins by finishing what a crash left
//! ([`LockedRefs::recover`]) and by giving links that lead through other roles a target of their own: otherwise the
//! switch would move them too, or make a loop. Both only link, rename and unlink.
//!
//! # Activation
//!
//! From `current -> A`, `previous -> P` to B:
//!
//! | died after | `current` | `previous` | `.was` | `.next` | recovery |
//! | --- | --- | --- | --- | --- | --- |
//! | hardlinking `current` to `.was` | A | P | A | | drops `.was`: it leads where `current` leads |
//! | making `.next` | A | P | A | B | drops both |
//! | renaming `.next` over `current` | B | P | A | | renames `.was` over `previous` |
//! | renaming `.was` over `previous` | B | A | | | nothing to do |
//! | syncing the directory, without the lock | B | A | | | durable |
//!
//! Others may switch before that sync: `schema/FORMAT.md` has the table of two switches in a row. The directory's next sync,
//! whoever makes it, makes all of them durable.
//!
//! Where `.was` and `previous` are one inode, a rename does nothing, and `.was` is unlinked. If `current` leads to no
//! version (absent, dangling, foreign), there is nothing to keep: no `.was`, and `previous` stays.
//!
//! `.next` is a hardlink of a role link with that target where there is one, else a new symbolic link. The same holds
//! for the temporary names of the other roles, `.previous.new` and `.factory.new`, which recovery drops.
//!
//! # Rolling back
//!
//! Back to `previous` is one rename, back to `factory` a hardlink of its link renamed over `current`. A crash leaves the
//! old version or the new one. A link in a roundabout spelling is moved as it is, and respelt after the switch if the
//! disk has an inode for that.

mod link;
mod switch;
mod update;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::error::{Error, Refusal, Result};
use crate::fsys::{Dir, LockFile, LockMode, Turn};
use crate::layout::{self, Layout};
use crate::model::{Role, VersionName};

pub use link::{RoleLink, Spelling};
pub use switch::Switch;
pub use update::{LockedRefs, Place, Recovered};

/// Readings of the links that differ from the one before, at most; nobody switches that often.
const MAX_READINGS: usize = 8;

/// The role links of one store.
#[derive(Debug)]
pub struct Refs {
    versions: Dir,
    store: Dir,
    layout: Layout,
}

/// What all roles point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// What services run from.
    pub current: RoleLink,
    /// What ran before.
    pub previous: RoleLink,
    /// What the device was shipped with.
    pub factory: RoleLink,
}

impl Roles {
    /// One role's link.
    pub fn get(&self, role: Role) -> &RoleLink {
        match role {
            Role::Current => &self.current,
            Role::Previous => &self.previous,
            Role::Factory => &self.factory,
        }
    }

    /// The version that a role leads to.
    pub fn version(&self, role: Role) -> Option<&VersionName> {
        self.get(role).version()
    }

    /// Makes sure that `current` leads where the caller last saw it lead.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`] if it does not.
    pub fn expect_current(&self, expected: Option<&VersionName>) -> Result<()> {
        let found = self.version(Role::Current);
        if found == expected {
            return Ok(());
        }
        let name = |version: Option<&VersionName>| version.map_or("no version", VersionName::as_str).to_owned();
        let message = format!("current is {}, no longer {}: somebody else switched it", name(found), name(expected));
        Err(Error::refused(Refusal::Superseded, message))
    }

    /// The roles that lead to this version.
    pub fn of(&self, version: &VersionName) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.version(*role) == Some(version)).collect()
    }
}

impl Refs {
    /// The links in `versions`, whose lock lies in `store`.
    pub fn new(versions: Dir, store: Dir, layout: &Layout) -> Self {
        Self { versions, store, layout: layout.clone() }
    }

    /// Reads all three links until two readings agree. Takes no lock: they may lead elsewhere by now.
    ///
    /// # Errors
    ///
    /// The system refuses; never because of what the links are.
    pub fn read(&self) -> Result<Roles> {
        // Somebody may switch between one link and the next: what is read twice was so in between.
        let mut roles = self.read_once()?;
        for _ in 1..MAX_READINGS {
            let again = self.read_once()?;
            if again == roles {
                break;
            }
            roles = again;
        }
        Ok(roles)
    }

    /// The same where nobody can switch in between.
    fn read_once(&self) -> Result<Roles> {
        Ok(Roles {
            current: self.resolve(Role::Current.as_str())?,
            previous: self.resolve(Role::Previous.as_str())?,
            factory: self.resolve(Role::Factory.as_str())?,
        })
    }

    /// Makes all changes of links durable that were made so far. Waits for the medium, so not under the lock.
    ///
    /// # Errors
    ///
    /// The system refuses to sync: a switch is visible, and may be lost by a power cut.
    pub fn sync(&self) -> Result<()> {
        self.versions.sync()
    }

    /// Whether a switch is being made, or is made and not yet recorded. Whoever finds that none is finds the links at
    /// rest for as long as nobody begins one.
    ///
    /// # Errors
    ///
    /// This user may not find out; the store was made by a build that could not tell.
    pub fn is_moving(&self) -> Result<bool> {
        let lock = LockFile::open(&self.store, layout::REFS_LOCK)?.try_lock(LockMode::Shared)?;
        Ok(lock.is_none() || Turn::is_taken(&self.store, layout::TURNS_LOCK)?)
    }

    /// Takes `refs.lock` alone.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Locked`] with the holder when the time is over.
    pub fn lock(&self, timeout: Duration) -> Result<LockedRefs<'_>> {
        let guard = LockFile::open(&self.store, layout::REFS_LOCK)?.lock(LockMode::Exclusive, timeout)?;
        Ok(LockedRefs::new(self, guard))
    }
}
