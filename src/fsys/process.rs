//! Which processes use what lies below a directory.
//!
//! A process uses a path if it executes it, maps it, has it open, or has it as its working or root directory. What
//! the kernel does not let the caller see (other users' processes, when not root) is counted, not guessed.
//!
//! **Invariant:** an error that is neither a process that ended nor one that belongs to another user ends the look. A
//! process that could not be inspected, for lack of a descriptor say, may use anything.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::held::{Hold, Map};
use super::kernel::{self, KernelUse};
use super::mounts::unescape;
use crate::error::{Error, Result};
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
    /// Whether it has it open for writing, or maps it so that it may write through the map.
    pub writes: bool,
    /// The path below the name, in bytes.
    pub path: Vec<u8>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    /// One per process and thing used.
    pub uses: Vec<Use>,
    /// What the kernel itself uses.
    pub kernel: Vec<KernelUse>,
    /// Processes that could not be inspected.
    pub hidden: usize,
    /// Their numbers, as far as they have some.
    pub hidden_pids: Vec<i32>,
}

impl Uses {
    /// Whether a process or the kernel uses this name, or may.
    pub fn is_used(&self, name: &[u8]) -> bool {
        self.uses.iter().any(|used| used.name.as_bytes() == name) || self.kernel.iter().any(|used| used.may_be_of(name))
    }
}

/// What one look at all processes found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processes {
    /// By the directories that were asked about: the uses of what lies below.
    pub uses: Vec<Vec<Use>>,
    /// Inodes that are held on the device that was asked about.
    pub holds: Vec<Hold>,
    /// Those of the inodes that were asked about which processes may write to.
    pub written: Vec<Hold>,
    /// Processes that could not be inspected.
    pub hidden: usize,
    /// Their numbers, as far as they have some.
    pub hidden_pids: Vec<i32>,
}

/// Finds the uses of everything below `directory` by processes and by the kernel, with the names directly in it.
///
/// `directory` is compared as the kernel prints it: absolute and without symbolic links.
///
/// # Errors
///
/// As [`processes`] and [`kernel::uses_below`].
pub fn uses_below(directory: &Path) -> Result<Uses> {
    let Processes { uses, hidden, hidden_pids, .. } = processes(&[directory], None)?;
    let kernel = kernel::uses_below(directory)?;
    Ok(Uses { uses: uses.into_iter().next().unwrap_or_default(), kernel, hidden, hidden_pids })
}

/// The uses by processes alone, how many could not be inspected, and their numbers. Those that are left when the time is over
/// count as such.
///
/// # Errors
///
/// As [`processes`].
pub fn processes_below(directory: &Path, limit: Option<Duration>) -> Result<(Vec<Use>, usize, Vec<i32>)> {
    let Processes { uses, hidden, hidden_pids, .. } = inspect_all(&[directory], None, &HashSet::new(), limit)?;
    Ok((uses.into_iter().next().unwrap_or_default(), hidden, hidden_pids))
}

/// Looks at every process once: what each uses below these directories, and the inodes that it holds on `device`.
///
/// # Errors
///
/// A process can be neither inspected nor passed over. A system without `/proc` shows none, and counts as one process
/// that could not be inspected.
pub fn processes(directories: &[&Path], device: Option<u64>) -> Result<Processes> {
    inspect_all(directories, device, &HashSet::new(), None)
}

/// The same for one directory; finds as well who may write to these inodes on the device, whatever path leads there.
///
/// # Errors
///
/// As [`processes`].
pub fn writers(directory: &Path, device: u64, inodes: &HashSet<u64>) -> Result<Processes> {
    inspect_all(&[directory], Some(device), inodes, None)
}

