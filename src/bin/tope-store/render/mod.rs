//! How answers look: for people, for programs, and while they wait.

pub mod entry;
pub mod human;
pub mod json;
pub mod notice;
pub mod problems;
pub mod progress;
pub mod table;
pub mod ways;
