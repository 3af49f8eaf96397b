//! Source trees: writing small ones, and describing any of them for comparison.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Writes a file with its parents.
pub fn file(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
    std::fs::write(path, contents).expect("a file");
}

/// Writes an executable file with its parents.
pub fn program(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    file(&path, contents);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// A small release: a program, data, a link, an empty file, an empty directory; different for each number.
pub fn release(top: impl AsRef<Path>, number: u32) {
    let top = top.as_ref();
    program(top.join("bin/device-api"), format!("#!/bin/sh\necho {number}\n"));
    program(top.join("bin/web-server"), "#!/bin/sh\necho web\n");
    file(top.join("services/device-api/settings.toml"), "port = 80\n");
    file(top.join("services/web-server/index.html"), format!("<p>{number}</p>\n"));
    file(top.join("lib/common.so"), vec![7_u8; 100_000]);
    file(top.join("lib/lock"), "");
    std::fs::create_dir_all(top.join("empty")).expect("a directory");
    let _ = std::os::unix::fs::symlink("common.so", top.join("lib/common.so.1"));
}

/// What one name of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Contents of a file, target of a link.
    pub contents: Vec<u8>,
}

/// Everything below a directory, by path; the top itself is left out. `seal` takes the write bits off files, as a store
/// does.
pub fn describe(top: &Path, seal: bool) -> BTreeMap<Vec<u8>, Described> {
    let mut all = BTreeMap::new();
    for item in walkdir::WalkDir::new(top).min_depth(1) {
        let item = item.expect("a readable tree");
        let metadata = item.metadata().expect("metadata");
        let kind = item.file_type();
        let (letter, contents) = if kind.is_symlink() {
            ('l', std::fs::read_link(item.path()).expect("a link").as_os_str().as_bytes().to_vec())
        } else if kind.is_dir() {
            ('d', Vec::new())
        } else {
            ('-', std::fs::read(item.path()).expect("a file"))
        };
        let mut mode = metadata.mode() & 0o7777;
        if seal && letter == '-' {
            mode &= !0o222;
        }
        let path = item.path().strip_prefix(top).expect("below").as_os_str().as_bytes().to_vec();
        all.insert(path, Described { kind: letter, mode, owner: (metadata.uid(), metadata.gid()), contents });
    }
    all
}

/// Two trees must be equal but for the write bits of files.
#[track_caller]
pub fn assert_same(source: &Path, materialised: &Path) {
    let (expected, found) = (describe(source, true), describe(materialised, true));
    for (path, expected) in &expected {
        assert_eq!(found.get(path), Some(expected), "{}", String::from_utf8_lossy(path));
    }
    let superfluous: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(superfluous.is_empty(), "{superfluous:?}");
}

/// Everything below a directory, by path, with what every change of it changes: its inode and the time of its last change.
pub fn snapshot(top: &Path) -> BTreeMap<std::path::PathBuf, (u64, i64, i64, u64)> {
    let items = walkdir::WalkDir::new(top).into_iter().map(|item| item.expect("a readable tree"));
    let facts = items.map(|item| {
        let metadata = item.metadata().expect("metadata");
        (item.path().to_owned(), (metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
    });
    facts.collect()
}
