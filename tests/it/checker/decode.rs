//! The integers, bytes and hashes that all binary formats are made of.

/// Where decoding stands.
pub struct Cursor<'a>(pub &'a [u8]);

/// What a wrong encoding is called.
pub type Decoded<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    pub fn bytes(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or("it ends early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.bytes(N)?.try_into().map_err(|_| "it ends early".into())
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn hash(&mut self) -> Decoded<[u8; 32]> {
        self.array()
    }

    pub fn short(&mut self) -> Decoded<Vec<u8>> {
        let count = self.u16()?;
        Ok(self.bytes(count.into())?.to_vec())
    }

    pub fn long(&mut self) -> Decoded<Vec<u8>> {
        let count = self.u32()?;
        Ok(self.bytes(count as usize)?.to_vec())
    }

    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| one(self)).collect()
    }

    pub fn end(self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes behind its end", self.0.len())) }
    }
}

/// A hash with one of the published contexts.
pub fn keyed(context: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(&format!("tope-store 2026-11 {context} v1"), bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
