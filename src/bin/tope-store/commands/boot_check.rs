//! `boot-check`

use clap::Args;
use serde::Serialize;
use tope_store::config::Occasion;
use tope_store::error::{Error, Refusal, Result};
use tope_store::model::VersionName;
use tope_store::model::trial::{MOST_ATTEMPTS, Restart};
use tope_store::ops::supervise::{Boot, Checked, Outcome, Supervision, boot_check, guard, is_idle};
use tope_store::services::manager;
use tope_store::store::Store;

use super::supervised::{self, EvidenceDocument, with_services};
use crate::context::Context;
use crate::exit::Exit;
use crate::render::notice::Notice;

/// Look after a version on trial at boot: count the boot, watch services, go back if they do not hold
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store boot-check --count                      before services start: three boots, then back
  tope-store boot-check --judge                      when they were started: watch them
  tope-store boot-check                              both

A supervised switch (activate --restart) that was cut off leaves its version on trial. Where no version held (status says \
degraded), it watches what runs once more, and says if it holds now; it goes nowhere then. The units of the package call \
this at boot. Exit code 0 if nothing has to be done or the version holds, 7 if it was gone back, 8 if nothing holds.")]
pub struct Arguments {
    /// Only count this boot, and go back if there were too many; needs no service manager
    #[arg(long, conflicts_with = "judge")]
    count: bool,
    /// Only watch what runs, and go back if it does not hold
    #[arg(long)]
    judge: bool,
    /// Wait until the process of this number and start has ended, and go on with its trial then
    #[arg(long, hide = true, value_name = "PID:START", value_parser = process, conflicts_with_all = ["count", "judge"])]
    guard: Option<(u32, u64)>,
}

fn process(text: &str) -> std::result::Result<(u32, u64), String> {
    let process = text.split_once(':').and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
    process.ok_or_else(|| "a process is its number, a colon, and its start in clock ticks since the boot".into())
}

#[derive(Serialize)]
struct Document<'a> {
    trial: &'static str,
    version: Option<String>,
    from: Option<String>,
    level: Option<u8>,
    attempts: Option<u32>,
    reason: Option<&'a str>,
    evidence: Option<EvidenceDocument<'a>>,
    switch: Option<supervised::Document<'a>>,
    warnings: &'a [String],
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    context.refuse_in_image("boot-check")?;
    let store = context.store_leniently()?;
    let progress = context.progress();
    if let Some(process) = arguments.guard {
        return go_on(context, &store, process);
    }
    let (mut checked, mut warnings) = (Checked::NoTrial, Vec::new());
    if !arguments.judge {
        let manager = manager(&context.config().supervisor);
        let say = |sentence: &str| context.say(sentence);
        let (configured, notify) = (&context.config().services, &context.config().notify);
        let counting =
            Supervision { manager: &*manager, configured, notify, restart: Restart::Changed, say: &say, guard: None };
        (checked, warnings) = boot_check(&store, Boot::Count, &counting, &progress)?;
    }
    let goes_on = match checked {
        Checked::Counted { .. } | Checked::WentBack { .. } => true,
        Checked::NoTrial => !is_idle(&store)?,
        _ => false,
    };
    if !arguments.count && goes_on {
        notice(context, &store, &checked);
        let judged = with_services(context, &store, Restart::Changed, |supervision| {
            boot_check(&store, Boot::Judge, supervision, &progress)
        })?;
        let (judged, more) = match judged {
            Ok(judged) => judged,
            Err(exit) => return Ok(exit),
        };
        checked = judged;
        warnings.extend(more);
    }
    drop(progress);
    conclude(context, &store, &checked, &warnings)
}

