//! Deliberately wrong builds, each of which the suite has to catch every time: that is how we know that it can fail.
//!
//! A build with debug assertions makes the mistake that `TOPE_MUTATION` names, and this very test binary is run with one.

use std::process::{Command, Output};

use libtest_mimic::Trial;

use crate::support::{Outcome, Skipped, needs_root};

/// A mistake, and a test that finds it.
const MUTATIONS: &[(&str, &str)] = &[
    ("directory-sync", "crash::order::activate"),
    ("directory-sync", "crash::order::import"),
    ("file-sync", "crash::order::init"),
    ("file-sync", "crash::order::import"),
    ("barrier", "crash::order::import"),
    ("barrier", "crash::order::import-tar"),
    ("rename", "crash::kill::activate"),
    ("lock", "crash::beside::note-note"),
    ("read-only-cache", "import::mounts::nothing_stands_for_bytes_on_read_only_mounts"),
    ("revoke", "revoke::an_import_with_the_right_bytes_makes_a_damaged_object_again_for_all"),
    ("sweep-lock", "crash::sweep::a_live_run_outlives_errors"),
    ("protection", "lost::every_protection_keeps_a_lost_version"),
    ("anchor", "truncated::a_history_that_lost_events_is_in_doubt"),
];

/// Chooses the mistake.
const CHOSEN: &str = "TOPE_MUTATION";

pub fn tests() -> Vec<Trial> {
    let one = |(name, test): &'static (&str, &str)| {
        let label = format!("mutations::{name}-is-caught-by-{}", test.trim_start_matches("crash::").replace("::", "-"));
        super::trial(&label, move || caught(name, test))
    };
    let mut tests: Vec<Trial> = MUTATIONS.iter().map(one).collect();
    tests.push(super::trial("mutations::without-one-nothing-is-caught", nothing));
    tests
}

fn run(mutation: &str, test: &str) -> Result<Output, Skipped> {
    needs_root()?;
    if !cfg!(debug_assertions) {
        return Err(Skipped("needs a build with debug assertions".into()));
    }
    let mut own = Command::new(std::env::current_exe().expect("this binary"));
    own.args(["--exact", test]).env(CHOSEN, mutation).env("TOPE_CRASH", "all");
    Ok(own.output().expect("this binary runs"))
}

fn caught(mutation: &str, test: &str) -> Outcome {
    let ran = run(mutation, test)?;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains(&format!("test {test}")), "{test} was not run: {said}");
    assert!(!ran.status.success() && said.contains("1 failed"), "{mutation} is not caught by {test}: {said}");
    Ok(())
}

fn nothing() -> Outcome {
    for test in ["crash::order::import", "crash::kill::activate", "crash::beside::note-note"] {
        let ran = run("none", test)?;
        assert!(ran.status.success(), "{test}: {}", String::from_utf8_lossy(&ran.stdout));
    }
    Ok(())
}
