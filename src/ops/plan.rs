//! What a switch would do: the answer of `--dry-run`, in which nothing is changed, repaired or recorded.

use std::time::Duration;

use crate::config::Service;
use crate::error::{Error, chain};
use crate::model::{Digest, VersionName};
use crate::services::affected::Affected;

/// What a switch would do.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is current, if that is a version.
    pub from: Option<VersionName>,
    /// What would be current.
    pub to: VersionName,
    /// Its digest; a directory that was made by hand has none.
    pub digest: Option<Digest>,
    /// 0: the version that was asked for by name; 1: previous; 2: factory.
    pub level: u8,
    /// Whether that is another version than now.
    pub changes: bool,
    /// What previous would lead to then.
    pub previous: Option<VersionName>,
    /// The version that would be marked bad, if one would.
    pub bad: Option<VersionName>,
    /// What the check of the version gives.
    pub tree: TreeCheck,
    /// What would become of each service; `None` for a switch that leaves services alone.
    pub services: Option<Vec<PlannedService>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What the check of a version before a switch gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeCheck {
    /// It is what was imported.
    Sound,
    /// It is not, in this way, and is switched to all the same.
    Damaged(String),
    /// It is not checked, for this reason.
    Unchecked(String),
}

/// What would become of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedService {
    /// The service, with its checks and times.
    pub service: Service,
    /// What would be done.
    pub action: ServiceAction,
    /// Whether it would be stopped before the switch.
    pub stops_first: bool,
    /// Why it would be restarted or started.
    pub reasons: Vec<String>,
}

/// What would be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceAction {
    /// It runs, and would be restarted and watched.
    Restart,
    /// It does not run, and would be started and watched.
    Start,
    /// It runs, would be left alone and watched.
    Watch,
    /// It does not run, and would be left alone.
    Leave,
}

impl ServiceAction {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Watch => "watch",
            Self::Leave => "leave",
        }
    }

    /// Whether it would be watched.
    pub fn is_watched(self) -> bool {
        self != Self::Leave
    }
}

impl PlannedService {
    /// A service, by why it would be restarted (`None` if it would not), and whether it runs and is watched.
    pub(super) fn of(service: &Service, restarted: Option<&Affected>, runs: bool) -> Self {
        let action = match (restarted, runs) {
            (Some(_), true) => ServiceAction::Restart,
            (Some(_), false) => ServiceAction::Start,
            (None, true) => ServiceAction::Watch,
            (None, false) => ServiceAction::Leave,
        };
        Self {
            service: service.clone(),
            action,
            stops_first: service.stop_first && restarted.is_some(),
            reasons: restarted.map(|one| one.reasons.clone()).unwrap_or_default(),
        }
    }

    /// How long it would have to settle, and within which time, if it would be watched.
    pub fn times(&self) -> Option<(Duration, Duration)> {
        self.action.is_watched().then_some((self.service.settle, self.service.timeout))
    }
}

/// What is said to a user who may look, and may not switch.
pub(super) fn not_allowed(error: &Error) -> String {
    format!("the switch itself would be refused: {}", chain(error))
}
