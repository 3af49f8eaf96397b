//! `completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use tope_store::error::{Error, Result};

use crate::cli::Cli;
use crate::context::Context;
use crate::exit::Exit;

/// Write completions for a shell to standard output
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store completions bash > /usr/share/bash-completion/completions/tope-store
  tope-store completions zsh > /usr/share/zsh/vendor-completions/_tope-store")]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    if context.global().json {
        return Err(Error::Usage("completions are no JSON document: leave out --json".into()));
    }
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    context.raw(|out| out.write_all(&script))?;
    Ok(Exit::Done)
}
