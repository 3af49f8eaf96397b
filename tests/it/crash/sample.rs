//! Which points are tried: all, or a sample that a seed chooses.
//!
//! `TOPE_CRASH=all` tries every point, `TOPE_CRASH=N` about N of each operation; `TOPE_CRASH_SEED` repeats a sample. What
//! was tried is printed, the seed with it.

use std::path::Path;

use super::scene::{Operation, command};
use super::trace::{self, Call, Fate};
use crate::support::random::{Random, seed};

/// Points of each operation that are tried unless told otherwise.
const SAMPLE: usize = 6;

/// The points of one operation that are to be tried.
pub struct Plan {
    what: String,
    total: usize,
    chosen: Vec<usize>,
    seed: u64,
}

impl Plan {
    /// Chooses among calls: half of a sample from those on the index, which can be built again, half from all others.
    pub fn new(harness: &str, name: &str, calls: &[Call]) -> Self {
        Self::sampled(harness, name, calls, SAMPLE)
    }

    /// The same with another number of points unless told otherwise.
    pub fn sampled(harness: &str, name: &str, calls: &[Call], usual: usize) -> Self {
        let wanted = std::env::var("TOPE_CRASH").unwrap_or_default();
        let count = match wanted.as_str() {
            "all" => usize::MAX,
            "" => usual,
            number => number.parse().expect("TOPE_CRASH is a number or all"),
        };
        Self::with_count(harness, name, calls, count)
    }

    /// The same with a number of points.
    pub fn with_count(harness: &str, name: &str, calls: &[Call], count: usize) -> Self {
        let seed = seed("TOPE_CRASH_SEED");
        let what = format!("{harness}::{name}");
        let mut random =
            Random(seed ^ u64::from_le_bytes(blake3::hash(what.as_bytes()).as_bytes()[..8].try_into().expect("8")));
        let (mut index, mut other): (Vec<usize>, Vec<usize>) =
            (0..calls.len()).partition(|at| calls[*at].path.contains("store/index.db"));
        let mut chosen = Vec::new();
        while chosen.len() < count && !(index.is_empty() && other.is_empty()) {
            for (list, weight) in [(&mut other, 2), (&mut index, 1)] {
                for _ in 0..weight {
                    if !list.is_empty() && chosen.len() < count {
                        let at = random.below(list.len());
                        chosen.push(list.swap_remove(at));
                    }
                }
            }
        }
        chosen.sort_unstable();
        Self { what, total: calls.len(), chosen, seed }
    }

    pub fn points(&self) -> impl Iterator<Item = usize> + '_ {
        self.chosen.iter().copied()
    }

    /// Says what was tried.
    #[allow(clippy::print_stderr, reason = "a seed that is not told cannot be repeated")]
    pub fn done(&self) {
        let (tried, total) = (self.chosen.len(), self.total);
        eprintln!("crash::{}: {tried} of {total} points tried, TOPE_CRASH_SEED={}", self.what, self.seed);
    }
}

/// Every call of an operation that changes something.
pub fn points(dir: &Path, operation: &Operation) -> Vec<Call> {
    let mut calls = Vec::new();
    let decide = &mut |call: &Call| {
        calls.push(call.clone());
        Fate::Happens
    };
    trace::run(&mut command(dir, operation.arguments), dir, decide).ok();
    calls
}
