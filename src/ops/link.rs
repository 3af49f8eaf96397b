//! Links through `current`: programs in a directory of the search path, and the services' directories.
//!
//! For each regular file in `current/bin` a link in the program directory, with the path that the device will see; for
//! each directory in `current/services` a relative one in `services/`. They lead through `current`, so that a switch
//! moves all of them at once and none is ever written anew because of it.
//!
//! *Ours* is a symbolic link that leads, lexically, into `versions/` of this store. Where a link of ours should stand,
//! one that leads elsewhere in `versions/` (a version by name, a role) is replaced. Where none should stand, only a
//! link through `current` is removed: one that names a version was made on purpose. Anything else is foreign.
//!
//! **Invariant:** what is foreign is never touched. A link is replaced in one step: its name is there at every instant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fsys::{Dir, Kind, Stat, beneath};
use crate::layout::{self, Layout};
use crate::model::{EntryName, Role, Selector, VersionName};
use crate::store::Store;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Links for everything in the current version.
    #[default]
    Create,
    /// None of ours.
    Remove,
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Writing {
    /// It is.
    #[default]
    Done,
    /// Only told.
    Planned,
}

/// How to link.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory for programs, as the device sees it.
    pub bin_dir: PathBuf,
    /// What is wanted.
    pub mode: Mode,
    /// Whether anything is written.
    pub writing: Writing,
}

/// What became of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A link was made.
    Created,
    /// A link of ours that led elsewhere was replaced.
    Replaced,
    /// It is as it should be.
    Unchanged,
    /// A link of ours that leads to nothing any longer was removed.
    Removed,
    /// Something that is not ours has the name; it was left alone.
    Foreign,
}

impl Outcome {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Foreign => "foreign",
        }
    }
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it is, as the device sees it.
    pub path: PathBuf,
    /// Where it leads, or should lead.
    pub target: Vec<u8>,
    /// What became of it.
    pub outcome: Outcome,
    /// For something foreign: what it is.
    pub found: Option<String>,
}

/// What linking came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One per name, by directory and name.
    pub links: Vec<Link>,
    /// Entries of `current/bin` for which there is no link, since they lead out of the version or are no files.
    pub passed_over: Vec<String>,
    /// Whether nothing was written because nothing was to be.
    pub dry_run: bool,
}

impl Report {
    /// How many names have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.links.iter().filter(|link| link.outcome == outcome).count()
    }
}

/// Makes, mends or removes the links.
///
/// # Errors
///
/// [`crate::error::Error::NotFound`] if there is no current version to link to; the system refuses. That a name is
/// taken by something foreign is no error: the rest is done, and the report tells.
pub fn link(store: &Store, options: &Options) -> Result<Report> {
    store.check_changeable()?;
    store.expect_understood("link")?;
    let mut programs = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut passed_over = Vec::new();
    let through_current = store.layout().device_root().join(layout::VERSIONS).join(Role::Current.as_str());
    if options.mode == Mode::Create {
        let current = store.survey()?.resolve(store, &Selector::Role(Role::Current))?;
        let tree = store.versions().open_dir(&current)?;
        for name in visible(&tree, BIN)? {
            match beneath::try_stat(&tree, joined(BIN, &name))? {
                Some(stat) if stat.kind == Kind::File => {
                    let target = path_bytes(&through_current.join(BIN).join(as_path(name.as_bytes())));
                    programs.insert(name, target);
                }
                _ => passed_over.push(format!("{BIN}/{name}")),
            }
        }
        for name in visible(&tree, layout::SERVICES)? {
            let path = joined(layout::SERVICES, &name);
            // A service's directory may be a shared path, which leads out of the version on purpose.
            if follow(store, &tree, &current, &path)?.is_some_and(|stat| stat.kind == Kind::Directory) {
                let target = [b"../versions/current/", path.as_slice()].concat();
                services.insert(name, target);
            }
        }
    }
    let dry_run = options.writing == Writing::Planned;
    let own = store.layout();
    let mut links = Vec::new();
    let bin_dir = place(own, &options.bin_dir, !programs.is_empty() && !dry_run)?;
    let seen_at = bin_dir.as_ref().map_or_else(|| options.bin_dir.clone(), |dir| own.on_device(dir));
    links.extend(Place { dir: bin_dir, seen_at, layout: own, dry_run }.link(&programs)?);
    let services_at = own.device_root().join(layout::SERVICES);
    let services_dir = match !services.is_empty() && !dry_run {
        true => Some(store.root().ensure_dir(layout::SERVICES, layout::PUBLIC_DIR_MODE)?),
        false => store.root().try_open_dir(layout::SERVICES)?,
    };
    links.extend(Place { dir: services_dir, seen_at: services_at, layout: own, dry_run }.link(&services)?);
    Ok(Report { links, passed_over, dry_run })
}

/// What a path of the current version leads to; in an image what it leads to there.
fn follow(store: &Store, tree: &Dir, current: &VersionName, path: &[u8]) -> Result<Option<Stat>> {
    let own = store.layout();
    match own.is_image() {
        true => Ok(own.stat(&own.device_root().join(layout::VERSIONS).join(current.as_str()).join(as_path(path)))),
        false => tree.try_stat_following(path),
    }
}

