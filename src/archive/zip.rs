//! Reads the entries of a zip, in place, through a handle that can seek.
//!
//! The directory at the end of a zip, its local headers and its data can contradict each other, and readers differ in
//! whom they believe. Nothing is read before they all agree: no name twice, no overlap, no entry that only one of the
//! two lists, the same name, sizes, method and checksum in both.
//!
//! Owners are 0:0, whatever extra fields say: they hold ids of the machine that packed. Names are bytes as they stand
//! (or those of an Info-ZIP Unicode path); they are not converted from a code page, which a zip does not name.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ExtraField, System, ZipArchive};

use crate::error::{Error, Refusal, Result, Shown};
use crate::model::tree::MAX_TARGET_BYTES;
use crate::model::{Metadata, TreePath};

use super::Mtime;
use super::intake::{About, Intake, Pull};
use super::limits::{Budget, Limits};
use super::names::{member_path, refuse};

const DEFAULT_FILE_MODE: u32 = 0o644;
const DEFAULT_DIRECTORY_MODE: u32 = 0o755;

const KIND_MASK: u32 = 0o170_000;

/// What an entry is, by the type bits of its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
    Skipped,
    Device,
}

/// Reads all entries, in the order of the directory.
pub(super) fn read(mut file: File, intake: &mut Intake<'_, '_>) -> Result<()> {
    let limits = intake.limits;
    let file_bytes = file.seek(SeekFrom::End(0)).map_err(|error| broken(error.into()))?;
    let allowance = Rc::new(Cell::new(limits.max_held_bytes));
    let source = BufReader::new(Guarded { file, allowance: Rc::clone(&allowance), limit: limits.max_held_bytes });
    let mut archive = ZipArchive::new(source).map_err(broken)?;
    allowance.set(u64::MAX);
    if archive.has_duplicate_names() {
        return Err(Error::refused(Refusal::UnsafeArchive, "the zip's directory has two entries of one name"));
    }
    if archive.len() as u64 > limits.max_entries {
        let message = format!("the archive has more than {} entries (import.limits.entries)", limits.max_entries);
        return Err(Error::refused(Refusal::UnsafeArchive, message));
    }
    // First, because Info-ZIP's encrypted entries have a checksum of another kind in their local header.
    for index in 0..archive.len() {
        readable(&archive, index, limits)?;
    }
    archive.validate_header_consistency().map_err(broken)?;
    let mut budget = Budget::default();
    for index in 0..archive.len() {
        entry(&mut archive, index, file_bytes, &mut budget, intake)?;
    }
    Ok(())
}

/// Refuses what cannot be decoded at all.
fn readable(archive: &ZipArchive<BufReader<Guarded>>, index: usize, limits: &Limits) -> Result<()> {
    let data = archive.by_index_data(index).map_err(broken)?;
    let path = member_path(data.name_raw(), limits)?;
    if data.encrypted() {
        return Err(unsupported(&path, "the entry is encrypted"));
    }
    match data.compression() {
        CompressionMethod::Stored | CompressionMethod::Deflated => Ok(()),
        method => Err(unsupported(&path, &format!("the compression method {method} is not supported"))),
    }
}

fn unsupported(path: &TreePath, what: &str) -> Error {
    Error::refused(Refusal::UnsupportedSource, format!("{path}: {what}"))
}

fn entry(
    archive: &mut ZipArchive<BufReader<Guarded>>,
    index: usize,
    file_bytes: u64,
    budget: &mut Budget,
    intake: &mut Intake<'_, '_>,
) -> Result<()> {
    let limits = intake.limits;
    let data = archive.by_index_data(index).map_err(broken)?;
    let name = data.name_raw().to_vec();
    let path = member_path(&name, limits)?;
    let (kind, mode) = kind_and_mode(data.system(), data.external_attributes(), name.ends_with(b"/"));
    match kind {
        Kind::Device => return Err(unsupported(&path, "a device node cannot be part of a version")),
        // With contents it is what `zip` read through a pipe (`zip - -`): a file.
        Kind::Skipped if data.size() == 0 => {
            intake.warn(&path, "a FIFO or socket, which is not imported");
            return Ok(());
        }
        Kind::Symlink if name.ends_with(b"/") => return Err(refuse(&path, "a symbolic link named like a directory")),
        Kind::Directory if data.size() > 0 => return Err(refuse(&path, "a directory with contents")),
        _ => {}
    }
    let size = data.size();
    budget.declare(limits, path.as_bytes(), size)?;
    let dos_time = data.last_modified();
    let mut file = archive.by_index(index).map_err(|error| within(&path, error))?;
    let stamp = file.extra_data_fields().find_map(|field| match field {
        // A 32-bit time_t: signed, so that times before 1970 are what Info-ZIP meant.
        ExtraField::ExtendedTimestamp(times) => times.mod_time().map(|seconds| i64::from(seconds.cast_signed())),
        _ => None,
    });
    let seconds = stamp.or_else(|| dos_time.map(unix_seconds));
    let mtime = seconds.map(|seconds| Mtime { seconds, nanoseconds: 0 });
    let about = About { path: &path, metadata: Metadata::new(mode, 0, 0), mtime };
    let mut source = Inflated { file: &mut file, path: &path, limits, budget, file_bytes };
    match kind {
        Kind::Directory => {
            source.expect_end()?;
            intake.directory(about)
        }
        Kind::Symlink => {
            let target = source.target(size)?;
            intake.symlink(about, &target)
        }
        Kind::File | Kind::Skipped | Kind::Device => intake.file(about, size, &mut source),
    }
}

