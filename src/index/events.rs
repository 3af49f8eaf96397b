//! Events: the lines of the history, to be asked by version and by what happened.

use super::failure::{failed, malformed};
use super::{Reader, Reflected, Writer, number};
use crate::error::Result;
use crate::model::event::Chain;
use crate::model::{Action, Event, VersionName};

// What happened is taken from the line, so that an action which this build does not know keeps its name.
const INSERT: &str = "INSERT INTO events (seq, time, action, version, digest, json)
    VALUES (?1, ?2, json_extract(?5, '$.action'), ?3, ?4, ?5)";
const NEWEST: &str = "SELECT json FROM events
    WHERE (?1 IS NULL OR version = ?1) AND (?2 IS NULL OR instr(?2, ' ' || action || ' ')) AND seq > ?3
    ORDER BY seq DESC LIMIT ?4";
const OLDEST: &str = "SELECT json FROM events
    WHERE (?1 IS NULL OR version = ?1) AND (?2 IS NULL OR instr(?2, ' ' || action || ' ')) AND seq > ?3
    ORDER BY seq LIMIT ?4";

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The event.
    pub event: Event,
    /// Its JSON exactly as it stands in the line; may hold more than [`Event`] knows.
    pub json: String,
    /// The chain value of the line.
    pub chain: Chain,
}

/// Which end of the history comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// The last event first.
    #[default]
    NewestFirst,
    /// The first event first.
    OldestFirst,
}

/// Which events are wanted; the default is all, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Only those about this version.
    pub version: Option<VersionName>,
    /// Only those in which one of these happened; empty for any.
    pub actions: Vec<Action>,
    /// Only those behind this number.
    pub after: u64,
    /// Not more than so many.
    pub limit: Option<usize>,
    /// Which come first, and are kept if there are more than the limit.
    pub order: Order,
}

impl Reader<'_> {
    /// Events, each with its JSON as it was written.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<(Event, String)>> {
        let action = "list events";
        let actions = (!filter.actions.is_empty()).then(|| {
            let names: String = filter.actions.iter().flat_map(|action| [" ", action.name()]).collect();
            names + " "
        });
        let read = || {
            let mut statement = self.transaction.prepare_cached(match filter.order {
                Order::NewestFirst => NEWEST,
                Order::OldestFirst => OLDEST,
            })?;
            let version = filter.version.as_ref().map(VersionName::as_str);
            // A negative limit is none.
            let limit = filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
            let rows = statement
                .query_map((version, &actions, number(filter.after)?, limit), |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let parse = |json: String| match Event::parse(json.as_bytes()) {
            Ok(event) => Ok((event, json)),
            Err(_) => Err(malformed(action, "an event makes no sense")),
        };
        read().map_err(failed(action))?.into_iter().map(parse).collect()
    }
}

impl Writer<'_> {
    /// Takes in lines of the history, oldest first, and records that the index reflects it up to the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::Index`](crate::error::Error::Index); [damage](super::is_damage()) if one of these numbers is there
    /// already: the index and the history are not of one store then.
    pub fn append_events<'l>(&mut self, lines: impl IntoIterator<Item = &'l HistoryLine>) -> Result<()> {
        let mut last = None;
        let append = |last: &mut Option<Reflected>| {
            let mut statement = self.transaction.prepare_cached(INSERT)?;
            for HistoryLine { event, json, chain } in lines {
                let version = event.version.as_ref().map(VersionName::as_str);
                let digest = event.digest.as_ref().map(|digest| digest.0.as_bytes());
                statement.execute((number(event.seq)?, event.time, version, digest, json))?;
                *last = Some(Reflected { seq: event.seq, chain: *chain });
            }
            Ok(())
        };
        append(&mut last).map_err(failed("take in events"))?;
        last.map_or(Ok(()), |last| self.set_reflected(last))
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{history, name};
    use super::super::{Index, is_damage};
    use super::*;
    use crate::model::event::CHAIN_START;

    fn sample() -> Vec<HistoryLine> {
        let about = |action, version| Event::about(action, &name(version), None);
        history([
            Event::new(Action::Init),
            about(Action::Import, "v1"),
            about(Action::Activate, "v1"),
            about(Action::Import, "v2"),
            Event { reason: Some("it's \"bad\"\u{fc}".into()), ..about(Action::Rollback, "v1") },
        ])
    }

    #[test]
    fn events_are_found_by_version_and_action_from_either_end() {
        let lines = sample();
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        writer.append_events(&lines[..2]).unwrap();
        writer.append_events(&lines[2..]).unwrap();
        let last = lines.last().unwrap();
        assert_eq!(writer.reflected().unwrap(), Reflected { seq: 5, chain: last.chain });
        let seqs = |filter: EventFilter| -> Vec<u64> {
            writer.events(&filter).unwrap().iter().map(|(event, _)| event.seq).collect()
        };
        let all = writer.events(&EventFilter { order: Order::OldestFirst, ..EventFilter::default() }).unwrap();
        let expected: Vec<_> = lines.iter().map(|line| (line.event.clone(), line.json.clone())).collect();
        assert_eq!(all, expected);
        assert_eq!(seqs(EventFilter { limit: Some(2), ..EventFilter::default() }), [5, 4]);
        assert_eq!(seqs(EventFilter { version: Some(name("v1")), ..EventFilter::default() }), [5, 3, 2]);
        let actions = vec![Action::Import, Action::Rollback];
        assert_eq!(seqs(EventFilter { actions: actions.clone(), after: 2, ..EventFilter::default() }), [5, 4]);
        let both =
            EventFilter { actions, version: Some(name("v1")), order: Order::OldestFirst, ..EventFilter::default() };
        assert_eq!(seqs(both), [2, 5]);
    }

    #[test]
    fn an_action_of_a_newer_build_keeps_its_name() {
        let mut index = Index::in_memory().unwrap();
        let json = r#"{"seq":1,"time":2,"synchronised":true,"action":"teleport","moon":1}"#.to_owned();
        let line =
            HistoryLine { event: Event::parse(json.as_bytes()).unwrap(), json: json.clone(), chain: CHAIN_START };
        let mut writer = index.write().unwrap();
        writer.append_events([&line]).unwrap();
        assert_eq!(writer.events(&EventFilter::default()).unwrap(), [(line.event, json)]);
        let action: String = writer.transaction.query_row("SELECT action FROM events", [], |row| row.get(0)).unwrap();
        assert_eq!(action, "teleport");
    }

    #[test]
    fn an_event_that_is_there_already_is_damage() {
        let lines = sample();
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        writer.append_events(&lines).unwrap();
        let error = writer.append_events(&lines[..1]).unwrap_err();
        assert!(is_damage(&error), "{error:?}");
    }
}
