//! What a directory would be as a version, without importing it: its trees, and so its digest.

use super::ingest::{self, Ingest, PrivateFiles, Rules};
use super::pyc::PycPolicy;
use super::tally::Tally;
use crate::error::Result;
use crate::fsys::{Dir, Kind, Stamped, system};
use crate::index::StatKey;
use crate::model::glob::PathPatterns;
use crate::model::{TreeId, TreePath, TreeSet};
use crate::observe::Observer;
use crate::scan::{self, Scan};
use crate::store::Store;
use crate::store::source_cache::CachedContent;

/// A directory as a version would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// Its root tree.
    pub root: TreeId,
    /// All its trees.
    pub trees: TreeSet,
    /// What is there and would not be part of a version, with the reason.
    pub skipped: Vec<(TreePath, &'static str)>,
}

/// Reads and hashes everything below `source`. Writes nothing and takes no lock; files that were imported from there
/// and have not changed since are not read where [`Stamped`] answers for their file system.
///
/// # Errors
///
/// As [`super::import`] for a directory.
pub fn directory(store: &Store, source: &Dir, observer: &dyn Observer) -> Result<Digested> {
    store.in_pool(|| {
        let scan = scan::scan(source, observer)?;
        let stamped = Stamped::of(source, store.dir());
        let known = KnownContents::of(store, stamped.as_ref(), &scan);
        let rules = Rules {
            owner: None,
            latest_mtime: None,
            now: system::file_time_now().0,
            pyc: PycPolicy::Share,
            private: PathPatterns::default(),
            shared: PathPatterns::default(),
        };
        let pass = Ingest {
            scan: &scan,
            source,
            objects: None,
            ownership: store.ownership(),
            rules: &rules,
            cached: &|directory, file| known.get(directory, file),
            own_inodes: &|_| None,
            settled: &|_| false,
            private: PrivateFiles::Copied,
            tally: &Tally::default(),
            observer,
        };
        let ingested = ingest::run(&pass, None)?;
        Ok(Digested { root: ingested.root, trees: ingested.trees, skipped: scan.skipped })
    })?
}

/// Contents of source files that were read before and have not changed since.
#[derive(Debug, Default)]
pub(super) struct KnownContents {
    /// By directory, where its files begin in `contents`.
    first: Vec<usize>,
    /// Empty if nothing is known.
    contents: Vec<Option<CachedContent>>,
}

impl KnownContents {
    /// Those of a source on this file system; none where change times prove nothing.
    pub(super) fn of(store: &Store, stamped: Option<&Stamped>, scan: &Scan) -> Self {
        let Some(stamped) = stamped else { return Self::default() };
        let mut files = Vec::new();
        let (mut first, mut count) = (Vec::with_capacity(scan.directories.len()), 0);
        for directory in &scan.directories {
            first.push(count);
            let numbered = (count..).zip(&directory.files);
            let of_source = numbered.filter(|(_, file)| file.stat.kind == Kind::File && stamped.covers(&file.stat));
            files.extend(of_source.map(|(number, file)| (StatKey::from(&file.stat), number)));
            count += directory.files.len();
        }
        let mut contents = Vec::new();
        for (number, content) in store.cached_contents(stamped.name(), files) {
            contents.resize(count, None);
            contents[number] = Some(content);
        }
        Self { first, contents }
    }

    /// That of one file, by its position and its directory's in the scan.
    pub(super) fn get(&self, directory: usize, file: usize) -> Option<CachedContent> {
        *self.contents.get(self.first.get(directory)? + file)?
    }
}
