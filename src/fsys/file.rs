//! Open files: metadata, extended attributes, cloning.
//!
//! Order matters when an inode is dressed: changing the owner clears set-id bits and file capabilities, so owner
//! comes first, then mode, then attributes, then times. But `user.*` attributes need a write bit, so they come before
//! a mode that has none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, retry_on_intr};

use super::dir::Dir;
use super::identity::{Acting, Identity};
use super::mutation::Mutation;
use crate::error::{Error, Result};
use crate::model::{Metadata, Xattrs};

/// An open file or directory, and the user as whom it is changed.
pub trait Handle: AsFd {
    /// The user, where that is another one than this process.
    fn identity(&self) -> Option<Identity>;
}

impl<T: Handle + ?Sized> Handle for &T {
    fn identity(&self) -> Option<Identity> {
        (**self).identity()
    }
}

/// An open file and the directory that it was found or made in.
#[derive(Debug, Clone, Copy)]
pub struct In<'a> {
    pub(super) file: &'a File,
    pub(super) dir: &'a Dir,
}

impl AsFd for In<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Handle for In<'_> {
    fn identity(&self) -> Option<Identity> {
        self.dir.identity()
    }
}

/// Acts as the user of a handle, to do `verb` to it.
fn act(handle: &impl Handle, verb: &'static str, path: impl Fn() -> std::path::PathBuf) -> Result<Option<Acting>> {
    handle.identity().map(Identity::assume).transpose().map_err(|errno| Error::io(verb, path(), errno))
}

/// Longest value of an extended attribute on Linux (`XATTR_SIZE_MAX`).
const MAX_XATTR_BYTES: usize = 64 << 10;

/// The recorded extended attributes of an open file or directory.
pub fn xattrs(fd: impl AsFd, path: impl Fn() -> std::path::PathBuf) -> Result<Xattrs> {
    let fd = fd.as_fd();
    let mut names = [0_u8; 1024];
    let length = match rustix::fs::flistxattr(fd, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Xattrs::none()),
        Ok(length) => length,
        Err(Errno::RANGE) => return many_xattrs(fd, path),
        Err(errno) => return Err(Error::io("list the attributes of", path(), errno)),
    };
    read_xattrs(fd, &names[..length], path)
}

/// The rare file with more than a kilobyte of attribute names.
fn many_xattrs(fd: impl AsFd, path: impl Fn() -> std::path::PathBuf) -> Result<Xattrs> {
    let mut names = vec![0_u8; MAX_XATTR_BYTES];
    let length =
        rustix::fs::flistxattr(&fd, &mut names).map_err(|errno| Error::io("list the attributes of", path(), errno))?;
    read_xattrs(fd, &names[..length], path)
}

fn read_xattrs(fd: impl AsFd, names: &[u8], path: impl Fn() -> std::path::PathBuf) -> Result<Xattrs> {
    let mut list = Vec::new();
    let mut value = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| Xattrs::is_recorded(name)) {
        value.resize(MAX_XATTR_BYTES, 0);
        match rustix::fs::fgetxattr(&fd, name, value.as_mut_slice()) {
            Ok(length) => list.push((name.to_vec(), value[..length].to_vec())),
            // Removed between the two calls: as good as never there.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(Error::io("read the attributes of", path(), errno)),
        }
    }
    Ok(Xattrs::collect(list))
}

/// What a fresh inode of this process looks like, so that only differences cost a call.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Fresh {
    /// Asks the system once.
    pub fn of_this_process() -> Self {
        let umask = std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok())
            })
            // Unknown: as if every bit were masked, so that the mode is always set explicitly.
            .unwrap_or(0o777);
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, umask }
    }

    /// The same, with the owner and group that creation really gave in this directory of our own: a mount option or
    /// a set-group-id directory may decide about the group.
    #[must_use]
    pub fn as_in(self, own_directory: &super::Stat) -> Self {
        Self { uid: own_directory.uid, gid: own_directory.gid, ..self }
    }

    /// Whether a fresh inode belongs to these already.
    pub fn belongs_to(&self, uid: u32, gid: u32) -> bool {
        (uid, gid) == (self.uid, self.gid)
    }

    /// Whether a file created with this mode has exactly it.
    fn takes_mode(&self, mode: u32) -> bool {
        mode & (self.umask | 0o7000) == 0
    }
}

