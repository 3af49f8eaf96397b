//! `adopt`

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tope_store::error::Error;
use tope_store::layout::Layout;
use tope_store::model::VersionName;
use tope_store::observe::{Observer, Stage};
use tope_store::ops::adopt::adopt;
use tope_store::ops::import::Options;
use tope_store::store::adoption::Note;
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, Outcome, Skipped, needs_program, tree};

tests![
    hand_made_trees_become_managed_in_the_order_of_their_names,
    the_digest_is_that_of_an_import,
    readers_notice_nothing,
    a_file_that_is_open_for_writing_stops_it,
    a_file_that_is_open_for_writing_by_another_name_stops_it,
    a_map_through_which_a_file_may_be_written_stops_it,
    a_map_that_is_made_while_it_is_adopted_puts_everything_back,
    a_change_while_it_is_adopted_puts_everything_back,
    what_a_service_writes_goes_on_being_written,
    a_process_that_works_in_the_tree_goes_on_in_it,
    an_adoption_that_died_is_undone_or_completed,
    an_adoption_that_died_between_two_steps_is_undone,
    a_dry_run_touches_nothing,
    names_that_no_version_can_have_are_said,
];

fn by_hand(fixture: &Fixture, version: &str, number: u32) -> std::path::PathBuf {
    let top = fixture.path("versions").join(version);
    tree::release(&top, number);
    top
}

fn store(fixture: &Fixture) -> Store {
    Store::open(Layout::new(fixture.root(), None), Settings::default()).unwrap()
}

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn entries(path: std::path::PathBuf) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn hand_made_trees_become_managed_in_the_order_of_their_names() -> Outcome {
    let fixture = Fixture::new();
    for (version, number) in [("v1.10.0", 3), ("v1.9.0", 2), ("v1.9.0-rc.1", 1)] {
        by_hand(&fixture, version, number);
        tree::release(fixture.beside(version), number);
    }
    std::os::unix::fs::symlink("v1.10.0", fixture.path("versions/current")).unwrap();
    let report = fixture.json(&["adopt"]);
    let adopted: Vec<_> = report["adopted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|adopted| (adopted["version"].as_str().unwrap().to_owned(), adopted["import_number"].as_u64().unwrap()))
        .collect();
    assert_eq!(adopted, [("v1.9.0-rc.1".into(), 1), ("v1.9.0".into(), 2), ("v1.10.0".into(), 3)]);
    for version in ["v1.10.0", "v1.9.0", "v1.9.0-rc.1"] {
        tree::assert_same(&fixture.beside(version), &fixture.path("versions").join(version));
    }
    let shared = std::fs::metadata(fixture.path("versions/current/lib/common.so")).unwrap();
    assert_eq!(shared.nlink(), 4, "one inode for three trees and the object");
    assert_eq!((entries(fixture.path("store/staging")), entries(fixture.path("store/trash"))), (0, 0));
    let again = fixture.json(&["adopt", "1.9.0"]);
    assert_eq!((again["adopted"].as_array().unwrap().len(), &again["already_managed"][0]), (0, &"v1.9.0".into()));
    assert_eq!(fixture.run(&["adopt"]).ok().stdout, "there is nothing to adopt\n");
    fixture.run(&["adopt", "7.0.0"]).expect(3);
    assert_eq!(fixture.json(&["gc", "--keep-last", "2"])["removed"][0]["name"], "v1.9.0-rc.1");
    Ok(())
}

fn the_digest_is_that_of_an_import() -> Outcome {
    let fixture = Fixture::new();
    by_hand(&fixture, "v1.0.0", 1);
    tree::release(fixture.beside("source"), 1);
    let adopted = fixture.json(&["adopt"])["adopted"][0]["digest"].clone();
    assert_eq!(fixture.import("source", "1.0.0")["already_there"], true);
    assert_eq!(fixture.import("source", "2.0.0")["digest"], adopted);
    Ok(())
}

fn readers_notice_nothing() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    for number in 0..400 {
        tree::file(top.join(format!("many/{}/{number}", number % 20)), number.to_string().repeat(50));
    }
    std::os::unix::fs::symlink("v1.0.0", fixture.path("versions/current")).unwrap();
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let readers: Vec<_> = ["versions/v1.0.0", "versions/current"]
            .map(|top| fixture.path(top))
            .into_iter()
            .map(|top| {
                let done = &done;
                scope.spawn(move || {
                    let mut rounds = 0_u32;
                    while !done.load(Ordering::Relaxed) {
                        for number in [0, 7, 199, 399] {
                            let path = top.join(format!("many/{}/{number}", number % 20));
                            let text =
                                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
                            assert_eq!(text, number.to_string().repeat(50));
                        }
                        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 5);
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        fixture.run(&["adopt"]).ok();
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).min().unwrap()
    });
    assert!(rounds > 5, "only {rounds} rounds while it was adopted");
    assert_eq!(std::fs::metadata(top.join("many/0/0")).unwrap().nlink(), 2);
    Ok(())
}

fn a_file_that_is_open_for_writing_stops_it() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    let before = tree::describe(&top, false);
    let open = std::fs::OpenOptions::new().append(true).open(top.join("services/web-server/index.html")).unwrap();
    let ran = fixture.run(&["adopt"]).expect(4);
    assert!(ran.stderr.contains(&format!("pid {}", std::process::id())), "{ran:?}");
    assert!(before == tree::describe(&top, false));
    drop(open);
    let reading = std::fs::File::open(top.join("lib/common.so")).unwrap();
    fixture.run(&["adopt"]).ok();
    drop(reading);
    Ok(())
}

