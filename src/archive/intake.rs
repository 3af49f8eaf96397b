//! Where both readers hand over their members: into the tree's outline first, then to the caller.
//!
//! **Invariant:** the caller sees a member only after its path, its size and its place in the tree were accepted; and
//! a file whose contents end early, late or with a wrong checksum is an error, however much of it the caller read.

use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::model::{Metadata, TreePath};

use super::builder::TreeBuilder;
use super::limits::Limits;
use super::names;
use super::{Format, Member, MemberKind, Mtime, Summary, Visit, Warning};

/// How many warnings are kept; the rest is only counted.
const MAX_WARNINGS: usize = 1000;

const SYMLINK_MODE: u32 = 0o777;

/// A source of one file's bytes: no bytes mean the end, which is where checksums are compared.
pub(super) trait Pull {
    /// Reads some bytes into a buffer that is not empty.
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

/// What a member is besides its kind.
pub(super) struct About<'p> {
    pub(super) path: &'p TreePath,
    pub(super) metadata: Metadata,
    pub(super) mtime: Option<Mtime>,
}

/// Takes members in.
pub(super) struct Intake<'a, 'v> {
    pub(super) limits: &'a Limits,
    builder: &'a mut TreeBuilder,
    visit: &'a mut Visit<'v>,
    pub(super) summary: Summary,
}

impl<'a, 'v> Intake<'a, 'v> {
    pub(super) fn new(
        format: Format,
        limits: &'a Limits,
        builder: &'a mut TreeBuilder,
        visit: &'a mut Visit<'v>,
    ) -> Self {
        let summary = Summary { format, members: 0, content_bytes: 0, warnings: Vec::new(), further_warnings: 0 };
        Self { limits, builder, visit, summary }
    }

    pub(super) fn directory(&mut self, about: About<'_>) -> Result<()> {
        let about = self.recorded(about);
        self.builder.directory(about.path, about.metadata.clone())?;
        if about.path.is_top() {
            return Ok(());
        }
        self.show(&about, MemberKind::Directory)
    }

    pub(super) fn symlink(&mut self, mut about: About<'_>, target: &[u8]) -> Result<()> {
        names::link_target(about.path, target)?;
        about.metadata = Metadata::new(SYMLINK_MODE, about.metadata.uid, about.metadata.gid);
        let about = self.recorded(about);
        self.builder.symlink(about.path, about.metadata.clone(), target)?;
        if names::leaves_the_tree(about.path, target) {
            self.warn(about.path, "a symbolic link that points out of the tree");
        }
        self.show(&about, MemberKind::Symlink { target })
    }

    pub(super) fn hard_link(&mut self, about: About<'_>, target: &TreePath) -> Result<()> {
        let about = self.recorded(about);
        self.builder.hard_link(about.path, target)?;
        self.show(&about, MemberKind::HardLink { target })
    }

    pub(super) fn file(&mut self, about: About<'_>, size: u64, source: &mut dyn Pull) -> Result<()> {
        let about = self.recorded(about);
        let id = self.builder.file(about.path, about.metadata.clone(), size)?;
        let mut contents = Contents { path: about.path, source, left: size, ended: false, failure: None };
        self.summary.members += 1;
        self.summary.content_bytes += size;
        let kind = MemberKind::File { id, size, reader: &mut contents };
        let visited = (self.visit)(Member { path: about.path, metadata: &about.metadata, mtime: about.mtime, kind });
        // What went wrong in the archive is the cause; what the caller made of it is only the consequence.
        if let Some(failure) = contents.failure.take() {
            return Err(failure);
        }
        let stored = visited?;
        contents.drain()?;
        if let Some(content) = stored {
            self.builder.store(id, content);
        }
        Ok(())
    }

    pub(super) fn warn(&mut self, path: &TreePath, reason: &'static str) {
        if self.summary.warnings.len() < MAX_WARNINGS {
            self.summary.warnings.push(Warning { path: path.clone(), reason });
        } else {
            self.summary.further_warnings += 1;
        }
    }

    fn recorded<'p>(&self, about: About<'p>) -> About<'p> {
        About { metadata: self.builder.recorded(about.metadata), ..about }
    }

    fn show<'m>(&mut self, about: &'m About<'m>, kind: MemberKind<'m>) -> Result<()> {
        self.summary.members += 1;
        (self.visit)(Member { path: about.path, metadata: &about.metadata, mtime: about.mtime, kind }).map(drop)
    }
}

/// One file's bytes: exactly as many as declared, or an error.
struct Contents<'s> {
    path: &'s TreePath,
    source: &'s mut dyn Pull,
    left: u64,
    ended: bool,
    failure: Option<Error>,
}

impl Contents<'_> {
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // One more byte is asked for, because the end is where a checksum is compared.
            if self.source.pull(&mut [0])? > 0 {
                return Err(Error::source(self.path, "holds more bytes than it declares"));
            }
            self.ended = true;
            return Ok(0);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.pull(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(Error::source(self.path, "the archive is cut off here"));
        }
        self.left -= read as u64;
        if self.left == 0 {
            // A caller that reads exactly the declared size never sees the end; look now, before it trusts the bytes.
            self.pull(&mut [0])?;
        }
        Ok(read)
    }

    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 8 << 10];
        while self.pull(&mut buffer)? > 0 {}
        Ok(())
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("the archive could not be read further"));
        }
        self.pull(buffer).map_err(|error| {
            let text = io::Error::other(error.to_string());
            self.failure = Some(error);
            text
        })
    }
}
