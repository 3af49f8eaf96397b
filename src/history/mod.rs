//! The history: an append-only log of events, the truth about what happened.
//!
//! The log is a sequence of segments in `store/`: `history.000001`, `history.000002`, … and the current one, plain
//! `history`. A line is an event ([`crate::model::event`]); a segment other than the first begins with a checkpoint
//! that carries all marks, so that the current segment alone tells them. Byte by byte: `schema/FORMAT.md`.
//!
//! **Invariant:** a line that was appended with success is durable, and no later append changes or hides it.
//!
//! **Invariant:** a failed append leaves the log as it was. (When only the very last fsync of a new segment's
//! directory entry fails, the events may be there all the same.)
//!
//! **Invariant:** damage never makes reading fail. It is reported as a [`State`], with everything that can be read.
//!
//! # Torn or broken
//!
//! A power cut while lines are written leaves the last one unterminated, or blocks of zeros where the file system had
//! extended the file before it wrote. So the log is *torn* where an unterminated line, or a line with NUL bytes that
//! no whole line follows, ends it: nothing there was ever acknowledged, and the next append cuts it and notes that
//! (`history-cut`). Every other line that does not follow is *broken*: bytes that were durable once are not what they
//! were. Appends then refuse until [`History::reset`] begins a new chain by the operator's order; a lock-free reader
//! that meets an append in progress sees it as torn.
//!
//! # A new segment
//!
//! The current segment grows to [`SEGMENT_BYTES`] of events; the append after that begins the next one. Readers open
//! `history` first and then look for older segments, and count one inode once.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | linking `history` to `history.NNNNNN` | one segment with two names; the next attempt finds the second name |
//! | syncing the directory | the same |
//! | writing and syncing `.history.new` | the same, and a leftover that the next attempt replaces |
//! | renaming it over `history` | the old segment alone, or the old and the new one |
//! | syncing the directory | the new segment |
//!
//! # In doubt
//!
//! A log that was cut at the end of a line, or restored from an older copy, is sound by itself. Events are named outside
//! of it as well: by the head ([`head`]), by the manifest of every version, by the index ([`Witness`]). If one of them
//! names an event that the log does not have, events are lost, and the log is *in doubt*. Appends then refuse; only a
//! switch is recorded all the same ([`Doubt::PassOver`]), which leaves the head where it is, so that no event
//! that comes later hides the doubt. [`History::reset`] ends it by the operator's order: its number is higher than every
//! one that a witness names, and what is named before it counts as acknowledged.
//!
//! A new segment that cannot be begun (no block, no inode, no hardlinks) is no reason to lose an event: it is appended
//! to the old segment, where space was allocated ahead.

mod doubt;
pub mod head;
mod remember;
mod segment;
mod write;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::fsys::{Dir, Kind, append, stat::stat_file};
use crate::layout;
use crate::model::event::{Action, CHAIN_START, Chain, Event};
use crate::model::marks::Marks;

use doubt::Extent;
pub use doubt::Witness;
pub use head::Head;
pub use remember::Memory;
pub use segment::Recorded;
use segment::{Cursor, Damage};
pub use write::{Appended, Doubt};

/// Bytes of events after which a new segment begins: a few thousand events, read in milliseconds on a small device.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// Whether the log can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Every line follows from the one before.
    Sound,
    /// There is no log, or one without a single byte.
    Missing,
    /// The last append did not reach the medium whole (or is under way); the next one cuts it.
    Torn {
        /// Where the current segment's last sound line ends.
        offset: u64,
        /// How much comes behind it.
        bytes: u64,
    },
    /// Lines that were durable once are damaged or gone.
    Broken {
        /// The segment's file name.
        segment: String,
        /// The first line that does not follow, from 1; 0 if the file itself is not there.
        line: u64,
        /// In what way.
        detail: String,
    },
    /// Every line follows from the one before, but something outside the log names an event that it does not have.
    Doubt {
        /// The number of the event that is named.
        number: u64,
        /// That of the log's last event.
        last: u64,
        /// The sentence: who names it.
        detail: String,
    },
}

impl State {
    /// Whether decisions may rest on the log: nothing that was acknowledged is missing.
    pub fn is_trustworthy(&self) -> bool {
        matches!(self, Self::Sound | Self::Torn { .. })
    }
}

/// All that the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Events of all segments, oldest first.
    pub events: Vec<Recorded>,
    /// Their fold; with damage the best that can be had.
    pub marks: Marks,
    /// The chain value of the last sound line of the newest segment.
    pub chain: Chain,
    /// The first damage that no reset has acknowledged.
    pub state: State,
    /// Damage that an operator has acknowledged by a reset, oldest first.
    pub acknowledged: Vec<State>,
    /// What the head said before the log was read.
    pub head: Head,
}

