//! Differences as text, in the form of `git diff`: `git apply` and `patch -p1` make the second side of the first.
//!
//! What that form cannot say (directories, owners, extended attributes) stands in lines that begin with `#`, which both
//! programs pass over.

use std::time::{Duration, Instant};

use super::contents::{Contents, Wanted};
use super::diff::{Comparison, Opened, Side};
use crate::error::{Error, Result};
use crate::model::diff::lines::{self, MAX_PATCH_BYTES, NotShown, quote};
use crate::model::diff::{Change, ChangeKind, EntryFacts};
use crate::model::{ContentId, EntryName, Node, TreePath};

/// How long the shortest patch of one file is looked for.
const THOROUGH: Duration = Duration::from_secs(2);

impl Comparison<'_> {
    /// One difference as text.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a version's bytes are nowhere to be found intact, [`Error::Source`] if a file of a
    /// directory is not what it was when it was compared.
    pub fn patch(&self, change: &Change) -> Result<Vec<u8>> {
        let old_path = change.from_path.as_ref().unwrap_or(&change.path);
        let file = |facts: &Option<EntryFacts>| facts.clone().filter(|facts| !facts.is_directory());
        let (old, new) = (file(&change.before), file(&change.after));
        let mut out = remarks(change);
        match (&old, &new) {
            (None, None) => {}
            // Another kind of thing is the one removed and the other added.
            (Some(old), Some(new)) if change.kind == ChangeKind::Type => {
                self.one(&mut out, Some((old_path, old)), None)?;
                self.one(&mut out, None, Some((&change.path, new)))?;
            }
            (old, new) => self.one(
                &mut out,
                old.as_ref().map(|old| (old_path, old)),
                new.as_ref().map(|new| (&change.path, new)),
            )?,
        }
        Ok(out)
    }

    fn one(&self, out: &mut Vec<u8>, old: Option<At<'_>>, new: Option<At<'_>>) -> Result<()> {
        let Some((old_name, new_name)) = old.or(new).zip(new.or(old)).map(|(a, b)| (a.0, b.0)) else { return Ok(()) };
        let mut line = |parts: &[&[u8]]| {
            out.extend_from_slice(&parts.concat());
            out.push(b'\n');
        };
        let mode = |at: At<'_>| git_mode(at.1).into_bytes();
        let mut head =
            vec![[&b"diff --git "[..], &prefixed(b"a/", old_name), b" ", &prefixed(b"b/", new_name)].concat()];
        match (old, new) {
            (None, Some(new)) => head.push([&b"new file mode "[..], &mode(new)].concat()),
            (Some(old), None) => head.push([&b"deleted file mode "[..], &mode(old)].concat()),
            (Some(old), Some(new)) if mode(old) != mode(new) => {
                head.push([&b"old mode "[..], &mode(old)].concat());
                head.push([&b"new mode "[..], &mode(new)].concat());
            }
            _ => {}
        }
        if old_name != new_name {
            head.push(b"similarity index 100%".to_vec());
            head.push([&b"rename from "[..], &quote(old_name.as_bytes())].concat());
            head.push([&b"rename to "[..], &quote(new_name.as_bytes())].concat());
        }
        let same = old.zip(new).is_some_and(|(old, new)| old.1.node == new.1.node);
        let hunks = if same { Vec::new() } else { self.hunks(old, new)? };
        // Nothing but an owner or attributes: said above.
        if head.len() > 1 || !hunks.is_empty() {
            head.iter().for_each(|text| line(&[text]));
            out.extend_from_slice(&hunks);
        }
        Ok(())
    }

    fn hunks(&self, old: Option<At<'_>>, new: Option<At<'_>>) -> Result<Vec<u8>> {
        let (old_path, new_path) = (old.map(|(path, _)| path), new.map(|(path, _)| path));
        let size = |at: Option<At<'_>>| at.and_then(|(_, facts)| facts.size()).unwrap_or(0);
        if size(old).max(size(new)) > MAX_PATCH_BYTES {
            return Ok(lines::differ(old_path, new_path, NotShown::TooLarge(MAX_PATCH_BYTES)));
        }
        let (old_bytes, new_bytes) = (self.bytes(&self.before, old)?, self.bytes(&self.after, new)?);
        fn side<'s>(at: Option<At<'s>>, bytes: &'s [u8]) -> Option<lines::Side<'s>> {
            at.map(|(path, _)| lines::Side { path, bytes })
        }
        let deadline = Instant::now().checked_add(THOROUGH);
        Ok(lines::patch(side(old, &old_bytes), side(new, &new_bytes), MAX_PATCH_BYTES, deadline))
    }

    /// The bytes of a file, the target of a symbolic link.
    fn bytes(&self, opened: &Opened, at: Option<At<'_>>) -> Result<Vec<u8>> {
        let Some((path, facts)) = at else { return Ok(Vec::new()) };
        let (content, size) = match &facts.node {
            Node::File { content, size } => (*content, *size),
            Node::Symlink { target } => return Ok(target.to_vec()),
            Node::Directory { .. } => return Ok(Vec::new()),
        };
        match (&opened.side, &opened.directory) {
            (Side::Recorded { version, within, .. }, _) => {
                let mut path_in_version = within.clone();
                for name in path.components() {
                    let name = EntryName::new(name).map_err(|error| Error::source(path, error.to_string()))?;
                    path_in_version.push(&name);
                }
                let wanted = Wanted { version, path: &path_in_version, metadata: &facts.metadata, content, size };
                Contents::of(self.store)?.read(wanted)
            }
            (Side::Directory { .. }, Some(directory)) => {
                use std::io::Read;
                let mut above = path.clone();
                above.pop();
                let dir = directory.open_below(&above)?;
                let name = path.components().last().unwrap_or_default();
                let mut bytes = Vec::new();
                // One byte more than there should be, so that a file that grew is not read to its end.
                let read = dir.open_file(name)?.take(size + 1).read_to_end(&mut bytes);
                read.map_err(|error| Error::io("read", dir.path_of(name), error))?;
                match ContentId::of(&bytes) == content {
                    true => Ok(bytes),
                    false => Err(Error::source(path, "changed while it was being compared")),
                }
            }
            (Side::Directory { .. }, None) => Ok(Vec::new()),
        }
    }
}

