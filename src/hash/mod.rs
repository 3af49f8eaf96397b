//! Hashing contents.
//!
//! Many small files are hashed in parallel over files; only a big one is hashed in parallel inside. A file that
//! others can write is read; only what nobody else can write is mapped (see [`map`]), since a file that is truncated
//! under a map kills the process.

pub mod map;

use std::io::{self, Read, Write};

use crate::model::ContentId;

/// Files up to this size are read whole into memory, one per thread.
pub const WHOLE_BYTES: u64 = 1 << 20;
/// Files up to this size go through a buffer that is kept from one to the next.
const KEPT_BYTES: u64 = 128 << 10;
/// Buffer for streams; also the piece that is hashed by all threads at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// Reads a file of at most [`WHOLE_BYTES`] into `buffer`, replacing what was there.
///
/// `size` is what the file was seen to have. One byte more is asked for, so that a grown file is noticed by the
/// caller, which compares the length with the size.
pub fn read_whole(mut file: impl Read, size: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let expected = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1);
    if buffer.len() < expected {
        buffer.resize(expected, 0);
    }
    let mut filled = 0;
    while filled < expected {
        match file.read(&mut buffer[filled..expected]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                // A regular file gives everything it has; what is short of the buffer is its end.
                if filled as u64 == size {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// Hashes a file that was seen to have `size` bytes, with one thread, and gives how many it has now. Small ones go
/// through a buffer that each thread keeps.
pub fn whole(mut file: impl Read, size: u64) -> io::Result<(ContentId, u64)> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    if size > KEPT_BYTES {
        return stream(file, Threads::One);
    }
    BUFFER.with_borrow_mut(|buffer| {
        read_whole(&mut file, size, buffer)?;
        if buffer.len() as u64 > size {
            // It grew since it was looked at.
            return stream(buffer.as_slice().chain(file), Threads::One);
        }
        Ok((ContentId::of(buffer), buffer.len() as u64))
    })
}

/// How many threads may work on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threads {
    /// The calling one: where many files are hashed side by side.
    One,
    /// All of the pool it is called from: for one big file at a time. Must not be used inside a parallel loop, since
    /// a thread that waits for its half may start on another big file and never come back to this one.
    All,
}

/// Hashes everything that `from` gives.
pub fn stream(from: impl Read, threads: Threads) -> io::Result<(ContentId, u64)> {
    copy(from, &mut io::sink(), threads)
}

/// Hashes everything that `from` gives while writing it to `to`.
pub fn copy(mut from: impl Read, to: &mut impl Write, threads: Threads) -> io::Result<(ContentId, u64)> {
    thread_local! {
        static PIECE: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
    }
    let mut hasher = blake3::Hasher::new();
    // Kept for the next file: the system takes long to give and take back as much. Taken out, since a thread that waits
    // for others may hash another file meanwhile.
    let mut piece = PIECE.take();
    piece.resize(PIECE_BYTES, 0);
    loop {
        let filled = fill(&mut from, &mut piece)?;
        to.write_all(&piece[..filled])?;
        update(&mut hasher, &piece[..filled], threads);
        if filled < piece.len() {
            break;
        }
    }
    PIECE.set(piece);
    Ok((ContentId::from_bytes(*hasher.finalize().as_bytes()), hasher.count()))
}

/// Below this size splitting a piece over threads costs more than it gives (measured by the crate's authors).
const PARALLEL_BYTES: usize = 128 << 10;

fn update(hasher: &mut blake3::Hasher, bytes: &[u8], threads: Threads) {
    if threads == Threads::One || bytes.len() < PARALLEL_BYTES {
        hasher.update(bytes);
    } else {
        hasher.update_rayon(bytes);
    }
}

fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_of_hashing_agree() {
        for size in [0, 1, 1000, PARALLEL_BYTES, PIECE_BYTES + 1] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let id = ContentId::of(&bytes);
            assert_eq!(stream(&*bytes, Threads::One).unwrap(), (id, size as u64));
            let mut copied = Vec::new();
            assert_eq!(copy(&*bytes, &mut copied, Threads::All).unwrap(), (id, size as u64));
            assert_eq!(copied, bytes);
            let file = tempfile::tempfile().unwrap();
            (&file).write_all(&bytes).unwrap();
            assert_eq!(map::private(&file, size as u64, Threads::All).unwrap(), id);
        }
    }

    #[test]
    fn a_file_is_hashed_as_it_is_whatever_size_it_was_seen_to_have() {
        for size in [0, 1, 1000, 200_000] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            for seen in [0, 1, 999, 1000, 1001, 100_000, 300_000] {
                let hashed = whole(&*bytes, seen).unwrap();
                assert_eq!(hashed, (ContentId::of(&bytes), size), "{size} bytes, {seen} seen");
            }
        }
    }

    #[test]
    fn a_grown_or_shrunk_file_shows_in_the_length() {
        let mut buffer = vec![9; 3];
        read_whole(&b"four"[..], 3, &mut buffer).unwrap();
        // Readers of regular files fill the buffer, so the byte too many is there.
        assert!(buffer.len() >= 3);
        read_whole(&b"a"[..], 3, &mut buffer).unwrap();
        assert_eq!(buffer, b"a");
    }
}
