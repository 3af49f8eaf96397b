//! `verify --repair`: what is damaged is mended from good bytes, in every version that has it, or said to be lost.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, Ran, Thawed, needs_program, needs_root, releases, tree};

tests![
    a_sound_store_needs_no_repair,
    a_lost_name_comes_back_from_the_trees_without_a_copy,
    what_one_write_changed_is_mended_in_every_version,
    the_bytes_of_another_mode_serve,
    the_bytes_of_an_isolated_factory_tree_serve,
    the_bytes_of_a_private_copy_serve,
    an_old_inode_that_rotation_left_serves,
    a_release_serves_as_a_directory_an_archive_or_another_store,
    bytes_that_are_not_the_right_ones_are_not_taken,
    what_cannot_be_mended_is_marked_and_refused_until_it_can,
    trees_get_back_what_they_lost,
    a_sealed_and_immutable_tree_is_mended_and_protected_again,
    a_whole_tree_is_built_anew_where_a_role_wants_it,
    a_manifest_comes_back_by_its_digest,
    links_that_lead_nowhere_are_pointed_where_they_were_recorded,
    one_version_asked_for_mends_the_others_that_share_its_damage,
    a_repair_is_recorded,
    times_that_differ_between_manifests_stay_as_recorded,
];

fn run(fixture: &Fixture, arguments: &[&str]) -> Ran {
    Ran::of(&fixture.command().args(["--json", "verify", "--repair"]).args(arguments).output().unwrap())
}

fn repair(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let document = run(fixture, arguments).expect(code).json();
    // Whatever could be mended is, and a second run finds nothing else to do.
    let again = run(fixture, arguments).expect(code).json();
    assert_eq!(again["repair"]["mended"], serde_json::json!([]), "{document:#}");
    assert_eq!(again["repair"]["remaining"], document["repair"]["remaining"]);
    document
}

fn list(document: &Value, name: &str) -> Vec<String> {
    let all = document["repair"][name].as_array().unwrap().iter();
    all.map(|item| {
        let text = |field: &str| item[field].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {}",
            if item["how"].is_null() { text("kind") } else { text("how") },
            text("version"),
            text("path")
        )
    })
    .collect()
}

#[track_caller]
fn assert_sound(fixture: &Fixture) {
    let ran = fixture.run(&["verify"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(std::fs::read_dir(fixture.path("store/staging")).unwrap().count(), 0);
}

/// Changes a sealed file in place.
fn overwrite(path: &Path, bytes: &[u8], keep_time: bool) {
    let before = std::fs::metadata(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
    if keep_time {
        std::fs::File::open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    }
}

fn objects_of(fixture: &Fixture, contents: &[u8]) -> Vec<PathBuf> {
    let hex = blake3::hash(contents).to_hex().to_string();
    let dir = fixture.path(format!("store/objects/{}", &hex[..2]));
    let items = std::fs::read_dir(dir).into_iter().flatten().map(|item| item.unwrap().path());
    items.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&hex[2..])).collect()
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

static COMMON: [u8; 100_000] = [7; 100_000];

fn a_sound_store_needs_no_repair() -> Outcome {
    let fixture = releases(2);
    let before = std::fs::read(fixture.path("store/history")).unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!((&document["ok"], list(&document, "mended")), (&true.into(), vec![]));
    assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), before, "nothing is recorded");
    Ok(())
}

fn a_lost_name_comes_back_from_the_trees_without_a_copy() -> Outcome {
    let fixture = releases(2);
    let object = objects_of(&fixture, &COMMON).pop().unwrap();
    let before = inode(&object);
    for damage in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ] {
        damage(&object);
        let document = repair(&fixture, &[], 0);
        assert_eq!(list(&document, "mended").len(), 1, "{document:#}");
        assert_eq!(inode(&object), before);
    }
    std::fs::remove_dir_all(object.parent().unwrap()).unwrap();
    std::fs::write(object.parent().unwrap(), "in the way").unwrap();
    let _document = repair(&fixture, &[], 0);
    assert_eq!(inode(&object), before);
    assert_sound(&fixture);
    Ok(())
}

