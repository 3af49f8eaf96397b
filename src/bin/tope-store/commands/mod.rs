//! One file per command: its arguments, its call of the library, its answer.

pub mod import;
pub mod init;

use tope_store::error::Result;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
pub fn run(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(arguments) => init::run(context, &arguments),
        Command::Import(arguments) => import::run(context, arguments),
    }
}
