//! Adoption: taking trees that were made by hand (`cp -r`) under management, in place.
//!
//! A tree is read like any source, and a tree of links is built in staging. Then both are exchanged in one step, as
//! [`store::adoption`](crate::store::adoption) says, and the displaced tree is looked at again: if anything changed since
//! it was read, they are exchanged back. Only then the version is published and the displaced tree removed.
//!
//! A service may go on writing meanwhile, to what the configuration says it writes: private files keep their inodes, and
//! so do those that seed shared paths. A process that may write to any other file of the tree, because it has the file
//! open for writing or maps it, by this or by another name, stops the adoption.
//!
//! **Invariant:** who reads `versions/V/…` by path finds the same bytes before, during and after; only modes change, since
//! what is shared is sealed.

mod compare;

use std::collections::HashSet;
use std::time::Instant;

use super::import::{self, Built, Job, Mode, Options, PrivateFiles, Reader, Tally, Warning};
use super::publish::Outcome;
use super::shared_state;
use crate::error::{Error, Refusal, Result, Shown};
use crate::fsys::process::{Use, uses_below, writers};
use crate::fsys::{Dir, Kind};
use crate::layout;
use crate::model::{Action, Digest, EntryName, Event, Manifest, Role, Source, SourceKind, TreePath, VersionName};
use crate::observe::{Observer, Stage};
use crate::scan::{self, Scan};
use crate::staging::Run;
use crate::store::adoption::Note;
use crate::store::removal::{Trashed, user, users};
use crate::store::{SharedStore, Store};

/// What became of the trees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Report {
    /// Versions that were adopted (or would be), in the order of their import numbers.
    pub adopted: Vec<Adopted>,
    /// Versions that were asked for and are managed already.
    pub already_managed: Vec<VersionName>,
    /// Directories whose names no version can have.
    pub unsuitable: Vec<EntryName>,
}

/// One adopted version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// What reading and building it came to.
    pub import: import::Report,
    /// The displaced tree stays in trash until the processes that use it end: a process whose working directory it is
    /// goes on in it.
    pub displaced_in_use: bool,
}

/// Adopts these trees, or all that are not managed if none is named. Several are numbered in the order of their names.
///
/// # Errors
///
/// - [`Error::NotFound`] for a name that is no directory in `versions/`;
/// - [`Error::Refused`] if a process may write to a file of one, if one changed meanwhile, or holds what cannot be part
///   of a version;
/// - what reading a source may fail with, and what the system refuses.
///
/// On an error the tree it is about is as it was; those before it are adopted.
pub fn adopt(store: &Store, names: &[VersionName], options: &Options, observer: &dyn Observer) -> Result<Report> {
    store.check_changeable()?;
    store.expect_understood("adopt")?;
    store.prepare_index();
    let mut all_made = Vec::new();
    let shared = store.share()?;
    shared.heal()?;
    let (names, mut report) = chosen(&shared, names)?;
    for name in &names {
        refuse_writers(store.versions(), name.as_ref(), None, options, name)?;
    }
    for name in &names {
        let job = Job {
            store: &shared,
            version: name,
            options,
            observer,
            start: Instant::now(),
            private: PrivateFiles::LinkedToSource,
            made: std::sync::Mutex::default(),
        };
        let adopted = store.in_pool(|| adopt_one(&job));
        let made = job.made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        import::revoke_suspects(store, &made);
        report.adopted.push(adopted??);
        all_made.extend(made);
    }
    drop(shared);
    if let Some(last) = report.adopted.last_mut() {
        last.import = import::renewed(store, last.import.clone(), all_made, None, observer);
    }
    Ok(report)
}

/// The trees to adopt in the order of their names.
fn chosen(store: &SharedStore<'_>, names: &[VersionName]) -> Result<(Vec<VersionName>, Report)> {
    let mut report = Report::default();
    let mut chosen = Vec::new();
    let managed = |name: &VersionName| Ok::<bool, Error>(store.manifests()?.stat(name)?.is_some());
    for name in names {
        match store.versions().try_stat(name)? {
            _ if managed(name)? => report.already_managed.push(name.clone()),
            Some(stat) if stat.kind == Kind::Directory => chosen.push(name.clone()),
            _ => return Err(Error::NotFound { what: "version", name: name.to_string() }),
        }
    }
    if names.is_empty() {
        let found = store.made_by_hand()?;
        chosen = found.versions;
        report.unsuitable = found.unsuitable;
    }
    chosen.sort();
    chosen.dedup();
    Ok((chosen, report))
}

