//! `factory`

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, Thawed, needs_program, needs_root, redacted, releases, tree, with_releases};

tests![
    factory_is_set_once,
    directories_lose_their_write_bits_and_get_them_back,
    what_is_bad_damaged_or_made_by_hand_is_refused,
    isolated_files_survive_damage_to_shared_ones,
    isolating_again_changes_nothing,
    isolating_keeps_what_a_service_wrote,
    an_isolated_version_can_be_removed,
    a_protected_version_that_is_factory_no_longer_is_removed,
    isolation_works_on_every_file_system,
    without_room_nothing_is_copied,
    damage_is_found
];

fn mode(fixture: &Fixture, path: &str) -> u32 {
    std::fs::metadata(fixture.path(path)).unwrap().mode() & 0o7777
}

fn factory_is_set_once() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["factory", "show"]).expect(3);
    fixture.run(&["factory", "verify"]).expect(3);
    let document = fixture.json(&["factory", "set", "1.0.0"]);
    let digest = document["digest"].clone();
    let expected = json!({
        "schema": 1, "version": "v1.0.0", "digest": digest, "from": null, "changed": true, "isolated": false,
        "immutable": false, "copied_files": 0, "warnings": [],
    });
    assert_eq!(document, expected);
    let history = std::fs::read(fixture.path("store/history")).unwrap();
    assert_eq!(fixture.run(&["factory", "set", "1.0.0"]).ok().stdout, "factory is v1.0.0 already\n");
    assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), history);
    let ran = fixture.run(&["--json", "factory", "set", "1.1.0"]).expect(4);
    assert_eq!(ran.json()["error"]["message"], "the factory version is v1.0.0, and it is set once");
    assert_eq!(fixture.link("versions/factory"), "v1.0.0");
    // Removing the link by hand does not undo it.
    std::fs::remove_file(fixture.path("versions/factory")).unwrap();
    fixture.run(&["factory", "set", "1.1.0"]).expect(4);
    let said = fixture.run(&["factory", "set", "1.1.0", "--replace"]).ok().stdout;
    assert_eq!(said, "factory is now v1.1.0 (was v1.0.0)\n");
    let event = fixture.json(&["history", "-n", "1"])["events"][0].clone();
    let told = ["action", "role", "from", "version"].map(|field| event[field].as_str().unwrap().to_owned());
    assert_eq!(told, ["factory-set", "factory", "v1.0.0", "v1.1.0"]);
    let shown = fixture.json(&["factory", "show"]);
    assert_eq!(
        (&shown["version"], &shown["sealed"], &shown["isolated"]),
        (&"v1.1.0".into(), &true.into(), &false.into())
    );
    Ok(())
}

fn directories_lose_their_write_bits_and_get_them_back() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    for path in ["", "/bin", "/services/device-api", "/empty"] {
        assert_eq!(mode(&fixture, &format!("versions/v1.0.0{path}")), 0o555, "{path}");
    }
    fixture.run(&["activate", "1.0.0", "--verify", "full"]).ok();
    fixture.run(&["factory", "set", "1.1.0", "--replace"]).ok();
    for path in ["", "/bin", "/services/device-api", "/empty"] {
        assert_eq!(mode(&fixture, &format!("versions/v1.0.0{path}")), 0o755, "{path}");
        assert_eq!(mode(&fixture, &format!("versions/v1.1.0{path}")), 0o555, "{path}");
    }
    Ok(())
}

fn what_is_bad_damaged_or_made_by_hand_is_refused() -> Outcome {
    let fixture = releases(3);
    tree::release(fixture.path("versions/v0.1"), 0);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback"]).ok();
    std::fs::remove_file(fixture.path("versions/v1.2.0/lib/lock")).unwrap();
    for (version, kind) in [("0.1", "not-allowed"), ("1.1.0", "bad"), ("1.2.0", "unhealthy")] {
        let ran = fixture.run(&["--json", "factory", "set", version]).expect(4);
        assert_eq!(ran.json()["error"]["kind"], kind, "{version}");
    }
    assert_eq!(fixture.link("versions/factory"), "");
    Ok(())
}

fn inode(fixture: &Fixture, path: &str) -> (u64, u64) {
    let metadata = std::fs::metadata(fixture.path(path)).unwrap();
    (metadata.ino(), metadata.nlink())
}

