//! Names: of versions, of roles, of directory entries, of paths inside a version.
//!
//! A value of these types cannot hold a name that leaves its directory: there is no slash, no NUL, no `.` and no
//! `..` in an [`EntryName`], and a [`VersionName`] can be no role and no hidden file.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::error::Shown;

/// Longest version name in bytes.
pub const MAX_VERSION_NAME_BYTES: usize = 100;
/// Longest name of a directory entry in bytes, on every file system that is supported.
pub const MAX_ENTRY_NAME_BYTES: usize = 255;

/// Version names that no version may have, besides the names of roles.
pub const RESERVED_VERSION_NAMES: [&str; 1] = ["newest"];

/// A name that may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("a name cannot be empty")]
    Empty,
    /// Too many bytes.
    #[error("a name cannot be longer than {0} bytes")]
    TooLong(usize),
    /// A role's name.
    #[error("{0} is a role, not a version")]
    Role(&'static str),
    /// A name that formats to come need.
    #[error("{0} is a reserved name")]
    Reserved(&'static str),
    /// A character that is not allowed.
    #[error("a version is named by letters, digits and . _ + ~ - and begins with a letter or digit, unlike {}", Shown::text(.0))]
    Character(String),
    /// `.`, `..`, a slash or a NUL in an entry's name.
    #[error("{} cannot be the name of a file", Shown::bytes(.0))]
    Entry(Vec<u8>),
}

/// The name of a version and of its directory: `[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}`, neither a role nor reserved;
/// a leading digit gets a `v`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionName(String);

impl VersionName {
    /// The name as it stands on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The semantic version that the name spells, with or without `v`, if it spells one.
    pub fn semver(&self) -> Option<semver::Version> {
        semver::Version::parse(self.0.strip_prefix('v').unwrap_or(&self.0)).ok()
    }
}

impl FromStr for VersionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().ok_or(NameError::Empty)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'~' | b'-');
        if !first.is_ascii_alphanumeric() || !text.bytes().all(allowed) {
            return Err(NameError::Character(text.to_owned()));
        }
        if let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == text) {
            return Err(NameError::Role(role.as_str()));
        }
        if let Some(reserved) = RESERVED_VERSION_NAMES.into_iter().find(|reserved| *reserved == text) {
            return Err(NameError::Reserved(reserved));
        }
        let name = if first.is_ascii_digit() { format!("v{text}") } else { text.to_owned() };
        if name.len() > MAX_VERSION_NAME_BYTES {
            return Err(NameError::TooLong(MAX_VERSION_NAME_BYTES));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<[u8]> for VersionName {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl PartialOrd for VersionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VersionName {
    /// Semantic versions first, in their own order, then all others by bytes. For display only: what is newest is
    /// decided by import numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.semver(), other.semver()) {
            (Some(a), Some(b)) => a.cmp(&b).then_with(|| self.0.cmp(&other.0)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl serde::Serialize for VersionName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for VersionName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One of the three symbolic links in `versions/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What services run from.
    Current,
    /// What ran before; the first level of rollback.
    Previous,
    /// What the device was shipped with; the last level.
    Factory,
}

impl Role {
    /// All roles, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Current, Self::Previous, Self::Factory];

    /// The link's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Factory => "factory",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a user may write where a version is wanted: a name, a role, or the beginning of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A version by name.
    Name(VersionName),
    /// The version that a role points at.
    Role(Role),
    /// The version whose digest begins with these hexadecimal digits (after `t1:`).
    DigestPrefix(String),
}

/// Fewest hexadecimal digits that may stand for a digest.
pub const MIN_DIGEST_PREFIX: usize = 4;

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == text) {
            return Ok(Self::Role(role));
        }
        if let Some(hex) = text.strip_prefix(super::Digest::PREFIX) {
            let hexadecimal = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !hexadecimal || hex.len() < MIN_DIGEST_PREFIX || hex.len() > 64 {
                return Err(NameError::Character(text.to_owned()));
            }
            return Ok(Self::DigestPrefix(hex.to_owned()));
        }
        text.parse().map(Self::Name)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Role(role) => role.fmt(f),
            Self::DigestPrefix(hex) => write!(f, "{}{hex}", super::Digest::PREFIX),
        }
    }
}

/// The name of one directory entry: bytes, 1 to 255 of them, no slash, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] says which rule it breaks.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > MAX_ENTRY_NAME_BYTES {
            return Err(NameError::TooLong(MAX_ENTRY_NAME_BYTES));
        }
        if bytes.iter().any(|b| matches!(b, b'/' | 0)) || matches!(&*bytes, b"." | b"..") {
            return Err(NameError::Entry(bytes.into_vec()));
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for EntryName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for EntryName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Shown::bytes(&self.0))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown::bytes(&self.0).fmt(f)
    }
}

/// A path inside a version, relative to its top: entry names joined by slashes; empty for the top itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The top of a version.
    pub const fn top() -> Self {
        Self(Vec::new())
    }

    /// Reads a path as a user writes it: leading `./` or `/`, doubled and trailing slashes are forgiven.
    ///
    /// # Errors
    ///
    /// A component that is `..` or holds a NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let mut path = Self::top();
        for part in bytes.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            path.push(&EntryName::new(part)?);
        }
        Ok(path)
    }

    /// The path one step further down.
    #[must_use]
    pub fn join(&self, name: &EntryName) -> Self {
        let mut joined = self.clone();
        joined.push(name);
        joined
    }

    /// Goes one step down, in place.
    pub fn push(&mut self, name: &EntryName) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name.as_bytes());
    }

    /// Goes one step up, in place; the top stays the top.
    pub fn pop(&mut self) {
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.0.truncate(end);
    }

    /// Its components from the top down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The last component; `None` for the top.
    pub fn last(&self) -> Option<&[u8]> {
        self.0.rsplit(|b| *b == b'/').next().filter(|last| !last.is_empty())
    }

    /// Whether this is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        match self.0.strip_prefix(other.0.as_slice()) {
            Some(rest) => other.0.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// Whether this is the top.
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for TreePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_top() { f.write_str(".") } else { Shown::bytes(&self.0).fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_names_take_a_v_before_a_digit_and_refuse_what_is_dangerous() {
        assert_eq!("1.2.0".parse::<VersionName>().unwrap().as_str(), "v1.2.0");
        assert_eq!("v1.2.0".parse::<VersionName>().unwrap().as_str(), "v1.2.0");
        assert_eq!("nightly_2026+a~b-c".parse::<VersionName>().unwrap().as_str(), "nightly_2026+a~b-c");
        for wrong in ["", "../x", "a/b", "current", "previous", "factory", ".was", "-x", "a b", "a\n", "\u{fc}"] {
            assert!(wrong.parse::<VersionName>().is_err(), "{wrong:?}");
        }
        assert!("a".repeat(100).parse::<VersionName>().is_ok());
        assert!("a".repeat(101).parse::<VersionName>().is_err());
        assert!("1".repeat(100).parse::<VersionName>().is_err(), "the added v counts");
    }

    #[test]
    fn versions_are_shown_in_semantic_order() {
        let mut names: Vec<VersionName> =
            ["v1.10.0", "nightly", "v1.9.0", "v1.9.0-rc.1"].iter().map(|n| n.parse().unwrap()).collect();
        names.sort();
        let names: Vec<&str> = names.iter().map(VersionName::as_str).collect();
        assert_eq!(names, ["v1.9.0-rc.1", "v1.9.0", "v1.10.0", "nightly"]);
    }

    #[test]
    fn selectors_are_names_roles_or_digest_prefixes() {
        assert_eq!("current".parse(), Ok(Selector::Role(Role::Current)));
        assert_eq!("t1:ab12".parse(), Ok(Selector::DigestPrefix("ab12".into())));
        assert_eq!("1.0".parse(), Ok(Selector::Name("v1.0".parse().unwrap())));
        assert!("t1:ab".parse::<Selector>().is_err());
        assert!("t1:AB12".parse::<Selector>().is_err());
    }

    #[test]
    fn paths_do_not_climb() {
        assert_eq!(TreePath::parse(b"./a//b/").unwrap().as_bytes(), b"a/b");
        assert!(TreePath::parse(b"a/../b").is_err());
        let mut path = TreePath::parse(b"a/b").unwrap();
        assert!(path.starts_with(&TreePath::parse(b"a").unwrap()));
        assert!(!TreePath::parse(b"ab").unwrap().starts_with(&TreePath::parse(b"a").unwrap()));
        assert_eq!(path.last(), Some(&b"b"[..]));
        path.pop();
        assert_eq!((path.as_bytes(), path.last()), (&b"a"[..], Some(&b"a"[..])));
        path.pop();
        assert!(path.is_top() && path.last().is_none());
    }
}
