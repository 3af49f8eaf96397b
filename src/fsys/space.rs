//! Free bytes and inodes.

use super::dir::Dir;
use crate::error::{Error, Result};

/// What a file system has left for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may be written; for root including what is reserved for root.
    pub free_bytes: u64,
    /// Inodes that may be made; `u64::MAX` where the file system makes them as needed.
    pub free_inodes: u64,
    /// Bytes per block: every file takes a whole number of these.
    pub block_bytes: u64,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

impl Space {
    /// Asks the file system of a directory.
    pub fn of(dir: &Dir) -> Result<Self> {
        let stat = rustix::fs::fstatvfs(dir).map_err(|errno| Error::io("ask for free space in", dir.path(), errno))?;
        let root = rustix::process::geteuid().is_root();
        let blocks = if root { stat.f_bfree } else { stat.f_bavail };
        let inodes = if root { stat.f_ffree } else { stat.f_favail };
        // btrfs has no fixed number of inodes and says zero of zero.
        let free_inodes = if stat.f_files == 0 { u64::MAX } else { inodes };
        let block_bytes = stat.f_frsize.max(1);
        Ok(Self {
            free_bytes: blocks.saturating_mul(block_bytes),
            free_inodes,
            block_bytes,
            read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Bytes that a file of this size takes at most.
    pub fn rounded(&self, size: u64) -> u64 {
        size.div_ceil(self.block_bytes).saturating_mul(self.block_bytes)
    }
}
