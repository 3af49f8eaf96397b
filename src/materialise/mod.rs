//! Making a tree of links from what a manifest says.
//!
//! [`plan`](mod@plan) is pure: it turns trees and placements into directories with names and what stands at each.
//! [`apply`](mod@apply) does it, in parallel by directory. An import from a directory has no plan: there a file is
//! placed as soon as it is read.

pub mod apply;
pub mod plan;

pub use apply::{Inodes, apply};
pub use plan::{Plan, plan};
