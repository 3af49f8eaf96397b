//! How answers look: for people, for programs, and while they wait.

pub mod human;
pub mod json;
pub mod progress;
