//! tope-store keeps the releases of a device's software side by side, switches between them in one atomic step, and
//! goes back when one is bad.
//!
//! The product is a sentence, and the modules are that sentence:
//!
//! > A release is **scanned**, **hashed**, and stored as **objects**; it is **materialised** as a tree of links,
//! > published with a **manifest**, recorded in the **history** and **indexed**; and the **refs** say which one runs.
//!
//! ```text
//! /opt/tope/
//! ├── versions/
//! │   ├── v1.0.0/  v1.1.0/             trees: directories, and hardlinks to objects
//! │   └── current, previous, factory -> v1.0.0
//! ├── services/                        links to current's services
//! ├── shared/                          state that outlives versions
//! └── store/
//!     ├── objects/ab/cdef….0555.0.0    one immutable inode per content, mode, owner and attributes
//!     ├── manifests/v1.0.0             what a version is: the truth
//!     ├── history                      what happened: the truth
//!     ├── index.db                     both made queryable: derived, rebuilt whenever it is in doubt
//!     └── staging/ trash/ lock …
//! ```
//!
//! # Invariants
//!
//! - **I-1** An object appears complete and verified or not at all, and is never written to afterwards. A name in
//!   `objects/` proves nothing: an object is trusted only while a published manifest refers to it and no finding revoked
//!   it. → [`object`]
//! - **I-2** The bytes hashed are the bytes stored. → [`ops::import`], [`hash`]
//! - **I-3** A version is absent or complete, and durable before any command reports or activates it. →
//!   [`ops::publish`]
//! - **I-4** Nobody, at any instant, finds `current` missing or dangling. → [`refs`]
//! - **I-5** Rolling back needs trees and links only: no index, no free block, no free inode, no waiting. (A btrfs without
//!   any free space can refuse even a rename.) → [`refs`]
//! - **I-6** gc never removes what a role, a pin, a running process or a rollback needs. → [`model::retention`]
//!
//! # Layers
//!
//! A module uses only what stands above it here; `tests/it/layers.rs` reads the sources and asserts it.
//!
//! | layer | modules | what they are |
//! | --- | --- | --- |
//! | 0 | [`model`], [`config`], [`error`], [`observe`], [`clock`] | pure values |
//! | 1 | [`fsys`], [`layout`] | the only place that touches the file system; every name on disk |
//! | 2 | [`scan`], [`hash`], [`archive`] | sources: listing, reading, unpacking as a stream |
//! | 2 | [`services`] | who runs what is installed |
//! | 3 | [`object`], [`manifests`], [`history`], [`index`], [`staging`], [`materialise`], [`refs`] | the store's parts, each by itself |
//! | 4 | [`store`], [`ops`] | the parts together: locks as handles, and one use case per file |
//!
//! The command, `src/bin/tope-store/`, sees only what is public here.
//!
//! # What to read first
//!
//! [`model::manifest`] for what a version is, [`object`] for what is shared, [`ops::publish`] for the step after which
//! a version exists, [`refs`] for the switch. `schema/FORMAT.md` gives every format byte by byte.

pub mod archive;
pub mod clock;
pub mod config;
pub mod error;
pub mod fsys;
pub mod hash;
pub mod history;
pub mod index;
pub mod layout;
pub mod manifests;
pub mod materialise;
pub mod model;
pub mod object;
pub mod observe;
pub mod ops;
pub mod refs;
pub mod scan;
pub mod services;
pub mod staging;
pub mod store;
#[cfg(test)]
mod test_vectors;