fn a_file_that_is_open_for_writing_by_another_name_stops_it() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    std::fs::hard_link(top.join("lib/common.so"), fixture.beside("other-name")).unwrap();
    let open = std::fs::OpenOptions::new().append(true).open(fixture.beside("other-name")).unwrap();
    let ran = fixture.run(&["adopt"]).expect(4);
    assert!(ran.stderr.contains(&format!("pid {}", std::process::id())), "{ran:?}");
    drop(open);
    fixture.run(&["adopt"]).ok();
    Ok(())
}

/// A process that maps a file and closes it: no handle shows that it can write. (A map of Python's own keeps one.)
struct Mapping(std::process::Child);

impl Mapping {
    /// Opens, maps and closes. On its input's end it writes through the map, made writable if it was not, and ends.
    fn new(file: &Path, open: &str, protection: &str) -> Result<Self, Skipped> {
        needs_program("python3")?;
        let script = "import ctypes, mmap, os, sys
c = ctypes.CDLL(None, use_errno=True)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
c.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
file = os.open(sys.argv[1], getattr(os, sys.argv[2]))
place = c.mmap(None, 4096, eval(sys.argv[3], vars(mmap)), mmap.MAP_SHARED, file, 0)
os.close(file)
print('mapped', flush=True)
sys.stdin.read()
if c.mprotect(place, 4096, mmap.PROT_READ | mmap.PROT_WRITE) == 0:
    ctypes.memmove(place, b'!', 1)
";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(file).args([open, protection]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 runs");
        let mut line = [0; 7];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"mapped\n");
        Ok(Self(child))
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn a_map_through_which_a_file_may_be_written_stops_it() -> Outcome {
    for (protection, other_name) in [("PROT_READ | PROT_WRITE", false), ("PROT_READ", false), ("PROT_READ", true)] {
        let fixture = Fixture::new();
        let top = by_hand(&fixture, "v1.0.0", 1);
        let mut file = top.join("lib/common.so");
        if other_name {
            std::fs::hard_link(&file, fixture.beside("other-name")).unwrap();
            file = fixture.beside("other-name");
        }
        let mapping = Mapping::new(&file, "O_RDWR", protection)?;
        let before = tree::describe(&top, false);
        let ran = fixture.run(&["adopt"]).expect(4);
        let expected = format!("pid {} ", mapping.0.id());
        assert!(ran.stderr.contains(&expected) && ran.stderr.contains("which maps"), "{protection}: {ran:?}");
        assert!(before == tree::describe(&top, false));
        mapping.end();
        // It could write, whatever it could when it was looked at.
        assert_eq!(std::fs::read(&file).unwrap()[0], b'!', "{protection}");
        // Through a map of what was opened for reading nothing can be written.
        let mapping = Mapping::new(&file, "O_RDONLY", "PROT_READ")?;
        fixture.run(&["adopt"]).ok();
        mapping.end();
        assert_eq!(std::fs::read(top.join("lib/common.so")).unwrap()[..2], *b"!\x07");
    }
    // Whoever is declared to write there may go on.
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"var/*.db\"]\n").unwrap();
    let top = by_hand(&fixture, "v1.0.0", 1);
    tree::file(top.join("var/api.db"), "rows\n");
    let mapping = Mapping::new(&top.join("var/api.db"), "O_RDWR", "PROT_READ | PROT_WRITE")?;
    fixture.run(&["adopt"]).ok();
    mapping.end();
    assert_eq!(std::fs::read_to_string(top.join("var/api.db")).unwrap(), "!ows\n");
    Ok(())
}

