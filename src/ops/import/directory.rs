//! Importing a directory: looked at, checked against the free space, then read, stored and linked in one pass.

use std::path::Path;

use super::source::{Noted, Reader};
use super::{Job, Mode, Passed, PrivateFiles, Report, Tally, Warning, ingest, preflight};
use crate::error::{Error, Refusal, Result, Shown};
use crate::fsys::system::release_freed_memory;
use crate::fsys::{Dir, Space, Stat, file};
use crate::layout;
use crate::model::{Digest, Source, SourceKind};
use crate::object::{NothingPublished, Published};
use crate::observe::Stage;
use crate::ops::publish;
use crate::scan::{self, Scan};
use crate::staging::{Run, TREE};

/// A source directory, built in staging.
pub(in crate::ops) struct Built {
    pub(in crate::ops) run: Run,
    pub(in crate::ops) passed: Passed,
    /// What the next import need not read.
    pub(in crate::ops) noted: Noted,
}

impl Job<'_> {
    pub(super) fn import_directory(&self, source: &Dir, path: &Path) -> Result<Report> {
        use std::os::unix::ffi::OsStrExt;
        self.refuse_own_parts(source)?;
        let existing = self.existing()?;
        // Reading manifests is one thread's work, and looking at the source leaves gaps that it fills.
        let needs_objects = existing.is_none();
        let read_published = || needs_objects.then(|| self.store.published_objects()).transpose();
        let (scan, published) = rayon::join(|| scan::scan(source, self.observer), read_published);
        let (scan, published) = (scan?, published?);
        self.refuse_own_parts_inside(&scan)?;
        // To compare with what exists takes no objects, but for those that the source is made of.
        let published: Box<dyn Published> = match published {
            Some(published) => Box::new(published),
            None if self.may_hold_objects(source, &scan)? => Box::new(self.store.published_objects()?),
            None => Box::new(NothingPublished),
        };
        let reader = Reader::new(self, source, &scan, &*published)?;
        let tally = Tally::default();
        self.observer.stage(Stage::Import, Some(scan.entries()));
        if let Some(existing) = existing {
            let ingested = reader.ingest(None, None, &tally)?;
            let outcome = publish::same_or_refused(&existing, Digest(ingested.root))?;
            let passed = passed(&scan, ingested);
            return Ok(self.report(&passed, &tally, Some(outcome)));
        }
        let rehearsed = self.rehearse(&scan, &reader)?;
        if let Some((passed, dry)) = rehearsed.filter(|_| self.options.mode == Mode::DryRun) {
            return Ok(self.report(&passed, &dry, None));
        }
        let Built { run, passed, noted } = self.build(&scan, &reader, &tally)?;
        // Publishing takes memory of its own.
        drop(reader);
        drop(published);
        drop(scan);
        release_freed_memory();
        let source = Source { kind: SourceKind::Directory, path: path.as_os_str().as_bytes().to_vec() };
        self.publish(run, passed, &tally, source, &|| noted.remember(self.store))
    }

    /// Whether files of the source may be links to objects.
    fn may_hold_objects(&self, source: &Dir, scan: &Scan) -> Result<bool> {
        let one_device = source.stat_self()?.device == self.store.dir().stat_self()?.device;
        Ok(one_device && scan.files().any(|file| file.stat.links > 1))
    }

    /// Checks that there is room. A source that might not fit, and a dry run, are read whole for it: then what would be
    /// made is told.
    pub(in crate::ops) fn rehearse(&self, scan: &Scan, reader: &Reader<'_>) -> Result<Option<(Passed, Tally)>> {
        let (root, minimum) = (self.store.root(), self.options.minimum_free_bytes);
        let space = Space::of(root)?;
        let copies = match self.private {
            PrivateFiles::Copied => preflight::Need::copies(scan, &space, self.options),
            PrivateFiles::LinkedToSource => preflight::Need::default(),
        };
        let fits = preflight::Need::at_most(scan, &space).and(copies).check(root, &space, minimum);
        if fits.is_ok() && self.options.mode == Mode::Write {
            return Ok(None);
        }
        let dry = Tally::default();
        let ingested = reader.ingest(None, None, &dry)?;
        let mut new = Vec::new();
        for (key, recorded) in ingested.needed.iter() {
            if reader.published().lookup(&key)?.is_none() {
                new.push(recorded.size);
            }
        }
        preflight::Need::exactly(scan, &space, new.iter().copied()).and(copies).check(root, &space, minimum)?;
        dry.new_objects.add(new.len() as u64);
        dry.new_bytes.add(new.iter().sum());
        let placed = ingested.placements.len() as u64;
        dry.linked_files.add(placed - (new.len() as u64).min(placed));
        Ok(Some((passed(scan, ingested), dry)))
    }

    /// Reads, stores and links everything into a tree in staging.
    pub(in crate::ops) fn build(&self, scan: &Scan, reader: &Reader<'_>, tally: &Tally) -> Result<Built> {
        let run = Run::begin(&self.store.staging_dir()?)?;
        let objects = self.objects(&run, reader.published())?;
        let tree = run.dir().create_dir(TREE, layout::PUBLIC_DIR_MODE)?;
        file::set_mode(&tree, layout::PUBLIC_DIR_MODE, || tree.path().to_owned())?;
        let ingested = reader.ingest(Some(&objects), Some(tree), tally);
        self.note_made(objects);
        let mut ingested = ingested?;
        let noted = reader.noted(std::mem::take(&mut ingested.read));
        self.observer.stage(Stage::Sync, None);
        Ok(Built { run, passed: passed(scan, ingested), noted })
    }

    /// Importing the store into itself would never end, and its own files are no release.
    fn refuse_own_parts(&self, source: &Dir) -> Result<()> {
        let refuse = |problem: &str| {
            Err(Error::refused_with(
                Refusal::UnsupportedSource,
                format!("{} {problem}", Shown::path(source.path())),
                "import the directory that the release was built in",
            ))
        };
        let (root, store) = (self.store.root().stat_self()?, self.store.dir().stat_self()?);
        let own = source.stat_self()?;
        if above(source)?.iter().any(|stat| stat.same_inode(&store)) {
            return refuse("is part of the store");
        }
        if above(self.store.root())?.iter().any(|stat| stat.same_inode(&own)) {
            return refuse(if own.same_inode(&root) { "is the store's root" } else { "holds the store" });
        }
        if self.store.versions().stat_self()?.same_inode(&own) {
            return refuse("holds the versions of this store");
        }
        Ok(())
    }

    /// The same for what lies below a source by way of a mount.
    fn refuse_own_parts_inside(&self, scan: &Scan) -> Result<()> {
        let (root, store) = (self.store.root().stat_self()?, self.store.dir().stat_self()?);
        let own = |directory: &&scan::ScanDir| directory.stat.same_inode(&root) || directory.stat.same_inode(&store);
        match scan.directories.iter().find(own) {
            Some(directory) => {
                Err(Error::refused(Refusal::UnsupportedSource, format!("{} is part of the store", directory.path)))
            }
            None => Ok(()),
        }
    }
}

/// A directory and all those above it.
fn above(dir: &Dir) -> Result<Vec<Stat>> {
    let mut line = vec![dir.stat_self()?];
    let mut dir = dir.open_dir("..")?;
    loop {
        let stat = dir.stat_self()?;
        if line.last().is_some_and(|last| last.same_inode(&stat)) {
            return Ok(line);
        }
        line.push(stat);
        dir = dir.open_dir("..")?;
    }
}

fn passed(scan: &Scan, ingested: ingest::Ingested) -> Passed {
    let skipped = scan.skipped.iter().map(|(path, reason)| Warning {
        kind: "skipped",
        path: Some(path.clone()),
        message: format!("{path} is {reason} and was skipped"),
    });
    Passed {
        root: ingested.root,
        trees: ingested.trees,
        placements: ingested.placements,
        shared: ingested.shared,
        directories: scan.directories.len() as u64 - 1,
        warnings: skipped.collect(),
    }
}
