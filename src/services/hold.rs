//! Keeping units of systemd loaded for as long as they are watched.
//!
//! systemd forgets a unit that does not run and that nothing refers to, as those that are started by devices, timers or
//! sockets alone: at once, and with it that it was skipped since a condition of its own is not met. What then is asked
//! about is a unit that was never started, which looks like one that ended. A transient unit that is ordered behind them
//! refers to them, and so keeps what came of their start.
//!
//! It runs nothing but a pause, and ends by itself if this process is killed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Patience;
use super::systemd::run;

/// How long making or ending it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How many watches of the same units it is there for: one for each level, and one more.
const WATCHES: u32 = 4;
/// How much longer than those it stays by itself.
const MARGIN: Duration = Duration::from_secs(60);

/// A unit that keeps others loaded until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    unit: String,
    held: Vec<String>,
    until: Instant,
}

impl Hold {
    /// Keeps these units loaded, for as long as the longest watch may take. `None` where that cannot be had (there is no
    /// `systemd-run`, this is no administrator): then what systemd forgets is not known.
    pub(super) fn on(units: &[String], watch: Duration) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unit = format!("tope-store-hold-{}-{number}.service", std::process::id());
        let stays = watch.saturating_mul(WATCHES).saturating_add(MARGIN);
        let (seconds, until) = (stays.as_secs().to_string(), Instant::now().checked_add(stays)?);
        let (name, after) = (format!("--unit={unit}"), format!("--property=After={}", units.join(" ")));
        let words = [
            "systemd-run",
            "--quiet",
            "--collect",
            "--no-ask-password",
            "--description=Keeps units loaded while a switch watches them",
            &name,
            &after,
            "--",
            "sleep",
            &seconds,
        ];
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let ran = run(&command, Patience::of(LIMIT)).ok()?;
        if ran.succeeded() {
            return Some(Self { unit, held: units.to_vec(), until });
        }
        tracing::debug!(end = %ran.end, "units cannot be kept loaded");
        None
    }

    /// Whether it keeps these units for one more watch: a fallback must not wait for another.
    pub(super) fn covers(&self, units: &[String], watch: Duration) -> bool {
        units.iter().all(|unit| self.held.contains(unit))
            && self.until.saturating_duration_since(Instant::now()) > watch
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let words = ["systemctl", "--no-ask-password", "--no-block", "stop", "--", &self.unit];
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        // It ends by itself a little later.
        let _ = run(&command, Patience::of(LIMIT));
    }
}
