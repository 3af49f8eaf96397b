//! One file per command: its arguments, its call of the library, its answer.

pub mod activate;
pub mod adopt;
pub mod boot_check;
pub mod cat;
pub mod completions;
pub mod confirm;
pub mod diff;
pub mod doctor;
pub mod du;
pub mod factory;
pub mod find;
pub mod gc;
pub mod history;
pub mod import;
pub mod init;
pub mod link;
pub mod list;
pub mod ls;
pub mod man;
pub mod note;
pub mod notify;
pub mod pin;
pub mod planned;
pub mod rebuild_index;
pub mod remove;
pub mod rollback;
pub mod show;
pub mod status;
pub mod supervised;
pub mod unpin;
pub mod verify;
pub mod who;

use tope_store::archive::Limits;
use tope_store::error::Result;
use tope_store::model::label::LabelError;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
pub fn run(context: &Context, command: Command) -> Result<Exit> {
    if command.changes() {
        crate::guardian::go_on_with_left(context);
    }
    match command {
        Command::Init(arguments) => init::run(context, &arguments),
        Command::Import(arguments) => import::run(context, arguments),
        Command::Adopt(arguments) => adopt::run(context, arguments),
        Command::Gc(arguments) => gc::run(context, arguments),
        Command::Remove(arguments) => remove::run(context, &arguments),
        Command::Du(arguments) => du::run(context, &arguments),
        Command::List(arguments) => list::run(context, &arguments),
        Command::Show(arguments) => show::run(context, &arguments),
        Command::Ls(arguments) => ls::run(context, &arguments),
        Command::Cat(arguments) => cat::run(context, &arguments),
        Command::Find(arguments) => find::run(context, arguments),
        Command::Diff(arguments) => diff::run(context, &arguments),
        Command::RebuildIndex(arguments) => rebuild_index::run(context, &arguments),
        Command::Completions(arguments) => completions::run(context, &arguments),
        Command::Man(arguments) => man::run(context, &arguments),
        Command::Activate(arguments) => activate::run(context, arguments),
        Command::Rollback(arguments) => rollback::run(context, arguments),
        Command::Confirm(arguments) => confirm::run(context, arguments),
        Command::BootCheck(arguments) => boot_check::run(context, &arguments),
        Command::Factory(arguments) => factory::run(context, arguments),
        Command::Link(arguments) => link::run(context, arguments),
        Command::Pin(arguments) => pin::run(context, &arguments),
        Command::Unpin(arguments) => unpin::run(context, &arguments),
        Command::Note(arguments) => note::run(context, &arguments),
        Command::Status(arguments) => status::run(context, &arguments),
        Command::History(arguments) => history::run(context, arguments),
        Command::Verify(arguments) => verify::run(context, &arguments),
        Command::Notify(arguments) => notify::run(context, &arguments),
        Command::Who(arguments) => who::run(context, &arguments),
        Command::Doctor(arguments) => doctor::run(context, &arguments),
    }
}

/// Bounds for archives: the defaults, except where they are configured.
pub fn archive_limits(configured: &tope_store::config::Limits) -> Limits {
    let defaults = Limits::default();
    Limits {
        max_total_bytes: configured.total_bytes.unwrap_or(defaults.max_total_bytes),
        max_entries: configured.entries.unwrap_or(defaults.max_entries),
        max_ratio: configured.ratio.unwrap_or(defaults.max_ratio),
        decoder_memory_bytes: configured.decoder_memory.unwrap_or(defaults.decoder_memory_bytes),
        max_held_bytes: configured.held_bytes.unwrap_or(defaults.max_held_bytes),
        ..defaults
    }
}

/// Reads a label.
pub fn label(text: &str) -> std::result::Result<(String, String), LabelError> {
    tope_store::model::label::parse(text)
}

/// Writes a path as it is, ended by a NUL.
pub fn put_null(out: &mut dyn std::io::Write, path: impl AsRef<[u8]>) -> std::io::Result<()> {
    out.write_all(path.as_ref())?;
    out.write_all(b"\0")
}
