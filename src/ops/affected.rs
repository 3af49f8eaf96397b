//! Which services a switch from one version to another touches, and why: what `--restart=changed` restarts.
//!
//! It works from manifests, and from what the manager and `/proc` tell of the services; the index is not needed. Where
//! something cannot be known (a version made by hand, a manifest that cannot be read), every service is affected, and
//! the reason says so.

use std::collections::BTreeMap;
use std::io::Read;

use crate::config::{Service, UnitName};
use crate::error::{Result, chain};
use crate::fsys::process;
use crate::layout;
use crate::model::diff::{self, Change, Options};
use crate::model::{Manifest, Node, TreePath, VersionName};
use crate::services::affected::{Affected, Needs, reason};
use crate::services::{ServiceManager, discover};
use crate::store::Store;

/// What becomes of services when one version takes another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Of each.
    pub units: Vec<Affected>,
    /// Whether a file differs that may define a unit, of whatever kind: then the manager has to read it anew.
    pub definitions: bool,
    /// What the user should know of those that are not affected.
    pub doubt: Option<String>,
}

impl Touched {
    /// These units, of versions of which it is not known what differs.
    pub fn in_doubt(units: Vec<Affected>) -> Self {
        Self { units, definitions: true, doubt: None }
    }

    /// The same, without the units that are not affected.
    #[must_use]
    pub fn only_affected(mut self) -> Self {
        self.units.retain(Affected::is_affected);
        self
    }
}

/// Tells for each service, in their order, whether it is affected by going from one version to another.
///
/// What the manager or `/proc` cannot tell is done without: names and configuration remain.
///
/// # Errors
///
/// The trees contradict their manifests.
pub fn affected(
    store: &Store,
    manager: &dyn ServiceManager,
    services: &[Service],
    from: Option<&VersionName>,
    to: &VersionName,
) -> Result<Touched> {
    let all = |why: String| {
        let touched = |service: &Service| Affected { unit: service.unit.clone(), reasons: vec![why.clone()] };
        Ok(Touched::in_doubt(services.iter().map(touched).collect()))
    };
    let Some(from) = from else { return all("nothing was current".into()) };
    let (before, after) = match (manifest(store, from), manifest(store, to)) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(why), _) | (_, Err(why)) => return all(why),
    };
    let changes = diff::compare((&before.trees, before.root), (&after.trees, after.root), &Options::default())?.changes;
    let definitions = changes.iter().any(may_define);
    let needs = needs(store, manager, services, [&before, &after]);
    let mut found: Vec<Affected> =
        needs.iter().map(|needs| Affected { unit: needs.unit.clone(), reasons: needs.reasons(&changes) }).collect();
    if changes.is_empty() || found.iter().all(Affected::is_affected) {
        return Ok(Touched { units: found, definitions, doubt: None });
    }
    let used = match used(store, from, &changes) {
        Ok(used) => used,
        Err(error) => return all(chain(&error)),
    };
    for (affected, needs) in found.iter_mut().zip(&needs).filter(|(affected, _)| !affected.is_affected()) {
        affected.reasons = used.get(&affected.unit).cloned().unwrap_or_default();
        let known = |path: &TreePath| {
            path.is_top() || [&before, &after].into_iter().any(|manifest| node(manifest, path).is_some())
        };
        if affected.reasons.is_empty() && needs.patterns.is_empty() && !needs.paths.iter().any(known) {
            affected.reasons.push("what it needs of the release is not known, and something differs".into());
        }
    }
    let left = services.iter().zip(&needs).zip(&found);
    let left = left.filter(|((service, _), affected)| !affected.is_affected() && service.paths.is_empty());
    let left: Vec<&Needs> = left.map(|((_, needs), _)| needs).collect();
    let doubt = left_in_doubt(store, to, &left, &changes, [&after, &before]);
    Ok(Touched { units: found, definitions, doubt })
}

/// What of these versions each service needs, as far as that is known.
fn needs(store: &Store, manager: &dyn ServiceManager, services: &[Service], versions: [&Manifest; 2]) -> Vec<Needs> {
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    let described = manager.describe(&units).unwrap_or_default();
    let needs = services.iter().enumerate().map(|(at, service)| {
        let mut needs = Needs::of(service);
        needs.paths.extend(described.get(at).map(|unit| discover::places(unit, store.layout())).unwrap_or_default());
        for manifest in versions {
            let links: Vec<TreePath> = needs.paths.iter().filter_map(|path| led_to(manifest, path)).collect();
            needs.paths.extend(links);
        }
        needs
    });
    needs.collect()
}

