//! Half-built things: one directory per run, locked by the run that builds in it.
//!
//! The lock is the kernel's, on the directory itself: it goes with the process.
//!
//! **Invariant:** a sweep removes an entry only while it holds the entry's lock, or where the entry is no directory. An
//! error never proves that no run builds in an entry.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::Result;
use crate::fsys::mutation::Mutation;
use crate::fsys::{Dir, Kind, LockFile, LockGuard, LockMode, Stat, file, remove};
use crate::layout;
use crate::model::EntryName;

/// What a run builds is below this name in its directory.
pub const TREE: &str = "tree";
/// Where a run keeps files on their way into `objects/`.
pub const INCOMING: &str = "incoming";

/// One run's directory. Removed when dropped, with all that is still in it, unless it holds something precious.
#[derive(Debug)]
pub struct Run {
    staging: Dir,
    name: String,
    dir: Dir,
    precious: AtomicBool,
    _lock: LockGuard,
}

impl Run {
    /// Makes a directory in `staging` and locks it.
    pub fn begin(staging: &Dir) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("run-{}-{count}", std::process::id());
            let dir = match staging.create_dir(&name, layout::PRIVATE_DIR_MODE) {
                Ok(dir) => dir,
                // Left by a process that had our number before.
                Err(error) if error.is_io(std::io::ErrorKind::AlreadyExists) => continue,
                // Not locked yet, it looked abandoned, and somebody removed it.
                Err(error) if error.is_io(std::io::ErrorKind::NotFound) && staging.try_stat(".")?.is_some() => continue,
                Err(error) => return Err(error),
            };
            let Some(lock) = LockFile::of_dir(&dir, "staging")?.try_lock(LockMode::Exclusive)? else { continue };
            // Between making and locking it looked abandoned, and somebody may have removed it.
            let there = staging.try_stat(&name)?;
            let own = dir.stat_self()?;
            if there.is_some_and(|stat| own.same_inode(&stat)) {
                file::disinherit(&dir, layout::PRIVATE_DIR_MODE, || dir.path().to_owned())?;
                let staging = staging.try_clone()?;
                return Ok(Self { staging, name, dir, precious: AtomicBool::new(false), _lock: lock });
            }
        }
    }

    /// The run's directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Says whether something in it exists nowhere else. Then it stays whatever becomes of this run, and the next
    /// command deals with it.
    pub fn set_precious(&self, precious: bool) {
        self.precious.store(precious, Ordering::Relaxed);
    }

    /// Removes what is left of the run.
    ///
    /// # Errors
    ///
    /// What cannot be removed; the next run tries again.
    pub fn finish(self) -> Result<()> {
        remove::tree(&self.staging, &self.name)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.precious.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = remove::tree(&self.staging, &self.name) {
            tracing::warn!(run = self.name, %error, "cannot remove what a run left; the next one will try");
        }
    }
}

/// Names of entries that no process builds any longer, in order.
///
/// An entry that cannot be opened or locked may be a live run, so it is not among them: the reason is logged.
///
/// # Errors
///
/// The directory cannot be listed.
pub fn abandoned(staging: &Dir) -> Result<Vec<EntryName>> {
    let items = staging.items()?.into_iter().map(|item| item.name);
    Ok(items.filter(|name| matches!(claim(staging, name), Claim::Run(_) | Claim::NoDirectory)).collect())
}

/// Removes an abandoned entry. `give_up` first receives the run's directory, locked, and says whether it may go.
///
/// An entry that is live, or may be, stays. Nothing below a directory is removed unless this process holds the
/// directory's lock; a name that is no directory belongs to no run.
///
/// # Errors
///
/// Those of `give_up`, which keep the entry; what cannot be removed.
pub fn remove_abandoned(
    staging: &Dir,
    name: impl AsRef<[u8]>,
    give_up: impl FnOnce(&Dir) -> Result<bool>,
) -> Result<()> {
    let name = name.as_ref();
    match claim(staging, name) {
        Claim::Run(run) => match give_up(&run.dir)? {
            true => remove::tree(staging, name),
            false => Ok(()),
        },
        // Not `remove::tree`: a directory that took the name since then is a run that just began.
        Claim::NoDirectory => staging.remove_file_if_present(name).map(drop),
        Claim::Live | Claim::Unknown | Claim::Gone => Ok(()),
    }
}

/// An abandoned run's directory, locked by this process.
struct Abandoned {
    dir: Dir,
    _lock: Option<LockGuard>,
}

/// The state of one entry.
enum Claim {
    /// Its run is dead, and this process holds its lock.
    Run(Abandoned),
    /// It is no directory, so no run builds in it.
    NoDirectory,
    /// Its run holds its lock.
    Live,
    /// It cannot be opened or locked for a reason that says nothing about its run.
    Unknown,
    /// It is gone.
    Gone,
}

/// Takes the lock of an entry if no run holds it.
///
/// Only the kind of an entry or its lock proves that no run builds in it. Every other error (no descriptor left, no
/// permission, a medium that fails) leaves the question open.
fn claim(staging: &Dir, name: impl AsRef<[u8]>) -> Claim {
    let name = name.as_ref();
    let attempt = || -> Result<Claim> {
        let Some(stat) = staging.try_stat(name)? else { return Ok(Claim::Gone) };
        if stat.kind != Kind::Directory {
            return Ok(if stat.kind == Kind::Unknown { Claim::Unknown } else { Claim::NoDirectory });
        }
        let Some(dir) = staging.try_open_dir(name)? else { return Ok(Claim::Gone) };
        if Mutation::SweepLock.is_made() {
            return Ok(Claim::Run(Abandoned { dir, _lock: None }));
        }
        let Some(lock) = LockFile::of_dir(&dir, "staging")?.try_lock(LockMode::Exclusive)? else {
            return Ok(Claim::Live);
        };
        // The name may lead to another run by now: the lock says nothing about that one.
        let still = staging.try_stat(name)?.is_some_and(|stat| dir_is(&dir, &stat));
        Ok(if still { Claim::Run(Abandoned { dir, _lock: Some(lock) }) } else { Claim::Live })
    };
    attempt().unwrap_or_else(|error| {
        let path = staging.path_of(name);
        tracing::warn!(path = %path.display(), error = %crate::error::chain(&error), "a run may be alive there: it stays");
        Claim::Unknown
    })
}

fn dir_is(dir: &Dir, stat: &Stat) -> bool {
    // An error here is no proof, so the entry counts as another one and stays.
    dir.stat_self().is_ok_and(|own| own.same_inode(stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_runs_are_swept() {
        let temporary = tempfile::tempdir().unwrap();
        let staging = Dir::open(temporary.path()).unwrap();
        let live = Run::begin(&staging).unwrap();
        staging.create_dir("run-1-0", 0o700).unwrap().create_dir("tree", 0o755).unwrap();
        drop(staging.create_file("no directory", 0o600).unwrap());
        staging.symlink(&live.name, "link").unwrap();
        let names: Vec<String> = abandoned(&staging).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["link", "no directory", "run-1-0"]);
        remove_abandoned(&staging, "run-1-0", |_| Ok(false)).unwrap();
        assert!(staging.try_stat("run-1-0").unwrap().is_some(), "its owner did not give it up");
        for name in [&names[..], std::slice::from_ref(&live.name)].concat() {
            remove_abandoned(&staging, name, |_| Ok(true)).unwrap();
        }
        assert!(staging.try_stat("run-1-0").unwrap().is_none());
        assert!(staging.try_stat(&live.name).unwrap().is_some());
        live.finish().unwrap();
        assert_eq!(staging.items().unwrap(), []);
    }
}
