//! One file per command: its arguments, its call of the library, its answer.

pub mod adopt;
pub mod cat;
pub mod completions;
pub mod diff;
pub mod du;
pub mod find;
pub mod gc;
pub mod import;
pub mod init;
pub mod list;
pub mod ls;
pub mod man;
pub mod rebuild_index;
pub mod remove;
pub mod show;

use tope_store::error::Result;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
pub fn run(context: &Context, command: Command) -> Result<Exit> {
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
    }
}

/// Reads a label.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label has the form KEY=VALUE".into()),
    }
}

/// Writes a path as it is, ended by a NUL.
pub fn put_null(out: &mut dyn std::io::Write, path: impl AsRef<[u8]>) -> std::io::Result<()> {
    out.write_all(path.as_ref())?;
    out.write_all(b"\0")
}
