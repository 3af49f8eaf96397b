//! What a link leads to, however it is spelt.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Refs;
use crate::error::Result;
use crate::fsys::Kind;
use crate::layout;
use crate::model::{Role, VersionName};

/// Links that are followed within `versions/` at most; more is a loop.
const MAX_STEPS: usize = 8;

/// What a role's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleLink {
    /// There is no such name.
    Absent,
    /// A link that leads to a version's directory.
    Version {
        /// The version.
        version: VersionName,
        /// How the link says so.
        spelling: Spelling,
    },
    /// A link to a name in `versions/` that is not there, or to itself.
    Dangling {
        /// Its target.
        target: Vec<u8>,
    },
    /// A link out of `versions/`, or to something in it that is no version.
    Foreign {
        /// Its target.
        target: Vec<u8>,
    },
    /// No link at all; never replaced.
    NotALink(Kind),
}

/// How a link leads to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spelling {
    /// The version's name and nothing else.
    Plain,
    /// Straight to the version, in more words: an absolute path, a slash at the end, another link that is no role.
    Roundabout {
        /// The link's target.
        target: Vec<u8>,
    },
    /// Through another role: it moves when that one is switched.
    Through(Role),
}

impl RoleLink {
    /// The version that it leads to.
    pub fn version(&self) -> Option<&VersionName> {
        match self {
            Self::Version { version, .. } => Some(version),
            _ => None,
        }
    }

    /// Whether it leads to a version and says so plainly.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Version { spelling: Spelling::Plain, .. })
    }

    pub(super) fn is_through(&self) -> bool {
        matches!(self, Self::Version { spelling: Spelling::Through(_), .. })
    }
}

impl Refs {
    /// Finds out what a name in `versions/` leads to. Directories on the way are only compared with `versions/`
    /// itself, never entered.
    pub(super) fn resolve(&self, name: &str) -> Result<RoleLink> {
        let Some(stat) = self.versions.try_stat(name)? else { return Ok(RoleLink::Absent) };
        if stat.kind != Kind::Symlink {
            return Ok(RoleLink::NotALink(stat.kind));
        }
        let target = match self.versions.read_link(name) {
            Ok(target) => target,
            // Replaced by hand since the look.
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => return Ok(RoleLink::Absent),
            Err(error) => return Err(error),
        };
        let (mut text, mut plain, mut through) = (target.clone(), true, None);
        for _ in 0..MAX_STEPS {
            let Some(name) = self.name_in_versions(&text) else { return Ok(RoleLink::Foreign { target }) };
            plain &= name == *text;
            match self.versions.try_stat(&name)?.map(|stat| stat.kind) {
                None => return Ok(RoleLink::Dangling { target }),
                Some(Kind::Directory) => {
                    let spelling = match through {
                        Some(role) => Spelling::Through(role),
                        None if plain => Spelling::Plain,
                        None => Spelling::Roundabout { target: target.clone() },
                    };
                    return Ok(match version_of(&name) {
                        Some(version) => RoleLink::Version { version, spelling },
                        None => RoleLink::Foreign { target },
                    });
                }
                Some(Kind::Symlink) => {
                    plain = false;
                    through = through.or(Role::ALL.into_iter().find(|role| role.as_str().as_bytes() == name));
                    text = self.versions.read_link(&name)?;
                }
                Some(_) => return Ok(RoleLink::Foreign { target }),
            }
        }
        Ok(RoleLink::Dangling { target })
    }

    /// The name in `versions/` that a link's target means, if it means one.
    fn name_in_versions(&self, target: &[u8]) -> Option<Vec<u8>> {
        let mut target = target;
        while let Some(shorter) = target.strip_suffix(b"/").or_else(|| target.strip_suffix(b"/.")) {
            target = shorter;
        }
        let (parent, name) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target[..=slash], &target[slash + 1..]),
            None => (&b"."[..], target),
        };
        let is_name = !matches!(name, b"" | b"." | b"..");
        (is_name && (parent == b"." || self.is_versions(Path::new(OsStr::from_bytes(parent))))).then(|| name.to_vec())
    }

    /// Whether this path of a link's target, as the device understands it, is `versions/`. What cannot be looked at is
    /// not.
    fn is_versions(&self, path: &Path) -> bool {
        let Ok(versions) = self.versions.stat_self() else { return false };
        let found = if path.is_absolute() || self.layout.is_image() {
            self.layout.stat(&self.layout.device_root().join(layout::VERSIONS).join(path))
        } else {
            self.versions.try_stat_following(path.as_os_str().as_bytes()).ok().flatten()
        };
        found.is_some_and(|stat| stat.same_inode(&versions))
    }
}

/// The version whose directory has this very name.
fn version_of(name: &[u8]) -> Option<VersionName> {
    let text = std::str::from_utf8(name).ok()?;
    text.parse().ok().filter(|version: &VersionName| version.as_str() == text)
}
