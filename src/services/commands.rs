//! A service manager of plain commands from the configuration, for devices without systemd.
//!
//! Each template is run once per unit, in the order given, with the unit put in. What the manager cannot know it does
//! not pretend to know: there is no invocation, no count of restarts, and a unit that does not run right after its
//! start may come yet. What a start wrote and how it ended is kept: it is the only evidence there is.
//!
//! **Rule:** a unit whose restart failed, took too long or died has failed, even if the status command finds it running:
//! that is the process of before. So has one whose start failed, unless it ran before that.
//!
//! **Invariant:** the status commands of all units together take no longer than they may; so do their orders, except for
//! two seconds in which those units get theirs that others left no time for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Activity, Patience, ServiceManager, UnitState};
use crate::config::Templates;
use crate::error::{Result, chain};
use crate::fsys::child::{End, Ran, Run};
use crate::fsys::process;

/// How long a status command may take, however much time there is.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// Status commands that run at the same time, at most.
const MOST_AT_ONCE: usize = 8;
/// How long an order may take when another one has used up the time of all: one that is broken off leaves its unit
/// stopped, or on the version before.
const SPARE: Duration = Duration::from_secs(2);
/// How many lines of a command's output are kept.
const KEPT_LINES: usize = 50;
/// How long no order of a process that died may be seen before none is left.
const ORDER_QUIET: Duration = Duration::from_millis(100);
/// How often it is looked whether orders of a dead process have ended.
const ORDER_POLL: Duration = Duration::from_millis(20);

/// The verbs of the templates.
const START: &str = "start";
const STOP: &str = "stop";
const RESTART: &str = "restart";

/// The last order to a unit, and its end.
#[derive(Debug, Clone, Default)]
struct Ordered {
    /// Why a start or restart failed; empty if it went well.
    failure: String,
    /// Why the unit still runs after it was to be stopped; empty if it does not.
    stuck: String,
    /// It was stopped, and nothing started it since.
    stopped: bool,
    exit_code: Option<i32>,
    output: Vec<String>,
}

/// Commands made from templates.
#[derive(Debug)]
pub struct Commands {
    templates: Templates,
    ordered: Mutex<HashMap<String, Ordered>>,
}

impl Commands {
    /// The manager of these templates.
    pub fn new(templates: Templates) -> Self {
        Self { templates, ordered: Mutex::default() }
    }

    fn run(template: &[String], unit: &str, patience: Patience<'_>) -> Result<Ran> {
        let command = Templates::fill(template, unit);
        let Patience { limit, keep_on } = patience;
        Run { command: &command, input: b"", environment: &[], limit, keep_on }.wait()
    }

    /// The end of the status command of a unit; `None` if there is no time left to ask.
    fn status(&self, unit: &str, until: Instant) -> Result<Option<End>> {
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Ok(None),
            left => Self::run(&self.templates.status, unit, Patience::of(left)).map(|ran| Some(ran.end)),
        }
    }

    fn runs(&self, unit: &str, until: Instant) -> bool {
        matches!(self.status(unit, until), Ok(Some(End::Exited(0))))
    }

    fn state(&self, unit: &str, until: Instant) -> Result<UnitState> {
        let ordered = self.last(unit);
        let (activity, detail) = match ordered.failure.is_empty() {
            // What runs all the same is what ran before.
            false => (Activity::Failed, ordered.failure),
            true => match self.status(unit, until)? {
                Some(End::Exited(0)) => (Activity::Active, ordered.stuck),
                Some(end @ End::TimedOut) => (Activity::Unknown, format!("the status command: {end}")),
                Some(end) => (Activity::Inactive, format!("the status command: {end}")),
                None => (Activity::Unknown, "there was no time left for the status command".into()),
            },
        };
        let exit_code = ordered.exit_code.filter(|_| activity == Activity::Failed);
        Ok(UnitState { unit: unit.to_owned(), activity, invocation: None, restarts: 0, detail, exit_code })
    }

    /// Gives an order to each unit, one after the other.
    fn order_all(&self, verb: &'static str, units: &[Unit<'_>], patience: Patience<'_>) -> Result<()> {
        let begun = Instant::now();
        // The commands are the order: one that were broken off would leave a unit stopped, and the others as they were.
        let keep_on = if verb == STOP { patience.keep_on } else { &|| true };
        let (mut results, mut rest) = (Vec::new(), units);
        while let Some((unit, others)) = rest.split_first() {
            let limit = patience.limit.saturating_sub(begun.elapsed());
            if limit < SPARE.min(patience.limit / 2) {
                break;
            }
            if !keep_on() {
                rest = &[];
                break;
            }
            results.push(self.order(verb, unit, Patience { limit, keep_on }));
            rest = others;
        }
        results.extend(at_once(rest, rest.len(), |unit| self.order(verb, unit, Patience::of(SPARE))));
        // One that cannot be run keeps no other unit from its order.
        results.into_iter().collect()
    }

    fn order(&self, verb: &'static str, unit: &Unit<'_>, patience: Patience<'_>) -> Result<()> {
        let template = match verb {
            START => &self.templates.start,
            STOP => &self.templates.stop,
            _ => &self.templates.restart,
        };
        let name = unit.name;
        let ran = match Self::run(template, name, patience) {
            Ok(ran) => ran,
            Err(error) => {
                let failure = format!("the {verb} command failed: {}", chain(&error));
                self.remember(name, Ordered { failure, ..Ordered::default() });
                return Err(error);
            }
        };
        let said = format!("the {verb} command failed: {}", ran.end);
        let mut ordered =
            Ordered { exit_code: ran.exit_code(), output: ran.last_lines(KEPT_LINES), ..Ordered::default() };
        match (verb, ran.end) {
            (STOP, End::Exited(0)) => ordered.stopped = true,
            // Most fail at stopping what does not run.
            (STOP, _) if self.runs(name, Instant::now() + SPARE) => ordered.stuck = said,
            (STOP, _) => ordered.stopped = true,
            (_, End::Exited(0)) => {}
            // Many fail at starting what runs, and leave it as it is.
            (START, End::Exited(_)) if unit.ran => {}
            _ => ordered.failure = said,
        }
        if ran.handed_on && ran.succeeded() && verb != STOP {
            let problem = format!(
                "what the {verb} command of {name} left running holds the command's output, and dies of SIGPIPE when \
                 it writes there: start it with >/dev/null 2>&1, or into a log"
            );
            tracing::warn!("{problem}");
            ordered.output.push(problem);
        }
        self.remember(name, ordered);
        Ok(())
    }

    fn remember(&self, unit: &str, ordered: Ordered) {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned(), ordered);
    }

    fn last(&self, unit: &str) -> Ordered {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner).get(unit).cloned().unwrap_or_default()
    }
}

