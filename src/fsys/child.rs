//! Programs that are run to be waited for: with a time limit, with bounded output, and never with more left behind than
//! they meant to leave.
//!
//! A program gets a process group of its own, so that a time limit ends what it started too, and a Ctrl-C meant for us
//! does not hit it halfway. When it ends by itself nothing of its group is touched: a start script may leave a service
//! behind. What such a service still writes to the output that it inherited goes nowhere (it meets a closed pipe).
//!
//! **Invariant:** [`Run::wait`] returns, whatever the program does: at the limit, plus [`REAP_LIMIT`] at worst.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, Result};

/// How much of each stream is kept: the last bytes. Enough for the answers of a service manager about hundreds of units.
pub const OUTPUT_LIMIT: usize = 4 << 20;
/// How long a killed program may take to be gone before it is left to the system.
pub const REAP_LIMIT: Duration = Duration::from_secs(1);
/// How long what a program leaves running may take to let go of its output.
const REDIRECT_LIMIT: Duration = Duration::from_millis(300);
/// How often the caller is asked whether it still wants the result.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether the program has ended where the kernel cannot tell (before Linux 5.3).
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A program to be run.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The program, found as the shell finds it, and its arguments.
    pub command: &'a [String],
    /// What it reads on standard input.
    pub input: &'a [u8],
    /// Variables that are set in its environment, beside those of this process.
    pub environment: &'a [(&'a str, &'a str)],
    /// How long it may take.
    pub limit: Duration,
    /// Asked now and then; once it says no, the program is killed.
    pub keep_on: &'a dyn Fn() -> bool,
}

/// The paths at which [`Run`] looks for a program, the first one first: its own if it has a slash, else one in each
/// directory of `PATH`, as `execvp(3)` has it.
pub fn candidates(program: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return std::path::absolute(program).into_iter().collect();
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let absolute =
        std::env::split_paths(&path).filter_map(|directory| std::path::absolute(directory.join(program)).ok());
    absolute.collect()
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Killed, because its time was up.
    TimedOut,
    /// Killed, because the caller did not want it any longer.
    BrokenOff,
}

/// What a program came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output, the last [`OUTPUT_LIMIT`] bytes of it.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, the last [`OUTPUT_LIMIT`] bytes of it.
    pub stderr: Vec<u8>,
    /// Whether either was longer.
    pub cut: bool,
    /// Whether something that it left running has one of these streams still, and will meet a closed pipe there.
    pub handed_on: bool,
}

impl Ran {
    /// Whether it ended by itself with success.
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// The exit code, if it ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self.end {
            End::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The last lines that it wrote, standard error after standard output, blank ones left out.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&self.stdout), text(&self.stderr));
        let lines = out.lines().chain(err.lines()).map(str::trim_end).filter(|line| !line.is_empty());
        let mut last: VecDeque<String> = VecDeque::new();
        for line in lines {
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(short(line));
        }
        last.into_iter().take(count).collect()
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it ended with exit code {code}"),
            Self::Signalled(signal) => write!(f, "it was killed by signal {signal}"),
            Self::TimedOut => f.write_str("it took too long and was killed"),
            Self::BrokenOff => f.write_str("it was killed since it was no longer wanted"),
        }
    }
}

/// A line cut to a length at which it is still evidence.
pub fn short(line: &str) -> String {
    const LONGEST: usize = 400;
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

impl Run<'_> {
    /// Runs the program and waits for its end, its limit, or the caller's change of mind.
    ///
    /// # Errors
    ///
    /// It cannot be started. How it ends is no error here.
    pub fn wait(&self) -> Result<Ran> {
        let program = self.command.first().map_or("", String::as_str);
        let failed = |verb, error: io::Error| Error::io(verb, program, error);
        let mut command = Command::new(program);
        command.args(self.command.get(1..).unwrap_or_default()).envs(self.environment.iter().copied());
        command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = Reaped(command.spawn().map_err(|error| failed("run", error))?);
        let begun = Instant::now();
        self.attend(&mut child.0, begun).map_err(|error| failed("wait for", error))
    }

    fn attend(&self, child: &mut Child, begun: Instant) -> io::Result<Ran> {
        let pid = rustix::process::Pid::from_child(child);
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
        let mut input = child.stdin.take().map(|pipe| (pipe, self.input));
        let mut out = Stream::new(child.stdout.take().map(OwnedFd::from))?;
        let mut err = Stream::new(child.stderr.take().map(OwnedFd::from))?;
        if let Some((pipe, _)) = &input {
            make_nonblocking(pipe.as_fd())?;
        }
        let end = loop {
            let left = self.limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break End::TimedOut;
            }
            if !(self.keep_on)() {
                break End::BrokenOff;
            }
            let nap = left.min(if ended.is_some() { ASK_EVERY } else { LOOK_EVERY });
            let writing = input.as_ref().map(|(pipe, _)| pipe.as_fd());
            wait_for(&[ended.as_ref().map(AsFd::as_fd), out.fd(), err.fd()], writing, nap)?;
            out.read()?;
            err.read()?;
            if let Some((pipe, rest)) = &mut input
                && feed(pipe, rest)
            {
                input = None;
            }
            if let Some(status) = child.try_wait()? {
                break end_of(status);
            }
        };
        if matches!(end, End::TimedOut | End::BrokenOff) {
            kill_group(child);
        } else {
            // What it wrote last may still be on its way. What others write on is not waited for, but for as long as one
            // that it started in the background may need to redirect its output.
            let ended = Instant::now();
            loop {
                out.read()?;
                err.read()?;
                let left = REDIRECT_LIMIT.saturating_sub(ended.elapsed());
                if left.is_zero() || (out.pipe.is_none() && err.pipe.is_none()) {
                    break;
                }
                wait_for(&[out.fd(), err.fd()], None, left)?;
            }
        }
        let cut = out.cut || err.cut;
        let handed_on = out.pipe.is_some() || err.pipe.is_some();
        Ok(Ran { end, stdout: out.kept.into(), stderr: err.kept.into(), cut, handed_on })
    }
}

