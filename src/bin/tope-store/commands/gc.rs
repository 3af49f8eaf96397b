//! `gc`
//!
//! The document, which `remove` shares:
//!
//! | field | |
//! | --- | --- |
//! | `removed[]`, `kept[]` | `name`, `reasons[]` (stable words: `current`, `pinned`, `in-use`, `keep-last`, `no-rule-keeps`, …), `why[]` (the same in sentences); removed oldest first, kept newest first |
//! | `forgotten[]` | versions that are no longer listed, since their trees are gone and nothing protects them |
//! | `freed_bytes` | what came back, or would; all of it |
//! | `up_to` | whether that is an upper bound, since files may share blocks on this file system |
//! | `wanted_bytes` | what `--free` asked for; absent without it |
//! | `orphan_objects`, `orphan_bytes` | of that, objects that no version referred to |
//! | `leftovers`, `leftover_bytes` | of that, what interrupted commands had left |
//! | `hidden_processes` | processes that this user may not inspect: what they use is not protected |
//! | `dry_run`, `interrupted`, `elapsed_ms` | |

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::retention::Policy;
use tope_store::model::units;
use tope_store::ops::gc::{Decided, Mode, Report, gc};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::notice::Notice;

/// Remove versions that no rule keeps, and everything that no version needs
///
/// A version is kept if any rule keeps it. The targets of roles, pinned versions, the newest good one and what
/// processes use are kept in any case. Rules that are not given here are taken from [retention] in the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store gc --keep-last 5 --dry-run         what would be removed, and why
  tope-store gc --keep-last 3 --keep-within 30d
  tope-store gc --free 200MiB                   the oldest versions, until that much comes back")]
pub struct Arguments {
    /// Keep the newest N; bad ones do not count
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep those imported at most this long before the newest, as in 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    keep_within: Option<Duration>,
    /// Keep the newest of each of the last N days with imports
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks with imports
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months with imports
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the newest N patch releases of each minor release
    #[arg(long, value_name = "N")]
    keep_minor: Option<u32>,
    /// Keep those with this label; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::label)]
    keep_label: Vec<(String, String)>,
    /// Remove only the oldest that no rule keeps, until at least this much comes back, as in 200MiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    free: Option<u64>,
    /// Remove nothing, and say what would be removed and why
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// The document of `gc` and `remove`.
#[derive(Serialize)]
struct Document<'a> {
    removed: Vec<DecidedDocument<'a>>,
    kept: Vec<DecidedDocument<'a>>,
    forgotten: Vec<&'a str>,
    freed_bytes: u64,
    up_to: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted_bytes: Option<u64>,
    orphan_objects: u64,
    orphan_bytes: u64,
    leftovers: u64,
    leftover_bytes: u64,
    hidden_processes: u64,
    dry_run: bool,
    interrupted: bool,
    elapsed_ms: u128,
}

#[derive(Serialize)]
struct DecidedDocument<'a> {
    name: &'a str,
    reasons: Vec<&'static str>,
    why: Vec<String>,
}

impl<'a> DecidedDocument<'a> {
    fn of(decided: &'a Decided) -> Self {
        Self {
            name: decided.name.as_str(),
            reasons: decided.reasons.iter().map(tope_store::model::retention::Reason::name).collect(),
            why: decided.reasons.iter().map(ToString::to_string).collect(),
        }
    }
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let configured = &context.config().retention;
    let policy = Policy {
        keep_last: arguments.keep_last.or(configured.keep_last),
        keep_within: arguments.keep_within.or(configured.keep_within),
        keep_daily: arguments.keep_daily.or(configured.keep_daily),
        keep_weekly: arguments.keep_weekly.or(configured.keep_weekly),
        keep_monthly: arguments.keep_monthly.or(configured.keep_monthly),
        keep_minor: arguments.keep_minor.or(configured.keep_minor),
        keep_labels: match arguments.keep_label {
            none if none.is_empty() => configured.keep_labels.clone(),
            labels => labels,
        },
        free: arguments.free.or(configured.free),
    };
    let store = context.store()?;
    let progress = context.progress();
    let report = gc(&store, &policy, if arguments.dry_run { Mode::DryRun } else { Mode::Remove }, &progress)?;
    drop(progress);
    answer(context, &report)?;
    if let Some(notice) = Notice::of_gc(&store, &report) {
        notice.send(context, &store);
    }
    Ok(if report.interrupted { Exit::Interrupted } else { Exit::Done })
}

/// Answers with what was removed, or would be.
pub fn answer(context: &Context, report: &Report) -> Result<()> {
    if report.hidden_processes > 0 {
        let processes = human::count(report.hidden_processes, "process").replace("processs", "processes");
        context.warn(format!("{processes} could not be inspected: versions that only they use are not protected"));
    }
    if let Some(wanted) = report.wanted_bytes.filter(|wanted| *wanted > report.freed_bytes) {
        let wanted = human::size(wanted);
        context.warn(format!("{wanted} were asked for, and no more than is said here may go"));
    }
    let document = Document {
        removed: report.removed.iter().map(DecidedDocument::of).collect(),
        kept: report.kept.iter().map(DecidedDocument::of).collect(),
        forgotten: report.forgotten.iter().map(tope_store::model::VersionName::as_str).collect(),
        freed_bytes: report.freed_bytes,
        up_to: report.up_to,
        wanted_bytes: report.wanted_bytes,
        orphan_objects: report.anyhow.orphan_objects,
        orphan_bytes: report.anyhow.orphan_bytes,
        leftovers: report.anyhow.leftovers,
        leftover_bytes: report.anyhow.leftover_bytes,
        hidden_processes: report.hidden_processes,
        dry_run: report.dry_run,
        interrupted: report.interrupted,
        elapsed_ms: report.elapsed.as_millis(),
    };
    context.answer(&document, |out| {
        let names = report.removed.iter().chain(&report.kept).map(|decided| decided.name.as_str().len());
        let width = names.max().unwrap_or(0);
        let mut lines = |word: &str, all: &[Decided]| {
            all.iter().try_for_each(|Decided { name, reasons }| {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                writeln!(out, "{word}  {name:width$}  {}", reasons.join(", "))
            })
        };
        lines("remove", &report.removed)?;
        lines("keep  ", &report.kept)?;
        for name in &report.forgotten {
            writeln!(out, "forget  {name:width$}  its tree is gone, and nothing protects it")?;
        }
        let anyhow = &report.anyhow;
        if anyhow.orphan_objects > 0 {
            let objects = human::count(anyhow.orphan_objects, "object");
            writeln!(out, "{objects} that no version needs, with {}", human::size(anyhow.orphan_bytes))?;
        }
        if anyhow.leftovers > 0 {
            let entries = human::count(anyhow.leftovers, "thing");
            writeln!(out, "{entries} left by interrupted commands, with {}", human::size(anyhow.leftover_bytes))?;
        }
        let up_to = if report.up_to { "up to " } else { "" };
        let versions = human::count(report.removed.len() as u64, "version");
        let freed = human::size(report.freed_bytes);
        match report.dry_run {
            true => writeln!(out, "{versions} would be removed; {up_to}{freed} would come back"),
            false => writeln!(out, "{versions} removed; {up_to}{freed} came back"),
        }
    })
}
