//! Hashing by memory map, for files that nobody else can write.
//!
//! The map is a window that moves over the file, so that neither the address space of a 32-bit device nor the memory
//! that is counted against a small one grows with the file.

use std::fs::File;
use std::io;

use crate::model::ContentId;

/// Size of the window; a multiple of every page size.
const WINDOW_BYTES: u64 = 16 << 20;

/// Hashes the first `size` bytes of a file of our own: one in the private staging directory, not yet published.
///
/// Must not be called for a file that another process may truncate.
#[allow(unsafe_code)]
pub fn private(file: &File, size: u64, threads: super::Threads) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < size {
        let length = WINDOW_BYTES.min(size - offset);
        let length_in_memory = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: the file lies in a directory that only this store's user may enter, was created by this run and is
        // written by nobody while it is hashed, so the mapped bytes neither change nor vanish.
        let window = unsafe { memmap2::MmapOptions::new().offset(offset).len(length_in_memory).map(file)? };
        // Advice only: without it hashing is slower, not wrong.
        let _ = window.advise(memmap2::Advice::Sequential);
        super::update(&mut hasher, &window, threads);
        offset += length;
    }
    Ok(ContentId::from_bytes(*hasher.finalize().as_bytes()))
}