/// Gives a file or directory, just created with `metadata.mode`, its metadata. `fresh` says what creation gave it.
///
/// # Errors
///
/// The first call that the system refuses, with `path`.
pub fn dress(fd: impl Handle, metadata: &Metadata, fresh: &Fresh, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&fd, "change owner of", &path)?;
    put_on(fd.as_fd(), metadata, fresh, path)
}

fn put_on(fd: BorrowedFd<'_>, metadata: &Metadata, fresh: &Fresh, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let chowned = (metadata.uid, metadata.gid) != (fresh.uid, fresh.gid);
    if chowned {
        rustix::fs::fchown(fd, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
            .map_err(|errno| Error::io("change owner of", path(), errno))?;
    }
    let set = |(name, value): (&[u8], &[u8])| {
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
            .map_err(|errno| Error::io("set attributes of", path(), errno))
    };
    // A user's attributes are written like contents: without a write bit only root may.
    let is_users = |name: &[u8]| name.starts_with(b"user.");
    let opened = metadata.mode & 0o200 == 0 && metadata.xattrs.iter().any(|(name, _)| is_users(name));
    if opened {
        change_mode(fd, metadata.mode | 0o200, &path)?;
        metadata.xattrs.iter().filter(|(name, _)| is_users(name)).try_for_each(set)?;
    }
    if opened || !fresh.takes_mode(metadata.mode) || (chowned && metadata.mode & 0o6000 != 0) {
        change_mode(fd, metadata.mode, &path)?;
    }
    metadata.xattrs.iter().filter(|(name, _)| !(opened && is_users(name))).try_for_each(set)
}

/// Gives a file or directory that has been there for a while its metadata: what it has beyond that goes.
///
/// # Errors
///
/// As [`dress`].
pub fn redress(fd: impl Handle, metadata: &Metadata, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&fd, "change owner of", &path)?;
    let fd = fd.as_fd();
    for (name, _) in xattrs(fd, &path)?.iter() {
        if !metadata.xattrs.iter().any(|(wanted, _)| wanted == name) {
            match rustix::fs::fremovexattr(fd, name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(Error::io("remove attributes of", path(), errno)),
            }
        }
    }
    // No owner and a full umask: nothing is taken to be right already.
    put_on(fd, metadata, &Fresh { uid: u32::MAX, gid: u32::MAX, umask: 0o777 }, &path)?;
    change_mode(fd, metadata.mode, path)
}

/// Takes off a new directory what it inherited from a default ACL above it, and makes its mode what it is to be: what
/// is made in it must be what it is meant to be, wherever a store lies.
pub fn disinherit(fd: impl Handle, mode: u32, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&fd, "remove the inherited access list of", &path)?;
    let fd = fd.as_fd();
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match rustix::fs::fremovexattr(fd, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(Error::io("remove the inherited access list of", path(), errno)),
        }
    }
    change_mode(fd, mode, path)
}

/// Sets permission, set-id and sticky bits.
pub fn set_mode(handle: impl Handle, mode: u32, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&handle, "change mode of", &path)?;
    change_mode(handle.as_fd(), mode, path)
}

fn change_mode(fd: BorrowedFd<'_>, mode: u32, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|errno| Error::io("change mode of", path(), errno))
}

/// Changes owner and group.
pub fn set_owner(handle: impl Handle, uid: u32, gid: u32, path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&handle, "change owner of", &path)?;
    rustix::fs::fchown(handle.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|errno| Error::io("change owner of", path(), errno))
}