/// Tells of units that run a script, of which nobody said what it loads, where something differs that it may load.
fn left_in_doubt(
    store: &Store,
    to: &VersionName,
    left: &[&Needs],
    changes: &[Change],
    versions: [&Manifest; 2],
) -> Option<String> {
    // Programs, directories of services and definitions of units belong to somebody.
    let belongs = |path: &TreePath| {
        let top = path.components().next().unwrap_or_default();
        top == b"bin" || top == layout::SERVICES.as_bytes() || path.components().any(UnitName::defines)
    };
    let is_directory = |path: &TreePath| {
        versions.into_iter().any(|manifest| matches!(node(manifest, path), Some(Node::Directory { .. })))
    };
    let mut loaded = changes.iter().filter(|change| !belongs(&change.path) && !is_directory(&change.path));
    let first = loaded.next()?;
    let scripts = left.iter().filter(|needs| needs.paths.iter().any(|path| is_script(store, to, path)));
    let units: Vec<&str> = scripts.map(|needs| needs.unit.as_str()).collect();
    if units.is_empty() {
        return None;
    }
    let more = match loaded.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "left alone: {}; what a script loads is not known, and {}{more}: name what it needs as paths in the configuration, \
         or use --restart=all",
        units.join(", "),
        reason(first)
    ))
}

/// Whether a change is of a file that may define a unit.
fn may_define(change: &Change) -> bool {
    let paths = [Some(&change.path), change.from_path.as_ref()];
    paths.into_iter().flatten().any(|path| path.components().any(UnitName::defines))
}

/// Whether a version has a script there.
fn is_script(store: &Store, version: &VersionName, path: &TreePath) -> bool {
    let begin = || {
        let mut parts: Vec<&[u8]> = path.components().collect();
        let name = parts.pop()?;
        let top = store.versions().open_dir(version).ok()?;
        let dir = parts.into_iter().try_fold(top, |dir, part| dir.open_dir(part)).ok()?;
        let mut begin = [0; 2];
        dir.open_file(name).ok()?.read_exact(&mut begin).ok()?;
        Some(begin)
    };
    begin() == Some(*b"#!")
}

fn manifest(store: &Store, version: &VersionName) -> Result<Manifest, String> {
    match store.manifest(version) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(format!("{version} was made by hand, so it is not known what differs")),
        Err(error) => Err(format!("it is not known what differs: {}", chain(&error))),
    }
}

/// What a version has at a path.
fn node<'a>(manifest: &'a Manifest, path: &TreePath) -> Option<&'a Node> {
    let mut tree = manifest.trees.get(&manifest.root)?;
    let mut found: Option<&Node> = None;
    for part in path.components() {
        if let Some(node) = found {
            let Node::Directory { tree: below } = node else { return None };
            tree = manifest.trees.get(below)?;
        }
        found = Some(&tree.get(part)?.node);
    }
    found
}

/// Where in the version a link leads, if there is one at this path that stays in the version.
fn led_to(manifest: &Manifest, path: &TreePath) -> Option<TreePath> {
    let mut path = path.clone();
    let mut led = false;
    for _ in 0..8 {
        let Some(Node::Symlink { target }) = node(manifest, &path) else { break };
        if target.starts_with(b"/") {
            return None;
        }
        path.pop();
        let mut parts: Vec<&[u8]> = path.components().collect();
        for part in target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            match part {
                b".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        path = TreePath::parse(&parts.join(&b'/')).ok()?;
        led = true;
    }
    led.then_some(path)
}

/// By unit: what of the changes its processes were seen to use.
fn used(store: &Store, version: &VersionName, changes: &[Change]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let versions = store.versions().real_path()?;
    let changed: BTreeMap<&[u8], &Change> = changes.iter().map(|change| (change.path.as_bytes(), change)).collect();
    let mut units: BTreeMap<i32, Option<String>> = BTreeMap::new();
    for one in process::uses_below(&versions)?.uses {
        let change = changed.get(one.path.as_slice()).filter(|_| one.name.as_bytes() == version.as_str().as_bytes());
        let Some(change) = change else { continue };
        let unit = units.entry(one.pid).or_insert_with(|| process::unit_of(one.pid));
        if let Some(unit) = unit {
            let reasons = found.entry(unit.clone()).or_default();
            let reason = format!("{}, which process {} {}", reason(change), one.pid, one.how);
            if reasons.len() < 3 {
                reasons.push(reason);
            }
        }
    }
    Ok(found)
}
