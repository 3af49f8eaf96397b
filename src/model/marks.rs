//! Marks: what follows from the history. Pins, notes, bad and good marks are nothing but the fold of its events.
//!
//! A checkpoint hands them on, and a newer build may have written it. **Invariant:** what this build does not understand
//! of the marks before, and each event that it does not understand, is part of the marks and so of the next checkpoint.

use serde::{Deserialize, Serialize};

use super::event::{Action, Event, Evidence};
use super::id::Digest;
use super::lenient::{Entries, Members, Unknown, present};
use super::name::{Role, VersionName};
use super::switch::Switch;

/// A note on a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, by wall time in seconds.
    pub time: i64,
    /// What.
    pub text: String,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A version that was published and not removed since, as far as the history knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its import number.
    pub import_number: u64,
    /// Its digest.
    pub digest: Digest,
    /// The hash of its manifest's body in hexadecimal digits, where it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// That no version holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The least bad version, which runs.
    pub version: VersionName,
    /// The check that fails on it.
    pub evidence: Evidence,
    /// Since when, by wall time in seconds, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What is held of a digest. Survives removal and re-import.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Why it is bad, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub bad: Option<Evidence>,
    /// Passed its checks, or was confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub good: bool,
    /// Was `current` at some time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_current: bool,
    /// Was left by a rollback, and not activated since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The fold of a history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marks {
    /// Number of the last event.
    pub last_event: u64,
    /// Highest import number that was ever given.
    pub highest_import: u64,
    /// Published versions.
    #[serde(default)]
    pub versions: Entries<VersionName, Known>,
    /// Pinned versions.
    #[serde(default)]
    pub pins: Members<VersionName>,
    /// Notes, oldest first.
    #[serde(default)]
    pub notes: Entries<VersionName, Vec<Note>>,
    /// By digest.
    #[serde(default)]
    pub standings: Entries<Digest, Standing>,
    /// What the roles pointed at when they were last recorded.
    #[serde(default)]
    pub roles: Entries<Role, VersionName>,
    /// Versions whose tree has inodes of its own.
    #[serde(default)]
    pub isolated: Members<VersionName>,
    /// Versions of which a repair found something damaged that it could not mend, and what.
    #[serde(default, skip_serializing_if = "Entries::holds_nothing")]
    pub damaged: Entries<VersionName, String>,
    /// Names of objects that were found not to be what they say, and were neither made again nor swept since.
    #[serde(default, skip_serializing_if = "Members::holds_nothing")]
    pub revoked: Members<String>,
    /// The version that runs although it fails its checks, since every other does too, and what failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
    /// The last switch of `current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switch: Option<Switch>,
    /// Number of the last `history-reset`, before which everything that is missing was acknowledged; 0 if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reset: u64,
    /// The JSON of every event that this build does not understand, oldest first. A build that does takes them in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_events: Vec<String>,
    /// Marks that this build does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Marks {
    /// Takes in the next event.
    pub fn apply(&mut self, event: &Event) {
        self.last_event = event.seq;
        if let Some(json) = &event.not_understood {
            self.unknown_events.push(json.to_string());
            return;
        }
        let Event { action, version, digest, .. } = event;
        match (action, version) {
            (Action::Import | Action::Adopt, Some(version)) => self.import(event, version),
            (Action::Activate | Action::Rollback, Some(version)) => self.switch(event, version),
            (Action::Remove | Action::RemovedByHand, Some(version)) => self.remove(version),
            (Action::Pin, Some(version)) => drop(self.pins.insert(version.clone())),
            (Action::Unpin, Some(version)) => drop(self.pins.remove(version)),
            (Action::Note, Some(version)) => {
                let text = event.text.clone().unwrap_or_default();
                let note = Note { time: event.time, text, unknown: Unknown::new() };
                self.notes.entry(version.clone()).or_default().push(note);
            }
            (Action::Repair, Some(version)) => {
                if let (Some(known), Some(_)) = (self.versions.get_mut(version), &event.manifest) {
                    known.manifest.clone_from(&event.manifest);
                }
                match event.outcome.as_str() {
                    "failed" => drop(self.damaged.insert(version.clone(), event.text.clone().unwrap_or_default())),
                    "done" => drop(self.damaged.remove(version)),
                    // An outcome of a newer build does not say that nothing is damaged any longer.
                    _ => {}
                }
            }
            (Action::Revoke, _) => self.revoked.extend(event.objects.iter().cloned()),
            (Action::Degraded, Some(version)) => {
                let evidence = event.evidence.clone().unwrap_or_default();
                let (version, time) = (version.clone(), Some(event.time));
                self.degraded = Some(Degraded { version, evidence, time, unknown: Unknown::new() });
            }
            (Action::FactorySet, Some(version)) => {
                self.roles.insert(Role::Factory, version.clone());
                if event.isolated {
                    self.isolated.insert(version.clone());
                }
            }
            (Action::ExternalChange, _) => {
                if let Some(role) = event.role {
                    if role == Role::Current {
                        self.degraded = None;
                    }
                    match version {
                        Some(version) => drop(self.roles.insert(role, version.clone())),
                        None => drop(self.roles.remove(&role)),
                    }
                }
            }
            (Action::Checkpoint | Action::HistoryReset, _) => {
                if let Some(marks) = &event.marks {
                    *self = (**marks).clone();
                    self.take_in_carried();
                    self.last_event = event.seq;
                }
                if *action == Action::HistoryReset {
                    self.reset = event.seq;
                }
            }
            _ => {}
        }
        for object in &event.cleared {
            self.revoked.remove(object);
        }
        // An operator accepted it, or it passed after all: also one that is marked bad or has no digest.
        if matches!(action, Action::Confirm | Action::Good) {
            self.degraded = self.degraded.take().filter(|degraded| Some(&degraded.version) != version.as_ref());
        }
        if let (Action::Confirm, Some(switch), Some(version)) = (action, &mut self.last_switch, version) {
            switch.accepted |= switch.version == *version;
        }
        let judges = matches!(action, Action::Bad | Action::Good | Action::Confirm);
        if let Some(digest) = digest.filter(|_| judges) {
            let standing = self.standings.entry(digest).or_default();
            standing.good = *action != Action::Bad;
            match action {
                Action::Bad => standing.bad = Some(event.evidence.clone().unwrap_or_default()),
                Action::Confirm => (standing.bad, standing.left) = (None, false),
                _ => {}
            }
        }
    }

    /// Takes in what an older build carried on without understanding it.
    fn take_in_carried(&mut self) {
        for json in std::mem::take(&mut self.unknown_events) {
            match Event::parse(json.as_bytes()) {
                Ok(event) => self.apply(&event),
                Err(_) => self.unknown_events.push(json),
            }
        }
    }

    /// The first event that this build does not understand and that decides what `command` does.
    pub fn obstacle(&self, command: &str) -> Option<Obstacle> {
        self.unknown_events.iter().find_map(|json| Obstacle::of(json, command))
    }

    fn import(&mut self, event: &Event, version: &VersionName) {
        if let (Some(import_number), Some(digest)) = (event.import_number, event.digest) {
            self.highest_import = self.highest_import.max(import_number);
            let manifest = event.manifest.clone();
            self.versions.insert(version.clone(), Known { import_number, digest, manifest, unknown: Unknown::new() });
            self.damaged.remove(version);
        }
    }

    fn switch(&mut self, event: &Event, version: &VersionName) {
        if event.role == Some(Role::Previous) {
            // What a rollback found for `previous` afterwards; nothing was switched.
            self.roles.insert(Role::Previous, version.clone());
            return;
        }
        if let Some(digest) = event.digest {
            let standing = self.standings.entry(digest).or_default();
            standing.was_current = true;
            standing.left = false;
        }
        match (event.action, &event.from) {
            (Action::Activate, Some(from)) => drop(self.roles.insert(Role::Previous, from.clone())),
            (Action::Rollback, _) => {
                // Its own link moved up, or the next older one takes its place; recorded in an event of its own if so.
                self.roles.remove(&Role::Previous);
                if let Some(left) = event.from_digest {
                    self.standings.entry(left).or_default().left = true;
                }
            }
            _ => {}
        }
        self.roles.insert(Role::Current, version.clone());
        self.last_switch = Some(Switch::of(event, version));
        self.degraded = None;
    }

    fn remove(&mut self, version: &VersionName) {
        self.versions.remove(version);
        self.pins.remove(version);
        self.notes.remove(version);
        self.isolated.remove(version);
        self.damaged.remove(version);
    }

    /// What is held of this digest.
    pub fn standing(&self, digest: &Digest) -> Standing {
        self.standings.get(digest).cloned().unwrap_or_default()
    }

    /// Whether no version holds and this one runs as the least bad.
    pub fn is_degraded_on(&self, version: &VersionName) -> bool {
        self.degraded.as_ref().is_some_and(|degraded| degraded.version == *version)
    }

    /// Why this digest is bad, if it is.
    pub fn bad(&self, digest: &Digest) -> Option<&Evidence> {
        self.standings.get(digest).and_then(|standing| standing.bad.as_ref())
    }
}

