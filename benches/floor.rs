//! The floor: only the system calls that the work cannot do without, by directory on all processors, with no store
//! behind them. No manifest, no index, no history, no lock, no error message, nothing that survives a crash by
//! design. What tope-store takes beyond this is its own.
//!
//! - `import SOURCE TARGET OBJECTS`: look at, open, list the attributes of, read, hash and close every file; link it
//!   if `OBJECTS` has its bytes, else write it, set its time and link it into `OBJECTS`; wait for the medium once
//! - `link SOURCE TARGET`: look at every file and link it; what materialising and an unchanged import come to
//! - `relink TREE TARGET OBJECTS`: the same by the names of objects: list `OBJECTS`; look at every file of `TREE`, which is
//!   made of links to them, link the object by its name, and look at what was linked
//! - `remove TREE OBJECTS LINKS`: unlink every file, and every object in `OBJECTS` that is left with `LINKS` links
//!
//! A further word `sync` at the end of all but `import` waits for the medium.
#![allow(clippy::disallowed_methods, reason = "a measuring tool, not the library")]

use std::collections::HashMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

type Names = Vec<(Vec<u8>, FileType)>;
type Outcome<T = ()> = rustix::io::Result<T>;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const USAGE: &str = "usage: bench-floor import SOURCE TARGET OBJECTS | link SOURCE TARGET [sync] \
                     | relink TREE TARGET OBJECTS [sync] | remove TREE OBJECTS LINKS [sync]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["import", source, target, objects] => {
            let objects = Arc::new(Objects::open(objects)?);
            let (source, target) = (open(source)?, create(target)?);
            descend(&source, &target, &|from, to, name| objects.take(from, to, name))?;
            rustix::fs::syncfs(&target)?;
        }
        ["link", source, target, sync @ ..] => {
            let (source, target) = (open(source)?, create(target)?);
            descend(&source, &target, &link)?;
            wait(&target, sync)?;
        }
        ["relink", tree, target, objects, sync @ ..] => {
            let (names, objects) = (object_names(Path::new(objects))?, open(objects)?);
            let (tree, target) = (open(tree)?, create(target)?);
            descend(&tree, &target, &|from, to, name| relink(from, to, name, &objects, &names))?;
            wait(&target, sync)?;
        }
        ["remove", tree, objects, links, sync @ ..] => {
            let (top, objects, links) = (open(tree)?, open(objects)?, links.parse()?);
            empty(&top)?;
            rustix::fs::rmdir(*tree)?;
            sweep(&objects, links)?;
            wait(&objects, sync)?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn wait(dir: &OwnedFd, sync: &[&str]) -> Outcome {
    if sync.is_empty() { Ok(()) } else { rustix::fs::syncfs(dir) }
}

fn open(path: impl AsRef<Path>) -> Outcome<OwnedFd> {
    rustix::fs::open(path.as_ref(), DIRECTORY, Mode::empty())
}

fn create(path: &str) -> Outcome<OwnedFd> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    open(path)
}

fn names(dir: &OwnedFd) -> Outcome<Names> {
    let mut names = Names::new();
    for item in rustix::fs::Dir::read_from(dir)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), item.file_type()));
        }
    }
    Ok(names)
}

type Work<'a> = &'a (dyn Fn(&OwnedFd, &OwnedFd, &[u8]) -> Outcome + Sync);

/// Does the work for every file below `from`, with the counterpart of its directory below `to`.
fn descend(from: &OwnedFd, to: &OwnedFd, work: Work<'_>) -> Outcome {
    let failure = Mutex::new(Ok(()));
    let tops =
        (Arc::new(from.try_clone().map_err(|_| Errno::MFILE)?), Arc::new(to.try_clone().map_err(|_| Errno::MFILE)?));
    rayon::scope(|scope| directory(scope, tops, work, &failure));
    failure.into_inner().unwrap_or_else(PoisonError::into_inner)
}

type Pair = (Arc<OwnedFd>, Arc<OwnedFd>);

fn directory<'s>(scope: &rayon::Scope<'s>, pair: Pair, work: Work<'s>, failure: &'s Mutex<Outcome>) {
    let done = (|| {
        for (name, kind) in names(&pair.0)? {
            match kind {
                FileType::Directory => {
                    rustix::fs::mkdirat(&*pair.1, &name, Mode::from_raw_mode(0o755))?;
                    let pair = pair.clone();
                    scope.spawn(move |scope| {
                        let flags = DIRECTORY | OFlags::NOFOLLOW;
                        let inner = |dir: &OwnedFd| rustix::fs::openat(dir, &name, flags, Mode::empty()).map(Arc::new);
                        match inner(&pair.0).and_then(|from| Ok((from, inner(&pair.1)?))) {
                            Ok(inner) => directory(scope, inner, work, failure),
                            Err(errno) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Err(errno),
                        }
                    });
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&*pair.0, &name, Vec::new())?;
                    rustix::fs::symlinkat(&*target, &*pair.1, &name)?;
                }
                _ => work(&pair.0, &pair.1, &name)?,
            }
        }
        Ok(())
    })();
    if done.is_err() {
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = done;
    }
}

