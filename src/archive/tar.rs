//! Reads the members of a tar.
//!
//! The headers are followed here, block by block, and not by the `tar` crate's iterator: that one reads extended
//! headers of any length into memory, splits them at newlines (binary attributes and names with newlines break it),
//! takes the first of two `path` records where others take the last, ignores global headers, and takes an archive
//! that ends without its end marker for a whole one.
//!
//! Where readers are known to disagree about a header, the archive is refused: a checker that sees another tree than
//! the device does is no checker.

use ::tar::Header;

use crate::error::{Error, Refusal, Result};
use crate::model::{Metadata, TreePath};

use super::Mtime;
use super::acl;
use super::header::{BLOCK, checksum_holds, number, unsigned};
use super::intake::{About, Intake, Pull};
use super::names::{member_path, refuse};
use super::pax::Pax;
use super::sparse::{self, Expanded, Map};
use super::stream::Stream;

/// What stands before a member and describes it.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

/// Reads all members, then on to the end of the stream.
pub(super) fn read(mut stream: Stream<'_>, intake: &mut Intake<'_, '_>) -> Result<()> {
    let (mut global, mut pending) = (Pax::default(), Pending::default());
    let mut block = [0; BLOCK];
    loop {
        if !stream.block(&mut block)? {
            let problem = "the archive ends behind this member without an end marker: it may have been cut off";
            return Err(stream.error(problem));
        }
        if block.iter().all(|b| *b == 0) {
            break;
        }
        if !checksum_holds(&block) {
            return Err(stream.error("what follows is no tar header: its checksum is wrong"));
        }
        match block[156] {
            b'x' | b'X' => {
                let pax = Pax::parse(&extension(&block, &mut stream)?).map_err(|problem| stream.error(&problem))?;
                put(&mut pending.pax, pax, &stream)?;
            }
            b'g' => {
                let records = extension(&block, &mut stream)?;
                global.take_global(&records).map_err(|problem| stream.error(&problem))?;
            }
            b'L' => put(&mut pending.long_name, text(extension(&block, &mut stream)?), &stream)?,
            b'K' => put(&mut pending.long_link, text(extension(&block, &mut stream)?), &stream)?,
            _ => member(&block, std::mem::take(&mut pending), &global, &mut stream, intake)?,
        }
    }
    if !pending.is_empty() {
        return Err(stream.error("the archive ends with a header that describes no member"));
    }
    stream.finish()
}

/// Puts a value into a place that must be empty.
fn put<T>(place: &mut Option<T>, value: T, stream: &Stream<'_>) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(stream.error("two extended headers of one kind describe the next member")),
    }
}

/// The contents of an extended header.
fn extension(block: &[u8; BLOCK], stream: &mut Stream<'_>) -> Result<Vec<u8>> {
    let header = Header::from_byte_slice(block);
    let size = unsigned(&header.as_old().size).ok_or_else(|| stream.error("an extended header without a size"))?;
    let limit = stream.limits().max_header_bytes;
    let length = usize::try_from(size).ok().filter(|_| size <= limit).ok_or_else(|| {
        let what = format!("an extended header of {size} bytes, more than {limit}");
        refuse(header.path_bytes(), &what)
    })?;
    let mut bytes = vec![0; length];
    stream.fill(&mut bytes)?;
    stream.skip(padding(size))?;
    Ok(bytes)
}