impl Reading {
    /// The events that the chain vouches for, oldest first.
    pub fn trusted(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|recorded| recorded.trusted).map(|recorded| &recorded.event)
    }
}

/// What the current segment alone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// All marks; with damage the best that can be had.
    pub marks: Marks,
    /// The chain value of the last sound line.
    pub chain: Chain,
    /// Damage of the current segment.
    pub state: State,
}

/// The log of one store.
#[derive(Debug)]
pub struct History {
    store: Dir,
    /// How far the current segment was read the last time, so that it need not be read again from its beginning.
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    device: u64,
    inode: u64,
    cursor: Cursor,
    marks: Marks,
}

/// The current segment, read to its end.
#[derive(Debug)]
struct Look {
    present: Present,
    /// Behind its last sound line; `None` if it has none, or is broken.
    cursor: Option<Cursor>,
    /// The state of the log by itself.
    log: State,
    /// What the head said before the log was read.
    head: Head,
}

impl History {
    /// The log in this `store/` directory.
    pub fn new(store: Dir) -> Self {
        Self { store, seen: Mutex::new(None) }
    }

    /// Reads all marks from the current segment. Takes no lock, and reads only what was added since the last time.
    ///
    /// Damage in older segments goes unnoticed: [`History::read`] sees it.
    ///
    /// # Errors
    ///
    /// The system refuses to read; never because of what is read.
    pub fn present(&self) -> Result<Present> {
        self.look().map(|look| look.present)
    }

    /// Reads everything. Takes no lock.
    ///
    /// # Errors
    ///
    /// The system refuses to read; never because of what is read.
    pub fn read(&self) -> Result<Reading> {
        let head = Head::read(&self.store);
        let witness = Witness::of_head(&head);
        Ok(self.read_log(head)?.against(witness.as_slice()))
    }

    fn read_log(&self, head: Head) -> Result<Reading> {
        let mut reading = Reading {
            events: Vec::new(),
            marks: Marks::default(),
            chain: CHAIN_START,
            state: State::Sound,
            acknowledged: Vec::new(),
            head,
        };
        let segments = self.segments()?;
        let Some(last) = segments.len().checked_sub(1) else {
            return Ok(Reading { state: State::Missing, ..reading });
        };
        for (at, (name, file)) in segments.iter().enumerate() {
            let bytes = match file {
                Some(file) => append::read_from(file, 0, &self.path(name))?,
                None => Vec::new(),
            };
            if bytes.is_empty() && last == 0 {
                return Ok(Reading { state: State::Missing, ..reading });
            }
            let mut cursor = Cursor::start();
            let begin = reading.events.len();
            let damage = cursor.advance(&bytes, |recorded| reading.events.push(recorded));
            let reset = reading.events.get(begin).is_some_and(|first| first.event.action == Action::HistoryReset);
            if reset && cursor.lines > 0 && reading.state != State::Sound {
                reading.acknowledged.push(std::mem::replace(&mut reading.state, State::Sound));
            }
            let broken = |line, detail: &str| State::Broken { segment: name.clone(), line, detail: detail.to_owned() };
            let state = if bytes.is_empty() {
                broken(0, if file.is_some() { "the segment is empty" } else { "the current segment is missing" })
            } else if cursor.lines > 0 && !reset && cursor.before != reading.chain {
                broken(1, "it does not follow the segment before it")
            } else {
                match damage {
                    None => State::Sound,
                    Some(Damage::Torn { .. }) if at < last || (at > 0 && cursor.lines == 0) => {
                        broken(cursor.lines + 1, "the line is incomplete")
                    }
                    Some(Damage::Torn { offset, bytes }) => State::Torn { offset, bytes },
                    Some(Damage::Broken { line, detail }) => broken(line, &detail),
                }
            };
            if reading.state == State::Sound {
                reading.state = state;
            }
            reading.chain = cursor.chain;
        }
        for recorded in &reading.events {
            reading.marks.apply(&recorded.event);
        }
        Ok(reading)
    }

