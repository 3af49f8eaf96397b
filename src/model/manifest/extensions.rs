//! The area at the end of a manifest in which newer builds add to it.
//!
//! An extension is a tag and bytes. Which tags are *critical* stands at the front of the body: a build that does not
//! know one of them refuses the manifest before it reads anything else. Every other extension may be ignored, and is
//! kept byte for byte where a manifest is written again.

use std::collections::BTreeMap;

use crate::model::codec::{DecodeError, Reader, put_count, put_long_bytes};

/// Extensions that a reader may ignore, by tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions(BTreeMap<u16, Vec<u8>>);

impl Extensions {
    /// These extensions.
    pub fn new(extensions: BTreeMap<u16, Vec<u8>>) -> Self {
        Self(extensions)
    }

    /// Reads the tags of critical extensions at the front of a body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Newer`] if there is one, since this build knows none.
    pub(super) fn refuse_critical(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match reader.u32()? {
            0 => Ok(()),
            _ => Err(DecodeError::Newer { what: "critical extension", number: reader.u16()?.into() }),
        }
    }

    /// Reads the area: tags ascend, and each is there once.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for an area that [`Extensions::encode`] would not write.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut extensions: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let tag = reader.u16()?;
            if extensions.last_key_value().is_some_and(|(last, _)| *last >= tag) {
                return Err(reader.invalid("extensions out of order"));
            }
            extensions.insert(tag, reader.long_bytes()?.to_vec());
        }
        Ok(Self(extensions))
    }

    /// Appends the area.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.0.len());
        for (tag, bytes) in &self.0 {
            out.extend_from_slice(&tag.to_le_bytes());
            put_long_bytes(out, bytes);
        }
    }
}
