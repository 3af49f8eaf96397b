//! The arguments that all commands share, and the list of commands. Each command's own arguments are in its file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Keep releases side by side, switch between them atomically, and go back when one is bad
#[derive(Debug, Parser)]
#[command(name = "tope-store", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  tope-store init                                    create a store in /opt/tope
  tope-store import build/ --version 1.2.0           import a release
  tope-store activate 1.2.0                          switch to it
  tope-store rollback                                go back to the one before
  tope-store diff previous current                   what changed
  tope-store gc --keep-last 5 --dry-run              what would be removed, and why

Exit codes: 0 done, 1 failed, 2 usage, 3 no such version, role or path, 4 refused, 5 corruption found, \
6 lock timeout, 7 rolled back, 8 manual intervention needed, 9 no store here, 130 interrupted")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Most threads that `--jobs` takes: far beyond what helps, and what a machine bears.
const MOST_JOBS: usize = 256;

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let jobs = text.parse::<NonZeroUsize>().ok().filter(|jobs| jobs.get() <= MOST_JOBS);
    jobs.ok_or_else(|| format!("a number from 1 to {MOST_JOBS}"))
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// Arguments that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The store's root [default: /opt/tope]
    #[arg(long, global = true, env = "TOPE_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Work in an offline image: the root, the configuration and links are meant inside DIR, and no link leads out of it
    #[arg(long, global = true, env = "TOPE_SYSROOT", value_name = "DIR")]
    pub sysroot: Option<PathBuf>,
    /// The configuration [default: /etc/tope-store/config.toml, if there is one]
    #[arg(long, global = true, env = "TOPE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer with exactly one JSON document on standard output, errors included
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but errors and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is being done on standard error; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Threads to work with, at most 256 [default: one per processor]
    #[arg(long, global = true, env = "TOPE_JOBS", value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Seconds to wait for a lock that another process holds
    #[arg(long, global = true, env = "TOPE_LOCK_TIMEOUT", value_name = "SECONDS", default_value_t = 10.0)]
    pub lock_timeout: f64,
    /// When to use colour
    #[arg(long, global = true, env = "TOPE_COLOR", value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(commands::init::Arguments),
    Import(commands::import::Arguments),
    Adopt(commands::adopt::Arguments),
    Gc(commands::gc::Arguments),
    Remove(commands::remove::Arguments),
    Du(commands::du::Arguments),
    List(commands::list::Arguments),
    Show(commands::show::Arguments),
    Ls(commands::ls::Arguments),
    Cat(commands::cat::Arguments),
    Find(commands::find::Arguments),
    Diff(commands::diff::Arguments),
    RebuildIndex(commands::rebuild_index::Arguments),
    Completions(commands::completions::Arguments),
    Man(commands::man::Arguments),
    Activate(commands::activate::Arguments),
    Rollback(commands::rollback::Arguments),
    Confirm(commands::confirm::Arguments),
    BootCheck(commands::boot_check::Arguments),
    Factory(commands::factory::Arguments),
    Link(commands::link::Arguments),
    Pin(commands::pin::Arguments),
    Unpin(commands::unpin::Arguments),
    Note(commands::note::Arguments),
    Status(commands::status::Arguments),
    History(commands::history::Arguments),
    Verify(commands::verify::Arguments),
    Who(commands::who::Arguments),
    Doctor(commands::doctor::Arguments),
    Notify(commands::notify::Arguments),
}

impl Command {
    /// Whether the command must work whatever is wrong with the configuration: going back and looking.
    pub fn is_fire_exit(&self) -> bool {
        matches!(self, Self::Rollback(_) | Self::BootCheck(_) | Self::Status(_) | Self::Doctor(_))
    }

    /// Whether the command changes something of a store, but neither switches nor ends a trial.
    pub fn changes(&self) -> bool {
        match self {
            Self::Import(arguments) => !arguments.dry_run,
            Self::Adopt(arguments) => !arguments.dry_run,
            Self::Gc(arguments) => !arguments.dry_run,
            Self::Remove(arguments) => !arguments.dry_run,
            Self::Link(arguments) => !arguments.dry_run,
            Self::Factory(arguments) => arguments.changes(),
            Self::Verify(arguments) => arguments.repair,
            Self::Doctor(arguments) => arguments.fix,
            Self::Pin(_) | Self::Unpin(_) | Self::Note(_) | Self::RebuildIndex(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn as_many_threads_as_a_machine_bears_can_be_asked_for() {
        let parse = |jobs: &str| Cli::try_parse_from(["tope-store", "--jobs", jobs, "list"]).map(|cli| cli.global.jobs);
        assert_eq!(parse("256").unwrap(), NonZeroUsize::new(256));
        for refused in ["0", "257", "two", ""] {
            assert!(parse(refused).unwrap_err().to_string().contains("a number from 1 to 256"), "{refused}");
        }
    }

    /// Help is wrapped to the terminal: a line that is broken in the source would be broken twice.
    #[test]
    fn paragraphs_of_help_are_one_line_each() {
        let mut command = Cli::command();
        command.build();
        let mut left = vec![command];
        while let Some(command) = left.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let broken = is_text(pair[0]) && is_text(pair[1]) && !pair[0].ends_with(':');
                assert!(!broken, "{}: {:?} goes on with {:?}", command.get_name(), pair[0], pair[1]);
            }
            left.extend(command.get_subcommands().cloned());
        }
    }
}
