//! What only a real systemd can show: machines that boot, run services from the store and lose their power.

mod guide;
mod machine;
mod package;
mod releases;
pub mod services;
mod units;

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [guide::tests(), machine::tests(), package::tests(), releases::tests(), services::tests(), units::tests()]
        .into_iter()
        .flatten()
        .collect()
}
