//! Why a version stays or goes, for people and for scripts.

use std::fmt;
use std::time::Duration;

use crate::error::Shown;
use crate::model::name::Role;
use crate::model::units::exact_duration;

/// Why a version stays or goes. `Display` is the text for people; [`Reason::name`] the stable one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Protected: a role's link points at it.
    Role(Role),
    /// Protected: the history records it for a role, whose link points elsewhere.
    RecordedRole(Role),
    /// Protected: pinned by an operator.
    Pinned,
    /// Protected: part of the open trial.
    OnTrial,
    /// Protected: a process uses it.
    InUse(String),
    /// Protected: its tree cannot be moved out of the way in one step.
    Immovable,
    /// Protected: the newest good version.
    NewestGood,
    /// Protected: no version is good, and this is the newest that was current and was not left by a rollback.
    NewestToRun,
    /// Protected from being forgotten: it passed its checks or was confirmed.
    Good,
    /// Protected from being forgotten: what could protect it cannot be read, for this reason.
    Doubt(String),
    /// Kept: at this place (from 1) among the newest that are not bad.
    KeepLast {
        /// Its place.
        place: usize,
        /// How many are kept.
        of: u32,
    },
    /// Kept: imported recently enough, measured from the newest import.
    KeepWithin {
        /// How long before the newest import.
        age: Duration,
        /// How long is kept.
        within: Duration,
    },
    /// Kept: a rule looks at the time of imports, and this one's time means nothing.
    ClockNotSynchronised,
    /// Kept: the newest of a day, named `2026-11-03`.
    KeepDaily(String),
    /// Kept: the newest of an ISO week, named `2026-W45`.
    KeepWeekly(String),
    /// Kept: the newest of a month, named `2026-11`.
    KeepMonthly(String),
    /// Kept: among the highest of its minor release.
    KeepMinor {
        /// Major number.
        major: u64,
        /// Minor number.
        minor: u64,
        /// Its place (from 1).
        place: usize,
    },
    /// Kept: carries this label.
    KeepLabel {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Kept: enough comes back without it.
    EnoughIsFreed,
    /// Removed: somebody asked for it by name.
    Asked,
    /// Removed: no rule keeps it.
    NoRuleKeeps,
    /// Removed: among the oldest that may go, to free space.
    OldestRemovable,
    /// Removed, and said besides: it is marked bad, so that rules that count did not count it.
    Bad,
}

impl Reason {
    /// The stable name, as it stands in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Role(Role::Current) => "current",
            Self::Role(Role::Previous) => "previous",
            Self::Role(Role::Factory) => "factory",
            Self::RecordedRole(Role::Current) => "recorded-current",
            Self::RecordedRole(Role::Previous) => "recorded-previous",
            Self::RecordedRole(Role::Factory) => "recorded-factory",
            Self::Pinned => "pinned",
            Self::OnTrial => "on-trial",
            Self::InUse(_) => "in-use",
            Self::Immovable => "immovable",
            Self::NewestGood => "newest-good",
            Self::NewestToRun => "newest-to-run",
            Self::Good => "good",
            Self::Doubt(_) => "doubt",
            Self::KeepLast { .. } => "keep-last",
            Self::KeepWithin { .. } => "keep-within",
            Self::ClockNotSynchronised => "clock-not-synchronised",
            Self::KeepDaily(_) => "keep-daily",
            Self::KeepWeekly(_) => "keep-weekly",
            Self::KeepMonthly(_) => "keep-monthly",
            Self::KeepMinor { .. } => "keep-minor",
            Self::KeepLabel { .. } => "keep-label",
            Self::EnoughIsFreed => "enough-is-freed",
            Self::Asked => "asked",
            Self::NoRuleKeeps => "no-rule-keeps",
            Self::OldestRemovable => "oldest-removable",
            Self::Bad => "bad",
        }
    }

    /// Whether no policy and no operator can override it.
    pub fn is_protection(&self) -> bool {
        matches!(
            self,
            Self::Role(_)
                | Self::RecordedRole(_)
                | Self::Pinned
                | Self::OnTrial
                | Self::InUse(_)
                | Self::Immovable
                | Self::NewestGood
                | Self::NewestToRun
                | Self::Good
                | Self::Doubt(_)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "is {role}"),
            Self::RecordedRole(role) => write!(f, "is recorded as {role}"),
            Self::Pinned => f.write_str("is pinned"),
            Self::OnTrial => f.write_str("is on trial"),
            Self::InUse(process) => write!(f, "is in use by {}", Shown::text(process)),
            Self::Immovable => f.write_str(
                "cannot be moved: it lies in a lower layer of an overlay, where nothing would come back, or on another \
                 file system",
            ),
            Self::NewestGood => f.write_str("is the newest good version"),
            Self::NewestToRun => {
                f.write_str("is the newest that ran and was not rolled back from, and no version is good")
            }
            Self::Good => f.write_str("is good"),
            Self::Doubt(why) => write!(f, "may be protected: {}", Shown::text(why)),
            Self::KeepLast { place, of } => write!(f, "is number {place} of the last {of}"),
            Self::KeepWithin { age, within } => {
                let (age, within) = (exact_duration(*age), exact_duration(*within));
                write!(f, "was imported {age} before the newest, within {within}")
            }
            Self::ClockNotSynchronised => {
                f.write_str("was imported while the clock was not synchronised, so that its age is not known")
            }
            Self::KeepDaily(day) => write!(f, "is the newest of {day}"),
            Self::KeepWeekly(week) => write!(f, "is the newest of week {week}"),
            Self::KeepMonthly(month) => write!(f, "is the newest of month {month}"),
            Self::KeepMinor { major, minor, place } => {
                write!(f, "is number {place} of the releases of {major}.{minor}")
            }
            Self::KeepLabel { key, value } => write!(f, "has the label {}={}", Shown::text(key), Shown::text(value)),
            Self::EnoughIsFreed => f.write_str("enough is freed without it"),
            Self::Asked => f.write_str("was asked to go"),
            Self::NoRuleKeeps => f.write_str("no rule keeps it"),
            Self::OldestRemovable => f.write_str("is among the oldest that may go, to free space"),
            Self::Bad => f.write_str("is marked bad"),
        }
    }
}
