//! Kernel locks (`flock(2)`): gone with the process that held them, whatever became of it.
//!
//! Lock files have mode 0600, since anybody who can open a file can hold a lock on it. A lock that cannot be had in
//! time is an error that names the holder, read from `/proc/locks`.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use super::dir::Dir;
use super::mutation::Mutation;
use super::stat::stat_file;
use super::system;
use crate::error::{Error, Result};

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Together with other shared holders; keeps exclusive ones out.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock file, open and not locked.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    name: &'static str,
}

/// A held lock; released when dropped.
#[must_use = "a lock is released as soon as its guard is dropped"]
#[derive(Debug)]
pub struct LockGuard {
    // Dropping closes the description that holds the lock.
    _file: File,
}

impl LockFile {
    /// Opens a lock file, creating it (0600) if it is missing.
    pub fn open(dir: &Dir, name: &'static str) -> Result<Self> {
        Ok(Self { file: dir.open_or_create_file(name, 0o600)?, name })
    }

    /// Opens a directory's own inode as a lock.
    pub fn of_dir(dir: &Dir, name: &'static str) -> Result<Self> {
        use std::os::fd::AsFd;
        let fd =
            dir.as_fd().try_clone_to_owned().map_err(|error| Error::io("duplicate handle of", dir.path(), error))?;
        Ok(Self { file: File::from(fd), name })
    }

    /// Takes the lock if that is possible at once.
    pub fn try_lock(self, mode: LockMode) -> Result<Option<LockGuard>> {
        match self.attempt(mode) {
            Ok(()) => Ok(Some(LockGuard { _file: self.file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", self.name, error)),
        }
    }

    /// Takes the lock, waiting for it up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] with the holder when the time is over.
    pub fn lock(self, mode: LockMode, timeout: Duration) -> Result<LockGuard> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if Mutation::Lock.is_made() {
                return Ok(LockGuard { _file: self.file });
            }
            match self.attempt(mode) {
                Ok(()) => return Ok(LockGuard { _file: self.file }),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", self.name, error)),
                Err(TryLockError::WouldBlock) if start.elapsed() >= timeout => {
                    let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                    return Err(Error::Locked { lock: self.name, holder: self.holder(), waited_ms });
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(pause.min(timeout.saturating_sub(start.elapsed())));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn attempt(&self, mode: LockMode) -> std::result::Result<(), TryLockError> {
        match mode {
            LockMode::Shared => self.file.try_lock_shared(),
            LockMode::Exclusive => self.file.try_lock(),
        }
    }

    /// Who holds it, in words.
    fn holder(&self) -> String {
        let unknown = || "another process".to_owned();
        let Ok(stat) = stat_file(&self.file, || self.name.into()) else { return unknown() };
        let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return unknown() };
        // "7: FLOCK  ADVISORY  WRITE 812 fe:00:1234 0 EOF"; waiting ones have "->" in the second place.
        let inode = format!(":{}", stat.inode);
        let pids = locks.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let holds = fields.get(1) == Some(&"FLOCK") && fields.get(5).is_some_and(|place| place.ends_with(&inode));
            holds.then(|| fields[4].parse::<i32>().ok()).flatten()
        });
        let own = std::process::id().cast_signed();
        let holders: Vec<String> = pids.filter(|pid| *pid > 0 && *pid != own).map(system::describe_process).collect();
        if holders.is_empty() { unknown() } else { holders.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_holders_tolerate_each_other_and_nobody_else() {
        use LockMode::{Exclusive, Shared};
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let take = |mode| LockFile::open(&dir, "lock").unwrap().try_lock(mode).unwrap();
        for (held, wanted, had) in [
            (Shared, Shared, true),
            (Shared, Exclusive, false),
            (Exclusive, Shared, false),
            (Exclusive, Exclusive, false),
        ] {
            let guard = take(held).unwrap();
            assert_eq!(take(wanted).is_some(), had, "{held:?} then {wanted:?}");
            drop(guard);
        }
        assert_eq!(dir.stat("lock").unwrap().mode, 0o600);
    }

    #[test]
    fn a_lock_that_cannot_be_had_ends_in_an_error() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let _guard = LockFile::open(&dir, "lock").unwrap().try_lock(LockMode::Exclusive).unwrap().unwrap();
        let error =
            LockFile::open(&dir, "lock").unwrap().lock(LockMode::Shared, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, Error::Locked { lock: "lock", waited_ms: 20.., .. }), "{error}");
    }
}
