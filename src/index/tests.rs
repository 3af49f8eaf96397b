//! What may lie in the index's place, who may hold it, and what is then told.

// Damage is made with bare hands.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::samples::{history, index_of, manifest, manifest_file, name};
use super::*;
use crate::fsys::Dir;
use crate::model::{Action, Event};

const NAME: &str = "index.db";

/// A directory with an index of one version in it.
fn store() -> (tempfile::TempDir, Dir) {
    let directory = tempfile::tempdir().unwrap();
    let dir = Dir::open(directory.path()).unwrap();
    let manifest = manifest("v1", 1, &[("a/b", "1"), ("c", "2")]);
    let lines = history([Event::new(Action::Init), Event::about(Action::Import, &name("v1"), None)]);
    rebuild(&dir, NAME, [Ok((manifest, manifest_file(1)))], lines.into_iter().map(Ok)).unwrap();
    (directory, dir)
}

fn trouble(dir: &Dir, mode: Mode) -> Option<Trouble> {
    match open(dir, NAME, mode, Duration::from_millis(50)) {
        Opened::Usable(_) => None,
        Opened::Unusable(unusable) => Some(unusable.trouble),
    }
}

fn usable(dir: &Dir, mode: Mode) -> Index {
    match open(dir, NAME, mode, Duration::from_millis(50)) {
        Opened::Usable(index) => index,
        Opened::Unusable(unusable) => panic!("{unusable:?}"),
    }
}

#[test]
fn whatever_lies_in_its_place_is_an_answer_and_no_panic() {
    let (directory, dir) = store();
    let file = directory.path().join(NAME);
    let good = fs::read(&file).unwrap();
    let zeros = vec![0; good.len()];
    let garbage: Vec<u8> = (0..good.len()).map(|at| (at * 7 + 3) as u8).collect();
    let mut stale = good.clone();
    stale[60..64].copy_from_slice(&0_u32.to_be_bytes());
    let cases: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("zeros", &zeros),
        ("garbage", &garbage),
        ("one byte", b"S"),
        ("text", b"this is not a database, whatever its name says, and it is longer than a header is; a hundred bytes"),
        ("cut in the header", &good[..50]),
        ("cut after the first page", &good[..4096]),
        ("no schema", &stale),
    ];
    for mode in [Mode::ReadWrite, Mode::ReadOnly, Mode::Frozen] {
        for (what, bytes) in cases {
            fs::write(&file, bytes).unwrap();
            assert_eq!(trouble(&dir, mode), Some(Trouble::Damaged), "{what}, {mode:?}");
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(trouble(&dir, mode), Some(Trouble::Missing));
        fs::create_dir(&file).unwrap();
        assert_eq!(trouble(&dir, mode), Some(Trouble::Denied));
        fs::remove_dir(&file).unwrap();
        std::os::unix::fs::symlink("elsewhere", &file).unwrap();
        assert_eq!(trouble(&dir, mode), Some(Trouble::Denied));
        fs::remove_file(&file).unwrap();
    }
    fs::write(&file, &good).unwrap();
    assert_eq!(trouble(&dir, Mode::ReadWrite), None);
}

#[test]
fn another_programs_database_and_a_newer_builds_are_told_apart() {
    let (directory, dir) = store();
    let file = directory.path().join(NAME);
    let connection = Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert_eq!(trouble(&dir, Mode::ReadWrite), Some(Trouble::Newer));
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = fs::read(&file).unwrap();
    assert_eq!(trouble(&dir, Mode::ReadWrite), Some(Trouble::Foreign));
    assert_eq!(fs::read(&file).unwrap(), before, "it is left as it was");
}

#[test]
fn an_older_schema_is_told_to_a_reader_and_brought_up_for_a_writer() {
    let (_directory, dir) = store();
    let steps = [migrate::MIGRATIONS, &["CREATE TABLE later (a INTEGER) STRICT"]].concat();
    let opened = |mode| open::try_open(&dir, NAME, mode, Duration::ZERO, &steps).map(drop);
    for mode in [Mode::ReadOnly, Mode::Frozen] {
        assert_eq!(opened(mode).map_err(|unusable| unusable.trouble), Err(Trouble::Older));
    }
    assert_eq!(opened(Mode::ReadWrite), Ok(()));
    assert_eq!(opened(Mode::ReadOnly), Ok(()));
    assert_eq!(trouble(&dir, Mode::ReadOnly), Some(Trouble::Newer), "as the older build sees it");
}

#[test]
fn a_missing_table_is_damage_when_it_is_met() {
    let (directory, dir) = store();
    Connection::open(directory.path().join(NAME)).unwrap().execute_batch("DROP TABLE objects").unwrap();
    let mut index = usable(&dir, Mode::ReadWrite);
    let error = index.read().unwrap().published_objects().unwrap_err();
    assert!(is_damage(&error), "{error:?}");
}

