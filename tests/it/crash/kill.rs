//! Killed before every call.
//!
//! What must hold: at every instant nothing is wrong by the independent checker, what was there is there, `current`
//! leads to the old version or the new one; commands that only look go on working; the next ordinary command removes
//! what was left; and the operation, run again, ends where it would have ended.

use std::path::Path;

use libtest_mimic::Trial;

use super::sample::{Plan, points};
use super::scene::{ALL, End, HEAL, Operation, Scenes, VERSIONS, discard, killed, ran};
use super::scene::{Base, command};
use super::trace::{self, Fate};
use crate::checker;

pub fn tests() -> Vec<Trial> {
    let own = super::trial(
        "kill::the_next_command_removes_what_any_other_left",
        the_next_command_removes_what_any_other_left,
    );
    let each = ALL.iter().map(|operation| super::trial(&format!("kill::{}", operation.name), || whole(operation)));
    std::iter::once(own).chain(each).collect()
}

/// Not only the next command of its own kind.
fn the_next_command_removes_what_any_other_left() -> crate::support::Outcome {
    let cases: [(Base, &[&str], &str, &str); 5] = [
        (Base::Full, &["activate", "1.3.0"], "symlink", "versions/.next"),
        (Base::Full, &["activate", "1.3.0"], "rename", "versions/previous"),
        (Base::Full, &["activate", "1.3.0"], "rename", "versions/.switched"),
        (Base::Full, &["rebuild-index"], "rename", "store/index.db"),
        (Base::Long, &["note", "1.0.1", "seen"], "rename", "store/history"),
    ];
    for (base, arguments, name, path) in cases {
        let scenes = Scenes::new(base);
        let dir = scenes.copy("point");
        killed(&dir, arguments, |call| call.name == name && call.path.ends_with(path));
        let when = format!("{arguments:?} killed before {name} {path}");
        let left = checker::look(&dir.join("root")).sound(&when).left;
        assert_eq!(left.len(), 1, "{when}: {left:?}");
        ran(&dir, HEAL).ok();
        checker::look(&dir.join("root")).settled(&when);
    }
    Ok(())
}

fn whole(operation: &Operation) -> crate::support::Outcome {
    crate::support::needs_root()?;
    let scenes = Scenes::new(operation.base);
    let reference = scenes.copy("reference");
    let calls = points(&reference, operation);
    let reference = end(operation, &reference, "untouched");
    let plan = Plan::new("kill", operation.name, &calls);
    for point in plan.points() {
        // Once as it is, once healed by another command before. A copy would not do: adoption knows trees by inode.
        for healed in [false, true] {
            let dir = scenes.copy("point");
            let when = format!("{}, killed before call {point}, {}", operation.name, calls[point]);
            let mut number = 0;
            let died = trace::run(&mut command(&dir, operation.arguments), &dir, &mut |_| {
                number += 1;
                if number == point + 1 { Fate::Killed } else { Fate::Happens }
            });
            // Threads run side by side, so that the last calls of a run may be some more or less.
            assert!(died.code == -9 || point + 3 > calls.len(), "{when}: {died:#?}");
            at_once(operation, &dir, &when);
            afterwards(operation, &dir, &reference, healed, &when);
            discard(&dir);
        }
    }
    plan.done();
    Ok(())
}

/// What must hold of a rerun after an operation died, and of what it comes to.
pub fn afterwards(operation: &Operation, dir: &Path, reference: &End, healed: bool, when: &str) {
    let when = &format!("{when}{}", if healed { ", healed" } else { "" });
    if healed && operation.base != Base::Bare {
        ran(dir, HEAL).ok();
        let seen = checker::look(&dir.join("root")).settled(when);
        assert_there(operation, &seen, when);
    }
    if needs_again(operation, dir) {
        let again = ran(dir, operation.arguments);
        assert!(again.code == 0 || operation.again.contains(&again.code), "{when}, again: {again:#?}");
    }
    assert_eq!(&end(operation, dir, when), reference, "{when}");
    let verified = ran(dir, &["--json", "verify"]).json();
    assert_eq!((&verified["ok"], &verified["problems"]), (&true.into(), &serde_json::json!([])), "{when}");
    assert_listed(dir, when);
}

/// What a scene comes to, healed, and with an event behind whatever was torn.
pub fn end(operation: &Operation, dir: &Path, when: &str) -> End {
    ran(dir, HEAL).ok();
    if operation.base != Base::Bare && operation.base != Base::Empty {
        ran(dir, &["note", "1.3.0", "still here"]).ok();
    }
    End::of(dir, operation.loose, when)
}

/// What holds at every instant.
pub fn at_once(operation: &Operation, dir: &Path, when: &str) {
    if operation.base == Base::Bare && !dir.join("root/store/format").exists() {
        return;
    }
    let seen = checker::look(&dir.join("root")).sound(when);
    assert_there(operation, &seen, when);
    for looking in [&["status"][..], &["list"], &["history"]] {
        let looked = ran(dir, looking);
        let nothing_current = looking == ["status"] && !seen.roles.contains_key("current");
        assert_eq!(looked.code, if nothing_current { 3 } else { 0 }, "{when}: {looking:?}: {looked:#?}");
    }
}

/// Versions that nobody removes are there, and `current` leads to one of two.
fn assert_there(operation: &Operation, seen: &checker::Seen, when: &str) {
    if matches!(operation.base, Base::Bare | Base::Empty) {
        return;
    }
    for version in VERSIONS.iter().filter(|version| !operation.changing.contains(version)) {
        assert!(seen.versions.contains_key(*version), "{when}: {version} is gone: {seen:#?}");
    }
    let current = seen.roles.get("current").map(String::as_str).unwrap_or_default();
    assert!(operation.current.contains(&current), "{when}: current leads to {current:?}");
    assert!(seen.roles.contains_key("factory"), "{when}: no factory");
    assert!(seen.unmanaged.iter().all(|name| name == "v0.9.0"), "{when}: {:?}", seen.unmanaged);
}

/// A rollback that happened is not to be made twice.
fn needs_again(operation: &Operation, dir: &Path) -> bool {
    let current = std::fs::read_link(dir.join("root/versions/current")).unwrap_or_default();
    !(operation.arguments[0] == "rollback" && current.to_str() != Some(operation.current[0]))
}

/// The index tells what manifests tell.
fn assert_listed(dir: &Path, when: &str) {
    let listed = ran(dir, &["--json", "list"]).json();
    let listed = listed["versions"].as_array().expect("a list").iter();
    let managed = listed.filter(|version| version["state"] != "unmanaged");
    let pair = |version: &serde_json::Value| {
        let text = |field: &str| version[field].as_str().unwrap_or_default().to_owned();
        (text("name"), text("digest"))
    };
    let listed: std::collections::BTreeMap<String, String> = managed.map(pair).collect();
    assert_eq!(listed, checker::look(&dir.join("root")).versions, "{when}");
}
