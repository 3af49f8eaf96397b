//! Use cases, one per file: `Options` in, `Report` out, one public function. The only place where stages meet.

pub mod adopt;
pub mod browse;
pub mod configuration;
pub mod contents;
pub mod diff;
pub mod du;
pub mod find;
mod footprint;
pub mod gc;
pub mod import;
pub mod init;
mod inventory;
pub mod list;
mod patch;
pub mod publish;
pub mod rebuild_index;
pub mod remove;
mod shared_state;
pub mod show;