fn inspect_all(
    directories: &[&Path],
    device: Option<u64>,
    inodes: &HashSet<u64>,
    limit: Option<Duration>,
) -> Result<Processes> {
    let start = Instant::now();
    let prefixes: Vec<&[u8]> = directories.iter().map(|directory| directory.as_os_str().as_bytes()).collect();
    let uses = vec![Vec::new(); prefixes.len()];
    let mut look = Look { prefixes: &prefixes, device, inodes, found: Processes { uses, ..Processes::default() } };
    let processes = match std::fs::read_dir("/proc") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Processes { hidden: 1, ..look.found }),
        other => other.map_err(|error| Error::io("list", "/proc", error))?,
    };
    let mut buffer = Vec::new();
    for process in processes {
        let process = process.map_err(|error| Error::io("list", "/proc", error))?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            look.found.hidden += 1;
            look.found.hidden_pids.push(pid);
            continue;
        }
        match look.inspect(pid, &process.path(), &mut buffer) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                // One that ended belongs to no user any longer, and hides nothing.
                if process.path().join("stat").exists() {
                    look.found.hidden += 1;
                    look.found.hidden_pids.push(pid);
                }
            }
            Err(error) => return Err(Error::io("inspect", process.path(), error)),
        }
    }
    for uses in &mut look.found.uses {
        uses.sort_unstable();
        uses.dedup();
    }
    for holds in [&mut look.found.holds, &mut look.found.written] {
        holds.sort_unstable();
        holds.dedup();
    }
    Ok(look.found)
}

/// Keeps the error that matters most: one that ends the look, before one that hides a process.
fn keep_worst(seen: &mut std::io::Result<()>, error: std::io::Error) {
    let ends = |error: &std::io::Error| error.kind() != ErrorKind::PermissionDenied;
    // A process that ended uses nothing, and a kernel thread has no executable.
    if !is_gone(&error) && seen.as_ref().err().is_none_or(|kept| !ends(kept) && ends(&error)) {
        *seen = Err(error);
    }
}

struct Look<'a> {
    prefixes: &'a [&'a [u8]],
    device: Option<u64>,
    /// Those on the device of which the writers are wanted.
    inodes: &'a HashSet<u64>,
    found: Processes,
}

impl Look<'_> {
    /// Looks at all of a process that may be seen; then fails if something may not.
    fn inspect(&mut self, pid: i32, process: &Path, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        let mut seen = Ok(());
        for (link, how) in [("cwd", "works in"), ("root", "is rooted in"), ("exe", "executes")] {
            let link = process.join(link);
            match std::fs::read_link(&link) {
                Ok(target) => {
                    self.held(pid, how, &link, &target, &|| false);
                    self.used(pid, how, target.as_os_str().as_bytes(), || false);
                }
                Err(error) => keep_worst(&mut seen, error),
            }
        }
        match read_into(&process.join("maps"), buffer) {
            Ok(()) => self.maps(pid, process, buffer),
            Err(error) => keep_worst(&mut seen, error),
        }
        let files = match std::fs::read_dir(process.join("fd")) {
            Ok(files) => files,
            Err(error) => {
                keep_worst(&mut seen, error);
                return seen;
            }
        };
        for file in files {
            let read = file.and_then(|file| Ok((std::fs::read_link(file.path())?, file)));
            let (target, file) = match read {
                Ok(read) => read,
                Err(error) => {
                    keep_worst(&mut seen, error);
                    continue;
                }
            };
            let link = file.path();
            let writes = || is_open_for_writing(&process.join("fdinfo").join(file.file_name()));
            self.held(pid, "has open", &link, &target, &writes);
            self.used(pid, "has open", target.as_os_str().as_bytes(), writes);
        }
        seen
    }

    /// Notes the use of a path below one of the directories.
    fn used(&mut self, pid: i32, how: &'static str, target: &[u8], writes: impl Fn() -> bool) {
        for (prefix, uses) in self.prefixes.iter().zip(&mut self.found.uses) {
            let below = target.strip_prefix(*prefix).and_then(|rest| rest.strip_prefix(b"/"));
            let below = below.map(|rest| rest.strip_suffix(b" (deleted)").unwrap_or(rest));
            let Some(below) = below.filter(|below| !below.is_empty()) else { continue };
            let (name, path) = below.split_at(below.iter().position(|byte| *byte == b'/').unwrap_or(below.len()));
            if let Ok(name) = EntryName::new(name) {
                let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
                uses.push(Use { name, pid, how, writes: writes(), path });
            }
        }
    }

    /// Notes an inode on the device that a link of `/proc` leads to.
    fn held(&mut self, pid: i32, how: &'static str, link: &Path, target: &Path, writes: &dyn Fn() -> bool) {
        // Sockets, pipes and the like have no path.
        if let Some(device) = self.device
            && target.is_absolute()
            && let Ok(metadata) = std::fs::metadata(link)
            && metadata.dev() == device
        {
            let path = target.as_os_str().as_bytes().to_vec();
            let hold = Hold { inode: metadata.ino(), pid, how, path };
            if self.inodes.contains(&hold.inode) && writes() {
                self.found.written.push(hold.clone());
            }
            self.found.holds.push(hold);
        }
    }

    fn maps(&mut self, pid: i32, process: &Path, maps: &[u8]) {
        for map in maps.split(|byte| *byte == b'\n').filter_map(Map::parse) {
            let writes = || map.may_be_written(process);
            self.used(pid, "maps", &unescape(map.path, b"\n"), writes);
            let Some(device) = self.device else { continue };
            let hold = || Hold { inode: map.inode, pid, how: "maps", path: map.path.to_vec() };
            if map.is_on(device) {
                self.found.holds.push(hold());
            }
            if self.inodes.contains(&map.inode) && map.is_shared && map.is_of(process, device) && writes() {
                self.found.written.push(hold());
            }
        }
    }
}