/// Sets the modification time; the access time becomes the same.
pub fn set_mtime(handle: impl Handle, mtime: (i64, u32), path: impl Fn() -> std::path::PathBuf) -> Result<()> {
    let _acting = act(&handle, "set the time of", &path)?;
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    rustix::fs::futimens(handle.as_fd(), &Timestamps { last_access: time, last_modification: time })
        .map_err(|errno| Error::io("set the time of", path(), errno))
}

/// Shares the blocks of `from` with the empty file `to`. Gives `false` where the file system cannot do that.
pub fn reflink(from: &File, to: &File, path: &Path) -> Result<bool> {
    match retry_on_intr(|| rustix::fs::ioctl_ficlone(to, from)) {
        Ok(()) => Ok(true),
        Err(
            Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::TXTBSY,
        ) => Ok(false),
        Err(errno) => Err(Error::io("clone into", path, errno)),
    }
}

/// Whether a file takes an attribute of a user's; tries it.
pub fn takes_attributes(fd: impl AsFd) -> bool {
    rustix::fs::fsetxattr(fd, "user.tope-store.probe", b"1", XattrFlags::empty()).is_ok()
}

/// Makes a file durable.
pub fn sync(file: &File, path: impl FnOnce() -> std::path::PathBuf) -> Result<()> {
    super::unwaiting::about_to_wait();
    if Mutation::FileSync.is_made() {
        return Ok(());
    }
    file.sync_all().map_err(|error| Error::io("sync", path(), error))
}

/// Drops a file's clean pages, so that what is read next comes from the medium.
pub fn forget_cached(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Reserves blocks behind the end of a file without changing its length. `false` where that is not supported.
pub fn reserve_behind_end(file: &File, offset: u64, length: u64, path: &Path) -> Result<bool> {
    let reserve = || rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, length);
    match retry_on_intr(reserve) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(errno) => Err(Error::io("reserve space for", path, errno)),
    }
}

/// Whether the inode may not be changed at all (`chattr +i`); `None` where the file system has no such flag.
pub fn immutable(fd: impl AsFd) -> Option<bool> {
    rustix::fs::ioctl_getflags(fd).ok().map(|flags| flags.contains(rustix::fs::IFlags::IMMUTABLE))
}

/// Sets or clears the immutable flag. `false` where the file system has none or the caller may not.
///
/// # Errors
///
/// The handle works for another user, and the inode is not that user's.
pub fn set_immutable(handle: impl Handle, on: bool, path: &Path) -> Result<bool> {
    let fd = handle.as_fd();
    let Ok(mut flags) = rustix::fs::ioctl_getflags(fd) else { return Ok(false) };
    if flags.contains(rustix::fs::IFlags::IMMUTABLE) == on {
        return Ok(true);
    }
    if let Some(identity) = handle.identity() {
        let owner = rustix::fs::fstat(fd).map_err(|errno| Error::io("look at", path, errno))?.st_uid;
        if owner != identity.uid {
            return Err(Error::io("change flags of", path, Errno::PERM));
        }
    }
    flags.set(rustix::fs::IFlags::IMMUTABLE, on);
    match rustix::fs::ioctl_setflags(fd, flags) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::PERM | Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(Error::io("change flags of", path, errno)),
    }
}

/// Whether an open file is a regular file.
pub fn is_regular(file: &File) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Opens what a user named as a source: symbolic links are followed, and it must be a regular file.
pub fn open_source(path: &Path) -> Result<File> {
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| Error::io("open", path, error))?;
    match is_regular(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(Error::io("import", path, io::Error::other("neither a directory nor a regular file"))),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

/// What a path of this machine leads to when links are followed; `None` if that cannot be found out.
pub fn stat_path(path: &Path) -> Option<super::Stat> {
    rustix::fs::stat(path).ok().map(|stat| super::Stat::of(&stat))
}

/// How much of a file that is read by its path is read at most: what is longer is none of those that are meant.
pub const MOST_READ_BYTES: u64 = 16 << 20;

/// The whole of a file by its path, or `None` if there is none.
pub fn try_read_path(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_READ_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}
