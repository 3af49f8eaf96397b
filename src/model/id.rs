//! Names made from contents: 32-byte BLAKE3 values, each with a type of its own.

use std::fmt;
use std::str::FromStr;

/// The context under which tree encodings are hashed; see `schema/FORMAT.md`.
pub const TREE_CONTEXT: &str = "tope-store 2026-11 tree v1";

/// What a byte is worth as a lower-case hexadecimal digit; more than 15 if it is none. By a table, since every listing of
/// objects reads tens of thousands of names.
const HEX_VALUES: [u8; 256] = {
    let (mut values, mut digit) = ([u8::MAX; 256], 0);
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Its 64 lower-case hexadecimal digits.
            pub fn to_hex(self) -> String {
                blake3::Hash::from_bytes(self.0).to_hex().to_string()
            }

            /// Reads 64 lower-case hexadecimal digits; anything else is `None`.
            pub fn from_hex(hex: impl AsRef<[u8]>) -> Option<Self> {
                let hex: &[u8; 64] = hex.as_ref().try_into().ok()?;
                let (mut bytes, mut all) = ([0; 32], 0);
                for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                    let (high, low) = (HEX_VALUES[usize::from(pair[0])], HEX_VALUES[usize::from(pair[1])]);
                    all |= high | low;
                    *byte = high << 4 | low & 0xf;
                }
                (all <= 0xf).then_some(Self(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_hex()[..12])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
    };
}

id! {
    /// The BLAKE3 hash of a file's bytes.
    ContentId
}
id! {
    /// The BLAKE3 hash (in [`TREE_CONTEXT`]) of a tree's canonical encoding.
    TreeId
}
id! {
    /// The BLAKE3 hash of a canonical encoding of extended attributes; part of an object's name.
    XattrDigest
}

impl ContentId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The id of no bytes at all.
    pub fn empty() -> Self {
        Self::of(b"")
    }
}

/// A version's digest: the id of its root tree, printed `t1:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub TreeId);

impl Digest {
    /// What stands before the hexadecimal digits: "tree encoding version 1".
    pub const PREFIX: &'static str = "t1:";

    /// The first twelve hexadecimal digits with the prefix; enough for people.
    pub fn short(&self) -> String {
        self.to_string()[..Self::PREFIX.len() + 12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest of the form t1:<64 hexadecimal digits>")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix(Self::PREFIX).and_then(TreeId::from_hex).map(Self).ok_or(DigestError)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_from_their_digits_and_from_nothing_else() {
        let id = ContentId::of(b"x");
        let hex = id.to_hex();
        assert_eq!(ContentId::from_hex(&hex), Some(id));
        for at in 0..64 {
            for wrong in [b'g', b'/', b':', b'`', b'A', 0xff, 0] {
                let mut digits = hex.clone().into_bytes();
                digits[at] = wrong;
                assert_eq!(ContentId::from_hex(digits), None, "{wrong} at {at}");
            }
        }
        assert_eq!((ContentId::from_hex(&hex[1..]), ContentId::from_hex(format!("{hex}0"))), (None, None));
    }

    #[test]
    fn a_digest_reads_what_it_prints_and_nothing_else() {
        let digest = Digest(TreeId::from_bytes([0xab; 32]));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "t1:abababababab");
        for wrong in ["", "t1:", "t1:ab", &"ab".repeat(32), &digest.to_string().to_uppercase()] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
        }
    }
}