fn a_map_that_is_made_while_it_is_adopted_puts_everything_back() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    needs_program("python3")?;
    let mapping = Mutex::new(None);
    let map = || *mapping.lock().unwrap() = Mapping::new(&top.join("lib/common.so"), "O_RDWR", "PROT_READ").ok();
    let meddling = Meddling(Mutex::new(Some(map)));
    let error = adopt(&store(&fixture), &[], &Options::default(), &meddling).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("may write"), "{error}");
    let by_hand = std::fs::metadata(top.join("lib/common.so")).unwrap();
    assert_eq!((by_hand.mode() & 0o777, by_hand.nlink()), (0o644, 1), "this is the hand-made one");
    mapping.into_inner().unwrap().expect("it was made").end();
    assert_eq!(std::fs::read(top.join("lib/common.so")).unwrap()[0], b'!');
    fixture.run(&["adopt"]).ok();
    Ok(())
}

/// Does something when everything was read and built, and the trees are about to be exchanged.
struct Meddling<F: Fn()>(Mutex<Option<F>>);

impl<F: Fn() + Send> Observer for Meddling<F> {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::Sync
            && let Some(meddle) = self.0.lock().unwrap().take()
        {
            meddle();
        }
    }
}

fn a_change_while_it_is_adopted_puts_everything_back() -> Outcome {
    let changes: [fn(&Path); 4] = [
        |top| std::fs::write(top.join("services/device-api/settings.toml"), "port = 81\n").unwrap(),
        |top| std::fs::write(top.join("new"), "new").unwrap(),
        |top| std::fs::remove_file(top.join("lib/lock")).unwrap(),
        |top| std::fs::set_permissions(top.join("bin/web-server"), PermissionsExt::from_mode(0o700)).unwrap(),
    ];
    for change in changes {
        let fixture = Fixture::new();
        let top = by_hand(&fixture, "v1.0.0", 1);
        let store = store(&fixture);
        let meddling = Meddling(Mutex::new(Some(|| change(&top))));
        let error = adopt(&store, &[], &Options::default(), &meddling).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("changed while"), "{error}");
        let by_hand = std::fs::metadata(top.join("lib/common.so")).unwrap();
        assert_eq!((by_hand.mode() & 0o777, by_hand.nlink()), (0o644, 1), "this is the hand-made one");
        assert_eq!((entries(fixture.path("store/staging")), entries(fixture.path("store/manifests"))), (0, 0));
        fixture.run(&["adopt"]).ok();
        let changed = fixture.beside("changed");
        tree::release(&changed, 1);
        change(&changed);
        tree::assert_same(&changed, &top);
    }
    Ok(())
}

