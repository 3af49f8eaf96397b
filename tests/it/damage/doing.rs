//! How each thing is damaged.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{COMMON, Damage, Thing};
use crate::support::Fixture;

pub(super) fn object(fixture: &Fixture, contents: &[u8], mode: &str) -> PathBuf {
    let hex = blake3::hash(contents).to_hex().to_string();
    fixture.path(format!("store/objects/{}/{}.{mode}.0.0", &hex[..2], &hex[2..]))
}

/// The path that is damaged, and another of its kind.
pub(super) fn places(fixture: &Fixture, thing: Thing) -> (PathBuf, PathBuf) {
    let path = |name: &str| fixture.path(name);
    match thing {
        Thing::Object => (object(fixture, &COMMON, "0444"), object(fixture, b"port = 80\n", "0444")),
        Thing::TreeFile => (path("versions/v1.1.0/lib/common.so"), path("versions/v1.1.0/bin/device-api")),
        Thing::Manifest => (path("store/manifests/v1.1.0"), path("store/manifests/v1.0.0")),
        Thing::HistoryLine => (path("store/history"), path("store/format")),
        Thing::Head => (path("store/head"), path("store/format")),
        Thing::IndexPage => (path("store/index.db"), path("store/format")),
        Thing::Journal => (path("store/index.db-journal"), path("store/format")),
        Thing::RoleLink => (path("versions/current"), path("versions/previous")),
        Thing::ServiceLink => (path("services/device-api"), path("services/web-server")),
        Thing::Format => (path("store/format"), path("store/history")),
        Thing::Tree => (path("versions/v1.1.0"), path("versions/v1.0.0")),
    }
}

/// Does the damage; `false` where there is no such damage to such a thing.
pub(super) fn damage(fixture: &Fixture, thing: Thing, damage: Damage) -> bool {
    let (path, other) = places(fixture, thing);
    if thing == Thing::TreeFile {
        // Its object is another thing: from here on this name has an inode of its own.
        own_inode(&path);
        own_inode(&other);
    }
    if thing == Thing::Tree {
        return damage_tree(&path, damage);
    }
    let is_link = path.is_symlink();
    match damage {
        Damage::Deleted if thing == Thing::HistoryLine => edit_lines(&path, |lines| drop(lines.remove(1))),
        Damage::Deleted => std::fs::remove_file(&path).unwrap(),
        Damage::WrongMode if is_link => return false,
        Damage::WrongMode => {
            let mode = std::fs::metadata(&path).unwrap().mode() & 0o7777;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode ^ 0o137)).unwrap();
        }
        Damage::Swapped if thing == Thing::Head => name_a_later_event(fixture),
        Damage::Swapped => swap(thing, &path, &other),
        Damage::MadeALink => {
            let aside = fixture.beside("moved away");
            if std::fs::rename(&path, &aside).is_err() {
                return false;
            }
            symlink(&aside, &path).unwrap();
        }
        Damage::MadeADirectory => {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }
        _ if is_link => relink(&path, damage),
        Damage::Truncated => {
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
        }
        Damage::Extended => {
            use std::io::Write;
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"garbage").unwrap();
        }
        Damage::BitFlipped => {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let before = file.metadata().unwrap();
            let at = before.len() / 3;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            // As a medium does it: the time tells nothing.
            file.set_modified(before.modified().unwrap()).unwrap();
        }
    }
    true
}

/// Leaves the head as it is when one event more was recorded: the log is an older copy of itself.
fn name_a_later_event(fixture: &Fixture) {
    let names = ["store/history", "store/index.db", "store/index.db-journal"];
    let before = names.map(|name| std::fs::read(fixture.path(name)).unwrap());
    fixture.run(&["note", "1.2.0", "later"]).ok();
    for (name, bytes) in names.iter().zip(before) {
        std::fs::write(fixture.path(name), bytes).unwrap();
    }
}

/// A whole tree goes, or something else takes its place.
fn damage_tree(top: &Path, damage: Damage) -> bool {
    let left: fn(&Path) = match damage {
        Damage::Deleted => |_| {},
        Damage::Truncated => |top| std::fs::write(top, "").unwrap(),
        Damage::MadeADirectory => |top| std::fs::create_dir(top).unwrap(),
        _ => return false,
    };
    std::fs::remove_dir_all(top).unwrap();
    left(top);
    true
}

pub(super) fn own_inode(path: &Path) {
    let aside = path.with_extension("own");
    assert!(Command::new("cp").arg("-p").arg(path).arg(&aside).status().unwrap().success());
    std::fs::rename(aside, path).unwrap();
}

pub(super) fn edit_lines(path: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    edit(&mut lines);
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

pub(super) fn swap(thing: Thing, path: &Path, other: &Path) {
    match thing {
        Thing::HistoryLine => edit_lines(path, |lines| lines.swap(1, 2)),
        Thing::IndexPage | Thing::Journal => {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let quarter = file.metadata().unwrap().len() / 4;
            let (mut one, mut two) = (vec![0; quarter as usize], vec![0; quarter as usize]);
            file.read_exact_at(&mut one, quarter).unwrap();
            file.read_exact_at(&mut two, 2 * quarter).unwrap();
            file.write_all_at(&two, quarter).unwrap();
            file.write_all_at(&one, 2 * quarter).unwrap();
        }
        _ => {
            let aside = path.with_extension("swap");
            std::fs::rename(path, &aside).unwrap();
            std::fs::rename(other, path).unwrap();
            std::fs::rename(aside, other).unwrap();
        }
    }
}

pub(super) fn relink(path: &Path, damage: Damage) {
    let mut target = std::fs::read_link(path).unwrap().into_os_string().into_string().unwrap();
    match damage {
        Damage::Truncated => target.truncate(target.len() - 1),
        Damage::Extended => target.push_str("garbage"),
        _ => {
            let last = target.pop().unwrap();
            target.push(char::from(last as u8 ^ 4));
        }
    }
    std::fs::remove_file(path).unwrap();
    symlink(target, path).unwrap();
}
