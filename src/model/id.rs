//! Names made from contents: 32-byte BLAKE3 values, each with a type of its own.

use std::fmt;
use std::str::FromStr;

/// The context under which tree encodings are hashed; see `schema/FORMAT.md`.
pub const TREE_CONTEXT: &str = "tope-store 2026-11 tree v1";

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
                let hex = hex.as_ref();
                if hex.iter().any(u8::is_ascii_uppercase) {
                    return None;
                }
                blake3::Hash::from_hex(hex).ok().map(|hash| Self(*hash.as_bytes()))
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
    fn a_digest_reads_what_it_prints_and_nothing_else() {
        let digest = Digest(TreeId::from_bytes([0xab; 32]));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "t1:abababababab");
        for wrong in ["", "t1:", "t1:ab", &"ab".repeat(32), &digest.to_string().to_uppercase()] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
        }
    }
}
