//! Progress for people: a bar on a terminal, nothing in a pipe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tope_store::observe::{Observer, Stage, Work};

/// Shows what the library does, and tells it when the user wants to stop.
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Hidden, or on standard error if that is a terminal.
    pub fn new(hidden: bool, interrupted: Arc<AtomicBool>) -> Self {
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let bar = ProgressBar::with_draw_target(None, target);
        // The tick is a thread, and a fire exit should need none.
        let shown = !bar.is_hidden();
        if shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, shown, interrupted }
    }
}

impl Observer for Progress {
    fn stage(&self, stage: Stage, total: Option<u64>) {
        let verb = match stage {
            Stage::Scan => "looking",
            Stage::Import => "importing",
            Stage::Materialise => "linking",
            Stage::Sync => "making it durable",
            Stage::Verify => "verifying",
            Stage::Remove => "removing",
            Stage::Index => "indexing",
            _ => "working",
        };
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos}/{human_len} {eta}",
            None => "{spinner} {msg} {human_pos}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.reset();
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(verb);
    }

    fn work(&self, work: Work, amount: u64) {
        if self.shown && work == Work::Files {
            self.bar.inc(amount);
        }
    }

    fn warn(&self, message: &str) {
        self.bar.suspend(|| {
            use std::io::Write;
            let _ = writeln!(anstream::stderr(), "warning: {message}");
        });
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
