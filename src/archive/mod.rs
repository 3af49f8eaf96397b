//! Archives as releases: a hostile tar or zip read as a stream of checked members.
//!
//! Nothing is ever unpacked to a path. [`read()`] checks each member, gives it its place in a [`TreeBuilder`] and then
//! shows it to the caller, who stores the contents as objects; the builder makes the trees.
//!
//! ```text
//! bytes -> Format::detect -> tar: stream (decode, count) -> headers, PAX, sparse maps --+
//!                         -> zip: directory and local headers compared -----------------+-> intake -> TreeBuilder
//!                                                                                              \---> the caller
//! ```
//!
//! What is **refused**, by path: absolute and empty names, `..`, NULs, components over 255 bytes, paths that are too
//! long or too deep; a path that two members have; a member below a file or below a symbolic link; hard links to what
//! did not come before; empty or overlong link targets; device nodes, encrypted entries, members of unknown kinds; and
//! headers that readers are known to understand differently.
//!
//! What is **tolerated**: `./` before and `/` behind a name, the top itself (`.`; its metadata is no part of a version),
//! a directory that is listed twice with equal metadata, and symbolic links that point anywhere at all. The latter are
//! kept as they are, since a release may well link to `/etc`; nothing here follows them, and those that leave the tree
//! are listed in [`Summary::warnings`]. FIFOs and sockets are left out, with a warning.
//!
//! **Invariant:** a truncated or corrupt archive is an error, never a smaller tree. A tar must end with at least one
//! block of zeros (GNU tar would accept one that was cut between two members), nothing but zeros may follow, and the
//! compressed stream is read to its end, where its checksum is compared.
//!
//! **Invariant:** [`Limits`] hold whatever the archive declares.

mod acl;
mod builder;
mod format;
mod header;
mod intake;
mod limits;
mod names;
mod pax;
mod sparse;
mod stream;
mod tar;
mod zip;

use std::fs::File;
use std::io::{Cursor, Read, Seek};

use crate::error::{Error, Result};
use crate::model::{ContentId, Metadata, TreePath};

pub use builder::{Built, FileId, TreeBuilder};
pub use format::{DETECT_BYTES, Format};
pub use limits::Limits;

use intake::Intake;
use stream::Stream;

/// Stands in an error for a member where none has been met yet.
pub const BEGINNING: &[u8] = b"the archive's beginning";
/// The same where all have been read.
pub const END: &[u8] = b"the archive's end";

/// Where an archive comes from.
pub enum Input {
    /// A pipe or anything else that is read once. A zip cannot come this way.
    Stream(Box<dyn Read + Send>),
    /// An opened file, read from its beginning. One that cannot seek is read as a stream.
    File(File),
}

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds beyond them.
    pub nanoseconds: u32,
}

/// One checked member of an archive.
pub struct Member<'a> {
    /// Where it belongs, below the top.
    pub path: &'a TreePath,
    /// Mode, owner and attributes as they will be recorded. Those of a hard link are not its own: its file's count.
    pub metadata: &'a Metadata,
    /// When it was last modified, if the archive says so.
    pub mtime: Option<Mtime>,
    /// What it is.
    pub kind: MemberKind<'a>,
}

/// What a member is.
pub enum MemberKind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its name in the builder, to [store](TreeBuilder::store) its content later.
        id: FileId,
        /// How many bytes there are: the reader gives exactly as many, or fails.
        size: u64,
        /// The bytes. What the caller leaves unread is read and checked all the same.
        reader: &'a mut dyn Read,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as it stands.
        target: &'a [u8],
    },
    /// Another name for a member that came before.
    HardLink {
        /// That member's path.
        target: &'a TreePath,
    },
}

/// What the caller does with each member. For a file it gives the id of the stored bytes, or `None` if it will
/// [store](TreeBuilder::store) them later; for anything else the value does not matter.
pub type Visit<'v> = dyn FnMut(Member<'_>) -> Result<Option<ContentId>> + 'v;

/// Something about an archive that the user should know and that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The member.
    pub path: TreePath,
    /// What about it.
    pub reason: &'static str,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Summary {
    /// Which kind of archive it was.
    pub format: Format,
    /// How many members were shown to the caller.
    pub members: u64,
    /// Bytes of file contents, holes included, hard links not counted again.
    pub content_bytes: u64,
    /// Members that were left out, and links that leave the tree; the first thousand.
    pub warnings: Vec<Warning>,
    /// How many more warnings there were.
    pub further_warnings: u64,
}

/// Reads an archive to its end: every member is checked, placed in `builder`, and shown to `visit`.
///
/// # Errors
///
/// - [`Refusal::UnsafeArchive`](crate::error::Refusal::UnsafeArchive) for a hostile member or a passed limit
/// - [`Refusal::UnsupportedSource`](crate::error::Refusal::UnsupportedSource) for what cannot be part of a version
/// - [`Error::Source`] for a truncated or corrupt archive, and for bytes that are no archive at all
/// - [`Error::Usage`] for a zip on a stream
/// - whatever `visit` fails with, if the archive itself is not to blame
///
/// After an error the builder is half filled and good for nothing.
pub fn read(input: Input, limits: &Limits, builder: &mut TreeBuilder, visit: &mut Visit<'_>) -> Result<Summary> {
    match input {
        Input::Stream(stream) => read_stream(stream, limits, builder, visit),
        Input::File(mut file) => {
            if file.rewind().is_err() {
                return read_stream(Box::new(file), limits, builder, visit);
            }
            let first = first_bytes(&mut file)?;
            file.rewind().map_err(|error| Error::io("rewind", "the archive", error))?;
            if detect(&first)? == Format::Zip {
                let mut intake = Intake::new(Format::Zip, limits, builder, visit);
                zip::read(file, &mut intake)?;
                Ok(intake.summary)
            } else {
                read_stream(Box::new(file), limits, builder, visit)
            }
        }
    }
}

fn read_stream(
    mut source: Box<dyn Read + Send>,
    limits: &Limits,
    builder: &mut TreeBuilder,
    visit: &mut Visit<'_>,
) -> Result<Summary> {
    let first = first_bytes(&mut source)?;
    let format = detect(&first)?;
    let stream = Stream::open(format, Box::new(Cursor::new(first).chain(source)), limits)?;
    let mut intake = Intake::new(format, limits, builder, visit);
    tar::read(stream, &mut intake)?;
    Ok(intake.summary)
}

fn first_bytes(source: &mut dyn Read) -> Result<Vec<u8>> {
    let mut first = Vec::with_capacity(DETECT_BYTES);
    match source.take(DETECT_BYTES as u64).read_to_end(&mut first) {
        Ok(_) => Ok(first),
        Err(error) => Err(Error::io("read", "the archive", error)),
    }
}

fn detect(first_bytes: &[u8]) -> Result<Format> {
    Format::detect(first_bytes).ok_or_else(|| Error::source(BEGINNING, format::what_else(first_bytes)))
}
