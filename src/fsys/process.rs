//! Which processes use what lies below a directory.
//!
//! A process uses a path if it executes it, maps it, has it open, or has it as its working or root directory. What
//! the kernel does not let the caller see (other users' processes, when not root) is counted, not guessed.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::model::EntryName;

/// A use of a path by a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// The name directly below the directory that was asked about.
    pub name: EntryName,
    /// The process.
    pub pid: i32,
    /// `executes`, `maps`, `has open`, `works in`, `is rooted in`.
    pub how: &'static str,
    /// Whether it has it open for writing.
    pub writes: bool,
    /// The path below the name, in bytes.
    pub path: Vec<u8>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    /// One per process and thing used.
    pub uses: Vec<Use>,
    /// Processes that could not be inspected.
    pub hidden: usize,
}

/// Finds the uses of everything below `directory`, grouped by the names directly in it.
///
/// `directory` is compared as the kernel prints it: absolute and without symbolic links.
pub fn uses_below(directory: &Path) -> Uses {
    let mut found = Uses::default();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let prefix = directory.as_os_str().as_bytes();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if inspect(pid, &process.path(), prefix, &mut found.uses).is_err() && process.path().join("stat").exists() {
            found.hidden += 1;
        }
    }
    found.uses.sort_unstable();
    found.uses.dedup();
    found
}

fn inspect(pid: i32, process: &Path, prefix: &[u8], uses: &mut Vec<Use>) -> std::io::Result<()> {
    let mut add = |how: &'static str, target: &[u8], writes: bool| {
        let below = target.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"/"));
        let below = below.map(|rest| rest.strip_suffix(b" (deleted)").unwrap_or(rest));
        let Some(below) = below.filter(|below| !below.is_empty()) else { return };
        let (name, path) = below.split_at(below.iter().position(|byte| *byte == b'/').unwrap_or(below.len()));
        if let Ok(name) = EntryName::new(name) {
            uses.push(Use { name, pid, how, writes, path: path.strip_prefix(b"/").unwrap_or(path).to_vec() });
        }
    };
    for (link, how) in [("cwd", "works in"), ("root", "is rooted in"), ("exe", "executes")] {
        match std::fs::read_link(process.join(link)) {
            Ok(target) => add(how, target.as_os_str().as_bytes(), false),
            // Kernel threads have no executable; a process that ended uses nothing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for line in std::fs::read(process.join("maps"))?.split(|byte| *byte == b'\n') {
        // address perms offset dev inode path; the path is last and may hold blanks.
        if let Some(slash) = line.iter().position(|byte| *byte == b'/') {
            add("maps", &unescape_newlines(&line[slash..]), false);
        }
    }
    for file in std::fs::read_dir(process.join("fd"))?.flatten() {
        let Ok(target) = std::fs::read_link(file.path()) else { continue };
        if target.as_os_str().as_bytes().starts_with(prefix) {
            let info = std::fs::read_to_string(process.join("fdinfo").join(file.file_name())).unwrap_or_default();
            let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
            add("has open", target.as_os_str().as_bytes(), flags.is_some_and(|flags| flags & 0o3 != 0));
        }
    }
    Ok(())
}

/// `/proc/*/maps` writes a newline in a name as `\012`.
fn unescape_newlines(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            out.push(b'\n');
            rest = tail;
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_a_working_directory_are_seen() {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("v1/bin")).unwrap();
        let _open = std::fs::File::create(top.join("v1/log")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(top.join("v1/bin")).spawn().unwrap();
        let found = uses_below(&top);
        child.kill().unwrap();
        child.wait().unwrap();
        let has = |pid: u32, how, writes, path: &str| {
            found
                .uses
                .iter()
                .any(|u| (u.pid.cast_unsigned(), u.how, u.writes, &*u.path) == (pid, how, writes, path.as_bytes()))
        };
        assert!(has(std::process::id(), "has open", true, "log"), "{found:?}");
        assert!(has(child.id(), "works in", false, "bin"), "{found:?}");
        assert!(found.uses.iter().all(|u| u.name.as_bytes() == b"v1"));
    }
}
