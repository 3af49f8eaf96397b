//! Listing a directory without a copy of every name.
//!
//! [`Dir::items`] opens the directory once more, sorts and allocates for each name: right for a handle that is shared.
//! Where a handle was just opened to be listed, [`Dir::list`] costs two system calls and nothing for each name.

use std::cell::Cell;
use std::os::fd::AsFd;

use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

use super::dir::Dir;
use super::stat::Kind;
use crate::error::{Error, Result};

/// Room for what one call gives: some four hundred names of usual length.
const BUFFER_BYTES: usize = 32 << 10;

thread_local! {
    /// Kept from one listing to the next.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One name in a directory, as the listing gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What the directory says it is; [`Kind::Unknown`] on file systems that do not say.
    pub kind: Kind,
    /// Inode number. Of a mount point it is that of the directory beneath.
    pub inode: u64,
}

impl Dir {
    /// Calls `visit` with every name, in the file system's own order, and the directory to do something about it.
    ///
    /// The listing goes by the position of the handle, which must therefore be nobody else's. Names may be removed
    /// meanwhile, also by `visit`: every name that is there from beginning to end is given once.
    ///
    /// # Errors
    ///
    /// What the system refuses, and the first error of `visit`.
    pub fn list(&mut self, mut visit: impl FnMut(&Self, Listed<'_>) -> Result<()>) -> Result<()> {
        rustix::fs::seek(self.as_fd(), SeekFrom::Start(0)).map_err(|errno| self.unlisted(errno))?;
        // One that lists within `visit` finds none and makes its own.
        let mut buffer = BUFFER.take();
        buffer.reserve(BUFFER_BYTES);
        let listed = self.list_into(&mut buffer, &mut visit);
        BUFFER.set(buffer);
        listed
    }

    fn list_into(&self, buffer: &mut Vec<u8>, visit: &mut dyn FnMut(&Self, Listed<'_>) -> Result<()>) -> Result<()> {
        let mut items = RawDir::new(self.as_fd(), buffer.spare_capacity_mut());
        while let Some(item) = items.next() {
            let item = match item {
                Ok(item) => item,
                // The directory itself was removed: there is nothing in it.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(self.unlisted(errno)),
            };
            let name = item.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                visit(self, Listed { name, kind: Kind::of(item.file_type()), inode: item.ino() })?;
            }
        }
        Ok(())
    }

    fn unlisted(&self, errno: Errno) -> Error {
        Error::io("list", self.path(), errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gives_every_name_with_kind_and_inode_however_often_it_is_asked_for() {
        let temporary = tempfile::tempdir().unwrap();
        let mut dir = Dir::open(temporary.path()).unwrap();
        for number in 0..1000 {
            dir.create_file(format!("a name of some length that fills the buffer {number}"), 0o644).unwrap();
        }
        dir.make_dir("d", 0o755).unwrap();
        dir.symlink("d", "l").unwrap();
        let expected: Vec<_> =
            dir.items().unwrap().into_iter().map(|i| (i.name.as_bytes().to_vec(), i.kind, i.inode)).collect();
        for _ in 0..2 {
            let mut found = Vec::new();
            dir.list(|_, item| {
                found.push((item.name.to_vec(), item.kind, item.inode));
                Ok(())
            })
            .unwrap();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_removed_while_it_is_listed_is_listed_once_and_all_of_it_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let mut dir = Dir::open(temporary.path()).unwrap();
        for number in 0..3000 {
            dir.create_file(format!("a name of some length that fills the buffer {number}"), 0o644).unwrap();
        }
        let mut removed = 0;
        dir.list(|dir, item| {
            removed += 1;
            dir.remove_file(item.name)
        })
        .unwrap();
        assert_eq!((removed, dir.items().unwrap().len()), (3000, 0));
    }
}
