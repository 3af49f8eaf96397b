//! Watching services after a start: whether they come up, stay up, and do their work.
//!
//! A service passes if its unit becomes active, stays the same run of it (invocation, count of restarts) for the
//! service's `settle`, and its probes succeed, all within its `timeout` from the order to start. All are watched at the
//! same time, one question to the manager for all of them, and the watch ends as soon as everything is certain: with
//! the first that fails, or when the last has passed.
//!
//! A unit that is not started since a condition of its own is not met, as one for hardware that this device does not have,
//! passes without being asked anything, unless it ran before: then the release took away what it needs.
//!
//! A unit that stopped by itself, was restarted, or was started anew by somebody has failed, whatever comes later. A
//! probe has until the timeout to succeed once, since services need time to warm up; if that was early in a long
//! settling time, it must succeed again at its end. What is told of one that did not is what its last attempt met, but for
//! one that the timeout cut short: that does not hide what the service had answered before.
//!
//! A unit that the manager does not answer for in time is not known to run: it has failed once its time is over.
//!
//! **Invariant:** a watch ends at the longest timeout at the latest, whatever manager and probes do, except for a quarter
//! of a second that the last attempt of a probe has for its answer, and for the second that the manager has for its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use super::probe::{self, Failure};
use super::{Activity, ServiceManager, UnitState, answer_limit};
use crate::config::Service;
use crate::error::chain;
use crate::model::event::Evidence;
use crate::model::units::exact_duration;

/// The shortest and the longest pause between two looks. While a unit starts, pauses grow with the time it takes.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The shortest and the longest time for which a probe that failed is left alone; it grows, since a service may log
/// every question.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long after the timeout an attempt that ends with it may take to say what it met.
const LAST_WORD: Duration = Duration::from_millis(250);
/// How long the manager has for its last answer, when the time of a service is over.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// A probe that succeeded longer ago than this is asked again when the settling time is over.
const STALE: Duration = Duration::from_secs(1);
/// How long a unit may be down after its start where the manager cannot tell starting from down; or for `settle`, if
/// that is longer.
const GRACE: Duration = Duration::from_secs(1);
/// How many lines of a unit's log become evidence.
const LOG_LINES: usize = 20;

/// What a watch says of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The unit.
    pub unit: String,
    /// What is held of it.
    pub judgement: Judgement,
}

/// What is held of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It came up, stayed up and answered.
    Passed,
    /// It did not.
    Failed(Evidence),
    /// Nothing was wrong with it when the watch ended for another reason.
    Open,
}

impl Verdict {
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&Evidence> {
        match &self.judgement {
            Judgement::Failed(evidence) => Some(evidence),
            _ => None,
        }
    }

    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.judgement == Judgement::Passed
    }
}

/// Watches services whose start was ordered at `begun`; one verdict each, in their order. No service at all passes. Which
/// of them ran before that is the caller's to know.
///
/// Once `keep_on` says no the watch is broken off: what has neither passed nor failed is open. That a manager cannot be
/// asked is no verdict for as long as there is time to ask again.
pub fn watch(
    manager: &dyn ServiceManager,
    services: &[Service],
    ran: &dyn Fn(&str) -> bool,
    begun: Instant,
    keep_on: &dyn Fn() -> bool,
) -> Vec<Verdict> {
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    let (answers, answered) = mpsc::channel();
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let mut watched: Vec<Watched<'_>> =
        services.iter().enumerate().map(|(at, service)| Watched::new(at, service, ran(&service.unit), begun)).collect();
    let mut judgements: Vec<Judgement> = vec![Judgement::Open; services.len()];
    while !services.is_empty() && keep_on() {
        let open = watched.iter().zip(&judgements).filter(|(_, judgement)| **judgement == Judgement::Open);
        let states = manager.states(&units, answer_within(open.map(|(one, _)| one), Instant::now()));
        let now = Instant::now();
        for (at, one) in watched.iter_mut().enumerate() {
            judgements[at] = match &states {
                Ok(states) if states[at].activity == Activity::Unknown => one.unseen(&states[at].detail, now),
                Ok(states) => one.look(&states[at], manager.tells_starting(), now),
                Err(error) => one.unseen(&chain(error), now),
            };
            one.ask(&answers, &wanted.0, now);
        }
        let open = judgements.contains(&Judgement::Open);
        if !open || judgements.iter().any(|judgement| matches!(judgement, Judgement::Failed(_))) {
            break;
        }
        let pause = watched.iter().map(|one| one.pause(now)).min().unwrap_or(PAUSE.1);
        if let Ok((at, failure)) = answered.recv_timeout(pause) {
            let now = Instant::now();
            watched[at].answered(failure, now);
            for (at, failure) in answered.try_iter() {
                watched[at].answered(failure, now);
            }
        }
    }
    let verdict = |(unit, mut judgement): (String, Judgement)| {
        if let Judgement::Failed(evidence) = &mut judgement {
            evidence.log.extend(manager.log(&unit, LOG_LINES));
        }
        Verdict { unit, judgement }
    };
    units.into_iter().zip(judgements).map(verdict).collect()
}

