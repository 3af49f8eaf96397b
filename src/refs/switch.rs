//! The switch of `current`, forward and back.

use super::{LockedRefs, RoleLink, Roles};
use crate::error::{Error, Result, Shown};
use crate::layout::{NEXT, WAS};
use crate::model::{Role, VersionName};

/// A switch that is visible and not yet durable: [`super::Refs::sync`] makes it so, once the lock is released.
#[must_use = "a switch is durable only after a sync"]
#[derive(Debug)]
pub struct Switch {
    /// What `current` led to before; `None` if to no version.
    pub from: Option<VersionName>,
    /// What it leads to now.
    pub to: VersionName,
    /// Whether that is another version.
    pub changed: bool,
    /// Roles that lead where they led and are written plainly now.
    pub respelt: Vec<Role>,
}

/// The steps of an activation, each one system call that a crash may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Hardlinks `current` to `.was`.
    Keep,
    /// Makes `.next`.
    Stage,
    /// Renames `.next` over `current`.
    Show,
    /// Renames `.was` over `previous`.
    Store,
}

/// From one version to another.
pub(super) const REPLACE: &[Step] = &[Step::Keep, Step::Stage, Step::Show, Step::Store];
/// When `current` leads to no version, there is nothing to keep.
pub(super) const FIRST: &[Step] = &[Step::Stage, Step::Show];

impl LockedRefs<'_> {
    /// Switches `current` to a version; what was current becomes previous. Activating what is current changes nothing
    /// but roundabout spellings.
    ///
    /// # Errors
    ///
    /// There is no such version; `current` or `previous` is not a link ([`crate::error::Refusal::ForeignFile`]); the
    /// system refuses: `current` then leads where it led.
    pub fn activate(&self, target: &VersionName) -> Result<Switch> {
        let roles = self.settle()?;
        for role in [Role::Current, Role::Previous] {
            self.require_link(&roles, role)?;
        }
        self.require_version(target)?;
        let from = roles.version(Role::Current).cloned();
        let changed = from.as_ref() != Some(target);
        let mut respelt = self.respell(&roles);
        if changed {
            let roles = if respelt.is_empty() { roles } else { self.read()? };
            respelt.retain(|role| *role == Role::Factory);
            let steps = if from.is_some() { REPLACE } else { FIRST };
            for step in steps {
                if let Err(error) = self.take(*step, target, &roles) {
                    let _ = self.recover();
                    return Err(error);
                }
            }
        }
        Ok(Switch { from, to: target.clone(), changed, respelt })
    }

    /// Takes one step of an activation.
    pub(super) fn take(&self, step: Step, target: &VersionName, roles: &Roles) -> Result<()> {
        match step {
            Step::Keep => {
                self.make_free(WAS)?;
                match (self.hardlink(Role::Current.as_str(), WAS)?, roles.version(Role::Current)) {
                    (false, Some(version)) => self.refs.versions.symlink(version, WAS),
                    _ => Ok(()),
                }
            }
            Step::Stage => self.stage(NEXT, target, roles),
            Step::Show => self.move_over(NEXT, Role::Current),
            Step::Store => self.move_over(WAS, Role::Previous),
        }
    }

    /// Switches `current` to `previous`, which is then absent. If both lead to the same version, only `previous` goes.
    ///
    /// # Errors
    ///
    /// `previous` leads to no version; `current` is not a link; the system refuses.
    pub fn roll_back_to_previous(&self) -> Result<Switch> {
        let roles = self.settle()?;
        self.require_link(&roles, Role::Current)?;
        let to = target_of(&roles, Role::Previous)?;
        let versions = &self.refs.versions;
        versions.rename(Role::Previous.as_str(), versions, Role::Current.as_str())?;
        versions.remove_file_if_present(Role::Previous.as_str())?;
        Ok(self.shown(&roles, to))
    }

    /// Switches `current` to `factory`. `previous` stays as it is.
    ///
    /// # Errors
    ///
    /// `factory` leads to no version; `current` is not a link; the system refuses.
    pub fn roll_back_to_factory(&self) -> Result<Switch> {
        let roles = self.settle()?;
        self.require_link(&roles, Role::Current)?;
        let to = target_of(&roles, Role::Factory)?;
        if roles.version(Role::Current) != Some(&to) {
            self.make_free(NEXT)?;
            if !self.hardlink(Role::Factory.as_str(), NEXT)? {
                self.refs.versions.symlink(&to, NEXT)?;
            }
            self.move_over(NEXT, Role::Current)?;
        }
        Ok(self.shown(&roles, to))
    }

    /// Switches `current` to any version. `previous` stays as it is. Needs an inode only if no role leads there.
    ///
    /// # Errors
    ///
    /// There is no such version; `current` is not a link; the system refuses.
    pub fn roll_back_to(&self, target: &VersionName) -> Result<Switch> {
        let roles = self.settle()?;
        self.require_link(&roles, Role::Current)?;
        self.require_version(target)?;
        if roles.version(Role::Current) != Some(target) {
            self.stage(NEXT, target, &roles)?;
            self.move_over(NEXT, Role::Current)?;
        }
        Ok(self.shown(&roles, target.clone()))
    }

    /// A switch back that was just made. Spellings come after it, and only if the disk has room for them.
    fn shown(&self, before: &Roles, to: VersionName) -> Switch {
        let respelt = self.read().map(|roles| self.respell(&roles)).unwrap_or_default();
        let from = before.version(Role::Current).cloned();
        Switch { changed: from.as_ref() != Some(&to), from, to, respelt }
    }
}

/// The version that a role leads to, which a switch back needs.
fn target_of(roles: &Roles, role: Role) -> Result<VersionName> {
    match roles.get(role) {
        RoleLink::Version { version, .. } => Ok(version.clone()),
        RoleLink::Dangling { target } | RoleLink::Foreign { target } => {
            let name = format!("{} ({role})", Shown::bytes(target));
            Err(Error::NotFound { what: "version", name })
        }
        RoleLink::Absent | RoleLink::NotALink(_) => Err(Error::NotFound { what: "role", name: role.to_string() }),
    }
}
