//! Half-built things: one directory per run, locked by the run that builds in it.
//!
//! The lock is the kernel's, on the directory itself: it goes with the process. Whoever finds an entry that nobody
//! locks may remove it; a live one is never touched.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::Result;
use crate::fsys::{Dir, LockFile, LockGuard, LockMode, file, remove};
use crate::layout;

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
            if there.is_some_and(|stat| dir.stat_self().is_ok_and(|own| own.same_inode(&stat))) {
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

/// Names of entries that no process is building any longer.
pub fn abandoned(staging: &Dir) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in staging.items()? {
        let name = String::from_utf8_lossy(item.name.as_bytes()).into_owned();
        match staging.open_dir(&item.name) {
            Ok(dir) => {
                if LockFile::of_dir(&dir, "staging")?.try_lock(LockMode::Exclusive)?.is_some() {
                    names.push(name);
                }
            }
            // Removed by its own run, or not a directory and so nobody's.
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => {}
            Err(_) => names.push(name),
        }
    }
    Ok(names)
}

/// Removes an entry unless somebody builds it. Locked meanwhile, so that a run that just began, and was seen between
/// making its directory and locking it, takes another name.
pub fn remove_abandoned(staging: &Dir, name: impl AsRef<[u8]>) -> Result<()> {
    let name = name.as_ref();
    let _lock = match staging.open_dir(name) {
        Ok(dir) => match LockFile::of_dir(&dir, "staging")?.try_lock(LockMode::Exclusive)? {
            Some(lock) => Some(lock),
            None => return Ok(()),
        },
        // Not a directory, and so nobody's; or gone.
        Err(_) => None,
    };
    remove::tree(staging, name)
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
        assert_eq!(abandoned(&staging).unwrap(), ["run-1-0"]);
        for name in ["run-1-0", live.name.as_str()] {
            remove_abandoned(&staging, name).unwrap();
        }
        assert!(staging.try_stat("run-1-0").unwrap().is_none());
        assert!(staging.try_stat(&live.name).unwrap().is_some());
        live.finish().unwrap();
        assert_eq!(staging.items().unwrap(), []);
    }
}
