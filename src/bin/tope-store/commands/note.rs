//! `note`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::note::note;

use crate::context::Context;
use crate::exit::Exit;

/// Note a change or a known issue on a version
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store note 1.2.0 'camera needs a restart after the update'
  tope-store history --version 1.2.0                 to read it")]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest
    version: Selector,
    /// What is to be known
    text: String,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'a str,
    text: &'a str,
    notes: usize,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let report = note(&context.store()?, &arguments.version, &arguments.text)?;
    let document = Document { version: report.version.as_str(), text: &arguments.text, notes: report.notes };
    context.answer(&document, |out| writeln!(out, "noted on {}", report.version))?;
    Ok(Exit::Done)
}
