//! Objects that are not what their names say are neither used nor spread.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{assert_no_litter, import, names_in, object_of, shell};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, needs_root, tree};

tests![
    an_object_that_nobody_published_is_not_trusted,
    damage_to_a_published_object_is_not_spread,
    an_object_that_is_gone_is_made_again,
    a_fan_out_directory_that_is_a_file_is_replaced,
    a_tree_with_more_equal_files_than_an_inode_has_links_is_imported,
];

const BYTES: &[u8] = b"some contents\n";

/// Something to do to an object, with a word for it.
type Damage = (&'static str, fn(&Path));

/// A source with one file, and the place of its object.
fn prepared() -> (Fixture, std::path::PathBuf) {
    let fixture = Fixture::new();
    tree::file(fixture.beside("source/file"), BYTES);
    tree::file(fixture.beside("other/elsewhere"), BYTES);
    fixture.import("source", "1.0");
    let object = object_of(&fixture, "versions/v1.0/file");
    (fixture, object)
}

#[track_caller]
fn assert_sound(fixture: &Fixture, version: &str, name: &str) {
    let path = fixture.path(format!("versions/{version}/{name}"));
    assert_eq!(std::fs::read(&path).unwrap(), BYTES);
    let stat = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.is_file()), (0o444, true));
    let object = object_of(fixture, &format!("versions/{version}/{name}"));
    assert_eq!(std::fs::read(object).unwrap(), BYTES);
}

fn an_object_that_nobody_published_is_not_trusted() -> Outcome {
    let damages: [Damage; 8] = [
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("zeros", |path| std::fs::write(path, [0; 14]).unwrap()),
        ("other bytes", |path| std::fs::write(path, "SOME contents\n").unwrap()),
        ("another mode", |path| {
            std::fs::write(path, BYTES).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("a link", |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap()),
        ("a link to the right bytes", |path| {
            let target = path.with_extension("target");
            std::fs::write(&target, BYTES).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }),
        ("a directory", |path| std::fs::create_dir_all(path.join("inside")).unwrap()),
        ("a FIFO", |path| drop(shell(path.parent().unwrap(), &format!("mkfifo {}", path.display())))),
    ];
    for (what, damage) in damages {
        for archive in [false, true] {
            // Where the object will be is learned from another store.
            let (known, object) = prepared();
            let fixture = Fixture::new();
            tree::file(fixture.beside("source/file"), BYTES);
            let place = fixture.root().join(object.strip_prefix(known.root()).unwrap());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            damage(&place);
            let mut source = fixture.beside("source");
            if archive {
                shell(&source, "tar -cf ../a.tar file");
                source = fixture.beside("a.tar");
            }
            let report = import(&fixture, &source, "1.0", &[]).ok().json();
            assert_eq!(report["new_objects"], 1, "{what}");
            assert_sound(&fixture, "v1.0", "file");
        }
    }
    Ok(())
}

fn damage_to_a_published_object_is_not_spread() -> Outcome {
    needs_root()?;
    let damages: [(&str, &str); 7] = [
        ("truncated", "truncate -s 3 $O"),
        ("emptied", "truncate -s 0 $O"),
        ("appended to", "echo x >>$O"),
        ("overwritten", "printf X | dd of=$O conv=notrunc status=none"),
        ("chmod-ed", "chmod 644 $O"),
        ("chown-ed", "chown 5:5 $O"),
        ("touched and overwritten", "printf X | dd of=$O conv=notrunc status=none; touch -d 2001-01-01 $O"),
    ];
    for (what, damage) in damages {
        let (fixture, object) = prepared();
        let damaged = std::fs::metadata(&object).unwrap().ino();
        shell(Path::new("/"), &format!("O={}; {damage}", object.display()));
        import(&fixture, fixture.beside("other"), "2.0", &[]).ok();
        assert_sound(&fixture, "v2.0", "elsewhere");
        // The version that has the damaged inode gets the one that the import made.
        assert_sound(&fixture, "v1.0", "file");
        for path in ["versions/v1.0/file", "versions/v2.0/elsewhere"] {
            let inode = std::fs::metadata(fixture.path(path)).unwrap().ino();
            assert_ne!(inode, damaged, "{what}: {path} has the damaged inode");
        }
        // From here on there is a sound object, and it is shared.
        let report = import(&fixture, fixture.beside("source"), "3.0", &[]).ok().json();
        assert_eq!(report["linked_files"], 1, "{what}");
        assert_sound(&fixture, "v3.0", "file");
    }
    Ok(())
}

fn an_object_that_is_gone_is_made_again() -> Outcome {
    let (fixture, object) = prepared();
    std::fs::remove_dir_all(object.parent().unwrap()).unwrap();
    let report = import(&fixture, fixture.beside("other"), "2.0", &[]).ok().json();
    assert_eq!(report["new_objects"], 1);
    assert_sound(&fixture, "v2.0", "elsewhere");
    Ok(())
}

fn a_fan_out_directory_that_is_a_file_is_replaced() -> Outcome {
    let (fixture, object) = prepared();
    let fan = object.parent().unwrap();
    std::fs::remove_dir_all(fan).unwrap();
    std::fs::write(fan, "in the way").unwrap();
    import(&fixture, fixture.beside("other"), "2.0", &[]).ok();
    assert_sound(&fixture, "v2.0", "elsewhere");
    Ok(())
}

fn a_tree_with_more_equal_files_than_an_inode_has_links_is_imported() -> Outcome {
    const FILES: u64 = 65_100;
    let image = Image::with_options(Kind::Ext4, 120, &["-N", "150000"])?;
    let fixture = Fixture::in_dir(image.path(""));
    let source = fixture.beside("source");
    for directory in 0..7 {
        std::fs::create_dir_all(source.join(directory.to_string())).unwrap();
    }
    // Links as well: whether a source file has names elsewhere is nothing to us.
    let mut last = source.join("0/first");
    std::fs::write(&last, BYTES).unwrap();
    for number in 1..FILES {
        let path = source.join(format!("{}/{number}", number % 7));
        if number % 60_000 == 0 {
            std::fs::write(&path, BYTES).unwrap();
            last = path;
        } else {
            std::fs::hard_link(&last, &path).unwrap();
        }
    }
    // The second time without reading, by what is remembered.
    for version in ["1.0", "2.0"] {
        let report = import(&fixture, &source, version, &[]).ok().json();
        assert_eq!(report["files"], FILES);
        let mut inodes = std::collections::BTreeMap::new();
        for item in walkdir::WalkDir::new(fixture.path(format!("versions/v{version}"))) {
            let item = item.unwrap();
            if item.file_type().is_file() {
                let stat = item.metadata().unwrap();
                assert_eq!((stat.mode() & 0o7777, stat.len()), (0o444, 14));
                inodes.insert(stat.ino(), item.into_path());
            }
        }
        assert!((2..=4).contains(&inodes.len()), "{inodes:?}");
        for path in inodes.values() {
            assert_eq!(std::fs::read(path).unwrap(), BYTES);
        }
    }
    assert_eq!(super::objects(&fixture).len(), 1);
    assert_no_litter(&fixture);
    assert_eq!(names_in(fixture.path("versions"))[1..], ["v1.0", "v2.0"]);
    Ok(())
}
