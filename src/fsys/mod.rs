//! The only room that touches the file system.
//!
//! Work is done on directory handles ([`Dir`]), never on path walks: a name is looked up in a directory that is held
//! open, symbolic links are not followed, and a path is kept only to be named in an error. Every error carries its
//! verb and its path.
//!
//! - [`dir`]: directory handles and everything done to a name
//! - [`listing`]: the names in a directory, one by one
//! - [`file`](mod@file): open files: metadata, attributes, cloning
//! - [`append`]: files that only grow
//! - [`block`]: files that are overwritten in place
//! - [`beneath`]: following symbolic links, but never out of a directory
//! - [`identity`]: acting as the owner of a directory that is another user's
//! - [`rooted`]: paths that never lead out of an image
//! - [`foreseen`]: paths as they will lead after a switch
//! - [`durable`]: the one place that replaces a file and makes it durable
//! - [`lock`]: kernel locks and who holds them
//! - [`turn`]: places in a line, for those who must not wait while they hold a lock
//! - [`unwaiting`]: locks under which nothing waits for the medium
//! - [`remove`]: removal of whole trees, never across a mount
//! - [`space`]: free bytes and inodes
//! - [`stamped`]: file systems on which a change time proves that a file is the one that was read
//! - [`process`]: which processes use a path
//! - [`held`]: which inodes processes hold
//! - [`kernel`]: what the kernel itself uses: loop devices, bound directories, layers of overlays
//! - [`memory`]: how much memory is left
//! - [`mounts`]: mount points below a directory
//! - [`child`]: programs that are run to be waited for
//! - [`actor`]: this process as the author of an event
//! - [`system`]: the clock, the user, the machine

#![allow(clippy::disallowed_methods)]

pub mod actor;
pub mod append;
pub mod beneath;
pub mod block;
pub mod child;
pub mod dir;
pub mod durable;
pub mod file;
pub mod foreseen;
pub mod held;
pub mod identity;
pub mod kernel;
pub mod listing;
pub mod lock;
pub mod memory;
pub mod mounts;
pub mod mutation;
pub mod process;
pub mod remove;
pub mod rooted;

pub mod space;
pub mod stamped;
pub mod stat;
pub mod system;
pub mod turn;
pub mod unwaiting;

pub use dir::{Dir, DirItem};
pub use identity::Identity;
pub use listing::Listed;
pub use lock::{LockFile, LockGuard, LockMode};
pub use space::Space;
pub use stamped::Stamped;
pub use stat::{Kind, Stat};
pub use system::SystemClock;
pub use turn::Turn;
