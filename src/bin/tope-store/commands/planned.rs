//! What `--dry-run` of a switch answers.

use std::io::{self, Write};

use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::model::units::exact_duration;
use tope_store::ops::plan::{Plan, PlannedService, ServiceAction, TreeCheck};

use super::activate::outcome;
use crate::context::Context;
use crate::exit::Exit;

#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    from: Option<String>,
    to: String,
    level: u8,
    outcome: &'static str,
    digest: Option<String>,
    previous: Option<String>,
    marked_bad: bool,
    bad: Option<String>,
    tree: &'static str,
    tree_detail: Option<&'a str>,
    services: Option<Vec<ServiceDocument<'a>>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct ServiceDocument<'a> {
    unit: &'a str,
    action: &'static str,
    stop_first: bool,
    reasons: &'a [String],
    watched: bool,
    settle_ms: u128,
    timeout_ms: u128,
    http: Option<String>,
    command: Option<&'a [String]>,
}

impl<'a> ServiceDocument<'a> {
    fn of(planned: &'a PlannedService) -> Self {
        let service = &planned.service;
        Self {
            unit: &service.unit,
            action: planned.action.name(),
            stop_first: planned.stops_first,
            reasons: &planned.reasons,
            watched: planned.action.is_watched(),
            settle_ms: service.settle.as_millis(),
            timeout_ms: service.timeout.as_millis(),
            http: service.http.as_ref().map(|probe| probe.address.to_string()),
            command: service.command.as_ref().map(|probe| probe.command.as_slice()),
        }
    }
}

fn tree(check: &TreeCheck) -> (&'static str, Option<&str>) {
    match check {
        TreeCheck::Sound => ("sound", None),
        TreeCheck::Damaged(why) => ("damaged", Some(why)),
        TreeCheck::Unchecked(why) => ("unchecked", Some(why)),
    }
}

/// Answers with a plan.
pub fn answer(context: &Context, plan: &Plan) -> Result<Exit> {
    plan.warnings.iter().for_each(|warning| context.warn(warning));
    let (tree, tree_detail) = tree(&plan.tree);
    let document = Document {
        dry_run: true,
        from: plan.from.as_ref().map(ToString::to_string),
        to: plan.to.to_string(),
        level: plan.level,
        outcome: outcome(plan.changes),
        digest: plan.digest.map(|digest| digest.to_string()),
        previous: plan.previous.as_ref().map(ToString::to_string),
        marked_bad: plan.bad.is_some(),
        bad: plan.bad.as_ref().map(ToString::to_string),
        tree,
        tree_detail,
        services: plan.services.as_ref().map(|all| all.iter().map(ServiceDocument::of).collect()),
        warnings: &plan.warnings,
    };
    context.answer(&document, |out| tell(out, plan))?;
    Ok(Exit::Done)
}

fn tell(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let Plan { from, to, .. } = plan;
    match (plan.changes, from) {
        (false, _) => writeln!(out, "{to} is current already")?,
        (true, Some(from)) => writeln!(out, "current would be {to} (level {}, now {from})", plan.level)?,
        (true, None) => writeln!(out, "current would be {to} (level {}, now none)", plan.level)?,
    }
    match &plan.tree {
        TreeCheck::Sound => writeln!(out, "  {to} passes its check")?,
        TreeCheck::Damaged(why) => writeln!(out, "  {to} fails its check: {why}")?,
        TreeCheck::Unchecked(why) => writeln!(out, "  {to} is not checked: {why}")?,
    }
    match &plan.previous {
        Some(previous) => writeln!(out, "  previous would be {previous}")?,
        None => writeln!(out, "  previous would be absent")?,
    }
    if let Some(bad) = &plan.bad {
        writeln!(out, "  {bad} would be marked bad")?;
    }
    for planned in plan.services.iter().flatten() {
        tell_service(out, planned)?;
    }
    if plan.services.as_ref().is_some_and(Vec::is_empty) {
        writeln!(out, "  no service is known: none would be restarted or watched")?;
    }
    writeln!(out, "nothing was changed")
}

fn tell_service(out: &mut dyn Write, planned: &PlannedService) -> io::Result<()> {
    let service = &planned.service;
    let first = if planned.stops_first { "stopped before the switch, and " } else { "" };
    let what = match planned.action {
        ServiceAction::Restart if planned.stops_first => "started after it",
        ServiceAction::Restart => "restarted",
        ServiceAction::Start => "started",
        ServiceAction::Watch => "left alone",
        ServiceAction::Leave => "left alone: it does not run",
    };
    let why = match planned.reasons.as_slice() {
        [] => String::new(),
        reasons => format!(": {}", Shown::text(&reasons.join("; "))),
    };
    writeln!(out, "  {}: would be {first}{what}{why}", service.unit)?;
    let Some((settle, timeout)) = planned.times() else { return Ok(()) };
    let (settle, timeout) = (exact_duration(settle), exact_duration(timeout));
    writeln!(out, "    watched: it has to run undisturbed for {settle}, all checks within {timeout}")?;
    if let Some(probe) = &service.http {
        writeln!(out, "    http {}", probe.address)?;
    }
    if let Some(probe) = &service.command {
        writeln!(out, "    command {}", Shown::text(&probe.command.join(" ")))?;
    }
    Ok(())
}
