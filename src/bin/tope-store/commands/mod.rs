//! One file per command: its arguments, its call of the library, its answer.

pub mod adopt;
pub mod du;
pub mod gc;
pub mod import;
pub mod init;
pub mod remove;

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
    }
}

/// Reads a label.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label has the form KEY=VALUE".into()),
    }
}
