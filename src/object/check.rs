//! Is this inode what its key says?

use crate::error::{Error, Result};
use crate::fsys::stat::stat_file;
use crate::fsys::{Dir, Kind, Stat, file};
use crate::hash;
use crate::model::{ObjectKey, Xattrs};

use super::Recorded;

/// In what way an inode differs from its key; the first difference that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a regular file.
    #[error("it is {}", .0.describe())]
    Kind(Kind),
    /// Another number of bytes.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// As recorded.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Another mode.
    #[error("its mode is {found:04o} instead of {expected:04o}")]
    Mode {
        /// As recorded.
        expected: u32,
        /// As found.
        found: u32,
    },
    /// Another owner.
    #[error("its owner is {}:{} instead of {}:{}", found.0, found.1, expected.0, expected.1)]
    Owner {
        /// As recorded.
        expected: (u32, u32),
        /// As found.
        found: (u32, u32),
    },
    /// Written to since it was linked.
    #[error("it was written to: its modification time changed")]
    Mtime,
    /// Other extended attributes.
    #[error("its extended attributes differ")]
    Xattrs,
    /// Other bytes.
    #[error("its contents differ")]
    Content,
}

/// Compares what one look shows: kind, mode, owner, and size and time where they are recorded.
pub fn by_stat(stat: &Stat, key: &ObjectKey, recorded: Option<&Recorded>) -> Result<(), Fault> {
    let class = &key.class;
    if stat.kind != Kind::File {
        return Err(Fault::Kind(stat.kind));
    }
    if let Some(recorded) = recorded.filter(|recorded| recorded.size != stat.size) {
        return Err(Fault::Size { expected: recorded.size, found: stat.size });
    }
    if stat.mode != class.mode {
        return Err(Fault::Mode { expected: class.mode, found: stat.mode });
    }
    if (stat.uid, stat.gid) != (class.uid, class.gid) {
        return Err(Fault::Owner { expected: (class.uid, class.gid), found: (stat.uid, stat.gid) });
    }
    let pinned = class.mtime.is_some_and(|mtime| mtime != stat.mtime.0);
    if pinned || recorded.is_some_and(|recorded| !is_time(recorded.mtime, stat.mtime)) {
        return Err(Fault::Mtime);
    }
    Ok(())
}

/// Whether a time is the recorded one, with its nanoseconds or without them: a store that reaches a device within an
/// image came through a tar, a squashfs or `mke2fs -d`, which keep whole seconds. A write would leave some.
fn is_time(recorded: (i64, u32), found: (i64, u32)) -> bool {
    found == recorded || found == (recorded.0, 0)
}

/// Compares everything, reading the whole file.
///
/// # Errors
///
/// The outer error is a failure to look, the inner one what is wrong.
pub fn fully(
    dir: &Dir,
    name: impl AsRef<[u8]>,
    key: &ObjectKey,
    recorded: Option<&Recorded>,
) -> Result<Result<Stat, Fault>> {
    let name = name.as_ref();
    let stat = dir.stat(name)?;
    if let Err(fault) = by_stat(&stat, key, recorded) {
        return Ok(Err(fault));
    }
    let opened = dir.open_file(name)?;
    let path = || dir.path_of(name);
    let stat = stat_file(&opened, path)?;
    let xattrs = file::xattrs(&opened, path)?;
    if digest(&xattrs) != key.class.xattrs {
        return Ok(Err(Fault::Xattrs));
    }
    let (content, _) = hash::stream(&opened, hash::Threads::One).map_err(|error| Error::io("read", path(), error))?;
    Ok(if content == key.content { Ok(stat) } else { Err(Fault::Content) })
}

/// The digest of attributes as it stands in a key.
pub fn digest(xattrs: &Xattrs) -> Option<Box<crate::model::XattrDigest>> {
    (!xattrs.is_empty()).then(|| Box::new(xattrs.digest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_have_lost_its_nanoseconds_and_nothing_else() {
        for (recorded, found, same) in [
            ((5, 7), (5, 7), true),
            ((5, 7), (5, 0), true),
            ((-5, 7), (-5, 0), true),
            ((5, 0), (5, 0), true),
            ((5, 7), (5, 8), false),
            ((5, 0), (5, 7), false),
            ((5, 7), (6, 0), false),
            ((5, 999_999_999), (6, 0), false),
        ] {
            assert_eq!(is_time(recorded, found), same, "{recorded:?} {found:?}");
        }
    }
}
