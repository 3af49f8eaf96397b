//! Which inode each object is, from one listing of `objects/`.
//!
//! A listing gives some hundred inode numbers per system call, where looking at objects takes a call for each. What it
//! says is used to agree only: that a file *is* the inode of its object. Where it does not agree, because the object
//! is newer than the listing, or the file system numbers entries otherwise than inodes, the object itself is asked.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::error::Result;
use crate::fsys::{Dir, Kind, Stat};
use crate::model::ObjectKey;

/// The objects and their inodes at one moment.
#[derive(Debug)]
pub struct Listing {
    /// By the first byte of the content.
    fans: Vec<Fan>,
}

/// One of the 256 directories.
#[derive(Debug, Default)]
struct Fan {
    device: u64,
    /// Objects in the directories before it.
    before: usize,
    /// Objects whose class is mode and owner alone; sorted.
    plain: Vec<(Plain, u64)>,
    /// What those begin with, close together for the search.
    firsts: Vec<u64>,
    /// All others, with their places behind the plain ones.
    others: HashMap<ObjectKey, (usize, u64)>,
}

/// An object as it was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its place among all that were listed, from 0.
    pub position: usize,
    device: u64,
    inode: u64,
}

impl Found {
    /// Whether `stat` shows its inode.
    pub fn is(&self, stat: &Stat) -> bool {
        (self.device, self.inode) == (stat.device, stat.inode)
    }
}

