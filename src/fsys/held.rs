//! Which inodes processes hold, whatever path leads there.
//!
//! [`process`](super::process) compares paths. A process in another mount namespace, behind a bind mount, or with a file
//! that was removed since, shows another path or none; its inodes are the same. An inode that is held keeps its blocks
//! when its last name goes.

use super::process::processes;

/// An inode that a process holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    /// The inode's number.
    pub inode: u64,
    /// The process.
    pub pid: i32,
    /// `executes`, `maps`, `has open`, `works in`, `is rooted in`.
    pub how: &'static str,
    /// The path as the kernel prints it for this process.
    pub path: Vec<u8>,
}

/// Finds the inodes on `device` that processes hold. Processes that may not be inspected are passed over;
/// [`uses_below`](super::process::uses_below) counts them.
pub fn held_on(device: u64) -> Vec<Hold> {
    processes(&[], Some(device)).holds
}

/// A line of `/proc/*/maps`: address, permissions, offset, device, inode, path.
pub(super) fn mapped(line: &[u8], pid: i32, device: u64) -> Option<Hold> {
    let slash = line.iter().position(|byte| *byte == b'/')?;
    let mut fields = std::str::from_utf8(&line[..slash]).ok()?.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    // A btrfs subvolume shows one anonymous device (major 0) here and another one in stat(2).
    let anonymous = major == 0 && rustix::fs::major(device) == 0;
    if !anonymous && rustix::fs::makedev(major, minor) != device {
        return None;
    }
    Some(Hold { inode: fields.next()?.parse().ok()?, pid, how: "maps", path: line[slash..].to_vec() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_removed_file_that_is_open_is_held() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap().join("gone");
        let file = std::fs::File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let metadata = file.metadata().unwrap();
        let pid = std::process::id().cast_signed();
        // By path as well: other tests of this process get the inode as soon as it is free.
        let ours = |hold: &Hold| hold.path.starts_with(path.as_os_str().as_bytes());
        let held = |holds: Vec<Hold>| holds.iter().any(|h| (h.inode, h.pid) == (metadata.ino(), pid) && ours(h));
        assert!(held(held_on(metadata.dev())));
        drop(file);
        assert!(!held(held_on(metadata.dev())));
    }

    #[test]
    fn a_mapping_is_read_with_its_inode() {
        let line = b"7f00-7f01 r-xp 00000000 fd:00 4711                       /opt/a b.so (deleted)";
        let hold = mapped(line, 7, rustix::fs::makedev(0xfd, 0)).unwrap();
        assert_eq!((hold.inode, hold.path.as_slice()), (4711, &b"/opt/a b.so (deleted)"[..]));
        assert_eq!(mapped(line, 7, rustix::fs::makedev(0xfd, 1)), None);
        assert_eq!(mapped(b"7f00-7f01 rw-p 00000000 00:00 0 [heap]", 7, 0), None);
    }
}
