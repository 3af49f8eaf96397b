//! `rollback`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::{Selector, VersionName};
use tope_store::ops::rollback::{Left, Options, Report, Ways, plan, rollback, ways};
use tope_store::ops::supervise::{self, Outcome};
use tope_store::ops::switching::BadVersions;

use super::activate::{Check, outcome, say_warnings};
use super::planned;
use super::supervised::{Which, asking_services, conclude, with_services};
use crate::context::Context;
use crate::exit::Exit;
use crate::guardian;
use crate::render::json::WayDocument;
use crate::render::notice::Notice;
use crate::render::ways::write as write_ways;

/// Go back to the previous version, else to the factory version
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store rollback                                to previous, else to factory
  tope-store rollback --to factory --reason 'no network since the update'
  tope-store rollback --restart                      and restart the services that differ, and watch them
  tope-store rollback --to 1.0.3 --not-bad           the version that is left is fine
  tope-store rollback --list                         which versions can be gone back to, each with its command
  tope-store rollback --restart --dry-run            where it would go, and what would be restarted and checked

Works on a full disk, without an index, and while an import or a gc runs. The version that is left is marked bad, so \
that no automatic step returns to it; --not-bad leaves it as it is, and confirm clears the mark. \
--json gives from, to, level (1: previous, 2: factory, 0: the version asked for), outcome (done, unchanged).")]
pub struct Arguments {
    /// previous, factory, or a version [default: previous, else factory]
    #[arg(long, value_name = "WHERE")]
    to: Option<Selector>,
    /// How closely to check it before: every name, every byte, or not at all
    #[arg(long, value_name = "HOW", default_value = "quick")]
    verify: Check,
    /// Restart services and watch them: those for which the versions differ, or all
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "changed")]
    restart: Option<Which>,
    /// Do not mark the version that is left as bad
    #[arg(long)]
    not_bad: bool,
    /// Go back to a version that is marked bad all the same
    #[arg(long)]
    force: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say what would be switched, and refuse what would be refused, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Only list the versions that can be gone back to, and the command for each
    #[arg(long, conflicts_with_all = ["to", "verify", "restart", "not_bad", "force", "reason", "dry_run"])]
    list: bool,
}

#[derive(Serialize)]
struct ListDocument {
    current: Option<String>,
    to: Option<String>,
    candidates: Vec<WayDocument>,
    doubt: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    from: Option<String>,
    to: String,
    level: u8,
    outcome: &'static str,
    digest: Option<String>,
    marked_bad: bool,
    previous: Option<String>,
    recorded: bool,
    external_changes: &'a [String],
    warnings: &'a [String],
    switched_after_ms: u128,
    elapsed_ms: u128,
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    if arguments.list {
        return list(context);
    }
    let options = Options {
        to: arguments.to,
        verify: arguments.verify.verify(),
        bad: if arguments.force { BadVersions::Accept } else { BadVersions::Refuse },
        left: if arguments.not_bad { Left::Unmarked } else { Left::Bad },
        reason: arguments.reason,
    };
    let store = context.store_leniently()?;
    let progress = context.progress();
    if arguments.dry_run {
        let plan = match arguments.restart {
            None => plan(&store, &options, &progress)?,
            Some(which) => asking_services(context, which.restart(), |supervision| {
                supervise::plan_rollback(&store, &options, supervision, &progress)
            })?,
        };
        drop(progress);
        return planned::answer(context, &plan);
    }
    if let Some(which) = arguments.restart {
        let switched = with_services(context, &store, which.restart(), |supervision| {
            supervise::rollback(&store, &options, supervision, &progress)
        })?;
        drop(progress);
        return switched.map_or_else(Ok, |report| {
            let exit = conclude(context, &store, &report)?;
            if report.outcome == Outcome::Done && report.from.as_ref() != Some(&report.to) {
                Notice::rollback(&store, report.from.as_ref(), &report.to, report.level).send(context, &store);
            }
            Ok(exit)
        });
    }
    let left = guardian::left_before(context, &store);
    let report = rollback(&store, &options, &progress)?;
    drop(progress);
    guardian::start_what_it_stopped(context, &store, left.as_ref())?;
    say_warnings(context, &report.external_changes, &report.warnings);
    answer(context, &report)?;
    if report.changed {
        Notice::rollback(&store, report.from.as_ref(), &report.to, report.level).send(context, &store);
        Notice::switched(&store, report.from.as_ref(), &report.to).send(context, &store);
    }
    Ok(Exit::Done)
}

fn list(context: &Context) -> Result<Exit> {
    let Ways { current, to, ways, doubt } = ways(&context.store_leniently()?)?;
    let text = |version: &VersionName| version.to_string();
    let document = ListDocument {
        current: current.as_ref().map(text),
        to: to.as_ref().map(text),
        candidates: WayDocument::all(&ways),
        doubt: doubt.clone(),
    };
    context.answer(&document, |out| {
        match &current {
            Some(current) => writeln!(out, "current is {current}")?,
            None => writeln!(out, "there is no current version")?,
        }
        match &to {
            Some(to) => writeln!(out, "tope-store rollback goes back to {to}")?,
            None => writeln!(out, "tope-store rollback has nothing to go back to by itself")?,
        }
        if let Some(doubt) = &doubt {
            writeln!(out, "{doubt}: it is not known which versions ran, and which are bad")?;
        }
        match ways.is_empty() {
            true => writeln!(out, "there is no other version here"),
            false => write_ways(out, &ways),
        }
    })?;
    Ok(Exit::Done)
}

fn answer(context: &Context, report: &Report) -> Result<()> {
    let document = Document {
        from: report.from.as_ref().map(ToString::to_string),
        to: report.to.to_string(),
        level: report.level,
        outcome: outcome(report.changed),
        digest: report.digest.map(|digest| digest.to_string()),
        marked_bad: report.marked_bad,
        previous: report.previous.as_ref().map(ToString::to_string),
        recorded: report.recorded,
        external_changes: &report.external_changes,
        warnings: &report.warnings,
        switched_after_ms: report.switched_after.as_millis(),
        elapsed_ms: report.elapsed.as_millis(),
    };
    context.answer(&document, |out| {
        let Report { from, to, .. } = report;
        let Some(from) = from.as_ref().filter(|_| report.changed) else {
            return match report.changed {
                true => writeln!(out, "current is now {to}"),
                false => writeln!(out, "{to} is current already"),
            };
        };
        writeln!(out, "current is now {to} (was {from})")?;
        if report.marked_bad {
            writeln!(out, "{from} is marked bad; to clear that: tope-store confirm {from}")?;
        }
        match &report.previous {
            Some(previous) => writeln!(out, "previous is now {previous}"),
            None => writeln!(out, "there is no previous version to go back to any longer"),
        }
    })
}
