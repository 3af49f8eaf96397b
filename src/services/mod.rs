//! Services: what runs from `versions/current`, and who starts, stops and watches it.
//!
//! The library knows services through one small interface, [`ServiceManager`]: [`systemd`] is one, plain [`commands`]
//! from the configuration are another. Nothing here knows versions or refs; what a failing service means for a release
//! is decided above.
//!
//! - [`systemd`], [`commands`]: the managers
//! - [`watch`](mod@watch): whether what was started comes up and stays up
//! - [`definition`]: the files that define a unit of systemd, read without asking it
//! - [`discover`]: which units run from the current version, and what of it they name
//! - [`affected`](mod@affected): which units two versions differ for, and why
//! - [`probe`]: asking a service whether it does its work
//! - [`outside`]: going on when the own unit is restarted
//! - [`guardian`]: a process that goes on with a switch whose own process died

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Supervisor;
use crate::error::Result;

pub mod affected;
pub mod commands;
pub mod definition;
pub mod discover;
pub mod guardian;
mod hold;
pub mod outside;
pub mod probe;
pub mod systemd;
pub mod watch;

pub use watch::{Judgement, Verdict, watch};

/// What a manager says of a unit at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// The unit.
    pub unit: String,
    /// Whether it runs.
    pub activity: Activity,
    /// What names this very run of the unit (systemd: `InvocationID`); another one means that it was started again.
    /// `None` where the manager has no such thing.
    pub invocation: Option<String>,
    /// How often the manager has restarted it by itself; 0 where it does not count.
    pub restarts: u32,
    /// Why it is as it is, in a few words, as in `exit-code`; empty if there is nothing to say.
    pub detail: String,
    /// The exit code of its main process (or of the command that should have started it), if that ended by itself and
    /// the manager knows.
    pub exit_code: Option<i32>,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// It runs, and says that it is ready where it says so at all.
    Active,
    /// It is not there to run on (systemd: `oneshot`), does not run, and nothing went wrong.
    Done,
    /// The manager did not start it, since a condition of its own is not met.
    Skipped,
    /// The manager is about to start or stop it, or waits until it is ready.
    Changing,
    /// It does not run, and nothing went wrong.
    Inactive,
    /// It does not run, and should; also while the manager waits to try once more.
    Failed,
    /// The manager does not know it.
    Absent,
    /// An operator forbade to start it.
    Masked,
    /// The manager did not answer for it in time.
    Unknown,
}

impl Activity {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Changing => "changing",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Masked => "masked",
            Self::Unknown => "unknown",
        }
    }
}

/// How a unit runs, as far as the manager knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// The unit.
    pub unit: String,
    /// Whether it is there to run on: neither a template nor something that does one thing and ends.
    pub runs_on: bool,
    /// Whether it is started at boot, or runs, or should.
    pub in_use: bool,
    /// Absolute paths that it names: programs, arguments, directories, variables, and its own files.
    pub paths: Vec<PathBuf>,
}

/// Whether a manager can start a unit, as far as its definition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Loadable {
    /// It can.
    #[default]
    Yes,
    /// It knows no such unit.
    Missing,
    /// It refuses the unit's definition.
    Refused,
    /// An operator forbade to start it.
    Masked,
}

/// How a manager has a unit in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The unit.
    pub unit: String,
    /// Whether it can be started.
    pub loadable: Loadable,
    /// Why not, in the manager's words; empty if it says nothing.
    pub problem: String,
    /// Whether the files that define it were changed since the manager read them.
    pub outdated: bool,
    /// The files that define it.
    pub files: Vec<PathBuf>,
    /// The programs that it starts with.
    pub programs: Vec<String>,
    /// The users and groups that it needs, each with the setting that names it.
    pub accounts: Vec<(&'static str, String)>,
    /// The units behind which it is ordered.
    pub after: Vec<String>,
    /// The units without which it cannot be started.
    pub requires: Vec<String>,
}

