//! Telling somebody: the command that is configured gets the event as one JSON document on its standard input.

use std::time::Duration;

use crate::error::chain;
use crate::fsys::child::Run;

/// How long the command may take; what is told must not wait for who is told.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs the command with the document on its standard input. No command is nobody to tell.
///
/// # Errors
///
/// In words: it cannot be run, takes too long, or does not end with 0.
pub fn notify(command: &[String], document: &[u8]) -> Result<(), String> {
    if command.is_empty() {
        return Ok(());
    }
    let run = Run { command, input: document, environment: &[], limit: LIMIT, keep_on: &|| true };
    match run.wait() {
        Ok(ran) if ran.succeeded() => Ok(()),
        Ok(ran) => Err(format!("{}: {}", command[0], ran.end)),
        Err(error) => Err(chain(&error)),
    }
}
