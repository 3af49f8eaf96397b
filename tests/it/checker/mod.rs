//! An independent checker: reads a store's directory by `schema/FORMAT.md` alone and says what is wrong with it.
//!
//! It shares no code with the library: its own decoder, its own walk, its own hashing. What may be seen at any instant,
//! a crash included, and what only healing removes are kept apart: [`Seen::wrong`] must always be empty,
//! [`Seen::left`] once an ordinary command has run.

mod decode;
mod history;
mod links;
mod manifest;
mod objects;
mod tests;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use history::Past;
pub use manifest::Manifest;
pub use tests::tests;

/// What a store looks like from outside.
#[derive(Debug, Default)]
pub struct Seen {
    /// Versions with a sound manifest and an exact tree, with their digests.
    pub versions: BTreeMap<String, String>,
    /// Directories in `versions/` without a manifest.
    pub unmanaged: BTreeSet<String>,
    /// The version that each role leads to.
    pub roles: BTreeMap<&'static str, String>,
    /// The fold of the history.
    pub past: Past,
    /// Bytes on the medium, each inode once, of trees, objects, manifests, staging and trash.
    pub bytes: u64,
    /// What may be seen at no instant.
    pub wrong: Vec<String>,
    /// The end of the history that was never acknowledged; the next event cuts it.
    pub torn: Option<String>,
    /// What an interruption may leave and the next command removes.
    pub left: Vec<String>,
    /// Versions with a manifest and an event and without a tree: `missing-tree`, until a repair or a recovery.
    pub lost: BTreeSet<String>,
}

/// Looks at the store at `root`.
pub fn look(root: &Path) -> Seen {
    let mut seen = Seen::default();
    let store = root.join("store");
    match std::fs::read_to_string(store.join("format")) {
        Ok(text) if text.starts_with("store = \"tope-store\"\n") => {}
        other => seen.wrong.push(format!("store/format: {other:?}")),
    }
    history::read(&store, &mut seen);
    let manifests = manifest::read_all(&store, &mut seen);
    history::head(&store, &mut seen);
    for (name, manifest) in &manifests {
        let (number, chain) = &manifest.anchor;
        history::must_have(&mut seen, &format!("the manifest of {name}"), *number, chain);
    }
    links::read(root, &mut seen);
    let mut trees = trees::Trees::default();
    for (name, manifest) in &manifests {
        check_version(root, name, manifest, &mut trees, &mut seen);
    }
    for name in seen.past.versions.keys().filter(|name| !manifests.contains_key(*name)) {
        seen.left.push(format!("history: {name} was imported and never removed, and has no manifest"));
    }
    objects::read(&store, &manifests, &trees, &mut seen);
    for place in ["staging", "trash"] {
        for name in names(&store.join(place), &mut seen) {
            seen.left.push(format!("store/{place}/{name}"));
        }
    }
    for name in names(&store, &mut seen) {
        let known = [
            "format",
            "objects",
            "manifests",
            "history",
            "head",
            "trial",
            "notice",
            "index.db",
            "index.db-journal",
            "staging",
            "trash",
            "reserve",
            "identity",
            "lock",
            "publish.lock",
            "refs.lock",
            "turns.lock",
            "history.lock",
            // Reserved for what other builds keep there.
            "releases",
            "cold",
            "incoming",
            "trust",
            "remotes",
            "removed",
            "head",
        ];
        let segment = name.strip_prefix("history.").is_some_and(|number| number.parse::<u32>().is_ok());
        if !known.contains(&name.as_str()) && !segment {
            seen.left.push(format!("store/{name}"));
        }
    }
    for place in ["versions", "store/objects", "store/manifests", "store/staging", "store/trash"] {
        seen.bytes += trees::bytes_below(&root.join(place), &mut trees);
    }
    seen
}

/// A version's tree, manifest and events must tell one story.
fn check_version(root: &Path, name: &str, manifest: &Manifest, trees: &mut trees::Trees, seen: &mut Seen) {
    let tree = root.join("versions").join(name);
    let known = seen.past.versions.get(name).cloned();
    if let Some(known) = &known
        && (known.digest != manifest.digest || known.import_number != manifest.import_number)
    {
        seen.wrong.push(format!("{name}: the history says {known:?}, the manifest {}", manifest.digest));
    }
    if known.as_ref().and_then(|known| known.manifest.as_ref()).is_some_and(|hash| *hash != manifest.hash) {
        seen.wrong.push(format!("{name}: its manifest is not the one that the history names"));
    }
    if std::fs::symlink_metadata(&tree).is_err() {
        match known {
            Some(_) => drop(seen.lost.insert(name.to_owned())),
            None => seen.left.push(format!("{name}: a manifest without a tree")),
        }
        return;
    }
    if known.is_none() {
        seen.left.push(format!("{name}: published and not in the history"));
    }
    let before = seen.wrong.len();
    trees.compare(root, &tree, manifest, &mut seen.wrong);
    if seen.wrong.len() == before {
        seen.versions.insert(name.to_owned(), manifest.digest.clone());
    }
}

/// Names in a directory, sorted; that it cannot be read is wrong.
fn names(dir: &Path, seen: &mut Seen) -> Vec<String> {
    let items = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut names: Vec<String> = match items {
        Ok(items) => items.into_iter().map(|item| item.file_name().to_string_lossy().into_owned()).collect(),
        Err(error) => {
            seen.wrong.push(format!("{}: {error}", dir.display()));
            Vec::new()
        }
    };
    names.sort();
    names
}

impl Seen {
    /// Nothing may be wrong.
    #[track_caller]
    pub fn sound(self, when: &str) -> Self {
        assert!(self.wrong.is_empty(), "{when}: {:#?}", self.wrong);
        self
    }

    /// Nothing may be wrong, and nothing be left or lost.
    #[track_caller]
    pub fn settled(self, when: &str) -> Self {
        assert!(
            self.wrong.is_empty() && self.left.is_empty() && self.lost.is_empty(),
            "{when}: wrong {:#?}, left {:#?}, lost {:?}",
            self.wrong,
            self.left,
            self.lost
        );
        self
    }
}
