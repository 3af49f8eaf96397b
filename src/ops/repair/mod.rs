//! Repairing: what verifying finds is mended from good bytes, wherever they are.
//!
//! | step | died after it, the next repair sees |
//! | --- | --- |
//! | 1. manifests that are lost or damaged are made anew ([`manifests`]) | a version like any other |
//! | 2. everything is read and compared ([`super::verify`]) | the same |
//! | 3. objects that are damaged, or were found to be, get fresh inodes ([`objects`]) | good objects that are revoked still; trees that still have the old inodes |
//! | 4. every path in every version that is not right is replaced by one that is ([`tree`]) | fewer such paths |
//! | 5. all that is made durable, and the objects are no longer revoked | objects like any other |
//! | 6. role links that lead nowhere are pointed where they were recorded ([`roles`]) | the same |
//! | 7. the versions concerned are read again; what remains is recorded as damage, what does not as mended | a repair that nobody recorded: it finds nothing and clears the marks |
//!
//! The store's lock is held alone throughout, so that no import links what is being replaced.
//!
//! **Invariant:** at every instant every path leads to its old inode or to a new one whose bytes were compared with
//! the manifest's hash and made durable before.

mod manifests;
mod objects;
mod record;
mod renewal;
mod roles;
mod source;
mod tree;

pub(super) use renewal::{Unfinished, complete};
pub(super) use roles::point_roles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::check::{Depth, ReadFrom};
use super::factory::protection;
use super::verify::{self, Finding, OTHER_MANIFEST, beside_versions, every_name, verify};
use crate::archive::Limits;
use crate::error::{Error, Result, chain};
use crate::fsys::remove;
use crate::layout;
use crate::materialise::plan::Plan;
use crate::materialise::{Inodes, apply};
use crate::model::{Manifest, ObjectKey, Role, TreePath, VersionName};
use crate::object::trust::Replaced;
use crate::object::{LinkPolicy, NothingPublished, Objects};
use crate::observe::Observer;
use crate::staging::{INCOMING, Run, TREE};
use crate::store::survey::Survey;
use crate::store::{ExclusiveStore, Store};

use record::keys_at;
use source::Source;
use tree::{Mender, Task};

/// What to repair, and from what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Versions; all of them, and the role links, if there are none here.
    pub versions: Vec<VersionName>,
    /// Where bytes are read from.
    pub from: ReadFrom,
    /// A directory or an archive with a release, or another store, for what is nowhere here.
    pub source: Option<PathBuf>,
    /// Bounds for that archive.
    pub limits: Limits,
}

/// How an object is mended; recorded with the end of its revocation.
const RENEWED: &str = "renewed";

/// Everything that is to be mended at once.
struct Work {
    /// Objects that are to be made again.
    bad: BTreeSet<ObjectKey>,
    /// Objects that were.
    made: Replaced,
    /// Paths at which something was found.
    paths: BTreeMap<VersionName, BTreeSet<TreePath>>,
}

/// Where mending failed: versions and paths.
type Failed = BTreeSet<(VersionName, Vec<u8>)>;

/// Something that was mended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mended {
    /// The version it belongs to, if it belongs to one.
    pub version: Option<VersionName>,
    /// Where: in the version, or in the root.
    pub path: Vec<u8>,
    /// How, in a word: `relinked`, `copied`, `made`, `dressed`, `renewed`, `restored`, `pointed`.
    pub how: &'static str,
}

/// What a repair came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What was found before anything was mended.
    pub found: verify::Report,
    /// What was mended, by version and path.
    pub mended: Vec<Mended>,
    /// What is still damaged.
    pub remaining: Vec<Finding>,
    /// Versions that are marked as damaged now.
    pub marked: Vec<VersionName>,
    /// Versions that were marked as damaged before and are sound now.
    pub cleared: Vec<VersionName>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing is damaged any longer.
    pub fn ok(&self) -> bool {
        self.remaining.is_empty()
    }
}

