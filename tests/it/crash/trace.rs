//! Runs the command under `ptrace(2)`, stops it before every system call that changes something, and lets the test say
//! what becomes of that call.
//!
//! `strace` injects faults too, but counts calls per thread and per kind, so that "the N-th" is not one place; it cannot
//! run anything while the command stands still; and its filters do not know which file a descriptor is. Here calls are
//! counted over all threads, only those on the files of the test, and a stopped command can be looked at, killed, made
//! to fail, or kept waiting while another command runs.

#![allow(unsafe_code, reason = "ptrace has no safe interface")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::support::{Fixture, Outcome, Ran};

pub fn tests() -> Vec<Trial> {
    vec![super::trial("trace::a_test_that_fails_leaves_no_command_behind", leaves_none_behind)]
}

fn leaves_none_behind() -> Outcome {
    let fixture = Fixture::bare();
    let run = |decide: &mut dyn FnMut(&Call) -> Fate| run(fixture.command().arg("init"), &fixture.dir, decide);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut |_| panic!("as a test may"))));
    assert!(failed.is_err());
    run(&mut |_| Fate::Happens).ok();
    Ok(())
}

/// A call that changes something, before it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name, without the `at` and the number that only tell how it is called.
    pub name: &'static str,
    /// The file it changes, relative to the directory of the test, process numbers replaced.
    pub path: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.name, self.path)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every harness makes calls fail")]
pub enum Fate {
    /// It is made.
    Happens,
    /// The whole process is killed before it is made.
    Killed,
    /// It is not made, and fails with this number.
    Fails(i32),
    /// It writes a part of what it was asked to write.
    Short,
}

/// Runs `command`; for every call that changes something below `dir`, `decide` says what becomes of it.
pub fn run(command: &mut Command, dir: &Path, decide: &mut dyn FnMut(&Call) -> Fate) -> Ran {
    let forks = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
    traced(command, dir, forks, &mut Decide::Changes(decide))
}

/// The same without the programs that it starts: services outlive it.
pub fn run_alone(command: &mut Command, dir: &Path, decide: &mut dyn FnMut(&Call) -> Fate) -> Ran {
    traced(command, dir, 0, &mut Decide::Changes(decide))
}

/// The same; before every call of its threads, whatever it is about, `decide` says which signal it gets.
pub fn run_signalled(command: &mut Command, decide: &mut dyn FnMut() -> Option<libc::c_int>) -> Ran {
    traced(command, Path::new("/"), 0, &mut Decide::All(decide))
}

/// Who decides, and about which calls.
enum Decide<'a> {
    Changes(&'a mut dyn FnMut(&Call) -> Fate),
    All(&'a mut dyn FnMut() -> Option<libc::c_int>),
}

#[allow(clippy::zombie_processes, reason = "the tracer waits for it")]
fn traced(command: &mut Command, dir: &Path, forks: i32, decide: &mut Decide<'_>) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only ptrace is called, which is a system call and nothing else.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().expect("the binary runs under ptrace");
    let first = libc::pid_t::try_from(child.id()).expect("a process number");
    let mut tracer = Tracer { dir: dir.to_owned(), first, forks, inside: HashMap::new(), code: None };
    tracer.follow(decide);
    let read = |pipe: &mut dyn Read| {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe");
        String::from_utf8_lossy(&text).into_owned()
    };
    let stdout = read(child.stdout.as_mut().expect("it is piped"));
    let stderr = read(child.stderr.as_mut().expect("it is piped"));
    Ran { code: tracer.code.expect("it has ended"), stdout, stderr }
}

struct Tracer {
    dir: PathBuf,
    first: libc::pid_t,
    /// Options by which what it starts is traced as well.
    forks: i32,
    /// Threads that are inside a call, and what it is to return instead of what it returns.
    inside: HashMap<libc::pid_t, Option<i64>>,
    code: Option<i32>,
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> libc::c_long {
    // SAFETY: all requests made here take numbers, or a pointer to a buffer that lives during the call.
    unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) }
}