/// A child that is not left behind running if waiting for it fails.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill_group(&mut self.0);
        }
    }
}

/// Kills a program with all that it started in its group, and waits a little for its end.
fn kill_group(child: &mut Child) {
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < REAP_LIMIT {
        std::thread::sleep(LOOK_EVERY);
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or(0)),
    }
}

fn make_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Waits until one of these can be read, or that one written, or the time is over.
fn wait_for(reading: &[Option<BorrowedFd<'_>>], writing: Option<BorrowedFd<'_>>, nap: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> =
        reading.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    fds.extend(writing.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
    let nap = Timespec { tv_sec: nap.as_secs().cast_signed(), tv_nsec: nap.subsec_nanos().into() };
    match poll(&mut fds, Some(&nap)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes what the pipe takes; true once there is nothing left to write, or nobody who reads.
fn feed(pipe: &mut impl Write, rest: &mut &[u8]) -> bool {
    while !rest.is_empty() {
        match pipe.write(rest) {
            Ok(0) => return true,
            Ok(count) => *rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// One stream of output.
struct Stream {
    pipe: Option<std::fs::File>,
    kept: VecDeque<u8>,
    cut: bool,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(fd) = &fd {
            make_nonblocking(fd.as_fd())?;
        }
        Ok(Self { pipe: fd.map(std::fs::File::from), kept: VecDeque::new(), cut: false })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, but no more than a pipe's worth at a time: who never stops writing must not keep us.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1 << 14];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.kept.extend(&chunk[..count]);
                    let over = self.kept.len().saturating_sub(OUTPUT_LIMIT);
                    self.cut |= over > 0;
                    self.kept.drain(..over);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: &[u8], limit: Duration) -> Ran {
        let command = ["sh", "-c", script].map(str::to_owned);
        Run { command: &command, input, environment: &[("MARK", "set")], limit, keep_on: &|| true }.wait().unwrap()
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn both_streams_the_code_and_the_environment_come_back() {
        let ran = sh("echo $MARK; echo oops >&2; exit 3", b"", LONG);
        let (stdout, stderr) = (b"set\n".into(), b"oops\n".into());
        assert_eq!(ran, Ran { end: End::Exited(3), stdout, stderr, cut: false, handed_on: false });
        assert_eq!(ran.last_lines(5), ["set", "oops"]);
        assert_eq!(ran.last_lines(1), ["oops"]);
        assert_eq!(ran.last_lines(0), [""; 0]);
        assert_eq!(sh("kill -9 $$", b"", LONG).end, End::Signalled(9));
    }

    #[test]
    fn more_input_than_a_pipe_holds_passes_while_output_flows() {
        let input = vec![b'x'; 1 << 20];
        let ran = sh("cat", &input, LONG);
        assert_eq!((ran.end, ran.stdout == input), (End::Exited(0), true));
        // One that does not read its input is not waited for.
        assert_eq!(sh("exit 0", &input, LONG).end, End::Exited(0));
    }

    #[test]
    fn a_limit_ends_a_program_with_all_its_children() {
        let temporary = tempfile::tempdir().unwrap();
        let pid_file = temporary.path().join("pid");
        let script = format!("sleep 600 & echo $! >{}; wait", pid_file.display());
        let ran = sh(&script, b"", Duration::from_millis(300));
        assert_eq!(ran.end, End::TimedOut);
        let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let begun = Instant::now();
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(begun.elapsed() < LONG, "{}", state());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn what_a_program_leaves_running_keeps_nobody_waiting() {
        let ran = sh("sleep 20 & echo done", b"", LONG);
        assert_eq!((ran.end, ran.stdout, ran.handed_on), (End::Exited(0), b"done\n".to_vec(), true));
        assert!(!sh("exec >/dev/null 2>&1; sleep 20 &", b"", LONG).handed_on);
    }

    #[test]
    fn a_flood_is_cut_and_a_change_of_mind_ends_it() {
        let ran = sh("head -c 6000000 /dev/zero; echo end", b"", LONG);
        assert_eq!((ran.stdout.len(), ran.cut), (OUTPUT_LIMIT, true));
        assert!(ran.stdout.ends_with(b"end\n"));
        let command = ["yes".to_owned()];
        let begun = Instant::now();
        let keep_on = || begun.elapsed() < Duration::from_millis(100);
        let run = Run { command: &command, input: b"", environment: &[], limit: LONG, keep_on: &keep_on };
        assert_eq!(run.wait().unwrap().end, End::BrokenOff);
    }

    #[test]
    fn a_program_is_looked_for_where_it_is_found() {
        assert_eq!(candidates("/no/such/program"), [PathBuf::from("/no/such/program")]);
        assert_eq!(candidates("a/b"), [std::env::current_dir().unwrap().join("a/b")]);
        assert!(candidates("sh").iter().any(|path| path.exists()), "{:?}", candidates("sh"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let command = ["/no/such/program".to_owned()];
        let run = Run { command: &command, input: b"", environment: &[], limit: LONG, keep_on: &|| true };
        assert_eq!(run.wait().unwrap_err().to_string(), "cannot run /no/such/program");
    }
}