/// How long a manager has for an answer, at least and at most.
const ANSWER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long a manager has to answer for services of which one may take so long for all of its checks: a part of that,
/// so that a unit that is not answered for leaves time to ask again.
pub fn answer_limit(timeout: Duration) -> Duration {
    (timeout / 3).clamp(ANSWER.0, ANSWER.1)
}

/// How long something may take, and whether it is still wanted.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long it may take.
    pub limit: Duration,
    /// Asked now and then; once it says no, waiting ends. An order to start is given in full all the same, and nothing
    /// that was ordered is taken back.
    pub keep_on: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    /// So long, whatever happens.
    pub fn of(limit: Duration) -> Self {
        Self { limit, keep_on: &|| true }
    }
}

/// Starts, stops and looks at units.
///
/// Units that are given together are one job: the manager orders them by its own dependencies. What a unit came to is
/// told by [`states`](Self::states), never by the result of an order: an error means that the manager could not be
/// asked or would not even try (an unknown unit).
pub trait ServiceManager: Sync {
    /// What this manager is, for messages: `systemd`, `commands`.
    fn name(&self) -> &'static str;

    /// Whether it tells a unit that is being started from one that does not run. If not, [`Activity::Inactive`] right
    /// after a start may mean that it is not running *yet*.
    fn tells_starting(&self) -> bool;

    /// The state of each of these units, in their order, within this time for all of them. A unit that is not answered
    /// for by then is [`Activity::Unknown`], where the manager answers for each by itself.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked.
    fn states(&self, units: &[String], limit: Duration) -> Result<Vec<UnitState>>;

    /// Orders that units be started, after forgetting their earlier failures. A manager that tells starting does not
    /// wait for them: from the return on, a unit is [`Activity::Changing`] until it has come to something.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked, or does not know one of them.
    fn start(&self, units: &[String], patience: Patience<'_>) -> Result<()>;

    /// Waits until orders that a process gave and did not outlive have ended: what they still do must not undo what is
    /// ordered now. A manager that carries orders out by itself, one after the other, needs no waiting.
    fn settle_orders(&self, _units: &[String], _patience: Patience<'_>) {}

    /// Stops units and waits until they have stopped or patience is at an end; [`states`](Self::states) tells which.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked, or does not know one of them.
    fn stop(&self, units: &[String], patience: Patience<'_>) -> Result<()>;

    /// Orders that those that run be stopped, and all be started, after forgetting their earlier failures. It waits as
    /// little as [`start`](Self::start) does.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked, or does not know one of them.
    fn restart(&self, units: &[String], patience: Patience<'_>) -> Result<()>;

    /// Reads anew what defines units, after files that do were changed. A manager that looks at them with every order
    /// has nothing to do.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked, or fails at it: then units are what they were.
    fn reload(&self, _patience: Patience<'_>) -> Result<()> {
        Ok(())
    }

    /// What the manager knows of how these units run, in their order; nothing where it does not know.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked.
    fn describe(&self, _units: &[String]) -> Result<Vec<Description>> {
        Ok(Vec::new())
    }

    /// How the manager has these units in memory, in their order; nothing where it has no such thing.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked.
    fn loaded(&self, _units: &[String]) -> Result<Vec<Loaded>> {
        Ok(Vec::new())
    }

    /// The programs that this manager runs itself to handle a unit, each with the key of the configuration that names it.
    fn programs(&self, _unit: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The names of all units that could run a service; none where the manager has no list.
    ///
    /// # Errors
    ///
    /// The manager cannot be asked.
    fn all_units(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The last lines that a unit logged, oldest first; empty where there is no log. Never fails: it is evidence, and
    /// less of it is better than none.
    fn log(&self, unit: &str, lines: usize) -> Vec<String>;
}

/// The manager that the configuration chooses. Nothing is asked yet.
pub fn manager(config: &Supervisor) -> Box<dyn ServiceManager> {
    match config {
        Supervisor::Systemd => Box::new(systemd::Systemd::default()),
        Supervisor::Command(templates) => Box::new(commands::Commands::new(templates.clone())),
    }
}
