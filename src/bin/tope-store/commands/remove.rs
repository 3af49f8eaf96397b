//! `remove`. The document is that of `gc`; `kept[]` holds versions that only then turned out not to go.

use clap::Args;
use tope_store::error::{Error, Refusal, Result};
use tope_store::model::Selector;
use tope_store::ops::gc::{Decided, Mode};
use tope_store::ops::remove::remove;

use crate::context::Context;
use crate::exit::Exit;

/// Remove versions; none of them if one is protected
///
/// The targets of roles, pinned versions, the newest good one and what processes use are protected. A version that only
/// then turns out not to go, as one in a lower layer of an overlay, stays, and the exit code is 4.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The versions, by name or digest
    #[arg(required = true, value_name = "VERSION")]
    versions: Vec<Selector>,
    /// Remove nothing, and say what would come back
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store()?;
    let versions = arguments.versions.iter().map(|version| store.resolve(version)).collect::<Result<Vec<_>>>()?;
    let progress = context.progress();
    let mode = if arguments.dry_run { Mode::DryRun } else { Mode::Remove };
    let report = remove(&store, &versions, mode, &progress)?;
    drop(progress);
    super::gc::answer(context, &report)?;
    if !report.kept.is_empty() && !context.global().json {
        let said = |kept: &Decided| {
            let reasons: Vec<String> = kept.reasons.iter().map(ToString::to_string).collect();
            format!("{} {}", kept.name, reasons.join(", "))
        };
        let kept: Vec<String> = report.kept.iter().map(said).collect();
        context.fail(&Error::refused(Refusal::Protected, format!("not removed: {}", kept.join("; "))));
    }
    Ok(match (report.interrupted, report.kept.is_empty()) {
        (true, _) => Exit::Interrupted,
        (false, false) => Exit::Refused,
        (false, true) => Exit::Done,
    })
}