/// Where a version keeps its programs.
const BIN: &str = "bin";

/// Names in a directory of the tree, those that begin with a dot left out.
fn visible(tree: &Dir, directory: &str) -> Result<Vec<EntryName>> {
    let Some(dir) = tree.try_open_dir(directory)? else { return Ok(Vec::new()) };
    let names = dir.items()?.into_iter().map(|item| item.name);
    Ok(names.filter(|name| !name.as_bytes().starts_with(b".")).collect())
}

/// Opens a directory of the device, if it is there or is to be made.
fn place(layout: &Layout, path: &Path, make: bool) -> Result<Option<Dir>> {
    if make {
        return layout.create_dirs(path, layout::PUBLIC_DIR_MODE).map(Some);
    }
    match layout.open_dir(path) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is_io(std::io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A directory of links.
struct Place<'a> {
    dir: Option<Dir>,
    seen_at: PathBuf,
    layout: &'a Layout,
    dry_run: bool,
}

/// What stands at a name.
enum Found {
    Nothing,
    /// A link into `versions/`, and whether through `current`.
    Ours {
        target: Vec<u8>,
        through_current: bool,
    },
    Foreign(String),
}

impl Place<'_> {
    fn link(&self, wanted: &BTreeMap<EntryName, Vec<u8>>) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for (name, target) in wanted {
            let (outcome, found) = match self.look(name.as_bytes())? {
                Found::Nothing => (Outcome::Created, None),
                Found::Ours { target: found, .. } if found == *target => (Outcome::Unchanged, None),
                Found::Ours { .. } => (Outcome::Replaced, None),
                Found::Foreign(what) => (Outcome::Foreign, Some(what)),
            };
            if matches!(outcome, Outcome::Created | Outcome::Replaced) {
                self.put(name, target)?;
            }
            links.push(self.told(name, target.clone(), outcome, found));
        }
        for name in self.names()? {
            if let (false, Found::Ours { target, through_current: true }) =
                (wanted.contains_key(&name), self.look(name.as_bytes())?)
            {
                if let (Some(dir), false) = (&self.dir, self.dry_run) {
                    dir.remove_file(&name)?;
                }
                links.push(self.told(&name, target, Outcome::Removed, None));
            }
        }
        if let (Some(dir), false) = (&self.dir, self.dry_run)
            && links.iter().any(|link| !matches!(link.outcome, Outcome::Unchanged | Outcome::Foreign))
        {
            dir.sync()?;
        }
        links.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(links)
    }

    fn told(&self, name: &EntryName, target: Vec<u8>, outcome: Outcome, found: Option<String>) -> Link {
        Link { path: self.seen_at.join(as_path(name.as_bytes())), target, outcome, found }
    }

    fn names(&self) -> Result<Vec<EntryName>> {
        match &self.dir {
            Some(dir) => {
                let items = dir.items()?.into_iter();
                Ok(items
                    .filter(|item| matches!(item.kind, Kind::Symlink | Kind::Unknown))
                    .map(|item| item.name)
                    .collect())
            }
            None => Ok(Vec::new()),
        }
    }

    fn look(&self, name: &[u8]) -> Result<Found> {
        let Some(dir) = &self.dir else { return Ok(Found::Nothing) };
        let Some(stat) = dir.try_stat(name)? else { return Ok(Found::Nothing) };
        if stat.kind != Kind::Symlink {
            return Ok(Found::Foreign(stat.kind.describe().to_owned()));
        }
        let target = dir.read_link(name)?;
        let leads_to = lexical(&self.seen_at.join(as_path(&target)));
        let versions = self.layout.device_root().join(layout::VERSIONS);
        match leads_to.strip_prefix(&versions) {
            Ok(below) if below.components().next().is_some() => {
                Ok(Found::Ours { through_current: below.starts_with(Role::Current.as_str()), target })
            }
            _ => Ok(Found::Foreign(format!("a link to {}", crate::error::Shown::bytes(&target)))),
        }
    }

    /// Makes a link under a name of its own and renames it into place, whatever has the name of ours.
    fn put(&self, name: &EntryName, target: &[u8]) -> Result<()> {
        let (Some(dir), false) = (&self.dir, self.dry_run) else { return Ok(()) };
        let temporary = temporary(std::process::id());
        dir.remove_file_if_present(&temporary)?;
        dir.symlink(target, &temporary)?;
        // Somebody may have taken a free name since the look; then it stays theirs.
        match self.look(name.as_bytes())? {
            Found::Nothing => dir.rename_new(&temporary, dir, name),
            Found::Ours { .. } => dir.rename(&temporary, dir, name),
            Found::Foreign(_) => dir.remove_file(&temporary),
        }
        .inspect_err(|_| drop(dir.remove_file_if_present(&temporary)))
    }
}

/// The name under which a link is made. It leads through `current`, so that one that a crash left is stale and goes
/// with the next run.
fn temporary(process: u32) -> String {
    format!(".tope-store-{process}.new")
}

/// A path without `.` and `..`, which are taken by their text alone.
fn lexical(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

fn joined(directory: &str, name: &EntryName) -> Vec<u8> {
    [directory.as_bytes(), b"/", name.as_bytes()].concat()
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn path_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}
