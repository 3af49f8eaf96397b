//! `unpin`

use clap::Args;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::pin::{Pin, pin};

use super::pin::answer;
use crate::context::Context;
use crate::exit::Exit;

/// Let gc remove a pinned version again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store unpin 1.0.0")]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest
    version: Selector,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let report = pin(&context.store()?, &arguments.version, Pin::Lift, arguments.reason.as_deref())?;
    answer(context, &report)
}