/// Offsets of registers in `user_regs_struct`.
mod register {
    pub const ACCUMULATOR: usize = std::mem::offset_of!(libc::user_regs_struct, rax);
    pub const CALL: usize = std::mem::offset_of!(libc::user_regs_struct, orig_rax);
    pub const THIRD: usize = std::mem::offset_of!(libc::user_regs_struct, rdx);
}

impl Drop for Tracer {
    /// A test that fails while its command stands still must not leave it to the next one that this thread runs, which
    /// would wait for it for ever.
    fn drop(&mut self) {
        if self.code.is_none() {
            // SAFETY: it takes numbers.
            unsafe { libc::kill(self.first, libc::SIGKILL) };
            // SAFETY: no status is asked for.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::__WNOTHREAD) } > 0 {}
        }
    }
}

impl Tracer {
    fn follow(&mut self, decide: &mut Decide<'_>) {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | self.forks | libc::PTRACE_O_EXITKILL;
        let mut started = false;
        loop {
            let mut status = 0;
            // Only what this very thread traces: other tests of this process have children too.
            // SAFETY: `status` lives during the call.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                return;
            }
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
                self.inside.remove(&pid);
                if pid == self.first {
                    self.code = Some(code);
                }
                continue;
            }
            if !started {
                ptrace(libc::PTRACE_SETOPTIONS, pid, 0, usize::try_from(options).expect("flags"));
                started = true;
            }
            let signal = libc::WSTOPSIG(status);
            let deliver = match signal {
                _ if status >> 16 != 0 => 0,
                signal if signal == libc::SIGTRAP | 0x80 => {
                    self.at_call(pid, decide);
                    0
                }
                libc::SIGTRAP | libc::SIGSTOP => 0,
                other => other,
            };
            ptrace(libc::PTRACE_SYSCALL, pid, 0, usize::try_from(deliver).expect("a signal"));
        }
    }

    /// A thread stands before or behind a call.
    fn at_call(&mut self, pid: libc::pid_t, decide: &mut Decide<'_>) {
        if let Some(instead) = self.inside.remove(&pid) {
            if let Some(instead) = instead {
                ptrace(libc::PTRACE_POKEUSER, pid, register::ACCUMULATOR, instead as usize);
            }
            return;
        }
        let mut instead = None;
        let decide = match decide {
            Decide::Changes(decide) => decide,
            Decide::All(decide) => {
                if let Some(signal) = decide() {
                    // SAFETY: a signal to the process that this tracer started.
                    unsafe { libc::kill(self.first, signal) };
                }
                self.inside.insert(pid, None);
                return;
            }
        };
        if let Some(call) = self.look(pid) {
            match decide(&call) {
                Fate::Happens => {}
                Fate::Killed => {
                    // SAFETY: a signal to the process that this tracer started.
                    unsafe { libc::kill(self.first, libc::SIGKILL) };
                }
                Fate::Fails(number) => {
                    ptrace(libc::PTRACE_POKEUSER, pid, register::CALL, usize::MAX);
                    instead = Some(-i64::from(number));
                }
                Fate::Short => {
                    let length = registers(pid).rdx;
                    ptrace(libc::PTRACE_POKEUSER, pid, register::THIRD, (length as usize).div_ceil(2));
                }
            }
        }
        self.inside.insert(pid, instead);
    }

    /// The call that a thread is about to make, if it changes something here.
    fn look(&self, pid: libc::pid_t) -> Option<Call> {
        let registers = registers(pid);
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8];
        let (name, target) = meaning(registers.orig_rax as libc::c_long, &arguments)?;
        let path = match target {
            Target::Descriptor(at) => std::fs::read_link(format!("/proc/{pid}/fd/{}", arguments[at] as i32)).ok()?,
            Target::Path(directory, at) => {
                let path = PathBuf::from(text(pid, arguments[at])?);
                match directory.map(|at| arguments[at] as i32) {
                    Some(libc::AT_FDCWD) | None => path,
                    Some(directory) => std::fs::read_link(format!("/proc/{pid}/fd/{directory}")).ok()?.join(path),
                }
            }
        };
        let path = path.strip_prefix(&self.dir).ok()?.to_string_lossy();
        Some(Call { name, path: path.replace(&format!("-{}", self.first), "-N") })
    }
}