/// The key of an object without attributes or time, less the first byte of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Plain {
    /// Apart from the rest, so that one comparison decides almost always.
    first: u64,
    rest: [u8; 23],
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Listing {
    /// Lists `objects/`, its directories side by side on the threads it is called from. What cannot be listed is
    /// left out.
    pub fn read(objects: &Dir) -> Self {
        let fans = (0..=u8::MAX).into_par_iter().map(|number| {
            let name = format!("{number:02x}");
            objects.open_dir(&name).and_then(|dir| Fan::read(name.as_bytes(), dir)).unwrap_or_default()
        });
        let mut fans: Vec<Fan> = fans.collect();
        let mut before = 0;
        for fan in &mut fans {
            fan.before = before;
            before += fan.len();
        }
        Self { fans }
    }

    /// How many objects were listed.
    pub fn len(&self) -> usize {
        self.fans.iter().map(Fan::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object of this key, if it was listed.
    pub fn find(&self, key: &ObjectKey) -> Option<Found> {
        let [first, ..] = *key.content.as_bytes();
        let fan = &self.fans[usize::from(first)];
        let (place, inode) = fan.get(key)?;
        Some(Found { position: fan.before + place, device: fan.device, inode })
    }
}

impl Fan {
    fn read(name: &[u8], mut dir: Dir) -> Result<Self> {
        let mut fan = Self { device: dir.stat_self()?.device, ..Self::default() };
        dir.list(|_, item| {
            if !matches!(item.kind, Kind::File | Kind::Unknown) {
                return Ok(());
            }
            if let Some(key) = ObjectKey::parse(name, item.name) {
                match Plain::of(&key) {
                    Some(plain) => fan.plain.push((plain, item.inode)),
                    None => drop(fan.others.insert(key, (fan.others.len(), item.inode))),
                }
            }
            Ok(())
        })?;
        fan.plain.sort_unstable_by_key(|(plain, _)| *plain);
        fan.firsts = fan.plain.iter().map(|(plain, _)| plain.first).collect();
        Ok(fan)
    }

    fn len(&self) -> usize {
        self.plain.len() + self.others.len()
    }

    /// An object's place in this directory, and its inode.
    fn get(&self, key: &ObjectKey) -> Option<(usize, u64)> {
        match Plain::of(key) {
            Some(plain) => {
                let begin = self.lower_bound(plain.first);
                let alike = self.plain[begin..].iter().take_while(|(other, _)| other.first == plain.first);
                let mut numbered = alike.zip(begin..);
                numbered.find(|((other, _), _)| *other == plain).map(|((_, inode), place)| (place, *inode))
            }
            None => self.others.get(key).map(|(place, inode)| (self.plain.len() + place, *inode)),
        }
    }

    /// Where entries that begin so would begin. Hashes lie evenly, so a guess is a few places off, most often in the same
    /// line of the processor's cache or the next; a search by halves begins far away.
    fn lower_bound(&self, first: u64) -> usize {
        let firsts = &self.firsts;
        let guess = ((u128::from(first) * firsts.len() as u128) >> u64::BITS) as usize;
        let mut step = 8;
        if firsts.get(guess).is_some_and(|other| *other < first) {
            let mut low = guess;
            while firsts.get(low + step).is_some_and(|other| *other < first) {
                low += step;
                step *= 2;
            }
            let high = firsts.len().min(low + step);
            low + firsts[low..high].partition_point(|other| *other < first)
        } else {
            let mut high = guess;
            while high.checked_sub(step).is_some_and(|below| firsts[below] >= first) {
                high -= step;
                step *= 2;
            }
            let low = high.saturating_sub(step);
            low + firsts[low..high].partition_point(|other| *other < first)
        }
    }
}

impl Plain {
    /// `None` for a key that says more.
    fn of(key: &ObjectKey) -> Option<Self> {
        let class = &key.class;
        let (_, content) = key.content.as_bytes().split_first_chunk::<1>()?;
        let plain = class.xattrs.is_none() && class.mtime.is_none();
        let (first, rest) = content.split_first_chunk()?;
        let (first, rest) = (u64::from_be_bytes(*first), *rest.first_chunk()?);
        plain.then_some(Self { first, rest, mode: class.mode, uid: class.uid, gid: class.gid })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{ContentId, InodeClass, XattrDigest};

    fn keys() -> Vec<ObjectKey> {
        let class = |mode, uid, xattrs, mtime| InodeClass { mode, uid, gid: 7, xattrs, mtime };
        let classes = [
            class(0o444, 0, None, None),
            class(0o4555, u32::MAX, None, None),
            class(0o444, 0, Some(Box::new(XattrDigest::from_bytes([3; 32]))), None),
            class(0o444, 0, None, Some(-7)),
        ];
        let contents = (0..40_u8).map(|number| ContentId::of(&[number]));
        contents.flat_map(|content| classes.clone().map(|class| ObjectKey { content, class })).collect()
    }

    #[test]
    fn a_guess_finds_what_a_search_by_halves_finds() {
        let even: Vec<u64> = (0..500).map(|at| at * (u64::MAX / 499)).collect();
        let mut uneven: Vec<u64> =
            (0..500_u64).map(|at| ContentId::of(&at.to_le_bytes()).as_bytes()[0].into()).collect();
        uneven.sort_unstable();
        for firsts in [vec![], vec![0], vec![u64::MAX], vec![7; 40], even, uneven] {
            let asked: Vec<u64> =
                firsts.iter().flat_map(|first| [first.saturating_sub(1), *first, *first | 1]).collect();
            let fan = Fan { firsts, ..Fan::default() };
            for first in asked.into_iter().chain([0, 1, 1 << 63, u64::MAX]) {
                assert_eq!(fan.lower_bound(first), fan.firsts.partition_point(|other| *other < first), "{first}");
            }
        }
    }

    #[test]
    fn objects_are_told_by_their_inodes_and_nothing_else_is() {
        let temporary = tempfile::tempdir().unwrap();
        let objects = Dir::open(temporary.path()).unwrap();
        for key in keys() {
            objects.ensure_dir(key.directory(), 0o700).unwrap();
            objects.create_file(key.path(), 0o644).unwrap();
        }
        let listing = Listing::read(&objects);
        let all = keys();
        let is = |key: &ObjectKey, stat: &Stat| listing.find(key).is_some_and(|found| found.is(stat));
        let places: BTreeSet<usize> = all.iter().filter_map(|key| Some(listing.find(key)?.position)).collect();
        assert!(places.into_iter().eq(0..all.len()) && listing.len() == all.len());
        for (at, key) in all.iter().enumerate() {
            let stat = objects.stat(key.path()).unwrap();
            assert!(is(key, &stat), "{key}");
            assert!(!is(&all[(at + 1) % all.len()], &stat), "{key} is another one");
            assert!(!is(key, &Stat { inode: stat.inode + 1_000_000, ..stat }), "{key}");
            assert!(!is(key, &Stat { device: stat.device + 1, ..stat }), "{key}");
        }
    }
}
