//! `doctor`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::layout::DEFAULT_BIN_DIR;
use tope_store::model::VersionName;
use tope_store::ops::doctor::{Asked, Finding, Options, Report, Severity, doctor};
use tope_store::services;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::PathFields;

/// Find what is wrong with links, trees, history, index, file system, switches and services, and mend what is safe
#[derive(Debug, Args)]
#[command(
    after_help = "Each finding says what is wrong, why it matters, and the command that mends it. With --fix: what \
interrupted commands left is completed or removed; a damaged format file, history or index is made anew; roles are \
pointed where they were recorded and written plainly; links to programs are made; the reserve is set aside. \
Damaged files are left to: tope-store verify --repair

Exit code 5 if anything is lost or wrong (damage); else 1 if something does not work, or will not when it is needed \
(trouble); else 0, whatever could be better (advice).

Examples:
  tope-store doctor
  tope-store doctor --fix
  tope-store --json doctor"
)]
pub struct Arguments {
    /// Mend what can be mended safely
    #[arg(long)]
    pub fix: bool,
    /// The directory for links to programs [default: /usr/local/bin]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    findings: Vec<FindingDocument<'a>>,
    measured: serde_json::Map<String, serde_json::Value>,
    fixed: &'a [String],
    not_done: &'a [String],
}

#[derive(Serialize)]
struct FindingDocument<'a> {
    kind: &'static str,
    severity: &'static str,
    version: Option<&'a str>,
    #[serde(flatten)]
    path: Option<PathFields>,
    what: &'a str,
    why: &'static str,
    remedy: &'a str,
    fixable: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store_leniently()?;
    let bin_dir = arguments.bin_dir.clone().or_else(|| context.config().bin_dir.clone());
    let config = context.config();
    let manager = services::manager(&config.supervisor);
    // An image's services run nowhere.
    let asked = context.global().sysroot.is_none();
    let asked = asked.then_some(Asked { manager: &*manager, configured: &config.services, notify: &config.notify });
    let options = Options {
        bin_dir: context.on_device(&bin_dir.unwrap_or_else(|| DEFAULT_BIN_DIR.into()))?,
        min_free: config.import.min_free.unwrap_or(0),
        services: asked,
        refused_configuration: context.refused_configuration().map(str::to_owned),
        fix: arguments.fix,
    };
    let progress = context.progress();
    let report = doctor(&store, &options, &progress)?;
    drop(progress);
    answer(context, &report)?;
    Ok(match report.worst() {
        Some(Severity::Damage) => Exit::Corrupt,
        Some(Severity::Trouble) => Exit::Failed,
        Some(Severity::Advice) | None => Exit::Done,
    })
}

fn answer(context: &Context, report: &Report) -> Result<()> {
    let value = |text: &str| match (text.parse::<u64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(truth)) => truth.into(),
        _ => text.into(),
    };
    let document = Document {
        ok: report.ok(),
        findings: report.findings.iter().map(finding).collect(),
        measured: report.measured.iter().map(|fact| (fact.name.to_owned(), value(&fact.value))).collect(),
        fixed: &report.fixed,
        not_done: &report.not_done,
    };
    context.answer(&document, |out| {
        for done in &report.fixed {
            writeln!(out, "fixed    {done}")?;
        }
        for finding in &report.findings {
            writeln!(out, "{:<8} {}", finding.severity.name(), finding.what)?;
            writeln!(out, "         why:  {}", finding.why)?;
            writeln!(out, "         mend: {}", finding.remedy)?;
        }
        for not_done in &report.not_done {
            writeln!(out, "not done {not_done}")?;
        }
        match report.findings.len() as u64 {
            0 => writeln!(out, "nothing is wrong"),
            findings => writeln!(out, "{}", human::count(findings, "finding")),
        }
    })
}

fn finding(finding: &Finding) -> FindingDocument<'_> {
    FindingDocument {
        kind: finding.kind,
        severity: finding.severity.name(),
        version: finding.version.as_ref().map(VersionName::as_str),
        path: finding.path.as_ref().map(PathFields::of),
        what: &finding.what,
        why: finding.why,
        remedy: &finding.remedy,
        fixable: finding.fixable,
    }
}
