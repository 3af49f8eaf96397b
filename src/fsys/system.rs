//! The machine: its clock, this user, other processes in words.

use crate::clock::{Clock, Moment};

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Moment { unix_seconds: now.tv_sec, synchronised: clock_synchronised(), boot_id: boot_id().unwrap_or_default() }
    }
}

/// Where the kernel names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The same file as the first process sees it.
const BOOT_ID_OF_INIT: &str = "/proc/1/root/proc/sys/kernel/random/boot_id";

/// The identifier of this boot; `None` where it cannot be known.
///
/// A container has one of its own, mounted over the kernel's. A unit with `ProtectKernelTunables=` has `/proc/sys` mounted
/// once more, without what lay on it, and would see the boot of the host: where the file is the kernel's, the first process
/// is asked how it sees it. Without the right to inspect that one, what is seen here counts.
pub(super) fn boot_id() -> Option<String> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    };
    let of_kernel = rustix::fs::statfs(BOOT_ID).is_ok_and(|found| is_proc(&found));
    of_kernel.then(|| read(BOOT_ID_OF_INIT)).flatten().or_else(|| read(BOOT_ID))
}

fn is_proc(found: &rustix::fs::StatFs) -> bool {
    const PROC: u32 = 0x9fa0;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = found.f_type as u32;
    magic == PROC
}

/// Whether the kernel holds its clock to be synchronised (`adjtimex(2)`, `STA_UNSYNC`).
#[allow(unsafe_code)]
fn clock_synchronised() -> bool {
    // SAFETY: `timex` is a plain structure of integers for which all zeros is a value; with `modes` zero the call
    // changes nothing and only writes to the structure, which lives until it returns.
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex) != -1 && timex.status & libc::STA_UNSYNC == 0
    }
}

/// Heaps of one process: each holds on to some memory of its own.
#[cfg(target_env = "gnu")]
const MOST_HEAPS: u32 = 4;

/// Keeps this process's heap small: few heaps for all threads instead of eight for each processor, and what was big
/// goes back to the system as soon as it is not used. For the command to call before it starts threads; a program that
/// links the library has its own mind about its heap.
#[allow(unsafe_code)]
pub fn bound_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call only sets numbers of the allocator, and may be made at any time.
    unsafe {
        // With one, a twentieth of an unchanged import was threads that waited for each other.
        let heaps = rustix::thread::sched_getaffinity(None).map_or(1, |processors| processors.count().min(MOST_HEAPS));
        // What it does not take stays at its default, which costs memory, nothing else.
        libc::mallopt(libc::M_ARENA_MAX, heaps as libc::c_int);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TOP_PAD, 256 << 10);
    }
}

/// Gives the memory that was freed back to the system, which the allocator would keep for later.
#[allow(unsafe_code)]
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call touches only memory that is not in use, and may be made at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives a program a session of its own as it starts: no terminal, and no signal that is meant for a terminal.
#[allow(unsafe_code)]
pub fn in_own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only `setsid` is called, which is a system call and nothing else.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
}

/// Keeps descriptors that this process was started with, other than its standard streams, from programs that it starts
/// from now on: one that stays must not hold a lock or a pipe of whoever started this process.
#[allow(unsafe_code)]
pub fn close_on_exec() {
    // Where they are not listed they stay, which costs the other side a wait.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    for number in open.flatten().filter_map(|item| item.file_name().to_str()?.parse::<i32>().ok()) {
        if number > 2 {
            // SAFETY: the call sets a flag of a descriptor; one that is closed by now is an error without an effect.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// The effective user.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group.
pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// A process in words: number, command, since when it runs.
pub fn describe_process(pid: i32) -> String {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return format!("pid {pid}") };
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .take(6)
        .map(|word| crate::error::Shown::bytes(word).to_string())
        .collect();
    let started = std::fs::metadata(format!("/proc/{pid}")).and_then(|metadata| metadata.modified()).ok();
    let started = started.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let since =
        started.map(|time| time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T %:z").to_string());
    match since {
        Some(since) => format!("pid {pid} ({}) since {since}", words.join(" ")),
        None => format!("pid {pid} ({})", words.join(" ")),
    }
}

/// The name of the network or FUSE file system that a directory lies on, or `None` on a local one.
///
/// Magic numbers as in `statfs(2)`.
pub fn network_file_system(dir: &super::Dir) -> crate::error::Result<Option<&'static str>> {
    let stat = rustix::fs::fstatfs(dir)
        .map_err(|errno| crate::error::Error::io("ask for the file system of", dir.path(), errno))?;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    Ok(match stat.f_type as u32 {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x6573_5546 => Some("FUSE"),
        0x0102_1997 => Some("9P"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7461_636f => Some("OCFS2"),
        _ => None,
    })
}

/// Whether files on this file system may share blocks with others, so that the bytes of one need not come back when it
/// goes: xfs, btrfs, bcachefs, OCFS2, ZFS. Magic numbers as in `statfs(2)`.
pub fn may_share_blocks(dir: &super::Dir) -> crate::error::Result<bool> {
    let stat = rustix::fs::fstatfs(dir)
        .map_err(|errno| crate::error::Error::io("ask for the file system of", dir.path(), errno))?;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = stat.f_type as u32;
    Ok(matches!(magic, 0x5846_5342 | 0x9123_683e | 0xca45_1a4e | 0x7461_636f | 0x2fc1_2fc1))
}

/// Raises this process's limit of open files to what the system allows, since every directory that is being worked
/// on is held open.
pub fn raise_open_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it a very wide tree may need more handles than there are; that is then an error with a path.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// What is asked about a byte of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteLock {
    /// To be locked by the file's open description.
    Take,
    /// Who else has a lock on it, or on one of those behind it that are meant as well.
    Ask,
}

/// Locks one byte for an open description of a file (`F_OFD_SETLK`), or asks for locks of others on `length` bytes (0:
/// all that follow). Gives the first byte behind a lock of another description, or `None` if there is none.
#[allow(unsafe_code)]
pub(super) fn byte_lock(file: &std::fs::File, what: ByteLock, start: u64, length: u64) -> std::io::Result<Option<u64>> {
    use std::os::fd::AsRawFd;
    let offset = |number: u64| libc::off_t::try_from(number).map_err(std::io::Error::other);
    // SAFETY: `flock` is a plain structure of integers for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (offset(start)?, offset(length)?);
    let command = match what {
        ByteLock::Take => libc::F_OFD_SETLK,
        ByteLock::Ask => libc::F_OFD_GETLK,
    };
    // SAFETY: the call reads and writes the structure, which lives until it returns.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result == -1 {
        return Err(std::io::Error::last_os_error());
    }
    if what == ByteLock::Take || lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    // A lock without an end is none of ours; nothing is behind it.
    let end = if lock.l_len == 0 { libc::off_t::MAX } else { lock.l_start + lock.l_len };
    Ok(Some(u64::try_from(end).unwrap_or(u64::MAX)))
}

/// The wall clock as the kernel stamps files with it: seconds and nanoseconds, one tick coarse.
pub fn file_time_now() -> (i64, u32) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}
