//! The damage matrix: everything that can happen to everything, under every command.
//!
//! A cell is one damage to one thing of a small store, and one command run on it. In each cell the command ends with
//! a documented exit code and one document, never with a panic; what it is its job to find it finds, and names; what was
//! sound before is sound afterwards; and a repair heals what a good copy exists of.
//!
//! Without further words a sample runs, chosen by a seed that is printed; `TOPE_DAMAGE_SEED=N` chooses the same one
//! again, `TOPE_DAMAGE=all` runs every cell, `TOPE_DAMAGE=Head` every cell of one thing.

mod doing;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;

use self::doing::damage;
use crate::support::tree::Described;
use crate::support::{Fixture, Outcome, Ran, needs_root, tree};

tests![every_damage_to_everything_under_every_command];

/// Cells of a sample: ten seconds of two idle processors.
const SAMPLE: usize = 800;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Deleted,
    Truncated,
    Extended,
    BitFlipped,
    WrongMode,
    Swapped,
    MadeALink,
    MadeADirectory,
}

const DAMAGES: [Damage; 8] = [
    Damage::Deleted,
    Damage::Truncated,
    Damage::Extended,
    Damage::BitFlipped,
    Damage::WrongMode,
    Damage::Swapped,
    Damage::MadeALink,
    Damage::MadeADirectory,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Object,
    TreeFile,
    Manifest,
    HistoryLine,
    Head,
    IndexPage,
    Journal,
    RoleLink,
    ServiceLink,
    Format,
    Tree,
}

const THINGS: [Thing; 11] = [
    Thing::Object,
    Thing::TreeFile,
    Thing::Manifest,
    Thing::HistoryLine,
    Thing::Head,
    Thing::IndexPage,
    Thing::Journal,
    Thing::RoleLink,
    Thing::ServiceLink,
    Thing::Format,
    Thing::Tree,
];

const COMMANDS: [&[&str]; 27] = [
    &["list"],
    &["show", "1.1.0"],
    &["ls", "-R", "1.1.0"],
    &["cat", "1.1.0", "lib/common.so"],
    &["find", "**"],
    &["diff", "1.0.0", "1.1.0"],
    &["du"],
    &["status"],
    &["history"],
    &["activate", "1.2.0"],
    &["rollback"],
    &["gc", "--keep-last", "1", "--dry-run"],
    &["gc", "--keep-last", "1"],
    &["verify"],
    &["verify", "--repair"],
    &["import", "SOURCE", "--version", "2.0.0"],
    &["adopt"],
    &["remove", "1.2.0"],
    &["pin", "1.2.0"],
    &["note", "1.2.0", "text"],
    &["confirm", "1.1.0"],
    &["factory", "show"],
    &["factory", "verify"],
    &["link", "--bin-dir", "BIN"],
    &["rebuild-index"],
    &["doctor", "--bin-dir", "BIN"],
    &["doctor", "--fix", "--bin-dir", "BIN"],
];

/// What the damage is done to: v1.1.0, which is current; `lib/common.so` exists in another mode as well.
static COMMON: [u8; 20_000] = [7; 20_000];

/// The store that every cell gets a copy of.
struct Prepared {
    fixture: Fixture,
    /// The tree of the version that nothing is done to.
    untouched: BTreeMap<Vec<u8>, Described>,
    /// What commands answer that may not be influenced by the index.
    answers: BTreeMap<usize, String>,
}