fn what_a_service_writes_goes_on_being_written() -> Outcome {
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"var/*.db\"]\nshared = [\"services/*/state\"]\n").unwrap();
    let top = by_hand(&fixture, "v1.0.0", 1);
    tree::file(top.join("var/api.db"), "rows\n");
    tree::file(top.join("services/device-api/state/deep/log"), "lines\n");
    let open = |path: &str| std::fs::OpenOptions::new().append(true).open(top.join(path)).unwrap();
    let (mut database, mut log) = (open("var/api.db"), open("services/device-api/state/deep/log"));
    database.write_all(b"before\n").unwrap();
    let report = fixture.json(&["adopt"]);
    assert_eq!(
        (&report["adopted"][0]["private_files"], &report["adopted"][0]["displaced_in_use"]),
        (&1.into(), &true.into())
    );
    database.write_all(b"after\n").unwrap();
    log.write_all(b"after\n").unwrap();
    assert_eq!(std::fs::read_to_string(top.join("var/api.db")).unwrap(), "rows\nbefore\nafter\n");
    assert_eq!(
        fixture.link("versions/v1.0.0/services/device-api/state"),
        "../../../../shared/services/device-api/state"
    );
    assert_eq!(std::fs::read_to_string(top.join("services/device-api/state/deep/log")).unwrap(), "lines\nafter\n");
    assert_eq!(std::fs::metadata(top.join("var/api.db")).unwrap().mode() & 0o777, 0o644);
    drop((database, log));
    fixture.run(&["gc", "--keep-last", "9"]).ok();
    assert_eq!(entries(fixture.path("store/trash")), 0);
    assert_eq!(std::fs::metadata(top.join("var/api.db")).unwrap().nlink(), 1);
    Ok(())
}

fn a_process_that_works_in_the_tree_goes_on_in_it() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    tree::release(fixture.beside("source"), 2);
    let script = "read line; cat settings.toml; read line";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .current_dir(top.join("services/device-api"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    // A service that was started in the tree has it as its working directory for good.
    fixture.run(&["adopt"]).ok();
    fixture.import("source", "2.0.0");
    let kept = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((&kept["kept"][1]["name"], &kept["kept"][1]["reasons"][0]), (&"v1.0.0".into(), &"in-use".into()));
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let mut line = [0; 10];
    shell.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"port = 80\n");
    drop(input);
    shell.wait().unwrap();
    assert_eq!(fixture.json(&["gc", "--keep-last", "1"])["removed"][0]["name"], "v1.0.0");
    assert_eq!(entries(fixture.path("store/trash")), 0);
    Ok(())
}

/// Leaves what an adoption leaves that dies after the exchange.
fn die_exchanged(fixture: &Fixture, top: &Path) -> std::path::PathBuf {
    let run = fixture.path("store/staging/run-1-0");
    std::fs::create_dir(&run).unwrap();
    let inode = std::fs::metadata(top).unwrap().ino();
    let note = Note { version: name("v1.0.0"), inode };
    note.write(&tope_store::fsys::Dir::open(&run).unwrap()).unwrap();
    std::fs::rename(top, run.join("tree")).unwrap();
    tree::release(top, 1);
    std::fs::write(top.join("of-links"), "").unwrap();
    run
}

