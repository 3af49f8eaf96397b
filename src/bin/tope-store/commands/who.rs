//! `who`

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::ops::who::{Process, Which, who};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::PathFields;
use crate::render::table::{Align, Table};

/// List processes, with their units, that still use a version other than current
#[derive(Debug, Args)]
#[command(after_help = "A process uses a version if it executes, maps or has open a file of it, or works in it.

Examples:
  tope-store who            what was not restarted after the switch
  tope-store who --all      also what uses the current version")]
pub struct Arguments {
    /// Also those that use the current version
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct Document {
    current: Option<String>,
    processes: Vec<ProcessDocument>,
    hidden_processes: usize,
}

#[derive(Serialize)]
struct ProcessDocument {
    pid: i32,
    unit: Option<String>,
    command: String,
    version: String,
    uses: Vec<UseDocument>,
}

#[derive(Serialize)]
struct UseDocument {
    how: &'static str,
    #[serde(flatten)]
    path: PathFields,
    writes: bool,
}

fn document(process: &Process) -> ProcessDocument {
    let uses = process.uses.iter();
    ProcessDocument {
        pid: process.pid,
        unit: process.unit.clone(),
        command: process.command.clone(),
        version: process.version.to_string(),
        uses: uses
            .map(|one| UseDocument { how: one.how, path: PathFields::of(&one.path), writes: one.writes })
            .collect(),
    }
}

/// "executes bin/api, maps 12 files, works in ."
fn uses(process: &Process) -> String {
    let mut parts = Vec::new();
    for how in ["executes", "works in", "is rooted in", "has open", "maps"] {
        let paths: Vec<&[u8]> = process.uses.iter().filter(|one| one.how == how).map(|one| &*one.path).collect();
        match paths[..] {
            [] => {}
            [b""] => parts.push(format!("{how} .")),
            [path] => parts.push(format!("{how} {}", Shown::bytes(path))),
            _ => parts.push(format!("{how} {}", human::count(paths.len() as u64, "file"))),
        }
    }
    parts.join(", ")
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let which = if arguments.all { Which::All } else { Which::Stale };
    let report = who(&context.store_leniently()?, which)?;
    let answer = Document {
        current: report.current.as_ref().map(ToString::to_string),
        processes: report.processes.iter().map(document).collect(),
        hidden_processes: report.hidden,
    };
    context.answer(&answer, |out| {
        let mut table = Table::new([Align::Left, Align::Right, Align::Left, Align::Left, Align::Left]);
        for process in &report.processes {
            table.row([
                process.version.to_string(),
                process.pid.to_string(),
                process.unit.clone().unwrap_or_default(),
                process.command.chars().take(40).collect(),
                uses(process),
            ]);
        }
        table.write(out)
    })?;
    match (report.processes.is_empty(), &report.current) {
        (true, Some(current)) if !arguments.all => {
            context.say(format!("no process uses a version other than {current}"));
        }
        (true, _) => context.say("no process uses a version"),
        _ => {}
    }
    if report.hidden > 0 {
        let processes = human::count(report.hidden as u64, "process").replace("processs", "processes");
        context.warn(format!("{processes} may not be inspected by this user"));
    }
    Ok(Exit::Done)
}
