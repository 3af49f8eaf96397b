//! Verifying: is everything still what it was recorded to be?
//!
//! Trees are compared with their manifests, objects with their keys, manifests with the history, links with what is
//! there. Each inode is read once, however many trees have it, and from the medium unless asked otherwise: what lies in
//! memory says nothing about what a reboot will find.
//!
//! No file is changed. What is wrong is no error but a finding, with version and path. An object whose bytes are wrong
//! is revoked in the history ([`crate::store::revoke`]), so that nothing takes it for intact because it looks so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::check::{Checked, Checker, Depth, Expect, Planned, Problem, ReadFrom};
use crate::error::{Error, Result, chain};
use crate::history::State;
use crate::layout;
use crate::model::{Marks, ObjectKey, Role, VersionName};
use crate::object::Recorded;
use crate::object::map::ObjectMap;
use crate::object::trust::Suspects;
use crate::observe::Observer;
use crate::refs::RoleLink;
use crate::store::Store;
use crate::store::published::object_of;
use crate::store::revoke::Revocation;
use crate::store::survey::Survey;

/// What to verify, and how closely.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Versions; all of them, and everything that belongs to none, if there are none here.
    pub versions: Vec<VersionName>,
    /// Whether bytes are read.
    pub depth: Depth,
    /// Where from.
    pub from: ReadFrom,
}

/// Something that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word: those of [`super::check::ProblemKind`], or `object` for the store's own copy, `manifest`,
    /// `history`, `link`, `loss` (most versions are gone at once); [`NEWER`] for a manifest that this binary is too old
    /// for.
    pub kind: String,
    /// The version it concerns, if it concerns one.
    pub version: Option<VersionName>,
    /// Where: in the version, or in the store.
    pub path: Vec<u8>,
    /// The sentence.
    pub detail: String,
    /// Whether something is lost or wrong; `false` for superfluous names, and for a manifest that is newer.
    pub damage: bool,
}

/// What is said of a manifest that is whole, and has another hash than the history recorded.
pub(super) const OTHER_MANIFEST: &str = "it is not the manifest that was published";

/// The kind of a finding about a version that this binary is too old to verify.
pub const NEWER: &str = "newer";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Report {
    /// Everything that is not as recorded.
    pub findings: Vec<Finding>,
    /// Versions that were looked at.
    pub versions: u64,
    /// Names in their trees.
    pub entries: u64,
    /// Objects that they refer to.
    pub objects: u64,
    /// Files that were read, each inode once.
    pub read_files: u64,
    /// Names that this user may not look at.
    pub unseen: u64,
    /// Objects that were found to be damaged, and are revoked from now on.
    pub revoked: Vec<ObjectKey>,
    /// Why that could not be recorded, if it could not: then the objects are used again where they look intact.
    pub unrecorded: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn ok(&self) -> bool {
        !self.findings.iter().any(|finding| finding.damage)
    }

    /// Whether this binary is too old to verify some of it.
    pub fn has_newer(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == NEWER)
    }
}

/// Verifies versions, or the whole store, and revokes the objects that are damaged.
///
/// # Errors
///
/// [`Error::NotFound`] for a version that is not there; [`Error::Interrupted`]; what keeps it from looking at all. That
/// the history cannot be written is none.
pub fn verify(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Report> {
    let (report, suspects) = inspect(store, options, observer)?;
    let Revocation { objects: revoked, unrecorded } = store.revoke(&suspects);
    Ok(Report { revoked, unrecorded: unrecorded.or(report.unrecorded), ..report })
}

/// Verifies and records nothing; gives the objects that are damaged besides.
///
/// # Errors
///
/// As [`verify`].
pub(super) fn inspect(store: &Store, options: &Options, observer: &dyn Observer) -> Result<(Report, Suspects)> {
    let start = Instant::now();
    let survey = store.survey()?;
    let whole = options.versions.is_empty();
    let names = if whole { every_name(store, &survey.marks)? } else { options.versions.clone() };
    let checker = Checker::new(store, options.depth, options.from, &survey.marks, observer)?;
    let mut pass = Pass { store, survey, checker: &checker, whole, report: Report::default() };
    let objects = pass.versions(&pass.oldest_first(names.clone()))?;
    // By version, whatever the order was in which they were looked at.
    pass.report.findings.sort_by(|one, other| one.version.cmp(&other.version));
    pass.objects(&names, &objects)?;
    let Pass { mut report, .. } = pass;
    if whole {
        report.findings.extend(beside_versions(store)?);
    }
    report.read_files = checker.read_files();
    report.unrecorded = checker.unrecorded();
    report.elapsed = start.elapsed();
    Ok((report, checker.suspects()))
}

/// What a look at one version found.
struct Looked {
    /// What should be there and what is, if there is a manifest to compare with.
    sight: Option<(Planned, Checked)>,
    findings: Vec<Finding>,
}

/// What is verified, and what came of it so far.
struct Pass<'a> {
    store: &'a Store,
    survey: Survey,
    checker: &'a Checker<'a>,
    whole: bool,
    report: Report,
}

