//! The command `tope-store`: arguments in, answers and exit codes out. Everything it does, the library does.

mod cli;
mod commands;
mod context;
mod exit;
mod render;

use clap::Parser;

use cli::Cli;
use context::Context;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let code = match Context::new(&cli.global) {
        Ok(context) => match commands::run(&context, cli.command) {
            Ok(exit) => exit,
            Err(error) => context.fail(&error),
        },
        Err(error) => context::fail_early(&cli.global, &error),
    };
    std::process::ExitCode::from(code as u8)
}