fn isolated_files_survive_damage_to_shared_ones() -> Outcome {
    let fixture = releases(2);
    let _thawed = Thawed(&fixture);
    let document = fixture.json(&["factory", "set", "1.0.0", "--isolated"]);
    assert_eq!((&document["isolated"], &document["copied_files"]), (&true.into(), &5.into()));
    tree::assert_same(&fixture.path("versions/v1.1.0/lib"), &fixture.path("versions/v1.0.0/lib"));
    assert_eq!(inode(&fixture, "versions/v1.0.0/lib/common.so").1, 1);
    assert_ne!(inode(&fixture, "versions/v1.0.0/lib/common.so"), inode(&fixture, "versions/v1.1.0/lib/common.so"));
    // Someone writes through the shared inode of another version.
    let shared = fixture.path("versions/v1.1.0/lib/common.so");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&shared, "ruined").unwrap();
    let verified = fixture.json(&["factory", "verify"]);
    let told = (&verified["ok"], &verified["isolated"], &verified["hashed_files"]);
    assert_eq!(told, (&true.into(), &true.into(), &5.into()));
    // And may not through its own.
    if document["immutable"] == true {
        let own = fixture.path("versions/v1.0.0/lib/common.so");
        assert!(std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o644)).is_err());
        assert!(std::fs::remove_file(&own).is_err());
        assert!(std::fs::write(fixture.path("versions/v1.0.0/lib/new"), "").is_err());
    }
    fixture.run(&["activate", "1.0.0"]).ok();
    Ok(())
}

fn isolating_again_changes_nothing() -> Outcome {
    let fixture = releases(2);
    let _thawed = Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    let before = inode(&fixture, "versions/v1.0.0/bin/device-api");
    let document = fixture.json(&["factory", "set", "1.0.0", "--isolated"]);
    assert_eq!((&document["changed"], &document["copied_files"]), (&false.into(), &0.into()));
    assert_eq!(inode(&fixture, "versions/v1.0.0/bin/device-api"), before);
    // Set again without: it stays isolated.
    let document = fixture.json(&["factory", "set", "1.0.0"]);
    assert_eq!((&document["changed"], &document["isolated"]), (&false.into(), &true.into()));
    // An interrupted run leaves some files shared; the next one goes on from there.
    Thawed(&fixture);
    let (object, file) = ("versions/v1.1.0/lib/common.so", "versions/v1.0.0/lib/common.so");
    std::fs::remove_file(fixture.path(file)).unwrap();
    std::fs::hard_link(fixture.path(object), fixture.path(file)).unwrap();
    assert_eq!(fixture.json(&["factory", "set", "1.0.0", "--isolated"])["copied_files"], 1);
    assert_eq!(fixture.json(&["factory", "verify"])["isolated"], true);
    // Replaced, its protection is lifted; its inodes stay its own.
    fixture.run(&["factory", "set", "1.1.0", "--replace"]).ok();
    assert_eq!(mode(&fixture, "versions/v1.0.0"), 0o755);
    std::fs::remove_dir_all(fixture.path("versions/v1.0.0")).unwrap();
    Ok(())
}

fn isolating_keeps_what_a_service_wrote() -> Outcome {
    let fixture = Fixture::new();
    let _thawed = Thawed(&fixture);
    std::fs::write(fixture.config(), "[import]\nprivate = [\"services/*/data/**\"]\n").unwrap();
    tree::release(fixture.beside("source"), 1);
    tree::file(fixture.beside("source/services/device-api/data/db"), "first");
    fixture.import("source", "1.0.0");
    fixture.run(&["activate", "1.0.0"]).ok();
    let data = fixture.path("versions/v1.0.0/services/device-api/data");
    std::fs::write(data.join("db"), "second").unwrap();
    std::fs::write(data.join("journal"), "new").unwrap();
    let open = std::fs::File::open(fixture.path("versions/current/bin")).unwrap();
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    assert_eq!(std::fs::read_to_string(data.join("db")).unwrap(), "second");
    assert_eq!(std::fs::read_to_string(data.join("journal")).unwrap(), "new");
    std::fs::write(data.join("db"), "third").unwrap();
    std::fs::write(data.join("another"), "file").unwrap();
    std::fs::write(fixture.path("versions/v1.0.0/lib/lock"), "").unwrap();
    // A service that was started there still is.
    let still = std::fs::metadata(fixture.path("versions/current/bin")).unwrap();
    assert_eq!(open.metadata().unwrap().ino(), still.ino());
    fixture.run(&["factory", "verify"]).ok();
    Ok(())
}