fn adopt_one(job: &Job<'_>) -> Result<Adopted> {
    let source = job.store.versions().open_dir(job.version)?;
    let note = Note { version: job.version.clone(), inode: source.stat_self()?.inode };
    let scan = scan::scan(&source, job.observer)?;
    refuse_writers(job.store.versions(), job.version.as_ref(), Some(&scan), job.options, job.version)?;
    let published = job.store.published_objects()?;
    let reader = Reader::new(job, &source, &scan, &published)?;
    let tally = Tally::default();
    job.observer.stage(Stage::Import, Some(scan.entries()));
    let rehearsed = job.rehearse(&scan, &reader)?;
    if let Some((passed, dry)) = rehearsed.filter(|_| job.options.mode == Mode::DryRun) {
        return Ok(Adopted { import: job.report(&passed, &dry, None), displaced_in_use: false });
    }
    let Built { run, mut passed, noted } = job.build(&scan, &reader, &tally)?;
    note.write(run.dir())?;
    run.dir().sync_file_system()?;
    let publishing = job.store.publish_lock()?;
    let changed = Error::refused(Refusal::Superseded, format!("versions/{} was replaced meanwhile", job.version));
    match job.store.versions().try_stat(job.version)? {
        Some(stat) if stat.inode == note.inode && job.store.manifests()?.stat(job.version)?.is_none() => {}
        _ => return Err(changed),
    }
    shared_state::seed(job.store, &run, &passed.trees, passed.root, &passed.shared, Some(&source))?;
    noted.remember(job.store);
    // From here on nothing of ours may keep the displaced tree in use.
    drop(reader);
    drop(source);
    let place = format!("versions/{}", job.version).into_bytes();
    let draft = job.draft(&mut passed, Source { kind: SourceKind::Adopted, path: place });
    job.store.refuse_doubt()?;
    let manifest = draft.numbered(job.store.next_import()?);
    let displaced = swap(job, &run, &note, &scan, &manifest)?;
    let event = Event::about(Action::Adopt, job.version, Some(Digest(passed.root)));
    let import_number = manifest.facts.import_number;
    let checksum = job.store.manifests()?.checksum(job.version)?;
    let event = Event { import_number: Some(import_number), manifest: checksum, outcome: "done".into(), ..event };
    job.store.record(vec![event])?;
    drop(publishing);
    job.store.index_published(&manifest);
    let displaced_in_use = clear_away(job.store, run, displaced, job.version, import_number)?;
    let mut import = job.report(&passed, &tally, Some(Outcome::Published { import_number }));
    if displaced_in_use {
        let message = format!(
            "processes still use the tree that was in the place of {}; it is removed by the next gc after they end",
            job.version
        );
        import.warnings.push(Warning { kind: "displaced-in-use", path: None, message });
    }
    Ok(Adopted { import, displaced_in_use })
}

