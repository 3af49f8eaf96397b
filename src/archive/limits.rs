//! How much an archive may ask for: bounds on bytes, entries, paths and memory.
//!
//! **Invariant:** whatever an archive says of itself, reading it takes no more memory than [`Limits`] allow, and ends.
//! A declared size is checked before the first byte is read; bytes that really arrive are counted as well, headers,
//! padding and the holes of sparse files included.

use crate::error::{Error, Refusal, Result, Shown};

/// A ratio says nothing about small archives: an empty tar compresses well. It is looked at beyond this many bytes.
const RATIO_FREE_BYTES: u64 = 64 << 20;

const MIB: u64 = 1 << 20;

/// Bounds on what an archive may hold and on what reading it may take.
///
/// The defaults let any honest release pass; a device with little memory lowers `decoder_memory_bytes`,
/// `max_entries` and `max_held_bytes`. An error names the key of the limit below `[import.limits]`, where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Decompressed bytes in all: contents, headers, padding, holes. Default 64 GiB.
    pub max_total_bytes: u64,
    /// Entries of the resulting tree, directories that are only implied included. Default 4,000,000.
    pub max_entries: u64,
    /// Decompressed bytes (the holes of sparse files are among them) for each compressed one, over the whole archive;
    /// not looked at in the first 64 MiB. Default 2000 (deflate ends at 1032).
    pub max_ratio: u64,
    /// Memory of the decoder: its window or dictionary. A zstd window is a power of two, so this is rounded down to
    /// one. Default 128 MiB, as the zstd program's (`--long=27`); `xz -9` needs 65 MiB.
    pub decoder_memory_bytes: u64,
    /// Bytes of one extended header (PAX, GNU long name). Default 1 MiB.
    pub max_header_bytes: u64,
    /// Bytes of a member's path. Default 64 KiB.
    pub max_path_bytes: usize,
    /// Components of a member's path. Default 4096.
    pub max_depth: usize,
    /// Bytes of names, link targets and extended attributes that are held in memory. Default 512 MiB.
    pub max_held_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_total_bytes: 64 << 30,
            max_entries: 4_000_000,
            max_ratio: 2000,
            decoder_memory_bytes: 128 * MIB,
            max_header_bytes: MIB,
            max_path_bytes: 64 << 10,
            max_depth: 4096,
            max_held_bytes: 512 * MIB,
        }
    }
}

impl Limits {
    /// The largest zstd window that the decoder's memory allows, as a power of two that zstd knows (10 to 31).
    pub(super) fn zstd_window_log(&self) -> u32 {
        self.decoder_memory_bytes.max(1).ilog2().clamp(10, 31)
    }

    /// The decoder's memory in the unit of the xz decoder.
    pub(super) fn xz_memory_kib(&self) -> u32 {
        u32::try_from(self.decoder_memory_bytes >> 10).unwrap_or(u32::MAX - 1)
    }
}

/// What was already taken of the limits on bytes.
#[derive(Debug, Default)]
pub(super) struct Budget {
    produced: u64,
}

impl Budget {
    /// Checks a size that a member declares, before anything of it is read.
    pub(super) fn declare(&self, limits: &Limits, path: &[u8], size: u64) -> Result<()> {
        if size <= limits.max_total_bytes.saturating_sub(self.produced) {
            return Ok(());
        }
        Err(self.too_much(limits, &format!("{} declares {size} bytes, so", Shown::bytes(path))))
    }

    /// Counts bytes that came out of the decoder (or of a hole), when so many had gone in.
    pub(super) fn produce(&mut self, limits: &Limits, amount: u64, consumed: u64) -> Result<()> {
        self.produced = self.produced.saturating_add(amount);
        if self.produced > limits.max_total_bytes {
            return Err(self.too_much(limits, ""));
        }
        if self.produced > RATIO_FREE_BYTES && self.produced / limits.max_ratio.max(1) > consumed {
            let message = format!(
                "the archive is a bomb: {consumed} bytes became {}, more than {} for each (import.limits.ratio)",
                self.produced, limits.max_ratio
            );
            return Err(Error::refused(Refusal::UnsafeArchive, message));
        }
        Ok(())
    }

    fn too_much(&self, limits: &Limits, who: &str) -> Error {
        let space = if who.is_empty() { "" } else { " " };
        let message = format!(
            "{who}{space}the archive holds more than {} bytes (import.limits.total_bytes)",
            limits.max_total_bytes
        );
        Error::refused(Refusal::UnsafeArchive, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_produced_and_ratio_are_each_bounded() {
        let limits = Limits { max_total_bytes: 200 * MIB, max_ratio: 10, ..Limits::default() };
        let mut budget = Budget::default();
        assert!(budget.declare(&limits, b"a", 200 * MIB).is_ok());
        assert!(budget.declare(&limits, b"a", 200 * MIB + 1).is_err());
        assert!(budget.produce(&limits, RATIO_FREE_BYTES, 0).is_ok(), "small archives may compress well");
        let bomb = budget.produce(&limits, MIB, 1).unwrap_err().to_string();
        assert!(bomb.contains("bomb"), "{bomb}");
        assert!(budget.produce(&limits, 200 * MIB, 200 * MIB).is_err());
        assert!(budget.declare(&limits, b"a", u64::MAX).is_err());
    }

    #[test]
    fn the_decoders_memory_is_a_window_they_know() {
        let of = |bytes| Limits { decoder_memory_bytes: bytes, ..Limits::default() };
        assert_eq!(Limits::default().zstd_window_log(), 27);
        assert_eq!(of(0).zstd_window_log(), 10);
        assert_eq!(of(u64::MAX).zstd_window_log(), 31);
        assert_eq!(of(64 * MIB - 1).zstd_window_log(), 25);
        assert_eq!(of(MIB).xz_memory_kib(), 1024);
    }
}
