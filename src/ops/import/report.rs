//! What an import came to, as it is told.

use std::time::Duration;

use super::{Job, Mode, Passed, Tally};
use crate::model::{Digest, TreePath, VersionName};
use crate::ops::publish::Outcome;

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The version.
    pub version: VersionName,
    /// Its digest.
    pub digest: Digest,
    /// Its import number; `None` for a dry run of a new version.
    pub import_number: Option<u64>,
    /// It was there already, with the same contents; nothing was written.
    pub already_there: bool,
    /// Nothing was written because nothing was to be.
    pub dry_run: bool,
    /// Regular files.
    pub files: u64,
    /// Directories, without the top.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all regular files.
    pub total_bytes: u64,
    /// Objects that were made (or would be).
    pub new_objects: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Of those, bytes that share the source's blocks.
    pub reflinked_bytes: u64,
    /// Files that are a link to an object that was there.
    pub linked_files: u64,
    /// Files that had to be copied, since no link can be made here.
    pub copied_files: u64,
    /// Files that are private copies by configuration.
    pub private_files: u64,
    /// Files that were not read, since they have not changed.
    pub unread_files: u64,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Something the user should know and that stopped nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable word: `skipped`, `pyc`, `setid`, `copied`, `link-leaves-tree`, `renewed`, `not-relinked`.
    pub kind: &'static str,
    /// The path it is about, if it is about one.
    pub path: Option<TreePath>,
    /// The sentence.
    pub message: String,
}

impl Job<'_> {
    pub(in crate::ops) fn report(&self, passed: &Passed, tally: &Tally, outcome: Option<Outcome>) -> Report {
        let (import_number, already_there) = match outcome {
            Some(Outcome::Published { import_number }) => (Some(import_number), false),
            Some(Outcome::AlreadyThere { import_number }) => (Some(import_number), true),
            None => (None, false),
        };
        let mut warnings = passed.warnings.clone();
        let mut warn = |kind, message| warnings.push(Warning { kind, path: None, message });
        if tally.setid_files.get() > 0 {
            warn(
                "setid",
                format!(
                    "{} files are set-user-id, set-group-id or have file capabilities; see them with: tope-store ls -l",
                    tally.setid_files.get()
                ),
            );
        }
        if tally.pinned_files.get() > 0 {
            let (files, bytes) = (tally.pinned_files.get(), tally.pinned_bytes.get());
            warn(
                "pyc",
                format!(
                    "{files} Python sources ({bytes} bytes) keep their own modification time for their compiled files and are shared only with releases that have the same time; compile with --invalidation-mode unchecked-hash to share them, or import with --pyc share"
                ),
            );
        }
        if tally.copied_files.get() > 0 {
            warn(
                "copied",
                match tally.copied_files.get() {
                    1 => "1 file was copied, since no hardlink to it could be made".to_owned(),
                    count => format!("{count} files were copied, since no hardlinks to them could be made"),
                },
            );
        }
        Report {
            version: self.version.clone(),
            digest: Digest(passed.root),
            import_number,
            already_there,
            dry_run: self.options.mode == Mode::DryRun,
            files: tally.files.get(),
            directories: passed.directories,
            symlinks: tally.symlinks.get(),
            total_bytes: tally.total_bytes.get(),
            new_objects: tally.new_objects.get(),
            new_bytes: tally.new_bytes.get(),
            reflinked_bytes: tally.reflinked_bytes.get(),
            linked_files: if already_there { 0 } else { tally.linked_files.get() },
            copied_files: tally.copied_files.get(),
            private_files: tally.private_files.get(),
            unread_files: tally.unread_files.get(),
            warnings,
            elapsed: self.start.elapsed(),
        }
    }
}
