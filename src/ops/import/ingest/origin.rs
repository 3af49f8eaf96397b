//! Where a directory's files are read from.
//!
//! A directory of which nothing is read is not opened: most of a release that was imported before, or none of it.

use std::cell::OnceCell;
use std::sync::Arc;

use rayon::prelude::*;

use super::Ingest;
use crate::error::Result;
use crate::fsys::{Dir, Kind};
use crate::model::TreePath;
use crate::ops::import::pyc::{CACHE_DIRECTORY, PycPolicy};
use crate::scan::{ScanDir, ScanFile, in_source};

/// A directory of the source, opened when it is needed.
pub(super) struct Origin<'a> {
    top: &'a Dir,
    path: &'a TreePath,
    dir: OnceCell<Arc<Dir>>,
}

impl<'a> Origin<'a> {
    /// The directory at `path` below `top`, by its handle if there is one already.
    pub(super) fn new(top: &'a Dir, path: &'a TreePath, opened: Option<Arc<Dir>>) -> Self {
        let dir = OnceCell::new();
        if let Some(opened) = opened {
            drop(dir.set(opened));
        }
        Self { top, path, dir }
    }

    /// Its handle.
    pub(super) fn dir(&self) -> Result<&Dir> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let opened = self.top.open_below(self.path).map_err(|error| in_source(self.path, &error))?;
        Ok(self.dir.get_or_init(|| Arc::new(opened)))
    }
}

/// By position: whether anything in a directory or below it will be read, as far as can be told before. Where it turns out
/// otherwise, the directory is opened from the top.
pub(super) fn directories_to_read(ingest: &Ingest<'_>) -> Vec<bool> {
    let directories = &ingest.scan.directories;
    let paths_matter = !ingest.rules.shared.is_empty() || !ingest.rules.private.is_empty();
    let is_read = |at: usize, number: usize, file: &ScanFile| {
        file.stat.kind != Kind::File
            || (ingest.cached)(at, number).is_none() && (ingest.own_inodes)(&file.stat).is_none()
    };
    let by_itself = |(at, directory): (usize, &ScanDir)| {
        let compiled = ingest.rules.pyc == PycPolicy::Pin
            && directory.path.components().last() == Some(CACHE_DIRECTORY)
            && !directory.files.is_empty();
        paths_matter || compiled || directory.files.iter().enumerate().any(|(number, file)| is_read(at, number, file))
    };
    let mut to_read: Vec<bool> = directories.par_iter().enumerate().map(by_itself).collect();
    // Parents come before what is in them.
    for (at, directory) in directories.iter().enumerate().rev() {
        if to_read[at] {
            to_read[directory.parent] = true;
        }
    }
    to_read
}
