//! Appending, beginning a new segment, beginning a new chain.

use std::time::Duration;

use super::remember::Remains;
use super::{Cursor, Head, History, Look, Memory, Reading, SEGMENT_BYTES, State, head};
use crate::clock::{Clock, Moment};
use crate::error::{Error, Result, Shown};
use crate::fsys::{LockFile, LockGuard, LockMode, append, durable, file};
use crate::layout;
use crate::model::Anchor;
use crate::model::event::{Action, Actor, CHAIN_START, Chain, Event};
use crate::model::marks::Marks;

/// How many bytes of a torn tail are quoted in the event that notes its cutting.
const QUOTED_BYTES: usize = 120;

/// What an append wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The events that were given, with number, time and boot filled in.
    pub events: Vec<Event>,
    /// Events of the log's own that were written before them: a cut, a checkpoint.
    pub own: Vec<Event>,
    /// The chain value of the last line.
    pub chain: Chain,
}

/// Whether an append goes on while the log is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing is appended.
    Refuse,
    /// For what is true whatever was lost: a switch that was made, and the mark of the version that it left. The head
    /// stays where it is, so that the doubt stays.
    PassOver,
}

/// Lines to be written, each chained to the one before.
struct Lines<'a> {
    moment: &'a Moment,
    last_event: u64,
    chain: Chain,
    bytes: Vec<u8>,
}

impl Lines<'_> {
    fn push(&mut self, event: Event) -> Event {
        self.last_event += 1;
        let Moment { unix_seconds, synchronised, boot_id } = self.moment;
        let event = Event {
            seq: self.last_event,
            time: *unix_seconds,
            synchronised: *synchronised,
            boot: boot_id.clone(),
            ..event
        };
        let (line, chain) = event.to_line(&self.chain);
        self.bytes.extend_from_slice(&line);
        self.chain = chain;
        event
    }

    fn all(mut self, own: Vec<Event>, events: Vec<Event>) -> (Vec<u8>, Appended) {
        let own = own.into_iter().map(|event| self.push(event)).collect();
        let events = events.into_iter().map(|event| self.push(event)).collect();
        (self.bytes, Appended { events, own, chain: self.chain })
    }
}

impl History {
    /// Appends events, durably and all or none. Their number, time and boot are filled in.
    ///
    /// A torn tail is cut first, which a `history-cut` event notes; a full segment is followed by a new one.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; [`Error::Corrupt`] if the current segment is broken, or the log in doubt; the system refuses to
    /// write (a full disk, after what was allocated ahead is used up). In each case no event was appended.
    pub fn append(&self, clock: &dyn Clock, lock_timeout: Duration, events: Vec<Event>) -> Result<Appended> {
        self.append_decided(clock, lock_timeout, Doubt::Refuse, |_| Ok(events))
    }

    /// Appends what `decide` makes of the marks while the lock is held, so that nothing is recorded in between.
    ///
    /// # Errors
    ///
    /// As [`History::append`], except for doubt where it is passed over; those of `decide`.
    pub fn append_decided(
        &self,
        clock: &dyn Clock,
        lock_timeout: Duration,
        doubt: Doubt,
        decide: impl FnOnce(&Marks) -> Result<Vec<Event>>,
    ) -> Result<Appended> {
        let _lock = self.lock(lock_timeout)?;
        let look = self.look()?;
        let lost_log = look.log == State::Missing && look.head.anchor().is_some_and(|anchor| anchor.number > 0);
        let in_doubt = matches!(look.present.state, State::Doubt { .. });
        if in_doubt && doubt == Doubt::Refuse || lost_log {
            return Err(self.corrupt(&look.present.state));
        }
        let head = look.head.clone();
        let appended = self.append_lines(clock, look, decide)?;
        if let Some(last) = appended.events.last().filter(|_| !in_doubt) {
            head.advance(&self.store, Anchor { number: last.seq, chain: appended.chain });
        }
        Ok(appended)
    }

