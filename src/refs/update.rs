//! Changes of links under the lock, and what a crash left of earlier ones.

use std::time::Duration;

use super::{Refs, RoleLink, Roles, Spelling};
use crate::error::{Error, Refusal, Result, Shown};
use crate::fsys::mutation::Mutation;
use crate::fsys::unwaiting::Unwaiting;
use crate::fsys::{Kind, LockGuard, Turn};
use crate::layout::{FACTORY_NEW, NEXT, PREVIOUS_NEW, TURNS_LOCK, WAS};
use crate::model::{Role, VersionName};

/// The role links while nobody else may switch them.
#[must_use = "the lock is released as soon as this is dropped"]
#[derive(Debug)]
pub struct LockedRefs<'a> {
    pub(super) refs: &'a Refs,
    _lock: LockGuard,
    _unwaiting: Unwaiting,
}

/// The place of a switch among those that are made and not yet recorded. Given back when dropped.
#[must_use = "others record before this switch as soon as its place is given back"]
#[derive(Debug)]
pub struct Place(Option<Turn>);

impl Place {
    /// Waits until all switches that were made before are recorded; tells whether that came true in time. Where places
    /// cannot be had, nobody is waited for.
    pub fn wait(&self, timeout: Duration) -> bool {
        let Some(turn) = &self.0 else { return true };
        turn.wait(timeout).unwrap_or_else(|error| {
            tracing::debug!(%error, "who switched before is not known");
            true
        })
    }
}

/// What a crash had left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// A switch was finished: `previous` now leads to this version.
    pub previous: Option<VersionName>,
    /// Temporary names that were dropped.
    pub dropped: Vec<&'static str>,
}

/// The name under which a role's new link is made before it is renamed into place.
pub(super) const fn temporary(role: Role) -> &'static str {
    match role {
        Role::Current => NEXT,
        Role::Previous => PREVIOUS_NEW,
        Role::Factory => FACTORY_NEW,
    }
}

impl<'a> LockedRefs<'a> {
    pub(super) fn new(refs: &'a Refs, lock: LockGuard) -> Self {
        Self { refs, _lock: lock, _unwaiting: Unwaiting::begin() }
    }

    /// Takes the place behind all switches that are made and not yet recorded, for one that is made under this lock.
    /// Records are made without the lock, since
    /// they wait for the medium; by their places they come in the order of the switches.
    pub fn place(&self) -> Place {
        let taken = Turn::take(&self.refs.store, TURNS_LOCK);
        // A switch back needs nothing but links.
        Place(taken.inspect_err(|error| tracing::debug!(%error, "the switch has no place among others")).ok())
    }

    /// Reads all three links; they stay so while this is held, but for hands.
    ///
    /// # Errors
    ///
    /// As [`Refs::read`].
    pub fn read(&self) -> Result<Roles> {
        self.refs.read_once()
    }

    /// Makes sure that `current` still leads where the caller last saw it lead.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`] if it does not.
    pub fn expect_current(&self, expected: Option<&VersionName>) -> Result<()> {
        self.read()?.expect_current(expected)
    }

