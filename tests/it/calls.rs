//! What the work costs in system calls for each file, which no machine's speed changes.
//!
//! Every operation runs on a small and on a larger release, and the difference is divided by that of their files; what a
//! process and the index take once falls out. A call too many for each file is found here before it is found in a
//! benchmark.

use std::time::Duration;

use crate::support::{Fixture, Outcome, Skipped, binary, needs_program, tree};

tests![every_file_costs_a_handful_of_system_calls];

const SMALL: usize = 700;
const LARGE: usize = 1900;

/// Operations in their order, and calls per file at most.
const LIMITS: &[(&str, f64)] = &[
    ("first import", 14.0),
    ("unchanged import", 3.5),
    ("next import", 10.0),
    ("digest of a directory", 7.5),
    ("verify, three versions", 9.0),
    ("quick verify, three versions", 3.3),
    ("diff", 0.5),
    ("gc of one of three", 1.5),
];

/// Files of which a twentieth says another number; all times are new.
fn release(fixture: &Fixture, files: usize, number: usize) {
    for file in 0..files {
        let changed = if file % 20 == 0 { number } else { 0 };
        tree::file(fixture.beside(format!("{number}/d{}/f{file}", file % 20)), format!("{file} of {changed}\n"));
    }
}

/// System calls of a command, over all its threads.
fn calls(fixture: &Fixture, arguments: &[&str]) -> Result<usize, Skipped> {
    let trace = fixture.beside("calls");
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace).arg(binary());
    command.arg("--root").arg(fixture.root()).arg("--config").arg(fixture.config()).args(arguments);
    let output = command.output().expect("strace runs");
    let traced = std::fs::read_to_string(&trace).unwrap_or_default();
    if !output.status.success() && traced.is_empty() {
        return Err(Skipped("strace may not trace here".into()));
    }
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let counted = traced.lines().filter(|line| is_of_the_work(line)).count();
    assert!(counted > 100, "{counted} calls of {arguments:?}");
    Ok(counted)
}

/// Not how often a thread had to wait for another, nor what was looked at of the machine's other processes: more of
/// both where more runs beside the test.
fn is_of_the_work(line: &str) -> bool {
    let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
    let waits = ["futex(", "sched_yield(", "restart_syscall(", "<... "];
    !waits.iter().any(|wait| call.starts_with(wait)) && !call.contains("\"/proc") && !call.contains("</proc")
}

/// What every operation takes on releases of so many files.
fn all_operations(files: usize) -> Result<Vec<usize>, Skipped> {
    let fixture = Fixture::new();
    release(&fixture, files, 1);
    release(&fixture, files, 2);
    let source = |number: &str| fixture.beside(number).display().to_string();
    let (one, two) = (source("1"), source("2"));
    let copied = copied(&fixture, &two);
    // A file that changed within the last two seconds is read again.
    std::thread::sleep(Duration::from_millis(2100));
    let operations: &[&[&str]] = &[
        &["import", &one, "--version", "1.0.0"],
        &["import", &one, "--version", "1.0.1"],
        &["import", &two, "--version", "1.1.0"],
        &["diff", "1.0.0", &copied],
        &["verify", "--cached"],
        &["verify", "--quick"],
        &["diff", "1.0.0", "1.1.0"],
        &["gc", "--keep-last", "2"],
    ];
    operations.iter().map(|arguments| calls(&fixture, arguments)).collect()
}

/// The same release where nobody has imported it from.
fn copied(fixture: &Fixture, from: &str) -> String {
    let to = fixture.beside("copied").display().to_string();
    assert!(std::process::Command::new("cp").args(["-r", from, &to]).status().expect("cp runs").success());
    to
}

#[allow(clippy::print_stderr, reason = "the figures, for those who want to know how near the limits are")]
fn every_file_costs_a_handful_of_system_calls() -> Outcome {
    needs_program("strace")?;
    let (small, large) = (all_operations(SMALL)?, all_operations(LARGE)?);
    let mut too_many = Vec::new();
    for (((name, limit), small), large) in LIMITS.iter().zip(small).zip(large) {
        let each = (large as f64 - small as f64) / (LARGE - SMALL) as f64;
        eprintln!("calls: {name}: {each:.2} per file, at most {limit}");
        if each > *limit {
            too_many.push(format!("{name}: {each:.2} system calls per file instead of {limit} at most"));
        }
    }
    assert!(too_many.is_empty(), "{too_many:#?}");
    Ok(())
}