/// How long the manager may take, so that no service whose watch is open waits for the answer beyond its own time.
fn answer_within<'a>(open: impl Iterator<Item = &'a Watched<'a>>, now: Instant) -> Duration {
    let limit = |one: &Watched<'_>| {
        answer_limit(one.service.timeout).min(one.deadline().saturating_duration_since(now)).max(LAST_ANSWER)
    };
    open.map(limit).min().unwrap_or(LAST_ANSWER)
}

/// Tells probes that are still under way, when dropped, that nobody waits for them.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

type Answer = (usize, Option<Failure>);

/// What is known of a service's probes.
enum Probes {
    /// There are none.
    None,
    /// They were not asked since then, or failed.
    Due { from: Instant, failure: Option<Failure> },
    /// They are being asked.
    Asked { last: Option<Failure> },
    /// They succeeded.
    Passed { at: Instant },
}

struct Watched<'a> {
    at: usize,
    service: &'a Service,
    /// Whether it ran before its start was ordered.
    ran: bool,
    begun: Instant,
    /// The run that is watched: its name, the restarts before it, since when.
    run: Option<(Option<String>, u32, Instant)>,
    /// Since when it was seen down, where that need not be the end.
    down: Option<Instant>,
    probes: Probes,
}

impl<'a> Watched<'a> {
    fn new(at: usize, service: &'a Service, ran: bool, begun: Instant) -> Self {
        let probes = match probe::has_probes(service) {
            true => Probes::Due { from: begun, failure: None },
            false => Probes::None,
        };
        Self { at, service, ran, begun, run: None, down: None, probes }
    }

    fn deadline(&self) -> Instant {
        self.begun + self.service.timeout
    }

    fn failed(&self, state: &UnitState, what: &str) -> Judgement {
        let detail = if state.detail.is_empty() { what.to_owned() } else { format!("{what}: {}", state.detail) };
        let check = format!("unit {}", self.service.unit);
        Judgement::Failed(Evidence { check, detail, exit_code: state.exit_code, log: Vec::new() })
    }

    /// Takes in the state of the unit.
    fn look(&mut self, state: &UnitState, tells_starting: bool, now: Instant) -> Judgement {
        match (state.activity, &self.run) {
            (Activity::Active | Activity::Done, Some((invocation, restarts, _)))
                if (invocation, *restarts) != (&state.invocation, state.restarts) =>
            {
                return self.failed(state, "it ended and was started again");
            }
            (Activity::Active | Activity::Done, None) => {
                self.run = Some((state.invocation.clone(), state.restarts, now));
            }
            (Activity::Active | Activity::Done, Some(_)) => {}
            (Activity::Skipped, None) => {
                return match self.ran {
                    true => self.failed(state, "it ran before, and a condition of its unit is not met now"),
                    false => Judgement::Passed,
                };
            }
            (Activity::Masked, _) => return self.failed(state, "it was masked"),
            (Activity::Absent, _) => return self.failed(state, "there is no such unit"),
            (_, Some(_)) => return self.failed(state, "it did not stay up"),
            (Activity::Failed, None) => return self.failed(state, "it failed to start"),
            (Activity::Inactive, None) => {
                let since = *self.down.get_or_insert(now);
                if tells_starting || now.duration_since(since) > self.service.settle.max(GRACE) {
                    return self.failed(state, "it is not running");
                }
            }
            (Activity::Changing | Activity::Unknown, None) => {}
        }
        self.judge(state, now)
    }