/// A GNU long name, which ends with a NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn member(
    block: &[u8; BLOCK],
    pending: Pending,
    global: &Pax,
    stream: &mut Stream<'_>,
    intake: &mut Intake<'_, '_>,
) -> Result<()> {
    let header = Header::from_byte_slice(block);
    let fields = header.as_old();
    let Pending { long_name, long_link, pax } = pending;
    let pax = pax.unwrap_or_default();
    let name = match (pax.sparse.name.as_ref().or(pax.path.as_ref()), &long_name) {
        (Some(a), Some(b)) if a != b => return Err(refuse(b, "the member has two different names")),
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => header.path_bytes().into_owned(),
    };
    let path = member_path(&name, intake.limits)?;
    stream.set_member(if path.is_top() { b"." } else { path.as_bytes() });
    let malformed = |what: &str| Error::source(&path, format!("its header has no valid {what}"));

    let stored = match pax.size {
        Some(size) => size,
        None => unsigned(&fields.size).ok_or_else(|| malformed("size"))?,
    };
    let id = |named: Option<u32>, global: Option<u32>, field: &[u8], what| match named.or(global) {
        Some(id) => Ok(id),
        None => unsigned(field).and_then(|id| u32::try_from(id).ok()).ok_or_else(|| malformed(what)),
    };
    let mode = unsigned(&fields.mode).ok_or_else(|| malformed("mode"))?;
    let mode = u32::try_from(mode & 0o7777).map_err(|_| malformed("mode"))?;
    let uid = id(pax.uid, global.uid, &fields.uid, "user id")?;
    let gid = id(pax.gid, global.gid, &fields.gid, "group id")?;
    let mtime = match pax.mtime.or(global.mtime) {
        Some(mtime) => mtime,
        None => Mtime { seconds: number(&fields.mtime).ok_or_else(|| malformed("time"))?, nanoseconds: 0 },
    };
    let directory = block[156] == b'5' || (matches!(block[156], 0 | b'0' | b'7') && name.ends_with(b"/"));
    let xattrs = pax.xattrs().map_err(|problem| {
        let hint = "archive with raw attributes instead (--xattrs --xattrs-include='*'), or without access lists";
        Error::refused_with(Refusal::UnsupportedSource, format!("{path}: {problem}"), hint)
    })?;
    if !directory && xattrs.iter().any(|(name, _)| name == acl::DEFAULT) {
        return Err(refuse(&path, "only a directory can have a default access list"));
    }
    let about =
        About { path: &path, metadata: Metadata { xattrs, ..Metadata::new(mode, uid, gid) }, mtime: Some(mtime) };

    let no_data = || match stored {
        0 => Ok(()),
        _ => Err(refuse(&path, "the header of a member without contents declares some")),
    };
    let link = || match (&pax.link_path, &long_link) {
        (Some(a), Some(b)) if a != b => Err(refuse(&path, "the member has two different targets")),
        (Some(target), _) | (None, Some(target)) => Ok(target.clone()),
        (None, None) => Ok(header.link_name_bytes().unwrap_or_default().into_owned()),
    };
    match block[156] {
        _ if directory => {
            no_data()?;
            intake.directory(about)
        }
        b'S' => {
            let (pieces, size) = sparse::old_gnu(path.as_bytes(), block, stream)?;
            let map = Map::new(path.as_bytes(), pieces, size, stored)?;
            sparse_file(about, &map, stored, stream, intake)
        }
        0 | b'0' | b'7' if pax.sparse.is_used() => {
            let size = pax.sparse.real_size.ok_or_else(|| malformed("sparse size"))?;
            let (pieces, taken) = match pax.sparse.major {
                Some(1..) => sparse::before_data(path.as_bytes(), stored, stream)?,
                _ => (pax.sparse.map, 0),
            };
            let map = Map::new(path.as_bytes(), pieces, size, stored - taken)?;
            sparse_file(about, &map, stored, stream, intake)
        }
        0 | b'0' | b'7' => {
            stream.declare(path.as_bytes(), stored)?;
            intake.file(about, stored, &mut Plain { stream, left: stored })?;
            stream.skip(padding(stored))
        }
        b'1' => {
            no_data()?;
            let target = member_path(&link()?, intake.limits)
                .map_err(|error| refuse(&path, &format!("a hard link out of the tree ({error})")))?;
            intake.hard_link(about, &target)
        }
        b'2' => {
            no_data()?;
            intake.symlink(about, &link()?)
        }
        b'6' => {
            no_data()?;
            intake.warn(&path, "a FIFO, which is not imported");
            Ok(())
        }
        b'3' | b'4' => Err(unsupported(&path, "a device node")),
        b'V' => stream.skip(stored.saturating_add(padding(stored))),
        kind => Err(unsupported(&path, &format!("a member of the unknown kind '{}'", kind.escape_ascii()))),
    }
}

fn sparse_file(
    about: About<'_>,
    map: &Map,
    stored: u64,
    stream: &mut Stream<'_>,
    intake: &mut Intake<'_, '_>,
) -> Result<()> {
    stream.declare(about.path.as_bytes(), map.size())?;
    intake.file(about, map.size(), &mut Expanded::new(stream, map))?;
    stream.skip(padding(stored))
}

fn unsupported(path: &TreePath, what: &str) -> Error {
    Error::refused(Refusal::UnsupportedSource, format!("{path}: {what} cannot be part of a version"))
}

/// The bytes of an ordinary member.
struct Plain<'s, 'a> {
    stream: &'s mut Stream<'a>,
    left: u64,
}

impl Pull for Plain<'_, '_> {
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.stream.read(&mut buffer[..wanted])?;
        self.left -= read as u64;
        Ok(read)
    }
}