fn link(from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> Outcome {
    rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::linkat(from, name, to, name, AtFlags::empty())
}

/// Objects by the hash of their bytes, in 256 directories.
struct Objects {
    directories: Vec<OwnedFd>,
    known: Vec<Mutex<HashMap<String, ()>>>,
}

impl Objects {
    fn open(path: &str) -> Outcome<Self> {
        if rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).is_ok() {
            for fan in 0..=255 {
                rustix::fs::mkdir(Path::new(path).join(format!("{fan:02x}")), Mode::from_raw_mode(0o700))?;
            }
        }
        let directories = (0..=255).map(|fan| open(Path::new(path).join(format!("{fan:02x}"))));
        let directories = directories.collect::<Outcome<Vec<_>>>()?;
        let known = |dir: &OwnedFd| -> Outcome<_> {
            let names = names(dir)?.into_iter().map(|(name, _)| (String::from_utf8_lossy(&name).into_owned(), ()));
            Ok(Mutex::new(names.collect()))
        };
        let known = directories.iter().map(known).collect::<Outcome<Vec<_>>>()?;
        Ok(Self { directories, known })
    }

    fn take(&self, from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> Outcome {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7555);
        let file = rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME, Mode::empty())?;
        rustix::fs::flistxattr(&file, &mut [0_u8; 1024][..])?;
        let mut bytes = vec![0; usize::try_from(stat.st_size).map_err(|_| Errno::FBIG)?];
        let mut read = 0;
        while read < bytes.len() {
            match rustix::io::read(&file, &mut bytes[read..])? {
                0 => break,
                more => read += more,
            }
        }
        drop(file);
        let hash = blake3::hash(&bytes);
        let (fan, object) = (usize::from(hash.as_bytes()[0]), format!("{}.{:o}", hash.to_hex(), mode.bits()));
        let known = || self.known[fan].lock().unwrap_or_else(PoisonError::into_inner);
        if read > 0 && known().contains_key(&object) {
            return rustix::fs::linkat(&self.directories[fan], &object, to, name, AtFlags::empty());
        }
        let made =
            rustix::fs::openat(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?;
        let mut written = 0;
        while written < read {
            written += rustix::io::write(&made, &bytes[written..read])?;
        }
        #[allow(clippy::unnecessary_cast, reason = "its width differs between architectures")]
        let time = Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: 0 };
        rustix::fs::futimens(&made, &Timestamps { last_access: time, last_modification: time })?;
        match rustix::fs::linkat(to, name, &self.directories[fan], &object, AtFlags::empty()) {
            // Two equal files at the same time: the other one is the object.
            Err(Errno::EXIST) => {}
            linked => linked?,
        }
        known().insert(object, ());
        Ok(())
    }
}

/// Objects' names below `objects/` by inode.
fn object_names(objects: &Path) -> std::io::Result<HashMap<u64, String>> {
    use rayon::prelude::*;
    use std::os::unix::fs::DirEntryExt;
    let fans = std::fs::read_dir(objects)?.collect::<std::io::Result<Vec<_>>>()?;
    let listed = fans.par_iter().map(|fan| {
        let named = |item: std::fs::DirEntry| format!("{}/{}", fan.file_name().display(), item.file_name().display());
        let items = std::fs::read_dir(fan.path())?.map(|item| item.map(|item| (item.ino(), named(item))));
        items.collect::<std::io::Result<Vec<_>>>()
    });
    Ok(listed.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn relink(from: &OwnedFd, to: &OwnedFd, name: &[u8], objects: &OwnedFd, names: &HashMap<u64, String>) -> Outcome {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // Empty files and symbolic links are no objects.
    let Some(object) = names.get(&stat.st_ino) else { return link(from, to, name) };
    rustix::fs::linkat(objects, object, to, name, AtFlags::empty())?;
    rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
}

fn empty(dir: &OwnedFd) -> Outcome {
    use rayon::prelude::*;
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    for (name, kind) in names(dir)? {
        if kind == FileType::Directory { directories.push(name) } else { files.push(name) }
    }
    files.iter().try_for_each(|name| rustix::fs::unlinkat(dir, name, AtFlags::empty()))?;
    directories.par_iter().try_for_each(|name| {
        empty(&rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
    })
}

/// Unlinks the objects that have no more than so many links.
fn sweep(objects: &OwnedFd, links: u64) -> Outcome {
    use rayon::prelude::*;
    names(objects)?.par_iter().try_for_each(|(fan, _)| {
        let dir = rustix::fs::openat(objects, fan, DIRECTORY, Mode::empty())?;
        names(&dir)?.iter().try_for_each(|(name, _)| {
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            #[allow(clippy::unnecessary_cast, reason = "its width differs between architectures")]
            if stat.st_nlink as u64 > links { Ok(()) } else { rustix::fs::unlinkat(&dir, name, AtFlags::empty()) }
        })
    })
}