/// A store whose `lib/common.so` exists in another mode too, as `bin/common`.
fn with_another_mode() -> Fixture {
    let fixture = Fixture::new();
    tree::release(fixture.beside("one"), 1);
    tree::release(fixture.beside("two"), 2);
    tree::program(fixture.beside("two/bin/common"), COMMON);
    fixture.import("one", "1.0.0");
    fixture.import("two", "1.1.0");
    fixture
}

fn what_one_write_changed_is_mended_in_every_version() -> Outcome {
    needs_root()?;
    let damages: [fn(&Path); 6] = [
        |path| overwrite(path, b"short", false),
        |path| overwrite(path, &[8; 100_000], false),
        |path| overwrite(path, &[8; 100_000], true),
        |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap(),
        |path| std::os::unix::fs::chown(path, Some(5), Some(5)).unwrap(),
        |path| std::fs::File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
    ];
    for damage in damages {
        let fixture = with_another_mode();
        damage(&fixture.path("versions/v1.0.0/lib/common.so"));
        let document = repair(&fixture, &[], 0);
        let mended = list(&document, "mended");
        assert_eq!(mended.len(), 3, "{mended:?}");
        assert!(mended[0].starts_with("renewed - store/objects/"), "{mended:?}");
        assert_eq!(mended[1..], ["relinked v1.0.0 lib/common.so", "relinked v1.1.0 lib/common.so"]);
        assert_sound(&fixture);
        tree::assert_same(&fixture.beside("one"), &fixture.path("versions/v1.0.0"));
        tree::assert_same(&fixture.beside("two"), &fixture.path("versions/v1.1.0"));
        let inodes =
            ["v1.0.0", "v1.1.0"].map(|version| inode(fixture.path(format!("versions/{version}/lib/common.so"))));
        assert_eq!(inodes[0], inodes[1], "they share again");
    }
    Ok(())
}

fn the_bytes_of_another_mode_serve() -> Outcome {
    let fixture = with_another_mode();
    // Every inode of the one class is wrong; only the other class is left.
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    let _document = repair(&fixture, &["1.0.0"], 0);
    assert_sound(&fixture);
    assert_eq!(objects_of(&fixture, &COMMON).len(), 2);
    Ok(())
}

fn the_bytes_of_an_isolated_factory_tree_serve() -> Outcome {
    let fixture = releases(2);
    let _thawed = Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    overwrite(&fixture.path("versions/v1.1.0/lib/common.so"), b"wrong", false);
    let factory = inode(fixture.path("versions/v1.0.0/lib/common.so"));
    let document = repair(&fixture, &[], 0);
    let mended = list(&document, "mended");
    assert_eq!(mended[1..], ["relinked v1.1.0 lib/common.so"], "{mended:?}");
    assert_eq!(inode(fixture.path("versions/v1.0.0/lib/common.so")), factory, "it stays as it is");
    assert_ne!(inode(fixture.path("versions/v1.1.0/lib/common.so")), factory, "and by itself");
    assert_sound(&fixture);
    Ok(())
}

fn the_bytes_of_a_private_copy_serve() -> Outcome {
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"data/**\"]\n").unwrap();
    tree::file(fixture.beside("source/data/seed"), COMMON);
    tree::file(fixture.beside("source/lib/common.so"), COMMON);
    fixture.import("source", "1.0.0");
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended")[1..], ["relinked v1.0.0 lib/common.so"]);
    assert_sound(&fixture);
    Ok(())
}

