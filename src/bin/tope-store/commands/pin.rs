//! `pin`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::pin::{Pin, Report, pin};

use crate::context::Context;
use crate::exit::Exit;

/// Keep a version whatever gc is told
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store pin 1.0.0 --reason 'certified'")]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest
    version: Selector,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Document {
    version: String,
    pinned: bool,
    changed: bool,
}

/// Tells what became of a pin.
pub fn answer(context: &Context, report: &Report) -> Result<Exit> {
    let document = Document { version: report.version.to_string(), pinned: report.pinned, changed: report.changed };
    context.answer(&document, |out| {
        let (version, already) = (&report.version, if report.changed { "" } else { " already" });
        match report.pinned {
            true => writeln!(out, "{version} is pinned{already}"),
            false => writeln!(out, "{version} is not pinned{}", if report.changed { " any longer" } else { "" }),
        }
    })?;
    Ok(Exit::Done)
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let report = pin(&context.store()?, &arguments.version, Pin::Set, arguments.reason.as_deref())?;
    answer(context, &report)
}
