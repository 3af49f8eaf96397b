//! The integration tests: the real binary on real file systems, one binary for all, one file per use case.
//!
//! A test that lacks something (root, a tool, a kernel feature) says what, and counts as ignored, never as passed.
//! Every file lists its tests in `tests![…]`; one that is not listed is dead code, which the build denies.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests set the scene with whatever serves")]

#[macro_use]
mod support;

mod activate;
mod adopt;
mod archive;
mod bombs;
mod calls;
mod checker;
mod confirm;
mod container;
mod corpus;
#[cfg(target_arch = "x86_64")]
mod crash;
mod damage;
mod doctor;
mod documents;
mod dry_run;
mod factory;
mod full_disk;
mod future;
mod gc;
mod guide;
mod history;
mod house;
mod image;
mod import;
mod inspect;
mod layers;
mod link;
mod lost;
mod model;
mod newer;
mod note;
mod notify;
mod pin;
mod preflight;
mod readme;
mod real;
mod remove;
mod repair;
mod revoke;
mod rollback;
mod salvage;
mod services;
mod status;
mod stress;
mod supervise;
mod truncated;
mod users;
mod verify;
mod ways;
mod who;

use libtest_mimic::Arguments;

fn main() -> std::process::ExitCode {
    if let Some(ended) = container::services::in_machine() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    // Loop mounts and many processes: more at once than processors only makes each slower.
    arguments.test_threads = arguments.test_threads.or(std::thread::available_parallelism().ok().map(usize::from));
    support::watchdog::start();
    let tests = [
        activate::tests(),
        adopt::tests(),
        archive::tests(),
        bombs::tests(),
        calls::tests(),
        checker::tests(),
        confirm::tests(),
        container::tests(),
        #[cfg(target_arch = "x86_64")]
        crash::tests(),
        corpus::tests(),
        damage::tests(),
        doctor::tests(),
        documents::tests(),
        dry_run::tests(),
        factory::tests(),
        full_disk::tests(),
        future::tests(),
        gc::tests(),
        guide::tests(),
        history::tests(),
        house::tests(),
        image::tests(),
        import::tests(),
        inspect::tests(),
        layers::tests(),
        link::tests(),
        lost::tests(),
        model::tests(),
        newer::tests(),
        note::tests(),
        notify::tests(),
        pin::tests(),
        preflight::tests(),
        readme::tests(),
        real::tests(),
        remove::tests(),
        repair::tests(),
        revoke::tests(),
        rollback::tests(),
        salvage::tests(),
        services::tests(),
        status::tests(),
        stress::tests(),
        supervise::tests(),
        truncated::tests(),
        users::tests(),
        verify::tests(),
        ways::tests(),
        who::tests(),
    ];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}
