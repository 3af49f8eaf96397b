//! From what a user wrote to the version that is meant.
//!
//! Needs links, manifests and the history, never the index: rolling back works without one.

use super::Store;
use crate::error::{Error, Result};
use crate::fsys::Kind;
use crate::model::{Digest, Selector, VersionName};

/// Most names that are offered for one that does not exist.
const MOST_NEAR: usize = 3;

impl Store {
    /// The version that is meant: published, or a directory in `versions/` that was made by hand.
    ///
    /// A digest that several versions have means the one that was imported last.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchVersion`] with names that look like it, [`Error::NotFound`] for a role that points nowhere;
    /// - [`Error::Usage`] for the beginning of several digests.
    pub fn resolve(&self, selector: &Selector) -> Result<VersionName> {
        match selector {
            Selector::Name(name) => match self.has_version(name)? {
                true => Ok(name.clone()),
                false => Err(self.no_such_version(name)?),
            },
            Selector::Role(role) => match self.refs()?.read()?.version(*role) {
                Some(version) => Ok(version.clone()),
                None => Err(Error::NotFound { what: "role", name: role.to_string() }),
            },
            Selector::DigestPrefix(hex) => self.by_digest(hex),
        }
    }

    /// Whether a version of this name is published, or a directory of this name was made by hand.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn has_version(&self, name: &VersionName) -> Result<bool> {
        let is_directory = |stat: crate::fsys::Stat| stat.kind == Kind::Directory;
        Ok(self.manifests()?.stat(name)?.is_some() || self.versions().try_stat(name)?.is_some_and(is_directory))
    }

    fn by_digest(&self, hex: &str) -> Result<VersionName> {
        let manifests = self.manifests()?;
        let marks = self.history()?.present()?.marks;
        let mut found: Vec<(Digest, u64, VersionName)> = Vec::new();
        for name in manifests.names()? {
            let (digest, import_number) = match marks.versions.get(&name) {
                Some(known) => (known.digest, known.import_number),
                // The history does not know it, or is damaged.
                None => match manifests.read(&name) {
                    Ok(manifest) => (manifest.digest(), manifest.facts.import_number),
                    Err(Error::Corrupt { .. } | Error::Newer { .. } | Error::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            if digest.0.to_hex().starts_with(hex) {
                found.push((digest, import_number, name));
            }
        }
        found.sort_unstable_by_key(|(_, import_number, _)| *import_number);
        let written = || format!("{}{hex}", Digest::PREFIX);
        match found.last() {
            None => Err(Error::NoSuchVersion { name: written(), near: Vec::new() }),
            Some((digest, _, _)) if found.iter().any(|(other, ..)| other != digest) => {
                let all: Vec<String> =
                    found.iter().map(|(digest, _, name)| format!("{name} ({})", digest.short())).collect();
                Err(Error::Usage(format!("{} begins the digests of several versions: {}", written(), all.join(", "))))
            }
            Some((_, _, name)) => Ok(name.clone()),
        }
    }

    fn no_such_version(&self, name: &VersionName) -> Result<Error> {
        let mut near: Vec<(usize, VersionName)> = Vec::new();
        for known in self.manifests()?.names()? {
            if let Some(distance) = distance(name.as_str(), known.as_str()) {
                near.push((distance, known));
            }
        }
        // The nearest first; of equally near ones the highest, which somebody who left out the rest means most often.
        near.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let near = near.into_iter().take(MOST_NEAR).map(|(_, name)| name.to_string()).collect();
        Ok(Error::NoSuchVersion { name: name.to_string(), near })
    }
}

/// How far two names are from each other, if they are near: one begins or ends with the other, or few letters differ.
fn distance(wanted: &str, known: &str) -> Option<usize> {
    let edits = edits(wanted, known);
    let bare = wanted.strip_prefix('v').unwrap_or(wanted);
    let part = wanted.len() > 1 && (known.starts_with(wanted) || known.ends_with(bare) || wanted.starts_with(known));
    (part || edits <= wanted.len().max(3) / 3).then_some(edits)
}

/// Letters to insert, remove or replace to make one text of the other (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in b.bytes().enumerate() {
            let above = row[column + 1];
            row[column + 1] = (diagonal + usize::from(letter != other)).min(above + 1).min(row[column] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_few_different_letters_or_a_common_end_are_near() {
        assert_eq!(edits("v1.2.0", "v1.2.0"), 0);
        assert_eq!((edits("kitten", "sitting"), edits("", "abc"), edits("abc", "")), (3, 3, 3));
        for (wanted, known) in [
            ("v1.2", "v1.2.0"),
            ("v1.2.1", "v1.2.0"),
            ("v2.0", "app-2.0"),
            ("v1.2.0.0", "v1.2.0"),
            ("nigthly", "nightly"),
        ] {
            assert!(distance(wanted, known).is_some(), "{wanted} {known}");
        }
        for (wanted, known) in [("v9.9.9", "v1.2.0"), ("nightly", "v1.2.0"), ("x", "v1")] {
            assert_eq!(distance(wanted, known), None, "{wanted} {known}");
        }
    }
}
