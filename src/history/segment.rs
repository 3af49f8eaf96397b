//! One segment's bytes as events.

use crate::model::event::{CHAIN_START, Chain, Event};

/// An event as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The event.
    pub event: Event,
    /// Its JSON exactly as it stands in the line; may hold more than [`Event`] knows.
    pub json: String,
    /// The chain value of its line; [`CHAIN_START`] where the chain does not vouch for it.
    pub chain: Chain,
    /// Whether the chain vouches for it. Events behind a break are read as well as can be, and not trusted.
    pub trusted: bool,
}

/// What is wrong with a segment from some place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    /// The last append did not reach the medium whole.
    Torn { offset: u64, bytes: u64 },
    /// A line is wrong that was once complete. Lines count from 1.
    Broken { line: u64, detail: String },
}

/// A place in a segment up to which it was read and found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The chain value before the first line, as that line tells it.
    pub before: Chain,
    /// The chain value of the last line.
    pub chain: Chain,
    /// How many lines were read.
    pub lines: u64,
    /// Length of the first line: in all segments but the first a checkpoint.
    pub first_bytes: u64,
    /// The last line with its newline; its chain value stands for everything before it.
    pub last: Vec<u8>,
    /// Offset behind the last line.
    pub end: u64,
}

impl Cursor {
    /// The beginning of a segment.
    pub(super) fn start() -> Self {
        Self { before: CHAIN_START, chain: CHAIN_START, lines: 0, first_bytes: 0, last: Vec::new(), end: 0 }
    }

    /// Offset of the last line.
    pub(super) fn last_start(&self) -> u64 {
        self.end - self.last.len() as u64
    }

    /// Reads on through `bytes`, which stand at the cursor, as far as they are sound. What comes behind a break is
    /// given to `sink` as not trusted, and the cursor stays before it.
    pub(super) fn advance(&mut self, bytes: &[u8], mut sink: impl FnMut(Recorded)) -> Option<Damage> {
        let mut rest = bytes;
        while let Some(line) = first_line(rest) {
            let read = if line.contains(&0) {
                if !rest[line.len()..].split_inclusive(|byte| *byte == b'\n').any(is_whole) {
                    break;
                }
                Err("holds NUL bytes, and whole lines follow".to_owned())
            } else {
                self.next(&line[..line.len() - 1]).map_err(|error| error.to_string())
            };
            match read {
                Ok(event) => sink(Recorded { event, json: json_of(line), chain: self.chain, trusted: true }),
                Err(detail) => {
                    let lines = rest.split_inclusive(|byte| *byte == b'\n').filter(|line| is_whole(line));
                    let salvaged =
                        lines.filter_map(|line| Some((Event::salvage(&line[..line.len() - 1])?, json_of(line))));
                    salvaged
                        .for_each(|(event, json)| sink(Recorded { event, json, chain: CHAIN_START, trusted: false }));
                    return Some(Damage::Broken { line: self.lines + 1, detail });
                }
            }
            self.end += line.len() as u64;
            if self.lines == 0 {
                self.first_bytes = line.len() as u64;
            }
            self.lines += 1;
            self.last.clear();
            self.last.extend_from_slice(line);
            rest = &rest[line.len()..];
        }
        (!rest.is_empty()).then_some(Damage::Torn { offset: self.end, bytes: rest.len() as u64 })
    }

    fn next(&mut self, line: &[u8]) -> Result<Event, crate::model::event::LineError> {
        let event;
        if self.lines == 0 {
            (event, self.before, self.chain) = Event::from_first_line(line)?;
        } else {
            (event, self.chain) = Event::from_line(line, &self.chain)?;
        }
        Ok(event)
    }
}

/// The JSON of a line that was read as an event: behind the chain value and the blank.
fn json_of(line: &[u8]) -> String {
    let json = line.get(65..).unwrap_or_default();
    String::from_utf8_lossy(json.strip_suffix(b"\n").unwrap_or(json)).into_owned()
}

/// The first line with its newline, if it has one.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| &bytes[..=at])
}

/// Whether this was a complete line once: it ends, and no part of it was lost to a power cut.
fn is_whole(line: &[u8]) -> bool {
    line.ends_with(b"\n") && !line.contains(&0)
}
