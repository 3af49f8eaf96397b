//! `verify`: every kind of damage is found, and named by version and path.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tope_store::layout::Layout;
use tope_store::model::Manifest;
use tope_store::observe::{Observer, Stage, Work};
use tope_store::ops;
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, Outcome, Ran, tree};

tests![
    a_sound_store_is_said_to_be_sound,
    what_was_written_through_a_link_is_found_in_every_version,
    a_flipped_bit_with_the_old_time_is_found_by_reading_only,
    a_lost_object_is_found_though_every_tree_is_whole,
    damage_in_a_tree_is_named_by_version_and_path,
    damaged_manifests_history_and_links_are_found,
    a_manifest_that_contradicts_itself_is_damage,
    a_manifest_that_was_not_published_is_damage,
    one_version_can_be_verified_alone,
    the_newest_user_says_what_an_object_is_whatever_the_names_and_the_history,
    among_many_files_objects_are_what_trees_prove_or_their_names_show,
    among_many_files_a_changed_inode_is_read,
    a_version_that_is_replaced_meanwhile_is_no_damage,
    a_store_that_came_through_an_archive_is_as_good_as_before,
];

fn store() -> Fixture {
    let fixture = Fixture::new();
    tree::release(fixture.beside("one"), 1);
    tree::release(fixture.beside("two"), 2);
    fixture.import("one", "1.0.0");
    fixture.import("two", "1.1.0");
    fixture
}

fn verify(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let ran = Ran::of(&fixture.command().args(["--json", "verify"]).args(arguments).output().unwrap());
    ran.expect(code).json()
}

/// Kind, version and path of every problem.
fn problems(document: &Value) -> Vec<String> {
    let all = document["problems"].as_array().unwrap().iter();
    all.map(|problem| {
        let text = |field: &str| problem[field].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("kind"), text("version"), text("path"))
    })
    .collect()
}

/// Changes a sealed file as only its owner's or root's mistake can.
fn overwrite(path: &Path, bytes: &[u8], keep_time: bool) {
    let before = std::fs::metadata(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
    if keep_time {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    }
}

fn object_of(fixture: &Fixture, contents: &[u8]) -> PathBuf {
    let hex = blake3::hash(contents).to_hex().to_string();
    let dir = fixture.path(format!("store/objects/{}", &hex[..2]));
    let mut found = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    found.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&hex[2..])).unwrap()
}

fn a_sound_store_is_said_to_be_sound() -> Outcome {
    let fixture = store();
    for arguments in [&[][..], &["--quick"], &["--cached"]] {
        let document = verify(&fixture, arguments, 0);
        assert_eq!((&document["ok"], problems(&document)), (&true.into(), vec![]), "{arguments:?}");
        assert_eq!((&document["versions"], &document["objects"]), (&2.into(), &7.into()));
    }
    let read = |arguments: &[&str]| verify(&fixture, arguments, 0)["read_files"].as_u64();
    assert_eq!((read(&["--quick"]), read(&[])), (Some(0), Some(7)), "each inode once");
    Ok(())
}

fn what_was_written_through_a_link_is_found_in_every_version() -> Outcome {
    let fixture = store();
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), &[8; 100_000], false);
    for arguments in [&[][..], &["--quick"]] {
        let found = problems(&verify(&fixture, arguments, 5));
        assert!(found.contains(&"modified v1.0.0 lib/common.so".to_owned()), "{found:?}");
        assert!(found.contains(&"modified v1.1.0 lib/common.so".to_owned()), "{found:?}");
        assert_eq!(found.len(), 3, "and the object itself: {found:?}");
    }
    Ok(())
}

fn a_flipped_bit_with_the_old_time_is_found_by_reading_only() -> Outcome {
    let fixture = store();
    let mut bytes = vec![7; 100_000];
    bytes[50_000] ^= 1;
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), &bytes, true);
    assert_eq!(problems(&verify(&fixture, &["--quick"], 0)), Vec::<String>::new());
    let found = problems(&verify(&fixture, &[], 5));
    assert!(found.contains(&"content v1.1.0 lib/common.so".to_owned()), "{found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    Ok(())
}

fn a_lost_object_is_found_though_every_tree_is_whole() -> Outcome {
    let fixture = store();
    let object = object_of(&fixture, &[7; 100_000]);
    std::fs::remove_file(&object).unwrap();
    let name = object.strip_prefix(fixture.root()).unwrap().display().to_string();
    assert_eq!(problems(&verify(&fixture, &[], 5)), [format!("object v1.0.0 {name}")]);
    std::fs::create_dir(&object).unwrap();
    assert_eq!(problems(&verify(&fixture, &["--quick"], 5)), [format!("object v1.0.0 {name}")]);
    Ok(())
}

