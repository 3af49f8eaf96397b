//! Paths inside an image: they lead where they will lead on the device, and never out of the image.
//!
//! A path is resolved as by a process whose root directory the image is: an absolute link begins again at the image's
//! top, `..` stops there, and links of the kernel's own (those of `/proc/*/fd` and the like, which lead to an inode
//! whatever their text says) are refused. The kernel does that where it can (`openat2(2)` with `RESOLVE_IN_ROOT`, Linux
//! 5.6); where it cannot, or a filter of system calls refuses it, a walk of our own does: component by component, by
//! handles, which no concurrent rename can lead out of the image, since `..` goes back to the handle it came from.
//!
//! Directories are made by way of the handle of the one they are made in, with and without an image.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use super::dir::{Dir, set_dir_mode};
use super::stat::{Kind, Stat, stat_file};
use super::{file, system};
use crate::error::{Error, Result, Shown};

/// Links followed on the way of one path at most, as the kernel does (`path_resolution(7)`).
const MOST_LINKS: usize = 40;
/// How often the kernel is asked again when renames elsewhere keep it from being sure of a `..`.
const TRIES: usize = 8;
/// The magic number of procfs (`statfs(2)`).
const PROC: u32 = 0x9fa0;

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Who resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The kernel, and where it cannot, [`Way::Walk`].
    Kernel,
    /// A walk of our own.
    Walk,
}

/// The top of an image.
#[derive(Debug)]
pub struct Rooted {
    top: Dir,
    way: Way,
}

/// What becomes of a path that would lead beyond the top: `..` there, or an absolute link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It stays at the top, or begins there again.
    Stay,
    /// It is refused (`EXDEV`).
    Refuse,
}

/// Where a path led: a handle that is only a place, and the path from the top without any link.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    inside: PathBuf,
}

impl Rooted {
    /// Opens an image by the path of its top, which is one of this machine.
    ///
    /// # Errors
    ///
    /// There is no such directory; the system refuses.
    pub fn open(top: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { top: Dir::open(top)?, way: Way::Kernel })
    }

    /// Opens a directory of the image. Its path for messages is the one that it was found at.
    ///
    /// # Errors
    ///
    /// There is none; too many links; the system refuses.
    pub fn open_dir(&self, path: &Path) -> Result<Dir> {
        let fail = |errno| Error::io("open directory", self.shown(path), errno);
        let place = self.resolve(path).map_err(fail)?;
        let fd = retry_on_intr(|| rustix::fs::openat(&place.fd, ".", DIRECTORY, Mode::empty())).map_err(fail)?;
        Ok(Dir::of(fd, self.shown(&place.inside)))
    }

    /// Opens a directory of the image, making it and its parents where they are missing.
    ///
    /// # Errors
    ///
    /// As [`Rooted::open_dir`], and where a link on the way leads to nothing in the image.
    pub fn create_dirs(&self, path: &Path, mode: u32) -> Result<Dir> {
        create_dirs(path, mode, |path| match self.resolve(path) {
            Ok(place) => Ok(Some(Dir::of(place.fd, self.shown(&place.inside)))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("open directory", self.shown(path), errno)),
        })
    }

    /// What a path leads to, or `None` if it leads nowhere in the image.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn try_stat(&self, path: &Path) -> Result<Option<Stat>> {
        match self.resolve(path) {
            Ok(place) => stat_file(&File::from(place.fd), || self.shown(path)).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(errno) => Err(Error::io("follow", self.shown(path), errno)),
        }
    }

    /// The whole of a file of the image, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// It is no regular file; too many links; the system refuses.
    pub fn try_read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        use io::Read;
        let fail = |error: io::Error| Error::io("read", self.shown(path), error);
        let place = match self.resolve(path) {
            Ok(place) => place,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        };
        let handle = File::from(place.fd);
        if stat_file(&handle, || self.shown(path))?.kind != Kind::File {
            return Err(fail(io::Error::other("it is no regular file")));
        }
        // Opening the handle's own name opens this very inode, wherever its path leads by now.
        let own_name = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = retry_on_intr(|| rustix::fs::open(own_name.as_str(), flags, Mode::empty()));
        let mut bytes = Vec::new();
        let opened = File::from(opened.map_err(|errno| fail(errno.into()))?);
        opened.take(file::MOST_READ_BYTES).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(bytes))
    }

    /// A path of the image as this machine spells it.
    fn shown(&self, path: &Path) -> PathBuf {
        self.top.path().join(path.strip_prefix("/").unwrap_or(path))
    }

    fn resolve(&self, path: &Path) -> rustix::io::Result<Place> {
        if self.way == Way::Walk {
            return walk(&self.top, path, Beyond::Stay);
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match retry_on_intr(|| rustix::fs::openat2(&self.top, path, PATH, Mode::empty(), resolve)) {
                Ok(fd) => {
                    let inside = match self.inside(&fd) {
                        Some(inside) => inside,
                        None => walk(&self.top, path, Beyond::Stay)?.inside,
                    };
                    return Ok(Place { fd, inside });
                }
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::TOOBIG) => break,
                Err(errno) => return Err(errno),
            }
        }
        walk(&self.top, path, Beyond::Stay)
    }

    /// The path of a handle from the top, as the kernel prints both.
    fn inside(&self, fd: &OwnedFd) -> Option<PathBuf> {
        let printed = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let (top, place) = (printed(self.top.as_fd().as_raw_fd())?, printed(fd.as_raw_fd())?);
        place.strip_prefix(top).ok().map(Path::to_owned)
    }
}

