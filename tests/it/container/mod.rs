//! What only a real systemd can show: machines that boot, run services from the store and lose their power.

mod definitions;
mod guardian;
mod guide;
mod machine;
mod package;
mod preflight;
mod releases;
pub mod services;
mod skipped;
mod units;

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [
        definitions::tests(),
        guardian::tests(),
        guide::tests(),
        machine::tests(),
        package::tests(),
        preflight::tests(),
        releases::tests(),
        services::tests(),
        skipped::tests(),
        units::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
