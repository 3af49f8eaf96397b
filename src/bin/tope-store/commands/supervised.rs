//! What supervised switches have in common: `--restart`, the document, the text, the exit code, who is told.

use std::io::{self, Write};

use serde::Serialize;
use tope_store::config::{Service, Supervisor};
use tope_store::error::{Result, Shown};
use tope_store::model::event::Evidence;
use tope_store::model::trial::Restart;
use tope_store::model::{Trial, VersionName};
use tope_store::ops::supervise::{self, Arm, Attempt, Outcome, Report, Supervision, outside};
use tope_store::services::affected::Affected;
use tope_store::services::{Judgement, Verdict, manager};
use tope_store::store::Store;

use crate::context::Context;
use crate::exit::Exit;
use crate::guardian;
use crate::render::json::PreflightDocument;
use crate::render::notice::Notice;

/// Which services a switch restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Those for which the two versions differ
    Changed,
    /// All of them
    All,
}

impl Which {
    /// The same for the library.
    pub fn restart(self) -> Restart {
        match self {
            Self::Changed => Restart::Changed,
            Self::All => Restart::All,
        }
    }
}

/// Runs what needs services; or runs this whole command once more outside of its own unit, if that is among them, and
/// gives what that came to.
pub fn with_services<T>(
    context: &Context,
    store: &Store,
    restart: Restart,
    work: impl FnOnce(&Supervision<'_>) -> Result<T>,
) -> Result<std::result::Result<T, Exit>> {
    context.refuse_in_image("--restart")?;
    context.outlive_terminal();
    let config = context.config();
    let manager = manager(&config.supervisor);
    let say = |sentence: &str| context.say(sentence);
    let (configured, notify) = (&config.services, &config.notify);
    let guard = |services: &[Service]| guardian::arm(context, &store.watcher(), services);
    let guard = Some(&guard as &Arm<'_>);
    let supervision = Supervision { manager: &*manager, configured, notify, restart, say: &say, guard };
    if config.supervisor == Supervisor::Systemd
        && let Some(unit) = supervise::own_unit(store, &supervision)
    {
        context.say(format_args!("this runs in {unit}, which is to be restarted: going on in a unit of its own"));
        return context.run_outside().map(Err);
    }
    work(&supervision).map(Ok)
}

/// Runs what only asks about services. It restarts none, so it may run in the unit of one.
pub fn asking_services<T>(
    context: &Context,
    restart: Restart,
    work: impl FnOnce(&Supervision<'_>) -> Result<T>,
) -> Result<T> {
    context.refuse_in_image("--restart")?;
    let config = context.config();
    let manager = manager(&config.supervisor);
    let say = |sentence: &str| context.say(sentence);
    let (configured, notify) = (&config.services, &config.notify);
    work(&Supervision { manager: &*manager, configured, notify, restart, say: &say, guard: None })
}

/// A unit that is restarted.
#[derive(Serialize)]
struct RestartedDocument<'a> {
    unit: &'a str,
    reasons: &'a [String],
}

impl<'a> RestartedDocument<'a> {
    fn of(affected: &'a Affected) -> Self {
        Self { unit: &affected.unit, reasons: &affected.reasons }
    }
}

/// Why something failed.
#[derive(Serialize)]
pub struct EvidenceDocument<'a> {
    check: &'a str,
    detail: &'a str,
    exit_code: Option<i32>,
    log: &'a [String],
}

impl<'a> EvidenceDocument<'a> {
    /// The document of evidence.
    pub fn of(evidence: &'a Evidence) -> Self {
        let Evidence { check, detail, exit_code, log } = evidence;
        Self { check, detail, exit_code: *exit_code, log }
    }
}

#[derive(Serialize)]
struct VerdictDocument<'a> {
    unit: &'a str,
    judgement: &'static str,
    evidence: Option<EvidenceDocument<'a>>,
}