/// The walk of our own.
pub(super) fn walk(top: &Dir, path: &Path, beyond: Beyond) -> rustix::io::Result<Place> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT);
    }
    // From the top down to where the walk is; the last may be something that cannot be entered.
    let mut way: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    let (mut enterable, mut links) = (true, 0);
    let mut ahead = Vec::new();
    push(&mut ahead, path.as_os_str().as_bytes());
    while let Some(component) = ahead.pop() {
        if !enterable {
            return Err(Errno::NOTDIR);
        }
        match component.as_slice() {
            b"." => {}
            b".." => {
                if way.pop().is_none() && beyond == Beyond::Refuse {
                    return Err(Errno::XDEV);
                }
            }
            name => {
                let here = way.last().map_or_else(|| top.as_fd(), |(fd, _)| fd.as_fd());
                let flags = PATH | OFlags::NOFOLLOW;
                let fd = retry_on_intr(|| rustix::fs::openat(here, name, flags, Mode::empty()))?;
                match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                    FileType::Symlink => {
                        links += 1;
                        let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                        if links > MOST_LINKS || is_magic(&fd, &target)? {
                            return Err(Errno::LOOP);
                        }
                        if target.starts_with(b"/") {
                            if beyond == Beyond::Refuse {
                                return Err(Errno::XDEV);
                            }
                            way.clear();
                        }
                        push(&mut ahead, &target);
                    }
                    kind => {
                        enterable = kind == FileType::Directory;
                        way.push((fd, component));
                    }
                }
            }
        }
    }
    let inside = way.iter().map(|(_, name)| OsStr::from_bytes(name)).collect();
    let fd = match way.pop() {
        Some((fd, _)) => fd,
        None => retry_on_intr(|| rustix::fs::openat(top, ".", PATH, Mode::empty()))?,
    };
    Ok(Place { fd, inside })
}

/// Puts the components of a path before those that are ahead, which are in reverse. A slash at the end asks for a
/// directory.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    if path.ends_with(b"/") {
        ahead.push(b".".to_vec());
    }
    ahead.extend(path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty()).map(<[u8]>::to_vec));
}

/// Whether a link leads to an inode rather than to a path. The links of procfs that are paths are relative, and the text
/// of the others is an absolute path or the name of a kind with a colon.
fn is_magic(link: &OwnedFd, target: &[u8]) -> rustix::io::Result<bool> {
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = rustix::fs::fstatfs(link)?.f_type as u32;
    Ok(magic == PROC && (target.starts_with(b"/") || target.contains(&b':')))
}

