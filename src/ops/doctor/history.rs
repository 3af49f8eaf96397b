//! The history, and the clock that stamps it.

use super::{Finding, Options, Report, Severity};
use crate::error::Result;
use crate::history::{Head, State};
use crate::observe::Observer;
use crate::store::Store;

/// Before this nobody built this program: 2026-01-01T00:00:00Z.
const EARLIEST: i64 = 1_767_225_600;
/// How far the clock may be behind the last event before that is worth a word.
const TOLERANCE: i64 = 300;

/// A head that answers nothing: one loss the fewer is noticed.
fn of_head(head: &Head) -> Option<Finding> {
    let what = match head {
        Head::At(_) => return None,
        Head::Missing => "the head of the history is missing".to_owned(),
        Head::Unreadable(why) => format!("the head of the history cannot be read: {why}"),
        Head::Newer(why) => format!("this binary is too old for the head of the history: {why}"),
    };
    let why = "events that are lost since the last import would go unnoticed";
    let finding = Finding::new("history-head", Severity::Trouble, what, why).at("store/head");
    Some(match head {
        Head::Newer(_) => finding.remedy("use the tope-store that wrote it, or a newer one"),
        _ => finding.fixable(),
    })
}

pub(super) fn examine(store: &Store, _: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    let witnesses = store.witnesses();
    let reading = store.history()?.read()?.against(&witnesses);
    let why = "gc refuses to remove anything, and neither notes nor bad marks can be recorded, until the history is begun anew";
    match &reading.state {
        State::Sound => {}
        State::Torn { bytes, .. } => report.findings.push(
            Finding::new(
                "history-torn",
                Severity::Advice,
                format!("the last append to the history did not end: {bytes} bytes"),
                "a power cut leaves this; the next command that records anything cuts and notes it",
            )
            .at("store/history")
            .remedy("nothing: the next command mends it"),
        ),
        State::Broken { segment, line, detail } => report.findings.push(
            Finding::new(
                "history-broken",
                Severity::Damage,
                format!("{segment} is damaged at line {line}: {detail}"),
                why,
            )
            .at(format!("store/{segment}"))
            .fixable(),
        ),
        State::Missing => report.findings.push(
            Finding::new("history-missing", Severity::Damage, "the history is gone", why).at("store/history").fixable(),
        ),
        State::Doubt { detail, .. } => report.findings.push(
            Finding::new(
                "history-doubt",
                Severity::Damage,
                format!("events are lost: {detail}"),
                "the history was cut, or replaced by an older copy: pins and bad marks may be lost, and nothing is removed, \
                 imported or noted until the history is begun again",
            )
            .at("store/history")
            .remedy("put the newer history back, or: tope-store doctor --fix")
            .fixable(),
        ),
    }
    report.findings.extend(of_head(&reading.head));
    let now = store.clock().now();
    let last = reading.events.iter().map(|recorded| recorded.event.time).max();
    let text = |seconds: i64| format!("{seconds} seconds since 1970");
    let wrong = match last {
        _ if now.unix_seconds < EARLIEST => Some(format!("the clock says {}", text(now.unix_seconds))),
        Some(last) if now.unix_seconds + TOLERANCE < last => {
            Some(format!("the clock is {} seconds behind the last event", last - now.unix_seconds))
        }
        _ => None,
    };
    if let Some(what) = wrong {
        report.findings.push(
            Finding::new(
                "clock",
                Severity::Advice,
                what,
                "times in the history are labels and decide nothing, but rules like --keep-daily count by them",
            )
            .remedy("set the clock, or wait until it is synchronised"),
        );
    }
    Ok(())
}
