//! `factory`

use clap::{Args, Subcommand};
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::factory::{self, Isolation, Options, Replace};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::problems::{self, ProblemDocument};

/// The factory version: the last line of defence
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store factory set 1.0.0 --isolated            once, with files of its own that nobody can change
  tope-store factory set 2.0.0 --replace             another one
  tope-store factory verify                          read all of it and compare")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.command, Command::Set(_))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Set(Set),
    /// Tell which version it is and how it is protected
    Show,
    /// Read all of it and compare it with its manifest; exit code 5 if it is damaged
    Verify,
}

/// Make a version the factory version, which cannot be removed; its directories lose their write bits
#[derive(Debug, Args)]
struct Set {
    /// A version, a role, or the beginning of a digest
    version: Selector,
    /// Give its files inodes of their own and the immutable attribute: damage to another version cannot reach them.
    /// With =reflink the copies share blocks where the file system can
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "copy")]
    isolated: Option<Isolated>,
    /// Replace the factory version that was set before
    #[arg(long)]
    replace: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Isolated {
    Copy,
    Reflink,
}

#[derive(Serialize)]
struct SetDocument {
    version: String,
    digest: String,
    from: Option<String>,
    changed: bool,
    isolated: bool,
    immutable: bool,
    copied_files: u64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ShowDocument {
    version: String,
    digest: Option<String>,
    recorded: String,
    isolated: bool,
    sealed: bool,
    immutable: Option<bool>,
    bad: bool,
}

#[derive(Serialize)]
struct VerifyDocument {
    ok: bool,
    version: String,
    isolated: bool,
    hashed_files: u64,
    problems: Vec<ProblemDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unrecorded: Option<String>,
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    match arguments.command {
        Command::Set(arguments) => set(context, arguments),
        Command::Show => show(context),
        Command::Verify => verify(context),
    }
}

fn set(context: &Context, arguments: Set) -> Result<Exit> {
    let options = Options {
        isolation: match arguments.isolated {
            None => Isolation::Shared,
            Some(Isolated::Copy) => Isolation::Own,
            Some(Isolated::Reflink) => Isolation::OwnSharingBlocks,
        },
        replace: if arguments.replace { Replace::Allowed } else { Replace::Refused },
        reason: arguments.reason,
    };
    let store = context.store()?;
    let progress = context.progress();
    let report = factory::set(&store, &arguments.version, &options, &progress)?;
    drop(progress);
    report.warnings.iter().for_each(|warning| context.warn(warning));
    let document = SetDocument {
        version: report.version.to_string(),
        digest: report.digest.to_string(),
        from: report.from.as_ref().map(ToString::to_string),
        changed: report.changed,
        isolated: report.isolated,
        immutable: report.immutable,
        copied_files: report.copied_files,
        warnings: report.warnings.clone(),
    };
    context.answer(&document, |out| {
        let version = &report.version;
        match (&report.from, report.changed) {
            (_, false) => writeln!(out, "factory is {version} already")?,
            (Some(from), true) if from != version => writeln!(out, "factory is now {version} (was {from})")?,
            (_, true) => writeln!(out, "factory is now {version}")?,
        }
        if report.copied_files > 0 {
            writeln!(out, "  {} got an inode of its own", human::count(report.copied_files, "file"))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn show(context: &Context) -> Result<Exit> {
    let shown = factory::show(&context.store()?)?;
    let document = ShowDocument {
        version: shown.version.to_string(),
        digest: shown.digest.map(|digest| digest.to_string()),
        recorded: shown.recorded.as_ref().unwrap_or(&shown.version).to_string(),
        isolated: shown.isolated,
        sealed: shown.sealed,
        immutable: shown.immutable,
        bad: shown.bad,
    };
    if let Some(recorded) = &shown.recorded {
        context.warn(format_args!(
            "{recorded} was set, somebody else changed the link; to settle it: tope-store factory set {} --replace",
            shown.version
        ));
    }
    context.answer(&document, |out| {
        let digest = shown.digest.map_or_else(|| "made by hand".to_owned(), |digest| digest.short());
        writeln!(out, "{} ({digest})", shown.version)?;
        let yes = |on: bool| if on { "yes" } else { "no" };
        writeln!(out, "  files of its own: {}", yes(shown.isolated))?;
        writeln!(out, "  directories without write permission: {}", yes(shown.sealed))?;
        writeln!(out, "  immutable: {}", shown.immutable.map_or("not possible here", yes))
    })?;
    Ok(Exit::Done)
}

fn verify(context: &Context) -> Result<Exit> {
    let store = context.store()?;
    let progress = context.progress();
    let verified = factory::verify(&store, &progress)?;
    drop(progress);
    let ok = verified.checked.is_sound();
    let document = VerifyDocument {
        ok,
        version: verified.version.to_string(),
        isolated: verified.isolated,
        hashed_files: verified.checked.hashed_files,
        problems: problems::documents(&verified.checked),
        unrecorded: verified.checked.unrecorded.clone(),
    };
    context.answer(&document, |out| {
        problems::list(out, &verified.checked)?;
        let isolated = if verified.isolated { "has files of its own" } else { "shares files with other versions" };
        match ok {
            true => writeln!(out, "{} is as it was imported; it {isolated}", verified.version),
            false => writeln!(out, "{} is damaged; it {isolated}", verified.version),
        }
    })?;
    if let Some(why) = &verified.checked.unrecorded {
        context.warn(format_args!("the damaged objects could not be recorded, and may be linked again: {why}"));
    }
    Ok(if ok { Exit::Done } else { Exit::Corrupt })
}
