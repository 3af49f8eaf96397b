//! Paths as they will lead once a link is switched: whether a program is there after a switch is asked before it.
//!
//! Links are followed one by one, as the kernel follows them, except that one name of one directory stands for another
//! name of it. Nothing is changed, and what cannot be read counts as not known.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::file;
use super::stat::{Kind, Stat};
use crate::error::{Error, Result};

/// How many links the kernel follows on one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;
/// Longest file that is read: what is looked for are lines of text.
const MOST_BYTES: u64 = 1 << 20;

/// The machine after a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    directory: PathBuf,
    name: OsString,
    target: Option<OsString>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// What it leads to, or `None` if it leads nowhere.
    pub place: Option<Place>,
    /// Whether the way leads through the name that is switched.
    pub switched: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where that lies, without any link.
    pub path: PathBuf,
    /// What it is.
    pub stat: Stat,
}

impl Foreseen {
    /// The machine on which `name` in `directory` (a path without links) stands for `target` in it; without a target, for
    /// what it leads to now.
    pub fn new(directory: impl Into<PathBuf>, name: &str, target: Option<&str>) -> Self {
        Self { directory: directory.into(), name: name.into(), target: target.map(OsString::from) }
    }

    /// Where an absolute path leads.
    ///
    /// # Errors
    ///
    /// The system refuses to look, so that there may be something.
    pub fn follow(&self, path: &Path) -> Result<Led> {
        let mut ahead: Vec<OsString> = components(path).collect();
        let (mut at, mut links, mut switched) = (PathBuf::from("/"), 0, false);
        while let Some(part) = ahead.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            if part == self.name && at == self.directory {
                switched = true;
                if let Some(target) = &self.target {
                    at.push(target);
                    continue;
                }
            }
            let here = at.join(&part);
            let target = match std::fs::symlink_metadata(&here) {
                Ok(found) if found.is_symlink() => {
                    Some(std::fs::read_link(&here).map_err(|error| Error::io("read the link", &here, error))?)
                }
                Ok(_) => None,
                Err(error) if leads_nowhere(&error) => return Ok(Led { place: None, switched }),
                Err(error) => return Err(Error::io("look at", here, error)),
            };
            let Some(target) = target else {
                at = here;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Ok(Led { place: None, switched });
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            ahead.extend(components(&target));
        }
        match rustix::fs::lstat(&at) {
            Ok(stat) => Ok(Led { place: Some(Place { path: at, stat: Stat::of(&stat) }), switched }),
            Err(errno) if leads_nowhere(&errno.into()) => Ok(Led { place: None, switched }),
            Err(errno) => Err(Error::io("look at", at, errno)),
        }
    }

    /// The beginning of a file, or `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn read(&self, place: &Place) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        if place.stat.kind != Kind::File {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = file::open_source(&place.path)?.take(MOST_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &place.path, error))?;
        Ok(Some(bytes))
    }

    /// The names in a directory, sorted; none if it is no directory or cannot be listed.
    pub fn names(&self, place: &Place) -> Vec<OsString> {
        let Ok(items) = std::fs::read_dir(&place.path) else { return Vec::new() };
        let mut names: Vec<OsString> = items.flatten().map(|item| item.file_name()).collect();
        names.sort();
        names
    }
}

impl Place {
    /// Whether this process may execute it: a file with the right to, on a mount that allows it.
    pub fn is_executable(&self) -> bool {
        self.stat.kind == Kind::File && rustix::fs::access(&self.path, rustix::fs::Access::EXEC_OK).is_ok()
    }
}

/// The components of a path, the last one first; `.` is left out.
fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Whether an error says that there is nothing.
fn leads_nowhere(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG))
}

/// The program of the first line of a script (`#!`), as the kernel reads it (`execve(2)`); `None` if it is no script.
pub fn interpreter(text: &[u8]) -> Option<PathBuf> {
    let line = text.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(word.to_vec()))).filter(|path| !path.as_os_str().as_bytes().is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Site {
        temporary: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            for version in ["v1", "v2"] {
                std::fs::create_dir_all(temporary.path().join("versions").join(version).join("bin")).unwrap();
            }
            symlink("v1", temporary.path().join("versions/current")).unwrap();
            Self { temporary }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.temporary.path().canonicalize().unwrap().join(path)
        }

        fn after(&self, target: Option<&str>) -> Foreseen {
            Foreseen::new(self.path("versions"), "current", target)
        }
    }

    #[test]
    fn a_path_leads_where_it_will_after_the_switch() {
        let site = Site::new();
        std::fs::write(site.path("versions/v2/bin/new"), "x").unwrap();
        std::fs::write(site.path("versions/v1/bin/old"), "x").unwrap();
        symlink(site.path("versions/current/bin"), site.path("bin")).unwrap();
        symlink("bin/../bin/new", site.path("alias")).unwrap();
        let found = |target, path: &str| {
            let led = site.after(target).follow(&site.path(path)).unwrap();
            (led.place.map(|place| place.path.strip_prefix(site.path("")).unwrap().to_owned()), led.switched)
        };
        let there = |path: &str, switched| (Some(PathBuf::from(path)), switched);
        assert_eq!(found(Some("v2"), "versions/current/bin/new"), there("versions/v2/bin/new", true));
        assert_eq!(found(Some("v2"), "bin/new"), there("versions/v2/bin/new", true));
        assert_eq!(found(Some("v2"), "alias"), there("versions/v2/bin/new", true));
        assert_eq!(found(Some("v2"), "bin/old"), (None, true));
        assert_eq!(found(Some("v2"), "versions/v1/bin/old"), there("versions/v1/bin/old", false));
        assert_eq!(found(None, "bin/old"), there("versions/v1/bin/old", true));
        assert_eq!(found(None, "bin/new"), (None, true));
        assert_eq!(found(None, "bin/old/x"), (None, true));
        symlink("loop", site.path("loop")).unwrap();
        assert_eq!(found(None, "loop"), (None, false));
        // The name counts in its own directory only.
        std::fs::create_dir_all(site.path("current/bin")).unwrap();
        assert_eq!(found(Some("v2"), "current/bin"), there("current/bin", false));
    }

    #[test]
    fn what_can_be_executed_is_a_file_with_the_right_to() {
        let site = Site::new();
        let program = site.path("versions/v2/bin/api");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let at = site.path("versions/current/bin/api");
        let place = || site.after(Some("v2")).follow(&at).unwrap().place.unwrap();
        assert!(!place().is_executable());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(place().is_executable());
        let directory = site.after(None).follow(&site.path("versions")).unwrap().place.unwrap();
        assert!(!directory.is_executable());
        assert_eq!(site.after(None).names(&directory), ["current", "v1", "v2"].map(OsString::from));
    }

    #[test]
    fn the_interpreter_of_a_script_is_the_first_word_behind_the_mark() {
        let of = |text: &str| interpreter(text.as_bytes()).map(|path| path.display().to_string());
        assert_eq!(of("#!/bin/sh\n").as_deref(), Some("/bin/sh"));
        assert_eq!(of("#! /usr/bin/env python3\nx").as_deref(), Some("/usr/bin/env"));
        assert_eq!(of("#!/bin/sh").as_deref(), Some("/bin/sh"));
        for text in ["", "#!", "#!\n/bin/sh", "\x7fELF", "echo"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
