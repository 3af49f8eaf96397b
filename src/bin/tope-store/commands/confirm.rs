//! `confirm`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::confirm::{Options, confirm};

use super::supervised::NO_LONGER_DEGRADED;
use crate::context::Context;
use crate::exit::Exit;
use crate::guardian;

/// Accept a version: it counts as good, and a bad mark or a degraded state goes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store confirm                                 the current version works
  tope-store confirm 1.2.0 --reason 'it was the cable'

Confirming what a failed check went back to takes note of that: status says it no longer.")]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest [default: current]
    version: Option<Selector>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Document {
    version: String,
    digest: String,
    was_bad: Option<String>,
    recovered: bool,
    changed: bool,
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let options = Options { version: arguments.version, reason: arguments.reason };
    let store = context.store()?;
    let left = guardian::left_before(context, &store);
    let report = confirm(&store, &options)?;
    guardian::start_what_it_stopped(context, &store, left.as_ref())?;
    let was_bad = report.was_bad.as_ref().map(ToString::to_string);
    let document = Document {
        version: report.version.to_string(),
        digest: report.digest.to_string(),
        was_bad: was_bad.clone(),
        recovered: report.recovered,
        changed: report.changed,
    };
    context.answer(&document, |out| {
        match (report.changed, was_bad) {
            (false, _) => writeln!(out, "{} is good already", report.version)?,
            (true, None) => writeln!(out, "{} is good", report.version)?,
            (true, Some(why)) => writeln!(out, "{} is good; it was marked bad ({why})", report.version)?,
        }
        if report.recovered { writeln!(out, "{NO_LONGER_DEGRADED}") } else { Ok(()) }
    })?;
    Ok(Exit::Done)
}
