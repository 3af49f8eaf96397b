//! What starts, stops and watches services.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::probe::{CommandProbe, HttpProbe};
use super::unit::{UnitName, unit};
use super::{command, duration, patterns};
use crate::model::glob::PathPatterns;
use crate::model::units::exact_duration;

/// How long a unit must run undisturbed unless told otherwise.
pub const DEFAULT_SETTLE: Duration = Duration::from_secs(5);
/// How long its checks may take altogether unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// What stands for the unit in a template.
pub const UNIT_PLACEHOLDER: &str = "{unit}";

/// A service that is restarted and watched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawService")]
pub struct Service {
    /// The unit that runs it; with systemd, its full name.
    pub unit: String,
    /// How long it must run undisturbed to pass; shorter than `timeout`.
    pub settle: Duration,
    /// How long all its checks may take.
    pub timeout: Duration,
    /// An address that must answer.
    pub http: Option<HttpProbe>,
    /// A command that must succeed.
    pub command: Option<CommandProbe>,
    /// Whether it is stopped before the switch and started after it, for a service that must not see one version's
    /// program with another's files; otherwise it is restarted after the switch.
    pub stop_first: bool,
    /// What it needs of a version beside its program, its directory below `services/` and its unit file.
    pub paths: PathPatterns,
}

impl Service {
    /// A service of which nothing is known but its unit, with the default times.
    pub fn of(unit: impl Into<String>) -> Self {
        Self {
            unit: unit.into(),
            settle: DEFAULT_SETTLE,
            timeout: DEFAULT_TIMEOUT,
            http: None,
            command: None,
            stop_first: false,
            paths: PathPatterns::default(),
        }
    }

    /// The unit without its type and instance: the name of its program and of its directory below `services/`.
    pub fn name(&self) -> &str {
        UnitName::of(&self.unit).prefix
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    #[serde(deserialize_with = "unit")]
    unit: String,
    #[serde(default = "default_settle", deserialize_with = "duration")]
    settle: Duration,
    #[serde(default = "default_timeout", deserialize_with = "duration")]
    timeout: Duration,
    http: Option<HttpProbe>,
    command: Option<CommandProbe>,
    #[serde(default)]
    stop_first: bool,
    #[serde(default, deserialize_with = "patterns")]
    paths: PathPatterns,
}

fn default_settle() -> Duration {
    DEFAULT_SETTLE
}

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

impl TryFrom<RawService> for Service {
    type Error = String;

    fn try_from(raw: RawService) -> Result<Self, String> {
        let RawService { unit, settle, timeout, http, command, stop_first, paths } = raw;
        if settle >= timeout {
            let (settle, timeout) = (exact_duration(settle), exact_duration(timeout));
            return Err(format!("{unit} can never pass: it has to settle for {settle} within a timeout of {timeout}"));
        }
        Ok(Self { unit, settle, timeout, http, command, stop_first, paths })
    }
}

/// What starts and stops services.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "RawSupervisor")]
pub enum Supervisor {
    /// systemd.
    #[default]
    Systemd,
    /// Commands made from templates.
    Command(Templates),
}

/// The commands of a supervisor that is not systemd, with their arguments; [`UNIT_PLACEHOLDER`] stands for the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// Starts a unit.
    pub start: Vec<String>,
    /// Stops a unit.
    pub stop: Vec<String>,
    /// Stops a unit, if it runs, and starts it.
    pub restart: Vec<String>,
    /// Succeeds if a unit runs.
    pub status: Vec<String>,
}

impl Templates {
    /// One of the templates with this unit in it. Nothing else in it is expanded, and no shell ever sees it.
    pub fn fill(template: &[String], unit: &str) -> Vec<String> {
        template.iter().map(|word| word.replace(UNIT_PLACEHOLDER, unit)).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Systemd,
    Command,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSupervisor {
    kind: Kind,
    #[serde(default, deserialize_with = "template")]
    start: Option<Vec<String>>,
    #[serde(default, deserialize_with = "template")]
    stop: Option<Vec<String>>,
    #[serde(default, deserialize_with = "template")]
    restart: Option<Vec<String>>,
    #[serde(default, deserialize_with = "template")]
    status: Option<Vec<String>>,
}

fn template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let words = command(deserializer)?;
    if !words.iter().any(|word| word.contains(UNIT_PLACEHOLDER)) {
        let problem =
            format!("{UNIT_PLACEHOLDER} must stand somewhere in the command, else it is the same for all units");
        return Err(serde::de::Error::custom(problem));
    }
    Ok(Some(words))
}

impl TryFrom<RawSupervisor> for Supervisor {
    type Error = String;

    fn try_from(raw: RawSupervisor) -> Result<Self, String> {
        let RawSupervisor { kind, start, stop, restart, status } = raw;
        match (kind, start, stop, restart, status) {
            (Kind::Systemd, None, None, None, None) => Ok(Self::Systemd),
            (Kind::Systemd, ..) => Err("start, stop, restart and status go with kind = \"command\" only".into()),
            (Kind::Command, Some(start), Some(stop), Some(restart), Some(status)) => {
                Ok(Self::Command(Templates { start, stop, restart, status }))
            }
            (Kind::Command, ..) => Err("kind = \"command\" needs all of start, stop, restart and status".into()),
        }
    }
}
