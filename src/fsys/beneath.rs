//! Following symbolic links, but never out of a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use super::dir::Dir;
use super::rooted::{Beyond, walk};
use super::stat::{Stat, stat_file};
use crate::error::{Error, Result};

/// What a path leads to when symbolic links are followed that stay below `dir`; `None` if it leads nowhere, or out.
///
/// # Errors
///
/// The system refuses to look.
pub fn try_stat(dir: &Dir, path: impl AsRef<[u8]>) -> Result<Option<Stat>> {
    let path = path.as_ref();
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let asked =
        retry_on_intr(|| rustix::fs::openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve));
    let found = match asked {
        // Kernels before 5.6 and some sandboxes do not have the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            let path = Path::new(OsStr::from_bytes(path));
            walk(dir, path, Beyond::Refuse).map(|place| place.fd)
        }
        other => other,
    };
    match found {
        Ok(fd) => stat_file(&std::fs::File::from(fd), || dir.path_of(path)).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(Error::io("follow", dir.path_of(path), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsys::Kind;

    #[test]
    fn links_are_followed_inside_and_not_out() {
        use std::os::unix::fs::symlink;
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().join("top");
        std::fs::create_dir_all(top.join("bin")).unwrap();
        std::fs::write(top.join("app"), "x").unwrap();
        std::fs::write(temporary.path().join("outside"), "x").unwrap();
        for (target, name) in
            [("../app", "in"), ("../../outside", "out"), ("/etc/passwd", "absolute"), ("gone", "dangling"), ("l", "l")]
        {
            symlink(target, top.join("bin").join(name)).unwrap();
        }
        let dir = Dir::open(&top).unwrap();
        let kind = |path: &str| try_stat(&dir, path).unwrap().map(|stat| stat.kind);
        assert_eq!(kind("bin/in"), Some(Kind::File));
        for path in ["bin/out", "bin/absolute", "bin/dangling", "bin/l", "nothing"] {
            assert_eq!(kind(path), None, "{path}");
        }
        let walked = |path: &str| walk(&dir, Path::new(path), Beyond::Refuse).is_ok();
        assert!(walked("bin/in"));
        for path in ["bin/out", "bin/absolute", "bin/dangling", "bin/l", "nothing", "..", "bin/../.."] {
            assert!(!walked(path), "{path}");
        }
    }
}