impl<'a> VerdictDocument<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let judgement = match verdict.judgement {
            Judgement::Passed => "passed",
            Judgement::Failed(_) => "failed",
            Judgement::Open => "open",
        };
        Self { unit: &verdict.unit, judgement, evidence: verdict.failure().map(EvidenceDocument::of) }
    }
}

#[derive(Serialize)]
struct AttemptDocument<'a> {
    version: String,
    level: u8,
    restarted: Vec<RestartedDocument<'a>>,
    services: Vec<VerdictDocument<'a>>,
    refused: Option<EvidenceDocument<'a>>,
}

impl<'a> AttemptDocument<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            version: attempt.version.to_string(),
            level: attempt.level,
            restarted: attempt.restarted.iter().map(RestartedDocument::of).collect(),
            services: attempt.verdicts.iter().map(VerdictDocument::of).collect(),
            refused: attempt.refused.as_ref().map(EvidenceDocument::of),
        }
    }
}

/// A trial that is still open.
#[derive(Serialize)]
struct TrialDocument<'a> {
    version: String,
    current: String,
    level: u8,
    units: &'a [String],
    guarded: bool,
}

impl<'a> TrialDocument<'a> {
    fn of(trial: &'a Trial, guarded: bool) -> Self {
        let Trial { version, current, level, units, .. } = trial;
        Self { version: version.to_string(), current: current.to_string(), level: *level, units, guarded }
    }
}

/// The document of a supervised switch.
#[derive(Serialize)]
pub struct Document<'a> {
    from: Option<String>,
    to: String,
    current: String,
    level: u8,
    outcome: &'static str,
    digest: Option<String>,
    previous: Option<String>,
    marked_bad: bool,
    bad: Option<String>,
    same_check: Option<&'a str>,
    recovered: bool,
    attempts: Vec<AttemptDocument<'a>>,
    preflight: Vec<PreflightDocument>,
    trial: Option<TrialDocument<'a>>,
    external_changes: &'a [String],
    warnings: &'a [String],
    switched_after_ms: Option<u128>,
    elapsed_ms: u128,
}

impl<'a> Document<'a> {
    /// What a report says.
    pub fn of(report: &'a Report) -> Self {
        Self {
            from: report.from.as_ref().map(ToString::to_string),
            to: report.to.to_string(),
            current: report.current.to_string(),
            level: report.level,
            outcome: report.outcome.name(),
            digest: report.digest.map(|digest| digest.to_string()),
            previous: report.previous.as_ref().map(ToString::to_string),
            marked_bad: report.marked_bad.is_some(),
            bad: report.marked_bad.as_ref().map(ToString::to_string),
            same_check: report.same_check.as_deref(),
            recovered: report.recovered,
            attempts: report.attempts.iter().map(AttemptDocument::of).collect(),
            preflight: PreflightDocument::all(&report.preflight),
            trial: report.trial.as_ref().map(|trial| TrialDocument::of(trial, report.guarded)),
            external_changes: &report.external_changes,
            warnings: &report.warnings,
            switched_after_ms: report.switched_after.map(|after| after.as_millis()),
            elapsed_ms: report.elapsed.as_millis(),
        }
    }
}

/// Tells how it ended: answer, warnings, who is to be told, exit code.
pub fn conclude(context: &Context, store: &Store, report: &Report) -> Result<Exit> {
    super::activate::say_warnings(context, &report.external_changes, &report.warnings);
    context.answer(&Document::of(report), |out| tell(out, report))?;
    if let Some(notice) = Notice::of_switch(store, report) {
        notice.send(context, store);
    }
    Ok(exit(report.outcome))
}

/// The exit code of an outcome.
pub fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Done | Outcome::Unchanged => Exit::Done,
        Outcome::RolledBack => Exit::RolledBack,
        Outcome::Degraded => Exit::Degraded,
        Outcome::Interrupted => Exit::Interrupted,
    }
}

/// What is said where a degraded state ends.
pub const NO_LONGER_DEGRADED: &str = "the store is no longer degraded";

