//! Where good bytes come from, and which are not taken.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{COMMON, assert_sound, inode, list, objects_of, overwrite, repair, with_another_mode};
use crate::support::{Fixture, Outcome, Thawed, needs_program, needs_root, releases, tree};

tests![
    a_lost_name_comes_back_from_the_trees_without_a_copy,
    what_one_write_changed_is_mended_in_every_version,
    the_bytes_of_another_mode_serve,
    the_bytes_of_an_isolated_factory_tree_serve,
    the_bytes_of_a_private_copy_serve,
    an_old_inode_that_rotation_left_serves,
    a_release_serves_as_a_directory_an_archive_or_another_store,
    bytes_that_are_not_the_right_ones_are_not_taken,
    times_that_differ_between_manifests_stay_as_recorded,
];

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

fn times_that_differ_between_manifests_stay_as_recorded() -> Outcome {
    let fixture = releases(1);
    // An import that meets no object makes another one, with a time of its own.
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    std::fs::remove_file(objects_of(&fixture, &COMMON).pop().unwrap()).unwrap();
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
