//! Importing an archive: a stream that is read once.
//!
//! One thread reads and decompresses; small files are hashed and stored by the others meanwhile, big ones on the way.
//! Contents become objects as they pass. Only when the stream has ended well is the tree made, of links.
//!
//! Whether a Python source shares its object with other releases depends on compiled files that may come after it. So
//! its bytes wait in staging, and become an object when all heads are known.

mod facts;
mod intake;
mod placing;

use std::collections::HashSet;

use self::facts::Facts;
use self::intake::Intake;
use self::placing::Placing;
use super::preflight::Need;
use super::tally::Tally;
use super::{Job, Mode, Passed, Report, Warning, publish};
use crate::archive::{BEGINNING, Built, END, Input, Summary};
use crate::error::{Error, Result};
use crate::fsys::Space;
use crate::layout;
use crate::materialise::plan::{Plan, What};
use crate::model::{Digest, Node, ObjectKey, PlacementKind, Sealed, Source, SourceKind, TreePath};
use crate::object::Published;
use crate::observe::Stage;
use crate::staging::Run;

/// What cannot happen to a finished builder's trees.
const LOST: &str = "a directory of the archive is missing";

/// Imports an archive.
pub(super) fn import(job: &Job<'_>, input: Input, kind: SourceKind, path: &[u8]) -> Result<Report> {
    use std::os::unix::ffi::OsStrExt;
    let named = |error: Error| match error {
        Error::Source { path: at, problem } if path.is_empty() && [BEGINNING, END].contains(&at.as_slice()) => {
            Error::source("standard input", problem)
        }
        _ if path.is_empty() => error,
        Error::Io { verb, path: at, source } if at.as_os_str() == "the archive" => {
            Error::io(verb, std::ffi::OsStr::from_bytes(path), source)
        }
        Error::Source { path: at, problem } if [BEGINNING, END].contains(&at.as_slice()) => {
            Error::source(path, problem)
        }
        other => other,
    };
    let existing = job.existing()?;
    let published = job.store.published_objects()?;
    let tally = Tally::default();
    job.observer.stage(Stage::Import, None);
    if existing.is_some() || job.options.mode == Mode::DryRun {
        let (built, summary, facts) = Intake::new(job, None, &tally).read(input).map_err(named)?;
        let (passed, outcome) = match existing {
            Some(existing) => {
                let outcome = publish::same_or_refused(&existing, Digest(built.root))?;
                (passed(built, &summary, &tally)?, Some(outcome))
            }
            None => {
                would_place(job, &built, &facts, &published, &tally)?;
                (passed(built, &summary, &tally)?, None)
            }
        };
        return Ok(job.report(&passed, &tally, outcome));
    }
    let run = Run::begin(&job.store.dir().open_dir(layout::STAGING)?)?;
    let objects = job.objects(&run, &published)?;
    let placed = (|| {
        let (built, summary, facts) = Intake::new(job, Some(&objects), &tally).read(input).map_err(named)?;
        let mut placing = Placing { job, objects: &objects, facts, tally: &tally };
        let (placements, shared) = placing.placements(&built)?;
        placing.materialise(&built, &placements, &shared, &run)?;
        Ok(Passed { placements, shared, ..passed(built, &summary, &tally)? })
    })();
    job.note_made(objects);
    job.observer.stage(Stage::Sync, None);
    job.publish(run, placed?, &tally, Source { kind, path: path.to_vec() }, &|| {})
}

/// Counts for a dry run what a real one would make: each object once.
fn would_place(job: &Job<'_>, built: &Built, facts: &Facts, published: &dyn Published, tally: &Tally) -> Result<()> {
    let mut seen = HashSet::new();
    let walked = built.trees.walk(built.root, |path, entry| {
        let Node::File { content, size: size @ 1.. } = entry.node else { return Ok::<(), Error>(()) };
        let kind = kind_of(job, path);
        let applied = job.store.ownership().apply(&entry.metadata);
        let pin = facts.pin(path, size, kind);
        if pin.is_some() {
            tally.pinned_files.add(1);
            tally.pinned_bytes.add(size);
        }
        tally.private_files.add(u64::from(kind == PlacementKind::Private));
        let key = ObjectKey { content, class: Sealed::of(&applied, pin.map(|mtime| mtime.0)).class };
        if published.lookup(&key)?.is_none() && seen.insert(key) {
            tally.new_objects.add(1);
            tally.new_bytes.add(size);
        } else {
            tally.linked_files.add(1);
        }
        Ok(())
    })?;
    walked.map_err(|tree| Error::source(tree.to_hex(), LOST))
}

/// What a tree takes when its objects are there.
fn need_of(plan: &Plan, space: &Space) -> Need {
    let directories = plan.directories.len() as u64;
    let mut need = Need { bytes: directories * space.block_bytes, inodes: directories };
    for file in plan.directories.iter().flat_map(|directory| &directory.files) {
        let (bytes, inodes) = match &file.what {
            What::Object { .. } => (0, 0),
            What::Private(private) => (space.rounded(private.recorded.size), 1),
            What::Empty { .. } | What::PrivateEmpty { .. } => (0, 1),
            // A short target lies in the inode itself.
            What::Symlink { target, .. } if target.len() < 60 => (0, 1),
            What::Symlink { target, .. } => (space.rounded(target.len() as u64), 1),
        };
        need = need.and(Need { bytes, inodes });
    }
    need
}

/// How the configuration wants a path to be placed.
fn kind_of(job: &Job<'_>, path: &TreePath) -> PlacementKind {
    if job.options.shared.covers(path) {
        PlacementKind::Shared
    } else if job.options.private.covers(path) {
        PlacementKind::Private
    } else {
        PlacementKind::Object
    }
}

/// Counts what the archive holds; each name of a hard link counts, as it does in a directory.
fn passed(built: Built, summary: &Summary, tally: &Tally) -> Result<Passed> {
    let mut directories = 0;
    let walked = built.trees.walk(built.root, |_, entry| {
        match entry.node {
            Node::Directory { .. } => directories += 1,
            Node::Symlink { .. } => tally.symlinks.add(1),
            Node::File { size, .. } => {
                tally.files.add(1);
                tally.total_bytes.add(size);
                let gives_rights = entry.metadata.mode & 0o6000 != 0 || entry.metadata.xattrs.has_capability();
                tally.setid_files.add(u64::from(gives_rights));
            }
        }
        Ok::<(), Error>(())
    })?;
    walked.map_err(|tree| Error::source(tree.to_hex(), LOST))?;
    let mut warnings: Vec<Warning> = summary
        .warnings
        .iter()
        .map(|warning| Warning {
            kind: if warning.reason.contains("link") { "link-leaves-tree" } else { "skipped" },
            path: Some(warning.path.clone()),
            message: format!("{}: {}", warning.path, warning.reason),
        })
        .collect();
    if summary.further_warnings > 0 {
        let message = format!("{} more warnings of these kinds", summary.further_warnings);
        warnings.push(Warning { kind: "skipped", path: None, message });
    }
    let (placements, shared) = (Vec::new(), Vec::new());
    Ok(Passed { root: built.root, trees: built.trees, placements, shared, directories, warnings })
}
