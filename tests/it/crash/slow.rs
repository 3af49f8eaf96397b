//! A medium that takes its time: a command stands still before a sync, for as long as the medium likes, and whoever goes
//! back beside it does so at once.
//!
//! `current` must have changed before the first goes on. What follows the switch may wait: its record comes behind that of
//! a switch that was made before, and the history is one file. In the end both are done, recorded in the order in which
//! they were made, and nothing looks as if a hand had done it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::sample::{Plan, points};
use super::scene::{ALL, Base, HEAL, Operation, Scenes, command, discard, ran};
use super::trace::{self, Call, Fate};
use crate::checker;
use crate::supervise::{STEADY, Site};
use crate::support::{Outcome, Ran, needs_root};

/// Syncs of each operation, unless told otherwise.
const SAMPLE: usize = 4;
/// How long a switch may take on a machine that does a lot else.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long it is waited for before the test gives it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Operations beside which a rollback has somewhere to go.
const BESIDE: &[&str] = &[
    "import",
    "import-activate",
    "adopt",
    "activate",
    "rollback",
    "factory-set",
    "factory-isolated",
    "gc",
    "remove",
    "rebuild-index",
    "note",
    "link",
    "heal",
];

pub fn tests() -> Vec<Trial> {
    let repair: Operation = Operation { name: "repair", arguments: &["verify", "--repair"], ..ALL[4] };
    let chosen = ALL.iter().filter(|operation| BESIDE.contains(&operation.name)).copied().chain([repair]);
    let beside = |operation: Operation| {
        super::trial(&format!("slow::rollback-beside-{}", operation.name), move || goes_back_at_once(&operation))
    };
    let mut tests: Vec<Trial> = chosen.map(beside).collect();
    tests.push(super::trial("slow::rollback-beside-supervised", beside_a_supervised_switch));
    tests.push(super::trial("slow::own-syncs-come-after", own_syncs_come_after));
    tests
}

fn is_sync(call: &Call) -> bool {
    ["fsync", "syncfs"].contains(&call.name)
}

fn current(root: &Path) -> String {
    std::fs::read_link(root.join("versions/current")).expect("current is always there").display().to_string()
}

/// A rollback that was begun, and how long it took until it was seen.
struct Begun {
    ran: JoinHandle<Ran>,
    seen: Option<Duration>,
}

impl Begun {
    fn begin(mut command: Command, root: &Path) -> Self {
        let (before, start) = (current(root), Instant::now());
        command.args(["--json", "--lock-timeout", "30", "rollback", "--not-bad"]);
        // The tracer waits for all children of its thread.
        let ran = std::thread::spawn(move || Ran::of(&command.stdin(Stdio::null()).output().expect("the binary runs")));
        while current(root) == before && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { ran, seen: Some(start.elapsed()).filter(|_| current(root) != before) }
    }

    fn ended_well(self, when: &str) {
        let Self { ran, seen } = self;
        let ran = ran.join().expect("it ends");
        assert!(seen.is_some_and(|seen| seen < AT_ONCE), "{when}: seen after {seen:?}: {ran:#?}");
        let document = ran.ok().json();
        let told = document["switched_after_ms"].as_u64().expect("a number");
        assert!(u128::from(told) < AT_ONCE.as_millis(), "{when}: {document}");
        assert_eq!(
            (&document["recorded"], &document["external_changes"]),
            (&true.into(), &serde_json::json!([])),
            "{when}"
        );
    }
}