#[test]
fn damage_in_the_middle_of_a_query_is_told() {
    let (directory, dir) = store();
    let file = directory.path().join(NAME);
    let good = fs::read(&file).unwrap();
    // Every page but the first, one at a time: some question must notice, and none may panic.
    let mut noticed = 0;
    let pages = good.len() / 4096;
    for page in 1..pages {
        let mut bad = good.clone();
        bad[page * 4096..(page + 1) * 4096].fill(0x5a);
        fs::write(&file, bad).unwrap();
        match open(&dir, NAME, Mode::ReadWrite, Duration::ZERO) {
            Opened::Unusable(unusable) => {
                assert_eq!(unusable.trouble, Trouble::Damaged, "page {page}");
                noticed += 1;
            }
            Opened::Usable(mut index) => {
                let reader = index.read().unwrap();
                let answers = [
                    reader.versions().map(drop),
                    reader.totals().map(drop),
                    reader.published_objects().map(drop),
                    reader.events(&EventFilter::default()).map(drop),
                ];
                for error in answers.into_iter().filter_map(Result::err) {
                    assert!(is_damage(&error), "page {page}: {error:?}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > pages / 2, "{noticed} of {pages}");
}

#[test]
fn one_that_is_held_by_another_is_busy_after_the_timeout() {
    let (directory, dir) = store();
    let holder = Connection::open(directory.path().join(NAME)).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    holder.execute_batch("UPDATE meta SET last_event = 7").unwrap();
    assert_eq!(trouble(&dir, Mode::ReadWrite), Some(Trouble::Busy));
    assert_eq!(trouble(&dir, Mode::ReadOnly), Some(Trouble::Busy));
    drop(holder);
    assert_eq!(trouble(&dir, Mode::ReadWrite), None);
}

#[test]
fn a_second_writer_waits_and_then_says_so_while_readers_go_on() {
    let (_directory, dir) = store();
    let (mut first, mut second) = (usable(&dir, Mode::ReadWrite), usable(&dir, Mode::ReadWrite));
    let mut writer = first.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    let error = second.write().unwrap_err();
    assert!(matches!(error, Error::Locked { waited_ms: 50, .. }) && is_busy(&error), "{error:?}");
    assert!(!is_damage(&error));
    assert_eq!(second.read().unwrap().versions().unwrap().len(), 1);
    writer.commit().unwrap();
    assert_eq!(second.read().unwrap().versions().unwrap().len(), 0);
}

#[test]
fn a_reader_sees_one_moment() {
    let (_directory, dir) = store();
    let (mut first, mut second) = (usable(&dir, Mode::ReadWrite), usable(&dir, Mode::ReadOnly));
    let reader = second.read().unwrap();
    let version = reader.versions().unwrap().remove(0);
    let mut writer = first.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    writer.commit().unwrap();
    assert!(reader.tree_set(&version.digest.0).unwrap().is_some());
    drop(reader);
    assert_eq!(second.read().unwrap().versions().unwrap(), []);
}

#[test]
fn readers_write_nothing() {
    let (_directory, dir) = store();
    for mode in [Mode::ReadOnly, Mode::Frozen] {
        let mut index = usable(&dir, mode);
        assert_eq!(index.read().unwrap().versions().unwrap().len(), 1);
        assert!(index.write().and_then(|mut writer| writer.remove_versions(&[name("v1")]).map(drop)).is_err());
    }
}

#[test]
fn a_log_that_cannot_be_made_denies_reading_and_frozen_reading_still_works() {
    let (directory, dir) = store();
    // Stands for a directory that cannot be written, which stops no test that runs as root.
    std::os::unix::fs::symlink("/nowhere/at/all", directory.path().join("index.db-shm")).unwrap();
    assert_eq!(trouble(&dir, Mode::ReadOnly), Some(Trouble::Denied));
    assert_eq!(usable(&dir, Mode::Frozen).read().unwrap().versions().unwrap().len(), 1);
    // What a process that died left behind would be ignored.
    fs::write(directory.path().join("index.db-wal"), b"log").unwrap();
    assert_eq!(trouble(&dir, Mode::Frozen), Some(Trouble::Denied));
}

#[test]
fn every_setting_is_on() {
    let (_directory, dir) = store();
    let index = usable(&dir, Mode::ReadWrite);
    for (pragma, expected) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("trusted_schema", "0"),
        ("cell_size_check", "1"),
        ("mmap_size", "0"),
        ("temp_store", "2"),
        ("busy_timeout", "50"),
        ("journal_size_limit", "4194304"),
        ("cache_size", "-16384"),
    ] {
        let value: rusqlite::types::Value =
            index.connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        let text = match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text, expected, "{pragma}");
    }
}

#[test]
fn any_path_can_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    for part in [&b"a b?c#d%41"[..], b"\xff\xfe", b"file:x"] {
        let below = directory.path().join(std::ffi::OsStr::from_bytes(part));
        fs::create_dir(&below).unwrap();
        let dir = Dir::open(&below).unwrap();
        rebuild(&dir, NAME, [], []).unwrap();
        for mode in [Mode::ReadWrite, Mode::ReadOnly, Mode::Frozen] {
            assert_eq!(trouble(&dir, mode), None, "{part:?}");
        }
    }
    let made = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(made, 3, "and nothing is made elsewhere");
}

#[test]
fn an_index_may_move_to_another_thread() {
    let mut index = index_of([&manifest("v1", 1, &[("a", "1")])]);
    let moved = std::thread::spawn(move || index.read().unwrap().versions().unwrap().len());
    assert_eq!(moved.join().unwrap(), 1);
}
