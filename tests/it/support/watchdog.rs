//! Ends the run where a test hangs, and says which: a run that only stops at somebody's limit tells nothing.

#![allow(clippy::print_stderr, reason = "it is what a hanging run leaves")]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The slowest test takes a minute or two.
const LIMIT: Duration = Duration::from_secs(15 * 60);

static RUNNING: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());

/// A test that runs; not any longer when this is dropped, by a panic too.
pub struct Watched(String);

impl Watched {
    pub fn new(name: &str) -> Self {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), Instant::now()));
        Self(name.to_owned())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _)| *name != self.0);
    }
}

/// Watches, unless whole runs were asked for, which take as long as they take.
pub fn start() {
    if std::env::var_os("TOPE_CRASH").is_some() {
        return;
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(10));
            let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((name, _)) = running.iter().find(|(_, since)| since.elapsed() > LIMIT) else { continue };
            eprintln!("test {name} hangs: it has run for {} minutes; these processes are there:", LIMIT.as_secs() / 60);
            std::process::Command::new("ps").args(["-eo", "pid,ppid,stat,etimes,wchan:20,args"]).status().ok();
            std::process::exit(101);
        }
    });
}