    fn append_lines(
        &self,
        clock: &dyn Clock,
        look: Look,
        decide: impl FnOnce(&Marks) -> Result<Vec<Event>>,
    ) -> Result<Appended> {
        let Look { present, cursor, log, .. } = look;
        let torn = match (&log, &cursor) {
            (State::Sound, Some(_)) | (State::Missing, None) => None,
            (State::Torn { offset, .. }, Some(_)) | (State::Torn { offset: offset @ 0, .. }, None) => Some(*offset),
            (state, _) => return Err(self.corrupt(state)),
        };
        let events = decide(&present.marks)?;
        let Some(first) = events.first() else {
            return Ok(Appended { events, own: Vec::new(), chain: present.chain });
        };
        let mut own = match torn {
            Some(offset) => vec![Event { who: first.who.clone(), ..self.cut(offset)? }],
            None => Vec::new(),
        };
        let moment = clock.now();
        let lines = |chain| Lines { moment: &moment, last_event: present.marks.last_event, chain, bytes: Vec::new() };
        let Some(cursor) = cursor else {
            let (bytes, appended) = lines(CHAIN_START).all(own, events);
            self.begin_segment(&bytes)?;
            return Ok(appended);
        };
        if cursor.end - checkpoint_bytes(&cursor) >= SEGMENT_BYTES && self.keep_segment().is_ok() {
            own.insert(0, checkpoint(&present.marks, &cursor.chain, &first.who));
            let (bytes, appended) = lines(cursor.chain).all(own.clone(), events.clone());
            let before = self.store.stat(layout::HISTORY)?;
            match self.begin_segment(&bytes) {
                Ok(()) => return Ok(appended),
                Err(_) if self.store.stat(layout::HISTORY)?.same_inode(&before) => drop(own.remove(0)),
                Err(error) => return Err(error),
            }
        }
        let (bytes, appended) = lines(cursor.chain).all(own, events);
        let file = self.store.open_or_create_file(layout::HISTORY, layout::PUBLIC_FILE_MODE)?;
        append::append(&file, cursor.end, &bytes, &self.path(layout::HISTORY))?;
        Ok(appended)
    }

    /// Makes the head if it is missing or unreadable, and the log is sound.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; [`Error::Corrupt`] if the log cannot be trusted; the system refuses to write.
    pub fn make_head(&self, lock_timeout: Duration) -> Result<()> {
        let _lock = self.lock(lock_timeout)?;
        let Look { present, head, .. } = self.look()?;
        match head {
            Head::At(_) | Head::Newer(_) => Ok(()),
            Head::Missing | Head::Unreadable(_) if present.state.is_trustworthy() => {
                head::make(&self.store, Anchor { number: present.marks.last_event, chain: present.chain })
            }
            Head::Missing | Head::Unreadable(_) => Err(self.corrupt(&present.state)),
        }
    }

    /// The last event that is known to be durable. A line that a reader sees may be one whose append has not ended.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; the system refuses to read or sync.
    pub fn durable_anchor(&self, lock_timeout: Duration) -> Result<Anchor> {
        match Head::read(&self.store) {
            Head::At(anchor) => Ok(anchor),
            _ => self.settle(lock_timeout),
        }
    }

    /// Makes durable what can be read, and brings a head that is behind forward; gives the last event.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; the system refuses to read or sync.
    pub fn settle(&self, lock_timeout: Duration) -> Result<Anchor> {
        let _lock = self.lock(lock_timeout)?;
        let Look { present, head, .. } = self.look()?;
        let anchor = Anchor { number: present.marks.last_event, chain: present.chain };
        if head.anchor() != Some(anchor) && present.state.is_trustworthy() {
            let file = self.store.open_file(layout::HISTORY)?;
            file::sync(&file, || self.path(layout::HISTORY))?;
            head.advance(&self.store, anchor);
        }
        Ok(anchor)
    }

    /// Makes the head of a log that does not exist yet.
    ///
    /// # Errors
    ///
    /// The system refuses to write.
    pub fn begin_head(&self) -> Result<()> {
        match Head::read(&self.store) {
            Head::Missing => head::make(&self.store, Anchor::START),
            _ => Ok(()),
        }
    }

    /// Begins a new chain if the log is broken or in doubt, or a segment of it is gone; gives the event that records this,
    /// or `None` if nothing is wrong. What can still be read decides the marks, and what `memory` knows of lost events;
    /// damaged segments are kept. The number of the event is higher than any that a witness names.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], or the system refuses to write.
    pub fn reset(
        &self,
        clock: &dyn Clock,
        lock_timeout: Duration,
        who: Actor,
        reason: &str,
        memory: &Memory,
    ) -> Result<Option<Event>> {
        let _lock = self.lock(lock_timeout)?;
        let reading = self.read()?.against(&memory.witnesses);
        if reading.state.is_trustworthy() {
            return Ok(None);
        }
        let moment = clock.now();
        let last_event = reading.events.iter().map(|recorded| recorded.event.seq).max().unwrap_or(0);
        let named = memory.witnesses.iter().map(|witness| witness.anchor.number).max().unwrap_or(0);
        let named = named.max(reading.head.anchor().map_or(0, |anchor| anchor.number));
        let last_event = last_event.max(reading.marks.last_event).max(named);
        let mut lines = Lines { moment: &moment, last_event, chain: CHAIN_START, bytes: Vec::new() };
        let event = lines.push(reset(&reading, who, reason, memory, last_event));
        if self.store.try_stat(layout::HISTORY)?.is_some() {
            self.keep_segment()?;
        }
        self.begin_segment(&lines.bytes)?;
        let anchor = Anchor { number: event.seq, chain: lines.chain };
        match reading.head {
            Head::Newer(_) => {}
            // With the log began the store, and there is none without a head.
            Head::Missing => head::make(&self.store, anchor)?,
            head => head.advance(&self.store, anchor),
        }
        Ok(Some(event))
    }