fn registers(pid: libc::pid_t) -> libc::user_regs_struct {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    ptrace(libc::PTRACE_GETREGS, pid, 0, registers.as_mut_ptr() as usize);
    // SAFETY: it is made of numbers, all zero or filled by the kernel.
    unsafe { registers.assume_init() }
}

/// A path in another process.
fn text(pid: libc::pid_t, address: u64) -> Option<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; 4096];
    let mut count = memory.read_at(&mut bytes, address).unwrap_or(0);
    if count == 0 {
        // It ends before the page does that was asked for too.
        bytes.truncate(4096 - usize::try_from(address % 4096).ok()?);
        count = memory.read_at(&mut bytes, address).ok()?;
    }
    bytes.truncate(bytes[..count].iter().position(|byte| *byte == 0)?);
    Some(std::ffi::OsString::from_vec(bytes))
}

/// Which argument tells the file.
enum Target {
    Descriptor(usize),
    /// The directory's, if there is one, and the path's.
    Path(Option<usize>, usize),
}

/// The calls that change a file system; opening only if it creates, cuts or is for writing.
fn meaning(number: libc::c_long, arguments: &[u64; 5]) -> Option<(&'static str, Target)> {
    use Target::{Descriptor, Path};
    let writes = |flags: u64| flags as i32 & (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) != 0;
    Some(match number {
        libc::SYS_openat if writes(arguments[2]) => ("open", Path(Some(0), 1)),
        libc::SYS_open if writes(arguments[1]) => ("open", Path(None, 0)),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => ("write", Descriptor(0)),
        libc::SYS_copy_file_range => ("copy_file_range", Descriptor(2)),
        libc::SYS_sendfile => ("sendfile", Descriptor(0)),
        // FICLONE, FICLONERANGE, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR.
        libc::SYS_ioctl if [0x4004_9409, 0x4020_940d, 0x4008_6602, 0x401c_5820].contains(&arguments[1]) => {
            ("ioctl", Descriptor(0))
        }
        libc::SYS_linkat => ("link", Path(Some(2), 3)),
        libc::SYS_link => ("link", Path(None, 1)),
        libc::SYS_renameat | libc::SYS_renameat2 => ("rename", Path(Some(2), 3)),
        libc::SYS_rename => ("rename", Path(None, 1)),
        libc::SYS_unlinkat => ("unlink", Path(Some(0), 1)),
        libc::SYS_unlink => ("unlink", Path(None, 0)),
        libc::SYS_rmdir => ("rmdir", Path(None, 0)),
        libc::SYS_mkdirat => ("mkdir", Path(Some(0), 1)),
        libc::SYS_mkdir => ("mkdir", Path(None, 0)),
        libc::SYS_symlinkat => ("symlink", Path(Some(1), 2)),
        libc::SYS_symlink => ("symlink", Path(None, 1)),
        libc::SYS_fsync | libc::SYS_fdatasync => ("fsync", Descriptor(0)),
        libc::SYS_syncfs => ("syncfs", Descriptor(0)),
        libc::SYS_ftruncate => ("truncate", Descriptor(0)),
        libc::SYS_fallocate => ("fallocate", Descriptor(0)),
        libc::SYS_fchmod => ("chmod", Descriptor(0)),
        libc::SYS_fchmodat => ("chmod", Path(Some(0), 1)),
        libc::SYS_chmod => ("chmod", Path(None, 0)),
        libc::SYS_fchown => ("chown", Descriptor(0)),
        libc::SYS_fchownat => ("chown", Path(Some(0), 1)),
        libc::SYS_utimensat if arguments[1] == 0 => ("utimens", Descriptor(0)),
        libc::SYS_utimensat => ("utimens", Path(Some(0), 1)),
        libc::SYS_fsetxattr => ("setxattr", Descriptor(0)),
        libc::SYS_fremovexattr => ("removexattr", Descriptor(0)),
        libc::SYS_setxattr | libc::SYS_lsetxattr => ("setxattr", Path(None, 0)),
        _ => return None,
    })
}
