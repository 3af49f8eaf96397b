//! Verifying: is everything still what it was recorded to be?
//!
//! Trees are compared with their manifests, objects with their keys, manifests with the history, links with what is
//! there. Each inode is read once, however many trees have it, and from the medium unless asked otherwise: what lies in
//! memory says nothing about what a reboot will find.
//!
//! Nothing is changed. What is wrong is no error but a finding, with version and path.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::check::{Checker, Depth, Expect, Problem, ReadFrom};
use crate::error::{Error, Result, chain};
use crate::history::State;
use crate::model::{Manifest, ObjectKey, Role, TreePath, VersionName};
use crate::object::Recorded;
use crate::observe::Observer;
use crate::refs::RoleLink;
use crate::store::Store;
use crate::store::published::object_of;

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
    /// A stable word: those of [`super::check::ProblemKind`], or `object-…` for the store's own copy, `manifest`,
    /// `history`, `link`.
    pub kind: String,
    /// The version it concerns, if it concerns one.
    pub version: Option<VersionName>,
    /// Where: in the version, or in the store.
    pub path: Vec<u8>,
    /// The sentence.
    pub detail: String,
    /// Whether something is lost or wrong; `false` for what is merely superfluous.
    pub damage: bool,
}

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
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn ok(&self) -> bool {
        !self.findings.iter().any(|finding| finding.damage)
    }
}

/// Verifies versions, or the whole store.
///
/// # Errors
///
/// [`Error::NotFound`] for a version that is not there; [`Error::Interrupted`]; what keeps it from looking at all.
pub fn verify(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Report> {
    let start = Instant::now();
    let mut report = Report::default();
    let checker = Checker::new(store, options.depth, options.from, observer)?;
    let marks = store.history()?.present()?.marks;
    let manifests = store.manifests()?;
    let whole = options.versions.is_empty();
    let names = if whole { manifests.names()? } else { options.versions.clone() };
    let mut objects: BTreeMap<ObjectKey, (Recorded, VersionName, TreePath)> = BTreeMap::new();
    for name in &names {
        let manifest = match manifests.read(name) {
            Ok(manifest) => manifest,
            Err(error @ Error::Corrupt { .. }) => {
                report.store_finding("manifest", Some(name), format!("store/manifests/{name}"), chain(&error));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(known) = marks.versions.get(name).filter(|known| known.digest != manifest.digest()) {
            let detail =
                format!("the history says {}, the manifest {}", known.digest.short(), manifest.digest().short());
            report.store_finding("manifest", Some(name), format!("store/manifests/{name}"), detail);
        }
        let expect = if marks.isolated.contains(name) { Expect::OwnInodes } else { Expect::Links };
        let checked = checker.version(&manifest, expect)?;
        report.versions += 1;
        report.entries += checked.entries;
        report.unseen += checked.unseen;
        report.findings.extend(checked.problems.iter().map(finding));
        collect(&manifest, &mut objects)?;
    }
    report.objects = objects.len() as u64;
    let wanted: Vec<(&ObjectKey, Recorded)> = objects.iter().map(|(key, (recorded, ..))| (key, *recorded)).collect();
    for (key, fault) in checker.objects(&wanted)? {
        let Some((_, version, path)) = objects.get(&key) else { continue };
        let detail = format!("{fault}; {path} of {version} is made from it");
        report.store_finding("object", Some(version), format!("store/objects/{key}"), detail);
    }
    if whole {
        history(store, &mut report)?;
        links(store, &mut report)?;
    }
    report.read_files = checker.read_files();
    report.elapsed = start.elapsed();
    Ok(report)
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

impl Report {
    fn store_finding(&mut self, kind: &str, version: Option<&VersionName>, path: String, detail: String) {
        let (kind, path) = (kind.to_owned(), path.into_bytes());
        self.findings.push(Finding { kind, version: version.cloned(), path, detail, damage: true });
    }
}

fn collect(manifest: &Manifest, objects: &mut BTreeMap<ObjectKey, (Recorded, VersionName, TreePath)>) -> Result<()> {
    manifest.walk(|path, entry, placement| {
        if let Some((key, recorded)) = placement.and_then(|placement| object_of(manifest, entry, placement)) {
            objects.entry(key).or_insert_with(|| (recorded, manifest.facts.name.clone(), path.clone()));
        }
        Ok(())
    })
}

fn history(store: &Store, report: &mut Report) -> Result<()> {
    match store.history()?.read()?.state {
        State::Broken { segment, line, detail } => {
            report.store_finding("history", None, format!("store/{segment}"), format!("line {line}: {detail}"));
        }
        State::Missing => report.store_finding("history", None, "store/history".into(), "it is not there".into()),
        // A torn tail is what a power cut leaves; the next command cuts and notes it.
        State::Sound | State::Torn { .. } => {}
    }
    Ok(())
}

fn links(store: &Store, report: &mut Report) -> Result<()> {
    let roles = store.refs()?.read()?;
    for role in Role::ALL {
        let detail = match roles.get(role) {
            RoleLink::Absent | RoleLink::Version { .. } => continue,
            RoleLink::Dangling { .. } => "it leads to nothing",
            RoleLink::Foreign { .. } => "it leads out of versions/",
            RoleLink::NotALink(_) => "it is not a symbolic link",
        };
        report.store_finding("link", None, format!("versions/{role}"), detail.into());
    }
    Ok(())
}