fn prepare() -> Prepared {
    let fixture = Fixture::new();
    for number in 0..3 {
        let source = fixture.beside("source");
        tree::program(source.join("bin/device-api"), format!("#!/bin/sh\necho {number}\n"));
        tree::program(source.join("bin/web-server"), "#!/bin/sh\necho web\n");
        tree::program(source.join("bin/common"), COMMON);
        tree::file(source.join("lib/common.so"), COMMON);
        tree::file(source.join("lib/lock"), "");
        tree::file(source.join("services/device-api/settings.toml"), "port = 80\n");
        tree::file(source.join("services/web-server/index.html"), format!("<p>{number}</p>\n"));
        fixture.import("source", &format!("1.{number}.0"));
    }
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["pin", "1.1.0"]).ok();
    std::fs::create_dir(fixture.beside("bin")).unwrap();
    fixture.run(&["link", "--bin-dir", fixture.beside("bin").to_str().unwrap()]).ok();
    // Programs are linked by the whole path, which differs from copy to copy.
    std::fs::remove_dir_all(fixture.beside("bin")).unwrap();
    std::fs::create_dir(fixture.beside("bin")).unwrap();
    leave_a_journal(&fixture);
    let untouched = tree::describe(&fixture.path("versions/v1.2.0"), false);
    let answers = (0..6).map(|command| (command, run(&fixture, command).stdout)).collect();
    leave_a_journal(&fixture);
    Prepared { fixture, untouched, answers }
}

/// Leaves a journal beside the index that has to be rolled back, as a command leaves it that is killed in a commit.
fn leave_a_journal(fixture: &Fixture) {
    let index = fixture.path("store/index.db");
    let connection = rusqlite::Connection::open(&index).unwrap();
    let change = "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; CREATE TABLE probe (x);
        UPDATE meta SET last_event = last_event; UPDATE events SET json = json;
        INSERT INTO probe SELECT zeroblob(5000) FROM events";
    connection.execute_batch(change).unwrap();
    let aside = fixture.beside("aside");
    std::fs::create_dir(&aside).unwrap();
    for name in ["index.db", "index.db-journal"] {
        std::fs::copy(fixture.path("store").join(name), aside.join(name)).unwrap();
    }
    assert!(std::fs::metadata(aside.join("index.db-journal")).unwrap().len() > 4096);
    drop(connection);
    for name in ["index.db", "index.db-journal"] {
        std::fs::copy(aside.join(name), fixture.path("store").join(name)).unwrap();
    }
    std::fs::remove_dir_all(aside).unwrap();
}

fn run(fixture: &Fixture, command: usize) -> Ran {
    let mut call = fixture.command();
    // What is raw is no document.
    if COMMANDS[command][0] != "cat" {
        call.arg("--json");
    }
    for argument in COMMANDS[command] {
        match *argument {
            "SOURCE" => call.arg(fixture.beside("new")),
            "BIN" => call.arg(fixture.beside("bin")),
            other => call.arg(other),
        };
    }
    Ran::of(&call.output().unwrap())
}

fn copy(prepared: &Prepared) -> Fixture {
    let fixture = Fixture::bare();
    let mut cp = Command::new("cp");
    cp.arg("-a").args([prepared.fixture.root(), prepared.fixture.beside("bin")]).arg(&fixture.dir);
    assert!(cp.status().unwrap().success());
    tree::file(fixture.beside("new/bin/device-api"), "new\n");
    tree::file(fixture.beside("new/lib/common.so"), COMMON);
    fixture
}

/// Kind, version and path of what `verify` finds.
fn damaged(fixture: &Fixture) -> (i32, BTreeSet<String>) {
    let ran = Ran::of(&fixture.command().args(["--json", "verify"]).output().unwrap());
    let Ok(document) = serde_json::from_str::<Value>(&ran.stdout) else { return (ran.code, BTreeSet::new()) };
    let found = document["problems"].as_array().into_iter().flatten().filter(|problem| problem["damage"] == true);
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap_or("-").to_owned();
    (ran.code, found.map(|problem| format!("{} {}", text(problem, "version"), text(problem, "path"))).collect())
}

/// What `doctor` finds, but for what a copy lacks: links to programs, preallocated blocks.
fn noticed(fixture: &Fixture, document: &Value) -> Vec<String> {
    let bin = fixture.beside("bin").display().to_string();
    let all = document["findings"].as_array().into_iter().flatten();
    let others = all
        .filter(|finding| finding["kind"] != "reserve" && finding["kind"] != "processes-hidden")
        .filter(|finding| !finding["path"].as_str().unwrap_or_default().starts_with(&bin));
    others.map(|finding| finding["what"].to_string()).collect()
}

