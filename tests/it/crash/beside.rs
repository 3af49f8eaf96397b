//! Two commands at once, at their worst: one is stopped before each of its calls in turn while another runs from its
//! beginning to its end; then the first goes on.
//!
//! The other does not wait: where the first holds a lock that it needs, it must say so, name the holder, and have done
//! nothing. Looking must work at every instant. Afterwards both have done what they do one after the other, nothing is
//! wrong by the independent checker, nothing is left, and `current` was never seen missing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;

use super::sample::{Plan, points};
use super::scene::{Base, HEAL, Operation, Scenes, command, discard, killed, ran};
use super::trace::{self, Fate};
use crate::checker;
use crate::support::{Fixture, Outcome, Ran, needs_root, run_as};

/// Points of each pair, unless told otherwise.
const SAMPLE: usize = 6;

/// Two commands on a full store.
struct Pair {
    name: &'static str,
    first: &'static [&'static str],
    other: &'static [&'static str],
    /// How the first may end, beside 0.
    first_codes: &'static [i32],
    /// How the other may end, beside 0 and 6 (somebody holds the lock).
    other_codes: &'static [i32],
}

const fn pair(name: &'static str, first: &'static [&'static str], other: &'static [&'static str]) -> Pair {
    Pair { name, first, other, first_codes: &[], other_codes: &[] }
}

const IMPORT: &[&str] = &["import", "next", "--version", "1.4.0"];

const PAIRS: &[Pair] = &[
    pair("import-import-same", IMPORT, IMPORT),
    pair("import-import-others-contents", IMPORT, &["import", "next.tar", "--version", "1.5.0"]),
    Pair {
        first_codes: &[4],
        other_codes: &[4],
        ..pair("import-import-other-contents-same-name", IMPORT, &["import", "bin", "--version", "1.4.0"])
    },
    pair("import-gc", IMPORT, &["gc", "--keep-last", "1"]),
    pair("gc-import", &["gc", "--keep-last", "1"], IMPORT),
    Pair { other_codes: &[3], ..pair("gc-activate", &["gc", "--keep-last", "1"], &["activate", "1.0.1"]) },
    Pair {
        first_codes: &[4],
        other_codes: &[3, 4],
        ..pair("remove-activate", &["remove", "1.0.1"], &["activate", "1.0.1"])
    },
    // One that only could not record what it removed is completed by the command that follows.
    Pair {
        first_codes: &[4],
        other_codes: &[3],
        ..pair("activate-remove", &["activate", "1.0.1"], &["remove", "1.0.2"])
    },
    pair("activate-rollback", &["activate", "1.3.0"], &["rollback"]),
    pair("import-rollback", IMPORT, &["rollback"]),
    pair("gc-rollback", &["gc", "--keep-last", "1"], &["rollback"]),
    pair("repair-gc", &["verify", "--repair"], &["gc", "--keep-last", "1"]),
    pair("gc-verify", &["gc", "--keep-last", "1"], &["verify"]),
    Pair { first_codes: &[4], ..pair("adopt-import", &["adopt", "v0.9.0"], IMPORT) },
    pair("rebuild-import", &["rebuild-index"], IMPORT),
    pair("import-rebuild", IMPORT, &["rebuild-index"]),
    pair("note-note", &["note", "1.0.1", "one"], &["note", "1.0.2", "two"]),
    Pair {
        first_codes: &[3],
        ..pair("factory-gc", &["factory", "set", "1.0.1", "--replace"], &["gc", "--keep-last", "1"])
    },
];

pub fn tests() -> Vec<Trial> {
    let one = |pair: &'static Pair| super::trial(&format!("beside::{}", pair.name), move || together(pair));
    let mut tests: Vec<Trial> = PAIRS.iter().map(one).collect();
    tests.push(super::trial("beside::rotations", rotations));
    tests.push(super::trial("beside::a_switch_is_no_damage", a_switch_is_no_damage));
    tests
}

fn operation(pair: &Pair) -> Operation {
    Operation {
        name: pair.name,
        base: Base::Full,
        arguments: pair.first,
        changing: &[],
        current: &[],
        loose: None,
        again: &[],
    }
}

fn together(pair: &'static Pair) -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(Base::Full);
    let calls = points(&scenes.copy("reference"), &operation(pair));
    // The index has its own locks, on which others wait for as long as they wait for anything; that is no danger, only
    // slow where the holder stands still.
    let numbers: Vec<usize> = (0..calls.len()).filter(|at| !calls[*at].path.contains("index.db")).collect();
    let calls: Vec<trace::Call> = numbers.iter().map(|at| calls[*at].clone()).collect();
    let plan = Plan::sampled("beside", pair.name, &calls, SAMPLE);
    for point in plan.points() {
        let dir = scenes.copy("point");
        let when = format!("{}, stopped before call {}, {}", pair.name, numbers[point], calls[point]);
        let (mut number, mut other) = (0, None);
        let first = trace::run(&mut command(&dir, pair.first), &dir, &mut |_| {
            number += 1;
            if number == numbers[point] + 1 {
                other = Some(meanwhile(pair, &dir, &when));
            }
            Fate::Happens
        });
        let allowed = |codes: &[i32], ran: &Ran| ran.code == 0 || codes.contains(&ran.code);
        assert!(allowed(pair.first_codes, &first), "{when}: {first:#?}");
        if let Some(other) = other.filter(|other| other.code == 6) {
            assert!(other.stderr.contains("pid "), "{when}: nobody is named: {other:#?}");
            let later = ran(&dir, pair.other);
            assert!(allowed(pair.other_codes, &later), "{when}: {later:#?}");
        }
        ran(&dir, HEAL).ok();
        checker::look(&dir.join("root")).settled(&when);
        let verified = ran(&dir, &["--json", "verify"]).json();
        assert_eq!((&verified["ok"], &verified["problems"]), (&true.into(), &serde_json::json!([])), "{when}");
        discard(&dir);
    }
    plan.done();
    Ok(())
}

/// What runs while the first command stands still.
fn meanwhile(pair: &Pair, dir: &Path, when: &str) -> Ran {
    let looks = |when: &str| {
        for looking in [&["status"][..], &["list"], &["history"], &["show", "1.2.0"]] {
            let looked = ran(dir, looking);
            assert_eq!(looked.code, 0, "{when}: {looking:?}: {looked:#?}");
        }
        let current = std::fs::metadata(dir.join("root/versions/current/bin/api"));
        assert!(current.is_ok(), "{when}: current is not there");
    };
    looks(when);
    checker::look(&dir.join("root")).sound(when);
    let other = ran(dir, &[&["--lock-timeout", "0"], pair.other].concat());
    let expected = other.code == 0 || other.code == 6 || pair.other_codes.contains(&other.code);
    assert!(expected, "{when}: {other:#?}");
    // The fire exit waits for nobody but another switch.
    if pair.other[0] == "rollback" && pair.first[0] != "activate" {
        assert!(other.code == 0 || other.stderr.contains("refs.lock"), "{when}: {other:#?}");
    }
    looks(when);
    checker::look(&dir.join("root")).sound(when);
    other
}

/// An object has as many links as it can have just when another import has published with it: the first takes a fresh
/// inode under the same name, and both versions are whole.
fn rotations() -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(Base::Full);
    let import = Operation { arguments: IMPORT, ..operation(&PAIRS[0]) };
    let calls = points(&scenes.copy("reference"), &import);
    let links: Vec<usize> =
        (0..calls.len()).filter(|at| calls[*at].name == "link" && calls[*at].path.contains("/tree/")).collect();
    assert!(!links.is_empty(), "{calls:#?}");
    for point in links {
        let dir = scenes.copy("point");
        let when = format!("rotation at call {point}, {}", calls[point]);
        let mut number = 0;
        let first = trace::run(&mut command(&dir, IMPORT), &dir, &mut |_| {
            number += 1;
            if number != point + 1 {
                return Fate::Happens;
            }
            // It publishes what the first one is about to link.
            ran(&dir, &["import", "next", "--version", "1.5.0"]).ok();
            Fate::Fails(libc::EMLINK)
        });
        assert_eq!(first.code, 0, "{when}: {first:#?}");
        checker::look(&dir.join("root")).sound(&when);
        ran(&dir, HEAL).ok();
        let verified = ran(&dir, &["--json", "verify"]).json();
        assert_eq!((&verified["ok"], &verified["problems"]), (&true.into(), &serde_json::json!([])), "{when}");
        discard(&dir);
    }
    Ok(())
}

/// After an activation that died before it was recorded, going back leads where the history says again, only `previous`
/// is not there yet: whoever verifies just then waits, or looks again, before calling that damage.
fn a_switch_is_no_damage() -> Outcome {
    const ROLLBACK: &[&str] = &["rollback", "--reason", "it died"];
    needs_root()?;
    let scenes = Scenes::new(Base::Full);
    let scene = |name: &str| {
        let dir = scenes.copy(name);
        killed(&dir, &["activate", "1.3.0"], |call| call.name == "write" && call.path.ends_with("store/history"));
        dir
    };
    // A user who may not take the lock that is waited for, and root, who may.
    let looking = |dir: &Path, words: &'static [&'static str], user: u32| {
        let fixture = Fixture::at(dir);
        std::thread::spawn(move || run_as(&fixture, user, words))
    };
    let calls = points(&scene("reference"), &Operation { arguments: ROLLBACK, ..operation(&PAIRS[0]) });
    let mut unfinished = 0;
    for (point, call) in calls.iter().enumerate() {
        let dir = scene("point");
        let above = dir.parent().expect("it lies in another");
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        // It makes the copy of the binary that both use.
        run_as(&Fixture::at(&dir), 65534, &["--version"])?.ok();
        let when = format!("stopped before call {point}, {call}");
        let (mut number, mut lookers) = (0, Vec::new());
        trace::run(&mut command(&dir, ROLLBACK), &dir, &mut |_| {
            number += 1;
            if number == point + 1 {
                for user in [0, 65534] {
                    lookers.push(looking(&dir, &["--json", "verify", "--quick"], user));
                    lookers.push(looking(&dir, &["--json", "doctor"], user));
                }
                std::thread::sleep(std::time::Duration::from_millis(150));
                unfinished += usize::from(lookers.iter().any(|looker| !looker.is_finished()));
            }
            Fate::Happens
        })
        .ok();
        for looker in lookers {
            let looked = looker.join().expect("it ends")?;
            let missing = ["role-missing", "it is not there"].iter().any(|finding| looked.stdout.contains(finding));
            assert!(!missing, "{when}: {looked:#?}");
            assert!(looked.json().get("error").is_none(), "{when}: it could not look: {looked:#?}");
        }
        ran(&dir, &["verify", "--quick"]).ok();
        discard(&dir);
    }
    assert!(unfinished > 0, "nobody had to wait: {calls:#?}");
    Ok(())
}
