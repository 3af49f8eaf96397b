//! What may lie in the index's place, who may hold it, and what is then told.

// Damage is made with bare hands.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::samples::{history, index_of, manifest, manifest_file, name, object_keys};
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
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
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
    assert_eq!(opened(Mode::ReadOnly).map_err(|unusable| unusable.trouble), Err(Trouble::Older));
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
fn a_reader_sees_one_moment_and_holds_up_a_commit() {
    let (_directory, dir) = store();
    let (mut first, mut second) = (usable(&dir, Mode::ReadWrite), usable(&dir, Mode::ReadOnly));
    let reader = second.read().unwrap();
    let version = reader.versions().unwrap().remove(0);
    let mut writer = first.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(error, Error::Locked { waited_ms: 50, .. }) && is_busy(&error), "{error:?}");
    assert!(reader.tree_set(&version.digest.0).unwrap().is_some());
    drop(reader);
    assert_eq!(second.read().unwrap().versions().unwrap().len(), 1, "what was not committed is undone");
    let mut writer = first.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    writer.commit().unwrap();
    assert_eq!(second.read().unwrap().versions().unwrap(), []);
}

#[test]
fn a_lookup_that_is_asked_nothing_holds_up_no_commit() {
    let (_directory, dir) = store();
    let wait = Duration::from_secs(30);
    let (Opened::Usable(mut first), Opened::Usable(second)) =
        (open(&dir, NAME, Mode::ReadWrite, wait), open(&dir, NAME, Mode::ReadWrite, wait))
    else {
        panic!("not usable")
    };
    let lookup = second.into_lookup();
    let (key, recorded) = &object_keys(&manifest("v1", 1, &[("a/b", "1"), ("c", "2")]))[0];
    assert_eq!(lookup.object(key).unwrap().as_ref(), Some(recorded));
    let mut writer = first.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    writer.commit().unwrap();
    assert_eq!(lookup.object(key).unwrap(), None);
}

#[test]
fn readers_write_nothing() {
    let (directory, dir) = store();
    let mut index = usable(&dir, Mode::ReadOnly);
    assert_eq!(index.read().unwrap().versions().unwrap().len(), 1);
    assert!(index.write().and_then(|mut writer| writer.remove_versions(&[name("v1")]).map(drop)).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "there is nothing beside it");
}

/// Leaves the index as a writer leaves it that dies in the middle of a commit that removes `v1`.
fn die_in_a_commit(directory: &std::path::Path, dir: &Dir) {
    let mut index = usable(dir, Mode::ReadWrite);
    // A cache of no pages writes every page at once, behind its journal.
    index.connection.pragma_update(None, "cache_size", 1).unwrap();
    index.connection.pragma_update(None, "cache_spill", 1).unwrap();
    let mut writer = index.write().unwrap();
    let _ = writer.remove_versions(&[name("v1")]).unwrap();
    for number in 2..40 {
        let files: Vec<String> = (0..9).map(|at| format!("{number}/{at}")).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), path.as_str())).collect();
        writer.insert_version(&manifest(&format!("v{number}"), number, &files), &manifest_file(number)).unwrap();
    }
    let copies = ["", "-journal"].map(|suffix| fs::read(directory.join([NAME, suffix].concat())).unwrap());
    drop(writer);
    drop(index);
    for (suffix, copy) in ["", "-journal"].iter().zip(copies) {
        fs::write(directory.join([NAME, suffix].concat()), copy).unwrap();
    }
}

#[test]
fn what_a_dead_writer_left_denies_reading_and_is_rolled_back_by_a_writer() {
    let (directory, dir) = store();
    die_in_a_commit(directory.path(), &dir);
    assert_eq!(trouble(&dir, Mode::ReadOnly), Some(Trouble::Denied));
    let versions = |mode| usable(&dir, mode).read().unwrap().versions().unwrap().len();
    assert_eq!((versions(Mode::ReadWrite), versions(Mode::ReadOnly)), (1, 1));
}

#[test]
fn no_journal_of_an_old_index_reaches_a_new_one() {
    let (directory, dir) = store();
    die_in_a_commit(directory.path(), &dir);
    let newer = manifest("v2", 2, &[("d", "4")]);
    rebuild(&dir, "new", [Ok((newer, manifest_file(2)))], []).unwrap();
    rebuild::replace(&dir, "new", NAME).unwrap();
    assert_eq!(usable(&dir, Mode::ReadWrite).read().unwrap().versions().unwrap()[0].facts.name, name("v2"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_write_ahead_log_is_refused_before_it_is_mapped() {
    let (directory, dir) = store();
    let other = Connection::open(directory.path().join(NAME)).unwrap();
    let mode: String = other.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    drop(other);
    assert_eq!(trouble(&dir, Mode::ReadWrite), Some(Trouble::Damaged));
    assert!(trouble(&dir, Mode::ReadOnly).is_some());
    assert!(!directory.path().join("index.db-shm").exists());
}

#[test]
fn a_journal_that_is_no_file_is_damage() {
    let (directory, dir) = store();
    fs::create_dir(directory.path().join("index.db-journal")).unwrap();
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        assert_eq!(trouble(&dir, mode), Some(Trouble::Damaged));
    }
    rebuild(&dir, "new", [], []).unwrap();
    rebuild::replace(&dir, "new", NAME).unwrap();
    assert_eq!(trouble(&dir, Mode::ReadWrite), None);
}

#[test]
fn nothing_of_a_journal_stays() {
    let (directory, dir) = store();
    let files: Vec<String> = (0..9000).map(|at| format!("{at}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), path.as_str())).collect();
    let mut index = usable(&dir, Mode::ReadWrite);
    let mut writer = index.write().unwrap();
    writer.insert_version(&manifest("v2", 2, &files), &manifest_file(2)).unwrap();
    writer.commit().unwrap();
    let mut writer = index.write().unwrap();
    let _ = writer.remove_versions(&[name("v2")]).unwrap();
    writer.commit().unwrap();
    let journal = fs::metadata(directory.path().join("index.db-journal")).unwrap().len();
    assert_eq!(journal, 0);
}

#[test]
fn every_setting_is_on() {
    let (_directory, dir) = store();
    let index = usable(&dir, Mode::ReadWrite);
    for (pragma, expected) in [
        ("journal_mode", "truncate"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("trusted_schema", "0"),
        ("cell_size_check", "1"),
        ("mmap_size", "0"),
        ("temp_store", "2"),
        ("busy_timeout", "50"),
        ("locking_mode", "normal"),
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
        for mode in [Mode::ReadWrite, Mode::ReadOnly] {
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
