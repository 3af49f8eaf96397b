//! What is known of events that the log has lost.
//!
//! The index has every event as it was written, and the chain value of the last one. If what it has behind the log leads
//! from the log's chain to that value, these are the lost events, and the marks are folded as if nothing had been lost. If
//! it does not, the index is only a hint, and it is taken where it keeps something: pins, bad marks, damage,
//! revocations, and events that this build does not understand.

use std::collections::BTreeMap;

use super::{Reading, State, Witness};
use crate::model::event::{Action, CHAIN_START, Chain, Event, chain_behind};
use crate::model::marks::{Known, Marks};
use crate::model::{Anchor, Role, VersionName};

/// What is known of a history outside its log.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Who names an event.
    pub witnesses: Vec<Witness>,
    /// The events that the index has, oldest first, each with its JSON as it was written.
    pub events: Vec<(Event, String)>,
    /// The last of them.
    pub last: Option<Anchor>,
    /// Versions that have a manifest that can be read.
    pub versions: BTreeMap<VersionName, Known>,
    /// Where the role links lead.
    pub roles: BTreeMap<Role, VersionName>,
}

/// What is known after a loss.
pub(super) struct Remains {
    pub(super) marks: Marks,
    /// What of it is not in the log, in words.
    pub(super) text: String,
}

/// How much of what was lost is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembered {
    /// So many events, as they were written.
    Proven(usize),
    /// So many events, of which only what keeps something was taken.
    Hints(usize),
}

impl Memory {
    /// What is left of a log whose numbers go up to `last`. Versions that have a manifest stay known.
    pub(super) fn remains(&self, reading: &Reading, last: u64) -> Remains {
        let (mut marks, remembered) = self.marks(reading);
        let text = self.losses(reading, last, &marks, remembered);
        if reading.state == State::Missing {
            // No switch since then is recorded: the links say where the roles lead.
            marks.roles.retain(|role, _| *role == Role::Factory);
            marks.roles.extend(self.roles.clone());
        }
        for (name, known) in &self.versions {
            marks.highest_import = marks.highest_import.max(known.import_number);
            marks.versions.entry(name.clone()).or_insert_with(|| known.clone());
        }
        Remains { marks, text }
    }

    /// The marks of what can be read, and of what is known of the rest.
    fn marks(&self, reading: &Reading) -> (Marks, Remembered) {
        let lost = self.lost(reading);
        let Some((first, _)) = lost.first() else { return (reading.marks.clone(), Remembered::Proven(0)) };
        if self.is_proven(&lost, reading) {
            let (before, behind): (Vec<_>, Vec<_>) =
                reading.events.iter().map(|recorded| &recorded.event).partition(|event| event.seq < first.seq);
            let mut marks = Marks::default();
            let events = before.into_iter().chain(lost.iter().map(|(event, _)| event)).chain(behind);
            events.for_each(|event| marks.apply(event));
            return (Marks { last_event: reading.marks.last_event, ..marks }, Remembered::Proven(lost.len()));
        }
        let mut marks = reading.marks.clone();
        for (event, _) in &lost {
            let failed = event.action == Action::Repair && event.outcome == "failed";
            if failed
                || event.not_understood.is_some()
                || matches!(event.action, Action::Pin | Action::Bad | Action::Revoke)
            {
                marks.apply(event);
            }
        }
        (Marks { last_event: reading.marks.last_event, ..marks }, Remembered::Hints(lost.len()))
    }

    /// The events that the index has and the log has not, oldest first: all behind the first one that differs.
    fn lost(&self, reading: &Reading) -> Vec<&(Event, String)> {
        let has = |(event, json): &(Event, String)| {
            let same = |recorded: &super::Recorded| recorded.event.seq == event.seq && recorded.json == *json;
            reading
                .events
                .binary_search_by_key(&event.seq, |recorded| recorded.event.seq)
                .is_ok_and(|at| reading.events.get(at).is_some_and(same))
        };
        self.events.iter().skip_while(|known| has(known)).collect()
    }

    fn is_proven(&self, lost: &[&(Event, String)], reading: &Reading) -> bool {
        let Some((first, _)) = lost.first() else { return false };
        let before = match first.seq.saturating_sub(1) {
            0 => Some(CHAIN_START),
            number => reading.chain_of(number),
        };
        let Some(before) = before.filter(|_| !matches!(reading.state, State::Broken { .. })) else { return false };
        let ends = lost.iter().try_fold(before, |chain: Chain, (event, json)| {
            let begins = event.action == Action::HistoryReset;
            Some(chain_behind(if begins { &CHAIN_START } else { &chain }, json.as_bytes()))
        });
        let last = lost.last().map_or(0, |(event, _)| event.seq);
        ends.is_some_and(|chain| self.last == Some(Anchor { number: last, chain }))
    }

    /// The rest of the sentence about what was lost; empty if nothing is known to be.
    fn losses(&self, reading: &Reading, last: u64, marks: &Marks, remembered: Remembered) -> String {
        let mut text = String::new();
        let lost = last.saturating_sub(reading.marks.last_event);
        if lost > 0 {
            text.push_str(&format!("; {lost} events are lost, up to event {last}"));
        }
        match remembered {
            Remembered::Proven(0) | Remembered::Hints(0) => {}
            Remembered::Proven(known) => {
                text.push_str(&format!("; the index has {known} of the lost events as written"));
            }
            Remembered::Hints(known) => text.push_str(&format!(
                "; the index has {known} events that do not follow, of which pins, bad marks and revocations are kept"
            )),
        }
        let unknown: Vec<&str> =
            self.versions.keys().filter(|name| !marks.versions.contains_key(*name)).map(VersionName::as_str).collect();
        if !unknown.is_empty() {
            text.push_str(&format!("; versions with a manifest and no event: {}", unknown.join(", ")));
        }
        text
    }
}