    /// Reads the current segment, from where it was left the last time.
    fn look(&self) -> Result<Look> {
        let head = Head::read(&self.store);
        let Some(file) = self.open_current()? else { return self.look_hard(head) };
        let path = self.path(layout::HISTORY);
        let stat = stat_file(&file, || path.clone())?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut cursor, mut marks, mut bytes) = (Cursor::start(), Marks::default(), None);
        if let Some(known) = seen.take().filter(|seen| (seen.device, seen.inode) == (stat.device, stat.inode)) {
            let tail = append::read_from(&file, known.cursor.last_start(), &path)?;
            // A reader may have seen lines of an append that failed and was taken back; then it begins anew.
            if let Some(added) = tail.strip_prefix(&*known.cursor.last) {
                (cursor, marks, bytes) = (known.cursor, known.marks, Some(added.to_vec()));
            }
        }
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => append::read_from(&file, 0, &path)?,
        };
        let named = head.anchor().map_or(0, |anchor| anchor.number);
        let mut chain_of_named = None;
        let damage = cursor.advance(&bytes, |recorded| {
            marks.apply(&recorded.event);
            if recorded.event.seq == named {
                chain_of_named = Some(recorded.chain);
            }
        });
        let state = match damage {
            Some(Damage::Torn { offset, bytes }) if cursor.lines > 0 => State::Torn { offset, bytes },
            None if cursor.lines > 0 => State::Sound,
            _ => {
                drop(seen);
                return self.look_hard(head);
            }
        };
        let known = Seen { device: stat.device, inode: stat.inode, cursor: cursor.clone(), marks: marks.clone() };
        *seen = Some(known);
        drop(seen);
        let log = state.clone();
        let state = self.compared(state, &marks, &cursor, &head, chain_of_named)?;
        Ok(Look { present: Present { marks, chain: cursor.chain, state }, cursor: Some(cursor), log, head })
    }

    /// The state of a log that is whole, compared with its head. Only a head that is behind, in a segment that was read
    /// before, costs more than a look.
    fn compared(
        &self,
        state: State,
        marks: &Marks,
        cursor: &Cursor,
        head: &Head,
        chain_of_named: Option<Chain>,
    ) -> Result<State> {
        let Some(witness) = Witness::of_head(head) else { return Ok(state) };
        let extent = Extent { last: marks.last_event, reset: marks.reset };
        let number = witness.anchor.number;
        let chain = match chain_of_named {
            None if number == extent.last => Some(cursor.chain),
            None if number < extent.last && number >= extent.reset => self.read_log(head.clone())?.chain_of(number),
            known => known,
        };
        Ok(extent.contradicted_by(&witness, |_| chain).unwrap_or(state))
    }

    /// The current segment is damaged or not there: older segments may still tell what it held.
    fn look_hard(&self, head: Head) -> Result<Look> {
        let reading = self.read_log(head)?;
        let log = reading.state.clone();
        let witness = Witness::of_head(&reading.head);
        let Reading { marks, chain, state, head, .. } = reading.against(witness.as_slice());
        Ok(Look { present: Present { marks, chain, state }, cursor: None, log, head })
    }

    /// All segments, oldest first; the last is the current one, without a file if only older ones are there.
    fn segments(&self) -> Result<Vec<(String, Option<File>)>> {
        // Opened before the others are listed: a segment begun meanwhile is then listed too, never missed.
        let current = self.open_current()?;
        let current_inode = match &current {
            Some(file) => Some(stat_file(file, || self.path(layout::HISTORY))?),
            None => None,
        };
        let mut segments = Vec::new();
        for (_, name) in self.numbered()? {
            let file = self.store.open_file(&name)?;
            let stat = stat_file(&file, || self.path(&name))?;
            if current_inode.is_some_and(|current| current.same_inode(&stat)) {
                break;
            }
            segments.push((name, Some(file)));
        }
        if current.is_some() || !segments.is_empty() {
            segments.push((layout::HISTORY.to_owned(), current));
        }
        Ok(segments)
    }

    /// Names of older segments with their numbers, ascending.
    fn numbered(&self) -> Result<Vec<(u64, String)>> {
        let mut numbered: Vec<(u64, String)> = Vec::new();
        for item in self.store.items()? {
            let name = std::str::from_utf8(item.name.as_bytes()).unwrap_or_default();
            let number = name.strip_prefix(layout::HISTORY).and_then(|rest| rest.strip_prefix('.'));
            let number = number.filter(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()));
            if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
                numbered.push((number, name.to_owned()));
            }
        }
        numbered.sort_unstable();
        Ok(numbered)
    }

    fn open_current(&self) -> Result<Option<File>> {
        match self.store.open_file(layout::HISTORY) {
            Ok(file) if stat_file(&file, || self.path(layout::HISTORY))?.kind == Kind::File => Ok(Some(file)),
            // Whatever else somebody put there, it is no log.
            Ok(_) => Ok(None),
            Err(error) if error.is_io(std::io::ErrorKind::NotFound) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path_of(name)
    }
}
