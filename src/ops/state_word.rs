//! How things stand, in one word: for monitoring, which can act on a word and an exit code.

use super::status::{CurrentHealth, Report, Standing};
use crate::history::State;
use crate::model::Role;
use crate::store::trial::Found;

/// The gravest thing that is true of a store, by this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateWord {
    /// No version holds; the least bad one runs.
    Degraded,
    /// Something of what the store keeps is lost or wrong: the current version fails its check or cannot be checked, a
    /// tree is gone, a repair could not mend a version, the history cannot be trusted, or the trial cannot be read.
    Damaged,
    /// The current version is marked bad.
    Bad,
    /// The last switch was made by a failed check, and nobody accepted what it led to.
    RolledBack,
    /// `current` leads to no version.
    Missing,
    /// The current version was made by hand.
    Unmanaged,
    /// A version is on trial.
    Trial,
    /// The current version is neither good nor bad.
    Unconfirmed,
    /// The current version is good.
    Ok,
}

impl StateWord {
    /// All of them, the gravest first.
    pub const ALL: [Self; 9] = [
        Self::Degraded,
        Self::Damaged,
        Self::Bad,
        Self::RolledBack,
        Self::Missing,
        Self::Unmanaged,
        Self::Trial,
        Self::Unconfirmed,
        Self::Ok,
    ];

    /// The stable word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Damaged => "damaged",
            Self::Bad => "bad",
            Self::RolledBack => "rolled-back",
            Self::Missing => "missing",
            Self::Unmanaged => "unmanaged",
            Self::Trial => "trial",
            Self::Unconfirmed => "unconfirmed",
            Self::Ok => "ok",
        }
    }

    /// The first word that is true.
    pub fn of(report: &Report) -> Self {
        let is_true = |word: &Self| word.is_true_of(report);
        Self::ALL.into_iter().find(is_true).unwrap_or(Self::Ok)
    }

    fn is_true_of(self, report: &Report) -> bool {
        let standing = report.role(Role::Current).map(|current| &current.standing);
        match self {
            Self::Degraded => report.degraded.is_some(),
            Self::Damaged => is_damaged(report),
            Self::Bad => matches!(standing, Some(Standing::Bad(_))),
            Self::RolledBack => report.rolled_back().is_some(),
            Self::Missing => !report.has_current(),
            Self::Unmanaged => matches!(standing, Some(Standing::Unmanaged)),
            Self::Trial => matches!(report.trial, Found::Open(_)),
            Self::Unconfirmed => matches!(standing, Some(Standing::Unknown) | None),
            Self::Ok => true,
        }
    }
}

fn is_damaged(report: &Report) -> bool {
    let health = match &report.health {
        CurrentHealth::Checked(checked) => !checked.is_sound(),
        CurrentHealth::Failed(_) => true,
        CurrentHealth::NotChecked(_) | CurrentHealth::Newer(_) => false,
    };
    let history = match &report.history {
        State::Broken { .. } | State::Doubt { .. } | State::Missing => true,
        // Never acknowledged, and cut off by the next append.
        State::Sound | State::Torn { .. } => false,
    };
    health
        || history
        || !report.missing_tree.is_empty()
        || !report.unrepaired.is_empty()
        || report.loss.is_some()
        || matches!(report.trial, Found::Unreadable(_))
}