/// Verifies versions, or the whole store, reading every file, and mends what is damaged.
///
/// # Errors
///
/// - [`Error::Locked`] while others are at work; [`Error::Refused`] if this user may not write here;
/// - [`Error::NotFound`] for a version that is not there;
/// - the source cannot be read; [`Error::Interrupted`]. What was mended until then stays mended.
///
/// What cannot be mended is no error but in the report.
pub fn repair(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Report> {
    let start = Instant::now();
    let source = options.source.as_deref().map(|path| Source::open(path, &options.limits)).transpose()?;
    let store = store.exclude_to_repair()?;
    store.expect_understood("repair")?;
    let mut report = Report::default();
    settle(&store, &mut report);
    let survey = store.survey()?;
    let names = match options.versions.as_slice() {
        [] => every_name(&store, &survey.marks)?,
        named => named.to_vec(),
    };
    let job = Job { store: &store, survey: &survey, source: source.as_ref(), observer };
    let lost = job.restore_manifests(&names, &mut report)?;
    let verify_options = |versions, from| verify::Options { versions, depth: Depth::Full, from };
    report.found = verify(&store, &verify_options(options.versions.clone(), options.from), observer)?;
    let (concerned, failed) = job.mend(&mut report)?;
    if options.versions.is_empty() {
        let (mended, failed) = roles::mend(&store, observer)?;
        report.mended.extend(mended);
        report.warnings.extend(failed.iter().map(|error| chain(error)));
    }
    job.protect_factory(&mut report);
    store.versions().sync_file_system()?;
    if !concerned.is_empty() {
        let again = verify(&store, &verify_options(concerned.into_iter().collect(), ReadFrom::Cache), observer)?;
        let asked = |finding: &Finding| {
            let version = finding.version.as_ref();
            options.versions.is_empty()
                || version.is_none_or(|version| {
                    options.versions.contains(version) || failed.contains(&(version.clone(), finding.path.clone()))
                })
        };
        report.remaining.extend(again.findings.into_iter().filter(|finding| finding.damage && asked(finding)));
    }
    if options.versions.is_empty() {
        report.remaining.extend(beside_versions(&store)?);
    }
    report.found.findings.splice(0..0, lost);
    report.mended.sort();
    report.mended.dedup();
    job.record(&names, &mut report);
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Completes what an interruption left. Lost versions stay: their trees are about to be built again.
fn settle(store: &ExclusiveStore<'_>, report: &mut Report) {
    if let Err(error) = store.as_shared().heal_keeping_lost() {
        report.warnings.push(format!("what an interruption left stays for now: {}", chain(&error)));
    }
}

struct Job<'a> {
    store: &'a ExclusiveStore<'a>,
    survey: &'a Survey,
    source: Option<&'a Source>,
    observer: &'a dyn Observer,
}

impl Job<'_> {
    /// Makes manifests anew that are lost or damaged; gives what was wrong with those that could be.
    fn restore_manifests(&self, names: &[VersionName], report: &mut Report) -> Result<Vec<Finding>> {
        let manifests = self.store.manifests()?;
        let mut lost = Vec::new();
        for name in names {
            let known = self.survey.marks.versions.get(name);
            let (detail, exact) = match manifests.read(name) {
                Ok(manifest) => match known {
                    Some(known) if known.digest != manifest.digest() => (OTHER_MANIFEST.to_owned(), false),
                    Some(known) if known.manifest.is_some() && known.manifest != manifests.checksum(name)? => {
                        (OTHER_MANIFEST.to_owned(), true)
                    }
                    _ => continue,
                },
                Err(error @ Error::Corrupt { .. }) => (chain(&error), false),
                Err(Error::NotFound { .. }) if known.is_some() => ("it is not there".to_owned(), false),
                // Said by verify.
                Err(_) => continue,
            };
            let restored = manifests::restore(self.store, self.survey, name, self.source, exact, self.observer);
            match restored {
                Ok(true) => {
                    let path = format!("store/manifests/{name}").into_bytes();
                    let (version, kind) = (Some(name.clone()), "manifest".to_owned());
                    report.mended.push(Mended { version: version.clone(), path: path.clone(), how: "restored" });
                    lost.push(Finding { kind, version, path, detail, damage: true });
                }
                Ok(false) => {}
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => report.warnings.push(format!("the manifest of {name}: {}", chain(&error))),
            }
        }
        Ok(lost)
    }

    /// Mends objects and trees; gives the versions that have to be looked at again, and where mending failed.
    fn mend(&self, report: &mut Report) -> Result<(BTreeSet<VersionName>, Failed)> {
        let damage: Vec<&Finding> = report.found.findings.iter().filter(|finding| finding.damage).collect();
        let mut concerned: BTreeSet<VersionName> =
            damage.iter().filter_map(|finding| finding.version.clone()).collect();
        concerned.extend(report.mended.iter().filter_map(|mended| mended.version.clone()));
        let bad: BTreeSet<ObjectKey> = damage.iter().filter_map(|finding| object_named(finding)).collect();
        let mut paths: BTreeMap<VersionName, BTreeSet<TreePath>> = BTreeMap::new();
        for finding in damage.iter().filter(|finding| !is_beside_trees(finding)) {
            if let (Some(version), Ok(path)) = (&finding.version, TreePath::parse(&finding.path)) {
                paths.entry(version.clone()).or_default().insert(path);
            }
        }
        let work = Work { bad, made: Replaced::new(), paths };
        let failed = self.mend_all(work, &mut concerned, report)?;
        Ok((concerned, failed))
    }

    /// Makes objects again, puts every path right that needs it, and ends the revocation of the objects.
    fn mend_all(&self, work: Work, concerned: &mut BTreeSet<VersionName>, report: &mut Report) -> Result<Failed> {
        let Work { bad, made, paths } = work;
        if bad.is_empty() && made.is_empty() && paths.is_empty() {
            return Ok(Failed::new());
        }
        let run = Run::begin(&self.store.staging_dir()?)?;
        let incoming = run.dir().create_dir(INCOMING, layout::PRIVATE_DIR_MODE)?;
        let aside = incoming.try_clone()?;
        let objects = Objects::open(self.store.dir(), incoming, &NothingPublished, LinkPolicy::CopyIfNeeded)?;
        let marks = &self.survey.marks;
        let mut renewed = objects::renew(self.store, &objects, &bad, self.source, marks, &aside, self.observer)?;
        for key in renewed.objects.keys() {
            let path = format!("store/objects/{key}").into_bytes();
            report.mended.push(Mended { version: None, path, how: RENEWED });
        }
        let failed = renewed.failed.iter().map(|(key, why)| format!("the object {key}: {why}"));
        report.warnings.extend(failed);
        renewed.objects.extend(made);
        let mender = Mender {
            store: self.store,
            objects: &objects,
            aside: &aside,
            observer: self.observer,
            lost: &renewed.failed,
            replaced: &renewed.objects,
            read: Default::default(),
            counter: Default::default(),
        };
        let failed = self.mend_trees(&mender, &run, paths, concerned, report)?;
        run.finish()?;
        self.end_revocations(&renewed.objects, &failed, report)?;
        Ok(failed)
    }

    fn mend_trees(
        &self,
        mender: &Mender<'_>,
        run: &Run,
        mut paths: BTreeMap<VersionName, BTreeSet<TreePath>>,
        concerned: &mut BTreeSet<VersionName>,
        report: &mut Report,
    ) -> Result<Failed> {
        let manifests = self.store.manifests()?;
        let mut failed = Failed::new();
        let mut touched: BTreeSet<ObjectKey> = mender.replaced.keys().cloned().collect();
        for (name, damaged) in &paths {
            if let Ok(manifest) = manifests.read(name) {
                touched.extend(keys_at(&manifest, damaged));
            }
        }
        for name in manifests.names()? {
            let Ok(manifest) = manifests.read(&name) else { continue };
            let damaged = paths.remove(&name).unwrap_or_default();
            let isolated = self.survey.marks.isolated.contains(&name);
            let task = Task { manifest: &manifest, damaged: &damaged, touched: &touched, isolated };
            let done = match damaged.contains(&TreePath::top()) && !self.store.has_tree(&name)? {
                true => self.rebuild(mender, run, &manifest).map(|mended| tree::Done { mended, failed: Vec::new() }),
                false if self.store.has_tree(&name)? => mender.mend(&task),
                false => continue,
            };
            let done = match done {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => tree::Done { mended: Vec::new(), failed: vec![(TreePath::top(), Some(chain(&error)))] },
                Ok(done) => done,
            };
            if !done.mended.is_empty() || !done.failed.is_empty() {
                concerned.insert(name.clone());
            }
            report.mended.extend(done.mended);
            failed.extend(done.failed.iter().map(|(path, _)| (name.clone(), path.as_bytes().to_vec())));
            let said =
                done.failed.iter().filter_map(|(path, why)| why.as_ref().map(|why| format!("{name}: {path}: {why}")));
            report.warnings.extend(said);
        }
        Ok(failed)
    }

    /// Builds a whole tree that is gone, or has something else in its place, and puts it there.
    fn rebuild(&self, mender: &Mender<'_>, run: &Run, manifest: &Manifest) -> Result<Vec<Mended>> {
        let name = &manifest.facts.name;
        let plan = Plan::of(manifest)?;
        let built = format!("{TREE}-{name}");
        let target = run.dir().create_dir(&built, layout::PUBLIC_DIR_MODE)?;
        let top = target.try_clone()?;
        let published = Recorded::of(manifest, mender.lost)?;
        let incoming = run.dir().create_dir(format!("{INCOMING}-{name}"), layout::PRIVATE_DIR_MODE)?;
        let objects = Objects::open(self.store.dir(), incoming, &published, LinkPolicy::CopyIfNeeded)?;
        let inodes = match self.survey.marks.isolated.contains(name) {
            true => Inodes::Own,
            false => Inodes::Shared,
        };
        let mtime = (manifest.facts.imported_at, 0);
        let _applied = self.store.in_pool(|| apply(&plan, &objects, inodes, target, &|_| mtime, mender.observer))??;
        crate::fsys::file::set_mode(&top, layout::PUBLIC_DIR_MODE, || top.path().to_owned())?;
        run.dir().sync_file_system()?;
        match self.store.versions().try_stat(name)? {
            None => run.dir().rename_new(&built, self.store.versions(), name)?,
            Some(_) => {
                run.dir().exchange(&built, self.store.versions(), name)?;
                remove::tree(run.dir(), &built)?;
            }
        }
        self.store.versions().sync()?;
        Ok(vec![Mended { version: Some(name.clone()), path: Vec::new(), how: "made" }])
    }

    /// Protects the factory version again: what mending lifted, and what an interrupted one did.
    fn protect_factory(&self, report: &mut Report) {
        let protect = || -> Result<()> {
            let survey = self.store.survey()?;
            let Some(factory) = survey.roles.version(Role::Factory) else { return Ok(()) };
            let Some(manifest) = self.store.manifest(factory)? else { return Ok(()) };
            if survey.marks.roles.get(&Role::Factory) == Some(factory) && survey.history.is_trustworthy() {
                let _protected = protection::protect(self.store, &manifest, survey.marks.isolated.contains(factory))?;
            }
            Ok(())
        };
        if report.mended.is_empty() {
            return;
        }
        if let Err(error) = protect() {
            report.warnings.push(format!("the factory version is not protected as it should be: {}", chain(&error)));
        }
    }
}

