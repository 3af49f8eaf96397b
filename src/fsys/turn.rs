//! Places in a line: who comes first is decided under a lock, and who waits for those before does so without it.
//!
//! A place is a byte of a file that an open description locks (`F_OFD_SETLK`). The kernel keeps it, and gives it back when
//! the process ends that has it, however it ends. Nothing is written.

use std::fs::File;
use std::time::{Duration, Instant};

use super::dir::Dir;
use super::system::{ByteLock, byte_lock};
use crate::error::{Error, Result};

/// Longest pause between two looks at those before.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A place in a line; given back when dropped.
#[must_use = "the place is given back as soon as this is dropped"]
#[derive(Debug)]
pub struct Turn {
    file: File,
    name: &'static str,
    place: u64,
}

impl Turn {
    /// Takes the place behind all others. The caller holds the lock under which places are taken.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or made (0600); the file system has no such locks.
    pub fn take(dir: &Dir, name: &'static str) -> Result<Self> {
        let file = dir.open_or_create_file(name, 0o600)?;
        let fail = |error| Error::io("take a place in", dir.path_of(name), error);
        let mut place = 0;
        while let Some(end) = byte_lock(&file, ByteLock::Ask, place, 0).map_err(fail)? {
            place = end;
        }
        byte_lock(&file, ByteLock::Take, place, 1).map_err(fail)?;
        Ok(Self { file, name, place })
    }

    /// Waits until nobody has a place before this one; tells whether that came true in time.
    ///
    /// # Errors
    ///
    /// The system does not answer.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        if self.place == 0 {
            return Ok(true);
        }
        let (start, mut pause) = (Instant::now(), Duration::from_millis(1));
        loop {
            let before = byte_lock(&self.file, ByteLock::Ask, 0, self.place);
            if before.map_err(|error| Error::io("look at the places in", self.name, error))?.is_none() {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            std::thread::sleep(pause.min(timeout.saturating_sub(start.elapsed())));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether anybody has a place in the line.
    ///
    /// # Errors
    ///
    /// The file is missing; this user may not open it.
    pub fn is_taken(dir: &Dir, name: &str) -> Result<bool> {
        let file = dir.open_file(name)?;
        let taken = byte_lock(&file, ByteLock::Ask, 0, 0);
        taken.map(|end| end.is_some()).map_err(|error| Error::io("look at the places in", dir.path_of(name), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_all_who_came_before_and_for_nobody_who_came_later() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let [first, second, third] = [(); 3].map(|()| Turn::take(&dir, "turns").unwrap());
        assert_eq!(dir.stat("turns").unwrap().mode, 0o600);
        let comes = |turn: &Turn| turn.wait(Duration::from_millis(5)).unwrap();
        assert_eq!([&first, &second, &third].map(comes), [true, false, false]);
        drop(second);
        assert!(!comes(&third), "the first is still there");
        drop(first);
        assert!(comes(&third));
        let fourth = Turn::take(&dir, "turns").unwrap();
        assert!(!comes(&fourth) && Turn::is_taken(&dir, "turns").unwrap());
        drop(third);
        assert!(comes(&fourth));
        drop(fourth);
        assert!(!Turn::is_taken(&dir, "turns").unwrap());
        assert_eq!(Turn::take(&dir, "turns").unwrap().place, 0, "the line begins again when it was empty");
    }
}
