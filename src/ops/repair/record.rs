//! What the history keeps of a repair: what was mended, what could not be, and which objects are no longer revoked.

use std::collections::{BTreeMap, BTreeSet};

use super::{Failed, Job, RENEWED, Report};
use crate::error::{Result, chain};
use crate::materialise::plan::{Plan, What};
use crate::model::{Action, Event, Manifest, ObjectKey, TreePath, VersionName};
use crate::object::trust::Replaced;

/// Most paths that an event names.
const MOST_NAMED: usize = 5;

impl Job<'_> {
    /// Records which objects are no longer revoked: those that were made again and stand wherever they should. A finding
    /// about an inode that was replaced may be recorded later than it was made, so all of them are named.
    pub(super) fn end_revocations(&self, replaced: &Replaced, failed: &Failed, report: &mut Report) -> Result<()> {
        let mut keys: BTreeSet<ObjectKey> = replaced.keys().cloned().collect();
        let mut left: BTreeMap<&VersionName, BTreeSet<TreePath>> = BTreeMap::new();
        for (version, path) in failed {
            left.entry(version).or_default().extend(TreePath::parse(path).ok());
        }
        for (version, paths) in left {
            if let Ok(manifest) = self.store.manifests()?.read(version) {
                keys.retain({
                    let left = keys_at(&manifest, &paths);
                    move |key| !left.contains(key)
                });
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.store.versions().sync_file_system()?;
        let all: Vec<String> = keys.iter().map(|key| format!("renewed store/objects/{key}")).collect();
        let text = some_of(&all);
        if let Err(error) = self.store.with_room(|| self.store.clear_revoked(Action::Repair, &keys, &text)) {
            report.warnings.push(format!("the objects that were made again stay revoked: {}", chain(&error)));
        }
        Ok(())
    }

    /// Records what was mended and what was not, and with that the marks.
    pub(super) fn record(&self, names: &[VersionName], report: &mut Report) {
        let marks = &self.survey.marks;
        let mut events = Vec::new();
        let touched = report.mended.iter().filter_map(|mended| mended.version.clone());
        let left = report.remaining.iter().filter_map(|finding| finding.version.clone());
        let names: Vec<VersionName> = names.iter().cloned().chain(touched).chain(left).collect();
        let mut seen = BTreeSet::new();
        for name in &names {
            if !seen.insert(name) {
                continue;
            }
            let of_version = |version: &Option<VersionName>| version.as_ref() == Some(name);
            let remaining: Vec<String> = report
                .remaining
                .iter()
                .filter(|finding| of_version(&finding.version))
                .map(|finding| format!("{}: {}", crate::error::Shown::bytes(&finding.path), finding.detail))
                .collect();
            let mended: Vec<String> = report
                .mended
                .iter()
                .filter(|mended| of_version(&mended.version))
                .map(|mended| format!("{} {}", mended.how, crate::error::Shown::bytes(&mended.path)))
                .collect();
            let was_marked = marks.damaged.get(name);
            let digest = marks.versions.get(name).map(|known| known.digest);
            let event = |outcome: &str, text| Event {
                outcome: outcome.into(),
                text: Some(text),
                ..Event::about(Action::Repair, name, digest)
            };
            if !remaining.is_empty() {
                report.marked.push(name.clone());
                let text = some_of(&remaining);
                if was_marked != Some(&text) || !mended.is_empty() {
                    events.push(event("failed", text));
                }
            } else if was_marked.is_some() || !mended.is_empty() {
                if was_marked.is_some() {
                    report.cleared.push(name.clone());
                }
                let text = if mended.is_empty() { "nothing is damaged any longer".into() } else { some_of(&mended) };
                events.push(event("done", text));
            }
        }
        let rest: Vec<String> = report
            .mended
            .iter()
            .filter(|mended| mended.version.is_none() && mended.how != RENEWED)
            .map(|mended| format!("{} {}", mended.how, crate::error::Shown::bytes(&mended.path)))
            .collect();
        if !rest.is_empty() {
            events.push(Event { outcome: "done".into(), text: Some(some_of(&rest)), ..Event::new(Action::Repair) });
        }
        if events.is_empty() {
            return;
        }
        if let Err(error) = self.store.with_room(|| self.store.record(events.clone())) {
            report.warnings.push(format!("what was done cannot be recorded in the history: {}", chain(&error)));
        }
    }
}

/// "relinked a; relinked b; and 3 more".
fn some_of(all: &[String]) -> String {
    let mut text = all.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > MOST_NAMED {
        text.push_str(&format!("; and {} more", all.len() - MOST_NAMED));
    }
    text
}

/// Keys of the objects that stand at these paths.
pub(super) fn keys_at(manifest: &Manifest, paths: &BTreeSet<TreePath>) -> Vec<ObjectKey> {
    let Ok(plan) = Plan::of(manifest) else { return Vec::new() };
    let mut keys = Vec::new();
    for directory in &plan.directories {
        for file in &directory.files {
            if let What::Object { key, .. } = &file.what
                && paths.contains(&directory.path.join(&file.name))
            {
                keys.push(key.clone());
            }
        }
    }
    keys
}
