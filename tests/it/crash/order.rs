//! What an operation reports as done is durable by the order of its calls, whatever file system it ran on.
//!
//! A journal hides a missing sync: what one makes durable takes other changes along. So the calls themselves are looked
//! at. A file that was written is synced, by itself or with its file system, before its name is made or before the end;
//! a directory in which a name was made, moved or removed is synced afterwards. The index is left out, since it is
//! derived and SQLite keeps it; so is what is worth nothing once its run has ended.

use libtest_mimic::Trial;

use super::sample::points;
use super::scene::{ALL, Operation, Scenes};
use super::trace::Call;
use crate::support::{Outcome, needs_root};

pub fn tests() -> Vec<Trial> {
    ALL.iter().map(|operation| super::trial(&format!("order::{}", operation.name), || durable(operation))).collect()
}

/// Paths of which nothing needs to last.
fn is_worthless(path: &str) -> bool {
    [
        "index.db",
        "/staging/",
        "/trash/",
        ".lock",
        "/.switched",
        ".new",
        "/lock",
        "/reserve",
        // A head that is behind the log is no doubt: see the head's own documentation.
        "/store/head",
        "/.was",
        "/.next",
        "/.probe",
    ]
    .iter()
    .any(|part| path.contains(part))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn durable(operation: &Operation) -> Outcome {
    needs_root()?;
    let scenes = Scenes::new(operation.base);
    let calls = points(&scenes.copy("point"), operation);
    let missing: Vec<String> = (0..calls.len()).filter_map(|at| lacks(&calls, at)).collect();
    assert!(missing.is_empty(), "{}: {missing:#?}", operation.name);
    Ok(())
}

/// What is missing for one call to be durable at the end.
fn lacks(calls: &[Call], at: usize) -> Option<String> {
    let Call { name, path } = &calls[at];
    let later = &calls[at + 1..];
    let whole = |call: &Call| call.name == "syncfs";
    // What is staged is made durable by the one barrier before it is published.
    if *name == "write" && path.contains("/staging/") {
        let published = later.iter().position(|call| call.name == "rename" && call.path.contains("root/versions/v"));
        let until = &later[..published?];
        return (!until.iter().any(whole)).then(|| format!("{}: no barrier before it is published", calls[at]));
    }
    if *name == "write" && path.ends_with(".new") && !path.contains("index.db") && !path.contains(".switched") {
        let renamed = later.iter().position(|call| call.name == "rename").unwrap_or(later.len());
        let synced = later[..renamed].iter().any(|call| whole(call) || (call.name == "fsync" && call.path == *path));
        return (!synced).then(|| format!("{}: not synced before it gets its name", calls[at]));
    }
    if !path.starts_with("root/") || is_worthless(path) {
        return None;
    }
    let in_store = parent(path) == "root/versions" || parent(path).starts_with("root/store");
    let synced = match *name {
        "write" => path.as_str(),
        // Objects that are removed come back as rubbish at worst.
        _ if parent(path).starts_with("root/store/objects") => return None,
        "rename" | "symlink" | "unlink" if in_store => parent(path),
        _ => return None,
    };
    let is_synced = later.iter().any(|call| whole(call) || (call.name == "fsync" && call.path == synced));
    (!is_synced).then(|| format!("{}: {synced} is not synced after it", calls[at]))
}
