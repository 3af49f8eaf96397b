//! Every operation is stopped before each of its system calls that change something: killed there, made to fail there,
//! and its disk taken away there.

mod beside;
mod errors;
mod kill;
mod mutations;
mod order;
mod power;
mod repair;
mod sample;
mod scene;
mod trace;

use libtest_mimic::{Completion, Failed, Trial};

use crate::support::{Outcome, Skipped};

pub fn tests() -> Vec<Trial> {
    [
        beside::tests(),
        errors::tests(),
        kill::tests(),
        mutations::tests(),
        order::tests(),
        power::tests(),
        repair::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test that is made of a table's row.
fn trial(name: &str, run: impl Fn() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(format!("crash::{name}"), move || -> Result<Completion, Failed> {
        match run() {
            Ok(()) => Ok(Completion::Completed),
            Err(Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        }
    })
}