/// Opens a directory of this machine by its path, making it and its parents where they are missing, of this mode
/// whatever the umask. Links to what is there are followed, as the user who named the path expects.
///
/// # Errors
///
/// The system refuses; a link on the way leads nowhere.
pub fn open_or_create(path: impl Into<PathBuf>, mode: u32) -> Result<Dir> {
    let path = path.into();
    create_dirs(&path, mode, |ancestor| {
        // Some parents can be passed but not read: a place is enough to make something in.
        match retry_on_intr(|| rustix::fs::open(ancestor, PATH | OFlags::DIRECTORY, Mode::empty())) {
            Ok(fd) => Ok(Some(Dir::of(fd, ancestor.to_owned()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("open directory", ancestor, errno)),
        }
    })
}

/// Makes what is missing of a path below its deepest directory that `find` finds, and opens the last of it.
fn create_dirs(path: &Path, mode: u32, find: impl Fn(&Path) -> Result<Option<Dir>>) -> Result<Dir> {
    let (mut missing, mut at) = (Vec::new(), path);
    let mut dir = loop {
        if let Some(dir) = find(if at.as_os_str().is_empty() { Path::new(".") } else { at })? {
            break dir;
        }
        let (Some(name), Some(parent)) = (at.file_name(), at.parent()) else {
            return Err(Error::io("create directory", path, Errno::NOENT));
        };
        missing.push(name.as_bytes());
        at = parent;
    };
    for name in missing.into_iter().rev() {
        dir = create_dir(&dir, name, mode)?;
    }
    // What was found is only a place so far.
    dir.reopen()
}

/// Makes a directory whose mode is this one whatever the umask, and opens it; opens one that is there.
///
/// In a directory of another user the new one may have been replaced before it is opened: only an empty one of this
/// user's gets the mode.
///
/// # Errors
///
/// The name is taken by something else; the system refuses.
pub fn create_dir(dir: &Dir, name: &[u8], mode: u32) -> Result<Dir> {
    match dir.make_dir(name, mode) {
        Err(error) if error.is_io(io::ErrorKind::AlreadyExists) => {
            if dir.try_stat(name)?.is_some_and(|stat| stat.kind == Kind::Symlink) {
                return Err(leads_nowhere(dir, name)?);
            }
            return dir.open_dir(name);
        }
        other => other?,
    }
    let made = match dir.open_dir(name) {
        // A umask can close it even for its owner.
        Err(error) if error.is_io(io::ErrorKind::PermissionDenied) => {
            set_dir_mode(dir, name, mode)?;
            dir.open_dir(name)?
        }
        other => other?,
    };
    let owner = made.stat_self()?.uid;
    let ours = file::Handle::identity(&made).map_or_else(system::effective_uid, |identity| identity.uid);
    if owner != ours || !made.items()?.is_empty() {
        return Err(Error::io("create directory", made.path(), io::Error::other("another one has its name by now")));
    }
    file::set_mode(&made, mode, || made.path().to_owned())?;
    Ok(made)
}

fn leads_nowhere(dir: &Dir, name: &[u8]) -> Result<Error> {
    let target = dir.read_link(name)?;
    let why = format!("it is a link to {}, which is not there", Shown::bytes(&target));
    Ok(Error::io("create directory", dir.path_of(name), io::Error::other(why)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn both(top: &Path) -> [Rooted; 2] {
        [Way::Kernel, Way::Walk].map(|way| Rooted { top: Dir::open(top).unwrap(), way })
    }

    /// Where a path leads, by device and inode and by its path from the top; or why nowhere.
    fn led(image: &Rooted, path: &str) -> std::result::Result<(u64, u64, PathBuf), Errno> {
        let place = image.resolve(Path::new(path))?;
        let stat = rustix::fs::fstat(&place.fd).unwrap();
        Ok((stat.st_dev, stat.st_ino, place.inside))
    }

    #[test]
    fn links_lead_where_they_lead_on_the_device() {
        let temporary = tempfile::tempdir().unwrap();
        let (image, host) = (temporary.path().join("image"), temporary.path().join("host"));
        std::fs::create_dir_all(image.join("srv/opt/tope")).unwrap();
        std::fs::create_dir_all(host.join("tope")).unwrap();
        std::fs::write(image.join("file"), "x").unwrap();
        for (target, name) in [
            ("/srv/opt", "absolute"),
            ("../../../srv/opt", "above"),
            (host.to_str().unwrap(), "out"),
            ("../host", "beside"),
            ("loop", "loop"),
            ("chain-39", "chain"),
            ("chain-40", "too-long"),
            ("absolute", "chain-0"),
            ("file/", "no-directory"),
        ] {
            symlink(target, image.join(name)).unwrap();
        }
        for number in 1..=40 {
            symlink(format!("chain-{}", number - 1), image.join(format!("chain-{number}"))).unwrap();
        }
        let tope = std::fs::metadata(image.join("srv/opt/tope")).unwrap();
        for image in both(&image) {
            for path in ["/absolute/tope", "absolute/../opt/tope/", "above/tope", "/../../srv/opt/./tope"] {
                let (device, inode, inside) = led(&image, path).unwrap();
                assert_eq!((device, inode), (tope.dev(), tope.ino()), "{path}");
                assert_eq!(inside, Path::new("srv/opt/tope"), "{path}");
            }
            let top = std::fs::metadata(temporary.path().join("image")).unwrap();
            for path in ["/", "..", "absolute/../../.."] {
                assert_eq!(led(&image, path), Ok((top.dev(), top.ino(), PathBuf::new())), "{path}");
            }
            for (path, errno) in [
                ("out/tope", Errno::NOENT),
                ("beside", Errno::NOENT),
                ("", Errno::NOENT),
                ("loop", Errno::LOOP),
                ("too-long/tope", Errno::LOOP),
                ("no-directory", Errno::NOTDIR),
                ("file/..", Errno::NOTDIR),
            ] {
                assert_eq!(led(&image, path), Err(errno), "{path}");
            }
            // Forty links from the name to the directory, which is what the kernel follows.
            assert!(led(&image, "chain-38/tope").is_ok());
            assert_eq!(image.open_dir(Path::new("/above/tope")).unwrap().path(), image.top.path().join("srv/opt/tope"));
            assert_eq!(image.try_read(Path::new("/file")).unwrap().as_deref(), Some(&b"x"[..]));
        }
    }

    #[test]
    fn links_of_the_kernels_own_are_refused_and_others_followed() {
        for image in both(Path::new("/")) {
            for path in ["/proc/self/root", "/proc/self/root/tmp", "/proc/self/cwd/x", "/proc/self/ns/mnt"] {
                assert_eq!(led(&image, path), Err(Errno::LOOP), "{path}");
            }
            assert!(led(&image, "/proc/mounts").is_ok());
        }
    }

    #[test]
    fn the_walk_leads_where_the_kernel_leads() {
        for seed in 0..40_u64 {
            let temporary = tempfile::tempdir().unwrap();
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = move |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state % below as u64).unwrap()
            };
            let words = ["a", "b", "c", "d", "..", ".", "e", "/"];
            let path = |next: &mut dyn FnMut(usize) -> usize| {
                let parts: Vec<&str> = (0..=next(5)).map(|_| words[next(words.len())]).collect();
                let slash = ["", "/"];
                format!("{}{}{}", slash[next(2)], parts.join("/"), slash[usize::from(next(5) == 0)])
            };
            let image = temporary.path().join("1/2");
            std::fs::create_dir_all(&image).unwrap();
            let mut directories = vec![image.clone()];
            for _ in 0..25 {
                let at = directories[next(directories.len())].join(words[next(4)]);
                match next(3) {
                    0 => drop(std::fs::write(&at, "")),
                    1 => drop(symlink(path(&mut next), &at)),
                    _ if std::fs::create_dir(&at).is_ok() => directories.push(at),
                    _ => {}
                }
            }
            let [kernel, walk] = both(&image);
            for _ in 0..200 {
                let path = path(&mut next);
                assert_eq!(led(&walk, &path), led(&kernel, &path), "seed {seed}, {path}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir().unwrap();
        let (image, host) = (temporary.path().join("image"), temporary.path().join("host"));
        std::fs::create_dir_all(image.join("data")).unwrap();
        std::fs::create_dir(&host).unwrap();
        symlink("/data", image.join("var")).unwrap();
        symlink(&host, image.join("out")).unwrap();
        for image in both(&image) {
            let made = image.create_dirs(Path::new("/var/a/b"), 0o755).unwrap();
            assert_eq!(made.path(), image.top.path().join("data/a/b"));
            let mode = std::fs::metadata(made.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755);
            let refused = image.create_dirs(Path::new("/out/a"), 0o755).unwrap_err();
            assert!(crate::error::chain(&refused).contains("which is not there"), "{}", crate::error::chain(&refused));
            std::fs::remove_dir_all(image.top.path().join("data/a")).unwrap();
        }
        assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
    }
}
