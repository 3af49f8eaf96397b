//! Who still uses a version that is not current: processes that were started before a switch and run on.
//!
//! A process uses a version if it executes, maps or has open a file of its tree, or works in it or is rooted in it. What
//! was read and closed leaves no trace. Processes that the caller may not inspect are counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Result;
use crate::fsys::process;
use crate::model::{Role, VersionName};
use crate::store::Store;

/// Which versions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Which {
    /// Those that are not current.
    #[default]
    Stale,
    /// All of them.
    All,
}

/// A process that uses a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The unit that it belongs to, if it does.
    pub unit: Option<String>,
    /// Its command line, safe to print.
    pub command: String,
    /// The version.
    pub version: VersionName,
    /// What it does with it, by how and path.
    pub uses: Vec<Use>,
}

/// One use of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// `executes`, `maps`, `has open`, `works in`, `is rooted in`.
    pub how: &'static str,
    /// The path in the version, in bytes; empty for its top.
    pub path: Vec<u8>,
    /// Whether it may write to it.
    pub writes: bool,
}

/// What was found.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The current version, if there is one.
    pub current: Option<VersionName>,
    /// One per process and version, by number.
    pub processes: Vec<Process>,
    /// Processes that the caller may not inspect.
    pub hidden: usize,
    /// Their numbers, as far as they have some.
    pub hidden_pids: Vec<i32>,
}

/// Finds the processes.
///
/// # Errors
///
/// The links cannot be read.
pub fn who(store: &Store, which: Which) -> Result<Report> {
    find(store, which, None)
}

/// The same within a time: processes that are left then count as not inspected.
///
/// # Errors
///
/// As [`who`].
pub fn who_within(store: &Store, which: Which, limit: Duration) -> Result<Report> {
    find(store, which, Some(limit))
}

fn find(store: &Store, which: Which, limit: Option<Duration>) -> Result<Report> {
    let current = store.refs()?.read()?.version(Role::Current).cloned();
    let (found, hidden, hidden_pids) = process::processes_below(&store.versions().real_path()?, limit)?;
    let mut users: BTreeMap<(i32, VersionName), Vec<Use>> = BTreeMap::new();
    for one in found {
        let name = std::str::from_utf8(one.name.as_bytes()).ok();
        let version = name.and_then(|name| name.parse::<VersionName>().ok().filter(|parsed| parsed.as_str() == name));
        let Some(version) = version.filter(|version| which == Which::All || Some(version) != current.as_ref()) else {
            continue;
        };
        let uses = users.entry((one.pid, version)).or_default();
        uses.push(Use { how: one.how, path: one.path, writes: one.writes });
    }
    let process = |((pid, version), uses)| Process {
        pid,
        unit: process::unit_of(pid),
        command: process::command_of(pid),
        version,
        uses,
    };
    let processes = users.into_iter().map(process).collect();
    Ok(Report { current, processes, hidden, hidden_pids })
}
