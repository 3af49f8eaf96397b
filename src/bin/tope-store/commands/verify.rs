//! `verify`

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::model::Selector;
use tope_store::ops::check::{Depth, ReadFrom};
use tope_store::ops::verify::{Finding, Options, Report, verify};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::PathFields;

/// Compare trees, objects, manifests, the history and the links with what was recorded
#[derive(Debug, Args)]
#[command(after_help = "Exit code 5 if anything is damaged.

Examples:
  tope-store verify                    read every file once, from the medium
  tope-store verify --quick            look at every file, read only what looks wrong
  tope-store verify current --cached   read one version as processes see it")]
pub struct Arguments {
    /// Versions or roles; without any, the whole store
    version: Vec<Selector>,
    /// Look at inodes only, and read just the files that are not what was linked
    #[arg(long)]
    quick: bool,
    /// Read from memory what is there, instead of from the medium
    #[arg(long, conflicts_with = "quick")]
    cached: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    depth: &'static str,
    versions: u64,
    entries: u64,
    objects: u64,
    read_files: u64,
    unseen: u64,
    elapsed_ms: u128,
    problems: Vec<ProblemDocument<'a>>,
}

#[derive(Serialize)]
struct ProblemDocument<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    #[serde(flatten)]
    path: PathFields,
    detail: &'a str,
    damage: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store()?;
    let versions = arguments.version.iter().map(|selector| store.resolve(selector)).collect::<Result<Vec<_>>>()?;
    let options = Options {
        versions,
        depth: if arguments.quick { Depth::Quick } else { Depth::Full },
        from: if arguments.cached { ReadFrom::Cache } else { ReadFrom::Medium },
    };
    let progress = context.progress();
    let report = verify(&store, &options, &progress)?;
    drop(progress);
    answer(context, &options, &report)?;
    Ok(if report.ok() { Exit::Done } else { Exit::Corrupt })
}

fn answer(context: &Context, options: &Options, report: &Report) -> Result<()> {
    let document = Document {
        ok: report.ok(),
        depth: options.depth.name(),
        versions: report.versions,
        entries: report.entries,
        objects: report.objects,
        read_files: report.read_files,
        unseen: report.unseen,
        elapsed_ms: report.elapsed.as_millis(),
        problems: report.findings.iter().map(problem).collect(),
    };
    context.answer(&document, |out| {
        for finding in &report.findings {
            let word = if finding.damage { "damaged" } else { "superfluous" };
            let version = finding.version.as_ref().map_or(String::new(), |version| format!("{version}: "));
            writeln!(out, "{word}  {version}{}: {}", Shown::bytes(&finding.path), finding.detail)?;
        }
        let damaged = report.findings.iter().filter(|finding| finding.damage).count() as u64;
        let verdict =
            if damaged == 0 { "sound".to_owned() } else { format!("{} found", human::count(damaged, "damage")) };
        writeln!(
            out,
            "{verdict}: {}, {}, {} read in {}",
            human::count(report.versions, "version"),
            human::count(report.objects, "object"),
            human::count(report.read_files, "file"),
            human::elapsed(report.elapsed)
        )
    })?;
    if report.unseen > 0 {
        context.warn(format!("{} may not be looked at by this user", human::count(report.unseen, "name")));
    }
    Ok(())
}

fn problem(finding: &Finding) -> ProblemDocument<'_> {
    ProblemDocument {
        kind: &finding.kind,
        version: finding.version.as_ref().map(tope_store::model::VersionName::as_str),
        path: PathFields::of(&finding.path),
        detail: &finding.detail,
        damage: finding.damage,
    }
}
