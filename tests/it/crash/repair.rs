//! What mends a damaged store, killed before each of its system calls, or with the power going there: a repair, and an
//! import that has the right bytes of an object that was found damaged.
//!
//! It begins with a store that is damaged, so that the checker cannot be asked at once. Instead: at every point each name
//! that was there is there, and is as it was or as it is to be; and what is run again ends where an undisturbed one does.

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

const IMPORT: Operation = Operation {
    name: "import-renewing",
    arguments: &["import", "next", "--version", "1.4.0"],
    changing: &["v1.4.0"],
    ..REPAIR
};

/// An operation, and the damage that it mends.
#[derive(Clone, Copy)]
struct Mending {
    operation: &'static Operation,
    damage: fn(&Path),
}

const MENDINGS: [Mending; 2] =
    [Mending { operation: &REPAIR, damage }, Mending { operation: &IMPORT, damage: revoked }];

pub fn tests() -> Vec<Trial> {
    let of = |mending: Mending| {
        let name = mending.operation.name;
        let cut = move |medium: &'static Medium| {
            trial(&format!("power::{}-{name}", medium.name), move || cut(medium, mending))
        };
        std::iter::once(trial(&format!("kill::{name}"), move || kill(mending))).chain(MEDIA.iter().map(cut))
    };
    MENDINGS.into_iter().flat_map(of).collect()
}

/// An object that all versions have, wrong in its bytes alone, and found.
fn revoked(dir: &Path) {
    corrupt_common(dir);
    ran(dir, &["verify"]).expect(5);
}

fn corrupt_common(dir: &Path) {
    // One inode that all versions share, changed without a trace but its bytes.
    let common = dir.join("root/versions/v1.1.0/lib/common");
    let before = std::fs::metadata(&common).unwrap();
    std::fs::set_permissions(&common, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&common, "not what it was").unwrap();
    std::fs::set_permissions(&common, before.permissions()).unwrap();
    std::fs::File::open(&common).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

/// One of everything that a repair mends.
fn damage(dir: &Path) {
    let versions = dir.join("root/versions");
    corrupt_common(dir);
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

fn kill(Mending { operation, damage }: Mending) -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(operation.base);
    let damaged = scenes.copy("damaged");
    damage(&damaged);
    let reference = copy(&damaged, &damaged.with_extension("reference"));
    ran(&reference, &["verify"]).expect(5);
    let reference = copy(&damaged, &reference);
    let calls = points(&reference, operation);
    let (before, after) = (trees(&damaged), trees(&reference));
    ran(&reference, &["verify"]).ok();
    let plan = Plan::new("kill", operation.name, &calls);
    for point in plan.points() {
        let dir = copy(&damaged, &damaged.with_extension("point"));
        let when = format!("{}, killed before call {point}, {}", operation.name, calls[point]);
        let mut number = 0;
        let died = trace::run(&mut scene::command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number == point + 1 { Fate::Killed } else { Fate::Happens }
        });
        assert!(died.code == -9 || point + 3 > calls.len(), "{when}: {died:#?}");
        assert_heals(operation, &dir, (&before, &after), &when);
        discard(&dir);
    }
    plan.done();
    Ok(())
}

fn cut(medium: &'static Medium, Mending { operation, damage }: Mending) -> Outcome {
    needs_root()?;
    let stage = Stage::prepared(medium, |scene| {
        scene::prepare(scene, operation.base);
        damage(scene);
    })?;
    let dir = stage.scene();
    stage.begin()?;
    let before = trees(&dir);
    let calls = points(&dir, operation);
    let after = trees(&dir);
    stage.image.unmount()?;
    let plan = Plan::sampled(&format!("power-{}", medium.name), operation.name, &calls, SAMPLE);
    for point in plan.points() {
        stage.begin()?;
        let when = format!("{}, cut off before call {point}, {}", operation.name, calls[point]);
        let mut number = 0;
        trace::run(&mut scene::command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number != point + 1 {
                return Fate::Happens;
            }
            stage.shut_down();
            Fate::Killed
        });
        stage.come_back()?;
        assert_heals(operation, &dir, (&before, &after), &when);
        stage.image.unmount()?;
    }
    stage.begin()?;
    ran(&dir, operation.arguments).ok();
    stage.shut_down();
    stage.come_back()?;
    assert_eq!(trees(&dir), after, "{}, cut off behind its end", operation.name);
    stage.image.unmount()?;
    plan.done();
    Ok(())
}

/// Each name is old or new, the store can be looked at, and what is run again ends where an undisturbed run does.
fn assert_heals(operation: &Operation, dir: &Path, (before, after): (&Trees, &Trees), when: &str) {
    assert_old_or_new(&trees(dir), before, after, when);
    for looking in [&["status"][..], &["list"], &["history"]] {
        assert_eq!(ran(dir, looking).code, 0, "{when}: {looking:?}");
    }
    ran(dir, operation.arguments).ok();
    assert_eq!(&trees(dir), after, "{when}, again");
    let verified = ran(dir, &["--json", "verify"]).ok().json();
    assert_eq!(verified["problems"], serde_json::json!([]), "{when}");
    ran(dir, scene::HEAL).ok();
    let seen = checker::look(&dir.join("root")).settled(when);
    assert_eq!(seen.past.revoked, Default::default(), "{when}");
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