impl Pass<'_> {
    fn oldest_first(&self, mut names: Vec<VersionName>) -> Vec<VersionName> {
        names.sort_by_cached_key(|name| self.survey.import_number(self.store, name));
        names
    }

    /// Looks at versions, oldest import first; gives the objects that they need and that no tree proves. While a tree is
    /// looked at, another thread reads the next manifest, but for the plan, which takes twice the memory.
    fn versions(&mut self, names: &[VersionName]) -> Result<ObjectMap> {
        let manifests = self.store.manifests()?;
        let mut objects = ObjectMap::default();
        let mut next = names.first().map(|name| manifests.body(name));
        for (at, name) in names.iter().enumerate() {
            let Some(body) = next.take() else { break };
            let aside = || names.get(at + 1).map(|name| manifests.body(name));
            let looked = std::thread::scope(|scope| {
                let aside = scope.spawn(aside);
                let read = body.and_then(|body| Planned::of_body(&manifests, name, &body));
                let looked = self.version(name, read, &mut objects);
                next = aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                looked
            });
            looked?;
        }
        Ok(objects)
    }

    /// Looks at one version, and takes in what it needs.
    fn version(&mut self, name: &VersionName, read: Result<Planned>, objects: &mut ObjectMap) -> Result<()> {
        let mut looked = self.look(name, read)?;
        let mut import = looked.sight.as_ref().map(|(planned, _)| planned.facts.import_number);
        // What was removed and imported again meanwhile is another version than the one that was looked at.
        while !looked.findings.is_empty() && self.is_another(name, &mut import)? {
            looked = self.look(name, Planned::read(&self.store.manifests()?, name))?;
        }
        let Looked { sight, findings } = looked;
        if let Some((planned, checked)) = sight {
            self.checker.need(&planned, &checked, objects);
            self.report.versions += 1;
            self.report.entries += checked.entries;
            self.report.unseen += checked.unseen;
        }
        self.report.findings.extend(findings);
        Ok(())
    }

    fn look(&self, name: &VersionName, read: Result<Planned>) -> Result<Looked> {
        let Self { store, survey: Survey { marks, .. }, .. } = self;
        let of_manifest =
            |detail| vec![Finding::in_store("manifest", Some(name), format!("store/manifests/{name}"), detail)];
        let unseen = |findings| Ok(Looked { sight: None, findings });
        let planned = match read {
            Ok(planned) => planned,
            Err(error @ Error::Corrupt { .. }) => return unseen(of_manifest(chain(&error))),
            Err(error @ Error::Newer { .. }) => {
                let path = format!("store/manifests/{name}");
                let newer = Finding { damage: false, ..Finding::in_store(NEWER, Some(name), path, chain(&error)) };
                return unseen(vec![newer]);
            }
            Err(Error::NotFound { .. })
                if marks.versions.contains_key(name) && (store.has_tree(name)? || store.is_lost_entirely(name)?) =>
            {
                return unseen(of_manifest("it is not there, though the history knows the version".into()));
            }
            // Removed since the names were read.
            Err(Error::NotFound { .. }) if self.whole => return unseen(Vec::new()),
            Err(error) => return Err(error),
        };
        let checksum = match store.manifests()?.checksum(name) {
            // Removed since the manifest was read.
            Err(error) if self.whole && error.is_io(std::io::ErrorKind::NotFound) => return unseen(Vec::new()),
            other => other?,
        };
        let mut findings = match marks.versions.get(name) {
            Some(known) if known.digest != planned.digest => of_manifest(format!(
                "the history says {}, the manifest {}",
                known.digest.short(),
                planned.digest.short()
            )),
            Some(known) if known.manifest.is_some() && known.manifest != checksum => {
                of_manifest(format!("{OTHER_MANIFEST}; labels, note and the placement of files may be other ones"))
            }
            _ => Vec::new(),
        };
        let expect = if marks.isolated.contains(name) { Expect::OwnInodes } else { Expect::Links };
        let checked = self.checker.version(&planned, expect)?;
        // A removal that runs beside this, or that was interrupted, is no damage: the next writing command ends it.
        if !checked.problems.is_empty() && store.is_being_removed(name)? {
            return unseen(Vec::new());
        }
        findings.extend(checked.problems.iter().map(finding));
        Ok(Looked { sight: Some((planned, checked)), findings })
    }

    /// Whether this name means another import by now than this one, as manifest and history have it; takes note of it.
    fn is_another(&mut self, name: &VersionName, import: &mut Option<u64>) -> Result<bool> {
        let (survey, before) = (self.store.survey()?, *import);
        let recorded = survey.marks.versions.get(name) != self.survey.marks.versions.get(name);
        self.survey = survey;
        *import = self.store.manifests()?.facts(name).ok().map(|(facts, _)| facts.import_number);
        Ok(recorded || *import != before)
    }

    /// Looks at the objects that these versions need and no tree proved; what is wrong with one is told of the first
    /// version that needs it.
    fn objects(&mut self, names: &[VersionName], objects: &ObjectMap) -> Result<()> {
        self.report.objects = self.checker.count_needed(objects);
        let mut wanted: Vec<(ObjectKey, Recorded)> = objects.iter().collect();
        wanted.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut faults = self.checker.objects(&wanted)?;
        if faults.is_empty() {
            return Ok(());
        }
        let manifests = self.store.manifests()?;
        if !self.whole {
            // A version that was not asked for may be the newest user, who recorded another time.
            let mut users = ObjectMap::default();
            for name in self.oldest_first(manifests.names()?) {
                if let Ok(planned) = Planned::read(&manifests, &name) {
                    planned.plan.objects().for_each(|(key, recorded)| users.insert(key, recorded));
                }
            }
            let again: Vec<(ObjectKey, Recorded)> =
                faults.into_iter().filter_map(|(key, _)| Some((key.clone(), users.get(&key)?))).collect();
            faults = self.checker.objects(&again)?;
        }
        let mut faults: BTreeMap<ObjectKey, String> = faults.into_iter().collect();
        let mut findings = Vec::new();
        for manifest in names.iter().filter_map(|name| manifests.read(name).ok()) {
            let version = &manifest.facts.name;
            manifest.walk(|path, entry, placement| {
                let object = placement.and_then(|placement| object_of(&manifest, entry, placement));
                if let Some((key, fault)) = object.and_then(|(key, _)| faults.remove_entry(&key)) {
                    let detail = format!("{fault}; {path} of {version} is made from it");
                    findings.push((key, version.clone(), detail));
                }
                Ok::<(), Error>(())
            })?;
        }
        findings.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        for (key, version, detail) in findings {
            self.report.store_finding("object", Some(&version), format!("store/objects/{key}"), detail);
        }
        Ok(())
    }
}

