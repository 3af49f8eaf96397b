//! What a command runs with: the store's place, the configuration, where answers go, and the user's wish to stop.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;
use tope_store::config::{Config, DEFAULT_CONFIG_PATH, Salvaged};
use tope_store::error::{Error, Result, Shown, chain};
use tope_store::fsys::Kind;
use tope_store::layout::{self, Layout};
use tope_store::model::actor::Claimed;
use tope_store::ops::configuration::{Refused, load_leniently};
use tope_store::store::{Settings, Store};

use crate::cli::{Cli, Color, Global};
use crate::exit::Exit;
use crate::input::StandardInput;
use crate::render::progress::Progress;
use crate::render::{json, ways};

/// Everything around a command.
pub struct Context {
    global: Global,
    config: Config,
    refused_configuration: Option<String>,
    /// What is wrong with the configuration, and what follows from that.
    doubts: Vec<String>,
    interrupted: Arc<AtomicBool>,
    /// Whether answers went to a terminal when this process began: one that is gone says so by the error of a broken disk.
    answers_on_terminal: bool,
}

impl Context {
    /// Reads the configuration and sets up signals, logging and limits. A `fire_exit` opens with a configuration that is
    /// refused as well, and takes of it what it needs.
    ///
    /// # Errors
    ///
    /// The configuration is refused. A `fire_exit` is refused only where neither an argument nor the environment nor the
    /// configuration says where the store lies, and none lies at the usual place.
    pub fn new(global: &Global, fire_exit: bool) -> Result<Self> {
        match global.color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        start_logging(global);
        tope_store::fsys::system::raise_open_file_limit();
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The first one stops between two files and cleans up; the second one at once.
            let exit = i32::from(Exit::Interrupted as u8);
            let registered = signal_hook::flag::register_conditional_shutdown(signal, exit, Arc::clone(&interrupted))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)));
            registered.map_err(|error| Error::io("listen for signals in", ".", error))?;
        }
        if !global.lock_timeout.is_finite() || !(0.0..=1e9).contains(&global.lock_timeout) {
            return Err(Error::Usage("--lock-timeout takes a number of seconds, 0 or more".into()));
        }
        let answers_on_terminal = io::stdout().is_terminal();
        let mut context = Self {
            global: global.clone(),
            config: Config::default(),
            refused_configuration: None,
            doubts: Vec::new(),
            interrupted,
            answers_on_terminal,
        };
        match configuration(global) {
            Ok(config) => {
                let unknown = config.unknown_tables.iter().map(|table| {
                    format!("the configuration has a table that this build does not know: {}", Shown::text(table))
                });
                context.doubts.extend(unknown);
                context.config = config;
            }
            Err(refused) if fire_exit => context.salvage(&refused)?,
            Err(refused) => return Err(refused.error),
        }
        context.doubts.iter().for_each(|doubt| context.warn(doubt));
        Ok(context)
    }

    /// Goes on with what could be taken of a configuration.
    fn salvage(&mut self, refused: &Refused) -> Result<()> {
        self.config = refused.salvaged.config.clone();
        let why = chain(&refused.error);
        self.refused_configuration = Some(why.clone());
        self.doubts.push(format!("{why}; going on with what could be read of the configuration"));
        self.doubts.extend(refused.salvaged.lost.iter().cloned());
        if self.global.root.is_none() && self.config.root.is_none() {
            let layout = self.layout();
            if let Err(error) = Store::open_leniently(layout.clone(), self.settings()) {
                return Err(Error::Usage(format!(
                    "{why}, so it is not known where the store lies ({}): name it with --root DIR",
                    chain(&error)
                )));
            }
            let root = layout.root();
            self.doubts
                .push(format!("where the store lies could not be read: this is about the one in {}", root.display()));
        }
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Why the configuration was refused, if it was.
    pub fn refused_configuration(&self) -> Option<&str> {
        self.refused_configuration.as_deref()
    }

    /// Arguments that every command takes.
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// Where the store lies: argument, environment, configuration, default.
    pub fn layout(&self) -> Layout {
        let configured = self.global.root.clone().or_else(|| self.config.root.clone());
        let root = configured.unwrap_or_else(|| PathBuf::from(layout::DEFAULT_ROOT));
        // Links are written with the root, so it has to be absolute.
        let root = self.on_device(&root).unwrap_or(root);
        Layout::new(root, self.global.sysroot.clone())
    }

    /// A path of the device made absolute: in an image it begins at the image's top, not where this command is run.
    pub fn on_device(&self, path: &Path) -> Result<PathBuf> {
        match self.global.sysroot {
            Some(_) => Ok(Path::new("/").join(path)),
            None => std::path::absolute(path).map_err(|error| Error::io("find", path, error)),
        }
    }

    /// How the store is used.
    pub fn settings(&self) -> Settings {
        Settings {
            jobs: self.global.jobs,
            lock_timeout: Duration::from_secs_f64(self.global.lock_timeout),
            claimed: claimed(),
        }
    }

    /// Fails where the store lies in an offline image: its services do not run here, and these are not its boots.
    pub fn refuse_in_image(&self, what: &str) -> Result<()> {
        match self.global.sysroot {
            Some(_) => Err(Error::Usage(format!(
                "{what} cannot go with --sysroot: an image runs no services, and does not boot"
            ))),
            None => Ok(()),
        }
    }

    /// Opens the store.
    pub fn store(&self) -> Result<Store> {
        Store::open(self.layout(), self.settings())
    }

    /// Opens the store whatever its format: for going back and for looking.
    pub fn store_leniently(&self) -> Result<Store> {
        Store::open_leniently(self.layout(), self.settings())
    }

    /// An observer that shows progress where somebody looks.
    pub fn progress(&self) -> Progress {
        Progress::new(self.global.json || self.global.quiet, Arc::clone(&self.interrupted))
    }

    /// Standard input, which ends with an error when the user asks to stop, however long the other side is silent.
    pub fn standard_input(&self) -> StandardInput {
        StandardInput::new(Arc::clone(&self.interrupted))
    }

    /// Answers: one JSON document, or text.
    pub fn answer(&self, document: &impl Serialize, text: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let mut out = io::BufWriter::new(anstream::stdout().lock());
        let written = match self.global.json {
            true => json::write_with(&mut out, &self.doubts, document),
            false => text(&mut out),
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe || self.is_hangup(&error) => Ok(()),
            Err(error) => Err(Error::io("write to", "standard output", error)),
            Ok(()) => Ok(()),
        }
    }

    /// Whether an answer fails since the terminal that it is for is gone.
    fn is_hangup(&self, error: &io::Error) -> bool {
        /// `EIO`, by errno(3).
        const INPUT_OUTPUT: i32 = 5;
        self.answers_on_terminal && error.raw_os_error() == Some(INPUT_OUTPUT)
    }

    /// Lets this process outlive the terminal that it was started from: a dropped connection must not end a switch between
    /// the stop and the start of a service.
    pub fn outlive_terminal(&self) {
        // It is caught, not ignored: a program that is started from here begins with the default again. Where it cannot be
        // caught, the guardian of the switch goes on with it.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default());
    }

    /// Answers with bytes as they are: contents and names that must not be changed on their way, by colours least of
    /// all.
    pub fn raw(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        self.raw_result(|out| write(out).map_err(|error| Error::io("write to", "standard output", error)))
    }

    /// The same for writers that may fail otherwise, and tell what writing meets as the system's answer.
    pub fn raw_result(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written =
            write(&mut out).and_then(|()| out.flush().map_err(|error| Error::io("write to", "standard output", error)));
        match written {
            Err(error) if error.is_io(io::ErrorKind::BrokenPipe) => {
                // What is left in the buffer has no reader.
                let _ = out.into_parts();
                Ok(())
            }
            other => other,
        }
    }

    /// Refuses options that choose another form of answer than the document that was asked for.
    pub fn refuse_json_with(&self, given: &[(bool, &str)]) -> Result<()> {
        match given.iter().find(|(given, _)| self.global.json && *given) {
            Some((_, option)) => {
                Err(Error::Usage(format!("--json and {option} are two forms of the answer: choose one")))
            }
            None => Ok(()),
        }
    }

    /// Says a sentence on standard error, unless asked to be quiet.
    pub fn say(&self, sentence: impl std::fmt::Display) {
        if !self.global.quiet && !self.global.json {
            let _ = writeln!(anstream::stderr(), "{sentence}");
        }
    }

    /// Warns on standard error, unless asked to be quiet; JSON documents carry warnings themselves.
    pub fn warn(&self, message: impl std::fmt::Display) {
        if !self.global.quiet && !self.global.json {
            let (style, reset) = (anstyle::AnsiColor::Yellow.on_default(), anstyle::Reset);
            let _ = writeln!(anstream::stderr(), "{style}warning{reset}: {message}");
        }
    }

    /// Runs this very command as a transient unit, and gives its exit code.
    pub fn run_outside(&self) -> Result<Exit> {
        let own = std::env::current_exe().map_err(|error| Error::io("find", "this program", error))?;
        let command: Vec<_> = std::iter::once(own.into_os_string()).chain(std::env::args_os().skip(1)).collect();
        let unit = format!("tope-store-switch-{}", std::process::id());
        let code = tope_store::services::outside::run(&unit, &command, &self.variables())?;
        Ok(Exit::from_code(code))
    }

    /// What another run of this program in a unit of its own is to see of this one's environment.
    pub fn variables(&self) -> Vec<(String, std::ffi::OsString)> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let kept = name.starts_with("TOPE_")
                || ["PATH", "USER", "LOGNAME", "SUDO_USER", "SUDO_UID", "NO_COLOR"].contains(&&*name);
            kept.then_some((name, value))
        });
        variables.collect()
    }

    /// Reports an error and gives its exit code.
    pub fn fail(&self, error: &Error) -> Exit {
        fail_early(&self.global, error)
    }
}