/// The objects that one manifest refers to, but for those that are damaged and could not be made again.
struct Recorded<'a> {
    objects: std::collections::HashMap<ObjectKey, crate::object::Recorded>,
    lost: &'a BTreeMap<ObjectKey, String>,
}

impl<'a> Recorded<'a> {
    fn of(manifest: &Manifest, lost: &'a BTreeMap<ObjectKey, String>) -> Result<Self> {
        let mut objects = std::collections::HashMap::new();
        manifest.walk(|_, entry, placement| {
            objects
                .extend(placement.and_then(|placement| crate::store::published::object_of(manifest, entry, placement)));
            Ok::<(), Error>(())
        })?;
        Ok(Self { objects, lost })
    }
}

impl crate::object::Published for Recorded<'_> {
    fn lookup(&self, key: &ObjectKey) -> Result<Option<crate::object::Recorded>> {
        Ok(self.objects.get(key).filter(|_| !self.lost.contains_key(key)).copied())
    }

    fn revoked(&self, key: &ObjectKey) -> Result<Option<crate::object::Recorded>> {
        Ok(self.objects.get(key).filter(|_| self.lost.contains_key(key)).copied())
    }
}

/// Whether a finding is about something that lies in no tree.
fn is_beside_trees(finding: &Finding) -> bool {
    matches!(finding.kind.as_str(), "object" | "manifest" | "history" | "link" | "loss")
}

fn object_named(finding: &Finding) -> Option<ObjectKey> {
    let name = finding.path.strip_prefix(b"store/objects/").filter(|_| finding.kind == "object")?;
    let slash = name.iter().position(|byte| *byte == b'/')?;
    ObjectKey::parse(&name[..slash], &name[slash + 1..])
}