/// What a guardian does. An operator who acts in between ends it, and that is no failure.
fn go_on(context: &Context, store: &Store, process: (u32, u64)) -> Result<Exit> {
    let progress = context.progress();
    let (mut said, mut went_back) = (Vec::new(), false);
    loop {
        let guarded = with_services(context, store, Restart::Changed, |supervision| {
            guard(store, process, supervision, &progress)
        });
        let (checked, warnings) = match guarded {
            Ok(Ok(guarded)) => guarded,
            Ok(Err(exit)) => return Ok(exit),
            Err(Error::Refused { why: Refusal::Superseded, .. }) => return Ok(Exit::Done),
            Err(error) => return Err(error),
        };
        said.extend(warnings);
        // Once: what it went back to is judged as well.
        if matches!(checked, Checked::WentBack { .. }) && !went_back {
            notice(context, store, &checked);
            went_back = true;
            continue;
        }
        return conclude(context, store, &checked, &said);
    }
}

fn conclude(context: &Context, store: &Store, checked: &Checked, warnings: &[String]) -> Result<Exit> {
    warnings.iter().for_each(|warning| context.warn(warning));
    let document = document(checked, warnings);
    context.answer(&document, |out| match checked {
        Checked::Judged(report) => supervised::tell(out, report),
        other => writeln!(out, "{}", sentence(other)),
    })?;
    notice(context, store, checked);
    Ok(match checked {
        Checked::Judged(report) => supervised::exit(report.outcome),
        Checked::WentBack { .. } => Exit::RolledBack,
        Checked::Degraded { .. } => Exit::Degraded,
        _ => Exit::Done,
    })
}

fn notice(context: &Context, store: &Store, checked: &Checked) {
    let notice = match checked {
        Checked::Judged(report) => Notice::of_switch(store, report),
        Checked::WentBack { from, to, level, evidence } => Some(
            Notice::new(store, Occasion::RolledBack, Some(to), sentence(checked))
                .from(Some(from), *level)
                .because(Some(evidence)),
        ),
        Checked::Degraded { version, evidence } => {
            let notice = Notice::new(store, Occasion::Degraded, Some(version), sentence(checked));
            Some(notice.because(Some(evidence)))
        }
        _ => None,
    };
    if let Some(notice) = notice {
        notice.send(context, store);
    }
}

fn sentence(checked: &Checked) -> String {
    match checked {
        Checked::NoTrial => "no version is on trial".into(),
        Checked::Watched => "the version on trial is being watched by the process that switched to it".into(),
        Checked::Dropped(why) => format!("the trial is ended: {why}"),
        Checked::Counted { version, attempts } => format!("{version} is on trial: boot {attempts} of {MOST_ATTEMPTS}"),
        Checked::WentBack { from, to, level, evidence } => {
            format!("current is now {to} (level {level}, was {from}): {evidence}")
        }
        Checked::Degraded { version, evidence } => {
            format!("{version} stays current, and there is nothing to go back to: {evidence}")
        }
        Checked::Judged(report) => format!("{} was judged", report.to),
    }
}

fn document<'a>(checked: &'a Checked, warnings: &'a [String]) -> Document<'a> {
    let name = |version: &VersionName| Some(version.to_string());
    let empty = |trial| Document {
        trial,
        version: None,
        from: None,
        level: None,
        attempts: None,
        reason: None,
        evidence: None,
        switch: None,
        warnings,
    };
    match checked {
        Checked::NoTrial => empty("none"),
        Checked::Watched => empty("watched"),
        Checked::Dropped(why) => Document { reason: Some(why), ..empty("dropped") },
        Checked::Counted { version, attempts } => {
            Document { version: name(version), attempts: Some(*attempts), ..empty("counted") }
        }
        Checked::WentBack { from, to, level, evidence } => Document {
            version: name(to),
            from: name(from),
            level: Some(*level),
            evidence: Some(EvidenceDocument::of(evidence)),
            ..empty("went-back")
        },
        Checked::Degraded { version, evidence } => {
            Document { version: name(version), evidence: Some(EvidenceDocument::of(evidence)), ..empty("degraded") }
        }
        Checked::Judged(report) => Document {
            version: name(&report.current),
            switch: Some(supervised::Document::of(report)),
            ..empty(if report.outcome == Outcome::Interrupted { "interrupted" } else { "judged" })
        },
    }
}
