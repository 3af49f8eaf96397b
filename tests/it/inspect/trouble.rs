//! Whatever has become of the index, and whoever holds it, the answers are the same.

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, tree};

tests![
    a_damaged_index_changes_no_answer,
    an_index_that_somebody_holds_changes_no_answer,
    a_read_only_mount_changes_no_answer,
];

const QUESTIONS: &[&[&str]] = &[
    &["--json", "list"],
    &["--json", "show", "2"],
    &["--json", "ls", "-R", "1"],
    &["cat", "1", "bin/device-api"],
    &["--json", "find", "**"],
    &["--json", "find", "--content-of", "/dev/null/nothing"],
    &["--json", "diff", "-M", "1", "2"],
    &["diff", "-p", "1", "2"],
    &["--json", "show", "nothing"],
];

fn answers(fixture: &Fixture) -> Vec<(i32, String)> {
    let ran = QUESTIONS.iter().map(|question| fixture.run(question));
    ran.map(|ran| (ran.code, ran.stdout)).collect()
}

fn fill(fixture: &Fixture) {
    for number in [1, 2] {
        tree::release(fixture.beside("source"), number);
        for extra in 0..200 {
            tree::file(fixture.beside(format!("source/share/{extra}/data-{}", extra * number)), extra.to_string());
        }
        fixture.import("source", &number.to_string());
    }
    std::os::unix::fs::symlink("v2", fixture.path("versions/current")).unwrap();
}

/// Numbers that look random and are the same in every run.
fn numbers(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    })
}

fn a_damaged_index_changes_no_answer() -> Outcome {
    let fixture = Fixture::new();
    fill(&fixture);
    let expected = answers(&fixture);
    assert!(expected.iter().filter(|(code, _)| *code == 0).count() >= 7, "{expected:?}");
    let index = fixture.path("store/index.db");
    let check = |what: &str| assert!(answers(&fixture) == expected, "{what}");
    std::fs::remove_file(&index).unwrap();
    check("removed");
    let sound = std::fs::read(&index).unwrap();
    std::fs::write(&index, vec![0; sound.len()]).unwrap();
    check("zero-filled");
    std::fs::write(&index, "").unwrap();
    check("emptied");
    for part in [2, 3, 7] {
        std::fs::write(&index, &std::fs::read(&index).unwrap()[..sound.len() / part]).unwrap();
        check("truncated");
    }
    for seed in 0..6 {
        let mut garbled = std::fs::read(&index).unwrap();
        let mut numbers = numbers(seed);
        for _ in 0..2000 {
            let at = numbers.next().unwrap() % garbled.len();
            garbled[at] = numbers.next().unwrap() as u8;
        }
        std::fs::write(&index, garbled).unwrap();
        check(&format!("garbled with seed {seed}"));
    }
    for companion in ["store/index.db-journal", "store/index.db-wal"] {
        let companion = fixture.path(companion);
        std::fs::write(&companion, vec![0x5a; 100_000]).unwrap();
        check("beside garbage");
        std::fs::remove_file(&index).unwrap();
        std::fs::write(&companion, vec![0; 50_000]).unwrap();
        check("removed, beside zeros");
        std::fs::remove_file(&companion).ok();
        std::fs::create_dir(&companion).unwrap();
        check("beside a directory");
        std::fs::remove_dir(&companion).ok();
    }
    std::fs::remove_file(&index).unwrap();
    std::fs::create_dir(&index).unwrap();
    check("a directory");
    Ok(())
}

fn an_index_that_somebody_holds_changes_no_answer() -> Outcome {
    let fixture = Fixture::new();
    fill(&fixture);
    let expected = answers(&fixture);
    let connection = rusqlite::Connection::open(fixture.path("store/index.db")).unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(answers(&fixture) == expected, "held for writing");
    connection
        .execute_batch(
            "COMMIT; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE meta SET last_event = last_event",
        )
        .unwrap();
    assert!(answers(&fixture) == expected, "held for good");
    drop(connection);
    assert!(answers(&fixture) == expected, "free again");
    Ok(())
}

fn a_read_only_mount_changes_no_answer() -> Outcome {
    let image = Image::new(Kind::Ext4, 64)?;
    let fixture = Fixture::in_dir(image.mounted());
    fill(&fixture);
    let expected = answers(&fixture);
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    assert!(answers(&fixture) == expected, "with an index");
    image.unmount()?;
    image.mount(&["loop"])?;
    std::fs::remove_file(fixture.path("store/index.db")).unwrap();
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    assert!(answers(&fixture) == expected, "without one");
    Ok(())
}