fn an_old_inode_that_rotation_left_serves() -> Outcome {
    let fixture = releases(2);
    let object = objects_of(&fixture, &COMMON).pop().unwrap();
    // As a rotation leaves it: the object is another inode than the trees have.
    let copy = fixture.beside("copy");
    let status = std::process::Command::new("cp").arg("-p").arg(&object).arg(&copy).status().unwrap();
    assert!(status.success());
    std::fs::rename(&copy, &object).unwrap();
    assert_sound(&fixture);
    let old = inode(fixture.path("versions/v1.0.0/lib/common.so"));
    overwrite(&object, b"wrong", false);
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended").len(), 1, "{document:#}");
    assert_eq!(inode(&object), old);
    assert_sound(&fixture);
    Ok(())
}

fn a_release_serves_as_a_directory_an_archive_or_another_store() -> Outcome {
    needs_program("tar")?;
    for kind in ["directory", "archive", "store", "copy of the store"] {
        let fixture = releases(2);
        let source = match kind {
            "directory" => fixture.beside("source"),
            "archive" => {
                let archive = fixture.beside("release.tar.gz");
                let made = std::process::Command::new("tar")
                    .arg("-czf")
                    .arg(&archive)
                    .arg("-C")
                    .arg(fixture.beside("source"))
                    .arg(".")
                    .status();
                assert!(made.unwrap().success());
                archive
            }
            _ => {
                let other = releases(2);
                let mut copy = std::process::Command::new("cp");
                copy.arg("-a").arg(other.root()).arg(fixture.beside("other"));
                assert!(copy.status().unwrap().success());
                if kind == "store" {
                    std::fs::remove_dir_all(fixture.beside("other/store/objects")).unwrap();
                    std::fs::create_dir(fixture.beside("other/store/objects")).unwrap();
                }
                fixture.beside("other")
            }
        };
        overwrite(&fixture.path("versions/v1.1.0/lib/common.so"), &[9; 100_000], true);
        overwrite(&fixture.path("versions/v1.1.0/bin/device-api"), b"wrong", false);
        let document = repair(&fixture, &[], 5);
        assert_eq!(list(&document, "mended"), Vec::<String>::new(), "{kind}");
        let document = repair(&fixture, &["--from", source.to_str().unwrap()], 0);
        assert_eq!(list(&document, "mended").len(), 5, "{kind}: {document:#}");
        assert_eq!(document["repair"]["cleared"], serde_json::json!(["v1.0.0", "v1.1.0"]), "{kind}");
        assert_sound(&fixture);
        tree::assert_same(&fixture.beside("source"), &fixture.path("versions/v1.1.0"));
    }
    Ok(())
}

fn bytes_that_are_not_the_right_ones_are_not_taken() -> Outcome {
    let fixture = releases(1);
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), &[9; 100_000], true);
    // Of the right size and name, and wrong.
    tree::file(fixture.beside("liar/lib/common.so"), [6; 100_000]);
    let liar = fixture.beside("liar").display().to_string();
    let document = repair(&fixture, &["--from", &liar], 5);
    assert_eq!(list(&document, "mended"), Vec::<String>::new());
    assert_eq!(std::fs::read(fixture.path("versions/v1.0.0/lib/common.so")).unwrap(), [9; 100_000], "left as it is");
    let ran = fixture.run(&["verify", "--repair", "--from", "/nowhere/at/all"]).expect(1);
    assert!(ran.stderr.contains("/nowhere/at/all"), "{ran:?}");
    fixture.run(&["verify", "--from", "/"]).expect(2);
    fixture.run(&["verify", "--repair", "--quick"]).expect(2);
    Ok(())
}

