//! Reading and writing of the store's binary encodings: little-endian integers and length-prefixed bytes.
//!
//! A [`Reader`] never panics and never allocates more than it was given, whatever the bytes are.

/// An encoding that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("ends after {at} bytes, within a value")]
    Truncated {
        /// Offset of the end.
        at: usize,
    },
    /// A newer format, or a part of one that must not be ignored.
    #[error("{what} {number}, which this build does not know")]
    Newer {
        /// Which kind of number is unknown.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// A length that what is there cannot have.
    #[error("it claims {claimed} bytes, more than the {most} that {packed} compressed bytes may become")]
    TooLarge {
        /// The length that is claimed.
        claimed: u64,
        /// The largest that is allowed.
        most: u64,
        /// The length of what is there.
        packed: usize,
    },
    /// A value that the format does not allow.
    #[error("{what} at byte {at}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Offset behind the value.
        at: usize,
    },
}

/// Takes values from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads these bytes from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// An error at the present place.
    pub fn invalid(&self, what: &'static str) -> DecodeError {
        DecodeError::Invalid { what, at: self.at }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes behind a 16-bit length.
    pub fn short_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// Bytes behind a 32-bit length.
    pub fn long_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).map_err(|_| self.invalid("a length beyond memory"))?)
    }

    /// UTF-8 text behind a 32-bit length.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.long_bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.invalid("text that is not UTF-8"))
    }

    /// Ends the reading; anything left over is an error.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.invalid("bytes left over")) }
    }
}

/// Appends bytes behind a 16-bit length.
///
/// # Panics
///
/// If there are more than 65,535 of them; callers bound their values first.
pub fn put_short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("callers bound what stands behind a 16-bit length");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends bytes behind a 32-bit length.
///
/// # Panics
///
/// If there are 4 GiB or more of them; callers bound their values first.
pub fn put_long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a 32-bit count.
///
/// # Panics
///
/// If it does not fit; no collection of this store comes near.
pub fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("no collection of a version reaches four thousand million entries");
    out.extend_from_slice(&count.to_le_bytes());
}
