//! Anchors: what is known of the history outside the history.
//!
//! An anchor names an event by its number and the chain value of its line. A log that ends before the event, or has
//! another chain value under its number, was cut or replaced by an older copy.

use super::event::{CHAIN_START, Chain};

/// The last event of a history at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// The event's number; 0 before the first.
    pub number: u64,
    /// The chain value of its line.
    pub chain: Chain,
}

impl Anchor {
    /// The beginning of every history.
    pub const START: Self = Self { number: 0, chain: CHAIN_START };
}
