//! The last switch of `current`: from where to where, when, and whether a failed check made it.

use serde::{Deserialize, Serialize};

use super::event::{Event, Evidence};
use super::lenient::Unknown;
use super::name::VersionName;

/// One switch, as its event records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Number of its event.
    pub event: u64,
    /// When, by wall time in seconds.
    pub time: i64,
    /// Whether the clock was synchronised.
    #[serde(default)]
    pub synchronised: bool,
    /// The version that was left, if `current` led to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VersionName>,
    /// The version that `current` leads to since.
    pub version: VersionName,
    /// The version whose trial failed, where that made the switch: `from`, or one that failed before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<VersionName>,
    /// Why that one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// An operator confirmed `version` since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Switch {
    /// The switch that an event about `version` records.
    pub fn of(event: &Event, version: &VersionName) -> Self {
        Self {
            event: event.seq,
            time: event.time,
            synchronised: event.synchronised,
            from: event.from.clone(),
            version: version.clone(),
            tried: event.tried.clone(),
            evidence: event.evidence.clone().filter(|_| event.tried.is_some()),
            accepted: false,
            unknown: Unknown::new(),
        }
    }

    /// Whether a failed check made it, and no operator confirmed what it led to.
    pub fn is_unaccepted_rollback(&self) -> bool {
        self.tried.is_some() && !self.accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Marks};

    fn name(text: &str) -> VersionName {
        text.parse().unwrap()
    }

    fn events() -> Vec<Event> {
        let evidence = || Some(Evidence { check: "http".into(), detail: "status 500".into(), ..Evidence::default() });
        let back = |from: &str, to: &str| Event {
            from: Some(name(from)),
            tried: Some(name("v2")),
            evidence: evidence(),
            ..Event::about(Action::Rollback, &name(to), None)
        };
        let events = vec![
            Event { from: Some(name("v1")), ..Event::about(Action::Activate, &name("v2"), None) },
            back("v2", "v1"),
            Event { role: Some(crate::model::Role::Previous), ..Event::about(Action::Rollback, &name("v0"), None) },
            back("v1", "v0"),
            Event { evidence: evidence(), ..Event::about(Action::Bad, &name("v2"), None) },
            Event::about(Action::Good, &name("v0"), None),
            Event::about(Action::Confirm, &name("v1"), None),
            Event::about(Action::Confirm, &name("v0"), None),
            Event { from: Some(name("v0")), ..Event::about(Action::Activate, &name("v1"), None) },
            Event { from: Some(name("v1")), ..Event::about(Action::Rollback, &name("v0"), None) },
        ];
        let numbered = events.into_iter().zip(1..);
        numbered.map(|(event, seq)| Event { seq, time: 1000 + seq.cast_signed(), ..event }).collect()
    }

    #[test]
    fn a_rollback_by_a_failed_check_is_the_last_switch_until_the_next_or_until_it_is_accepted() {
        let mut marks = Marks::default();
        let mut seen = Vec::new();
        for event in events() {
            marks.apply(&event);
            let switch = marks.last_switch.clone().unwrap();
            seen.push((switch.event, switch.is_unaccepted_rollback()));
        }
        let expected = [(1, false), (2, true), (2, true), (4, true), (4, true), (4, true), (4, true), (4, false)];
        assert_eq!(seen[..8], expected);
        assert_eq!(seen[8..], [(9, false), (10, false)], "an operator's switches");
    }

    #[test]
    fn a_checkpoint_hands_the_last_switch_on_whole() {
        for count in 1..=events().len() {
            let mut marks = Marks::default();
            events()[..count].iter().for_each(|event| marks.apply(event));
            let checkpoint = Event { marks: Some(Box::new(marks.clone())), ..Event::new(Action::Checkpoint) };
            let mut after = Marks::default();
            after.apply(&Event::parse(&serde_json::to_vec(&checkpoint).unwrap()).unwrap());
            assert_eq!(after.last_switch, marks.last_switch, "behind event {count}");
        }
        let mut marks = Marks::default();
        events()[..4].iter().for_each(|event| marks.apply(event));
        let switch = marks.last_switch.unwrap();
        let (check, time) = (switch.evidence.unwrap().check, switch.time);
        assert_eq!((switch.from, switch.version, switch.tried), (Some(name("v1")), name("v0"), Some(name("v2"))));
        assert_eq!((check.as_str(), time), ("http", 1004));
    }
}
