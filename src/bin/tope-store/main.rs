//! The command `tope-store`: arguments in, answers and exit codes out. Everything it does, the library does.

mod cli;
mod commands;
mod context;
mod exit;
mod guardian;
mod input;
mod render;

use clap::FromArgMatches;

use cli::Cli;
use context::Context;

fn main() -> std::process::ExitCode {
    tope_store::fsys::system::bound_heap();
    context::survive_file_size_limit();
    let parsed = context::arguments().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let code = match Context::new(&cli.global, cli.command.is_fire_exit()) {
        Ok(context) => match commands::run(&context, cli.command) {
            Ok(exit) => exit,
            Err(error) => context.fail(&error),
        },
        Err(error) => context::fail_early(&cli.global, &error),
    };
    std::process::ExitCode::from(code as u8)
}

/// Ends where the arguments make no sense, or ask for help: as clap does, but with `--json` a mistake is a document.
fn refuse(error: &clap::Error) -> std::process::ExitCode {
    let asked_for_json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    if error.use_stderr() && asked_for_json {
        let text = error.render().to_string();
        // Which arguments are missing stands in the lines behind the first.
        let message = text.split("\n\n").next().unwrap_or_default().trim().trim_start_matches("error: ");
        let failure = tope_store::error::Error::Usage(message.to_owned());
        let _ = render::json::write(&mut std::io::stdout().lock(), &render::json::Failure::of(&failure));
        return std::process::ExitCode::from(exit::Exit::Usage as u8);
    }
    error.exit()
}
