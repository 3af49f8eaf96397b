//! Trees, manifests and links.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use super::{assert_sound, list, overwrite, repair, run};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, Thawed, needs_program, releases, tree};

tests![
    trees_get_back_what_they_lost,
    a_sealed_and_immutable_tree_is_mended_and_protected_again,
    a_whole_tree_is_built_anew_where_a_role_wants_it,
    a_manifest_comes_back_by_its_digest,
    links_that_lead_nowhere_are_pointed_where_they_were_recorded,
];

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
    // A version that nothing protects is built again as well: a missing tree is damage.
    std::fs::remove_dir_all(fixture.path("versions/v1.2.0")).unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!(list(&document, "mended"), ["made v1.2.0 "]);
    assert_sound(&fixture);
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
            for field in ["digest", "seq", "placement", "shared_paths", "files", "total_bytes"] {
                assert_eq!(again[field], shown[field], "{field} {number} {with_index}");
            }
            // The event says when; it was written after the manifest, maybe in the next second.
            let events = fixture.json(&["history"])["events"].as_array().unwrap().clone();
            let is_import = |event: &&Value| event["action"] == "import" && event["version"] == "v1.1.0";
            assert_eq!(again["imported_at"], events.iter().find(is_import).unwrap()["time"], "{number} {with_index}");
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
