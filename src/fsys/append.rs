//! Files that only grow at their end.
//!
//! **Invariant:** a write that fails leaves the file as long as it was.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file;
use super::stat::stat_file;
use crate::error::{Error, ErrorKind, Result};

/// Blocks are reserved in steps of this size, so that most appends allocate nothing.
const STEP_BYTES: u64 = 64 << 10;
/// Reserved behind the end at least: room for a hundred ordinary lines on a disk that is full by now.
const HEADROOM_BYTES: u64 = 32 << 10;

/// Everything from `offset` to the end.
pub fn read_from(file: &File, offset: u64, path: &Path) -> Result<Vec<u8>> {
    let size = stat_file(file, || path.to_owned())?.size;
    let mut bytes = vec![0; usize::try_from(size.saturating_sub(offset)).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            // Cut by its writer since it was measured.
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes `bytes` at the end, which is at `end`, and makes them durable.
///
/// `file` must be open for appending, and the caller must hold the lock that keeps other writers away.
///
/// # Errors
///
/// The call that failed; the file then ends at `end` as before.
pub fn append(file: &File, end: u64, bytes: &[u8], path: &Path) -> Result<()> {
    reserve(file, end, bytes.len() as u64, path)?;
    let mut out = file;
    let written = out
        .write_all(bytes)
        .map_err(|error| Error::io("append to", path, error))
        .and_then(|()| file::sync(file, || path.to_owned()));
    if written.is_err() {
        // Cutting also gives back what was reserved; it is reserved again while nobody else has taken it.
        let _ = cut(file, end, path).and_then(|()| reserve(file, end, 0, path));
    }
    written
}

/// Shortens the file to `end`, durably.
pub fn cut(file: &File, end: u64, path: &Path) -> Result<()> {
    file.set_len(end).map_err(|error| Error::io("shorten", path, error))?;
    file::sync(file, || path.to_owned())
}

/// Sees to it that `length` bytes behind `end` have their blocks, and if possible more for later.
///
/// # Errors
///
/// The disk is too full for `length`. Without support by the file system nothing is reserved and nothing fails.
pub fn reserve(file: &File, end: u64, length: u64, path: &Path) -> Result<()> {
    let allocated = stat_file(file, || path.to_owned())?.allocated_bytes;
    let needed = end + length;
    if allocated >= needed + HEADROOM_BYTES {
        return Ok(());
    }
    let ahead = (needed + HEADROOM_BYTES).next_multiple_of(STEP_BYTES);
    let reserved = match file::reserve_behind_end(file, end, ahead - end, path) {
        Err(error) if error.kind() == ErrorKind::NoSpace && allocated >= needed => Ok(true),
        Err(error) if error.kind() == ErrorKind::NoSpace => file::reserve_behind_end(file, end, length, path),
        // A limit on file sizes counts for what is ahead; the write itself will tell.
        Err(error) if error.is_io(std::io::ErrorKind::FileTooLarge) => Ok(false),
        other => other,
    };
    reserved.map(drop)
}