/// Whether a handle was opened for writing, by its `fdinfo`. One that was closed was not; one of which the system does not
/// say may have been.
fn is_open_for_writing(info: &Path) -> bool {
    match std::fs::read_to_string(info) {
        Ok(info) => {
            let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
            flags.is_none_or(|flags| flags & 0o3 != 0)
        }
        Err(error) => !is_gone(&error),
    }
}

/// Whether an error says that the process, or what was asked about it, is there no longer.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    const NO_SUCH_PROCESS: i32 = 3;
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS)
}

/// Reads a file of `/proc`, whose length is not known before.
fn read_into(path: &Path, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Read;
    buffer.clear();
    buffer.reserve(64 << 10);
    std::fs::File::open(path)?.read_to_end(buffer).map(drop)
}

/// The unit that a process belongs to, by the name of its control group: the innermost service or scope. `None` for
/// processes outside systemd's units, and for those that ended.
pub fn unit_of(pid: i32) -> Option<String> {
    unit_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// Lines `number:controllers:path`; in any hierarchy that systemd keeps, the path ends with slices and the unit.
fn unit_in(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut units =
        paths.filter_map(|path| path.rsplit('/').find(|part| part.ends_with(".service") || part.ends_with(".scope")));
    units.next_back().map(str::to_owned)
}

/// When a process was started, in clock ticks since the boot: with its number, it names this process and no other of the
/// same boot. `None` if there is none of this number (or no `/proc`), or one that ended and was not waited for.
///
/// # Errors
///
/// The system refuses to say, so that the process may be alive.
pub fn started(pid: u32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let stat = match std::fs::read(&path) {
        Err(error) if is_gone(&error) => return Ok(None),
        other => other.map_err(|error| Error::io("read", path, error))?,
    };
    Ok(Stat::parse(&stat).filter(|stat| !stat.has_ended()).map(|stat| stat.started))
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: String,
    group: u32,
    started: u64,
}

impl Stat {
    /// The name in parentheses may hold anything; behind it, by proc(5), `state` is the third field, `pgrp` the fifth and
    /// `starttime` the 22nd.
    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let (state, group) = (fields.first()?, fields.get(2)?.parse().ok()?);
        Some(Self { state: (*state).to_owned(), group, started: fields.get(19)?.parse().ok()? })
    }

    /// Whether nothing of it is left but its number, until its parent asks how it ended.
    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "Z" | "X" | "x")
    }
}

/// Waits until a process has ended, by its number and its start (0 if that is not known), for as long as `keep_on` says
/// yes; tells whether it has.
///
/// # Errors
///
/// The system refuses to say.
pub fn wait_for_end(pid: u32, started_at: u64, keep_on: &dyn Fn() -> bool) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    /// How often it is looked where the kernel cannot tell (before Linux 5.3).
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    // Before the first look: a number that is given again afterwards belongs to another handle.
    let end = Pid::from_raw(pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        if !started(pid)?.is_some_and(|found| found == started_at || started_at == 0) {
            return Ok(true);
        }
        if !keep_on() {
            return Ok(false);
        }
        match &end {
            None => std::thread::sleep(LOOK_EVERY),
            Some(end) => {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                // A signal ends the wait, and so does an error: it is looked again either way.
                if poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&second)).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// Whether one of these commands runs, alone in its process group or at the head of it, as [`Run`](super::child::Run) starts
/// them. The words of a command are the last of its command line: before them may stand what interprets it. What cannot
/// be read does not count.
pub fn is_running(commands: &[Vec<String>]) -> bool {
    let ends: Vec<Vec<u8>> = commands
        .iter()
        .filter(|words| !words.is_empty())
        .map(|words| words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect())
        .collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { return false };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        // Whole words only.
        let is_end =
            |end: &Vec<u8>| line.strip_suffix(&end[..]).is_some_and(|before| matches!(before.last(), None | Some(0)));
        let leads = || {
            let stat = std::fs::read(process.path().join("stat")).ok();
            stat.and_then(|stat| Stat::parse(&stat)).is_some_and(|stat| stat.group == pid && !stat.has_ended())
        };
        ends.iter().any(is_end) && leads()
    })
}

