//! Pure values: no file system, no clock, no database. What they say can be checked by reading them.
//!
//! - [`name`]: version names, roles, entry names, paths inside a version
//! - [`id`]: content ids, tree ids, digests
//! - [`metadata`]: mode, owner, attributes; sealing; object keys
//! - [`tree`]: directories as canonical, hashed values
//! - [`manifest`]: one version's exact contents
//! - [`label`]: labels of versions
//! - [`lenient`]: what a newer build wrote and this one keeps
//! - [`actor`]: who did something
//! - [`event`]: what happened, and the marks that follow from it
//! - [`switch`]: the last switch, and whether a failed check made it
//! - [`anchor`]: an event of the history, named from outside it
//! - [`diff`]: in what two versions differ
//! - [`preflight`]: what keeps services from running after a switch
//! - [`retention`]: which versions stay, which go, and why
//! - [`notice`]: that a notice reached nobody
//! - [`units`]: sizes and durations as people write them
//! - [`way`]: a version that can be gone back to, and the command for it

pub mod actor;
pub mod anchor;
pub mod codec;
pub mod diff;
pub mod event;
pub mod format;
pub mod glob;
pub mod id;
pub mod label;
pub mod lenient;
pub mod manifest;
pub mod marks;
pub mod metadata;
pub mod name;
pub mod notice;
pub mod preflight;
pub mod retention;
pub mod switch;
pub mod tree;
pub mod trial;
pub mod units;
pub mod way;

#[cfg(test)]
mod format_vectors;

pub use anchor::Anchor;
pub use event::{Action, Event};
pub use format::Format;
pub use id::{ContentId, Digest, TreeId, XattrDigest};
pub use manifest::{Extensions, Facts, Manifest, Placement, PlacementKind, Source, SourceKind};
pub use marks::Marks;
pub use metadata::{InodeClass, Metadata, ObjectKey, Ownership, Sealed, Xattrs};
pub use name::{EntryName, Role, Selector, TreePath, VersionName};
pub use tree::{Entry, Node, Tree, TreeSet};
pub use trial::Trial;
