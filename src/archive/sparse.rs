//! Sparse files: GNU's old headers and the three PAX forms, all turned into one map, and read with their holes.
//!
//! GNU tar's manual, "Storing Sparse Files". The `tar` crate expands the oldest form only.

use crate::error::{Error, Result};

use super::header::{BLOCK, unsigned};
use super::intake::Pull;
use super::pax::decimal;
use super::stream::Stream;

/// Pieces of data in one file: 16 MiB of memory. A map with more is not worth a sparse file.
const MAX_PIECES: usize = 1 << 20;
/// Entries in the header and in each block that continues it.
const HEADER_MAP: std::ops::Range<usize> = 386..482;
const HEADER_CONTINUES: usize = 482;
const HEADER_REAL_SIZE: std::ops::Range<usize> = 483..495;
const BLOCK_MAP: std::ops::Range<usize> = 0..504;
const BLOCK_CONTINUES: usize = 504;
const PIECE_BYTES: usize = 24;

/// Where a file's data lies: pieces in order, without overlap, within its size.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    pieces: Vec<(u64, u64)>,
    size: u64,
}

impl Map {
    /// Checks a map against the file's size and the bytes that are stored for it.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] for pieces that overlap, lie outside or do not add up.
    pub(super) fn new(path: &[u8], pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self> {
        let (mut end, mut total) = (0_u64, 0_u64);
        for (offset, length) in &pieces {
            let fits = *offset >= end;
            end = offset.checked_add(*length).filter(|end| fits && *end <= size).ok_or_else(|| wrong(path))?;
            total += length;
        }
        if total != stored {
            return Err(wrong(path));
        }
        Ok(Self { pieces, size })
    }

    /// The file's size, holes included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// Reads the map of an old GNU header and of the blocks that continue it. Gives the pieces and the file's size.
///
/// # Errors
///
/// [`Error::Source`] for a map that cannot be read.
pub(super) fn old_gnu(path: &[u8], header: &[u8; BLOCK], stream: &mut Stream<'_>) -> Result<(Vec<(u64, u64)>, u64)> {
    let size = unsigned(&header[HEADER_REAL_SIZE]).ok_or_else(|| wrong(path))?;
    let mut pieces = Vec::new();
    take(path, &header[HEADER_MAP], &mut pieces)?;
    let mut continues = header[HEADER_CONTINUES] != 0;
    let mut block = [0; BLOCK];
    while continues {
        stream.fill(&mut block)?;
        take(path, &block[BLOCK_MAP], &mut pieces)?;
        continues = block[BLOCK_CONTINUES] != 0;
    }
    Ok((pieces, size))
}

fn take(path: &[u8], map: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<()> {
    for piece in map.chunks_exact(PIECE_BYTES) {
        if piece[0] == 0 {
            break;
        }
        let (offset, length) = piece.split_at(PIECE_BYTES / 2);
        let piece = unsigned(offset).zip(unsigned(length)).ok_or_else(|| wrong(path))?;
        pieces.push(piece);
        if pieces.len() > MAX_PIECES {
            return Err(wrong(path));
        }
    }
    Ok(())
}

/// Reads the map that stands before the data in format 1.0: decimal numbers, a line each, padded to a block. Gives the
/// pieces and how many of the stored bytes they took.
///
/// # Errors
///
/// [`Error::Source`] for a map that cannot be read or is longer than what is stored.
pub(super) fn before_data(path: &[u8], stored: u64, stream: &mut Stream<'_>) -> Result<(Vec<(u64, u64)>, u64)> {
    let (mut block, mut at, mut taken) = ([0; BLOCK], BLOCK, 0);
    let mut number = |stream: &mut Stream<'_>| -> Result<u64> {
        let mut digits = Vec::with_capacity(20);
        loop {
            if at == BLOCK {
                taken += BLOCK as u64;
                if taken > stored {
                    return Err(wrong(path));
                }
                stream.fill(&mut block)?;
                at = 0;
            }
            at += 1;
            match block[at - 1] {
                b'\n' => return decimal(&digits).ok_or_else(|| wrong(path)),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(wrong(path)),
            }
        }
    };
    let count = number(stream)?;
    if count > MAX_PIECES as u64 {
        return Err(wrong(path));
    }
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((number(stream)?, number(stream)?));
    }
    Ok((pieces, taken))
}

fn wrong(path: &[u8]) -> Error {
    Error::source(path, "a sparse file whose map makes no sense")
}

/// The stored bytes of a file, with zeros where the map has holes.
pub(super) struct Expanded<'s, 'a> {
    stream: &'s mut Stream<'a>,
    map: &'s Map,
    next: usize,
    at: u64,
}

impl<'s, 'a> Expanded<'s, 'a> {
    /// Reads the pieces from the stream's present place on.
    pub(super) fn new(stream: &'s mut Stream<'a>, map: &'s Map) -> Self {
        Self { stream, map, next: 0, at: 0 }
    }
}

impl Pull for Expanded<'_, '_> {
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.map.pieces.get(self.next).is_some_and(|(offset, length)| offset + length <= self.at) {
            self.next += 1;
        }
        let (until, hole) = match self.map.pieces.get(self.next) {
            Some((offset, _)) if self.at < *offset => (*offset, true),
            Some((offset, length)) => (offset + length, false),
            None => (self.map.size, true),
        };
        let wanted = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = if hole {
            buffer[..wanted].fill(0);
            self.stream.produce(wanted as u64)?;
            wanted
        } else {
            match self.stream.read(&mut buffer[..wanted])? {
                0 => return Err(self.stream.cut()),
                read => read,
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_in_order_within_the_size_and_add_up() {
        let map = |pieces: &[(u64, u64)], size, stored| Map::new(b"f", pieces.to_vec(), size, stored);
        assert!(map(&[(0, 5), (10, 5), (20, 0)], 20, 10).is_ok());
        assert!(map(&[], 1 << 40, 0).is_ok());
        assert!(map(&[(10, 5), (0, 5)], 20, 10).is_err());
        assert!(map(&[(0, 5), (4, 5)], 20, 10).is_err());
        assert!(map(&[(0, 5)], 4, 5).is_err());
        assert!(map(&[(0, 5)], 5, 6).is_err());
        assert!(map(&[(u64::MAX, 2)], u64::MAX, 2).is_err());
    }
}