/// An event that keeps a command from deciding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Its number.
    pub seq: u64,
    /// Its action as it stands in the line.
    pub action: String,
}

impl Obstacle {
    /// A list of `decides` that is none names every command: when in doubt, refuse.
    fn of(json: &str, command: &str) -> Option<Self> {
        let event: serde_json::Value = serde_json::from_str(json).ok()?;
        let named = match event.get("decides") {
            None => false,
            Some(serde_json::Value::Array(names)) => {
                names.iter().any(|name| name.as_str().is_none_or(|name| name == command))
            }
            Some(_) => true,
        };
        let action = event["action"].as_str().unwrap_or_default().to_owned();
        named.then(|| Self { seq: event["seq"].as_u64().unwrap_or_default(), action })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::TreeId;

    #[test]
    fn bad_survives_removal_and_confirm_clears_it() {
        let (name, digest): (VersionName, _) = ("v1".parse().unwrap(), Digest(TreeId::from_bytes([1; 32])));
        let mut marks = Marks::default();
        let about = |action| Event::about(action, &name, Some(digest));
        marks.apply(&Event { import_number: Some(3), ..about(Action::Import) });
        marks.apply(&about(Action::Pin));
        marks.apply(&Event {
            evidence: Some(Evidence { check: "http".into(), ..Evidence::default() }),
            ..about(Action::Bad)
        });
        marks.apply(&about(Action::Remove));
        assert!(marks.versions.is_empty() && marks.pins.is_empty());
        assert_eq!(marks.highest_import, 3);
        assert_eq!(marks.bad(&digest).unwrap().check, "http");
        marks.apply(&about(Action::Confirm));
        assert_eq!(marks.bad(&digest), None);
        assert!(marks.standing(&digest).good);
    }

    #[test]
    fn what_a_repair_could_not_mend_is_held_of_the_version_until_one_can_or_it_goes() {
        let name: VersionName = "v1".parse().unwrap();
        let event = |action, outcome: &str| Event {
            outcome: outcome.into(),
            text: Some("lib/a: its contents differ".into()),
            ..Event::about(action, &name, None)
        };
        let mut marks = Marks::default();
        for clearing in [event(Action::Repair, "done"), event(Action::Remove, "done")] {
            marks.apply(&event(Action::Repair, "failed"));
            assert_eq!(marks.damaged[&name], "lib/a: its contents differ");
            marks.apply(&clearing);
            assert!(marks.damaged.is_empty());
        }
    }

    #[test]
    fn an_object_is_revoked_until_an_event_clears_it_whatever_its_name_is_like() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut marks = Marks::default();
        marks.apply(&Event { objects: names(&["ab/c.0444.0.0", "of/the/future"]), ..Event::new(Action::Revoke) });
        marks.apply(&Event { objects: names(&["ab/c.0444.0.0"]), ..Event::new(Action::Revoke) });
        let checkpoint = Event { marks: Some(Box::new(marks.clone())), ..Event::new(Action::Checkpoint) };
        let mut after = Marks::default();
        after.apply(&serde_json::from_str(&serde_json::to_string(&checkpoint).unwrap()).unwrap());
        assert_eq!(*after.revoked, BTreeSet::from_iter(names(&["ab/c.0444.0.0", "of/the/future"])));
        for action in [Action::Repair, Action::Gc] {
            let mut cleared = after.clone();
            cleared.apply(&Event { cleared: names(&["ab/c.0444.0.0", "none"]), ..Event::new(action) });
            assert_eq!(*cleared.revoked, BTreeSet::from_iter(names(&["of/the/future"])));
        }
    }