/// Makes a write beyond `ulimit -f` an error with a message, where the kernel's signal would end the process. It is
/// caught, not ignored: a program that is started from here begins with the default again.
pub fn survive_file_size_limit() {
    // Where it cannot be caught, that limit ends the process as it ends others.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// The configuration that is named, or the one at its usual place.
fn configuration(global: &Global) -> Result<Config, Box<Refused>> {
    let refused = |path: &Path, error| {
        let error = Error::io("open", path, error);
        Box::new(Refused { error, salvaged: Salvaged::default() })
    };
    match &global.config {
        Some(path) => {
            let loaded = load_leniently(&Layout::new("/", None), path)?;
            loaded.ok_or_else(|| refused(path, io::Error::from(io::ErrorKind::NotFound)))
        }
        None => {
            let (layout, path) = (Layout::new("/", global.sysroot.clone()), Path::new(DEFAULT_CONFIG_PATH));
            // Opening it would wait for somebody who writes.
            if layout.stat(path).is_some_and(|stat| !matches!(stat.kind, Kind::File | Kind::Directory)) {
                return Err(refused(path, io::Error::other("it is no regular file")));
            }
            Ok(load_leniently(&layout, path)?.unwrap_or_default())
        }
    }
}

/// The arguments with the environment, in which an empty `TOPE_*` variable counts as not set.
pub fn arguments() -> clap::Command {
    fn without_empty(command: clap::Command) -> clap::Command {
        let is_empty = |name: &std::ffi::OsStr| variable(name).is_some_and(|value| value.is_empty());
        let command = command.mut_args(|argument| match argument.get_env().is_some_and(is_empty) {
            true => argument.env(clap::builder::Resettable::Reset),
            false => argument,
        });
        command.mut_subcommands(without_empty)
    }
    without_empty(<Cli as clap::CommandFactory>::command())
}

/// Reports an error before there is a context.
pub fn fail_early(global: &Global, error: &Error) -> Exit {
    if global.json {
        let _ = json::write(&mut io::stdout().lock(), &json::Failure::of(error));
    } else {
        let (style, reset) = (anstyle::AnsiColor::Red.on_default().bold(), anstyle::Reset);
        let mut out = anstream::stderr();
        let _ = writeln!(out, "{style}error{reset}: {}", chain(error));
        if let Error::Preflight { findings, .. } = error {
            for finding in findings {
                let _ =
                    writeln!(out, "  {:<6} {}\n         mend: {}", finding.severity.name(), finding, finding.remedy);
            }
        }
        if let Some(hint) = error.hint() {
            let _ = writeln!(out, "  {hint}");
        }
        let _ = ways::write(&mut out, error.ways());
    }
    Exit::of(error)
}

/// What the environment says of who is behind this process.
fn claimed() -> Claimed {
    let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
    Claimed {
        sudo_user: text("SUDO_USER").unwrap_or_default(),
        sudo_uid: text("SUDO_UID").and_then(|uid| uid.parse().ok()),
        user: text("USER").or_else(|| text("LOGNAME")).unwrap_or_default(),
    }
}

#[allow(clippy::disallowed_methods)]
fn variable(name: impl AsRef<std::ffi::OsStr>) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn start_logging(global: &Global) {
    use tracing_subscriber::EnvFilter;
    let default = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("TOPE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .without_time()
        // It would say so on standard error, and panic if that is a terminal that is gone.
        .log_internal_errors(false)
        .with_target(false)
        .try_init();
}
