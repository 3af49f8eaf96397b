//! `activate`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::activate::{Options, Report, activate, plan, sentence};
use tope_store::ops::check::Depth;
use tope_store::ops::supervise;
use tope_store::ops::switching::{BadVersions, Verify};

use super::planned;
use super::supervised::{Which, asking_services, conclude, with_services};
use crate::context::Context;
use crate::exit::Exit;
use crate::guardian;
use crate::render::notice::Notice;

/// Switch current to a version; what was current becomes previous
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store activate 1.2.0
  tope-store activate t1:3fa9 --reason 'ticket 812'
  tope-store activate 1.2.0 --restart                restart what differs, watch it, go back if it does not hold
  tope-store activate 1.1.0 --force                  although it is marked bad
  tope-store activate 1.2.0 --restart --dry-run      what would be switched, restarted and checked

The version is compared with its manifest first. One that fails is refused with exit code 4, as is a bad one. \
Activating what is current changes nothing. --json gives from, to, level (0), outcome (done, unchanged).

With --restart the services of the configuration (or those whose units run from current) are restarted and watched. \
Before that, it is refused with exit code 4 if one of them could not run after the switch: a unit that cannot be loaded, a \
check that is not there. If they do not hold, it goes back to previous, and if that does not hold either, to factory: exit code 7. If nothing holds, \
the least bad version runs: exit code 8.")]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest (t1:...)
    version: Selector,
    /// How closely to check it before: every name, every byte, or not at all
    #[arg(long, value_name = "HOW", default_value = "quick")]
    pub verify: Check,
    /// Restart services and watch them: those for which the versions differ, or all
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "changed")]
    restart: Option<Which>,
    /// Take a version that is marked bad all the same
    #[arg(long)]
    force: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say what would be switched, and refuse what would be refused, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// How closely a version is checked before a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Check {
    /// Every name: is it there, of its size, mode and inode
    Quick,
    /// Every byte as well
    Full,
    /// Nothing
    None,
}

impl Check {
    /// The same for the library.
    pub fn verify(self) -> Verify {
        match self {
            Self::Quick => Verify::To(Depth::Quick),
            Self::Full => Verify::To(Depth::Full),
            Self::None => Verify::None,
        }
    }
}

/// The document of a switch forward.
#[derive(Serialize)]
pub struct Document {
    from: Option<String>,
    to: String,
    level: u8,
    outcome: &'static str,
    digest: Option<String>,
    previous: Option<String>,
    external_changes: Vec<String>,
    warnings: Vec<String>,
    switched_after_ms: u128,
    elapsed_ms: u128,
}

impl Document {
    /// What a report says.
    pub fn of(report: &Report) -> Self {
        Self {
            from: report.from.as_ref().map(ToString::to_string),
            to: report.to.to_string(),
            level: 0,
            outcome: outcome(report.changed),
            digest: report.digest.map(|digest| digest.to_string()),
            previous: report.previous.as_ref().map(ToString::to_string),
            external_changes: report.external_changes.clone(),
            warnings: report.warnings.clone(),
            switched_after_ms: report.switched_after.as_millis(),
            elapsed_ms: report.elapsed.as_millis(),
        }
    }
}

/// The stable word for how a switch ended.
pub fn outcome(changed: bool) -> &'static str {
    if changed { "done" } else { "unchanged" }
}

/// Says what the user should know.
pub fn say_warnings(context: &Context, external_changes: &[String], warnings: &[String]) {
    for change in external_changes {
        context.warn(format_args!("changed by somebody else: {change}"));
    }
    warnings.iter().for_each(|warning| context.warn(warning));
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let options = Options {
        verify: arguments.verify.verify(),
        bad: if arguments.force { BadVersions::Accept } else { BadVersions::Refuse },
        reason: arguments.reason,
    };
    let store = context.store()?;
    let progress = context.progress();
    if arguments.dry_run {
        let plan = match arguments.restart {
            None => plan(&store, &arguments.version, &options, &progress)?,
            Some(which) => asking_services(context, which.restart(), |supervision| {
                supervise::plan_activate(&store, &arguments.version, &options, supervision, &progress)
            })?,
        };
        drop(progress);
        return planned::answer(context, &plan);
    }
    if let Some(which) = arguments.restart {
        let switched = with_services(context, &store, which.restart(), |supervision| {
            supervise::activate(&store, &arguments.version, &options, supervision, &progress)
        })?;
        drop(progress);
        return switched.map_or_else(Ok, |report| conclude(context, &store, &report));
    }
    let left = guardian::left_before(context, &store);
    let report = activate(&store, &arguments.version, &options, &progress)?;
    drop(progress);
    guardian::start_what_it_stopped(context, &store, left.as_ref())?;
    say_warnings(context, &report.external_changes, &report.warnings);
    context.answer(&Document::of(&report), |out| writeln!(out, "{}", sentence(&report)))?;
    if report.changed {
        Notice::switched(&store, report.from.as_ref(), &report.to).send(context, &store);
    }
    Ok(Exit::Done)
}