fn what_cannot_be_mended_is_marked_and_refused_until_it_can() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    // The same size, the same time: no look shows it.
    let path = fixture.path("versions/v1.1.0/bin/device-api");
    let good = std::fs::read(&path).unwrap();
    let wrong = vec![b'x'; good.len()];
    overwrite(&path, &wrong, true);
    fixture.run(&["verify", "--quick"]).ok();
    let document = repair(&fixture, &[], 5);
    let remaining = list(&document, "remaining");
    assert!(remaining.contains(&"content v1.1.0 bin/device-api".to_owned()), "{remaining:?}");
    assert_eq!(document["repair"]["marked"], serde_json::json!(["v1.1.0"]));
    assert_eq!(fixture.json(&["show", "1.1.0"])["state"], "damaged");
    let refused = fixture.run(&["--json", "activate", "1.1.0"]).expect(4).json();
    assert_eq!(refused["error"]["kind"], "unhealthy");
    assert!(refused["error"]["message"].as_str().unwrap().contains("bin/device-api"), "{refused}");
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    fixture.run(&["activate", "1.2.0"]).ok();
    // The right bytes come from a release, and the mark goes.
    tree::file(fixture.beside("given/file"), &good);
    let given = fixture.beside("given").display().to_string();
    let document = repair(&fixture, &["--from", &given], 0);
    assert_eq!(document["repair"]["cleared"], serde_json::json!(["v1.1.0"]));
    assert_eq!(fixture.json(&["show", "1.1.0"])["state"], "unconfirmed");
    fixture.run(&["activate", "1.1.0"]).ok();
    assert_sound(&fixture);
    Ok(())
}

fn trees_get_back_what_they_lost() -> Outcome {
    let fixture = releases(2);
    let top = fixture.path("versions/v1.1.0");
    std::fs::remove_file(top.join("bin/web-server")).unwrap();
    std::fs::remove_file(top.join("lib/common.so.1")).unwrap();
    std::os::unix::fs::symlink("elsewhere", top.join("lib/common.so.1")).unwrap();
    std::fs::remove_file(top.join("bin/device-api")).unwrap();
    std::fs::create_dir_all(top.join("bin/device-api/inner")).unwrap();
    std::fs::remove_dir(top.join("empty")).unwrap();
    overwrite(&top.join("lib/lock"), b"no longer empty", false);
    std::fs::remove_dir_all(top.join("services/web-server")).unwrap();
    std::os::unix::fs::symlink("/etc", top.join("services/web-server")).unwrap();
    std::fs::remove_dir_all(top.join("services/device-api")).unwrap();
    std::fs::write(top.join("services/device-api"), "a file").unwrap();
    std::fs::set_permissions(top.join("services"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(top.join("stranger"), "a stranger stays").unwrap();
    let document = repair(&fixture, &[], 0);
    let mended = list(&document, "mended");
    let expected = [
        "copied",
        "dressed v1.1.0 services",
        "made v1.1.0 empty",
        "made v1.1.0 lib/common.so.1",
        "made v1.1.0 lib/lock",
        "made v1.1.0 services/device-api",
        "made v1.1.0 services/web-server",
        "relinked v1.1.0 bin/device-api",
        "relinked v1.1.0 bin/web-server",
        "relinked v1.1.0 services/device-api/settings.toml",
        "relinked v1.1.0 services/web-server/index.html",
    ];
    for line in &expected[1..] {
        assert!(mended.contains(&(*line).to_owned()), "{line}: {mended:#?}");
    }
    assert_eq!(mended.len(), expected.len() - 1, "{mended:#?}");
    assert_eq!(std::fs::read_to_string(top.join("stranger")).unwrap(), "a stranger stays");
    std::fs::remove_file(top.join("stranger")).unwrap();
    tree::assert_same(&fixture.beside("source"), &top);
    assert_sound(&fixture);
    Ok(())
}

fn a_sealed_and_immutable_tree_is_mended_and_protected_again() -> Outcome {
    needs_program("chattr")?;
    let image = Image::new(Kind::Ext4, 64)?;
    let fixture = crate::support::with_releases(Fixture::in_dir(image.path("")), 2);
    let _thawed = Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    let top = fixture.path("versions/v1.0.0");
    let chattr = |flags: &[&str]| {
        assert!(std::process::Command::new("chattr").args(flags).status().unwrap().success());
    };
    let (file, dir) = (top.join("lib/common.so"), top.join("lib"));
    chattr(&["-i", file.to_str().unwrap()]);
    overwrite(&file, &[9; 100_000], true);
    chattr(&["+i", file.to_str().unwrap()]);
    chattr(&["-i", dir.to_str().unwrap()]);
    std::fs::remove_file(top.join("lib/common.so.1")).unwrap();
    chattr(&["+i", dir.to_str().unwrap()]);
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), ["copied v1.0.0 lib/common.so", "made v1.0.0 lib/common.so.1"]);
    assert_sound(&fixture);
    assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(std::fs::metadata(&file).unwrap().nlink(), 1, "an inode of its own");
    assert!(std::fs::write(&file, "x").is_err() && std::fs::remove_file(&file).is_err(), "immutable again");
    assert_eq!(fixture.json(&["factory", "show"])["immutable"], true);
    Ok(())
}