fn damage_in_a_tree_is_named_by_version_and_path() -> Outcome {
    let fixture = store();
    let top = fixture.path("versions/v1.1.0");
    std::fs::remove_file(top.join("bin/web-server")).unwrap();
    std::fs::remove_file(top.join("lib/common.so.1")).unwrap();
    std::os::unix::fs::symlink("elsewhere", top.join("lib/common.so.1")).unwrap();
    std::fs::remove_file(top.join("bin/device-api")).unwrap();
    std::fs::create_dir(top.join("bin/device-api")).unwrap();
    std::fs::remove_dir(top.join("empty")).unwrap();
    std::fs::write(top.join("lib/lock"), "no longer empty")
        .unwrap_or_else(|_| overwrite(&top.join("lib/lock"), b"x", false));
    std::fs::write(top.join("services/stranger"), "").unwrap();
    let expected = [
        "type v1.1.0 bin/device-api",
        "missing v1.1.0 bin/web-server",
        "missing v1.1.0 empty",
        "target v1.1.0 lib/common.so.1",
        "size v1.1.0 lib/lock",
        "unexpected v1.1.0 services/stranger",
    ];
    for arguments in [&[][..], &["--quick"]] {
        let mut found = problems(&verify(&fixture, arguments, 5));
        found.sort_by_key(|line| line.rsplit(' ').next().unwrap().to_owned());
        assert_eq!(found, expected, "{arguments:?}");
    }
    Ok(())
}

