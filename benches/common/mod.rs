//! Made-up releases: the same numbers give the same trees on every machine.

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

/// Files per directory.
const FILES_PER_DIRECTORY: u64 = 40;
/// Directories per directory above.
const DIRECTORIES_PER_GROUP: u64 = 50;
/// Files are shorter than this, evenly spread; some are empty.
const LARGEST_BYTES: u64 = 2048;
/// One file in so many is changed from one release to the next.
const ONE_CHANGES_IN: u64 = 20;

/// A well mixed number from another (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// In which release a file got the bytes that it has in this one.
fn changed_in(file: u64, release: u64) -> u64 {
    let changes = |release: &u64| mixed(mixed(file) ^ release.wrapping_mul(0x5851_f42d)).is_multiple_of(ONE_CHANGES_IN);
    (1..=release).rev().find(changes).unwrap_or(0)
}

fn contents(file: u64, changed_in: u64) -> Vec<u8> {
    let mut state = mixed(file.wrapping_mul(1_000_003) ^ changed_in);
    let size = usize::try_from(state % LARGEST_BYTES).unwrap_or_default();
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = mixed(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Writes release number `release` of a made-up series with `files` files below `top`.
pub fn write_release(top: &Path, files: u64, release: u64) -> io::Result<()> {
    (0..files.div_ceil(FILES_PER_DIRECTORY)).into_par_iter().try_for_each(|directory| {
        let path = directory_of(top, directory);
        std::fs::create_dir_all(&path)?;
        let first = directory * FILES_PER_DIRECTORY;
        (first..files.min(first + FILES_PER_DIRECTORY)).try_for_each(|file| {
            std::fs::write(path.join(format!("f{file}")), contents(file, changed_in(file, release)))
        })
    })
}

/// Makes release number `release` from the one before, in place: only files that change are written.
#[allow(dead_code, reason = "not every program makes long series")]
pub fn advance(top: &Path, files: u64, release: u64) -> io::Result<()> {
    (0..files).into_par_iter().filter(|file| changed_in(*file, release) == release).try_for_each(|file| {
        std::fs::write(directory_of(top, file / FILES_PER_DIRECTORY).join(format!("f{file}")), contents(file, release))
    })
}

fn directory_of(top: &Path, directory: u64) -> PathBuf {
    top.join(format!("g{:03}/d{directory:05}", directory / DIRECTORIES_PER_GROUP))
}
