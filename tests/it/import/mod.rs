//! `import`: what it makes, and that bad input leaves nothing behind.
//!
//! The measure of "nothing" is [`Traces`]: everything in the root but the index, which is derived, before and after.

mod archives;
mod basics;
mod damage;
mod equality;
mod mounts;
mod names;
mod options;
mod owners;
mod placement;
mod places;
mod python;
mod races;
mod sources;
mod space;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Fixture, Ran, needs_program};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    let files = [
        archives::tests(),
        basics::tests(),
        damage::tests(),
        equality::tests(),
        mounts::tests(),
        names::tests(),
        options::tests(),
        owners::tests(),
        places::tests(),
        placement::tests(),
        python::tests(),
        races::tests(),
        sources::tests(),
        space::tests(),
    ];
    files.into_iter().flatten().collect()
}

/// The arguments of an import with a document for an answer.
fn arguments(source: impl AsRef<OsStr>, version: &str, more: &[&str]) -> Vec<std::ffi::OsString> {
    let mut all =
        vec!["--json".into(), "import".into(), source.as_ref().to_owned(), "--version".into(), version.into()];
    all.extend(more.iter().map(Into::into));
    all
}

/// Imports whatever lies at a path.
fn import(fixture: &Fixture, source: impl AsRef<OsStr>, version: &str, more: &[&str]) -> Ran {
    fixture.run(&arguments(source, version, more))
}

/// The message of the one error document, which must be of this kind.
#[track_caller]
fn error_of(ran: &Ran, kind: &str) -> String {
    let document = ran.json();
    assert_eq!(document["error"]["kind"], kind, "{document:#}");
    format!("{} {}", document["error"]["message"].as_str().unwrap(), document["error"]["hint"].as_str().unwrap_or(""))
}

/// What an inode shows that nobody may change behind a store's back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    /// Only where it was asked for: making and removing a link changes it.
    ctime: Option<(i64, i64)>,
}

/// Everything in a store's root but the index.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traces(BTreeMap<PathBuf, Trace>);

impl Traces {
    /// Contents and names. Directories' times are left out: a temporary name changes them.
    fn of(fixture: &Fixture) -> Self {
        Self::with(fixture, false)
    }

    /// Every time as well: not even a temporary name was made.
    fn exactly(fixture: &Fixture) -> Self {
        Self::with(fixture, true)
    }

    fn with(fixture: &Fixture, exactly: bool) -> Self {
        let mut all = BTreeMap::new();
        let walk = walkdir::WalkDir::new(fixture.root()).into_iter();
        let is_index = |item: &walkdir::DirEntry| item.file_name().as_bytes().starts_with(b"index.db");
        for item in walk.filter_entry(|item| !is_index(item)) {
            let item = item.expect("a readable root");
            let stat = item.metadata().expect("metadata");
            // A fan-out directory of objects/ that is empty is nobody's trace.
            let fan = item.depth() == 3 && item.path().parent().is_some_and(|parent| parent.ends_with("store/objects"));
            if fan && !exactly && std::fs::read_dir(item.path()).expect("a listing").next().is_none() {
                continue;
            }
            // In `store/` itself the index comes and goes with its companions.
            let exactly = exactly && !item.path().ends_with("root/store");
            let times = exactly || !stat.is_dir();
            let trace = Trace {
                inode: stat.ino(),
                mode: stat.mode(),
                owner: (stat.uid(), stat.gid()),
                size: if stat.is_dir() { 0 } else { stat.size() },
                mtime: if times { (stat.mtime(), stat.mtime_nsec()) } else { (0, 0) },
                ctime: exactly.then(|| (stat.ctime(), stat.ctime_nsec())),
            };
            all.insert(item.path().strip_prefix(fixture.root()).expect("below").to_owned(), trace);
        }
        Self(all)
    }

    /// Nothing came, went or changed.
    #[track_caller]
    fn expect_unchanged(&self, fixture: &Fixture) {
        self.expect_same(&Self::with(fixture, self.0.values().any(|trace| trace.ctime.is_some())));
    }

    #[track_caller]
    fn expect_same(&self, later: &Self) {
        let differences: Vec<_> = self
            .0
            .keys()
            .chain(later.0.keys())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .filter(|path| self.0.get(*path) != later.0.get(*path))
            .map(|path| (path, self.0.get(path), later.0.get(path)))
            .collect();
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

/// Names in a directory, sorted; none if it is not there.
fn names_in(dir: impl AsRef<Path>) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = listing.map(|item| item.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Paths of all objects, sorted.
fn objects(fixture: &Fixture) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(fixture.path("store/objects")).min_depth(2).sort_by_file_name();
    walk.into_iter().map(|item| item.unwrap().into_path()).collect()
}

/// Where the object of a materialised file lies.
fn object_of(fixture: &Fixture, version_path: &str) -> PathBuf {
    let inode = std::fs::metadata(fixture.path(version_path)).unwrap().ino();
    let found = objects(fixture).into_iter().find(|path| std::fs::symlink_metadata(path).unwrap().ino() == inode);
    found.unwrap_or_else(|| panic!("{version_path} is no link to an object"))
}

/// Every object is linked by a tree that is there: what import leaves besides is litter. Not for private and shared
/// files, whose objects have one name.
#[track_caller]
fn assert_no_litter(fixture: &Fixture) {
    let alone: Vec<PathBuf> =
        objects(fixture).into_iter().filter(|path| std::fs::symlink_metadata(path).unwrap().nlink() < 2).collect();
    assert!(alone.is_empty(), "objects that no tree refers to: {alone:#?}");
    assert_eq!(names_in(fixture.path("store/staging")), [""; 0]);
    assert_eq!(names_in(fixture.path("store/trash")), [""; 0]);
}

/// The command under strace, with a fault or a delay put into its system calls.
fn traced(
    fixture: &Fixture,
    strace: &[&str],
    arguments: &[std::ffi::OsString],
) -> Result<Command, crate::support::Skipped> {
    needs_program("strace")?;
    let plain = fixture.command();
    let mut command = Command::new("strace");
    // `-DDD`: the tracer is in the background, so that the child is the command itself.
    command.args(["-DDD", "-f", "-qq", "-o", "/dev/null"]).args(strace).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Waits for something to come true; gives up after a while.
#[track_caller]
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until an import has looked at its source and begins to read.
#[track_caller]
fn wait_until_it_reads(fixture: &Fixture) {
    wait_until("the import begins", || !names_in(fixture.path("store/staging")).is_empty());
}

/// Waits for a process.
fn finish(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().expect("the binary ends"))
}

/// Runs a program in a directory; what it writes on standard output.
#[track_caller]
fn shell(directory: &Path, script: &str) -> Vec<u8> {
    let output = Command::new("sh").arg("-ec").arg(script).current_dir(directory).output().expect("a shell");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
