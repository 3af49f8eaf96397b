//! One pass over a version's tree.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::problem::{Checked, Problem, ProblemKind};
use super::{Checker, Depth, Expect, Strangers};
use crate::error::{Error, Result, Shown, chain};
use crate::fsys::{Dir, Kind, Stat, file};
use crate::materialise::plan::{Plan, PlanDir, PlanFile, What};
use crate::model::metadata::WRITE_BITS;
use crate::model::{EntryName, Metadata, ObjectKey, TreePath, VersionName};
use crate::object::Recorded;
use crate::object::check::{Fault, by_stat};
use crate::object::trust::Suspects;
use crate::observe::{self, Work};

/// Says of a file why it is damaged though it may look right.
const DISTRUSTED: &str = "its object was found damaged and was not made again since";

#[derive(Default)]
pub(super) struct Tally {
    entries: AtomicU64,
    hashed_files: AtomicU64,
    own_inodes: AtomicU64,
    linked_files: AtomicU64,
    unseen: AtomicU64,
}

impl Tally {
    fn add(&self, counted: &Counted, entries: u64) {
        self.entries.fetch_add(entries, Relaxed);
        self.hashed_files.fetch_add(counted.hashed_files, Relaxed);
        self.own_inodes.fetch_add(counted.own_inodes, Relaxed);
        self.linked_files.fetch_add(counted.linked_files, Relaxed);
    }
}

/// What was found in one directory, so that threads meet once for each.
#[derive(Default)]
pub(super) struct Counted {
    hashed_files: u64,
    own_inodes: u64,
    linked_files: u64,
}

/// A name in a directory of the plan; its path is made only where it is told.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    directory: &'a PlanDir,
    name: &'a EntryName,
}

impl Place<'_> {
    fn path(self) -> TreePath {
        self.directory.path.join(self.name)
    }
}

/// One version being checked.
pub(super) struct Pass<'a> {
    pub(super) checker: &'a Checker<'a>,
    pub(super) plan: &'a Plan,
    pub(super) version: &'a VersionName,
    pub(super) expect: Expect,
    /// Of all passes of the checker, from 1.
    pub(super) number: u32,
    pub(super) tally: Tally,
    pub(super) problems: Mutex<Vec<Problem>>,
    pub(super) failure: OnceLock<Error>,
}

