//! `[notify] on`: of which events the command is told.

use serde::{Deserialize, Deserializer};

use crate::error::Shown;

/// An event that `[notify]` can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// An operator went back.
    Rollback,
    /// A check failed, and a fallback holds.
    RolledBack,
    /// No version holds.
    Degraded,
    /// `verify` found damage.
    Corruption,
    /// `current` was switched as it was asked for.
    Switched,
    /// `gc` removed something.
    Gc,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Rollback, Self::RolledBack, Self::Degraded, Self::Corruption, Self::Switched, Self::Gc];

    /// The stable name: `event` of the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::RolledBack => "rolled-back",
            Self::Degraded => "degraded",
            Self::Corruption => "corruption",
            Self::Switched => "switched",
            Self::Gc => "gc",
        }
    }
}

/// The events that the command is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasions(Vec<Occasion>);

impl Occasions {
    /// Whether it is told of this one.
    pub fn has(&self, occasion: Occasion) -> bool {
        self.0.contains(&occasion)
    }
}

impl Default for Occasions {
    /// Those after which somebody has to look.
    fn default() -> Self {
        Self(vec![Occasion::Rollback, Occasion::RolledBack, Occasion::Degraded, Occasion::Corruption])
    }
}

impl<'de> Deserialize<'de> for Occasions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = |name: &String| {
            Occasion::ALL.into_iter().find(|occasion| occasion.name() == name).ok_or_else(|| {
                let known = Occasion::ALL.map(Occasion::name).join(", ");
                serde::de::Error::custom(format!("unknown event {}, expected one of {known}", Shown::text(name)))
            })
        };
        Vec::<String>::deserialize(deserializer)?.iter().map(named).collect::<Result<Vec<_>, _>>().map(Self)
    }
}
