//! What a name stands for: its kind, and what the system tells of its inode.

use std::fs::File;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Socket,
    /// A FIFO.
    Fifo,
    /// A block or character device.
    Device,
    /// The file system did not say.
    Unknown,
}

impl Kind {
    pub(super) fn of(kind: rustix::fs::FileType) -> Self {
        use rustix::fs::FileType;
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Socket => Self::Socket,
            FileType::Fifo => Self::Fifo,
            FileType::CharacterDevice | FileType::BlockDevice => Self::Device,
            FileType::Unknown => Self::Unknown,
        }
    }

    /// A word for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Socket => "a socket",
            Self::Fifo => "a FIFO",
            Self::Device => "a device node",
            Self::Unknown => "something unknown",
        }
    }
}

/// What the file system knows of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that its blocks take on the medium.
    pub allocated_bytes: u64,
    /// Number of names.
    pub links: u64,
    /// Device it lies on.
    pub device: u64,
    /// Inode number there.
    pub inode: u64,
    /// Last change of the contents: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Last change of the inode: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

impl Stat {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        // The widths of these fields differ between architectures; all values fit the ones chosen here.
        #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
        Self {
            kind: Kind::of(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            allocated_bytes: stat.st_blocks as u64 * 512,
            links: stat.st_nlink as u64,
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }

    /// Whether both are the same inode.
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether nothing was written to the inode between the two looks: same inode, size and times.
    pub fn unchanged(&self, later: &Self) -> bool {
        self.same_inode(later) && (self.size, self.mtime, self.ctime) == (later.size, later.mtime, later.ctime)
    }
}

/// What an open file is.
pub fn stat_file(file: &File, path: impl FnOnce() -> PathBuf) -> Result<Stat> {
    rustix::fs::fstat(file).map(|stat| Stat::of(&stat)).map_err(|errno| Error::io("look at", path(), errno))
}
