//! A live run outlives the errors of a sweep.
//!
//! An import stands still while it builds its tree, and another command meets an error at every call by which it looks into
//! `staging/`. That once deleted the directory of the live import, which then published a version without files.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use super::scene::{Base, HEAL, Scenes, command, discard, ran};
use super::trace::{self, Fate};
use crate::checker;
use crate::support::{Outcome, Ran, needs_program, needs_root};

/// Errors that prove nothing about a directory.
const ERRORS: [&str; 5] = ["ENFILE", "EMFILE", "EACCES", "EIO", "ELOOP"];
/// Commands that sweep.
const SWEEPERS: [&[&str]; 3] = [&["import", "bin", "--version", "1.5.0"], HEAL, &["adopt", "v0.9.0"]];

pub fn tests() -> Vec<Trial> {
    vec![super::trial("sweep::a_live_run_outlives_errors", a_live_run_outlives_errors)]
}

/// The command under `strace`, which writes or changes the calls that open something.
fn traced(dir: &Path, arguments: &[&str], options: &[String]) -> Command {
    let plain = command(dir, arguments);
    let mut traced = Command::new("strace");
    traced.arg("-f").args(["-e", "trace=openat"]).args(options).arg(plain.get_program()).args(plain.get_args());
    traced.current_dir(dir).stdin(Stdio::null());
    traced
}

/// Which of the first thread's calls open an entry of `staging/`, from 1.
fn looks(dir: &Path, arguments: &[&str]) -> Vec<usize> {
    let log = dir.join("strace.log");
    let options = ["-o".to_owned(), log.display().to_string()];
    traced(dir, arguments, &options).output().expect("strace runs");
    let text = std::fs::read_to_string(&log).expect("a log");
    std::fs::remove_file(log).expect("it can be removed");
    // A pid stands before each line once there are threads.
    let first = text.split_whitespace().next().unwrap_or_default().to_owned();
    let own = text.lines().filter(|line| line.starts_with(&first) && line.contains("openat("));
    own.enumerate().filter(|(_, line)| line.contains("\"run-")).map(|(at, _)| at + 1).collect()
}

fn a_live_run_outlives_errors() -> Outcome {
    needs_root()?;
    needs_program("strace")?;
    let scenes = Scenes::new(Base::Full);
    for sweeper in SWEEPERS {
        let dir = scenes.copy("point");
        let mut tried = None;
        let import = ["import", "next", "--version", "1.4.0"];
        let first = trace::run(&mut command(&dir, &import), &dir, &mut |call| {
            // While it builds its tree: it holds no lock yet that a sweeper would wait for.
            if call.path.contains("/tree/") && tried.is_none() {
                tried = Some(beside(&scenes, &dir, sweeper));
            }
            Fate::Happens
        });
        assert_eq!(first.code, 0, "{sweeper:?}: {first:#?}");
        assert!(tried.is_some_and(|looks| looks > 0), "{sweeper:?} never looked at the live run");
        ran(&dir, HEAL).ok();
        let seen = checker::look(&dir.join("root")).settled(&format!("{sweeper:?}"));
        assert!(seen.versions.contains_key("v1.4.0"), "{sweeper:?}: the import is not whole");
        discard(&dir);
    }
    Ok(())
}

/// Runs the sweeper once for each of its looks, which fails, with one error after the other.
fn beside(scenes: &Scenes, dir: &Path, sweeper: &[&str]) -> usize {
    let live = std::fs::read_dir(dir.join("root/store/staging")).expect("it can be listed").count();
    assert!(live > 0, "nothing is alive");
    // The same names, so that the same calls are made.
    let rehearsal = scenes.copy("rehearsal");
    std::fs::create_dir_all(rehearsal.join("root/store/staging/run-1-0")).expect("a directory");
    let held = std::fs::File::open(rehearsal.join("root/store/staging/run-1-0")).expect("it opens");
    held.lock().expect("it can be locked");
    let looks = looks(&rehearsal, sweeper);
    drop(held);
    discard(&rehearsal);
    let sweep = |when: &str, options: &[String]| {
        let swept = Ran::of(&traced(dir, sweeper, options).output().expect("strace runs"));
        assert!(!swept.stderr.contains("panicked"), "{swept:#?}");
        let left = std::fs::read_dir(dir.join("root/store/staging")).expect("it can be listed").count();
        assert!(left >= live, "{sweeper:?} {when} removed a live run: {swept:#?}");
    };
    let quiet = ["-o".to_owned(), "/dev/null".to_owned()];
    for (look, error) in looks.iter().zip(ERRORS.iter().cycle()) {
        let fault = ["-e".into(), format!("inject=openat:error={error}:when={look}")];
        sweep(&format!("with {error} at its open {look}"), &[&quiet[..], &fault].concat());
    }
    sweep("without an error", &quiet);
    looks.len()
}
