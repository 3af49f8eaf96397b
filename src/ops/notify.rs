//! Telling somebody: the command that is configured gets the event as one JSON document on its standard input.
//!
//! Delivery takes a bounded time: [`LIMIT`] for each of [`MOST_ATTEMPTS`], and [`PAUSE`] between them. No lock is held: the
//! callers deliver when their work, and the handles that lock, are gone. Whether it was delivered is recorded for `status`.

use std::time::{Duration, Instant};

use crate::error::chain;
use crate::fsys::child::Run;
use crate::model::notice::Undelivered;
use crate::store::Store;

/// How long the command may take each time; what happened must not wait for who is told of it.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How often it is tried.
pub const MOST_ATTEMPTS: u32 = 2;
/// How long a network has to come back before the second attempt.
pub const PAUSE: Duration = Duration::from_secs(1);

/// What delivering came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was not delivered, if it was not.
    pub failed: Option<String>,
    /// Why that cannot be recorded, if it cannot.
    pub unrecorded: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Delivers a document about an event, and records whether that could be done. No command is nobody to tell.
pub fn notify(store: &Store, command: &[String], event: &str, document: &[u8]) -> Report {
    let start = Instant::now();
    let mut report = Report { attempts: 0, failed: None, unrecorded: None, elapsed: Duration::ZERO };
    if command.is_empty() {
        return report;
    }
    while report.attempts < MOST_ATTEMPTS {
        if report.attempts > 0 {
            std::thread::sleep(PAUSE);
        }
        report.attempts += 1;
        report.failed = deliver(command, document).err();
        if report.failed.is_none() {
            break;
        }
    }
    let now = store.clock().now();
    let failed = report.failed.clone().map(|why| Undelivered {
        event: event.to_owned(),
        time: now.unix_seconds,
        synchronised: now.synchronised,
        why,
    });
    report.unrecorded = store.record_delivery(failed.as_ref()).err().map(|error| chain(&error));
    Report { elapsed: start.elapsed(), ..report }
}

/// Runs the command once; says why if that did not succeed.
fn deliver(command: &[String], document: &[u8]) -> Result<(), String> {
    let run = Run { command, input: document, environment: &[], limit: LIMIT, keep_on: &|| true };
    match run.wait() {
        Ok(ran) if ran.succeeded() => Ok(()),
        Ok(ran) => {
            let said = ran.last_lines(1).pop().map(|line| format!(": {line}")).unwrap_or_default();
            Err(format!("{}: {}{said}", command[0], ran.end))
        }
        Err(error) => Err(chain(&error)),
    }
}
