//! File systems on which a change time proves that a file is the one that was read.
//!
//! A file whose inode number, size and times are those of an earlier reading has the same bytes only if *this* kernel
//! set the change time of every write since that reading. The maker of an image chooses the times in it, another
//! machine writes to a disk while it is attached there, and a second image can carry the identifiers of the first. So
//! [`Stamped::of`] answers only for a directory whose file system
//!
//! - is one of a few kinds that keep inode numbers and set change times themselves, never an image, a network, a FUSE
//!   or an overlay file system;
//! - may be written through the mount in question;
//! - can be named so that the name is of this mount alone: the identifier of the boot, and the mount's identifier that
//!   the kernel never gives again (`STATX_MNT_ID_UNIQUE`, since Linux 6.8).
//!
//! An older kernel, as the 6.1 of Debian 12, gives the number of a mount again after it is gone, and nothing else names
//! a mount. There only the store's own file system is answered for: the index that holds the readings lies on it, so
//! both go and come together. Its name is the boot, the device, and the disk's sequence number (`diskseq`, since Linux
//! 5.15), which changes whenever another medium, or the same one again, is attached.
//!
//! In each case the device and the file system's own identifier are part of the name: the subvolumes of one btrfs share
//! a mount and give their inodes the same numbers.
//!
//! **Not seen:** a write to the medium beneath a mounted file system; and writes through a shared map to a page that the
//! process has written before and the kernel has not yet written back (on tmpfs, which writes nothing back, any later
//! write through the same map). The kernel sets no time for those.

use rustix::fs::{AtFlags, StatVfsMountFlags, StatxFlags};

use super::mutation::Mutation;
use super::{Dir, Stat, system};

/// Asks for an identifier of the mount that is not given again before the next boot (statx(2)).
const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Seconds after which another change of a file has another time on every supported file system.
const COARSEST_CLOCK_SECONDS: i64 = 2;

/// A mounted file system of which this kernel alone sets the change times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    device: u64,
    name: Vec<u8>,
    /// A file that changed later could change again within the granularity of its clock without showing it.
    settled_before: (i64, u32),
}

impl Stamped {
    /// That of a directory; `None` in any doubt. `store` is the store's own directory.
    pub fn of(dir: &Dir, store: &Dir) -> Option<Self> {
        let space = rustix::fs::fstatvfs(dir).ok()?;
        let read_only = space.f_flag.contains(StatVfsMountFlags::RDONLY);
        if !stamps_changes(dir)? || read_only && !Mutation::ReadOnlyCache.is_made() {
            return None;
        }
        let device = dir.stat_self().ok()?.device;
        let mut name = system::boot_id()?.into_bytes();
        let (by, number) = match mount_id(dir) {
            Some(id) => (b'm', id),
            None if store.stat_self().ok()?.device == device => (b'd', disk_sequence(device).unwrap_or(0)),
            None => return None,
        };
        name.push(by);
        name.extend(number.to_le_bytes());
        name.extend(device.to_le_bytes());
        name.extend(space.f_fsid.to_le_bytes());
        let now = system::file_time_now();
        Some(Self { device, name, settled_before: (now.0 - COARSEST_CLOCK_SECONDS, now.1) })
    }

    /// Bytes that name it and no other file system.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether what a file's inode says stands for its bytes: it lies on this file system, and its last change is long
    /// enough ago for another one to show. A clock that was set back to before that change makes it no older.
    pub fn covers(&self, stat: &Stat) -> bool {
        stat.device == self.device && stat.ctime < self.settled_before
    }
}

/// Whether the file system keeps its inode numbers, gives each to one file of a device, and sets change times by this
/// machine's clock: ext2, ext3 and ext4, xfs, btrfs, f2fs, tmpfs. Magic numbers as in statfs(2).
fn stamps_changes(dir: &Dir) -> Option<bool> {
    let stat = rustix::fs::fstatfs(dir).ok()?;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = stat.f_type as u32;
    Some(matches!(magic, 0xef53 | 0x5846_5342 | 0x9123_683e | 0xf2f5_2010 | 0x0102_1994))
}

/// The mount's identifier that is not given again; `None` on kernels before 6.8.
fn mount_id(dir: &Dir) -> Option<u64> {
    if Mutation::NoMountId.is_made() {
        return None;
    }
    let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, MOUNT_ID_UNIQUE).ok()?;
    (stat.stx_mask & MOUNT_ID_UNIQUE.bits() != 0).then_some(stat.stx_mnt_id)
}

/// The sequence number of the disk that is, or holds, this block device. `None` where there is no such device (tmpfs,
/// btrfs), or before Linux 5.15.
fn disk_sequence(device: u64) -> Option<u64> {
    let at = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // A partition has none of its own: the directory above is its disk's.
    let read = |name: &str| std::fs::read_to_string(format!("{at}/{name}")).ok()?.trim().parse().ok();
    read("diskseq").or_else(|| read("../diskseq"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(path: &str) -> Option<Stamped> {
        let dir = Dir::open(path).unwrap();
        Stamped::of(&dir, &dir)
    }

    #[test]
    fn a_made_up_file_system_is_not_answered_for() {
        assert_eq!(stamped("/proc"), None);
        assert_eq!(stamped("/sys"), None);
    }

    #[test]
    fn a_name_is_of_one_mount_and_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let Some(own) = stamped(temporary.path().to_str().unwrap()) else { return };
        let again = stamped(temporary.path().to_str().unwrap()).unwrap();
        assert_eq!(own.name, again.name);
        assert!(own.name.starts_with(system::boot_id().unwrap().as_bytes()));
    }

    #[test]
    fn only_settled_files_of_the_device_are_covered() {
        let temporary = tempfile::tempdir().unwrap();
        let stat = Dir::open(temporary.path()).unwrap().stat_self().unwrap();
        let own = Stamped { device: stat.device, name: Vec::new(), settled_before: stat.ctime };
        let (seconds, nanoseconds) = stat.ctime;
        assert!(own.covers(&Stat { ctime: (seconds - 1, nanoseconds), ..stat }));
        assert!(!own.covers(&stat), "changed just now");
        assert!(!own.covers(&Stat { ctime: (seconds + 60, 0), ..stat }), "the clock was set back");
        assert!(!own.covers(&Stat { ctime: (seconds - 1, 0), device: stat.device + 1, ..stat }));
    }
}
