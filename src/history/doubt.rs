//! Comparing the log with what is known of it elsewhere.

use super::{Head, Reading, State};
use crate::fsys::mutation::Mutation;
use crate::layout;
use crate::model::Anchor;
use crate::model::event::Chain;

/// Something outside the log that names an event of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// What it is: "store/head", "the manifest of v1", "the index".
    pub name: String,
    /// The event.
    pub anchor: Anchor,
}

impl Witness {
    /// The head, if it names an event.
    pub(super) fn of_head(head: &Head) -> Option<Self> {
        Some(Self { name: format!("{}/{}", layout::STORE, layout::HEAD), anchor: head.anchor()? })
    }
}

/// A log as it is compared: the number of its last event, and that of its last reset, before which everything that is
/// missing was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) last: u64,
    pub(super) reset: u64,
}

impl Extent {
    /// In what the log contradicts this witness; `chain_of` gives the chain value of an event that the log has.
    pub(super) fn contradicted_by(
        self,
        witness: &Witness,
        chain_of: impl FnOnce(u64) -> Option<Chain>,
    ) -> Option<State> {
        let Witness { name, anchor: Anchor { number, chain } } = witness;
        if *number == 0 || *number < self.reset || Mutation::Anchor.is_made() {
            return None;
        }
        let detail = match number.cmp(&self.last) {
            std::cmp::Ordering::Greater => match self.last {
                0 => format!("{name} names event {number}, and the history has none"),
                last => format!("{name} names event {number}, and the history ends with event {last}"),
            },
            _ if chain_of(*number).is_some_and(|known| known != *chain) => {
                format!("{name} names another event {number} than the history has")
            }
            _ => return None,
        };
        Some(State::Doubt { number: *number, last: self.last, detail })
    }
}

impl Reading {
    /// The same, compared with these witnesses as well. Read them before the log: what is appended in between must not
    /// look lost.
    #[must_use]
    pub fn against(mut self, witnesses: &[Witness]) -> Self {
        if matches!(self.state, State::Sound | State::Torn { .. }) {
            let extent = Extent { last: self.marks.last_event, reset: self.marks.reset };
            let chain_of = |number| self.chain_of(number);
            if let Some(doubt) = witnesses.iter().find_map(|witness| extent.contradicted_by(witness, chain_of)) {
                self.state = doubt;
            }
        }
        self
    }

    /// The chain value of an event, if the log has it.
    pub(super) fn chain_of(&self, number: u64) -> Option<Chain> {
        // Numbers ascend, except in a log that was damaged.
        let found = self.events.iter().rev().find(|recorded| recorded.trusted && recorded.event.seq == number);
        found.map(|recorded| recorded.chain)
    }
}
