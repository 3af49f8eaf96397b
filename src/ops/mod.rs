//! Use cases, one per file: `Options` in, `Report` out, one public function. The only place where stages meet.

pub mod adopt;
pub mod configuration;
pub mod du;
mod footprint;
pub mod gc;
pub mod import;
pub mod init;
mod inventory;
pub mod publish;
pub mod remove;
mod shared_state;
