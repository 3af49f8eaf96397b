//! Reading what a newer build wrote, and keeping what this build cannot read.
//!
//! A member that is not known, or whose name or value is not understood, has no effect here and is written again with
//! the object that held it. It is kept as a JSON value: the members of an object that was kept are sorted by the bytes
//! of their names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Members of an object that this build does not know, by name.
pub type Unknown = BTreeMap<String, Value>;

/// A word of a small vocabulary, or another that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word<T> {
    /// One that this build knows.
    Known(T),
    /// Any other value.
    Unknown(Value),
}

/// A map whose entries are kept even where a key or a value cannot be read. Dereferences to those that can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries<K: Ord, V> {
    read: BTreeMap<K, V>,
    unread: Unknown,
}

impl<K: Ord, V> Entries<K, V> {
    /// Whether there is nothing to write.
    pub fn holds_nothing(&self) -> bool {
        self.read.is_empty() && self.unread.is_empty()
    }
}

impl<K: Ord, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { read: BTreeMap::new(), unread: Unknown::new() }
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Entries<K, V> {
    fn from(read: BTreeMap<K, V>) -> Self {
        Self { read, unread: Unknown::new() }
    }
}

impl<K: Ord, V> Deref for Entries<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

impl<K: Ord, V> DerefMut for Entries<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.read
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Entries<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.read.iter()
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for Entries<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.read.len() + self.unread.len()))?;
        self.read.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        self.unread.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de, K: Ord + DeserializeOwned, V: DeserializeOwned> Deserialize<'de> for Entries<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = Self::default();
        for (name, value) in Unknown::deserialize(deserializer)? {
            let key = K::deserialize(Value::String(name.clone()));
            match key.ok().zip(V::deserialize(value.clone()).ok()) {
                Some((key, value)) => drop(entries.read.insert(key, value)),
                None => drop(entries.unread.insert(name, value)),
            }
        }
        Ok(entries)
    }
}

/// A set whose members are kept even where they cannot be read. Dereferences to those that can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members<T: Ord> {
    read: BTreeSet<T>,
    unread: Vec<Value>,
}

impl<T: Ord> Members<T> {
    /// Whether there is nothing to write.
    pub fn holds_nothing(&self) -> bool {
        self.read.is_empty() && self.unread.is_empty()
    }
}

impl<T: Ord> Default for Members<T> {
    fn default() -> Self {
        Self { read: BTreeSet::new(), unread: Vec::new() }
    }
}

impl<T: Ord> Deref for Members<T> {
    type Target = BTreeSet<T>;

    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

impl<T: Ord> DerefMut for Members<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.read
    }
}

impl<T: Ord + Serialize> Serialize for Members<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.read.len() + self.unread.len()))?;
        self.read.iter().try_for_each(|member| list.serialize_element(member))?;
        self.unread.iter().try_for_each(|member| list.serialize_element(member))?;
        list.end()
    }
}

impl<'de, T: Ord + DeserializeOwned> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Self::default();
        for value in Vec::<Value>::deserialize(deserializer)? {
            match T::deserialize(value.clone()) {
                Ok(member) => drop(members.read.insert(member)),
                Err(_) => members.unread.push(value),
            }
        }
        Ok(members)
    }
}

/// A value that decides nothing by its contents, only by being there: one that cannot be read counts as the default.
///
/// # Errors
///
/// Never for what JSON can say.
pub fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.map(|value| T::deserialize(value).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, VersionName};

    #[test]
    fn what_cannot_be_read_is_written_again() {
        let text = r#"{"current":"v2","factory":"not a name","shadow":{"a":[1]}}"#;
        let roles: Entries<Role, VersionName> = serde_json::from_str(text).unwrap();
        assert_eq!(roles.keys().copied().collect::<Vec<_>>(), [Role::Current]);
        assert_eq!(serde_json::to_string(&roles).unwrap(), text);
        let text = r#"["v1","newest",7]"#;
        let names: Members<VersionName> = serde_json::from_str(text).unwrap();
        assert_eq!((names.len(), serde_json::to_string(&names).unwrap().as_str()), (1, text));
        let word: Word<Role> = serde_json::from_str("\"shadow\"").unwrap();
        assert_eq!(serde_json::to_string(&word).unwrap(), "\"shadow\"");
    }
}
