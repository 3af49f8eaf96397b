//! A repair that is killed, or whose power goes, before each of its system calls.
//!
//! It begins with a store that is damaged, so that the checker cannot be asked at once. Instead: at every point each name
//! that was there is there, and is as it was or as it is to be; and a repair that is run again ends where an
//! undisturbed one does.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;

use super::power::{MEDIA, Medium, SAMPLE, Stage};
use super::sample::{Plan, points};
use super::scene::{Base, Operation, Scenes, copy, discard, ran};
use super::trace::{self, Fate};
use super::{scene, trial};
use crate::checker;
use crate::support::tree::{self, Described};
use crate::support::{Outcome, needs_root};

const REPAIR: Operation = Operation {
    name: "repair",
    base: Base::Full,
    arguments: &["verify", "--repair", "--from", "next"],
    changing: &[],
    current: &["v1.2.0"],
    loose: None,
    again: &[0],
};

pub fn tests() -> Vec<Trial> {
    let cut = |medium: &'static Medium| trial(&format!("power::{}-repair", medium.name), move || cut(medium));
    std::iter::once(trial("kill::repair", repair)).chain(MEDIA.iter().map(cut)).collect()
}

/// One of everything that a repair mends.
fn damage(dir: &Path) {
    let versions = dir.join("root/versions");
    // One inode that all versions share, changed without a trace but its bytes.
    let common = versions.join("v1.1.0/lib/common");
    let before = std::fs::metadata(&common).unwrap();
    std::fs::set_permissions(&common, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&common, "not what it was").unwrap();
    std::fs::set_permissions(&common, before.permissions()).unwrap();
    std::fs::File::open(&common).unwrap().set_modified(before.modified().unwrap()).unwrap();
    // A name in the store, names in trees, a directory, a manifest, a role.
    let own = blake3::hash("3".repeat(3000).as_bytes()).to_hex().to_string();
    let object = dir.join(format!("root/store/objects/{}/{}.0444.0.0", &own[..2], &own[2..]));
    std::fs::remove_file(object).unwrap();
    std::fs::remove_file(versions.join("v1.1.0/bin/api")).unwrap();
    std::fs::remove_file(versions.join("v1.1.0/lib/link")).unwrap();
    std::fs::remove_dir_all(versions.join("v1.3.0/bin")).unwrap();
    std::fs::write(versions.join("v1.3.0/bin"), "a file in its place").unwrap();
    std::fs::set_permissions(versions.join("v1.3.0/lib"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_file(versions.join("v1.0.0/lib/own")).unwrap();
    std::fs::remove_file(dir.join("root/store/manifests/v1.0.1")).unwrap();
    std::fs::remove_file(versions.join("factory")).unwrap();
}

fn trees(dir: &Path) -> BTreeMap<Vec<u8>, Described> {
    tree::describe(&dir.join("root/versions"), false)
}

fn repair() -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(REPAIR.base);
    let damaged = scenes.copy("damaged");
    damage(&damaged);
    ran(&damaged, &["verify"]).expect(5);
    let reference = copy(&damaged, &damaged.with_extension("reference"));
    let calls = points(&reference, &REPAIR);
    let (before, after) = (trees(&damaged), trees(&reference));
    ran(&reference, &["verify"]).ok();
    let plan = Plan::new("kill", REPAIR.name, &calls);
    for point in plan.points() {
        let dir = copy(&damaged, &damaged.with_extension("point"));
        let when = format!("repair, killed before call {point}, {}", calls[point]);
        let mut number = 0;
        let died = trace::run(&mut scene::command(&dir, REPAIR.arguments), &dir, &mut |_| {
            number += 1;
            if number == point + 1 { Fate::Killed } else { Fate::Happens }
        });
        assert!(died.code == -9 || point + 3 > calls.len(), "{when}: {died:#?}");
        assert_heals(&dir, &before, &after, &when);
        discard(&dir);
    }
    plan.done();
    Ok(())
}

fn cut(medium: &'static Medium) -> Outcome {
    needs_root()?;
    let stage = Stage::prepared(medium, |scene| {
        scene::prepare(scene, REPAIR.base);
        damage(scene);
    })?;
    let dir = stage.scene();
    stage.begin()?;
    let before = trees(&dir);
    let calls = points(&dir, &REPAIR);
    let after = trees(&dir);
    stage.image.unmount()?;
    let plan = Plan::sampled(&format!("power-{}", medium.name), REPAIR.name, &calls, SAMPLE);
    for point in plan.points() {
        stage.begin()?;
        let when = format!("repair, cut off before call {point}, {}", calls[point]);
        let mut number = 0;
        trace::run(&mut scene::command(&dir, REPAIR.arguments), &dir, &mut |_| {
            number += 1;
            if number != point + 1 {
                return Fate::Happens;
            }
            stage.shut_down();
            Fate::Killed
        });
        stage.come_back()?;
        assert_heals(&dir, &before, &after, &when);
        stage.image.unmount()?;
    }
    stage.begin()?;
    ran(&dir, REPAIR.arguments).ok();
    stage.shut_down();
    stage.come_back()?;
    assert_eq!(trees(&dir), after, "repair, cut off behind its end");
    stage.image.unmount()?;
    plan.done();
    Ok(())
}

/// Each name is old or new, the store can be looked at, and a repair that is run again ends where an undisturbed one does.
fn assert_heals(dir: &Path, before: &Trees, after: &Trees, when: &str) {
    assert_old_or_new(&trees(dir), before, after, when);
    for looking in [&["status"][..], &["list"], &["history"]] {
        assert_eq!(ran(dir, looking).code, 0, "{when}: {looking:?}");
    }
    ran(dir, REPAIR.arguments).ok();
    assert_eq!(&trees(dir), after, "{when}, again");
    let verified = ran(dir, &["--json", "verify"]).ok().json();
    assert_eq!(verified["problems"], serde_json::json!([]), "{when}");
    ran(dir, scene::HEAL).ok();
    checker::look(&dir.join("root")).settled(when);
}

type Trees = BTreeMap<Vec<u8>, Described>;

/// Every name is as it was or as it is to be. What of a directory is being made anew may be there in part, and the
/// protection of directories may be lifted.
fn assert_old_or_new(found: &Trees, before: &Trees, after: &Trees, when: &str) {
    let same = |found: &Described, wanted: Option<&Described>| {
        wanted.is_some_and(|wanted| {
            let directories = found.kind == 'd' && wanted.kind == 'd';
            directories || found == wanted
        })
    };
    for (path, now) in found.iter().filter(|(path, _)| !path.starts_with(b".")) {
        let shown = String::from_utf8_lossy(path);
        assert!(same(now, before.get(path)) || same(now, after.get(path)), "{when}: {shown} is {now:?}");
    }
    for path in before.keys().filter(|path| after.contains_key(*path)) {
        assert!(found.contains_key(path), "{when}: {} is gone", String::from_utf8_lossy(path));
    }
}