    #[test]
    fn after_a_rollback_previous_is_what_its_own_event_says() {
        let (one, two, three): (VersionName, VersionName, VersionName) =
            ("v1".parse().unwrap(), "v2".parse().unwrap(), "v3".parse().unwrap());
        let digest = Some(Digest(TreeId::from_bytes([1; 32])));
        let mut marks = Marks::default();
        marks.apply(&Event { from: Some(two.clone()), ..Event::about(Action::Activate, &three, None) });
        marks.apply(&Event { from: Some(three), ..Event::about(Action::Rollback, &two, None) });
        assert_eq!(*marks.roles, BTreeMap::from([(Role::Current, two.clone())]));
        marks.apply(&Event { role: Some(Role::Previous), ..Event::about(Action::Rollback, &one, digest) });
        assert_eq!(*marks.roles, BTreeMap::from([(Role::Current, two), (Role::Previous, one)]));
        assert!(marks.standings.is_empty(), "it was not current because of that");
    }

    #[test]
    fn a_degraded_state_ends_with_a_good_or_confirm_of_its_version_and_with_any_switch() {
        let (one, two): (VersionName, VersionName) = ("v1".parse().unwrap(), "v2".parse().unwrap());
        let digest = Some(Digest(TreeId::from_bytes([1; 32])));
        let mut marks = Marks::default();
        marks.apply(&Event { time: 5, ..Event::about(Action::Degraded, &one, None) });
        let degraded = marks.clone();
        assert_eq!(degraded.degraded.as_ref().unwrap().time, Some(5));
        let after = |event: Event| {
            let mut marks = degraded.clone();
            marks.apply(&event);
            marks
        };
        let by_hand =
            |role| Event { role: Some(role), version: Some(two.clone()), ..Event::new(Action::ExternalChange) };
        for ends in [
            Event::about(Action::Good, &one, digest),
            Event::about(Action::Good, &one, None),
            Event::about(Action::Confirm, &one, digest),
            Event::about(Action::Activate, &two, None),
            Event::about(Action::Rollback, &two, None),
            by_hand(Role::Current),
        ] {
            assert!(!after(ends.clone()).is_degraded_on(&one), "{ends:?}");
        }
        for leaves in [Event::about(Action::Good, &two, digest), by_hand(Role::Previous)] {
            assert!(after(leaves.clone()).is_degraded_on(&one), "{leaves:?}");
        }
        assert!(after(Event::about(Action::Good, &one, None)).standings.is_empty());
    }