/// How a degraded state ends.
pub fn when_mended(current: &VersionName) -> String {
    format!(
        "when the fault is mended: tope-store activate {current} --restart=all, or accept it as it runs with: tope-store \
         confirm {current}"
    )
}

/// What happened, for an operator who has just been woken.
pub fn tell(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { from, to, current, .. } = report;
    match report.outcome {
        Outcome::Unchanged => writeln!(out, "{to} is current already, and no service has to be restarted")?,
        Outcome::Done => {
            match from.as_ref().filter(|from| *from != to) {
                Some(from) => writeln!(out, "current is now {to} (was {from})")?,
                None => writeln!(out, "current is {to}")?,
            }
            tell_services(out, report)?;
        }
        Outcome::RolledBack => {
            writeln!(out, "{to} does not hold; current is {current} (level {}), and it holds", report.level)?;
            tell_failures(out, report)?;
        }
        Outcome::Degraded => {
            writeln!(out, "no version holds; current is {current}, the least bad one: manual intervention is needed")?;
            tell_failures(out, report)?;
        }
        Outcome::Interrupted => tell_interrupted(out, report)?,
    }
    if let Some(check) = &report.same_check {
        writeln!(out, "{}", outside(check))?;
    }
    if let Some(bad) = &report.marked_bad {
        writeln!(out, "{bad} is marked bad; to clear that: tope-store confirm {bad}")?;
    }
    if report.recovered {
        writeln!(out, "{NO_LONGER_DEGRADED}")?;
    }
    if report.outcome == Outcome::Degraded {
        writeln!(out, "{}", when_mended(current))?;
        writeln!(out, "to see which other versions there are: tope-store rollback --list")?;
    }
    Ok(())
}

/// Where a switch stands whose operator stopped the watch, and what can be done about it.
fn tell_interrupted(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { from, current, .. } = report;
    let was = from.as_ref().filter(|from| *from != current).map(|from| format!(" (was {from})")).unwrap_or_default();
    let on_trial = if report.trial.is_some() { "on trial" } else { "not judged" };
    writeln!(out, "interrupted: current is now {current}{was}, and it is {on_trial}")?;
    tell_failures(out, report)?;
    if let Some(attempt) = report.attempts.last().filter(|attempt| attempt.failure().is_none()) {
        for verdict in &attempt.verdicts {
            let restarted = attempt.restarted.iter().any(|one| one.unit == verdict.unit);
            let how = if restarted { "restarted" } else { "not touched" };
            let held = if verdict.passed() { "holds" } else { "not judged yet" };
            writeln!(out, "  {}: {how}, {held}", verdict.unit)?;
        }
    }
    match (report.trial.is_some(), report.guarded) {
        (true, true) => writeln!(out, "its guardian watches it from here on, and goes back if it does not hold")?,
        (true, false) => writeln!(out, "to have it judged: tope-store boot-check --judge")?,
        (false, _) => {}
    }
    writeln!(out, "to accept it: tope-store confirm {current}")?;
    writeln!(out, "to leave it: tope-store rollback --restart")
}

fn tell_services(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Some(attempt) = report.attempts.last() else { return Ok(()) };
    if attempt.verdicts.is_empty() {
        return writeln!(out, "no service had to be restarted, and none was watched");
    }
    for verdict in &attempt.verdicts {
        let restarted = attempt.restarted.iter().any(|one| one.unit == verdict.unit);
        let how = if restarted { "restarted, and holds" } else { "not touched, and goes on" };
        writeln!(out, "  {}: {how}", verdict.unit)?;
    }
    Ok(())
}

fn tell_failures(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for attempt in &report.attempts {
        if let Some(evidence) = attempt.failure() {
            writeln!(out, "  {}: {evidence}", attempt.version)?;
            for line in evidence.log.iter().rev().take(3).rev() {
                writeln!(out, "    | {}", Shown::text(line))?;
            }
        }
    }
    Ok(())
}
