//! Disks without room, and files that may not grow.

mod limit;
mod parts;
mod readers;
mod sweep;

use crate::support::{Fixture, tree};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [limit::tests(), parts::tests(), readers::tests(), sweep::tests()].into_iter().flatten().collect()
}

/// How a command may end on a disk without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It only reads, so it succeeds.
    Well,
    /// With any documented code.
    Documented,
}

/// Every command, as it is run on a store that [`prepare`] made. `SOURCE` and `BIN` stand for directories elsewhere.
const COMMANDS: &[(&[&str], Ends)] = &[
    (&["list"], Ends::Well),
    (&["show", "1.1.0"], Ends::Well),
    (&["ls", "-R", "1.1.0"], Ends::Well),
    (&["cat", "1.1.0", "etc/settings"], Ends::Well),
    (&["find", "**"], Ends::Well),
    (&["diff", "1.0.0", "1.1.0"], Ends::Well),
    (&["diff", "1.1.0", "SOURCE"], Ends::Well),
    (&["du"], Ends::Well),
    (&["status"], Ends::Well),
    (&["who"], Ends::Well),
    (&["history"], Ends::Well),
    (&["verify"], Ends::Well),
    (&["factory", "show"], Ends::Well),
    (&["factory", "verify"], Ends::Well),
    (&["gc", "--keep-last", "1", "--dry-run"], Ends::Well),
    (&["doctor", "--bin-dir", "BIN"], Ends::Documented),
    (&["doctor", "--fix", "--bin-dir", "BIN"], Ends::Documented),
    (&["verify", "--repair"], Ends::Documented),
    (&["init"], Ends::Documented),
    (&["activate", "1.2.0"], Ends::Documented),
    (&["rollback"], Ends::Well),
    (&["rollback", "--to", "factory"], Ends::Well),
    (&["gc", "--keep-last", "1"], Ends::Documented),
    (&["remove", "1.2.0"], Ends::Documented),
    (&["import", "SOURCE", "--version", "2.0.0"], Ends::Documented),
    (&["import", "SOURCE", "--version", "2.0.0", "--activate"], Ends::Documented),
    (&["adopt"], Ends::Documented),
    (&["pin", "1.2.0"], Ends::Documented),
    (&["note", "1.2.0", "text"], Ends::Documented),
    (&["confirm", "1.1.0"], Ends::Documented),
    (&["factory", "set", "1.1.0", "--replace"], Ends::Documented),
    (&["link", "--bin-dir", "BIN"], Ends::Documented),
    (&["rebuild-index"], Ends::Documented),
];

/// A store with four versions and one that was made by hand, in the current directory's terms: `root` beside `new` and
/// `bin`. v1.1.0 is current, v1.0.0 previous and factory.
fn prepare() -> Fixture {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    for number in 0..4 {
        release(&source, number);
        fixture.import("source", &format!("1.{number}.0"));
    }
    release(&fixture.beside("new"), 9);
    std::fs::create_dir(fixture.beside("bin")).unwrap();
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    release(&fixture.path("versions/v1.9.0"), 5);
    fixture
}

fn release(top: &std::path::Path, number: u32) {
    tree::program(top.join("bin/device-api"), format!("#!/bin/sh\necho {number}\n"));
    tree::file(top.join("etc/settings"), "port = 80\n");
    for file in 0..12 {
        let changed = if file % 4 == 0 { number } else { 0 };
        tree::file(top.join(format!("share/d{}/f{file}", file % 3)), format!("{file} of {changed}\n").repeat(60));
    }
}

/// What is wrong with how a command ended; `None` if nothing is.
fn misbehaved(ran: &crate::support::Ran, arguments: &[&str], ends: Ends) -> Option<&'static str> {
    let is_document = serde_json::from_str::<serde_json::Value>(&ran.stdout).is_ok();
    match () {
        () if !matches!(ran.code, 0..=9) => Some("it did not end as documented"),
        () if ran.stderr.contains("panicked") => Some("it panicked"),
        () if arguments[0] != "cat" && !is_document => Some("its answer is no document"),
        () if ends == Ends::Well && ran.code != 0 => Some("it needs no room and failed"),
        () => None,
    }
}