/// Exchanges the trees and publishes the manifest, or puts everything back. Gives the name of the displaced tree in the
/// run's directory.
fn swap(job: &Job<'_>, run: &Run, note: &Note, scan: &Scan, manifest: &Manifest) -> Result<&'static str> {
    let refs = job.store.refs()?;
    let exchanged = {
        let links = refs.lock(job.store.settings().lock_timeout)?;
        links.recover()?;
        let is_current = links.read()?.version(Role::Current) == Some(job.version);
        // From here on the run may hold the only copy of what was made by hand.
        run.set_precious(true);
        job.store.exchange(run.dir(), job.version, is_current)
    };
    let displaced = exchanged.and_then(|exchanged| {
        job.store.sync_exchange(run.dir())?;
        look_again(job, run, exchanged.displaced(), scan)?;
        let manifests = job.store.manifests()?;
        // If it is there and cannot be made durable, it must go before the trees are put back.
        manifests.publish(manifest).inspect_err(|_| drop(manifests.remove(job.version)))?;
        Ok(exchanged.displaced())
    });
    let settled = match &displaced {
        Ok(_) => Ok(()),
        Err(_) if job.store.manifests()?.stat(job.version)?.is_some() => return displaced,
        Err(_) => job.store.undo_exchange(run.dir(), note),
    };
    match settled {
        Ok(()) => run.set_precious(false),
        Err(error) => tracing::error!(%error, "the tree could not be put back now; the next command will"),
    }
    displaced
}

/// Fails if the displaced tree is not as it was when it was read, or if somebody may still write to it.
fn look_again(job: &Job<'_>, run: &Run, displaced: &str, scan: &Scan) -> Result<()> {
    refuse_writers(run.dir(), displaced.as_bytes(), Some(scan), job.options, job.version)?;
    let top = run.dir().open_dir(displaced)?;
    let again = scan::scan(&top, job.observer)?;
    match compare::first_difference(scan, &again, &|path| is_written(job.options, path)) {
        None => Ok(()),
        Some(path) => Err(Error::refused_with(
            Refusal::Superseded,
            format!("{path} in {} changed while it was being adopted; nothing was changed", job.version),
            "stop what writes there, or declare it in [import] private or shared",
        )),
    }
}

/// Whether a path is declared as one that a service writes.
fn is_written(options: &Options, path: &TreePath) -> bool {
    options.private.covers(path) || options.shared.covers(path)
}

/// Refuses if a process may write to a file below `dir/name`, outside private and shared paths: by its path, or, with what
/// was seen there, by its inode as well, which a process may have opened by another name or in another mount namespace.
fn refuse_writers(dir: &Dir, name: &[u8], seen: Option<&Scan>, options: &Options, version: &VersionName) -> Result<()> {
    let device = dir.stat_self()?.device;
    let inodes = seen.map(|scan| undeclared(scan, device, options)).unwrap_or_default();
    let found = writers(&dir.real_path()?, device, &inodes)?;
    let writes = |used: &Use| {
        let declared = TreePath::parse(&used.path).is_ok_and(|path| is_written(options, &path));
        used.writes && used.name.as_bytes() == name && !declared
    };
    let mut writers = users(found.uses.first().map_or(&[], Vec::as_slice), writes);
    if writers.is_empty() {
        writers = found.written.iter().map(|hold| user(hold.pid, hold.how, &hold.path)).collect();
    }
    if writers.is_empty() {
        return Ok(());
    }
    Err(Error::refused_with(
        Refusal::Protected,
        format!("a process may write to a file of {version}: {}", Shown::text(&writers.join(", "))),
        "stop what writes there, or declare it in [import] private or shared",
    ))
}

/// Inodes of the files on this device that no service is declared to write.
fn undeclared(scan: &Scan, device: u64, options: &Options) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for directory in &scan.directories {
        let files = directory.files.iter().filter(|file| file.stat.kind == Kind::File && file.stat.device == device);
        inodes.extend(
            files.filter(|file| !is_written(options, &directory.path.join(&file.name))).map(|file| file.stat.inode),
        );
    }
    inodes
}

/// Removes the displaced tree; while processes use it, moves it to trash. Tells which.
fn clear_away(
    store: &SharedStore<'_>,
    run: Run,
    displaced: &str,
    version: &VersionName,
    import_number: u64,
) -> Result<bool> {
    let uses = run.dir().real_path().and_then(|path| uses_below(&path));
    // What cannot be found out may be in use.
    let in_use = uses.map_or(true, |uses| uses.is_used(displaced.as_bytes()));
    if in_use {
        let trashed = Trashed { version: version.clone(), import_number, displaced: true };
        run.set_precious(true);
        run.dir().rename_new(displaced, &store.trash_dir()?, trashed.name())?;
        run.set_precious(false);
        store.dir().open_dir(layout::TRASH)?.sync()?;
    }
    if let Err(error) = run.finish() {
        tracing::warn!(%error, "cannot remove all of the tree that was in its place; the next command will try");
    }
    Ok(in_use)
}
