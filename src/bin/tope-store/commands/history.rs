//! `history`

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::history::Recorded;
use tope_store::model::{Action, Selector};
use tope_store::ops::history::{Options, Order, history};

use super::status::history_state;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::{WhoFields, by};
use crate::render::human;

/// Tell who switched what, when, and why
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store history -n 20
  tope-store history --version 1.2.0
  tope-store history --action rollback --action bad --reverse

Times are local, with the offset from UTC, and UTC in --json. --json gives events[] with seq, time, action, and \
whatever else is known of each.")]
pub struct Arguments {
    /// At most so many, the newest ones
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// Only about this version, or leaving it
    #[arg(long, value_name = "VERSION")]
    version: Option<Selector>,
    /// Only of this kind (import, activate, rollback, bad, ...); may be given more than once
    #[arg(long, value_name = "ACTION", value_parser = action)]
    action: Vec<Action>,
    /// The oldest first
    #[arg(long)]
    reverse: bool,
}

fn action(text: &str) -> Result<Action, String> {
    let known = Action::ALL.into_iter().find(|action| action.name() == text);
    known.ok_or_else(|| {
        let names: Vec<&str> = Action::ALL.into_iter().map(Action::name).collect();
        format!("one of {}", names.join(", "))
    })
}

#[derive(Serialize)]
struct Document<'a> {
    state: &'static str,
    state_detail: Option<String>,
    events: Vec<EventDocument<'a>>,
}

#[derive(Serialize)]
struct EventDocument<'a> {
    seq: u64,
    time: String,
    synchronised: bool,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tried: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    import_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    isolated: bool,
    #[serde(flatten)]
    who: WhoFields<'a>,
    pid: u32,
    trusted: bool,
}

#[derive(Serialize)]
struct EvidenceDocument {
    check: String,
    detail: String,
    exit_code: Option<i32>,
    log: Vec<String>,
}

impl<'a> EventDocument<'a> {
    fn of(recorded: &'a Recorded) -> Self {
        let event = &recorded.event;
        Self {
            seq: event.seq,
            time: human::rfc3339(event.time),
            synchronised: event.synchronised,
            action: event.action.name(),
            version: event.version.as_ref().map(ToString::to_string),
            from: event.from.as_ref().map(ToString::to_string),
            tried: event.tried.as_ref().map(ToString::to_string),
            role: event.role.map(tope_store::model::Role::as_str),
            digest: event.digest.map(|digest| digest.to_string()),
            import_number: event.import_number,
            outcome: Some(event.outcome.clone()).filter(|outcome| !outcome.is_empty()),
            reason: event.reason.clone(),
            text: event.text.clone(),
            evidence: event.evidence.as_ref().map(|evidence| EvidenceDocument {
                check: evidence.check.clone(),
                detail: evidence.detail.clone(),
                exit_code: evidence.exit_code,
                log: evidence.log.clone(),
            }),
            duration_ms: event.duration_ms,
            freed_bytes: event.freed_bytes,
            isolated: event.isolated,
            who: WhoFields::of(&event.who),
            pid: event.who.pid,
            trusted: recorded.trusted,
        }
    }
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let options = Options {
        limit: arguments.limit,
        version: arguments.version,
        actions: arguments.action,
        order: if arguments.reverse { Order::OldestFirst } else { Order::NewestFirst },
    };
    let report = history(&context.store_leniently()?, &options)?;
    let (state, state_detail) = history_state(&report.state);
    if !report.state.is_trustworthy() {
        context.warn(format_args!(
            "the history is {state}{}",
            match &state_detail {
                Some(detail) => format!(": {detail}"),
                None => String::new(),
            }
        ));
    }
    let document = Document { state, state_detail, events: report.events.iter().map(EventDocument::of).collect() };
    context.answer(&document, |out| report.events.iter().try_for_each(|recorded| tell(out, recorded)))?;
    Ok(Exit::Done)
}

/// "    12  2026-01-01 00:00:00 +00:00  rollback v1.1.0 -> v1.0.0  by ada: no network".
fn tell(out: &mut dyn Write, recorded: &Recorded) -> io::Result<()> {
    let event = &recorded.event;
    let time = human::moment(event.time, event.synchronised);
    write!(out, "{:>6}  {time}  {}", event.seq, event.action.name())?;
    if let Some(role) = event.role {
        write!(out, " {role}:")?;
    }
    match (&event.from, &event.version) {
        (Some(from), Some(version)) => write!(out, " {from} -> {version}")?,
        (Some(from), None) => write!(out, " {from} -> none")?,
        (None, Some(version)) => write!(out, " {version}")?,
        (None, None) => {}
    }
    if !event.outcome.is_empty() && event.outcome != "done" {
        write!(out, "  {}", Shown::text(&event.outcome))?;
    }
    write!(out, "  by {}", by(&event.who))?;
    for why in [&event.reason, &event.text].into_iter().flatten() {
        write!(out, ": {}", Shown::text(why))?;
    }
    // The reason of a rollback that a failed check made names the check.
    if let Some(evidence) = event.evidence.as_ref().filter(|_| event.tried.is_none() || event.reason.is_none()) {
        write!(out, ": {evidence}")?;
    }
    writeln!(out, "{}", if recorded.trusted { "" } else { "  (not trusted: behind damage)" })
}
