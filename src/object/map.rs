//! Something about each of very many objects, in little memory: forty bytes for each and what is kept of it.
//!
//! The classes of inodes are few and stand aside. Contents are hashes already, so they are not hashed once more: eight
//! of their bytes, mixed with a number that nobody outside this process knows, say where an entry lies.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::Recorded;
use crate::model::{ContentId, InodeClass, ObjectKey};

/// What is recorded of objects, by key.
#[derive(Debug, Clone, Default)]
pub struct ObjectMap(KeyMap<Packed>);

#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Packed {
    size: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl From<Packed> for Recorded {
    fn from(Packed { size, seconds, nanoseconds }: Packed) -> Self {
        Self { size, mtime: (seconds, nanoseconds) }
    }
}

impl ObjectMap {
    /// What is recorded of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<Recorded> {
        self.0.get(key).map(Recorded::from)
    }

    /// Takes an object in; what was recorded of it is replaced.
    pub fn insert(&mut self, key: &ObjectKey, recorded: Recorded) {
        let Recorded { size, mtime: (seconds, nanoseconds) } = recorded;
        let packed = Packed { size, seconds, nanoseconds };
        *self.0.get_or_insert(key, packed) = packed;
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(key) = self.0.short(key) {
            self.0.entries.remove(&key);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectKey, Recorded)> {
        self.0.iter().map(|(key, packed)| (key, packed.into()))
    }
}

/// Classes that are compared one by one: almost all files of a release are of two or three.
const AT_HAND: usize = 4;

/// Anything small, by the key of an object.
#[derive(Debug, Clone)]
pub struct KeyMap<V> {
    /// By number.
    classes: Vec<InodeClass>,
    /// Those behind the first [`AT_HAND`].
    numbers: HashMap<InodeClass, u32>,
    entries: HashMap<Key, V, Mixed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    content: ContentId,
    class: u32,
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = *self.content.as_bytes();
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from(self.class));
    }
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { classes: Vec::new(), numbers: HashMap::new(), entries: HashMap::default() }
    }
}

impl<V: Copy> KeyMap<V> {
    fn short(&self, key: &ObjectKey) -> Option<Key> {
        Some(Key { content: key.content, class: self.number_of(&key.class)? })
    }

    fn number_of(&self, class: &InodeClass) -> Option<u32> {
        match self.classes.iter().take(AT_HAND).zip(0..).find(|(other, _)| *other == class) {
            Some((_, number)) => Some(number),
            None if self.classes.len() <= AT_HAND => None,
            None => self.numbers.get(class).copied(),
        }
    }

    /// What is kept of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<V> {
        self.entries.get(&self.short(key)?).copied()
    }

    /// What is kept of an object; if nothing is, `value` is from now on.
    pub fn get_or_insert(&mut self, key: &ObjectKey, value: V) -> &mut V {
        let class = self.number_of(&key.class).unwrap_or_else(|| {
            let number = u32::try_from(self.classes.len()).expect("there are no four thousand million classes");
            self.classes.push(key.class.clone());
            if self.classes.len() > AT_HAND {
                self.numbers.insert(key.class.clone(), number);
            }
            number
        });
        self.entries.entry(Key { content: key.content, class }).or_insert(value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectKey, V)> {
        self.entries.iter().map(|(key, value)| {
            let class = self.classes[key.class as usize].clone();
            (ObjectKey { content: key.content, class }, *value)
        })
    }
}

/// Mixes what a hash of contents gives with a number of its own.
#[derive(Debug, Clone)]
struct Mixed(u64);

impl Default for Mixed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u8) | 1)
    }
}

impl BuildHasher for Mixed {
    type Hasher = Mixing;

    fn build_hasher(&self) -> Mixing {
        Mixing { by: self.0, hash: 0 }
    }
}

struct Mixing {
    by: u64,
    hash: u64,
}

impl Hasher for Mixing {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The upper half of a product depends on every bit of both, the lower one on the low bits only.
        let product = u128::from(self.hash ^ value) * u128::from(self.by);
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(content: &[u8], mode: u32) -> ObjectKey {
        let class = InodeClass { mode, uid: 0, gid: 0, xattrs: None, mtime: None };
        ObjectKey { content: ContentId::of(content), class }
    }

    #[test]
    fn classes_are_told_apart_however_many_there_are() {
        let mut map = KeyMap::default();
        let keys: Vec<ObjectKey> = (0..3 * AT_HAND as u32).map(|mode| key(b"one", mode)).collect();
        for (key, number) in keys.iter().zip(0..) {
            assert_eq!(map.get(key), None);
            assert_eq!(*map.get_or_insert(key, number), number);
            assert_eq!(*map.get_or_insert(key, 1000), number, "it is there already");
        }
        let found: Vec<Option<i32>> = keys.iter().map(|key| map.get(key)).collect();
        assert!(found.into_iter().eq((0..keys.len() as i32).map(Some)));
        let mut all: Vec<(ObjectKey, i32)> = map.iter().collect();
        all.sort_by_key(|(_, number)| *number);
        assert!(all.into_iter().map(|(key, _)| key).eq(keys));
    }

    #[test]
    fn what_was_put_in_is_found_under_its_whole_key_only() {
        let mut map = ObjectMap::default();
        let recorded = |size| Recorded { size, mtime: (-1, 999_999_999) };
        for number in 0..1000_u64 {
            map.insert(&key(&number.to_le_bytes(), 0o444), recorded(number));
        }
        map.insert(&key(&7_u64.to_le_bytes(), 0o555), recorded(u64::MAX));
        map.insert(&key(&8_u64.to_le_bytes(), 0o444), recorded(0));
        assert_eq!(map.len(), 1001);
        assert_eq!(map.get(&key(&7_u64.to_le_bytes(), 0o444)), Some(recorded(7)));
        assert_eq!(map.get(&key(&7_u64.to_le_bytes(), 0o555)), Some(recorded(u64::MAX)));
        assert_eq!(map.get(&key(&8_u64.to_le_bytes(), 0o444)), Some(recorded(0)));
        assert_eq!(map.get(&key(&8_u64.to_le_bytes(), 0o555)), None);
        assert_eq!(map.get(&key(b"other", 0o444)), None);
        map.remove(&key(b"other", 0o444));
        map.remove(&key(&7_u64.to_le_bytes(), 0o555));
        assert_eq!((map.len(), map.get(&key(&7_u64.to_le_bytes(), 0o555))), (1000, None));
        let all: HashMap<ObjectKey, Recorded> = map.iter().collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|(key, recorded)| map.get(key) == Some(*recorded)));
    }
}