/// What the matrix expects `verify` to name; `None` where the damage is none that verifying is about.
fn named(thing: Thing, damage: Damage) -> Option<&'static str> {
    match (thing, damage) {
        (Thing::Object, _) => Some("store/objects/"),
        (Thing::TreeFile, _) => Some("v1.1.0 lib/common.so"),
        // The whole of v1.1.0, which is current and pinned.
        (Thing::Tree, _) => Some("v1.1.0 "),
        // Nobody but the reader of a manifest or history cares for its mode.
        (_, Damage::WrongMode) => None,
        // A link to the very same bytes is still no file of the store.
        (Thing::Manifest, _) => Some("v1.1.0 store/manifests/v1.1.0"),
        // What a power cut leaves looks the same: it is cut and noted.
        (Thing::HistoryLine, Damage::Extended) => None,
        (Thing::HistoryLine, _) => Some("store/history"),
        // It names an event that the log does not have. A head that answers nothing is no damage to what it is about.
        (Thing::Head, Damage::Swapped) => Some("store/history"),
        // Leads to another version: changed by hand, says `status`.
        (Thing::RoleLink, Damage::Swapped) => None,
        (Thing::RoleLink, Damage::MadeALink) => Some("versions/current"),
        (Thing::RoleLink, _) => Some("versions/current"),
        _ => None,
    }
}

/// Whether these commands leave the store sound: `verify --repair`, `doctor --fix`.
fn healed_by(thing: Thing, damage: Damage) -> (bool, bool) {
    match (thing, damage) {
        (Thing::Object | Thing::TreeFile | Thing::Manifest, Damage::WrongMode) => (true, thing == Thing::Manifest),
        (Thing::Object | Thing::TreeFile | Thing::Manifest, _) => (true, false),
        (Thing::HistoryLine, Damage::WrongMode | Damage::Extended) => (true, true),
        (Thing::HistoryLine, _) | (Thing::Head, Damage::Swapped) => (false, true),
        (Thing::Head, _) => (true, true),
        // What is no link is somebody's.
        (Thing::RoleLink, Damage::MadeADirectory) => (false, false),
        (Thing::RoleLink, _) => (true, true),
        // Only a repair makes bytes.
        (Thing::Tree, _) => (true, false),
        (Thing::Format, Damage::WrongMode) => (true, true),
        (Thing::Format, _) => (false, true),
        (Thing::IndexPage | Thing::Journal | Thing::ServiceLink, _) => (true, true),
    }
}

/// What may have become of a cell.
#[derive(Debug, Default)]
struct Tally {
    cells: usize,
    not_applicable: usize,
    verified: usize,
    noticed: usize,
    repaired: usize,
    fixed: usize,
}

