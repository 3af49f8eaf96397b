//! Every operation is stopped before each of its system calls that change something: killed there, made to fail there,
//! and its disk taken away there.

mod beside;
mod errors;
mod kill;
mod mutations;
mod order;
mod power;
mod readonly;
mod repair;
mod sample;
mod scene;
mod slow;
mod supervised;
mod sweep;
mod trace;

use libtest_mimic::Trial;

use crate::support::Outcome;

pub fn tests() -> Vec<Trial> {
    [
        beside::tests(),
        errors::tests(),
        kill::tests(),
        mutations::tests(),
        order::tests(),
        power::tests(),
        readonly::tests(),
        repair::tests(),
        slow::tests(),
        supervised::tests(),
        sweep::tests(),
        trace::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test that is made of a table's row.
fn trial(name: &str, run: impl Fn() -> Outcome + Send + 'static) -> Trial {
    crate::support::trial("crash", name, run)
}