fn goes_back_at_once(operation: &Operation) -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(operation.base);
    let calls = points(&scenes.copy("reference"), operation);
    let numbers: Vec<usize> = (0..calls.len()).filter(|at| is_sync(&calls[*at])).collect();
    let syncs: Vec<Call> = numbers.iter().map(|at| calls[*at].clone()).collect();
    assert!(!syncs.is_empty(), "{calls:#?}");
    let plan = Plan::sampled("slow", operation.name, &syncs, SAMPLE);
    for point in plan.points() {
        let dir = scenes.copy("point");
        let when = format!("{}, stopped before call {}, {}", operation.name, numbers[point], syncs[point]);
        let (mut number, mut begun) = (0, None);
        let first = trace::run(&mut command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number == numbers[point] + 1 {
                begun = Some(Begun::begin(command(&dir, &[]), &dir.join("root")));
            }
            Fate::Happens
        });
        // Threads run side by side, so that the last calls of a run may be some more or less.
        if let Some(begun) = begun {
            begun.ended_well(&when);
        }
        assert_eq!(first.code, 0, "{when}: {first:#?}");
        let status = ran(&dir, &["--json", "status"]).ok().json();
        for role in ["current", "previous", "factory"] {
            assert_eq!(status[role]["changed_by_hand"], false, "{when}: {status}");
        }
        if operation.base == Base::Full {
            ran(&dir, HEAL).ok();
            checker::look(&dir.join("root")).settled(&when);
        }
        discard(&dir);
    }
    plan.done();
    Ok(())
}

/// Trials are written and ended, and services restarted, while an operator goes back.
fn beside_a_supervised_switch() -> Outcome {
    needs_root()?;
    let site = || {
        let site = Site::new().begun();
        site.release("1.1.0", STEADY);
        site.release("1.2.0", STEADY);
        site.fixture.run(&["activate", "1.1.0", "--restart"]).ok();
        site
    };
    let switch = |site: &Site, decide: &mut dyn FnMut(&Call) -> Fate| {
        let mut command = site.fixture.command();
        command.args(["activate", "1.2.0", "--restart"]);
        trace::run_alone(&mut command, &site.fixture.dir, decide)
    };
    let mut calls = Vec::new();
    switch(&site(), &mut |call| {
        calls.extend(Some(call.clone()).filter(is_sync));
        Fate::Happens
    })
    .ok();
    assert!(calls.iter().any(|call| call.path.contains("/staging/")), "no trial was written: {calls:#?}");
    let plan = Plan::sampled("slow", "supervised", &calls, SAMPLE);
    for point in plan.points() {
        let site = site();
        let when = format!("stopped before sync {point}, {}", calls[point]);
        let (mut number, mut begun) = (0, None);
        let first = switch(&site, &mut |call| {
            number += usize::from(is_sync(call));
            if number == point + 1 && is_sync(call) {
                begun = Some(Begun::begin(site.fixture.command(), &site.fixture.path("")));
            }
            Fate::Happens
        });
        assert!([0, 4].contains(&first.code), "{when}: {first:#?}");
        begun.expect("it came so far").ended_well(&when);
        let status = site.fixture.json(&["status", "--verify", "none"]);
        assert_eq!((&status["trial"], &status["current"]["changed_by_hand"]), (&().into(), &false.into()), "{when}");
    }
    plan.done();
    Ok(())
}

/// A rollback's own syncs come when its switch is visible, the trial's of a supervised one included.
fn own_syncs_come_after() -> Outcome {
    needs_root()?;
    for arguments in [&["rollback"][..], &["rollback", "--to", "1.0.0"], &["rollback", "--restart=all"]] {
        let site = Site::new().begun();
        site.release("1.1.0", STEADY);
        site.fixture.run(&["activate", "1.1.0"]).ok();
        let mut at_sync = Vec::new();
        let mut command = site.fixture.command();
        trace::run_alone(command.args(arguments), &site.fixture.dir, &mut |call| {
            at_sync.extend(is_sync(call).then(|| (call.clone(), site.current())));
            Fate::Happens
        })
        .ok();
        assert!(!at_sync.is_empty(), "{arguments:?}: nothing was made durable");
        assert!(at_sync.iter().all(|(_, current)| current == "v1.0.0"), "{arguments:?}: {at_sync:#?}");
    }
    Ok(())
}
