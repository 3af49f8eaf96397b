//! Beginnings of files, and files of a fixed length that are overwritten in place.
//!
//! Their blocks exist from the beginning, so that overwriting one takes no room, moves no name, and waits for nothing.
//! (A file system that copies what it writes, such as btrfs, may refuse on a disk without a free block.)

use std::io::Read;
use std::os::unix::fs::FileExt;

use super::Dir;
use crate::error::{Error, Result};

/// The first bytes of a file, at most `length`.
///
/// # Errors
///
/// What the system refuses.
pub fn beginning(dir: &Dir, name: &str, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = dir.open_file(name)?.take(length).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| Error::io("read", dir.path_of(name), error))
}

/// Writes `bytes` over the beginning of a file that exists. They are not durable yet.
///
/// # Errors
///
/// The file is missing; what the system refuses.
pub fn overwrite(dir: &Dir, name: &str, bytes: &[u8]) -> Result<()> {
    let file = dir.open_to_overwrite(name)?;
    file.write_all_at(bytes, 0).map_err(|error| Error::io("write to", dir.path_of(name), error))
}
