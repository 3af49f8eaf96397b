//! Stories of retention, one rule at a time, and what holds for all policies.

use super::*;
use proptest::prelude::*;

const DAY: i64 = 86_400;
/// 2026-11-04T00:00:00Z, a Wednesday.
const TODAY: i64 = 1_793_750_400;

fn version(name: &str, import_number: u64, days_ago: i64) -> Candidate {
    Candidate::new(name.parse().unwrap(), import_number, TODAY - days_ago * DAY)
}

/// v1 to vN, imported on consecutive days, vN today.
fn daily(count: u64) -> Vec<Candidate> {
    (1..=count).map(|n| version(&format!("r{n}"), n, (count - n) as i64)).collect()
}

fn made(candidates: &[Candidate], policy: &Policy) -> Plan {
    plan(candidates, policy, &mut |_| panic!("asked for bytes without --free")).unwrap()
}

/// Names kept, newest first.
fn kept(candidates: &[Candidate], policy: &Policy) -> Vec<String> {
    made(candidates, policy).kept().map(|decision| decision.name.to_string()).collect()
}

fn reasons(plan: &Plan, name: &str) -> Vec<String> {
    let decision = plan.versions.iter().find(|decision| decision.name.as_str() == name).unwrap();
    decision.reasons.iter().map(ToString::to_string).collect()
}