impl Pass<'_> {
    pub(super) fn finish(self) -> Result<Checked> {
        if let Some(error) = self.failure.into_inner() {
            return Err(error);
        }
        let mut problems = self.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        problems.sort_unstable();
        let Tally { entries, hashed_files, own_inodes, linked_files, unseen } = self.tally;
        Ok(Checked {
            problems,
            entries: entries.into_inner(),
            hashed_files: hashed_files.into_inner(),
            own_inodes: own_inodes.into_inner(),
            linked_files: linked_files.into_inner(),
            unseen: unseen.into_inner(),
            suspects: Suspects::new(),
            unrecorded: None,
            pass: self.number,
        })
    }

    fn report(&self, path: TreePath, kind: ProblemKind, detail: impl Into<String>) {
        let problem = Problem { path, kind, version: self.version.clone(), detail: detail.into() };
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    pub(super) fn start<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, dir: Dir) {
        if self.failure.get().is_none()
            && let Err(error) = self.directory(scope, at, dir)
        {
            drop(self.failure.set(error));
        }
    }

    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, at: usize, mut dir: Dir) -> Result<()> {
        observe::check(self.checker.observer)?;
        let directory = &self.plan.directories[at];
        if at != 0 {
            self.directory_itself(directory, &dir)?;
        }
        if let Err(error) = self.strangers(directory, &mut dir) {
            self.cannot_look(&directory.path, &error)?;
        }
        let mut counted = Counted::default();
        for file in &directory.files {
            if self.checker.depth == Depth::Full {
                observe::check(self.checker.observer)?;
            }
            let place = Place { directory, name: &file.name };
            if let Err(error) = self.file(place, &dir, file, &mut counted) {
                self.cannot_look(&place.path(), &error)?;
            }
        }
        self.tally.add(&counted, 1 + directory.files.len() as u64);
        self.checker.observer.work(Work::Files, directory.files.len() as u64);
        let dir = Arc::new(dir);
        for &child in &directory.children {
            let dir = Arc::clone(&dir);
            scope.spawn(move |scope| {
                let path = &self.plan.directories[child].path;
                match dir.open_dir(path.last().unwrap_or_default()) {
                    Ok(inner) => self.start(scope, child, inner),
                    Err(error) => {
                        if let Err(error) = self.cannot_enter(path, &error) {
                            drop(self.failure.set(error));
                        }
                    }
                }
            });
        }
        Ok(())
    }

    fn directory_itself(&self, directory: &PlanDir, dir: &Dir) -> Result<()> {
        let (stat, expected) = (dir.stat_self()?, &directory.metadata);
        if stat.mode != expected.mode && stat.mode != expected.mode & !WRITE_BITS {
            let detail = format!("its mode is {:04o} instead of {:04o}", stat.mode, expected.mode);
            self.report(directory.path.clone(), ProblemKind::Mode, detail);
        }
        self.owner(|| directory.path.clone(), &stat, (expected.uid, expected.gid));
        if self.checker.depth == Depth::Full && file::xattrs(dir, || dir.path().to_owned())? != expected.xattrs {
            self.report(directory.path.clone(), ProblemKind::Attributes, Fault::Xattrs.to_string());
        }
        Ok(())
    }

    fn owner(&self, path: impl FnOnce() -> TreePath, stat: &Stat, expected: (u32, u32)) {
        if (stat.uid, stat.gid) != expected {
            let fault = Fault::Owner { expected, found: (stat.uid, stat.gid) };
            self.report(path(), ProblemKind::Owner, fault.to_string());
        }
    }

    fn file(&self, place: Place<'_>, dir: &Dir, file: &PlanFile, counted: &mut Counted) -> Result<()> {
        if matches!(file.what, What::Private(_) | What::PrivateEmpty { .. }) {
            return Ok(());
        }
        let Some(stat) = dir.try_stat(&file.name)? else {
            self.report(place.path(), ProblemKind::Missing, "it is not there");
            return Ok(());
        };
        match &file.what {
            What::Private(_) | What::PrivateEmpty { .. } => Ok(()),
            What::Object { key, recorded } => self.object(place, dir, &stat, (key, *recorded), counted),
            What::Empty { metadata } => {
                self.empty(place, &stat, metadata);
                Ok(())
            }
            What::Symlink { target, owner } => {
                if stat.kind != Kind::Symlink {
                    self.report(place.path(), ProblemKind::Type, format!("it is {}", stat.kind.describe()));
                    return Ok(());
                }
                let found = dir.read_link(&file.name)?;
                if found != *target {
                    let detail = format!("it leads to {} instead of {}", Shown::bytes(&found), Shown::bytes(target));
                    self.report(place.path(), ProblemKind::Target, detail);
                }
                self.owner(|| place.path(), &stat, *owner);
                Ok(())
            }
        }
    }

    fn empty(&self, place: Place<'_>, stat: &Stat, expected: &Metadata) {
        if stat.kind != Kind::File {
            self.report(place.path(), ProblemKind::Type, Fault::Kind(stat.kind).to_string());
        } else if stat.size != 0 {
            self.report(place.path(), ProblemKind::Size, Fault::Size { expected: 0, found: stat.size }.to_string());
        } else if stat.mode != expected.mode {
            let fault = Fault::Mode { expected: expected.mode, found: stat.mode };
            self.report(place.path(), ProblemKind::Mode, fault.to_string());
        } else {
            self.owner(|| place.path(), stat, (expected.uid, expected.gid));
        }
    }

    fn object(
        &self,
        place: Place<'_>,
        dir: &Dir,
        stat: &Stat,
        (key, recorded): (&ObjectKey, Recorded),
        counted: &mut Counted,
    ) -> Result<()> {
        if let Err(fault) = by_stat(stat, key, Some(&recorded)) {
            self.report(place.path(), ProblemKind::of(&fault), fault.to_string());
            return Ok(());
        }
        let listed = self.checker.listed(key, stat);
        let linked = listed.is_some() || self.checker.is_object(key, stat)?;
        if linked {
            counted.linked_files += 1;
        } else {
            counted.own_inodes += 1;
        }
        let revoked = linked && self.checker.revoked.contains(key);
        if revoked && self.checker.depth == Depth::Quick {
            self.report(place.path(), ProblemKind::Content, DISTRUSTED);
            return Ok(());
        }
        let as_expected = linked || (self.expect == Expect::OwnInodes && stat.links == 1);
        if as_expected && self.checker.depth == Depth::Quick {
            if let Some((proofs, object)) = listed {
                proofs.prove(object, self.number);
            }
            return Ok(());
        }
        let listed = listed.filter(|_| !revoked).map(|(proofs, object)| (proofs, object, self.number));
        let fault = self.checker.content_fault((dir, place.name.as_bytes()), stat, key, listed)?;
        counted.hashed_files += 1;
        match fault {
            Some(fault) => {
                if linked {
                    self.checker.suspect(key, stat);
                }
                self.report(place.path(), ProblemKind::of(&fault), fault.to_string());
            }
            None if revoked => self.report(place.path(), ProblemKind::Content, DISTRUSTED),
            None => {}
        }
        Ok(())
    }

    /// Reports names that do not belong into a directory, unless a service has files of its own there.
    fn strangers(&self, directory: &PlanDir, dir: &mut Dir) -> Result<()> {
        if self.checker.strangers == Strangers::Ignore || directory.holds_private_files() {
            return Ok(());
        }
        let child = |at: &usize| self.plan.directories[*at].path.last().unwrap_or_default();
        dir.list(|_, item| {
            let known = directory.files.binary_search_by(|file| file.name.as_bytes().cmp(item.name)).is_ok()
                || directory.children.binary_search_by(|at| child(at).cmp(item.name)).is_ok();
            if !known {
                let name = EntryName::new(item.name).map_err(|error| Error::source(item.name, error.to_string()))?;
                let detail = format!("{} that is no part of the version", item.kind.describe());
                self.report(directory.path.join(&name), ProblemKind::Unexpected, detail);
            }
            Ok(())
        })
    }

    pub(super) fn cannot_enter(&self, path: &TreePath, error: &Error) -> Result<()> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        // With O_NOFOLLOW a symbolic link to a directory answers so as well.
        let something_else = error.is_io(NotADirectory) || error.raw_os_error() == Some(libc::ELOOP);
        if error.is_io(NotFound) && path.is_top() {
            self.report(path.clone(), ProblemKind::MissingTree, "missing-tree: its tree is gone");
        } else if error.is_io(NotFound) {
            self.report(path.clone(), ProblemKind::Missing, "it is not there");
        } else if something_else {
            self.report(path.clone(), ProblemKind::Type, "it is not a directory");
        } else {
            return self.cannot_look(path, error);
        }
        Ok(())
    }

    /// What cannot be read is a finding; what this user may not read is none.
    fn cannot_look(&self, path: &TreePath, error: &Error) -> Result<()> {
        match error {
            Error::Interrupted => Err(Error::Interrupted),
            error if error.is_io(std::io::ErrorKind::PermissionDenied) => {
                self.tally.unseen.fetch_add(1, Relaxed);
                Ok(())
            }
            error if error.is_io(std::io::ErrorKind::NotFound) => {
                self.report(path.clone(), ProblemKind::Missing, "it vanished while it was looked at");
                Ok(())
            }
            error => {
                self.report(path.clone(), ProblemKind::Unreadable, chain(error));
                Ok(())
            }
        }
    }
}