fn damaged_manifests_history_and_links_are_found() -> Outcome {
    let fixture = store();
    let manifest = fixture.path("store/manifests/v1.0.0");
    let mut bytes = std::fs::read(&manifest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    std::fs::write(&manifest, bytes).unwrap();
    let history = fixture.path("store/history");
    let text = std::fs::read_to_string(&history).unwrap().replacen("\"import\"", "\"imporT\"", 1);
    std::fs::write(&history, text).unwrap();
    std::os::unix::fs::symlink("v9", fixture.path("versions/previous")).unwrap();
    let found = problems(&verify(&fixture, &[], 5));
    assert_eq!(
        found,
        ["manifest v1.0.0 store/manifests/v1.0.0", "history - store/history", "link - versions/previous"]
    );
    Ok(())
}

fn the_newest_user_says_what_an_object_is_whatever_the_names_and_the_history() -> Outcome {
    // Beside many others it is its tree that proves it.
    for others in [0, 600] {
        let fixture = Fixture::new();
        tree::release(fixture.beside("one"), 1);
        for number in 0..others {
            tree::file(fixture.beside(format!("one/many/{number}")), format!("contents {number}"));
        }
        fixture.import("one", "2.0.0");
        // The next import misses the object and makes one with a time of its own, which only its manifest records.
        overwrite(&fixture.path("versions/v2.0.0/lib/common.so"), &[8; 100_000], false);
        std::fs::remove_file(object_of(&fixture, &[7; 100_000])).unwrap();
        tree::file(fixture.beside("one/lib/common.so"), vec![7; 100_000]);
        fixture.import("one", "1.0.0");
        for lose_history in [false, true] {
            if lose_history {
                std::fs::remove_file(fixture.path("store/history")).unwrap();
            }
            let found = problems(&verify(&fixture, &[], 5));
            assert!(found.contains(&"modified v2.0.0 lib/common.so".to_owned()), "{found:?}");
            let objects: Vec<&String> = found.iter().filter(|problem| problem.starts_with("object")).collect();
            assert_eq!(objects, Vec::<&String>::new(), "{others} others, lost history: {lose_history}");
        }
    }
    Ok(())
}

/// What no tree proves of an object is found out by its own name, and each is counted and read once.
fn among_many_files_objects_are_what_trees_prove_or_their_names_show() -> Outcome {
    let fixture = Fixture::new();
    for (release, changed) in [("one", 0), ("two", 100)] {
        for number in 0..600 {
            let of = if number < changed { release } else { "both" };
            tree::file(fixture.beside(format!("{release}/d{}/f{number}", number % 7)), format!("{number:03} of {of}"));
        }
    }
    fixture.import("one", "1.0.0");
    fixture.import("two", "2.0.0");
    for (depth, read) in [(&[][..], 700), (&["--quick"], 0)] {
        let whole = verify(&fixture, depth, 0);
        assert_eq!((&whole["objects"], &whole["read_files"]), (&700.into(), &read.into()), "{depth:?}");
    }
    let store = fixture.path("store");
    let name = |bytes: &str| {
        let object = object_of(&fixture, bytes.as_bytes());
        object.strip_prefix(store.parent().unwrap()).unwrap().display().to_string()
    };
    let [lost, flipped, private, newer] = ["007 of both", "301 of both", "202 of both", "050 of two"].map(name);
    std::fs::remove_file(fixture.path(&lost)).unwrap();
    overwrite(&fixture.path(&flipped), b"301 of bots", true);
    // The newest tree has lost the file, and the object, which is whole, is seen through the older one only.
    std::fs::remove_file(fixture.path("versions/v2.0.0/d6/f202")).unwrap();
    // Both: what the tree has in its place proves nothing.
    std::fs::remove_file(fixture.path("versions/v2.0.0/d1/f50")).unwrap();
    std::fs::remove_file(fixture.path(&newer)).unwrap();
    let expected = |flips: bool| {
        let mut expected = vec![
            "content v1.0.0 d0/f301".to_owned(),
            "content v2.0.0 d0/f301".to_owned(),
            "missing v2.0.0 d1/f50".to_owned(),
            "missing v2.0.0 d6/f202".to_owned(),
            format!("object v1.0.0 {lost}"),
            format!("object v1.0.0 {flipped}"),
            format!("object v2.0.0 {newer}"),
        ];
        expected.retain(|problem| flips || !(problem.contains("f301") || problem.contains(&flipped)));
        expected.sort();
        expected
    };
    // In this order: what was read once is known to be damaged.
    for (depth, flips) in [(&["--quick"][..], false), (&["--cached"], true), (&["--quick"], true)] {
        let document = verify(&fixture, depth, 5);
        let mut found = problems(&document);
        found.sort();
        assert_eq!(found, expected(flips), "{depth:?}");
        assert_eq!(document["objects"], 700, "{depth:?}");
    }
    assert!(fixture.path(&private).exists());
    Ok(())
}

/// Its checksum and its facts are right, so that only who reads all of it can tell.
fn a_manifest_that_contradicts_itself_is_damage() -> Outcome {
    let fixture = store();
    let path = fixture.path("store/manifests/v1.0.0");
    let mut manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap();
    manifest.placements.pop().unwrap();
    std::fs::write(&path, manifest.encode()).unwrap();
    for versions in [&[][..], &["1.0.0"]] {
        assert_eq!(problems(&verify(&fixture, versions, 5)), ["manifest v1.0.0 store/manifests/v1.0.0"]);
    }
    Ok(())
}

/// A sound manifest of the same tree, with other labels: the history knows which one was published.
fn a_manifest_that_was_not_published_is_damage() -> Outcome {
    let fixture = store();
    let path = fixture.path("store/manifests/v1.0.0");
    let published = std::fs::read(&path).unwrap();
    let other = fixture.beside("other");
    assert!(
        std::process::Command::new("cp").arg("-a").args([fixture.root(), other.clone()]).status().unwrap().success()
    );
    let mut manifest = Manifest::decode(&published).unwrap();
    manifest.facts.labels.insert("channel".into(), "stable".into());
    let swapped = manifest.encode();
    std::fs::write(&path, &swapped).unwrap();
    assert_eq!(problems(&verify(&fixture, &["--quick"], 5)), ["manifest v1.0.0 store/manifests/v1.0.0"]);
    // The index still has what was published.
    fixture.run(&["verify", "--repair"]).ok();
    assert_eq!(std::fs::read(&path).unwrap(), published);
    // Where nothing has it, the manifest stays, and is not called sound.
    std::fs::write(&path, &swapped).unwrap();
    fixture.run(&["list"]).ok();
    fixture.run(&["verify", "--repair"]).expect(5);
    assert_eq!(std::fs::read(&path).unwrap(), swapped);
    verify(&fixture, &[], 5);
    fixture.run(&["verify", "--repair", "--from", other.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&path).unwrap(), published);
    verify(&fixture, &[], 0);
    Ok(())
}

fn one_version_can_be_verified_alone() -> Outcome {
    let fixture = store();
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/lock")).unwrap();
    assert_eq!(problems(&verify(&fixture, &["1.1.0"], 0)), Vec::<String>::new());
    assert_eq!(problems(&verify(&fixture, &["1.0.0"], 5)), ["missing v1.0.0 lib/lock"]);
    assert_eq!(verify(&fixture, &["9"], 3)["error"]["kind"], "not-found");
    Ok(())
}

/// With many files the inodes of objects come from a listing: what is not the inode of its object must still be read.
fn among_many_files_a_changed_inode_is_read() -> Outcome {
    let fixture = Fixture::new();
    for number in 0..700 {
        tree::file(fixture.beside(format!("many/d{}/f{number}", number % 7)), format!("contents {number:03}"));
    }
    fixture.import("many", "1.0.0");
    let top = fixture.path("versions/v1.0.0");
    let [copied, swapped, forged, written] = ["d0/f0", "d1/f1", "d2/f2", "d3/f3"].map(|path| top.join(path));
    // The same bytes with an inode of its own are no damage.
    let replace = |path: &Path, bytes: &[u8]| {
        let before = std::fs::metadata(path).unwrap();
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, before.permissions()).unwrap();
        std::fs::File::open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
        assert_ne!(std::fs::metadata(path).unwrap().ino(), before.ino());
    };
    replace(&copied, b"contents 000");
    assert_eq!(problems(&verify(&fixture, &["--quick"], 0)), Vec::<String>::new());
    // Other bytes that look the same, and the inode of another object that looks the same.
    replace(&forged, b"Contents 002");
    std::fs::remove_file(&swapped).unwrap();
    let other = object_of(&fixture, b"contents 699");
    let time = std::fs::metadata(object_of(&fixture, b"contents 001")).unwrap().modified().unwrap();
    std::fs::File::open(&other).unwrap().set_modified(time).unwrap();
    std::fs::hard_link(&other, &swapped).unwrap();
    overwrite(&written, b"contents 3", false);
    let expected = ["content v1.0.0 d1/f1", "content v1.0.0 d2/f2", "size v1.0.0 d3/f3", "modified v1.0.0 d6/f699"];
    let found = problems(&verify(&fixture, &["--quick"], 5));
    let in_tree: Vec<_> = found.iter().filter(|problem| !problem.starts_with("object")).collect();
    assert_eq!(in_tree, expected);
    let refused = fixture.command().args(["activate", "1.0.0"]).output().unwrap();
    let refused = Ran::of(&refused).expect(4);
    assert!(refused.stderr.contains("4 problems, the first: d1/f1"), "{}", refused.stderr);
    Ok(())
}