fn an_isolated_version_can_be_removed() -> Outcome {
    needs_root()?;
    let fixture = releases(1);
    let _thawed = Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    let versions = tope_store::fsys::Dir::open(fixture.path("versions")).unwrap();
    tope_store::fsys::remove::tree(&versions, "v1.0.0").unwrap();
    assert!(!fixture.path("versions/v1.0.0").exists());
    Ok(())
}

/// Its protection may still stand: lifting it is the last step of a replacement, and may be interrupted.
fn a_protected_version_that_is_factory_no_longer_is_removed() -> Outcome {
    needs_root()?;
    needs_program("chattr")?;
    let fixture = releases(2);
    let _thawed = Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    fixture.run(&["remove", "1.0.0"]).expect(4);
    std::fs::remove_file(fixture.path("versions/factory")).unwrap();
    fixture.run(&["remove", "1.0.0"]).expect(4);
    std::os::unix::fs::symlink("v1.1.0", fixture.path("versions/factory")).unwrap();
    fixture.run(&["factory", "set", "1.1.0", "--replace"]).ok();
    // As if the last step had not been reached.
    let ran = std::process::Command::new("chattr").arg("+i").arg(fixture.path("versions/v1.0.0")).output();
    assert!(ran.unwrap().status.success());
    fixture.run(&["remove", "1.0.0"]).ok();
    assert!(!fixture.path("versions/v1.0.0").exists());
    assert_eq!(std::fs::read_dir(fixture.path("store/trash")).unwrap().count(), 0);
    Ok(())
}

fn isolation_works_on_every_file_system() -> Outcome {
    for kind in Kind::ALL {
        for how in ["--isolated", "--isolated=reflink"] {
            let image = Image::new(kind, if kind == Kind::Ext4 { 64 } else { 320 })?;
            let fixture = with_releases(Fixture::in_dir(image.mounted()), 2);
            let _thawed = Thawed(&fixture);
            let document = fixture.json(&["factory", "set", "1.0.0", how]);
            let told = (&document["isolated"], &document["immutable"], &document["copied_files"]);
            assert_eq!(told, (&true.into(), &true.into(), &5.into()), "{kind:?} {how}");
            assert_eq!(fixture.json(&["factory", "verify"])["isolated"], true, "{kind:?} {how}");
            fixture.run(&["activate", "1.0.0", "--verify", "full"]).ok();
        }
    }
    Ok(())
}

fn without_room_nothing_is_copied() -> Outcome {
    let image = Image::with_options(Kind::Ext4, 24, &["-m", "0"])?;
    let fixture = Fixture::in_dir(image.mounted());
    tree::file(fixture.beside("source/big"), vec![1; 9 << 20]);
    fixture.import("source", "1.0.0");
    std::fs::remove_dir_all(fixture.beside("source")).unwrap();
    tree::file(image.path("ballast"), vec![1; 4 << 20]);
    let before = inode(&fixture, "versions/v1.0.0/big");
    let ran = fixture.run(&["--json", "factory", "set", "1.0.0", "--isolated"]).expect(1);
    assert_eq!(ran.json()["error"]["kind"], "no-space");
    assert_eq!((inode(&fixture, "versions/v1.0.0/big"), fixture.link("versions/factory")), (before, String::new()));
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    Ok(())
}

fn damage_is_found() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    assert_eq!(fixture.json(&["factory", "verify"])["isolated"], false);
    let path = fixture.path("versions/v1.0.0/lib/common.so");
    let before = std::fs::metadata(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"X", 5000).unwrap();
    file.set_permissions(before.permissions()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let ran = fixture.run(&["--json", "factory", "verify"]).expect(5);
    let problem = json!({
        "kind": "content", "version": "v1.0.0", "path": "lib/common.so", "detail": "its contents differ", "damage": true,
    });
    assert_eq!(redacted(&fixture, &ran.json())["problems"], json!([problem]));
    Ok(())
}
