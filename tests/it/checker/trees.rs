//! Materialised trees, compared with their manifests path by path.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::manifest::{Item, Manifest, Metadata, What};

/// What is known of inodes: hashed once, and how many names trees give them.
#[derive(Debug, Default)]
pub struct Trees {
    hashes: HashMap<(u64, u64), [u8; 32]>,
    pub names: HashMap<u64, u64>,
    counted: HashSet<u64>,
}

impl Trees {
    /// The hash of a file's bytes. An inode is read once: this look is of one instant.
    pub fn hash(&mut self, path: &Path) -> std::io::Result<[u8; 32]> {
        let metadata = std::fs::symlink_metadata(path)?;
        let inode = (metadata.dev(), metadata.ino());
        if let Some(hash) = self.hashes.get(&inode) {
            return Ok(*hash);
        }
        let hash = *blake3::hash(&std::fs::read(path)?).as_bytes();
        self.hashes.insert(inode, hash);
        Ok(hash)
    }

    /// Compares a tree with its manifest.
    pub fn compare(&mut self, root: &Path, tree: &Path, manifest: &Manifest, wrong: &mut Vec<String>) {
        let below_shared = |path: &[u8]| {
            manifest
                .shared
                .iter()
                .any(|shared| path.strip_prefix(&shared[..]).is_some_and(|rest| rest.starts_with(b"/")))
        };
        let mut found = BTreeMap::new();
        for item in walkdir::WalkDir::new(tree).min_depth(1) {
            match item {
                Ok(item) => {
                    let path = item.path().strip_prefix(tree).expect("below").as_os_str().as_bytes().to_vec();
                    found.insert(path, item.into_path());
                }
                Err(error) => wrong.push(format!("{}: {error}", tree.display())),
            }
        }
        for (path, item) in manifest.items.iter().filter(|(path, _)| !below_shared(path)) {
            let problem = match found.remove(path) {
                None => Some("it is missing".into()),
                Some(place) if manifest.shared.contains(path) => shared(root, path, &place),
                Some(place) => self.entry(&place, item),
            };
            if let Some(problem) = problem {
                wrong.push(format!("{}/{}: {problem}", tree.display(), String::from_utf8_lossy(path)));
            }
        }
        wrong.extend(found.values().map(|path| format!("{}: it belongs to nothing", path.display())));
    }

    /// What is wrong with one path.
    fn entry(&mut self, place: &Path, item: &Item) -> Option<String> {
        let metadata = std::fs::symlink_metadata(place).ok()?;
        *self.names.entry(metadata.ino()).or_default() += 1;
        let kind = metadata.file_type();
        let recorded = &item.metadata;
        let (is, expected) = match &item.what {
            What::Directory => {
                // Without write bits where the version is, or was, factory.
                let sealed = metadata.mode() & 0o7777 == recorded.mode & !0o222;
                let mode = if sealed { recorded.mode & !0o222 } else { recorded.mode };
                (kind.is_dir(), Metadata { mode, ..recorded.clone() })
            }
            What::Link(target) => {
                let same = std::fs::read_link(place).is_ok_and(|found| found.into_os_string().into_vec() == *target);
                return match same && (metadata.uid(), metadata.gid()) == (recorded.uid, recorded.gid) {
                    true => None,
                    false => Some("another link".into()),
                };
            }
            What::Empty { private: true } | What::File { placement: 2, .. } => (kind.is_file(), recorded.clone()),
            What::Empty { private: false } => {
                if metadata.len() != 0 || metadata.nlink() != 1 {
                    return Some(format!("{} bytes, {} links, and was empty", metadata.len(), metadata.nlink()));
                }
                (kind.is_file(), recorded.sealed())
            }
            What::File { content, size, mtime, .. } => {
                if metadata.len() != *size || self.hash(place).ok()? != *content {
                    return Some(format!("wrong bytes ({} of {size})", metadata.len()));
                }
                if metadata.mtime() != mtime.0 || ![0, mtime.1.into()].contains(&metadata.mtime_nsec()) {
                    return Some("another time".into());
                }
                (kind.is_file(), recorded.sealed())
            }
        };
        let found = described(place, &metadata);
        match is && found == expected {
            true => None,
            false => Some(format!("{found:?} instead of {expected:?}")),
        }
    }
}

/// A shared path is a link into `shared/`.
fn shared(root: &Path, path: &[u8], place: &Path) -> Option<String> {
    let target = root.join("shared").join(PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())));
    let leads = std::fs::read_link(place).ok().map(|link| place.parent().expect("a parent").join(link));
    let same = leads.is_some_and(|leads| match (std::fs::metadata(leads), std::fs::metadata(target)) {
        (Ok(one), Ok(other)) => one.ino() == other.ino(),
        _ => false,
    });
    (!same).then(|| "it does not lead to the shared state".into())
}

/// Metadata as it stands.
pub fn described(path: &Path, metadata: &std::fs::Metadata) -> Metadata {
    Metadata { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), xattrs: xattrs(path) }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; 4096];
    let count = rustix::fs::llistxattr(path, &mut buffer[..]).unwrap_or(0);
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = buffer[..count]
        .split(|byte| *byte == 0)
        .filter(|name| {
            name.starts_with(b"user.") || *name == b"security.capability" || name.starts_with(b"system.posix_acl_")
        })
        .map(|name| {
            let mut value = vec![0; 4096];
            let count = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            (name.to_vec(), value[..count].to_vec())
        })
        .collect();
    all.sort();
    all
}

/// Bytes on the medium below a directory, inodes that were counted before left out.
pub fn bytes_below(dir: &Path, trees: &mut Trees) -> u64 {
    let items = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    let inodes = items.filter_map(|item| item.metadata().ok());
    inodes.filter(|metadata| trees.counted.insert(metadata.ino())).map(|metadata| metadata.blocks() * 512).sum()
}