fn a_whole_tree_is_built_anew_where_a_role_wants_it() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::remove_dir_all(fixture.path("versions/v1.0.0")).unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), ["made v1.0.0 "]);
    std::fs::remove_dir_all(fixture.path("versions/v1.1.0")).unwrap();
    let document = repair(&fixture, &["1.1.0"], 0);
    assert_eq!(list(&document, "mended"), ["made v1.1.0 "]);
    std::fs::remove_dir_all(fixture.path("versions/v1.0.0")).unwrap();
    std::fs::write(fixture.path("versions/v1.0.0"), "a file in its place").unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), ["made v1.0.0 "]);
    assert_sound(&fixture);
    tree::release(fixture.beside("one"), 1);
    tree::assert_same(&fixture.beside("one"), &fixture.path("versions/v1.1.0"));
    // What nobody wants and nobody asks for was removed by hand.
    std::fs::remove_dir_all(fixture.path("versions/v1.2.0")).unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), Vec::<String>::new());
    assert!(!fixture.path("store/manifests/v1.2.0").exists());
    Ok(())
}

fn a_manifest_comes_back_by_its_digest() -> Outcome {
    let damages: [fn(&Path); 4] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, "").unwrap(),
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        |path| assert!(std::fs::copy(path.with_file_name("v1.0.0"), path).unwrap() > 0),
    ];
    for with_index in [true, false] {
        for (number, damage) in damages.iter().enumerate() {
            let fixture = Fixture::new();
            std::fs::write(fixture.config(), "[import]\nprivate = [\"data/**\"]\nshared = [\"state\"]\n").unwrap();
            for version in [0, 1] {
                tree::release(fixture.beside("source"), version);
                tree::file(fixture.beside("source/state/db"), "rows");
                fixture.import("source", &format!("1.{version}.0"));
            }
            let shown = fixture.json(&["show", "1.1.0"]);
            let manifest = fixture.path("store/manifests/v1.1.0");
            damage(&manifest);
            if !with_index {
                std::fs::remove_file(fixture.path("store/index.db")).unwrap();
            }
            let gc = fixture.run(&["--json", "gc", "--keep-last", "1"]).expect(4).json();
            assert_eq!(gc["error"]["kind"], "doubt", "{number}");
            assert_eq!(fixture.run(&["verify"]).code, 5);
            // Whoever asks the index in between must not make it forget the trees.
            fixture.run(&["list"]).ok();
            fixture.run(&["find", "**"]).ok();
            let source = fixture.beside("source").display().to_string();
            // Without the index the tree alone does not tell what stands behind a shared path.
            let from = ["--from", source.as_str()];
            let ran = run(&fixture, if with_index { &[] } else { &from }).expect(0);
            assert_eq!(
                list(&ran.json(), "mended"),
                ["restored v1.1.0 store/manifests/v1.1.0"],
                "{number} {with_index}"
            );
            let again = fixture.json(&["show", "1.1.0"]);
            for field in ["digest", "seq", "imported_at", "placement", "shared_paths", "files", "total_bytes"] {
                assert_eq!(again[field], shown[field], "{field} {number} {with_index}");
            }
            assert_sound(&fixture);
        }
    }
    // The tree alone tells it where nothing is shared.
    let fixture = releases(1);
    std::fs::remove_file(fixture.path("store/manifests/v1.0.0")).unwrap();
    std::fs::remove_file(fixture.path("store/index.db")).unwrap();
    let _document = repair(&fixture, &[], 0);
    assert_sound(&fixture);
    Ok(())
}

