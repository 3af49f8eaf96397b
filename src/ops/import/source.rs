//! A source directory with what is known of its files before they are read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::digest::KnownContents;
use super::{Job, Reread, Tally, ingest};
use crate::error::Result;
use crate::fsys::{Dir, Stamped, Stat};
use crate::index::StatKey;
use crate::model::{ContentId, ObjectKey};
use crate::object::{Objects, Published};
use crate::scan::{Scan, ScanFile};
use crate::store::SharedStore;

/// A source directory with everything that is known about its files before they are read.
pub(in crate::ops) struct Reader<'a> {
    job: &'a Job<'a>,
    source: &'a Dir,
    scan: &'a Scan,
    rules: ingest::Rules,
    cached: KnownContents,
    own_inodes: HashMap<u64, ObjectKey>,
    published: &'a dyn Published,
    store_device: u64,
    /// Absent where what an inode says does not stand for its bytes.
    stamped: Option<Stamped>,
}

impl<'a> Reader<'a> {
    pub(in crate::ops) fn new(
        job: &'a Job<'a>,
        source: &'a Dir,
        scan: &'a Scan,
        published: &'a dyn Published,
    ) -> Result<Self> {
        let store_device = job.store.dir().stat_self()?.device;
        let stamped = Stamped::of(source, job.store.dir());
        let mut reader = Self {
            job,
            source,
            scan,
            rules: job.rules(),
            cached: KnownContents::default(),
            own_inodes: HashMap::new(),
            published,
            store_device,
            stamped,
        };
        if job.options.reread == Reread::Changed {
            reader.cached = KnownContents::of(job.store, reader.stamped.as_ref(), scan);
            // Where the numbers of inodes are made up, two files can have one.
            let linked = |file: &ScanFile| file.stat.links > 1 && file.stat.device == store_device;
            if reader.stamped.is_some() && scan.files().any(linked) {
                reader.own_inodes = crate::object::inodes(job.store.dir())?;
            }
        }
        Ok(reader)
    }

    pub(super) fn published(&self) -> &'a dyn Published {
        self.published
    }

    pub(super) fn ingest(
        &self,
        objects: Option<&Objects<'_>>,
        target: Option<Dir>,
        tally: &Tally,
    ) -> Result<ingest::Ingested> {
        let own_inodes = |stat: &Stat| {
            let key =
                self.own_inodes.get(&stat.inode).filter(|_| stat.device == self.store_device && stat.links > 1)?;
            // A name proves nothing: only what is published and looks as recorded stands in for its bytes.
            let recorded = self.published.lookup(key).ok().flatten()?;
            crate::object::check::by_stat(stat, key, Some(&recorded)).ok().map(|()| key.clone())
        };
        let pass = ingest::Ingest {
            scan: self.scan,
            source: self.source,
            objects,
            ownership: self.job.store.ownership(),
            rules: &self.rules,
            cached: &|directory, file| self.cached.get(directory, file),
            own_inodes: &own_inodes,
            settled: &|stat| self.stamped.as_ref().is_some_and(|stamped| stamped.covers(stat)),
            private: self.job.private,
            tally,
            observer: self.job.observer,
        };
        ingest::run(&pass, target)
    }

    /// What is to be kept for the next import.
    pub(super) fn noted(&self, read: Vec<(StatKey, ContentId)>) -> Noted {
        let file_system = self.stamped.as_ref().map(|stamped| stamped.name().to_vec()).unwrap_or_default();
        Noted { file_system, files: Mutex::new(read), seen: self.scan.entries() }
    }
}

/// Source files whose contents the next import need not read.
pub(in crate::ops) struct Noted {
    /// Its name; of no use where there are no files.
    file_system: Vec<u8>,
    files: Mutex<Vec<(StatKey, ContentId)>>,
    seen: u64,
}

impl Noted {
    /// Keeps them. Best effort: a cache that cannot be written costs time, nothing else.
    pub(in crate::ops) fn remember(&self, store: &SharedStore<'_>) {
        let mut files = std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        store.remember_contents(&self.file_system, &mut files, self.seen);
    }
}
