//! The file system turns read-only under a command that runs on, as ext4 does when its medium fails.
//!
//! The command may not report what the medium does not have, must say what happened, and must leave a store that can be
//! looked at as it is. Once the file system can be written again, the next command heals it.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;

use super::kill::{afterwards, at_once, end};
use super::power::{Medium, Stage, each_operation};
use super::sample::{Plan, points};
use super::scene::{self, Operation, command};
use super::trace::{self, Fate};
use crate::support::image::Kind;
use crate::support::{Outcome, Skipped};

/// Points of each operation, unless told otherwise.
const SAMPLE: usize = 3;

const MEDIUM: Medium =
    Medium { name: "read-only", kind: Kind::Ext4, mebibytes: 64, options: &["loop", "errors=remount-ro"] };

/// What a rollback says that is visible and cannot be made durable: the fire exit does not fail for that.
const NOT_DURABLE: &str = "a power cut may undo it";

pub fn tests() -> Vec<Trial> {
    vec![super::trial("readonly::ext4", turned)]
}

fn turned() -> Outcome {
    each_operation(&MEDIUM, of_operation)
}

fn of_operation(stage: &Stage, operation: &Operation) -> Outcome {
    let dir = stage.scene();
    stage.begin()?;
    let calls = points(&dir, operation);
    let done = scene::Roles::of(&dir);
    let reference = end(operation, &dir, "untouched");
    stage.image.unmount()?;
    let plan = Plan::sampled(MEDIUM.name, operation.name, &calls, SAMPLE);
    for (at, point) in plan.points().enumerate() {
        stage.begin()?;
        // Each mount may have another loop device, and other tests have theirs.
        let trigger = trigger(stage)?;
        let when = format!("{}, read-only from call {point} on, {}", operation.name, calls[point]);
        let mut number = 0;
        let ran = trace::run(&mut command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number == point + 1 {
                std::fs::write(&trigger, "a test").expect("an error can be made");
            }
            Fate::Happens
        });
        assert!(ran.code == 0 || (ran.code == 1 && ran.stderr.contains("error: ")), "{when}: {ran:#?}");
        at_once(operation, &dir, &format!("{when}, as it is"));
        stage.come_back()?;
        at_once(operation, &dir, &when);
        let roles = scene::Roles::of(&dir);
        match ran.code {
            0 if !ran.stderr.contains("warning: ") => {
                assert_eq!(roles, done, "{when}: what it reported is not there: {ran:#?}");
                assert_eq!(end(operation, &dir, &when), reference, "{when}: {ran:#?}");
            }
            // The fire exit: what could not be done besides was said, and the switch itself holds.
            0 => assert!(
                roles.current() == done.current() || ran.stderr.contains(NOT_DURABLE),
                "{when}: what it reported is not there: {ran:#?}"
            ),
            _ => afterwards(operation, &dir, &reference, at % 2 == 0, &when),
        }
        stage.image.unmount()?;
    }
    plan.done();
    Ok(())
}

/// The file that tells the kernel to find an error in the mounted file system.
fn trigger(stage: &Stage) -> Result<PathBuf, Skipped> {
    let source =
        Command::new("findmnt").args(["--noheadings", "--output", "SOURCE"]).arg(stage.image.mounted()).output();
    let source = source.map_err(|error| Skipped(format!("cannot run findmnt: {error}")))?;
    let device = String::from_utf8_lossy(&source.stdout).trim().trim_start_matches("/dev/").to_owned();
    let trigger = PathBuf::from(format!("/sys/fs/ext4/{device}/trigger_fs_error"));
    match trigger.exists() {
        true => Ok(trigger),
        false => Err(Skipped(format!("this kernel has no {}", trigger.display()))),
    }
}