/// A name that is removed and imported anew, with other contents, while verify is under way: at whatever point that
/// happens, nothing is damaged.
fn a_version_that_is_replaced_meanwhile_is_no_damage() -> Outcome {
    /// Replaces the version when it is told of something for the given time.
    struct Meanwhile<'a> {
        fixture: &'a Fixture,
        at: usize,
        told: AtomicUsize,
        replaced: AtomicBool,
    }
    impl Meanwhile<'_> {
        fn told(&self) {
            if self.told.fetch_add(1, Ordering::Relaxed) == self.at {
                // While its tree is looked at, it is in use.
                if self.fixture.run(&["remove", "1.1.0"]).code == 0 {
                    self.fixture.import("three", "1.1.0");
                    self.replaced.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    impl Observer for Meanwhile<'_> {
        fn stage(&self, _: Stage, _: Option<u64>) {
            self.told();
        }
        fn work(&self, _: Work, _: u64) {
            self.told();
        }
    }
    let (mut at, mut replaced) = (0, 0);
    loop {
        let fixture = store();
        tree::release(fixture.beside("three"), 3);
        let store = Store::open(Layout::new(fixture.root(), None), Settings::default()).expect("a store");
        let meanwhile =
            Meanwhile { fixture: &fixture, at, told: AtomicUsize::new(0), replaced: AtomicBool::new(false) };
        let report = ops::verify::verify(&store, &ops::verify::Options::default(), &meanwhile).expect("it looks");
        assert!(report.findings.is_empty(), "replaced when told for the {at}. time: {report:#?}");
        replaced += usize::from(meanwhile.replaced.into_inner());
        if meanwhile.told.into_inner() <= at {
            break;
        }
        at += 1;
    }
    assert!(replaced > 1, "{replaced} of {at}");
    Ok(())
}

/// As a factory image does: whole seconds are all that a tar of GNU's format keeps of times.
fn a_store_that_came_through_an_archive_is_as_good_as_before() -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let fixture = crate::support::releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    let script = "tar --format=gnu -cf image.tar root; rm -r root; tar -xf image.tar";
    let moved = std::process::Command::new("sh").args(["-ec", script]).current_dir(&fixture.dir).status().unwrap();
    assert!(moved.success());
    let common = |version: &str| std::fs::metadata(fixture.path(format!("versions/{version}/lib/common.so"))).unwrap();
    assert_eq!(common("v1.0.0").mtime_nsec(), 0);
    assert!(fixture.run(&["verify"]).ok().stdout.starts_with("sound"));
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback", "--to", "factory"]).ok();
    // What is there is linked, not made once more.
    tree::release(fixture.beside("third"), 3);
    fixture.import("third", "1.2.0");
    assert_eq!(common("v1.2.0").ino(), common("v1.0.0").ino());
    fixture.run(&["verify"]).ok();
    Ok(())
}
