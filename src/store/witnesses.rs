//! What is known of the history outside its log: the head, the manifests, the index.
//!
//! A manifest names the last event before its version was published, the index the last one that it took in. What both
//! say is asked of the index, where it answers, so that no manifest has to be read.
//!
//! Who forgets, publishes or switches forward compares the log with all of them. A rollback looks at the head alone, since
//! it touches neither manifests nor index.

use std::collections::BTreeMap;

use super::Store;
use crate::error::{Error, Refusal, Result};
use crate::history::{Memory, State, Witness};
use crate::index::{EventFilter, Order, Reader, Reflected};
use crate::model::lenient::Unknown;
use crate::model::marks::Known;
use crate::model::{Anchor, Event, Role, VersionName};

/// What the index knows.
struct Indexed {
    last: Anchor,
    anchors: BTreeMap<VersionName, Anchor>,
}

/// The refusal of whoever must not go on while events are lost.
pub fn doubt(detail: &str) -> Error {
    Error::refused_with(
        Refusal::Doubt,
        format!("the history is in doubt: {detail}"),
        "see what was lost with: tope-store doctor; go on without it with: tope-store doctor --fix",
    )
}

/// Whether events are lost, and how that shows: the log names fewer than something else, or is gone.
pub fn lost(state: &State, witnesses: &[Witness]) -> Option<String> {
    match state {
        State::Doubt { detail, .. } => Some(detail.clone()),
        State::Missing if witnesses.iter().any(|witness| witness.anchor.number > 0) => {
            Some("the history is gone".into())
        }
        _ => None,
    }
}

impl Store {
    /// Who names an event of the history, besides the head. What cannot be read names none.
    ///
    /// Call it before the log is read: what is appended in between must not look lost.
    pub fn witnesses(&self) -> Vec<Witness> {
        let indexed = self.peek(|reader| {
            let Reflected { seq, chain } = reader.reflected()?;
            let versions = reader.versions()?.into_iter();
            let anchors = versions.map(|version| (version.facts.name, version.facts.anchor)).collect();
            Ok(Indexed { last: Anchor { number: seq, chain }, anchors })
        });
        let mut witnesses = Vec::new();
        let mut known = BTreeMap::new();
        if let Some(Indexed { last, anchors }) = indexed {
            witnesses.push(Witness { name: "the index".into(), anchor: last });
            known = anchors;
        }
        let Ok(manifests) = self.manifests() else { return witnesses };
        for name in manifests.names().unwrap_or_default() {
            let read = || manifests.facts(&name).ok().map(|(facts, _)| facts.anchor);
            if let Some(anchor) = known.remove(&name).or_else(read) {
                witnesses.push(Witness { name: format!("the manifest of {name}"), anchor });
            }
        }
        witnesses
    }

    /// Whether the history can be trusted, compared with everything that names an event of it.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn history_state(&self) -> Result<State> {
        let witnesses = self.witnesses();
        Ok(self.history()?.read()?.against(&witnesses).state)
    }

    /// Whether events are lost, and how that shows.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn lost_events(&self) -> Result<Option<String>> {
        let witnesses = self.witnesses();
        let state = self.history()?.read()?.against(&witnesses).state;
        Ok(lost(&state, &witnesses))
    }

    /// Refuses while events are lost.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; the system refuses to read.
    pub fn refuse_doubt(&self) -> Result<()> {
        match self.lost_events()? {
            Some(detail) => Err(doubt(&detail)),
            None => Ok(()),
        }
    }

    /// All that is known of the history outside its log.
    ///
    /// # Errors
    ///
    /// The system refuses to read links or manifests.
    pub fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { witnesses: self.witnesses(), ..Memory::default() };
        let everything = EventFilter { order: Order::OldestFirst, ..EventFilter::default() };
        let read = |reader: &Reader<'_>| -> Result<(Reflected, Vec<(Event, String)>)> {
            Ok((reader.reflected()?, reader.events(&everything)?))
        };
        if let Some((Reflected { seq, chain }, events)) = self.peek(read) {
            memory.events = events;
            memory.last = Some(Anchor { number: seq, chain });
        }
        let manifests = self.manifests()?;
        for name in manifests.names()? {
            if let Ok((facts, digest)) = manifests.facts(&name) {
                memory.versions.insert(
                    name,
                    Known { import_number: facts.import_number, digest, manifest: None, unknown: Unknown::new() },
                );
            }
        }
        let roles = self.refs()?.read()?;
        for role in Role::ALL {
            if let Some(version) = roles.version(role) {
                memory.roles.insert(role, version.clone());
            }
        }
        Ok(memory)
    }
}
