//! Numbers that a seed decides, so that what chance found can be had again.

use std::sync::OnceLock;

/// The seed of this run: the number in this variable of the environment, else one that the clock gives.
pub fn seed(variable: &str) -> u64 {
    static OF_THE_CLOCK: OnceLock<u64> = OnceLock::new();
    match std::env::var(variable) {
        Ok(given) => given.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => *OF_THE_CLOCK.get_or_init(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(now.expect("after 1970").subsec_nanos())
        }),
    }
}

/// A small generator of numbers: xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 |= 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