/// A unit that gets an order.
struct Unit<'a> {
    name: &'a str,
    /// Whether it ran before a start, and so need not be started.
    ran: bool,
}

impl<'a> Unit<'a> {
    fn of(name: &'a String) -> Self {
        Self { name, ran: false }
    }
}

/// Does the same with each of these, so many at the same time; gives the results in their order.
fn at_once<'a, I: Sync, T: Send>(items: &'a [I], most: usize, work: impl Fn(&'a I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match items.get(at) {
                Some(item) => done.push((at, work(item))),
                None => return done,
            }
        }
    };
    let mut done = std::thread::scope(|scope| {
        // Where the system gives no more threads, this one does all.
        let more = (1..items.len().min(most))
            .map_while(|_| std::thread::Builder::new().name("command".into()).spawn_scoped(scope, worker).ok());
        let more: Vec<_> = more.collect();
        let mut done = worker();
        for thread in more {
            done.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl ServiceManager for Commands {
    fn name(&self) -> &'static str {
        "commands"
    }

    fn tells_starting(&self) -> bool {
        false
    }

    fn states(&self, units: &[String], limit: Duration) -> Result<Vec<UnitState>> {
        let until = Instant::now() + limit.min(STATUS_LIMIT);
        at_once(units, MOST_AT_ONCE, |unit| self.state(unit, until)).into_iter().collect()
    }

    fn start(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        let begun = Instant::now();
        let until = begun + (patience.limit / 4).min(STATUS_LIMIT);
        let units = at_once(units, MOST_AT_ONCE, |unit| Unit {
            name: unit,
            ran: !self.last(unit).stopped && self.runs(unit, until),
        });
        let limit = patience.limit.saturating_sub(begun.elapsed());
        self.order_all(START, &units, Patience { limit, ..patience })
    }

    fn settle_orders(&self, units: &[String], patience: Patience<'_>) {
        let Templates { start, stop, restart, .. } = &self.templates;
        let orders = [start, stop, restart].into_iter();
        let orders: Vec<Vec<String>> =
            orders.flat_map(|order| units.iter().map(|unit| Templates::fill(order, unit))).collect();
        let begun = Instant::now();
        let mut last_seen = begun;
        // A process shows the words of its command only when it has begun to run it.
        while last_seen.elapsed() < ORDER_QUIET && begun.elapsed() < patience.limit && (patience.keep_on)() {
            if process::is_running(&orders) {
                last_seen = Instant::now();
            }
            std::thread::sleep(ORDER_POLL);
        }
    }

    fn stop(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        // Those that were given first are needed by those that follow.
        let last_first: Vec<Unit<'_>> = units.iter().rev().map(Unit::of).collect();
        self.order_all(STOP, &last_first, patience)
    }

    fn restart(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        let units: Vec<Unit<'_>> = units.iter().map(Unit::of).collect();
        self.order_all(RESTART, &units, patience)
    }

    fn programs(&self, unit: &str) -> Vec<(&'static str, String)> {
        let Templates { start, stop, restart, status } = &self.templates;
        let templates = [("start", start), ("stop", stop), ("restart", restart), ("status", status)];
        let program = |template: &[String]| Templates::fill(template, unit).into_iter().next();
        templates.into_iter().filter_map(|(verb, template)| Some((verb, program(template)?))).collect()
    }

    fn log(&self, unit: &str, lines: usize) -> Vec<String> {
        let output = self.last(unit).output;
        output[output.len().saturating_sub(lines)..].to_vec()
    }
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
