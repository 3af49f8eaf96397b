//! Anchors: what is known of the history outside the history.
//!
//! An anchor names an event by its number and the chain value of its line. A log that ends before the event, or has
//! another chain value under its number, was cut or replaced by an older copy.

use super::codec::{DecodeError, Reader};
use super::event::{CHAIN_START, Chain};

/// Length of the file `head`: a sector, which no power cut leaves half written.
pub const HEAD_BYTES: usize = 512;
/// The context under which it is checksummed.
pub const HEAD_CONTEXT: &str = "tope-store 2026-11 head v1";
const HEAD_MAGIC: &[u8; 8] = b"tope-hed";
const HEAD_FORMAT: u32 = 1;
/// Where its checksum stands.
const CHECKSUM_AT: usize = HEAD_BYTES - 32;

/// The last event of a history at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// The event's number; 0 before the first.
    pub number: u64,
    /// The chain value of its line.
    pub chain: Chain,
}

impl Anchor {
    /// The beginning of every history.
    pub const START: Self = Self { number: 0, chain: CHAIN_START };

    /// The contents of the file `head`.
    pub fn to_block(self) -> [u8; HEAD_BYTES] {
        let mut block = [0; HEAD_BYTES];
        let fields = [&HEAD_MAGIC[..], &HEAD_FORMAT.to_le_bytes(), &self.number.to_le_bytes(), &self.chain].concat();
        block[..fields.len()].copy_from_slice(&fields);
        let checksum = blake3::derive_key(HEAD_CONTEXT, &block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum);
        block
    }

    /// Reads the contents of the file `head`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Newer`] for another format, of which nothing else is read; another [`DecodeError`] for damage.
    pub fn from_block(block: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(block);
        if reader.bytes(HEAD_MAGIC.len())? != HEAD_MAGIC {
            return Err(reader.invalid("wrong first bytes"));
        }
        let format = reader.u32()?;
        if format != HEAD_FORMAT {
            return Err(DecodeError::Newer { what: "head format", number: format.into() });
        }
        let anchor = Self { number: reader.u64()?, chain: reader.array()? };
        // Everything else is zero, and the checksum right.
        if block == anchor.to_block() { Ok(anchor) } else { Err(reader.invalid("a checksum that does not match")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_is_noticed() {
        let anchor = Anchor { number: 57, chain: [7; 32] };
        let block = anchor.to_block();
        assert_eq!(Anchor::from_block(&block), Ok(anchor));
        for at in 0..block.len() {
            let mut damaged = block;
            damaged[at] ^= 1;
            assert!(Anchor::from_block(&damaged).is_err(), "byte {at}");
            assert!(Anchor::from_block(&block[..at]).is_err(), "cut at {at}");
        }
    }
}
