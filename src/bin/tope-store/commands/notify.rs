//! `notify`

use clap::Args;
use serde::Serialize;
use tope_store::config::DEFAULT_CONFIG_PATH;
use tope_store::error::{Error, Result, Shown};
use tope_store::model::Role;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::notice::Notice;

/// Send a notice to the command of [notify], to see whether it arrives
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store notify --test

The notice has the event test, and is sent whatever [notify] on says. Each attempt has ten seconds, and there are two, one \
second apart. Exit code 0 if the command took it, 1 if not, 2 if no command is configured. A unit has a sandbox of its own: \
status says whether the last notice of any process arrived.")]
pub struct Arguments {
    /// Send a test notice
    #[arg(long, required = true)]
    test: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    delivered: bool,
    command: &'a [String],
    attempts: u32,
    why: Option<&'a str>,
    elapsed_ms: u128,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    debug_assert!(arguments.test, "clap requires it");
    context.refuse_in_image("notify")?;
    let command = &context.config().notify;
    if command.is_empty() {
        let path = context.global().config.as_deref().unwrap_or(std::path::Path::new(DEFAULT_CONFIG_PATH));
        let path = Shown::path(path);
        return Err(Error::Usage(format!(
            "nobody is to be told: set command = [\"PROGRAM\", …] in [notify] of {path}"
        )));
    }
    let store = context.store_leniently()?;
    let roles = store.refs().and_then(|refs| refs.read()).ok();
    let current = roles.as_ref().and_then(|roles| roles.version(Role::Current));
    let report = Notice::test(&store, current).deliver(context, &store)?;
    if let Some(why) = &report.unrecorded {
        context.warn(format_args!("that cannot be recorded for status: {why}"));
    }
    let document = Document {
        delivered: report.failed.is_none(),
        command,
        attempts: report.attempts,
        why: report.failed.as_deref(),
        elapsed_ms: report.elapsed.as_millis(),
    };
    context.answer(&document, |out| match &report.failed {
        None => writeln!(out, "delivered in {}", human::elapsed(report.elapsed)),
        Some(why) => {
            let attempts = human::count(u64::from(report.attempts), "attempt");
            writeln!(out, "not delivered in {attempts}: {}", Shown::text(why))
        }
    })?;
    Ok(if report.failed.is_none() { Exit::Done } else { Exit::Failed })
}