/// The command line of a process, made safe to print; its name in brackets if it has none, empty if it ended.
pub fn command_of(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| crate::error::Shown::bytes(word).to_string())
        .collect();
    if words.is_empty() {
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        return match name.trim_ascii() {
            b"" => String::new(),
            name => format!("[{}]", crate::error::Shown::bytes(name)),
        };
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_the_innermost_unit() {
        let unit = |groups: &str| unit_in(groups);
        assert_eq!(unit("0::/system.slice/api.service\n").as_deref(), Some("api.service"));
        assert_eq!(unit("0::/system.slice/system-w.slice/w@1.service/worker\n").as_deref(), Some("w@1.service"));
        let user = "0::/user.slice/user-1.slice/user@1.service/app.slice/a.service\n";
        assert_eq!(unit(user).as_deref(), Some("a.service"));
        let legacy = "12:pids:/system.slice/api.service\n1:name=systemd:/system.slice/api.service\n0::/\n";
        assert_eq!(unit(legacy).as_deref(), Some("api.service"));
        assert_eq!(unit("0::/\n"), None);
        assert!(command_of(std::process::id().cast_signed()).contains("tope_store"));
    }

    #[test]
    fn a_process_that_ended_is_no_process_although_it_was_not_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let since = started(child.id()).unwrap().unwrap();
        assert!(!wait_for_end(child.id(), since, &|| false).unwrap());
        assert!(wait_for_end(child.id(), since + 1, &|| false).unwrap(), "its number belongs to another");
        let begun = Instant::now();
        child.kill().unwrap();
        assert!(wait_for_end(child.id(), since, &|| begun.elapsed() < Duration::from_secs(30)).unwrap());
        assert_eq!(started(child.id()).unwrap(), None);
        child.wait().unwrap();
    }

    #[test]
    fn a_command_is_known_by_its_last_words() {
        use std::os::unix::process::CommandExt;
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let spawn = |group: Option<i32>| {
            let mut sleep = std::process::Command::new("sleep");
            sleep.args(["61.5", "0.25"]);
            group.map(|group| sleep.process_group(group));
            let child = sleep.spawn().unwrap();
            // It shows its words when it has begun to run.
            while !command_of(child.id().cast_signed()).starts_with("sleep") {
                std::thread::sleep(Duration::from_millis(1));
            }
            child
        };
        for (group, runs) in [(None, false), (Some(0), true)] {
            let mut child = spawn(group);
            assert_eq!(is_running(&[command(&["61.5", "0.25"])]), runs, "{group:?}");
            assert_eq!(is_running(&[command(&["none"]), command(&["sleep", "61.5", "0.25"])]), runs);
            assert!(!is_running(&[command(&["1.5", "0.25"]), command(&["sleep", "61.5"]), command(&[])]));
            child.kill().unwrap();
            while started(child.id()).unwrap().is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!is_running(&[command(&["61.5", "0.25"])]), "a zombie does not run");
            child.wait().unwrap();
        }
    }

    #[test]
    fn an_open_file_and_a_working_directory_are_seen() {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("v1/bin")).unwrap();
        let _open = std::fs::File::create(top.join("v1/log")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(top.join("v1/bin")).spawn().unwrap();
        let found = uses_below(&top).unwrap();
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
        let (late, hidden, _) = processes_below(&top, Some(Duration::ZERO)).unwrap();
        assert!(late.is_empty() && hidden > 0, "what was not inspected in time is counted: {late:?}");
    }
}
