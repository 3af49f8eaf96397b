//! Is there room, in bytes and in inodes, before anything is written?

use super::Options;
use crate::error::{Error, Result};
use crate::fsys::{Dir, Kind, Space};
use crate::scan::{Scan, sum_files};

/// What an import may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl Need {
    /// If not a single file were known: every file and directory takes whole blocks.
    pub(super) fn at_most(scan: &Scan, space: &Space) -> Self {
        let files =
            sum_files(scan, |file| if file.stat.kind == Kind::File { space.rounded(file.stat.size) } else { 0 });
        let names = scan.entries() + 1;
        Self { bytes: files.saturating_add(fixed_bytes(scan, space)), inodes: names }
    }

    /// With the sizes of the objects that have to be made.
    pub(super) fn exactly(scan: &Scan, space: &Space, new_objects: impl Iterator<Item = u64>) -> Self {
        let (mut bytes, mut inodes) = (fixed_bytes(scan, space), 0);
        for size in new_objects {
            bytes = bytes.saturating_add(space.rounded(size));
            inodes += 1;
        }
        let own = |file: &crate::scan::ScanFile| u64::from(file.stat.kind == Kind::Symlink || file.stat.size == 0);
        Self { bytes, inodes: inodes + sum_files(scan, own) + scan.directories.len() as u64 }
    }

    /// What files take that are copied besides: private ones into the version, shared ones when they are seeded.
    pub(super) fn copies(scan: &Scan, space: &Space, options: &Options) -> Self {
        let mut need = Self::default();
        if options.private.is_empty() && options.shared.is_empty() {
            return need;
        }
        for directory in &scan.directories {
            for file in directory.files.iter().filter(|file| file.stat.kind == Kind::File && file.stat.size > 0) {
                let path = directory.path.join(&file.name);
                if options.private.covers(&path) || options.shared.covers(&path) {
                    need = need.and(Self { bytes: space.rounded(file.stat.size), inodes: 1 });
                }
            }
        }
        need
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }

    /// Fails with the shortfall if this does not fit.
    pub(super) fn check(self, root: &Dir, space: &Space, minimum_bytes: u64) -> Result<()> {
        let free_bytes = space.free_bytes.saturating_sub(minimum_bytes);
        if self.bytes <= free_bytes && self.inodes <= space.free_inodes {
            return Ok(());
        }
        Err(Error::NoSpace {
            path: root.path().to_owned(),
            needed_bytes: self.bytes,
            free_bytes,
            minimum_bytes,
            needed_inodes: self.inodes,
            free_inodes: space.free_inodes,
        })
    }
}

/// What is made anew for every version, whatever its files: directories, symbolic links with long targets, the
/// manifest and the index rows (together well below two hundred bytes per name).
fn fixed_bytes(scan: &Scan, space: &Space) -> u64 {
    let directories: u64 = scan
        .directories
        .iter()
        .map(|directory| {
            // A directory entry takes the name and at most twelve bytes, rounded up.
            let names: u64 = directory.files.iter().map(|file| file.name.as_bytes().len() as u64 + 12).sum();
            space.rounded(names.max(1) * 3 / 2)
        })
        .sum();
    let links = sum_files(scan, |file| {
        if file.stat.kind == Kind::Symlink && file.stat.size > 59 { space.rounded(file.stat.size) } else { 0 }
    });
    directories + links + scan.entries() * 200 + space.block_bytes * 4
}