fn an_adoption_that_died_is_undone_or_completed() -> Outcome {
    for next in [&["adopt"][..], &["gc", "--keep-last", "1"]] {
        let fixture = Fixture::new();
        let top = by_hand(&fixture, "v1.0.0", 1);
        let inode = std::fs::metadata(&top).unwrap().ino();
        die_exchanged(&fixture, &top);
        fixture.run(next).ok();
        assert!(!top.join("of-links").exists(), "{next:?}");
        assert_eq!(entries(fixture.path("store/staging")), 0);
        if next[0] == "gc" {
            assert_eq!(std::fs::metadata(&top).unwrap().ino(), inode);
            assert_eq!(entries(fixture.path("store/manifests")), 0);
        }
    }
    // The manifest is there: the version is managed, and what lies in staging is of no use to anybody.
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    fixture.run(&["adopt"]).ok();
    let run = fixture.path("store/staging/run-1-0");
    tree::file(run.join("tree/x"), "");
    Note { version: name("v1.0.0"), inode: std::fs::metadata(run.join("tree")).unwrap().ino() }
        .write(&tope_store::fsys::Dir::open(&run).unwrap())
        .unwrap();
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    assert_eq!(entries(fixture.path("store/staging")), 0);
    assert!(!top.join("x").exists());
    Ok(())
}

fn an_adoption_that_died_between_two_steps_is_undone() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    let before = tree::describe(&top, false);
    for absent in [false, true] {
        let run = die_exchanged(&fixture, &top);
        // Where names cannot be exchanged in one step, the hand-made tree goes aside first.
        std::fs::rename(run.join("tree"), run.join("aside")).unwrap();
        if absent {
            std::fs::remove_dir_all(&top).unwrap();
        }
        fixture.run(&["gc", "--keep-last", "1"]).ok();
        assert!(before == tree::describe(&top, false));
        assert_eq!(entries(fixture.path("store/staging")), 0);
    }
    Ok(())
}

fn a_dry_run_touches_nothing() -> Outcome {
    let fixture = Fixture::new();
    let top = by_hand(&fixture, "v1.0.0", 1);
    fixture.json(&["du"]);
    let before = tree::describe(&fixture.root(), false);
    let report = fixture.json(&["adopt", "-n"]);
    assert!(report["adopted"][0]["import_number"].is_null() && report["dry_run"] == true, "{report}");
    assert_eq!(report["adopted"][0]["new_objects"], 5);
    let mut after = tree::describe(&fixture.root(), false);
    // An index may be made at any time.
    after.retain(|path, _| !path.starts_with(b"store/index.db"));
    assert!(before.iter().all(|(path, described)| path.starts_with(b"store/index.db") || after[path] == *described));
    assert!(after.keys().all(|path| before.contains_key(path)));
    drop(top);
    Ok(())
}

fn names_that_no_version_can_have_are_said() -> Outcome {
    let fixture = Fixture::new();
    by_hand(&fixture, "1.0.0", 1);
    by_hand(&fixture, "a b", 1);
    let report = fixture.json(&["adopt"]);
    assert_eq!(report["adopted"].as_array().unwrap().len(), 0);
    assert_eq!((&report["unsuitable"][0]["path"], &report["unsuitable"][1]["path"]), (&"1.0.0".into(), &"a b".into()));
    let said = fixture.run(&["adopt"]).ok().stderr;
    assert!(
        said.contains("versions/1.0.0 cannot be adopted, since no version can have this name: rename it to v1.0.0")
    );
    assert!(said.contains("versions/a b cannot be adopted, since no version can have this name: rename it, as in"));
    let findings = fixture.json(&["doctor"])["findings"].clone();
    let found = |at: usize| ["kind", "severity", "path", "remedy"].map(|field| findings[at][field].clone());
    let remedy = "rename it to v1.0.0, then: tope-store adopt v1.0.0";
    assert_eq!(serde_json::json!(found(0)), serde_json::json!(["unsuitable-name", "advice", "versions/1.0.0", remedy]));
    assert_eq!(findings[1]["path"], "versions/a b");
    std::fs::rename(fixture.path("versions/1.0.0"), fixture.path("versions/v1.0.0")).unwrap();
    fixture.run(&["adopt", "v1.0.0"]).ok();
    Ok(())
}
