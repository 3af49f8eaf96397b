//! Looking at the factory version.

use crate::error::Result;
use crate::fsys::file;
use crate::model::metadata::WRITE_BITS;
use crate::model::{Digest, Role, Selector, VersionName};
use crate::observe::Observer;
use crate::ops::check::{Checked, Depth, Planned, check_version};
use crate::ops::switching::expect;
use crate::refs::RoleLink;
use crate::store::Store;

/// What the factory version is.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The version that the link leads to.
    pub version: VersionName,
    /// How it does.
    pub link: RoleLink,
    /// The version that was recorded, if another one.
    pub recorded: Option<VersionName>,
    /// Its digest; a directory that was made by hand has none.
    pub digest: Option<Digest>,
    /// Whether its files were given inodes of their own.
    pub isolated: bool,
    /// Whether its top directory is without write bits.
    pub sealed: bool,
    /// Whether its top directory is immutable; `None` where there is no such flag.
    pub immutable: Option<bool>,
    /// Whether it is marked bad, which it should never be.
    pub bad: bool,
}

/// Tells which version is the factory version, and how it is protected.
///
/// # Errors
///
/// [`crate::error::Error::NotFound`] if there is none.
pub fn show(store: &Store) -> Result<Shown> {
    let survey = store.survey()?;
    let version = survey.resolve(store, &Selector::Role(Role::Factory))?;
    let tree = store.versions().open_dir(&version)?;
    let digest = survey.digest(store, &version);
    Ok(Shown {
        link: survey.roles.factory.clone(),
        recorded: survey.marks.roles.get(&Role::Factory).filter(|recorded| **recorded != version).cloned(),
        digest,
        isolated: survey.marks.isolated.contains(&version),
        sealed: tree.stat_self()?.mode & WRITE_BITS == 0,
        immutable: file::immutable(&tree),
        bad: digest.is_some_and(|digest| survey.marks.bad(&digest).is_some()),
        version,
    })
}

/// What a full check of the factory version came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The version.
    pub version: VersionName,
    /// What was found.
    pub checked: Checked,
    /// Whether every non-empty file of it has an inode of its own, as found.
    pub isolated: bool,
}

/// Reads the whole factory version and compares it with its manifest.
///
/// # Errors
///
/// [`crate::error::Error::NotFound`] if there is none, or if it is not managed; [`crate::error::Error::Corrupt`] if
/// its manifest cannot be trusted.
pub fn verify(store: &Store, observer: &dyn Observer) -> Result<Verified> {
    let survey = store.survey()?;
    let version = survey.resolve(store, &Selector::Role(Role::Factory))?;
    let planned = Planned::read(&store.manifests()?, &version)?;
    let expected = expect(&survey, &version);
    let checked = check_version(store, &planned, Depth::Full, expected, &survey.marks, observer)?;
    Ok(Verified { version, isolated: checked.linked_files == 0, checked })
}
