//! The factory version: the last line of defence.
//!
//! It is set once; another one takes [`Replace::Allowed`]. Its tree is read whole before, its directories lose their
//! write bits, and on demand its files get inodes of their own that nobody can change ([`isolate`]).
//!
//! | died after | the next look sees |
//! | --- | --- |
//! | protecting directories and isolating files | a version like any other, better protected; setting it again completes it |
//! | the link `factory` | a factory version that the history does not know; setting it again records it |
//! | the event | everything but the lifted protection of the one before, which a removal lifts as well |

mod isolate;
mod look;
pub mod protection;

use super::check::{Depth, Planned, check_version};
use super::switching::{expect, summary};
use crate::error::{Error, Refusal, Result, chain};
use crate::fsys::remove;
use crate::materialise::Inodes;
use crate::model::{Action, Digest, Event, Role, Selector, VersionName};
use crate::observe::Observer;
use crate::refs::Place;
use crate::store::{SharedStore, Store};

pub use look::{Shown, Verified, show, verify};

/// Whether the factory version gets inodes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// It shares them with other versions, as every version does.
    #[default]
    Shared,
    /// It gets copies.
    Own,
    /// It gets copies that share blocks where the file system can: no protection from a bad block.
    OwnSharingBlocks,
}

impl Isolation {
    fn inodes(self) -> Inodes {
        match self {
            Self::Shared => Inodes::Shared,
            Self::Own => Inodes::Own,
            Self::OwnSharingBlocks => Inodes::OwnSharingBlocks,
        }
    }
}

/// Whether another factory version may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Replace {
    /// It may not.
    #[default]
    Refused,
    /// It may.
    Allowed,
}

/// How to set the factory version.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it gets inodes of its own.
    pub isolation: Isolation,
    /// Whether another one may be replaced.
    pub replace: Replace,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What setting came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The factory version.
    pub version: VersionName,
    /// Its digest.
    pub digest: Digest,
    /// What was factory before, if something was.
    pub from: Option<VersionName>,
    /// Whether anything was changed.
    pub changed: bool,
    /// Files that got an inode of their own.
    pub copied_files: u64,
    /// Whether all files have inodes of their own.
    pub isolated: bool,
    /// Whether those inodes cannot be changed even by root, before it lifts that.
    pub immutable: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Makes a version the factory version.
///
/// # Errors
///
/// - [`Error::NotFound`]; [`Error::Corrupt`] if its manifest or an object cannot be trusted;
/// - [`Error::Refused`] if there is another factory version, or this one is bad, damaged, or not managed;
/// - [`Error::NoSpace`] if there is no room for copies.
pub fn set(store: &Store, selector: &Selector, options: &Options, observer: &dyn Observer) -> Result<Report> {
    store.check_changeable()?;
    let store = store.share()?;
    store.expect_understood("factory")?;
    let survey = store.survey()?;
    let version = survey.resolve(&store, selector)?;
    let manifest = store.manifest(&version)?.ok_or_else(|| {
        Error::refused_with(
            Refusal::NotAllowed,
            format!("{version} was made by hand, so nothing tells what it should hold"),
            format!("take it under management with: tope-store adopt {version}"),
        )
    })?;
    let digest = manifest.digest();
    if let Some(evidence) = survey.marks.bad(&digest) {
        return Err(Error::refused_with(
            Refusal::Bad,
            format!("{version} is marked bad: {evidence}"),
            format!("accept it with: tope-store confirm {version}"),
        ));
    }
    let linked = survey.roles.version(Role::Factory).cloned();
    let recorded = survey.marks.roles.get(&Role::Factory).cloned();
    for other in [&linked, &recorded].into_iter().flatten().filter(|other| **other != version) {
        if options.replace == Replace::Refused {
            return Err(Error::refused_with(
                Refusal::Protected,
                format!("the factory version is {other}, and it is set once"),
                "to replace it: --replace",
            ));
        }
    }
    let (planned, expected) = (Planned::of(&manifest)?, expect(&survey, &version));
    let checked = check_version(&store, &planned, Depth::Full, expected, &survey.marks, observer)?;
    if !checked.is_sound() {
        if store.is_being_removed(&version)? {
            return Err(Error::NotFound { what: "version", name: version.to_string() });
        }
        return Err(Error::refused_with(
            Refusal::Unhealthy,
            format!("{version} fails its check: {}", summary(&checked)),
            format!("mend it with: tope-store verify {version} --repair"),
        ));
    }
    let copied_files = match options.isolation {
        Isolation::Shared => 0,
        isolation => isolate::isolate(&store, &manifest, isolation.inodes(), observer)?,
    };
    let known_isolated = survey.marks.isolated.contains(&version);
    let isolated = options.isolation != Isolation::Shared || known_isolated;
    let protected = protection::protect(&store, &manifest, isolated)?;
    store.versions().sync_file_system()?;
    let (moved, place) = link(&store, &version, linked.as_ref())?;
    let already = recorded.as_ref() == Some(&version) && known_isolated == isolated;
    if !already || moved {
        let event = Event {
            role: Some(Role::Factory),
            from: linked.clone().or(recorded.clone()).filter(|from| *from != version),
            isolated,
            reason: options.reason.clone(),
            outcome: "done".into(),
            ..Event::about(Action::FactorySet, &version, Some(digest))
        };
        place.wait(store.patience());
        store.record(vec![event])?;
    }
    drop(place);
    let mut warnings = Vec::new();
    for before in [&linked, &recorded].into_iter().flatten().filter(|before| **before != version) {
        if let Err(error) = lift(&store, before) {
            warnings.push(format!("the protection of {before} stays for now: {}", chain(&error)));
        }
    }
    if isolated && !protected.immutable {
        warnings.push("its files cannot be made immutable here; root can still change them".to_owned());
    }
    Ok(Report {
        version,
        digest,
        from: linked.or(recorded),
        changed: moved || !already || copied_files > 0 || protected.changed,
        copied_files,
        isolated,
        immutable: isolated && protected.immutable,
        warnings,
    })
}

/// Points the link at the version, durably, unless somebody else moved it meanwhile. Tells whether that changed anything,
/// and gives the place of its record.
fn link(store: &SharedStore<'_>, version: &VersionName, seen: Option<&VersionName>) -> Result<(bool, Place)> {
    let refs = store.refs()?;
    let (moved, place) = {
        let locked = refs.lock(store.settings().lock_timeout)?;
        let roles = locked.read()?;
        let found = roles.version(Role::Factory);
        if found != seen && found != Some(version) {
            return Err(Error::refused(Refusal::Superseded, "somebody else set another factory version meanwhile"));
        }
        let place = locked.place();
        (locked.set_factory(version)?, place)
    };
    refs.sync()?;
    Ok((moved, place))
}

/// Lifts the protection of what was the factory version.
fn lift(store: &Store, version: &VersionName) -> Result<()> {
    let Some(tree) = store.versions().try_open_dir(version)? else { return Ok(()) };
    match store.manifest(version)? {
        Some(manifest) => protection::lift(&tree, &manifest),
        None => remove::make_movable(store.versions(), version),
    }
}
