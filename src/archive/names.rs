//! Names and link targets as archives give them, checked before anything else happens.

use crate::error::{Error, Refusal, Result, Shown};
use crate::model::tree::MAX_TARGET_BYTES;
use crate::model::{EntryName, TreePath};

use super::limits::Limits;

/// How much of an overlong name is worth showing.
const SHOWN_BYTES: usize = 200;

/// Checks a member's name (or a hard link's target) and makes a path below the top of it.
///
/// A leading `./`, doubled and trailing slashes and `.` itself are forgiven: honest tools write them.
///
/// # Errors
///
/// [`Refusal::UnsafeArchive`] for an empty or absolute name, a `..`, a NUL, and whatever is too long or too deep.
pub(super) fn member_path(name: &[u8], limits: &Limits) -> Result<TreePath> {
    if name.is_empty() {
        return Err(unsafe_name(name, "a member has no name"));
    }
    if name.len() > limits.max_path_bytes {
        return Err(unsafe_name(name, &format!("the path has more than {} bytes", limits.max_path_bytes)));
    }
    if name[0] == b'/' {
        return Err(unsafe_name(name, "the name is absolute"));
    }
    let mut path = TreePath::top();
    let parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    for (depth, part) in parts.enumerate() {
        if depth >= limits.max_depth {
            return Err(unsafe_name(name, &format!("the path has more than {} components", limits.max_depth)));
        }
        if part == b".." {
            return Err(unsafe_name(name, "the name climbs with '..'"));
        }
        let part = EntryName::new(part).map_err(|error| unsafe_name(name, &error.to_string()))?;
        path.push(&part);
    }
    Ok(path)
}

/// Checks a symbolic link's target. It is kept as it stands: nothing here ever follows it.
pub(super) fn link_target(path: &TreePath, target: &[u8]) -> Result<()> {
    let problem = if target.is_empty() {
        "its target is empty"
    } else if target.len() > MAX_TARGET_BYTES {
        "its target has more than 4095 bytes"
    } else if target.contains(&0) {
        "its target holds a NUL"
    } else {
        return Ok(());
    };
    Err(refuse(path, &format!("a symbolic link: {problem}")))
}

/// Whether a link at `path` with this target points out of the tree, judged by the names alone.
pub(super) fn leaves_the_tree(path: &TreePath, target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// A refusal that names the member.
pub(super) fn refuse(path: impl AsRef<[u8]>, problem: &str) -> Error {
    unsafe_name(path.as_ref(), problem)
}

fn unsafe_name(name: &[u8], problem: &str) -> Error {
    let shown = &name[..name.len().min(SHOWN_BYTES)];
    let more = if shown.len() < name.len() { "..." } else { "" };
    Error::refused(Refusal::UnsafeArchive, format!("{}{more}: {problem}", Shown::bytes(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_and_harmless_spellings_forgiven() {
        let limits = Limits { max_depth: 3, max_path_bytes: 600, ..Limits::default() };
        let good: [(&[u8], &[u8]); 6] = [
            (b"./a//b/", b"a/b"),
            (b".", b""),
            (b"./", b""),
            (b"a\nb\xff", b"a\nb\xff"),
            (b"...", b"..."),
            (b"a/./b/c", b"a/b/c"),
        ];
        for (name, path) in good {
            assert_eq!(member_path(name, &limits).unwrap().as_bytes(), path);
        }
        let (long, fits) = (vec![b'x'; 256], vec![b'x'; 255]);
        assert_eq!(member_path(&fits, &limits).unwrap().as_bytes(), fits);
        let bad: [&[u8]; 9] = [b"", b"/", b"/etc/passwd", b"..", b"a/../b", b"a/..", b"a\0b", b"a/b/c/d", &long];
        for name in bad {
            let error = member_path(name, &limits).unwrap_err();
            assert_eq!(error.name(), "unsafe-archive", "{name:?}");
        }
        assert!(member_path(&b"a/".repeat(301), &limits).is_err());
    }

    #[test]
    fn links_that_leave_the_tree_are_told_by_their_names() {
        let path = TreePath::parse(b"a/b/link").unwrap();
        let cases: [(&[u8], bool); 7] = [
            (b"/etc", true),
            (b"../../x", false),
            (b"../../../x", true),
            (b"c/../../../../x", true),
            (b"./..//../x", false),
            (b"x/../..", false),
            (b"..", false),
        ];
        for (target, leaves) in cases {
            assert_eq!(leaves_the_tree(&path, target), leaves, "{:?}", Shown::bytes(target).to_string());
        }
    }
}