    /// Weighs what is known of a unit that has not failed.
    fn judge(&mut self, state: &UnitState, now: Instant) -> Judgement {
        let settled_at = self.run.as_ref().map(|(_, _, since)| *since + self.service.settle);
        let settled = settled_at.is_some_and(|at| at <= now);
        if let (Probes::Passed { at }, Some(settled_at), true) = (&self.probes, settled_at, settled)
            && *at + STALE < settled_at
        {
            self.probes = Probes::Due { from: now, failure: None };
        }
        if settled && matches!(self.probes, Probes::None | Probes::Passed { .. }) {
            return Judgement::Passed;
        }
        let asked = matches!(self.probes, Probes::Asked { .. }) && now < self.deadline() + LAST_WORD;
        if now < self.deadline() || asked {
            return Judgement::Open;
        }
        let late = format!("within {}", exact_duration(self.service.timeout));
        match &self.probes {
            _ if self.run.is_none() => self.failed(state, &format!("it did not come up {late}")),
            Probes::Due { failure: Some(failure), .. } | Probes::Asked { last: Some(failure) } => {
                let evidence = failure.evidence.clone();
                Judgement::Failed(Evidence { detail: format!("{} ({late})", evidence.detail), ..evidence })
            }
            Probes::Due { .. } | Probes::Asked { .. } => {
                Judgement::Failed(Evidence { detail: format!("no answer {late}"), ..self.probe_evidence() })
            }
            _ => self.failed(state, &format!("it did not settle {late}")),
        }
    }

    /// The manager could not be asked, or did not answer for this unit.
    fn unseen(&self, problem: &str, now: Instant) -> Judgement {
        if now < self.deadline() {
            return Judgement::Open;
        }
        let check = format!("unit {}", self.service.unit);
        Judgement::Failed(Evidence { check, detail: problem.to_owned(), ..Evidence::default() })
    }

    /// The check that a probe which never answered belongs to.
    fn probe_evidence(&self) -> Evidence {
        let http = self.service.http.as_ref().map(|probe| format!("http {}", probe.address));
        let command = || self.service.command.as_ref().map(|probe| format!("command {}", probe.command.join(" ")));
        Evidence { check: http.or_else(command).unwrap_or_default(), ..Evidence::default() }
    }

    /// Sends the probes off if they are due. A thread whose answer nobody waits for any longer ends by its own limit.
    fn ask(&mut self, answers: &Sender<Answer>, wanted: &Arc<AtomicBool>, now: Instant) {
        let Probes::Due { from, failure } = &mut self.probes else { return };
        if *from > now || self.run.is_none() {
            return;
        }
        let last = failure.take();
        let (at, service, answers, wanted) = (self.at, self.service.clone(), answers.clone(), Arc::clone(wanted));
        let limit = self.deadline().saturating_duration_since(now).max(PAUSE.0);
        let asking = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let failure = probe::ask(&service, limit, &|| wanted.load(Ordering::Relaxed));
            let _ = answers.send((at, failure));
        });
        self.probes = match asking {
            Ok(_) => Probes::Asked { last },
            Err(_) => Probes::Due { from: now + self.probe_pause(now), failure: last },
        };
    }

    fn answered(&mut self, failure: Option<Failure>, now: Instant) {
        let Some(mut failure) = failure else {
            self.probes = Probes::Passed { at: now };
            return;
        };
        let cut_short = !failure.answered && now >= self.deadline();
        match &mut self.probes {
            // There was no time for an answer; the one before says more.
            Probes::Asked { last: Some(last) } if cut_short && last.answered => std::mem::swap(&mut failure, last),
            _ => {}
        }
        self.probes = Probes::Due { from: now + self.probe_pause(now), failure: Some(failure) };
    }

    fn probe_pause(&self, now: Instant) -> Duration {
        (now.saturating_duration_since(self.begun) / 8).clamp(PROBE_PAUSE.0, PROBE_PAUSE.1)
    }

    /// How long nothing can happen that would be worth a look, at most.
    fn pause(&self, now: Instant) -> Duration {
        let until = |instant: Instant| instant.saturating_duration_since(now);
        let soon = match &self.run {
            None => (now.saturating_duration_since(self.begun) / 8).clamp(PAUSE.0, PAUSE.1),
            Some((_, _, since)) => match until(*since + self.service.settle) {
                Duration::ZERO => PAUSE.1,
                left => left.min(PAUSE.1),
            },
        };
        let due = match &self.probes {
            Probes::Due { from, .. } if self.run.is_some() => until(*from),
            _ => soon,
        };
        let deadline = Some(until(self.deadline())).filter(|left| !left.is_zero());
        soon.min(due).min(deadline.unwrap_or(PAUSE.1)).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