/// A file or symbolic link and its path.
type At<'a> = (&'a TreePath, &'a EntryFacts);

/// A name in the first line. Where no other line repeats it, `patch` takes one with spaces only in quotes.
fn prefixed(prefix: &[u8], path: &TreePath) -> Vec<u8> {
    let quoted = quote(&[prefix, path.as_bytes()].concat());
    match quoted.contains(&b' ') && !quoted.starts_with(b"\"") {
        true => [b"\"", &*quoted, b"\""].concat(),
        false => quoted,
    }
}

fn git_mode(facts: &EntryFacts) -> String {
    match facts.node {
        Node::Symlink { .. } => "120000".to_owned(),
        _ => format!("{:06o}", 0o100_000 | facts.metadata.mode),
    }
}

/// What git's form has no word for.
fn remarks(change: &Change) -> Vec<u8> {
    let mut out = Vec::new();
    let path = quote(change.path.as_bytes());
    let mut remark = |text: &str| {
        out.extend_from_slice(b"# ");
        out.extend_from_slice(&path);
        out.extend_from_slice(format!(": {text}\n").as_bytes());
    };
    let directory = |facts: &Option<EntryFacts>| facts.as_ref().is_some_and(EntryFacts::is_directory);
    match (directory(&change.before), directory(&change.after)) {
        (false, true) => remark("added directory"),
        (true, false) => remark("removed directory"),
        _ => {}
    }
    if let (Some(before), Some(after)) = (&change.before, &change.after) {
        let (a, b) = (&before.metadata, &after.metadata);
        if change.differs.mode && before.is_directory() && after.is_directory() {
            remark(&format!("mode {:04o} -> {:04o}", a.mode, b.mode));
        }
        if change.differs.owner {
            remark(&format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
        }
        if change.differs.xattrs {
            remark("extended attributes differ");
        }
    }
    out
}
