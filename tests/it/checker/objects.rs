//! `objects/`: what manifests name must be there with the right bytes, and nothing else stay for long.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Seen;
use super::manifest::{Item, Manifest, What};
use super::trees::{Trees, described};

pub fn read(store: &Path, manifests: &BTreeMap<String, Manifest>, trees: &Trees, seen: &mut Seen) {
    let objects = store.join("objects");
    let mut named: BTreeMap<String, &Item> = BTreeMap::new();
    for item in manifests.values().flat_map(|manifest| manifest.items.values()) {
        named.extend(item.object().map(|name| (name, item)));
    }
    let mut hashes = Trees::default();
    for (name, item) in &named {
        if let Some(problem) = object(&objects.join(name), item, &mut hashes) {
            seen.wrong.push(format!("store/objects/{name}: {problem}"));
        }
    }
    for fan in super::names(&objects, seen) {
        for name in super::names(&objects.join(&fan), seen) {
            let name = format!("{fan}/{name}");
            if !named.contains_key(&name) {
                seen.left.push(format!("store/objects/{name}: no manifest names it"));
                continue;
            }
            let Ok(metadata) = std::fs::symlink_metadata(objects.join(&name)) else { continue };
            let links = 1 + trees.names.get(&metadata.ino()).copied().unwrap_or(0);
            if metadata.nlink() != links {
                seen.left.push(format!("store/objects/{name}: {} names, {links} of them known", metadata.nlink()));
            }
        }
    }
}

fn object(path: &Path, item: &Item, hashes: &mut Trees) -> Option<String> {
    let What::File { content, size, placement, mtime } = &item.what else { return None };
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Some("it is missing".into()) };
    if !metadata.is_file() || metadata.len() != *size {
        return Some(format!("{} bytes instead of {size}", metadata.len()));
    }
    if hashes.hash(path).ok()? != *content {
        return Some("wrong bytes".into());
    }
    let found = described(path, &metadata);
    if found != item.metadata.sealed() {
        return Some(format!("{found:?} instead of {:?}", item.metadata.sealed()));
    }
    // Several versions may name one object and all say its time, but for private copies made before it.
    let same_time = metadata.mtime() == mtime.0 && [0, mtime.1.into()].contains(&metadata.mtime_nsec());
    (!same_time && *placement <= 1).then(|| "another time".into())
}