fn finding(problem: &Problem) -> Finding {
    Finding {
        kind: problem.kind.name().to_owned(),
        version: Some(problem.version.clone()),
        path: problem.path.as_bytes().to_vec(),
        detail: problem.detail.clone(),
        damage: problem.kind.is_damage(),
    }
}

/// Names of all versions that have a manifest, and of those that lost theirs.
pub(super) fn every_name(store: &Store, marks: &Marks) -> Result<Vec<VersionName>> {
    let mut names = store.manifests()?.names()?;
    for name in marks.versions.keys() {
        if !names.contains(name) && (store.has_tree(name)? || store.is_lost_entirely(name)?) {
            names.push(name.clone());
        }
    }
    names.sort();
    Ok(names)
}

impl Report {
    fn store_finding(&mut self, kind: &str, version: Option<&VersionName>, path: String, detail: String) {
        self.findings.push(Finding::in_store(kind, version, path, detail));
    }
}

impl Finding {
    fn in_store(kind: &str, version: Option<&VersionName>, path: String, detail: String) -> Self {
        Self { kind: kind.to_owned(), version: version.cloned(), path: path.into_bytes(), detail, damage: true }
    }
}

/// What is wrong with the history and with the role links.
pub(super) fn beside_versions(store: &Store) -> Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = history(store)?.into_iter().collect();
    let loss = store.losses()?.obstacle();
    findings.extend(loss.map(|detail| Finding::in_store("loss", None, layout::VERSIONS.into(), detail)));
    findings.extend(links(store)?);
    Ok(findings)
}

fn history(store: &Store) -> Result<Option<Finding>> {
    let finding = |path: String, detail| Some(Finding::in_store("history", None, path, detail));
    Ok(match store.history_state()? {
        State::Broken { segment, line, detail } => {
            finding(format!("store/{segment}"), format!("line {line}: {detail}"))
        }
        State::Missing => finding("store/history".into(), "it is not there".into()),
        State::Doubt { detail, .. } => finding("store/history".into(), format!("events are lost: {detail}")),
        // A torn tail is what a power cut leaves; the next command cuts and notes it.
        State::Sound | State::Torn { .. } => None,
    })
}

/// What a switch that is being made looks like for a moment is no damage.
fn links(store: &Store) -> Result<Vec<Finding>> {
    store.judge_at_rest(|survey| {
        let mut findings = Vec::new();
        for role in Role::ALL {
            let detail = match survey.roles.get(role) {
                RoleLink::Version { .. } => continue,
                RoleLink::Absent => match survey.missing(store, role)? {
                    Some(recorded) => format!("it is not there; recorded is {recorded}"),
                    None => continue,
                },
                RoleLink::Dangling { .. } => "it leads to nothing".to_owned(),
                RoleLink::Foreign { .. } => "it leads out of versions/".to_owned(),
                RoleLink::NotALink(_) => "it is not a symbolic link".to_owned(),
            };
            findings.push(Finding::in_store("link", None, format!("versions/{role}"), detail));
        }
        Ok(findings)
    })
}
