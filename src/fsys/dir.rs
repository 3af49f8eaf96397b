//! Directory handles.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use super::file::{Handle, In};
use super::identity::{Acting, Identity};
use super::mutation::Mutation;
use super::stat::{Kind, Stat, stat_file};
use super::unwaiting::about_to_wait;
use crate::error::{EXCHANGE, Error, REAL_PATH, RENAME, Refusal, Result, Shown};
use crate::model::{EntryName, TreePath};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// The name.
    pub name: EntryName,
    /// What the directory says it is; `Unknown` on file systems that do not say.
    pub kind: Kind,
    /// Inode number.
    pub inode: u64,
}

/// A directory held open.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    identity: Option<Identity>,
}

/// How much of a directory is listed by one call.
const LIST_BYTES: usize = 32 << 10;

/// A file's length is believed up to here when memory is set aside for it.
const MOST_RESERVED_BYTES: usize = 1 << 20;
/// The verb of an error where this process may not act as a directory's owner.
const ACT: &str = "act as the owner of";

const OPEN: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

impl Dir {
    /// Opens a directory by path; symbolic links on the way are followed, as the user who named it expects.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match retry_on_intr(|| rustix::fs::open(&path, OPEN, Mode::empty())) {
            Ok(fd) => Ok(Self { fd, path, identity: None }),
            Err(errno) => Err(Error::io("open directory", path, errno)),
        }
    }

    /// A directory that is open already, reached by this path.
    pub(super) fn of(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path, identity: None }
    }

    /// The path it was opened by; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it; for messages.
    pub fn path_of(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.as_ref()))
    }

    /// The same directory; whatever is done by way of this handle, and of handles to what is in it, is done as this
    /// user: what is made will be the user's, and nothing is reached that the user may not reach.
    #[must_use]
    pub fn acting_as(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// Acts as the user whom this handle works for, if it is another one than this process.
    ///
    /// # Errors
    ///
    /// This process may not.
    pub fn act(&self) -> Result<Option<Acting>> {
        self.assume().map_err(|errno| Error::io(ACT, &self.path, errno))
    }

    fn assume(&self) -> rustix::io::Result<Option<Acting>> {
        self.identity.map(Identity::assume).transpose()
    }

    /// Makes a call for the user of this handle.
    fn call<T>(&self, call: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        let _acting = self.assume()?;
        call()
    }

    /// Makes a call on names in two directories.
    fn call_with<T>(&self, other: &Self, call: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        let _acting = self.identity.or(other.identity).map(Identity::assume).transpose()?;
        call()
    }

    /// A file of this directory that is open, to be changed as the user of this handle may.
    pub fn holding<'a>(&'a self, file: &'a File) -> In<'a> {
        In { file, dir: self }
    }

    fn fail(&self, verb: &'static str, name: impl AsRef<[u8]>, errno: Errno) -> Error {
        Error::io(verb, self.path_of(name), errno)
    }

    /// Another handle to the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| Error::io("duplicate handle of", &self.path, error))?;
        Ok(Self { fd, path: self.path.clone(), identity: self.identity })
    }

    /// A handle to the same directory with a place of its own at which it is listed.
    pub fn reopen(&self) -> Result<Self> {
        let fd = self.open_at(b".", OPEN, 0).map_err(|errno| Error::io("open directory", &self.path, errno))?;
        Ok(Self { fd, path: self.path.clone(), identity: self.identity })
    }

    /// Opens a name in it, however often a signal comes in between.
    fn open_at(&self, name: &[u8], flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
        self.call(|| retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))))
    }

    /// A path by which other interfaces of this process reach the directory however deep it lies.
    pub fn proc_path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The path as the kernel prints it now: absolute and without symbolic links.
    pub fn real_path(&self) -> Result<PathBuf> {
        std::fs::read_link(self.proc_path()).map_err(|error| Error::io(REAL_PATH, &self.path, error))
    }

    /// Opens a directory in it. A symbolic link is not followed.
    pub fn open_dir(&self, name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        let fd =
            self.open_at(name, OPEN | OFlags::NOFOLLOW, 0).map_err(|errno| self.fail("open directory", name, errno))?;
        Ok(Self { fd, path: self.path_of(name), identity: self.identity })
    }

    /// Opens a directory in it if there is one of that name.
    pub fn try_open_dir(&self, name: impl AsRef<[u8]>) -> Result<Option<Self>> {
        match self.open_dir(name) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory in it unless that would cross into another mount.
    pub fn open_dir_same_mount(&self, name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OPEN | OFlags::NOFOLLOW;
        let open = || retry_on_intr(|| rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve));
        match self.call(open) {
            Ok(fd) => Ok(Self { fd, path: self.path_of(name), identity: self.identity }),
            // Kernels before 5.6 and some sandboxes do not have the call; the device number tells all but bind mounts.
            Err(Errno::NOSYS | Errno::PERM) => {
                let inner = self.open_dir(name)?;
                if inner.stat_self()?.device == self.stat_self()?.device {
                    Ok(inner)
                } else {
                    Err(self.fail("descend into", name, Errno::XDEV))
                }
            }
            Err(errno) => Err(self.fail("descend into", name, errno)),
        }
    }

    /// Opens a directory any number of levels below, following no symbolic link on the way.
    pub fn open_below(&self, path: &TreePath) -> Result<Self> {
        let mut dir = self.try_clone()?;
        for component in path.components() {
            dir = dir.open_dir(component)?;
        }
        Ok(dir)
    }

    /// Opens a directory below to change it. As root, what lies in a directory of another user must be that user's: all
    /// else the user may have put there just now.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not; otherwise as [`Dir::open_below`].
    pub fn open_own_below(&self, path: &TreePath) -> Result<Self> {
        let mut dir = self.try_clone()?;
        for component in path.components() {
            let inner = dir.open_dir(component)?;
            dir.check_own(component, &inner.stat_self()?)?;
            dir = inner;
        }
        Ok(dir)
    }

    /// Whether what was found here may be changed: no other user can have put it here, or it is that user's.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if not.
    pub fn check_own(&self, name: impl AsRef<[u8]>, found: &Stat) -> Result<()> {
        let own = self.stat_self()?;
        if super::system::effective_uid() != 0 || self.identity.is_some() || found.uid == own.uid {
            return Ok(());
        }
        let sticky = own.mode & 0o1000 != 0;
        let open_to_others = !sticky && (own.mode & 0o002 != 0 || (own.mode & 0o020 != 0 && own.gid != 0));
        if own.uid == 0 && !open_to_others {
            return Ok(());
        }
        let path = self.path_of(name);
        let message = format!(
            "{} belongs to user {}, and user {} may have put it there: it is not changed",
            Shown::path(&path),
            found.uid,
            own.uid
        );
        Err(Error::refused_with(Refusal::NotAllowed, message, "move it away and try again"))
    }

    /// Makes a directory.
    pub fn make_dir(&self, name: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let name = name.as_ref();
        self.call(|| rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)))
            .map_err(|errno| self.fail("create directory", name, errno))
    }

    /// Makes a directory and opens it.
    pub fn create_dir(&self, name: impl AsRef<[u8]>, mode: u32) -> Result<Self> {
        self.make_dir(&name, mode)?;
        self.open_dir(name)
    }

    /// Makes a directory if there is none, and opens it.
    pub fn ensure_dir(&self, name: impl AsRef<[u8]>, mode: u32) -> Result<Self> {
        let name = name.as_ref();
        match self.make_dir(name, mode) {
            Err(error) if error.is_io(io::ErrorKind::AlreadyExists) => self.open_dir(name),
            Err(error) => Err(error),
            Ok(()) => self.open_dir(name),
        }
    }

    /// All names, sorted by bytes.
    ///
    /// # Errors
    ///
    /// Also for a name that is longer than [`EntryName`] allows, which no supported file system has.
    pub fn items(&self) -> Result<Vec<DirItem>> {
        // Other threads may be listing the same handle.
        self.reopen()?.items_once()
    }

    /// All names, sorted by bytes, of a handle that was opened just now and that nobody else lists: what was read once
    /// is not read again.
    ///
    /// # Errors
    ///
    /// As [`Dir::items`].
    pub fn items_once(&self) -> Result<Vec<DirItem>> {
        let fail = |errno| Error::io("list", &self.path, errno);
        let mut items = Vec::new();
        let mut buffer = [const { std::mem::MaybeUninit::<u8>::uninit() }; LIST_BYTES];
        let mut listing = rustix::fs::RawDir::new(&self.fd, &mut buffer);
        while let Some(item) = listing.next() {
            let item = item.map_err(fail)?;
            let bytes = item.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            let name = EntryName::new(bytes).map_err(|error| Error::source(bytes, error.to_string()))?;
            items.push(DirItem { name, kind: Kind::of(item.file_type()), inode: item.ino() });
        }
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }

    /// What a name stands for; a symbolic link is not followed.
    pub fn stat(&self, name: impl AsRef<[u8]>) -> Result<Stat> {
        let name = name.as_ref();
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| Stat::of(&stat))
            .map_err(|errno| self.fail("look at", name, errno))
    }

    /// What a name stands for, or `None` if there is no such name.
    pub fn try_stat(&self, name: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a name leads to when symbolic links are followed, or `None` if it leads nowhere.
    pub fn try_stat_following(&self, name: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.fd, name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(Stat::of(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.fail("follow", name, errno)),
        }
    }

    /// What the directory itself is.
    pub fn stat_self(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd).map(|stat| Stat::of(&stat)).map_err(|errno| Error::io("look at", &self.path, errno))
    }

    /// A symbolic link's target.
    pub fn read_link(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let name = name.as_ref();
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|errno| self.fail("read link", name, errno))
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, target: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<()> {
        let name = name.as_ref();
        self.call(|| rustix::fs::symlinkat(target.as_ref(), &self.fd, name))
            .map_err(|errno| self.fail("create link", name, errno))
    }

    /// Makes a symbolic link and gives it to this owner, if that is another one than the maker is by itself.
    ///
    /// The owner is given by name: only for a directory that nobody else can reach, as those in staging are. In
    /// another user's store the owner can only be that user, and is so from the beginning.
    pub fn symlink_owned(
        &self,
        target: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let name = name.as_ref();
        self.symlink(target, name)?;
        let Some((uid, gid)) = owner else { return Ok(()) };
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        self.call(|| rustix::fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| self.fail("change owner of", name, errno))
    }

    /// Gives an inode a further name. A symbolic link is linked itself, not what it points at.
    pub fn link(&self, name: impl AsRef<[u8]>, to: &Self, new: impl AsRef<[u8]>) -> Result<()> {
        let new = new.as_ref();
        self.call_with(to, || rustix::fs::linkat(&self.fd, name.as_ref(), &to.fd, new, AtFlags::empty()))
            .map_err(|errno| to.fail("link to", new, errno))
    }

    /// Renames; what has the new name is replaced in the same instant.
    pub fn rename(&self, name: impl AsRef<[u8]>, to: &Self, new: impl AsRef<[u8]>) -> Result<()> {
        let new = new.as_ref();
        self.call_with(to, || rustix::fs::renameat(&self.fd, name.as_ref(), &to.fd, new))
            .map_err(|errno| to.fail(RENAME, new, errno))
    }

    /// Renames; fails with `AlreadyExists` if the new name is taken.
    ///
    /// Where the file system cannot do both in one step, the name is looked at first; callers hold the lock that
    /// keeps other writers of this store away.
    pub fn rename_new(&self, name: impl AsRef<[u8]>, to: &Self, new: impl AsRef<[u8]>) -> Result<()> {
        let (name, new) = (name.as_ref(), new.as_ref());
        let rename = || rustix::fs::renameat_with(&self.fd, name, &to.fd, new, RenameFlags::NOREPLACE);
        match self.call_with(to, rename) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::NOSYS) => match to.try_stat(new)? {
                Some(_) => Err(to.fail(RENAME, new, Errno::EXIST)),
                None => self.rename(name, to, new),
            },
            Err(errno) => Err(to.fail(RENAME, new, errno)),
        }
    }

    /// Swaps two names in one step. `Unsupported` where the file system cannot.
    pub fn exchange(&self, name: impl AsRef<[u8]>, to: &Self, other: impl AsRef<[u8]>) -> Result<()> {
        let other = other.as_ref();
        let exchange = || rustix::fs::renameat_with(&self.fd, name.as_ref(), &to.fd, other, RenameFlags::EXCHANGE);
        self.call_with(to, exchange).map_err(|errno| {
            let errno = if matches!(errno, Errno::INVAL | Errno::NOSYS) { Errno::OPNOTSUPP } else { errno };
            to.fail(EXCHANGE, other, errno)
        })
    }

    /// Removes a name that is not a directory.
    pub fn remove_file(&self, name: impl AsRef<[u8]>) -> Result<()> {
        let name = name.as_ref();
        self.call(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()))
            .map_err(|errno| self.fail("remove", name, errno))
    }

    /// Removes a name that is not a directory, if it is there; tells whether it was.
    pub fn remove_file_if_present(&self, name: impl AsRef<[u8]>) -> Result<bool> {
        match self.remove_file(name) {
            Ok(()) => Ok(true),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an empty directory.
    pub fn remove_empty_dir(&self, name: impl AsRef<[u8]>) -> Result<()> {
        let name = name.as_ref();
        self.call(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
            .map_err(|errno| self.fail("remove directory", name, errno))
    }

    /// Opens a file for reading. Follows no symbolic link, waits for no FIFO, and leaves the access time alone where
    /// that is allowed.
    pub fn open_file(&self, name: impl AsRef<[u8]>) -> Result<File> {
        let name = name.as_ref();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // Only the owner (or root) may leave the access time alone.
        self.open_at(name, flags | OFlags::NOATIME, 0)
            .or_else(|errno| match errno {
                Errno::PERM => self.open_at(name, flags, 0),
                errno => Err(errno),
            })
            .map(File::from)
            .map_err(|errno| self.fail("open", name, errno))
    }

    /// Opens a regular file that exists for writing over what is in it. Follows no symbolic link, waits for no FIFO.
    pub fn open_to_overwrite(&self, name: impl AsRef<[u8]>) -> Result<File> {
        let name = name.as_ref();
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        self.open_at(name, flags, 0).map(File::from).map_err(|errno| self.fail("open", name, errno))
    }

    /// Creates a file that must not exist, open for writing and reading. The umask applies to `mode`.
    pub fn create_file(&self, name: impl AsRef<[u8]>, mode: u32) -> Result<File> {
        let name = name.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_at(name, flags, mode).map(File::from).map_err(|errno| self.fail("create", name, errno))
    }

    /// Opens a file for appending and reading, creating it if it is missing.
    ///
    /// # Errors
    ///
    /// It is no regular file; as root, it belongs to another user than the directory: whoever may rename in the
    /// directory could have put it there.
    pub fn open_or_create_file(&self, name: impl AsRef<[u8]>, mode: u32) -> Result<File> {
        let name = name.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | OFlags::NONBLOCK;
        let file = self.open_at(name, flags, mode).map(File::from).map_err(|errno| self.fail("open", name, errno))?;
        let stat = self.regular(&file, name)?;
        if super::system::effective_uid() == 0 && stat.uid != self.stat_self()?.uid {
            let why = io::Error::other(format!("it belongs to user {}, and its directory does not", stat.uid));
            return Err(Error::io("open", self.path_of(name), why));
        }
        Ok(file)
    }

    /// An open file, which must be a regular one.
    fn regular(&self, file: &File, name: &[u8]) -> Result<Stat> {
        let stat = stat_file(file, || self.path_of(name))?;
        match stat.kind {
            Kind::File => Ok(stat),
            kind => {
                let why = io::Error::other(format!("it is {}, not a regular file", kind.describe()));
                Err(Error::io("open", self.path_of(name), why))
            }
        }
    }

    /// The whole of a file.
    ///
    /// # Errors
    ///
    /// It is no regular file; the system refuses.
    pub fn read(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        use io::Read;
        let name = name.as_ref();
        let mut file = self.open_file(name)?;
        let stat = self.regular(&file, name)?;
        let mut bytes = Vec::with_capacity(usize::try_from(stat.size).unwrap_or(0).min(MOST_RESERVED_BYTES));
        let read = file.read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", self.path_of(name), error))?;
        Ok(bytes)
    }

    /// The whole of a file, or `None` if there is none.
    pub fn try_read(&self, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<()> {
        about_to_wait();
        if Mutation::DirectorySync.is_made() {
            return Ok(());
        }
        retry_on_intr(|| rustix::fs::fsync(&self.fd)).map_err(|errno| Error::io("sync", &self.path, errno))
    }

    /// Makes everything on this file system durable, and reports write errors since this handle was opened (Linux
    /// 5.8 and later).
    pub fn sync_file_system(&self) -> Result<()> {
        about_to_wait();
        if Mutation::Barrier.is_made() {
            return Ok(());
        }
        retry_on_intr(|| rustix::fs::syncfs(&self.fd))
            .map_err(|errno| Error::io("sync the file system of", &self.path, errno))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handle for Dir {
    fn identity(&self) -> Option<Identity> {
        self.identity
    }
}

/// Changes the mode of a directory that cannot be opened. A symbolic link is refused.
///
/// The mode is that of the inode that was looked at: it is changed by way of a handle, which is no opening.
pub(super) fn set_dir_mode(dir: &Dir, name: &[u8], mode: u32) -> Result<()> {
    use std::os::fd::AsRawFd;
    let fail = |errno| dir.fail("change mode of", name, errno);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = dir.open_at(name, flags, 0).map_err(fail)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    dir.call(|| rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode))).map_err(fail)
}
