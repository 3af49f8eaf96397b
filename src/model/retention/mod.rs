//! The retention plan: which versions stay, which go, and why. Pure; `gc --dry-run` prints what `gc` then does.
//!
//! First come the protections, which no policy can override ([`protections`]): roles as linked and as recorded, pins, the version on trial, what a running process uses, and the newest good version. Then the [`Policy`]: a version
//! stays if **any** rule keeps it.
//!
//! - *Newest* always means the highest import number; wall time decides nothing but ages and calendar rules.
//! - `keep_last` and the calendar rules and `keep_minor` count versions that are not bad: a bad one takes nobody's
//!   place. `keep_within` and labels do not count anything and keep bad ones as well.
//! - Ages are measured against the time of the newest import whose clock was synchronised, not against the present: a
//!   device that was switched off for a year keeps what it had. A version from the future of that moment has no age
//!   and is kept.
//! - A version that was imported with an unsynchronised clock has a meaningless time (devices boot in 1970). Where any
//!   rule of time is given it is therefore kept, and takes no place in a calendar; where none is given its time does
//!   not matter.
//! - Calendar rules keep the newest version of each of the last N days, ISO weeks or months (UTC) in which anything was
//!   imported, the last ones by import number.
//! - `keep_minor` keeps, of every `major.minor`, the N highest by semantic precedence; releases come before all
//!   pre-releases. Names that are no semantic versions are none of its business.
//! - `free` turns removal from "all that no rule keeps" into "the oldest of them, until that many bytes come back".
//!
//! **Invariant (I-6):** nothing protected is ever removed; another `keep` rule never removes more; the plan does not
//! depend on the order of its input; an empty policy is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::name::{Role, VersionName};
use crate::error::{Error, Result};

mod reason;
mod rules;
#[cfg(test)]
mod tests;

pub use reason::Reason;

/// A version as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name; also its semantic version, if it spells one.
    pub name: VersionName,
    /// Its import number; higher is newer.
    pub import_number: u64,
    /// Wall time of the import in seconds since 1970.
    pub imported_at: i64,
    /// Whether that time means anything.
    pub clock_synchronised: bool,
    /// Labels given at import.
    pub labels: BTreeMap<String, String>,
    /// Whether its digest is marked bad.
    pub bad: bool,
    /// Whether it passed its checks or was confirmed.
    pub good: bool,
    /// Whether it was current at some time.
    pub was_current: bool,
    /// Whether it was left by a rollback and not activated since.
    pub left_by_rollback: bool,
    /// The roles whose links point at it.
    pub roles: BTreeSet<Role>,
    /// The roles that the history records for it, whatever the links say now.
    pub recorded_roles: BTreeSet<Role>,
    /// Whether an operator pinned it.
    pub pinned: bool,
    /// Whether the open trial began at it or leads to it.
    pub on_trial: bool,
    /// The processes that use it, described for people.
    pub in_use: Vec<String>,
}

impl Candidate {
    /// A version of which nothing is known but its name and age.
    pub fn new(name: VersionName, import_number: u64, imported_at: i64) -> Self {
        Self {
            name,
            import_number,
            imported_at,
            clock_synchronised: true,
            labels: BTreeMap::new(),
            bad: false,
            good: false,
            was_current: false,
            left_by_rollback: false,
            roles: BTreeSet::new(),
            recorded_roles: BTreeSet::new(),
            pinned: false,
            on_trial: false,
            in_use: Vec::new(),
        }
    }
}

/// What to keep. A rule that is absent or counts to zero keeps nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest N that are not bad.
    pub keep_last: Option<u32>,
    /// Those imported at most this long before the newest.
    pub keep_within: Option<Duration>,
    /// The newest of each of the last N days with imports.
    pub keep_daily: Option<u32>,
    /// The newest of each of the last N ISO weeks with imports.
    pub keep_weekly: Option<u32>,
    /// The newest of each of the last N months with imports.
    pub keep_monthly: Option<u32>,
    /// The N highest of each `major.minor`.
    pub keep_minor: Option<u32>,
    /// Those that carry one of these labels with this value.
    pub keep_labels: Vec<(String, String)>,
    /// Remove the oldest only, until at least this many bytes come back.
    pub free: Option<u64>,
}

impl Policy {
    /// Whether nothing is asked for. Such a policy would remove all that is not protected, and is refused.
    pub fn is_empty(&self) -> bool {
        let counts = [self.keep_last, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_minor];
        counts.into_iter().all(|count| count.unwrap_or(0) == 0)
            && self.keep_within.unwrap_or_default().is_zero()
            && self.keep_labels.is_empty()
            && self.free.unwrap_or(0) == 0
    }

    /// Whether a rule looks at the time of imports.
    fn looks_at_time(&self) -> bool {
        let counts = [self.keep_daily, self.keep_weekly, self.keep_monthly];
        counts.into_iter().any(|count| count.unwrap_or(0) > 0) || !self.keep_within.unwrap_or_default().is_zero()
    }
}

/// What becomes of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub name: VersionName,
    /// Whether it stays.
    pub keep: bool,
    /// Why; never empty. Protections first, then rules in the order of [`Reason`].
    pub reasons: Vec<Reason>,
}

