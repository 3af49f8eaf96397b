//! Commands that read, and the index that others are writing or reading.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::{Fixture, Outcome, tree};

tests![readers_keep_working_while_imports_run, an_import_ends_beside_a_reader_that_never_ends_and_is_caught_up,];

/// A reader takes milliseconds; one that waits for the length of an import takes longer than this.
const QUICK: Duration = Duration::from_secs(5);

fn many_files(fixture: &Fixture, number: u32) {
    for file in 0..900 {
        tree::file(fixture.beside(format!("{number}/d{}/f{file}", file % 30)), format!("{file} of {number}\n"));
    }
}

fn readers_keep_working_while_imports_run() -> Outcome {
    let fixture = Fixture::new();
    for number in 1..=3 {
        many_files(&fixture, number);
    }
    fixture.import("1", "1");
    fixture.run(&["activate", "1"]).ok();
    let done = AtomicBool::new(false);
    let read = || {
        let (mut asked, mut slowest) = (0, Duration::ZERO);
        while !done.load(Relaxed) {
            for arguments in [&["list"][..], &["show", "1"], &["find", "d7/f7"], &["status"], &["history"]] {
                let begun = Instant::now();
                fixture.json(arguments);
                slowest = slowest.max(begun.elapsed());
                asked += 1;
            }
        }
        (asked, slowest)
    };
    let (asked, slowest) = std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        for number in ["2", "3"] {
            fixture.import(number, number);
            fixture.run(&["pin", number]).ok();
        }
        done.store(true, Relaxed);
        reader.join().unwrap()
    });
    assert!(asked >= 5 && slowest < QUICK, "{asked} answers, {slowest:?} for one");
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn an_import_ends_beside_a_reader_that_never_ends_and_is_caught_up() -> Outcome {
    let fixture = Fixture::new();
    for number in [1, 2] {
        tree::release(fixture.beside(number.to_string()), number);
    }
    fixture.import("1", "1");
    let reader = rusqlite::Connection::open(fixture.path("store/index.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM versions").unwrap();
    fixture.import("2", "2");
    let names = |fixture: &Fixture| -> Vec<String> {
        let listed = fixture.json(&["list"]);
        listed["versions"].as_array().unwrap().iter().map(|version| version["name"].to_string()).collect()
    };
    let expected = names(&fixture);
    assert_eq!(expected.len(), 2);
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    assert_eq!(names(&fixture), expected);
    let rows = rusqlite::Connection::open(fixture.path("store/index.db")).unwrap();
    assert_eq!(rows.query_row("SELECT count(*) FROM versions", [], |row| row.get::<_, i64>(0)), Ok(2));
    Ok(())
}
