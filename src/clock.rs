//! Time as a label.
//!
//! Devices boot in 1970 and jump; nothing in the store is decided by wall time (import numbers order versions).
//! What is recorded is a [`Moment`]: the wall clock, whether it was synchronised, and the boot it belongs to.

/// One instant as the machine saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970-01-01T00:00:00Z by the wall clock.
    pub unix_seconds: i64,
    /// Whether the kernel's clock was synchronised with anything.
    pub synchronised: bool,
    /// The boot, as the kernel names it; empty where it cannot be known.
    pub boot_id: String,
}

/// Where the time comes from. The system's own is [`crate::fsys::SystemClock`]; tests bring theirs.
pub trait Clock: Sync {
    /// The present instant.
    fn now(&self) -> Moment;
}

/// A clock that stands still.
#[derive(Debug, Clone)]
pub struct FixedClock(pub Moment);

impl FixedClock {
    /// Stands at this second, synchronised, in a boot named `boot`.
    pub fn at(unix_seconds: i64) -> Self {
        Self(Moment { unix_seconds, synchronised: true, boot_id: "boot".into() })
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Moment {
        self.0.clone()
    }
}
