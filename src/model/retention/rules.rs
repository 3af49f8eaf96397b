//! The rules one by one. Each gives the names that it keeps, with its reason; none knows of another.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Candidate, Policy, Reason};
use crate::model::name::VersionName;

/// What protects a version for its own sake.
pub(super) fn own_protections(candidate: &Candidate) -> Vec<Reason> {
    let flags = [(candidate.pinned, Reason::Pinned), (candidate.on_trial, Reason::OnTrial)];
    let linked = candidate.roles.iter().copied().map(Reason::Role);
    let recorded = candidate.recorded_roles.difference(&candidate.roles).copied().map(Reason::RecordedRole);
    let roles = linked.chain(recorded);
    let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, reason)| reason);
    roles.chain(flags).chain(candidate.in_use.iter().cloned().map(Reason::InUse)).collect()
}

/// The newest good version; while none is good, the newest that was current and was not left by a rollback.
///
/// A version can be good by an old check and marked bad since. The newest good one is then protected all the same, and
/// so is the newest about which there is no doubt: of two readings of the rule the one that keeps more.
pub(super) fn newest_healthy(newest_first: &[&Candidate]) -> Vec<(VersionName, Reason)> {
    let newest = |healthy: &dyn Fn(&Candidate) -> bool| {
        let any = newest_first.iter().find(|candidate| healthy(candidate));
        let not_bad = newest_first.iter().find(|candidate| healthy(candidate) && !candidate.bad);
        let mut both: Vec<&VersionName> = any.into_iter().chain(not_bad).map(|candidate| &candidate.name).collect();
        both.dedup();
        (both, not_bad.is_some())
    };
    let (good, any_good) = newest(&|candidate| candidate.good);
    let mut protected: Vec<(VersionName, Reason)> =
        good.into_iter().map(|name| (name.clone(), Reason::NewestGood)).collect();
    if !any_good {
        let (ran, _) = newest(&|candidate| candidate.was_current && !candidate.left_by_rollback);
        protected.extend(ran.into_iter().map(|name| (name.clone(), Reason::NewestToRun)));
    }
    protected
}

/// Adds the reasons of every rule of the policy.
pub(super) fn apply(newest_first: &[&Candidate], policy: &Policy, reasons: &mut BTreeMap<VersionName, Vec<Reason>>) {
    let mut keep = |candidate: &Candidate, reason: Reason| {
        reasons.entry(candidate.name.clone()).or_default().push(reason);
    };
    let sound: Vec<&Candidate> = newest_first.iter().copied().filter(|candidate| !candidate.bad).collect();
    if let Some(count) = policy.keep_last {
        for (at, candidate) in sound.iter().take(count as usize).enumerate() {
            keep(candidate, Reason::KeepLast { place: at + 1, of: count });
        }
    }
    if let Some(within) = policy.keep_within.filter(|within| !within.is_zero()) {
        within_of_newest(newest_first, within, &mut keep);
    }
    if policy.looks_at_time() {
        for candidate in newest_first.iter().filter(|candidate| !candidate.clock_synchronised) {
            keep(candidate, Reason::ClockNotSynchronised);
        }
    }
    let calendar: [CalendarRule; 3] = [
        (policy.keep_daily, day, Reason::KeepDaily),
        (policy.keep_weekly, week, Reason::KeepWeekly),
        (policy.keep_monthly, month, Reason::KeepMonthly),
    ];
    for (count, name, reason) in calendar {
        for (candidate, period) in newest_of_each(&sound, name).into_iter().take(count.unwrap_or(0) as usize) {
            keep(candidate, reason(period));
        }
    }
    highest_of_each_minor(&sound, policy.keep_minor.unwrap_or(0) as usize, &mut keep);
    for candidate in newest_first {
        for (key, value) in &policy.keep_labels {
            if candidate.labels.get(key) == Some(value) {
                keep(candidate, Reason::KeepLabel { key: key.clone(), value: value.clone() });
            }
        }
    }
}

/// How many, what a period is called, and the reason that names it.
type CalendarRule = (Option<u32>, fn(Date) -> String, fn(String) -> Reason);

fn within_of_newest(newest_first: &[&Candidate], within: Duration, keep: &mut dyn FnMut(&Candidate, Reason)) {
    let mut timed = newest_first.iter().filter(|candidate| candidate.clock_synchronised).peekable();
    let Some(newest) = timed.peek().map(|candidate| candidate.imported_at) else { return };
    for candidate in timed {
        let seconds = newest.saturating_sub(candidate.imported_at);
        // A negative age: imported while the clock stood in what is now the future.
        let age = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if age <= within {
            keep(candidate, Reason::KeepWithin { age, within });
        }
    }
}

/// The newest version of every period, newest first, with the period's name.
fn newest_of_each<'a>(sound: &[&'a Candidate], name: fn(Date) -> String) -> Vec<(&'a Candidate, String)> {
    let mut seen = HashSet::new();
    let timed = sound.iter().filter(|candidate| candidate.clock_synchronised);
    timed
        .map(|candidate| (*candidate, name(date(candidate.imported_at))))
        .filter(|(_, period)| seen.insert(period.clone()))
        .collect()
}

/// The day in UTC; times beyond the calendar count as its first or last day.
fn date(seconds: i64) -> Date {
    let clamped = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let timestamp = Timestamp::from_second(clamped).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(timestamp).date()
}

fn day(date: Date) -> String {
    date.to_string()
}

fn week(date: Date) -> String {
    let week = date.iso_week_date();
    format!("{}-W{:02}", week.year(), week.week())
}

fn month(date: Date) -> String {
    format!("{:04}-{:02}", date.year(), date.month())
}

fn highest_of_each_minor(sound: &[&Candidate], count: usize, keep: &mut dyn FnMut(&Candidate, Reason)) {
    // Each with whether it is a release and no pre-release: that goes before the rest of the order.
    let mut minors: BTreeMap<(u64, u64), Vec<_>> = BTreeMap::new();
    for candidate in sound {
        if let Some(version) = candidate.name.semver() {
            let minor = minors.entry((version.major, version.minor)).or_default();
            minor.push((version.pre.is_empty(), version, *candidate));
        }
    }
    for ((major, minor), mut versions) in minors {
        versions.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        for (at, (_, _, candidate)) in versions.iter().take(count).enumerate() {
            keep(candidate, Reason::KeepMinor { major, minor, place: at + 1 });
        }
    }
}
