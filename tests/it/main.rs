//! The integration tests: the real binary on real file systems, one binary for all, one file per use case.
//!
//! A test that lacks something (root, a tool, a kernel feature) says what, and counts as ignored, never as passed.
//! Every file lists its tests in `tests![…]`; one that is not listed is dead code, which the build denies.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests set the scene with whatever serves")]

#[macro_use]
mod support;

mod activate;
mod adopt;
mod confirm;
mod documents;
mod factory;
mod full_disk;
mod gc;
mod guide;
mod history;
mod house;
mod import;
mod inspect;
mod layers;
mod link;
mod note;
mod pin;
mod readme;
mod real;
mod remove;
mod rollback;
mod status;
mod verify;

use libtest_mimic::Arguments;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Loop mounts and many processes: more at once than processors only makes each slower.
    arguments.test_threads = arguments.test_threads.or(std::thread::available_parallelism().ok().map(usize::from));
    let tests = [
        activate::tests(),
        adopt::tests(),
        confirm::tests(),
        documents::tests(),
        factory::tests(),
        full_disk::tests(),
        gc::tests(),
        guide::tests(),
        history::tests(),
        house::tests(),
        import::tests(),
        inspect::tests(),
        layers::tests(),
        link::tests(),
        note::tests(),
        pin::tests(),
        readme::tests(),
        real::tests(),
        remove::tests(),
        rollback::tests(),
        status::tests(),
        verify::tests(),
    ];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}