/// Only Unix systems put a mode into the upper half of the external attributes; a name that ends with a slash is a
/// directory whatever they say.
fn kind_and_mode(system: System, attributes: u32, slash: bool) -> (Kind, u32) {
    let mode = if matches!(system, System::Unix | System::OsDarwin) { attributes >> 16 } else { 0 };
    let kind = match mode & KIND_MASK {
        0o120_000 => Kind::Symlink,
        0o040_000 => Kind::Directory,
        0o010_000 | 0o140_000 => Kind::Skipped,
        0o020_000 | 0o060_000 => Kind::Device,
        _ if slash => Kind::Directory,
        _ => Kind::File,
    };
    let default = if kind == Kind::Directory { DEFAULT_DIRECTORY_MODE } else { DEFAULT_FILE_MODE };
    (kind, if mode == 0 { default } else { mode & 0o7777 })
}

/// A DOS time names no zone; it is taken for UTC, so that it is the same on every machine.
fn unix_seconds(time: ::zip::DateTime) -> i64 {
    // Days from civil, after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"; years here are 1980 to 2107.
    let (month, day) = (i64::from(time.month()), i64::from(time.day()));
    let year = i64::from(time.year()) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    days * 86_400 + i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
}

/// The bytes of one entry; at their end its checksum is compared.
struct Inflated<'s, R: Read> {
    file: &'s mut R,
    path: &'s TreePath,
    limits: &'s Limits,
    budget: &'s mut Budget,
    file_bytes: u64,
}

impl<R: Read> Inflated<'_, R> {
    fn target(&mut self, size: u64) -> Result<Vec<u8>> {
        let limit = MAX_TARGET_BYTES as u64;
        if size > limit {
            return Err(refuse(self.path, "a symbolic link: its target has more than 4095 bytes"));
        }
        let (mut target, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            match self.pull(&mut buffer)? {
                0 if target.len() as u64 == size => return Ok(target),
                0 => return Err(Error::source(self.path, "the archive is cut off here")),
                read => target.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn expect_end(&mut self) -> Result<()> {
        match self.pull(&mut [0])? {
            0 => Ok(()),
            _ => Err(refuse(self.path, "a directory with contents")),
        }
    }
}

impl<R: Read> Pull for Inflated<'_, R> {
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => break read,
                Err(error) => return Err(within(self.path, error.into())),
            }
        };
        self.budget.produce(self.limits, read as u64, self.file_bytes)?;
        Ok(read)
    }
}

/// Bounds what may be read while the directory is: the `zip` crate holds all of it in memory.
struct Guarded {
    file: File,
    allowance: Rc<Cell<u64>>,
    limit: u64,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let left = self.allowance.get().checked_sub(read as u64);
        let too_large = || format!("it has more than {} bytes (import.limits.held_bytes)", self.limit);
        self.allowance.set(left.ok_or_else(|| io::Error::other(too_large()))?);
        Ok(read)
    }
}

impl Seek for Guarded {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn broken(error: ZipError) -> Error {
    within(&TreePath::top(), error)
}

fn within(path: &TreePath, error: ZipError) -> Error {
    let what: &[u8] = if path.is_top() { b"the zip's directory" } else { path.as_bytes() };
    let io = match error {
        ZipError::Io(io) => io,
        other => return Error::source(what, Shown::text(&other.to_string()).to_string()),
    };
    match io.raw_os_error() {
        Some(_) => Error::io("read the zip within", String::from_utf8_lossy(what).into_owned(), io),
        None => Error::source(what, Shown::text(&io.to_string()).to_string()),
    }
}