    /// Removes what a change of segments left that died.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], or the system refuses.
    pub fn sweep(&self, lock_timeout: Duration) -> Result<()> {
        let half_written = durable::temporary_name(layout::HISTORY);
        if self.store.try_stat(&half_written)?.is_none() {
            return Ok(());
        }
        // Under the lock nobody is writing one.
        let _lock = self.lock(lock_timeout)?;
        self.store.remove_file_if_present(&half_written).map(drop)
    }

    fn lock(&self, timeout: Duration) -> Result<LockGuard> {
        LockFile::open(&self.store, layout::HISTORY_LOCK)?.lock(LockMode::Exclusive, timeout)
    }

    fn corrupt(&self, state: &State) -> Error {
        let (segment, detail) = match state {
            State::Broken { segment, line, detail } => (segment.as_str(), format!("line {line}: {detail}")),
            State::Doubt { detail, .. } => (layout::HISTORY, format!("events are lost: {detail}")),
            State::Missing => (layout::HISTORY, "it is gone".to_owned()),
            other => (layout::HISTORY, format!("it changed while it was read ({other:?})")),
        };
        Error::corrupt("history", self.path(segment), detail)
    }

    /// Cuts a torn tail; gives the event that tells so. If we die before that is written, nothing is lost by it: the
    /// tail was never acknowledged.
    fn cut(&self, offset: u64) -> Result<Event> {
        let path = self.path(layout::HISTORY);
        let file = self.store.open_or_create_file(layout::HISTORY, layout::PUBLIC_FILE_MODE)?;
        let tail = append::read_from(&file, offset, &path)?;
        append::cut(&file, offset, &path)?;
        let quoted = Shown::bytes(&tail[..tail.len().min(QUOTED_BYTES)]).to_string();
        let text = format!("cut {} bytes at offset {offset}: {quoted}", tail.len());
        Ok(Event { text: Some(text), ..Event::new(Action::HistoryCut) })
    }

    /// Gives the current segment its numbered name, if it does not have it yet from an attempt that was interrupted.
    fn keep_segment(&self) -> Result<()> {
        let newest = self.numbered()?.pop();
        if let Some((_, name)) = &newest
            && self.store.stat(name)?.same_inode(&self.store.stat(layout::HISTORY)?)
        {
            return Ok(());
        }
        let number = newest.map_or(0, |(number, _)| number) + 1;
        self.store.link(layout::HISTORY, &self.store, format!("{}.{number:06}", layout::HISTORY))?;
        // Else the rename that follows could reach the medium alone, and the old segment be lost.
        self.store.sync()
    }

    /// Puts a new segment with these lines in the place of the current one.
    fn begin_segment(&self, bytes: &[u8]) -> Result<()> {
        durable::write(&self.store, layout::HISTORY, bytes, layout::PUBLIC_FILE_MODE)?;
        // The lines are there; that nothing could be allocated for later ones is told when they need it.
        let _ = self
            .store
            .open_or_create_file(layout::HISTORY, layout::PUBLIC_FILE_MODE)
            .and_then(|file| append::reserve(&file, bytes.len() as u64, 0, &self.path(layout::HISTORY)));
        Ok(())
    }
}

/// What of a segment is its leading checkpoint: however long that is, a segment has room for events behind it.
fn checkpoint_bytes(cursor: &Cursor) -> u64 {
    if cursor.before == CHAIN_START { 0 } else { cursor.first_bytes }
}

fn checkpoint(marks: &Marks, chain: &Chain, who: &Actor) -> Event {
    Event {
        who: who.clone(),
        marks: Some(Box::new(marks.clone())),
        chain_before: Some(blake3::Hash::from_bytes(*chain).to_hex().to_string()),
        ..Event::new(Action::Checkpoint)
    }
}

fn reset(reading: &Reading, who: Actor, reason: &str, memory: &Memory, last_event: u64) -> Event {
    let Remains { marks, text } = memory.remains(reading, last_event);
    let found = match &reading.state {
        State::Broken { segment, line, detail } => format!("{segment} line {line}: {detail}"),
        State::Doubt { detail, .. } => detail.clone(),
        _ => "the history was gone".to_owned(),
    };
    let text = [found, text].concat();
    Event {
        who,
        reason: Some(reason.to_owned()),
        text: Some(text),
        marks: Some(Box::new(marks)),
        ..Event::new(Action::HistoryReset)
    }
}