fn keep_last(count: u32) -> Policy {
    Policy { keep_last: Some(count), ..Policy::default() }
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

#[test]
fn an_empty_policy_is_refused() {
    let zero = Policy {
        keep_last: Some(0),
        keep_within: Some(Duration::ZERO),
        keep_daily: Some(0),
        free: Some(0),
        ..Policy::default()
    };
    for policy in [Policy::default(), zero] {
        assert!(policy.is_empty());
        assert!(matches!(plan(&daily(3), &policy, &mut |_| Ok(0)), Err(Error::Usage(_))));
    }
}

#[test]
fn keep_last_counts_import_numbers_and_not_names_or_times() {
    let versions =
        [version("v2.0.0", 1, 0), version("v1.0.0", 3, 900), version("v3.0.0", 2, 5), version("nightly", 4, 20_000)];
    assert_eq!(kept(&versions, &keep_last(2)), ["nightly", "v1.0.0"]);
    let plan = made(&versions, &keep_last(2));
    assert_eq!(reasons(&plan, "v1.0.0"), ["is number 2 of the last 2"]);
    assert_eq!(reasons(&plan, "v3.0.0"), ["no rule keeps it"]);
    let removed: Vec<&str> = plan.removed().map(|decision| decision.name.as_str()).collect();
    assert_eq!(removed, ["v2.0.0", "v3.0.0"], "oldest first");
}

#[test]
fn bad_versions_take_nobody_s_place() {
    let mut versions = daily(5);
    versions[4].bad = true;
    versions[2].bad = true;
    assert_eq!(kept(&versions, &keep_last(2)), ["r4", "r2"]);
    assert_eq!(reasons(&made(&versions, &keep_last(2)), "r5"), ["no rule keeps it", "is marked bad"]);
    let monthly = Policy { keep_monthly: Some(1), ..Policy::default() };
    assert_eq!(kept(&versions, &monthly), ["r4"]);
}

#[test]
fn every_protection_outlasts_every_policy() {
    let mut versions = daily(9);
    versions[0].roles = [Role::Factory].into();
    versions[1].recorded_roles = [Role::Factory].into();
    versions[2].pinned = true;
    versions[3].on_trial = true;
    versions[4].in_use = vec!["pid 812 (device-api.service)".into()];
    versions[5].roles = [Role::Current, Role::Previous].into();
    let plan = made(&versions, &keep_last(1));
    let kept: Vec<(&str, Vec<String>)> =
        plan.kept().map(|d| (d.name.as_str(), d.reasons.iter().map(ToString::to_string).collect())).collect();
    assert_eq!(
        kept,
        [
            ("r9", vec!["is number 1 of the last 1".to_owned()]),
            ("r6", vec!["is current".to_owned(), "is previous".to_owned()]),
            ("r5", vec!["is in use by pid 812 (device-api.service)".to_owned()]),
            ("r4", vec!["is on trial".to_owned()]),
            ("r3", vec!["is pinned".to_owned()]),
            ("r2", vec!["is recorded as factory".to_owned()]),
            ("r1", vec!["is factory".to_owned()]),
        ]
    );
    assert!(plan.kept().skip(1).all(|decision| decision.reasons.iter().all(Reason::is_protection)));
}

/// Releases failed one after the other, each was kept as "one of the last five", and the one that had worked was removed.
#[test]
fn a_row_of_failed_releases_does_not_push_out_the_one_that_works() {
    let mut versions = daily(8);
    versions[0].good = true;
    for failed in &mut versions[1..] {
        failed.was_current = true;
        failed.left_by_rollback = true;
    }
    assert_eq!(kept(&versions, &keep_last(1)), ["r8", "r1"]);
    assert_eq!(reasons(&made(&versions, &keep_last(1)), "r1"), ["is the newest good version"]);
}

#[test]
fn while_none_is_good_the_newest_that_ran_and_was_not_left_stays() {
    let mut versions = daily(6);
    versions[0].was_current = true;
    versions[1].was_current = true;
    versions[2].was_current = true;
    versions[2].left_by_rollback = true;
    assert_eq!(kept(&versions, &keep_last(1)), ["r6", "r2"]);
    versions[0].good = true;
    assert_eq!(kept(&versions, &keep_last(1)), ["r6", "r1"], "a good one settles it");
}

#[test]
fn a_good_version_that_became_bad_leaves_another_one_protected_too() {
    let mut versions = daily(6);
    versions[3].good = true;
    versions[3].bad = true;
    versions[1].good = true;
    assert_eq!(kept(&versions, &keep_last(1)), ["r6", "r4", "r2"]);
    versions[1].good = false;
    versions[0].was_current = true;
    assert_eq!(kept(&versions, &keep_last(1)), ["r6", "r4", "r1"], "no good one is free of doubt");
}

#[test]
fn ages_are_measured_from_the_newest_import() {
    let versions = [version("a", 1, 400), version("b", 2, 395), version("c", 3, 370)];
    let policy = Policy { keep_within: Some(days(30)), ..Policy::default() };
    assert_eq!(kept(&versions, &policy), ["c", "b", "a"]);
    let policy = Policy { keep_within: Some(days(25)), ..Policy::default() };
    assert_eq!(kept(&versions, &policy), ["c", "b"], "the limit itself counts");
    assert_eq!(reasons(&made(&versions, &policy), "b"), ["was imported 25d before the newest, within 25d"]);
}

/// A device booted in 1970, imported, synchronised its clock, imported again: the first import seemed 56 years old.
#[test]
fn an_import_without_a_clock_has_no_age() {
    let mut versions = vec![version("a", 1, 0), version("b", 2, 300), version("c", 3, 0), version("d", 4, 0)];
    versions[0].imported_at = 12;
    versions[0].clock_synchronised = false;
    let within = Policy { keep_within: Some(days(30)), ..Policy::default() };
    assert_eq!(kept(&versions, &within), ["d", "c", "a"]);
    let daily = Policy { keep_daily: Some(1), ..Policy::default() };
    assert_eq!(kept(&versions, &daily), ["d", "a"]);
    assert_eq!(kept(&versions, &keep_last(2)), ["d", "c"], "its time does not matter where no rule looks at it");
    versions[3].imported_at = 99;
    versions[3].clock_synchronised = false;
    assert_eq!(kept(&versions, &within), ["d", "c", "a"], "ages start at the newest import whose time means anything");
    for version in &mut versions {
        version.clock_synchronised = false;
    }
    assert_eq!(kept(&versions, &within).len(), 4);
}

#[test]
fn an_import_from_the_future_is_not_old() {
    let versions = [version("a", 1, -9000), version("b", 2, 90), version("c", 3, 0)];
    let policy = Policy { keep_within: Some(days(30)), ..Policy::default() };
    assert_eq!(kept(&versions, &policy), ["c", "a"]);
}

#[test]
fn calendar_rules_keep_the_newest_of_each_period_that_has_any() {
    let mut versions = daily(80);
    versions.push(version("late", 81, 0));
    // Nothing on the day before yesterday.
    versions.retain(|version| version.name.as_str() != "r78");
    let daily = Policy { keep_daily: Some(3), ..Policy::default() };
    assert_eq!(kept(&versions, &daily), ["late", "r79", "r77"]);
    assert_eq!(reasons(&made(&versions, &daily), "r79"), ["is the newest of 2026-11-03"]);
    let weekly = Policy { keep_weekly: Some(2), ..Policy::default() };
    assert_eq!(kept(&versions, &weekly), ["late", "r77"], "r77 is the Sunday");
    assert_eq!(reasons(&made(&versions, &weekly), "r77"), ["is the newest of week 2026-W44"]);
    let monthly = Policy { keep_monthly: Some(9), ..Policy::default() };
    assert_eq!(kept(&versions, &monthly), ["late", "r76", "r45", "r15"], "today, 31 October, 30 September, 31 August");
    assert_eq!(reasons(&made(&versions, &monthly), "r76"), ["is the newest of month 2026-10"]);
}

#[test]
fn iso_weeks_reach_over_new_year() {
    // 2026-12-31 and 2027-01-02 are in week 2026-W53.
    let versions = [version("a", 1, -57), version("b", 2, -59)];
    let policy = Policy { keep_weekly: Some(5), ..Policy::default() };
    assert_eq!(kept(&versions, &policy), ["b"]);
    assert_eq!(reasons(&made(&versions, &policy), "b"), ["is the newest of week 2026-W53"]);
}

#[test]
fn keep_minor_keeps_the_highest_patches_of_each_minor() {
    let versions = [
        version("v1.0.10", 1, 0),
        version("v1.0.9", 2, 0),
        version("v1.0.11-rc.1", 3, 0),
        version("v1.1.0", 4, 0),
        version("v2.1.0-beta", 5, 0),
        version("v2.1.0-alpha", 6, 0),
        version("nightly", 7, 0),
    ];
    let policy = |count| Policy { keep_minor: Some(count), ..Policy::default() };
    assert_eq!(kept(&versions, &policy(1)), ["v2.1.0-beta", "v1.1.0", "v1.0.10"]);
    assert_eq!(kept(&versions, &policy(2)), ["v2.1.0-alpha", "v2.1.0-beta", "v1.1.0", "v1.0.9", "v1.0.10"]);
    assert_eq!(reasons(&made(&versions, &policy(2)), "v1.0.9"), ["is number 2 of the releases of 1.0"]);
}

#[test]
fn labels_keep_what_carries_them_with_that_value() {
    let mut versions = daily(4);
    versions[0].labels.insert("channel".into(), "lts".into());
    versions[1].labels.insert("channel".into(), "beta".into());
    versions[1].bad = true;
    versions[2].labels.insert("site".into(), "lts".into());
    let policy = |value: &str| Policy { keep_labels: vec![("channel".into(), value.into())], ..Policy::default() };
    assert_eq!(kept(&versions, &policy("lts")), ["r1"]);
    assert_eq!(kept(&versions, &policy("beta")), ["r2"], "even a bad one");
    assert_eq!(reasons(&made(&versions, &policy("lts")), "r1"), ["has the label channel=lts"]);
}

#[test]
fn any_rule_is_enough_and_all_that_apply_are_named() {
    let versions = daily(5);
    let policy = Policy { keep_daily: Some(3), ..keep_last(2) };
    assert_eq!(kept(&versions, &policy), ["r5", "r4", "r3"]);
    assert_eq!(reasons(&made(&versions, &policy), "r4"), ["is number 2 of the last 2", "is the newest of 2026-11-03"]);
}

#[test]
fn free_takes_the_oldest_until_enough_comes_back() {
    let mut versions = daily(6);
    versions[1].pinned = true;
    // Sharing: r1 alone gives nothing, r1 and r3 give 100, each further one 10.
    let mut asked = Vec::new();
    let mut freed_by = |names: &[VersionName]| {
        asked.push(names.len());
        let names: Vec<&str> = names.iter().map(VersionName::as_str).collect();
        assert!(["r1", "r3", "r4", "r5", "r6"].starts_with(&names), "oldest first, never r2: {names:?}");
        Ok(if names.len() < 2 { 0 } else { 80 + 10 * names.len() as u64 })
    };
    let free = |bytes| Policy { free: Some(bytes), ..Policy::default() };
    let mut removed = |policy: &Policy| {
        let plan = plan(&versions, policy, &mut freed_by).unwrap();
        (plan.removed().map(|decision| decision.name.to_string()).collect::<Vec<_>>(), plan.freed.unwrap())
    };
    let freed = |wanted_bytes, freed_bytes| Freed { wanted_bytes, freed_bytes };
    assert_eq!(removed(&free(1)), (vec!["r1".into(), "r3".into()], freed(1, 100)));
    assert_eq!(removed(&free(100)), (vec!["r1".into(), "r3".into()], freed(100, 100)));
    assert_eq!(removed(&free(101)), (vec!["r1".into(), "r3".into(), "r4".into()], freed(101, 110)));
    assert_eq!(removed(&free(999)).1, freed(999, 130), "all of them, and it is said that it falls short");
    let plan = plan(&versions, &free(100), &mut freed_by).unwrap();
    assert_eq!(reasons(&plan, "r1"), ["is among the oldest that may go, to free space"]);
    assert_eq!(reasons(&plan, "r4"), ["enough is freed without it"]);
    assert_eq!(reasons(&plan, "r2"), ["is pinned"]);
}

#[test]
fn free_respects_the_rules_beside_it() {
    let policy = Policy { free: Some(1000), ..keep_last(3) };
    let plan = plan(&daily(5), &policy, &mut |names| Ok(names.len() as u64)).unwrap();
    let removed: Vec<&str> = plan.removed().map(|decision| decision.name.as_str()).collect();
    assert_eq!((removed, plan.freed), (vec!["r1", "r2"], Some(Freed { wanted_bytes: 1000, freed_bytes: 2 })));
}

#[test]
fn nothing_to_remove_asks_for_no_version() {
    let policy = Policy { free: Some(1), ..keep_last(9) };
    let mut freed_by = |names: &[VersionName]| {
        assert!(names.is_empty(), "there is no version to ask about");
        Ok(0)
    };
    let plan = plan(&daily(3), &policy, &mut freed_by).unwrap();
    assert_eq!((plan.removed().count(), plan.freed), (0, Some(Freed { wanted_bytes: 1, freed_bytes: 0 })));
    assert!(made(&[], &keep_last(1)).versions.is_empty());
}

#[test]
fn what_comes_back_anyhow_spares_versions() {
    let policy = Policy { free: Some(100), ..Policy::default() };
    let plan = plan(&daily(3), &policy, &mut |names| Ok(100 + names.len() as u64)).unwrap();
    assert_eq!((plan.removed().count(), plan.freed), (0, Some(Freed { wanted_bytes: 100, freed_bytes: 100 })));
}

#[test]
fn what_cannot_be_measured_stops_the_plan() {
    let policy = Policy { free: Some(1), ..Policy::default() };
    let failed = plan(&daily(3), &policy, &mut |_| Err(Error::Interrupted));
    assert!(matches!(failed, Err(Error::Interrupted)));
}

#[test]
fn times_beyond_the_calendar_do_no_harm() {
    let mut versions = daily(3);
    versions[0].imported_at = i64::MIN;
    versions[1].imported_at = i64::MAX;
    let policy = Policy { keep_within: Some(days(1)), keep_daily: Some(9), keep_weekly: Some(9), ..Policy::default() };
    assert_eq!(kept(&versions, &policy).len(), 3);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let name = prop_oneof![
        (0_u8..2, 0_u8..3, 0_u8..4).prop_map(|(a, b, c)| format!("v{a}.{b}.{c}")),
        (0_u8..2, 0_u8..2).prop_map(|(a, b)| format!("v1.{a}.{b}-rc.1")),
        "[a-c]{1,2}",
    ];
    let marks = (prop::bits::u16::masked(0x1ff), prop::collection::btree_set(0_usize..3, 0..2), 0_u8..4);
    prop::collection::vec((name, -400_i64..400, marks), 0..14).prop_map(|list| {
        let mut versions: BTreeMap<String, Candidate> = BTreeMap::new();
        for (at, (name, days_ago, (bits, roles, label))) in list.into_iter().enumerate() {
            let rarely = |bit: u16| bits & (1 << bit) != 0 && bits & 1 != 0;
            let mut candidate = version(&name, at as u64 + 1, days_ago);
            candidate.bad = bits & 2 != 0;
            candidate.good = rarely(2);
            candidate.was_current = bits & 8 != 0;
            candidate.left_by_rollback = rarely(4);
            candidate.pinned = rarely(5);
            candidate.on_trial = rarely(6) && rarely(7);
            candidate.clock_synchronised = !rarely(7);
            candidate.in_use = if rarely(8) { vec!["pid 1".into()] } else { Vec::new() };
            candidate.roles = roles.into_iter().filter(|_| bits & 1 != 0).map(|role| Role::ALL[role]).collect();
            candidate.labels = BTreeMap::from([("l".to_owned(), label.to_string())]);
            versions.insert(name, candidate);
        }
        versions.into_values().collect()
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let count = || prop::option::weighted(0.4, 0_u32..4);
    let labels = prop::collection::vec((Just("l".to_owned()), "[0-3]"), 0..2);
    let within = prop::option::weighted(0.4, (0_u64..500).prop_map(days));
    ((count(), count(), count(), count(), count()), within, labels).prop_map(|(counts, keep_within, keep_labels)| {
        Policy {
            keep_last: counts.0,
            keep_daily: counts.1,
            keep_weekly: counts.2,
            keep_monthly: counts.3,
            keep_minor: counts.4,
            keep_within,
            keep_labels,
            free: None,
        }
    })
}

fn removed_set(candidates: &[Candidate], policy: &Policy) -> BTreeSet<VersionName> {
    made(candidates, policy).removed().map(|decision| decision.name.clone()).collect()
}

/// Both policies at once: rule by rule the one that keeps more.
fn joined(a: &Policy, b: &Policy) -> Policy {
    Policy {
        keep_last: a.keep_last.max(b.keep_last),
        keep_within: a.keep_within.max(b.keep_within),
        keep_daily: a.keep_daily.max(b.keep_daily),
        keep_weekly: a.keep_weekly.max(b.keep_weekly),
        keep_monthly: a.keep_monthly.max(b.keep_monthly),
        keep_minor: a.keep_minor.max(b.keep_minor),
        keep_labels: [a.keep_labels.clone(), b.keep_labels.clone()].concat(),
        free: None,
    }
}

proptest! {
    #[test]
    fn nothing_protected_is_ever_removed(candidates in candidates(), policy in policies(), free in 0_u64..20) {
        let policy = Policy { free: Some(free + u64::from(policy.is_empty())), ..policy };
        let plan = plan(&candidates, &policy, &mut |names| Ok(names.len() as u64)).unwrap();
        let protections = protections(&candidates);
        for decision in &plan.versions {
            let candidate = candidates.iter().find(|candidate| candidate.name == decision.name).unwrap();
            let own = !candidate.roles.is_empty() || candidate.pinned || candidate.on_trial || !candidate.in_use.is_empty();
            prop_assert!(!own || decision.keep);
            prop_assert!(!protections.contains_key(&decision.name) || decision.keep);
            prop_assert!(!decision.reasons.is_empty());
            prop_assert_eq!(decision.keep, !decision.reasons.iter().any(|r| matches!(r, Reason::NoRuleKeeps | Reason::OldestRemovable)));
        }
        let newest_good = candidates.iter().filter(|c| c.good).max_by_key(|c| c.import_number);
        let newest_ran = candidates.iter().filter(|c| c.was_current && !c.left_by_rollback).max_by_key(|c| c.import_number);
        if let Some(healthy) = newest_good.or(newest_ran) {
            prop_assert!(protections.contains_key(&healthy.name));
        }
    }

    #[test]
    fn another_rule_never_removes_more(candidates in candidates(), a in policies(), b in policies()) {
        prop_assume!(!a.is_empty());
        let (fewer, more) = (removed_set(&candidates, &joined(&a, &b)), removed_set(&candidates, &a));
        prop_assert!(fewer.is_subset(&more), "{fewer:?} is not part of {more:?}");
    }

    #[test]
    fn freeing_space_removes_no_more_than_the_rules_allow(candidates in candidates(), policy in policies(), free in 1_u64..9) {
        prop_assume!(!policy.is_empty());
        let all = removed_set(&candidates, &policy);
        let some = plan(&candidates, &Policy { free: Some(free), ..policy }, &mut |names| Ok(names.len() as u64)).unwrap();
        let some: BTreeSet<VersionName> = some.removed().map(|decision| decision.name.clone()).collect();
        prop_assert!(some.is_subset(&all));
        prop_assert_eq!(some.len(), all.len().min(free as usize));
    }

    #[test]
    fn the_plan_does_not_depend_on_the_order_of_its_input(
        (candidates, shuffled) in candidates().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        policy in policies(),
    ) {
        prop_assume!(!policy.is_empty());
        prop_assert_eq!(made(&candidates, &policy), made(&shuffled, &policy));
    }
}
