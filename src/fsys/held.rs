//! Which inodes processes hold, whatever path leads there.
//!
//! [`process`](super::process) compares paths. A process in another mount namespace, behind a bind mount, or with a file
//! that was removed since, shows another path or none; its inodes are the same. An inode that is held keeps its blocks
//! when its last name goes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::process::{is_gone, processes};
use crate::error::Result;

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
///
/// # Errors
///
/// As [`processes`].
pub fn held_on(device: u64) -> Result<Vec<Hold>> {
    Ok(processes(&[], Some(device))?.holds)
}

/// A map of a file, as a line of `/proc/*/maps` has it: addresses, permissions, offset, device, inode, path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map<'a> {
    /// First address, and the one after the last.
    addresses: (u64, u64),
    /// Whether the process writes through it.
    is_written: bool,
    /// Whether what is written through it is written to the file.
    pub(super) is_shared: bool,
    device: u64,
    pub(super) inode: u64,
    /// As the kernel prints it: newlines are escaped.
    pub(super) path: &'a [u8],
}

impl<'a> Map<'a> {
    /// Reads a line; `None` for what has no path, which is no file.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        // The path is last and may hold blanks.
        let slash = line.iter().position(|byte| *byte == b'/')?;
        let mut fields = std::str::from_utf8(&line[..slash]).ok()?.split_ascii_whitespace();
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let addresses = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.as_bytes();
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some(Self {
            addresses: (hexadecimal(addresses.0)?, hexadecimal(addresses.1)?),
            is_written: permissions.get(1) == Some(&b'w'),
            is_shared: permissions.get(3) == Some(&b's'),
            device: rustix::fs::makedev(major, minor),
            inode: fields.next()?.parse().ok()?,
            path: &line[slash..],
        })
    }

    /// Whether it may be of a file on this device.
    pub(super) fn is_on(&self, device: u64) -> bool {
        // A btrfs subvolume shows one anonymous device (major 0) here and another one in stat(2).
        self.device == device || rustix::fs::major(self.device) == 0 && rustix::fs::major(device) == 0
    }

    /// Whether it is of a file on this device, by the file itself where the system shows it (to root).
    pub(super) fn is_of(&self, process: &Path, device: u64) -> bool {
        let (first, last) = self.addresses;
        match std::fs::metadata(process.join(format!("map_files/{first:x}-{last:x}"))) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) == (device, self.inode),
            // An overlay has an anonymous device, and a kernel may show that of a layer here.
            Err(_) => self.is_on(device) || rustix::fs::major(device) == 0,
        }
    }

    /// Whether the process can change the file through it: it is shared, and may be written or may be made so, since the
    /// file was opened for writing (`mw` of `VmFlags`, proc(5)).
    pub(super) fn may_be_written(&self, process: &Path) -> bool {
        self.is_shared
            && (self.is_written
                || match std::fs::read(process.join("smaps")) {
                    Ok(smaps) => self.may_become_writable(&smaps),
                    Err(error) => !is_gone(&error),
                })
    }

    /// By all of a process's `smaps`. A map that is not found there was split or joined since: who knows.
    fn may_become_writable(&self, smaps: &[u8]) -> bool {
        let (first, last) = self.addresses;
        let starts = |line: &[u8]| {
            let range = std::str::from_utf8(line).ok()?.split_once(' ')?.0;
            let (start, end) = range.split_once('-')?;
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        };
        let mut lines =
            smaps.split(|byte| *byte == b'\n').skip_while(|line| starts(line) != Some((first, last))).skip(1);
        let flags =
            lines.by_ref().take_while(|line| starts(line).is_none()).find_map(|line| line.strip_prefix(b"VmFlags:"));
        flags.is_none_or(|flags| flags.split(|byte| *byte == b' ').any(|flag| flag == b"mw"))
    }
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
        assert!(held(held_on(metadata.dev()).unwrap()));
        drop(file);
        assert!(!held(held_on(metadata.dev()).unwrap()));
    }

    #[test]
    fn a_mapping_is_read_with_its_inode() {
        let line = b"7f00-7f01 r-xp 00000000 fd:00 4711                       /opt/a b.so (deleted)";
        let map = Map::parse(line).unwrap();
        assert_eq!((map.addresses, map.inode, map.path), ((0x7f00, 0x7f01), 4711, &b"/opt/a b.so (deleted)"[..]));
        assert!(map.is_on(rustix::fs::makedev(0xfd, 0)) && !map.is_on(rustix::fs::makedev(0xfd, 1)));
        assert!(!map.is_shared && !map.is_written);
        assert_eq!(Map::parse(b"7f00-7f01 rw-p 00000000 00:00 0 [heap]"), None);
        let shared = Map::parse(b"00400000-00401000 rw-s 00000000 fd:00 4711 /opt/a").unwrap();
        assert!(shared.is_shared && shared.is_written);
    }

    #[test]
    fn a_map_may_become_writable_if_its_flags_say_so_or_are_not_found() {
        let smaps = b"00400000-00401000 r--s 00000000 fd:00 4711 /opt/a\nSize: 4 kB\nVmFlags: rd sh mr mw me ms sd \n\
            00402000-00403000 r--s 00000000 fd:00 4712 /opt/b\nSize: 4 kB\nVmFlags: rd mr me ms sd \n\
            00404000-00405000 r--s 00000000 fd:00 4713 /opt/c\nSize: 4 kB\n";
        let may = |range: &str| {
            let line = format!("{range} r--s 00000000 fd:00 1 /opt/x");
            Map::parse(line.as_bytes()).unwrap().may_become_writable(smaps)
        };
        assert!(may("00400000-00401000"));
        assert!(!may("00402000-00403000"));
        assert!(may("00404000-00405000"), "the kernel does not say");
        assert!(may("00406000-00407000"), "it is not there any longer");
    }
}