fn cell(prepared: &Prepared, thing: Thing, how: Damage, command: usize, tally: &Mutex<Tally>) -> Result<(), String> {
    let fixture = copy(prepared);
    if !damage(&fixture, thing, how) {
        tally.lock().unwrap().not_applicable += 1;
        return Ok(());
    }
    let before = damaged(&fixture);
    let ran = run(&fixture, command);
    let name = COMMANDS[command][0];
    let call = COMMANDS[command].join(" ");
    let fail = |what: &str| Err(format!("{thing:?} {how:?} `{call}`: {what}\n{ran:?}\nbefore: {before:?}"));
    if !matches!(ran.code, 0..=9) || ran.stderr.contains("panicked") {
        return fail("it did not end as documented");
    }
    if name != "cat" && serde_json::from_str::<Value>(&ran.stdout).is_err() {
        return fail("its answer is no document");
    }
    // Found and named.
    if name == "verify"
        && command == 13
        && let Some(expected) = named(thing, how)
    {
        if ran.code != 5 || !before.1.iter().any(|found| found.contains(expected)) {
            return fail("it does not name the damage");
        }
        tally.lock().unwrap().verified += 1;
    }
    if call.starts_with("doctor --bin-dir") && !matches!(thing, Thing::IndexPage | Thing::Journal) {
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        let noticed = !noticed(&fixture, &document).is_empty();
        let harmless = matches!(thing, Thing::Manifest | Thing::HistoryLine | Thing::Head | Thing::Format)
            && how == Damage::WrongMode;
        // A bit in the middle with the old time shows to those who read every byte only.
        let unseen = matches!(thing, Thing::Object | Thing::TreeFile) && how == Damage::BitFlipped;
        if !noticed && !harmless && !unseen {
            return fail("doctor notices nothing");
        }
        tally.lock().unwrap().noticed += usize::from(noticed);
    }
    if matches!(thing, Thing::IndexPage | Thing::Journal)
        && let Some(answer) = prepared.answers.get(&command)
        && *answer != ran.stdout
    {
        return fail("the answer depends on the index");
    }
    // Healed where there is a good copy.
    let (by_repair, by_doctor) = healed_by(thing, how);
    let after = damaged(&fixture);
    if (command == 14 && by_repair) || (command == 26 && by_doctor) {
        if after.0 != 0 {
            return fail(&format!("it is not healed: {after:?}"));
        }
        let mut tally = tally.lock().unwrap();
        *if command == 14 { &mut tally.repaired } else { &mut tally.fixed } += 1;
    }
    let ours = !matches!(how, Damage::MadeALink | Damage::MadeADirectory);
    if command == 26 && thing == Thing::ServiceLink && ours {
        let target = fixture.link("services/device-api");
        if target != "../versions/current/services/device-api" {
            return fail(&format!("the link is not mended: {target}"));
        }
    }
    let of_index = matches!(command, 24 | 26) && matches!(thing, Thing::IndexPage | Thing::Journal);
    if of_index || command == 26 && thing == Thing::Head {
        let left = noticed(&fixture, &run(&fixture, 25).json());
        if !left.is_empty() {
            return fail(&format!("it is not what it is made from: {left:?}"));
        }
    }
    // Never made worse.
    let worse: Vec<&String> = after.1.difference(&before.1).collect();
    let opened = before.0 == 0 || before.0 == 5 && !before.1.is_empty();
    if opened && !worse.is_empty() {
        return fail(&format!("it is worse than before: {worse:?}"));
    }
    let top = fixture.path("versions/v1.2.0");
    if top.exists() {
        if tree::describe(&top, false) != prepared.untouched && thing != Thing::Object {
            return fail("a version that nothing was done to has changed");
        }
    } else if !matches!(name, "gc" | "remove") {
        return fail("a version that nothing was done to is gone");
    }
    tally.lock().unwrap().cells += 1;
    Ok(())
}

#[allow(clippy::print_stderr, reason = "a seed that is not told cannot be repeated")]
fn every_damage_to_everything_under_every_command() -> Outcome {
    needs_root()?;
    let prepared = prepare();
    let sound = copy(&prepared);
    assert_eq!(damaged(&sound), (0, BTreeSet::new()));
    assert_eq!(noticed(&sound, &run(&sound, 25).json()), Vec::<String>::new());
    let mut cells = Vec::new();
    for thing in THINGS {
        for damage in DAMAGES {
            for command in 0..COMMANDS.len() {
                cells.push((thing, damage, command));
            }
        }
    }
    let chosen = std::env::var("TOPE_DAMAGE").unwrap_or_default();
    if THINGS.iter().any(|thing| format!("{thing:?}") == chosen) {
        cells.retain(|(thing, ..)| format!("{thing:?}") == chosen);
    } else if chosen != "all" {
        let seed = std::env::var("TOPE_DAMAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs())
        });
        eprintln!("a sample of {SAMPLE} of {} cells: TOPE_DAMAGE_SEED={seed}; all: TOPE_DAMAGE=all", cells.len());
        let mut state = seed;
        for at in (1..cells.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            cells.swap(at, (state >> 33) as usize % (at + 1));
        }
        cells.truncate(SAMPLE);
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let tallies: BTreeMap<Thing, Mutex<Tally>> = THINGS.into_iter().map(|thing| (thing, Mutex::default())).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((thing, damage, command)) = cells.get(next.fetch_add(1, Relaxed)).copied() {
                    if let Err(failure) = cell(&prepared, thing, damage, command, &tallies[&thing]) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    for (thing, tally) in &tallies {
        eprintln!("{thing:?}: {:?}", tally.lock().unwrap());
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}
