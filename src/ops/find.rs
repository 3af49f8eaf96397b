//! Finding paths and contents over all versions.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fsys::file;
use crate::hash::{self, Threads};
use crate::index::Found;
use crate::model::glob::Glob;
use crate::model::{ContentId, Selector};
use crate::store::Store;

/// Fewest hexadecimal digits that may stand for a content.
pub const MIN_CONTENT_PREFIX: usize = 4;

/// What is looked for; what is given must all hold. Nothing given finds every path.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Paths that match this.
    pub glob: Option<Glob>,
    /// Files with a content from this range.
    pub contents: Option<RangeInclusive<ContentId>>,
    /// Only in these versions; in all if there are none.
    pub versions: Vec<Selector>,
}

/// The contents whose hash begins with these hexadecimal digits.
///
/// # Errors
///
/// [`Error::Usage`] for anything but 4 to 64 lower-case hexadecimal digits.
pub fn contents_beginning(hex: &str) -> Result<RangeInclusive<ContentId>> {
    let bound = |pad: &str| ContentId::from_hex([hex, &pad.repeat(64_usize.checked_sub(hex.len())?)].concat());
    let bounds = (hex.len() >= MIN_CONTENT_PREFIX).then(|| bound("0").zip(bound("f"))).flatten();
    bounds.map(|(first, last)| first..=last).ok_or_else(|| {
        Error::Usage(format!(
            "a content is given by {MIN_CONTENT_PREFIX} to 64 lower-case hexadecimal digits, unlike {hex:?}"
        ))
    })
}

/// The content of a file anywhere.
///
/// # Errors
///
/// What the system refuses.
pub fn content_of(path: &Path) -> Result<RangeInclusive<ContentId>> {
    let file = file::open_source(path)?;
    let (content, _) = hash::stream(file, Threads::One).map_err(|error| Error::io("read", path, error))?;
    Ok(content..=content)
}

/// Finds entries, in order of paths. What differs between versions at one path comes separately.
///
/// # Errors
///
/// As [`super::browse::published`] for the versions.
pub fn find(store: &Store, wanted: &Wanted) -> Result<Vec<Found>> {
    let versions = wanted.versions.iter().map(|version| super::browse::published(store, version).map(|(name, _)| name));
    let among = versions.collect::<Result<Vec<_>>>()?;
    let everything = Glob::new("*").expect("a star is a glob");
    let glob = wanted.glob.as_ref().unwrap_or(&everything);
    store.ask(|reader| {
        let mut all = Vec::new();
        match &wanted.contents {
            Some(contents) => reader.find_content(contents, &among, |found| {
                if glob.matches(&found.path) {
                    all.push(found);
                }
                Ok(())
            })?,
            None => reader.find(glob, &among, |found| {
                all.push(found);
                Ok(())
            })?,
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_may_be_given_by_its_first_digits() {
        let one = ContentId::of(b"1");
        for length in [4, 12, 64] {
            assert!(contents_beginning(&one.to_hex()[..length]).unwrap().contains(&one), "{length}");
        }
        assert!(!contents_beginning("0000").unwrap().contains(&one));
        for wrong in ["", "abc", "ABCD", "xyzw", &"0".repeat(65)] {
            assert!(matches!(contents_beginning(wrong), Err(Error::Usage(_))), "{wrong}");
        }
    }
}