fn links_that_lead_nowhere_are_pointed_where_they_were_recorded() -> Outcome {
    let fixture = releases(3);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["factory", "set", "1.2.0"]).ok();
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    for (role, target) in [("previous", "v9"), ("factory", "/nowhere")] {
        std::fs::remove_file(fixture.path("versions").join(role)).unwrap();
        std::os::unix::fs::symlink(target, fixture.path("versions").join(role)).unwrap();
    }
    let document = repair(&fixture, &[], 0);
    let expected = ["current", "factory", "previous"].map(|role| format!("pointed - versions/{role}"));
    assert_eq!(list(&document, "mended"), expected);
    let links = ["current", "previous", "factory"].map(|role| fixture.link(&format!("versions/{role}")));
    assert_eq!(links, ["v1.1.0", "v1.0.0", "v1.2.0"]);
    // What is no link is somebody's.
    std::fs::remove_file(fixture.path("versions/previous")).unwrap();
    std::fs::write(fixture.path("versions/previous"), "mine").unwrap();
    let document = repair(&fixture, &[], 5);
    assert_eq!(list(&document, "remaining"), ["link - versions/previous"]);
    assert_eq!(std::fs::read_to_string(fixture.path("versions/previous")).unwrap(), "mine");
    Ok(())
}

fn one_version_asked_for_mends_the_others_that_share_its_damage() -> Outcome {
    let fixture = with_another_mode();
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), &[9; 100_000], true);
    std::fs::remove_file(fixture.path("versions/v1.1.0/lib/lock")).unwrap();
    let document = run(&fixture, &["1.0.0"]).ok().json();
    let mended = list(&document, "mended");
    assert_eq!(mended[1..], ["relinked v1.0.0 lib/common.so", "relinked v1.1.0 lib/common.so"], "{mended:?}");
    // What it was not asked for and is not concerned with stays.
    let ran = fixture.run(&["verify"]).expect(5);
    assert!(ran.stdout.contains("v1.1.0: lib/lock: it is not there"), "{ran:?}");
    Ok(())
}

fn a_repair_is_recorded() -> Outcome {
    let fixture = with_another_mode();
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    let _document = repair(&fixture, &[], 0);
    let events = fixture.json(&["history", "-n", "3"]);
    let told = events["events"].as_array().unwrap().iter().map(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or("-").to_owned();
        let what = text("text").split(' ').take(2).collect::<Vec<_>>().join(" ");
        format!("{} {} {} {}", text("action"), text("version"), text("outcome"), what)
    });
    let told: Vec<String> = told.collect();
    assert!(told[0].starts_with("repair - done renewed store/objects/"), "{told:?}");
    let of_version = |version| format!("repair {version} done relinked lib/common.so");
    assert_eq!(told[1..], [of_version("v1.1.0"), of_version("v1.0.0")]);
    Ok(())
}

fn times_that_differ_between_manifests_stay_as_recorded() -> Outcome {
    let fixture = releases(1);
    // An import that meets a damaged object makes another one, with a time of its own.
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    std::thread::sleep(std::time::Duration::from_millis(20));
    tree::file(fixture.beside("source/lib/common.so"), COMMON);
    fixture.import("source", "1.1.0");
    let ran = fixture.run(&["verify"]).expect(5);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("damaged")).count(), 1, "{ran:?}");
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), ["copied v1.0.0 lib/common.so"]);
    assert_sound(&fixture);
    Ok(())
}
