//! `link`

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::layout::DEFAULT_BIN_DIR;
use tope_store::ops::link::{Link, Mode, Options, Outcome, Report, Writing, link};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::PathFields;

/// Link programs and services through current
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store link                                    /usr/local/bin/* and services/*
  tope-store link --bin-dir /opt/bin --dry-run
  tope-store link --remove

For each file in current/bin a link in the program directory, for each directory in current/services one in services/ \
beside versions/. Links of ours that lead to nothing any longer are removed; what is not ours is left alone, and makes \
the exit code 4 once all else is done. --json gives links[] with path, target, action (created, replaced, unchanged, \
removed, foreign).")]
pub struct Arguments {
    /// Where links to programs go [default: bin_dir of the configuration, else /usr/local/bin]
    #[arg(long, value_name = "DIR", env = "TOPE_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Remove all links of ours
    #[arg(long)]
    remove: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    links: Vec<LinkDocument<'a>>,
    passed_over: &'a [String],
}

#[derive(Serialize)]
struct LinkDocument<'a> {
    action: &'static str,
    #[serde(flatten)]
    path: PathFields,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
}

impl<'a> LinkDocument<'a> {
    fn of(link: &'a Link) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self {
            action: link.outcome.name(),
            path: PathFields::of(link.path.as_os_str().as_bytes()),
            target: String::from_utf8_lossy(&link.target).into_owned(),
            found: link.found.as_deref(),
        }
    }
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let bin_dir = arguments.bin_dir.or_else(|| context.config().bin_dir.clone());
    let bin_dir = bin_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_BIN_DIR));
    // Links of ours are known by where they lead, so their own place has to be absolute.
    let bin_dir = context.on_device(&bin_dir)?;
    let options = Options {
        bin_dir,
        mode: if arguments.remove { Mode::Remove } else { Mode::Create },
        writing: if arguments.dry_run { Writing::Planned } else { Writing::Done },
    };
    let report = link(&context.store()?, &options)?;
    answer(context, &report)?;
    Ok(if report.count(Outcome::Foreign) > 0 { Exit::Refused } else { Exit::Done })
}

fn answer(context: &Context, report: &Report) -> Result<()> {
    for link in report.links.iter().filter(|link| link.outcome == Outcome::Foreign) {
        let what = link.found.as_deref().unwrap_or_default();
        context.warn(format_args!("{} is {what}, not ours: left alone", Shown::path(&link.path)));
    }
    for path in &report.passed_over {
        context.warn(format_args!("{path} is no file of the version: not linked"));
    }
    let document = Document {
        dry_run: report.dry_run,
        links: report.links.iter().map(LinkDocument::of).collect(),
        passed_over: &report.passed_over,
    };
    context.answer(&document, |out| {
        for link in &report.links {
            let path: &Path = &link.path;
            let (path, target) = (Shown::path(path), Shown::bytes(&link.target));
            let would = if report.dry_run { "would be " } else { "" };
            match link.outcome {
                Outcome::Unchanged | Outcome::Foreign => {}
                Outcome::Removed => writeln!(out, "{would}removed {path}")?,
                outcome => writeln!(out, "{would}{} {path} -> {target}", outcome.name())?,
            }
        }
        let unchanged = report.count(Outcome::Unchanged) as u64;
        writeln!(out, "{}, {unchanged} unchanged", human::count(report.links.len() as u64, "link"))
    })
}