/// The demand for bytes and what answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// How many bytes were asked for.
    pub wanted_bytes: u64,
    /// How many come back if everything in the plan is removed; may fall short of what was asked for.
    pub freed_bytes: u64,
}

/// What becomes of every version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    /// One per candidate, newest first.
    pub versions: Vec<Decision>,
    /// With [`Policy::free`]: what comes back.
    pub freed: Option<Freed>,
}

impl Plan {
    /// The versions that go, oldest first: the order of removal, so that an interrupted run took the least needed.
    pub fn removed(&self) -> impl Iterator<Item = &Decision> {
        self.versions.iter().rev().filter(|decision| !decision.keep)
    }

    /// The versions that stay, newest first.
    pub fn kept(&self) -> impl Iterator<Item = &Decision> {
        self.versions.iter().filter(|decision| decision.keep)
    }
}

/// Makes the plan.
///
/// `freed_by` tells how many bytes come back if exactly these versions (oldest first) are removed. It is asked only
/// with [`Policy::free`], for some beginnings of the list of removable versions, oldest first; versions share inodes, so
/// its answers need not add up, but more versions must not free less. For none of them it tells what comes back anyhow.
///
/// # Errors
///
/// [`Error::Usage`] for an empty policy; otherwise what `freed_by` reports.
pub fn plan(
    candidates: &[Candidate],
    policy: &Policy,
    freed_by: &mut dyn FnMut(&[VersionName]) -> Result<u64>,
) -> Result<Plan> {
    if policy.is_empty() {
        return Err(Error::Usage(
            "an empty policy would remove every version that is not protected: say what to keep (--keep-last N, …) or how much to free (--free SIZE)".into(),
        ));
    }
    let newest_first = newest_first(candidates);
    let mut reasons = protections(candidates);
    rules::apply(&newest_first, policy, &mut reasons);
    let removable: Vec<VersionName> = newest_first
        .iter()
        .rev()
        .filter(|candidate| !reasons.contains_key(&candidate.name))
        .map(|candidate| candidate.name.clone())
        .collect();
    let (going, freed) = match policy.free.filter(|wanted| *wanted > 0) {
        None => (removable.len(), None),
        Some(wanted) => {
            let (going, freed_bytes) = shortest_that_frees(&removable, wanted, freed_by)?;
            (going, Some(Freed { wanted_bytes: wanted, freed_bytes }))
        }
    };
    let gone: BTreeSet<&VersionName> = removable[..going].iter().collect();
    let versions = newest_first.iter().map(|candidate| decide(candidate, &gone, &mut reasons, policy)).collect();
    Ok(Plan { versions, freed })
}

/// Why versions may not be removed by anybody, by name; versions that may be are absent. The same rules bind `gc` and
/// `remove`.
pub fn protections(candidates: &[Candidate]) -> BTreeMap<VersionName, Vec<Reason>> {
    let newest_first = newest_first(candidates);
    let mut reasons: BTreeMap<VersionName, Vec<Reason>> = BTreeMap::new();
    for candidate in &newest_first {
        let own = rules::own_protections(candidate);
        if !own.is_empty() {
            reasons.insert(candidate.name.clone(), own);
        }
    }
    for (name, reason) in rules::newest_healthy(&newest_first) {
        reasons.entry(name).or_default().push(reason);
    }
    reasons
}

/// Import numbers are unique in a store; should they not be, names settle the order.
fn newest_first(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| (b.import_number, &b.name).cmp(&(a.import_number, &a.name)));
    sorted
}

/// How many of the oldest versions must go until enough comes back, and what then does. All of them if it never does.
fn shortest_that_frees(
    removable: &[VersionName],
    wanted: u64,
    freed_by: &mut dyn FnMut(&[VersionName]) -> Result<u64>,
) -> Result<(usize, u64)> {
    let anyhow = freed_by(&[])?;
    if removable.is_empty() || anyhow >= wanted {
        return Ok((0, anyhow));
    }
    // Between `low`, which frees too little, and `high`, which frees `freed`: each question may cost a walk over many
    // inodes, so their number is logarithmic.
    let (mut low, mut high) = (0, removable.len());
    let mut freed = freed_by(removable)?;
    while freed >= wanted && high - low > 1 {
        let middle = low + (high - low) / 2;
        match freed_by(&removable[..middle])? {
            enough if enough >= wanted => (high, freed) = (middle, enough),
            _ => low = middle,
        }
    }
    Ok((high, freed))
}

fn decide(
    candidate: &Candidate,
    gone: &BTreeSet<&VersionName>,
    reasons: &mut BTreeMap<VersionName, Vec<Reason>>,
    policy: &Policy,
) -> Decision {
    let name = candidate.name.clone();
    if let Some(reasons) = reasons.remove(&name) {
        return Decision { name, keep: true, reasons };
    }
    let keep = !gone.contains(&name);
    let mut reasons = vec![match (keep, policy.free) {
        (true, _) => Reason::EnoughIsFreed,
        (false, Some(_)) => Reason::OldestRemovable,
        (false, None) => Reason::NoRuleKeeps,
    }];
    if !keep && candidate.bad {
        reasons.push(Reason::Bad);
    }
    Decision { name, keep, reasons }
}
