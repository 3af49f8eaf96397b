//! What all tests stand on: a fixture store driven by the real binary, file systems in loop mounts, and honest skips.

#![allow(dead_code, reason = "each test file uses what it needs")]

pub mod container;
pub mod image;
pub mod random;
pub mod readme;
pub mod tree;
pub mod watchdog;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

/// Why a test could not run.
#[derive(Debug)]
pub struct Skipped(pub String);

/// How a test ends if it does not panic.
pub type Outcome = Result<(), Skipped>;

/// Makes a trial of a test function.
pub fn trial(module: &str, name: &str, run: impl Fn() -> Outcome + Send + 'static) -> Trial {
    let name = format!("{}::{name}", module.trim_start_matches("it::"));
    Trial::ignorable_test(name.clone(), move || -> Result<Completion, Failed> {
        let _watched = watchdog::Watched::new(&name);
        match run() {
            Ok(()) => Ok(Completion::Completed),
            Err(Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        }
    })
}

/// Lists the tests of a file.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$($crate::support::trial(module_path!(), stringify!($name), $name)),*]
        }
    };
}

/// Goes on only as root.
pub fn needs_root() -> Outcome {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Skipped("needs root".into())),
    }
}

/// Goes on only where a program is installed.
pub fn needs_program(program: &str) -> Outcome {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
    });
    if found { Ok(()) } else { Err(Skipped(format!("needs the program {program}"))) }
}

/// The binary under test: the one that was built with the tests, or the one that `TOPE_BINARY` names.
pub fn binary() -> &'static Path {
    static BINARY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("TOPE_BINARY").unwrap_or(env!("CARGO_BIN_EXE_tope-store").into()).into())
}

/// What a run of the command gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The one JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not one JSON document ({error}): {self:?}"))
    }

    /// The run must have ended like this.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The run must have ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.expect(0)
    }
}

/// A store in a directory of its own, removed afterwards.
pub struct Fixture {
    pub dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Fixture {
    /// A directory without a store.
    pub fn bare() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// A directory with an empty store.
    pub fn new() -> Self {
        let fixture = Self::bare();
        fixture.run(&["init"]).ok();
        fixture
    }

    /// A store in a directory that somebody else provides, such as a mounted image.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        let fixture = Self { dir: dir.into(), _temporary: None };
        fixture.run(&["init"]).ok();
        fixture
    }

    /// What is in a directory already.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), _temporary: None }
    }

    /// The store's root.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A path below the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    /// A path beside the root, for sources.
    pub fn beside(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join(path)
    }

    /// The command with this store's root, to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(self.root()).arg("--config").arg(self.config()).stdin(Stdio::null());
        for variable in ["TOPE_ROOT", "TOPE_SYSROOT", "TOPE_CONFIG", "TOPE_JOBS", "TOPE_LOG", "SOURCE_DATE_EPOCH"] {
            command.env_remove(variable);
        }
        // What these claim is recorded.
        for variable in ["SUDO_USER", "SUDO_UID", "USER", "LOGNAME"] {
            command.env_remove(variable);
        }
        command
    }

    /// The configuration file; empty unless a test writes it.
    pub fn config(&self) -> PathBuf {
        let path = self.dir.join("config.toml");
        if !path.exists() {
            std::fs::write(&path, "").expect("an empty configuration");
        }
        path
    }

    /// Runs the command.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Ran {
        Ran::of(&self.command().args(arguments).output().expect("the binary runs"))
    }

    /// Runs the command with `--json`, which must succeed.
    #[track_caller]
    pub fn json<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Value {
        let ran = Ran::of(&self.command().arg("--json").args(arguments).output().expect("the binary runs"));
        ran.ok().json()
    }

    /// Runs the command with something on standard input.
    pub fn run_with_input<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S], input: &[u8]) -> Ran {
        use std::io::Write;
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        // A command that fails early does not read everything.
        let _ = child.stdin.take().expect("it is piped").write_all(input);
        Ran::of(&child.wait_with_output().expect("the binary ends"))
    }

    /// Imports a directory beside the root.
    #[track_caller]
    pub fn import(&self, source: &str, version: &str) -> Value {
        let source = self.beside(source);
        self.json(&["import".as_ref(), source.as_os_str(), "--version".as_ref(), version.as_ref()])
    }

    /// Where a link points.
    pub fn link(&self, path: &str) -> String {
        std::fs::read_link(self.path(path)).map(|target| target.display().to_string()).unwrap_or_default()
    }
}

/// Replaces what differs from run to run: times, durations, numbers of processes, free space, the fixture's own path.
pub fn redacted(fixture: &Fixture, document: &Value) -> Value {
    match document {
        Value::Object(fields) => {
            let redact = |(name, value): (&String, &Value)| {
                let varies = matches!(
                    name.as_str(),
                    "time" | "synchronised" | "pid" | "user" | "uid" | "free_bytes" | "free_inodes" | "duration_ms"
                ) || name.ends_with("_ms");
                let value = if varies { Value::from("…") } else { redacted(fixture, value) };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(redact).collect())
        }
        Value::Array(values) => values.iter().map(|value| redacted(fixture, value)).collect(),
        Value::String(text) => Value::from(text.replace(fixture.dir.to_str().expect("a plain path"), "DIR")),
        other => other.clone(),
    }
}

/// A store with releases `v1.0.0`, `v1.1.0`, … made by [`tree::release`], none of them activated.
pub fn releases(count: u32) -> Fixture {
    with_releases(Fixture::new(), count)
}

/// The same in a given store.
pub fn with_releases(fixture: Fixture, count: u32) -> Fixture {
    for number in 0..count {
        tree::release(fixture.beside("source"), number);
        fixture.import("source", &format!("1.{number}.0"));
    }
    fixture
}

/// Runs the command as another user, who may enter the fixture's directory but owns nothing in it.
pub fn run_as(fixture: &Fixture, uid: u32, arguments: &[&str]) -> Result<Ran, Skipped> {
    use std::os::unix::fs::PermissionsExt;
    needs_root()?;
    needs_program("setpriv")?;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&fixture.dir, open).expect("a mode");
    // The build's own directory need not be open to others.
    let copy = fixture.beside("tope-store");
    if !copy.exists() {
        // By a process of its own: a child that another thread starts inherits a descriptor that is open here, and what may
        // still be written to is not executed.
        let copied = Command::new("cp").arg(binary()).arg(&copy).status().expect("cp runs");
        assert!(copied.success(), "a copy of the binary");
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]).arg(copy);
    command.arg("--root").arg(fixture.root()).arg("--config").arg(fixture.config()).args(arguments);
    Ok(Ran::of(&command.stdin(Stdio::null()).output().expect("setpriv runs")))
}

/// Lifts the immutable flags of an isolated factory version when dropped, so that the fixture can be removed.
pub struct Thawed<'a>(pub &'a Fixture);

impl Drop for Thawed<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(self.0.path("versions")).output();
    }
}