    #[test]
    fn what_is_not_known_of_marks_is_handed_on() {
        let text = crate::test_vectors::vector("unknown-marks").trim_end();
        let mut marks = Marks::default();
        let marks_read = Some(Box::new(serde_json::from_str(text).unwrap()));
        marks.apply(&Event { seq: 9, marks: marks_read, ..Event::new(Action::Checkpoint) });
        assert_eq!(serde_json::to_string(&marks).unwrap(), text);
        let obstacle = Obstacle { seq: 7, action: "freeze".into() };
        assert_eq!((marks.obstacle("gc"), marks.obstacle("import")), (Some(obstacle), None));
        assert_eq!(marks.pins.len() + marks.versions.len() + marks.standings.len() + marks.roles.len(), 4);
        // The event was one of this build's own.
        let pin = r#"{"seq":7,"time":0,"synchronised":true,"action":"pin","version":"v2"}"#;
        marks.unknown_events = vec![pin.into()];
        let carried = Some(Box::new(marks.clone()));
        marks.apply(&Event { seq: 10, marks: carried, ..Event::new(Action::Checkpoint) });
        assert_eq!((marks.last_event, marks.unknown_events.len(), marks.pins.len()), (10, 0, 2));
    }

    #[test]
    fn a_checkpoint_replaces_everything_before_it() {
        let mut before = Marks::default();
        before.apply(&Event::about(Action::Pin, &"v1".parse().unwrap(), None));
        let checkpoint = Event { seq: 9, marks: Some(Box::new(before.clone())), ..Event::new(Action::Checkpoint) };
        let json = serde_json::to_string(&checkpoint).unwrap();
        let mut after = Marks::default();
        after.apply(&serde_json::from_str(&json).unwrap());
        assert_eq!(after, Marks { last_event: 9, ..before });
    }
}
