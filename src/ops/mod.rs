//! Use cases, one per file: `Options` in, `Report` out, one public function. The only place where stages meet.

pub mod configuration;
pub mod import;
pub mod init;
pub mod publish;
mod shared_state;
