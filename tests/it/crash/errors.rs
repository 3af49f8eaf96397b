//! The system refuses a call: no space, no quota, a broken medium, no descriptor, too many links, another device, not
//! allowed; or it is interrupted, or writes only a part.
//!
//! What must hold: no panic; an exit code of the contract and a message that names a path; nothing wrong by the
//! independent checker; the next ordinary command removes what was left; the operation, run again, ends where it would
//! have ended. An interrupted call and a short write change nothing at all, and what could not be made durable is never
//! reported as done.

use libtest_mimic::Trial;

use super::kill::{afterwards, at_once, end};
use super::sample::{Plan, points};
use super::scene::{ALL, Base, Operation, Scenes, command, discard};
use super::trace::{self, Call, Fate};
use crate::support::{Outcome, Ran, needs_root};

/// Points of each operation for each error, unless told otherwise.
const SAMPLE: usize = 2;

/// A way in which a call goes wrong.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    name: &'static str,
    fate: Fate,
    /// Calls that can go wrong so; all if none is named.
    calls: &'static [&'static str],
    /// Nobody must notice.
    transparent: bool,
}

const fn fails(name: &'static str, number: i32, calls: &'static [&'static str]) -> Wrong {
    Wrong { name, fate: Fate::Fails(number), calls, transparent: false }
}

const SYNCS: &[&str] = &["fsync", "syncfs"];
const WRITES: &[&str] = &["write", "pwrite"];
/// What a signal may interrupt on one file system or another.
const INTERRUPTIBLE: &[&str] = &["open", "write", "pwrite", "fsync", "syncfs", "fallocate"];

const ALL_WRONGS: [Wrong; 9] = [
    fails("enospc", libc::ENOSPC, &["open", "write", "pwrite", "mkdir", "link", "symlink", "rename", "fallocate"]),
    fails("edquot", libc::EDQUOT, &["open", "write", "pwrite", "mkdir", "link", "symlink", "rename", "fallocate"]),
    fails("eio", libc::EIO, &[]),
    fails("emfile", libc::EMFILE, &["open"]),
    fails("emlink", libc::EMLINK, &["link"]),
    fails("exdev", libc::EXDEV, &["link", "rename"]),
    fails("eperm", libc::EPERM, &["chmod", "chown", "link", "unlink", "setxattr"]),
    Wrong { name: "eintr", fate: Fate::Fails(libc::EINTR), calls: INTERRUPTIBLE, transparent: true },
    Wrong { name: "short", fate: Fate::Short, calls: WRITES, transparent: true },
];

pub fn tests() -> Vec<Trial> {
    let one = |wrong: &'static Wrong| super::trial(&format!("errors::{}", wrong.name), move || tried(wrong));
    ALL_WRONGS.iter().map(one).collect()
}

fn tried(wrong: &'static Wrong) -> Outcome {
    needs_root()?;
    let mut bases: Vec<(Base, Scenes)> = Vec::new();
    for operation in ALL {
        if !bases.iter().any(|(base, _)| *base == operation.base) {
            bases.push((operation.base, Scenes::new(operation.base)));
        }
        let (_, scenes) = bases.iter().find(|(base, _)| *base == operation.base).expect("it was just made");
        of_operation(wrong, scenes, operation);
    }
    Ok(())
}

fn of_operation(wrong: &Wrong, scenes: &Scenes, operation: &Operation) {
    let reference = scenes.copy("reference");
    let all = points(&reference, operation);
    let reference = end(operation, &reference, "untouched");
    let fits = |call: &Call| wrong.calls.is_empty() || wrong.calls.contains(&call.name);
    let numbers: Vec<usize> = (0..all.len()).filter(|at| fits(&all[*at])).collect();
    let calls: Vec<Call> = numbers.iter().map(|at| all[*at].clone()).collect();
    let plan = Plan::sampled(&format!("error-{}", wrong.name), operation.name, &calls, SAMPLE);
    for (at, point) in plan.points().enumerate() {
        let dir = scenes.copy("point");
        let when = format!("{}, {} at call {}, {}", operation.name, wrong.name, numbers[point], calls[point]);
        let mut number = 0;
        let ran = trace::run(&mut command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number == numbers[point] + 1 { wrong.fate } else { Fate::Happens }
        });
        judge(wrong, &all, numbers[point], &ran, &when);
        at_once(operation, &dir, &when);
        // What an overlay would not let go stays, is said, and keeps nothing else from going.
        let kept = ran.stdout.contains("cannot be moved");
        if ran.code == 0 && !kept {
            let found = end(operation, &dir, &when);
            // Where a name could not be given, a copy was made, which is said and costs what it costs.
            let copied = ran.stderr.contains("copied");
            assert!(
                found == reference || (copied && found.without_bytes() == reference.without_bytes()),
                "{when}: {ran:#?}: {found:#?} instead of {reference:#?}"
            );
        } else {
            afterwards(operation, &dir, &reference, at % 2 == 0, &when);
        }
        discard(&dir);
    }
    plan.done();
}

fn judge(wrong: &Wrong, calls: &[Call], at: usize, ran: &Ran, when: &str) {
    let call = &calls[at];
    assert!(!ran.stderr.contains("panicked"), "{when}: {ran:#?}");
    assert!((0..=9).contains(&ran.code), "{when}: {ran:#?}");
    if wrong.transparent {
        assert_eq!(ran.code, 0, "{when}: {ran:#?}");
    }
    // What cannot be made durable is not done, but for the index, which is built again, and for a switch back, which
    // counts more and says so.
    let of_index = |at: usize| calls.get(at).is_some_and(|call| call.path.contains("index.db"));
    // A segment that cannot be kept is written on.
    let other_way = when.starts_with("history-segment");
    let derived = of_index(at) || (at > 0 && of_index(at - 1));
    let is_sync = SYNCS.contains(&call.name) && !derived && !other_way;
    if matches!(wrong.fate, Fate::Fails(libc::EIO)) && is_sync && ran.code == 0 {
        assert!(ran.stderr.contains("warning") || ran.stderr.contains("WARN"), "{when}: {ran:#?}");
    }
    if ran.code != 0 {
        assert!(ran.stderr.contains("error: "), "{when}: {ran:#?}");
    }
}
