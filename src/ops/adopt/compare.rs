//! Did a tree change between two looks at it?

use std::collections::BTreeMap;

use crate::fsys::{Kind, Stat};
use crate::model::TreePath;
use crate::scan::Scan;

/// The first path at which two looks at one tree differ. Paths that `skip` picks are passed over, and so is the top,
/// which was renamed.
pub(super) fn first_difference(before: &Scan, after: &Scan, skip: &dyn Fn(&TreePath) -> bool) -> Option<TreePath> {
    let (before, mut after) = (paths(before, skip), paths(after, skip));
    for (path, stat) in before {
        match after.remove(&path) {
            Some(later) if same(&stat, &later) => {}
            _ => return Some(path),
        }
    }
    after.into_keys().next()
}

fn paths(scan: &Scan, skip: &dyn Fn(&TreePath) -> bool) -> BTreeMap<TreePath, Stat> {
    let files = scan
        .directories
        .iter()
        .flat_map(|directory| directory.files.iter().map(|file| (directory.path.join(&file.name), file.stat)));
    let directories = scan.directories.iter().skip(1).map(|directory| (directory.path.clone(), directory.stat));
    files.chain(directories).filter(|(path, _)| !skip(path)).collect()
}

/// A directory's times say that names came or went, which the names themselves say better. An inode that got or lost a
/// name (as an object, by this very adoption) has another change time for it.
fn same(before: &Stat, after: &Stat) -> bool {
    let same_inode = before.same_inode(after)
        && (before.kind, before.mode, before.uid, before.gid) == (after.kind, after.mode, after.uid, after.gid);
    let unwritten = (before.size, before.mtime) == (after.size, after.mtime)
        && (before.ctime == after.ctime || before.links != after.links);
    same_inode && (before.kind == Kind::Directory || unwritten)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::fsys::Dir;
    use crate::observe::Silent;
    use std::fs;
    use std::path::Path;

    fn look(top: &Path) -> Scan {
        crate::scan::scan(&Dir::open(top).unwrap(), &Silent).unwrap()
    }

    fn difference(change: &dyn Fn(&Path)) -> Option<String> {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path();
        fs::create_dir_all(top.join("d/state")).unwrap();
        for name in ["d/a", "d/b", "d/state/log"] {
            fs::write(top.join(name), name).unwrap();
        }
        let before = look(top);
        // The next tick of the clock that stamps files.
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(top);
        let state = TreePath::parse(b"d/state").unwrap();
        first_difference(&before, &look(top), &|path| path.starts_with(&state)).map(|path| path.to_string())
    }

    #[test]
    fn every_change_outside_declared_paths_is_seen() {
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(difference(&|_| {}), None);
        assert_eq!(difference(&|top| fs::write(top.join("d/a"), "d/A").unwrap()), is("d/a"));
        assert_eq!(difference(&|top| fs::write(top.join("d/c"), "").unwrap()), is("d/c"));
        assert_eq!(difference(&|top| fs::remove_file(top.join("d/b")).unwrap()), is("d/b"));
        assert_eq!(difference(&|top| fs::create_dir(top.join("e")).unwrap()), is("e"));
        assert_eq!(difference(&|top| fs::rename(top.join("d/a"), top.join("d/b")).unwrap()), is("d/a"));
        let chmod =
            |top: &Path| fs::set_permissions(top.join("d"), std::os::unix::fs::PermissionsExt::from_mode(0o700));
        assert_eq!(difference(&|top| chmod(top).unwrap()), is("d"));
        // Written with its time put back: the change time tells.
        let sly = |top: &Path| {
            let file = fs::OpenOptions::new().write(true).open(top.join("d/a")).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            std::io::Write::write_all(&mut &file, b"d/A").unwrap();
            file.set_modified(time).unwrap();
        };
        assert_eq!(difference(&sly), is("d/a"));
    }

    #[test]
    fn declared_paths_and_new_links_are_no_change() {
        assert_eq!(difference(&|top| fs::write(top.join("d/state/log"), "more").unwrap()), None);
        assert_eq!(difference(&|top| fs::write(top.join("d/state/new"), "").unwrap()), None);
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(difference(&|top| fs::hard_link(top.join("d/a"), outside.path().join("a")).unwrap()), None);
    }
}