    /// Finishes a switch that a crash interrupted, or drops what is left of it. Neither needs space.
    ///
    /// # Errors
    ///
    /// The system refuses to rename or unlink.
    pub fn recover(&self) -> Result<Recovered> {
        let versions = &self.refs.versions;
        let mut recovered = Recovered::default();
        let drop_link = |name: &'static str, recovered: &mut Recovered| -> Result<()> {
            if self.is_link(name)? {
                versions.remove_file(name)?;
                recovered.dropped.push(name);
            }
            Ok(())
        };
        if self.is_link(WAS)? {
            let was = self.refs.resolve(WAS)?.version().cloned();
            let current = self.refs.resolve(Role::Current.as_str())?.version().cloned();
            let replaceable = !matches!(self.refs.resolve(Role::Previous.as_str())?, RoleLink::NotALink(_));
            match was {
                // The switch happened, and `.was` may be the only link to the old version.
                Some(was) if current.as_ref() != Some(&was) => {
                    if replaceable {
                        self.move_over(WAS, Role::Previous)?;
                        recovered.previous = Some(was);
                    }
                }
                _ => drop_link(WAS, &mut recovered)?,
            }
        }
        for role in Role::ALL {
            drop_link(temporary(role), &mut recovered)?;
        }
        Ok(recovered)
    }

    /// Lets `previous` lead to this version. Tells whether that changed anything.
    ///
    /// # Errors
    ///
    /// There is no such version; `previous` is not a link; the system refuses.
    pub fn set_previous(&self, version: &VersionName) -> Result<bool> {
        self.set(Role::Previous, version)
    }

    /// Lets `factory` lead to this version. Tells whether that changed anything.
    ///
    /// # Errors
    ///
    /// There is no such version; `factory` is not a link; the system refuses.
    pub fn set_factory(&self, version: &VersionName) -> Result<bool> {
        self.set(Role::Factory, version)
    }

    /// Removes `previous`. Tells whether there was one.
    ///
    /// # Errors
    ///
    /// `previous` is not a link; the system refuses.
    pub fn clear_previous(&self) -> Result<bool> {
        let roles = self.settle()?;
        self.require_link(&roles, Role::Previous)?;
        self.refs.versions.remove_file_if_present(Role::Previous.as_str())
    }

    fn set(&self, role: Role, version: &VersionName) -> Result<bool> {
        let roles = self.settle()?;
        self.require_link(&roles, role)?;
        self.require_version(version)?;
        if roles.get(role).is_plain() && roles.version(role) == Some(version) {
            return Ok(false);
        }
        self.point(role, version, &roles)?;
        Ok(true)
    }

    /// What every change begins with: recovers, and gives roles that lead through other roles targets of their own.
    pub(super) fn settle(&self) -> Result<Roles> {
        self.recover()?;
        let mut roles = self.read()?;
        for role in Role::ALL {
            if let (true, Some(version)) = (roles.get(role).is_through(), roles.version(role).cloned()) {
                self.point(role, &version, &roles)?;
                roles = self.read()?;
            }
        }
        Ok(roles)
    }

    /// Gives roles in a roundabout spelling the plain one where the disk has room for it; gives those that were
    /// rewritten. They lead to the right version in any case, so that nothing depends on it.
    pub(super) fn respell(&self, roles: &Roles) -> Vec<Role> {
        let mut respelt = Vec::new();
        for role in Role::ALL {
            if let RoleLink::Version { version, spelling: Spelling::Roundabout { .. } } = roles.get(role) {
                let name = temporary(role);
                let staged = self.make_free(name).and_then(|()| self.stage_plain(name, version, roles));
                if staged.and_then(|()| self.move_over(name, role)).is_ok() {
                    respelt.push(role);
                }
            }
        }
        respelt
    }

    fn point(&self, role: Role, version: &VersionName, roles: &Roles) -> Result<()> {
        self.stage(temporary(role), version, roles)?;
        self.move_over(temporary(role), role)
    }

    /// Makes a link to `version` under a temporary name: without a new inode if any role has such a link.
    pub(super) fn stage(&self, name: &'static str, version: &VersionName, roles: &Roles) -> Result<()> {
        self.make_free(name)?;
        let Err(error) = self.stage_plain(name, version, roles) else { return Ok(()) };
        // Not spelt as it should be, but it leads there, and a full disk has room for it.
        for role in Role::ALL {
            let link = roles.get(role);
            if link.version() == Some(version) && !link.is_through() && self.hardlink(role.as_str(), name)? {
                return Ok(());
            }
        }
        Err(error)
    }

    fn stage_plain(&self, name: &'static str, version: &VersionName, roles: &Roles) -> Result<()> {
        for role in Role::ALL {
            let link = roles.get(role);
            if link.version() == Some(version) && link.is_plain() && self.hardlink(role.as_str(), name)? {
                return Ok(());
            }
        }
        self.refs.versions.symlink(version, name)
    }

    /// Gives a link a second name. `false` where links cannot be hardlinked: some file systems, and links that another
    /// user made (`fs.protected_hardlinks`).
    pub(super) fn hardlink(&self, from: &str, to: &str) -> Result<bool> {
        use std::io::ErrorKind;
        match self.refs.versions.link(from, &self.refs.versions, to) {
            Ok(()) => Ok(true),
            Err(error)
                if [ErrorKind::PermissionDenied, ErrorKind::Unsupported, ErrorKind::TooManyLinks]
                    .iter()
                    .any(|kind| error.is_io(*kind)) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Renames a temporary link over a role. Between two names of one inode that does nothing, so the temporary one
    /// is removed then.
    pub(super) fn move_over(&self, name: &str, role: Role) -> Result<()> {
        let versions = &self.refs.versions;
        if Mutation::Rename.is_made() {
            versions.remove_file_if_present(role.as_str())?;
        }
        versions.rename(name, versions, role.as_str())?;
        versions.remove_file_if_present(name).map(drop)
    }

    pub(super) fn make_free(&self, name: &'static str) -> Result<()> {
        match self.refs.versions.try_stat(name)? {
            None => Ok(()),
            Some(stat) if stat.kind == Kind::Symlink => self.refs.versions.remove_file(name),
            Some(stat) => Err(self.foreign(name, stat.kind)),
        }
    }

    pub(super) fn require_link(&self, roles: &Roles, role: Role) -> Result<()> {
        self.refs.require_link(roles, role)
    }

    /// A version is a directory in `versions/`, managed or not.
    pub(super) fn require_version(&self, version: &VersionName) -> Result<()> {
        match self.refs.versions.try_stat(version)? {
            Some(stat) if stat.kind == Kind::Directory => Ok(()),
            _ => Err(Error::NotFound { what: "version", name: version.to_string() }),
        }
    }

    fn foreign(&self, name: &str, kind: Kind) -> Error {
        self.refs.foreign(name, kind)
    }

    fn is_link(&self, name: &str) -> Result<bool> {
        Ok(self.refs.versions.try_stat(name)?.is_some_and(|stat| stat.kind == Kind::Symlink))
    }
}

impl Refs {
    /// Makes sure that a role is a link or absent, so that a switch may take its place.
    ///
    /// # Errors
    ///
    /// [`Refusal::ForeignFile`].
    pub fn require_link(&self, roles: &Roles, role: Role) -> Result<()> {
        match roles.get(role) {
            RoleLink::NotALink(kind) => Err(self.foreign(role.as_str(), *kind)),
            _ => Ok(()),
        }
    }

    fn foreign(&self, name: &str, kind: Kind) -> Error {
        let path = self.versions.path_of(name);
        Error::refused_with(
            Refusal::ForeignFile,
            format!("{} is {}, not a link of this store", Shown::path(&path), kind.describe()),
            "move it away and try again",
        )
    }
}
