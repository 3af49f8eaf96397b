//! Machines with a real systemd: containers that boot on an overlay of this machine's own root.
//!
//! A [`Machine`] is a root that keeps what is written to it until it is dropped, and can be booted again and again. Each
//! boot runs one script when `multi-user.target` is reached, then powers off; what the script said and how it ended
//! comes back as a [`Ran`]. A boot takes about a second. It has a network of its own (only `lo`), processes and boot id
//! of its own, and no unit of this machine's but what a boot needs.
//!
//! The overlay's upper layer is a tmpfs of its own, since an overlay cannot have a layer within a layer. The store's
//! root can be on a loop-mounted file system instead ([`Machine::with_store_on`]), which is then shut down without a
//! flush of its journal when the power is cut.
//!
//! Everything has a time limit, and nothing stays mounted or running when the values are dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::image::{Image, run};
use super::{Outcome, Ran, Skipped, binary, needs_program, needs_root, tree};

/// After this a boot counts as hanging.
const LIMIT: Duration = Duration::from_secs(90);

/// Where the script, what it said and how it ended are kept, in the machine.
const AREA: &str = "tope-test";

/// Lets go of everything that is mounted below `$3` but what lies below `$1` or `$2`, enters the control groups that
/// follow up to `--`, and becomes the container.
///
/// A container's namespace keeps, out of sight, what was mounted when it started, for as long as it runs; and another
/// test's image has to be gone when that test unmounts it.
const BECOME: &str = r#"
    for at in $(cut -d ' ' -f 2 /proc/self/mounts); do
        case $at in
        "$1"/* | "$2"/*) ;;
        "$3"/*) umount -l "$at" ;;
        esac
    done
    shift 3
    for group; do
        shift
        case $group in --) break ;; esac
        echo $$ >"$group"
    done
    exec "$@""#;

/// A root that can be booted.
pub struct Machine {
    directory: tempfile::TempDir,
    name: String,
    /// Control groups of its own, so that several machines can run at once.
    groups: Vec<PathBuf>,
    store: Option<Image>,
}

impl Machine {
    /// A machine with the binary under test in `/usr/bin`; the store's root is on the overlay.
    pub fn new() -> Result<Self, Skipped> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        needs_root()?;
        for program in ["systemd-nspawn", "mount", "dbus-daemon", "unshare"] {
            needs_program(program)?;
        }
        let name = format!("tope-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let machine = Self { groups: own_groups(&name), directory, name, store: None };
        machine.mount()?;
        machine.strip();
        std::fs::copy(binary(), machine.path("usr/bin/tope-store")).expect("a copy of the binary");
        Ok(machine)
    }

    /// The same, with `/opt/tope` on the given file system.
    pub fn with_store_on(image: Image) -> Result<Self, Skipped> {
        needs_program("python3")?;
        let mut machine = Self::new()?;
        std::fs::create_dir_all(machine.path("opt/tope")).expect("a mount point");
        machine.store = Some(image);
        Ok(machine)
    }

    fn mount(&self) -> Outcome {
        let layers = self.directory.path().join("layers");
        std::fs::create_dir(&layers).expect("a mount point");
        std::fs::create_dir(self.root()).expect("a mount point");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2g,mode=755", "tmpfs"]).arg(&layers))?;
        for layer in ["upper", "work"] {
            std::fs::create_dir(layers.join(layer)).expect("a layer");
        }
        let (upper, work) = (layers.join("upper"), layers.join("work"));
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        run(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay"]).arg(self.root()))
    }

    /// Takes away what belongs to this machine: its units, its timers, its mounts, its identity.
    fn strip(&self) {
        let mut superfluous = vec![
            "etc/fstab",
            "etc/rc.local",
            "usr/local/bin/tope-store",
            "etc/tope-store",
            "opt",
            "usr/sbin/policy-rc.d",
        ];
        superfluous.extend(["etc/systemd/system", "usr/lib/systemd/system-generators", "var/log/journal"]);
        let targets = ["multi-user", "timers", "graphical", "local-fs", "remote-fs", "getty"]
            .map(|target| format!("usr/lib/systemd/system/{target}.target.wants"));
        for path in superfluous.into_iter().chain(targets.iter().map(String::as_str)) {
            let path = self.path(path);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        std::fs::create_dir(self.path("opt")).expect("a directory");
        self.file("etc/machine-id", "746f70652d73746f72652d7465737473\n");
        self.file("etc/systemd/journald.conf.d/test.conf", "[Journal]\nStorage=persistent\nRateLimitBurst=0\n");
        self.file(
            "etc/systemd/system/tope-test.target",
            "[Unit]\nRequires=tope-test.service\nWants=multi-user.target\n",
        );
        self.file(
            "etc/systemd/system/tope-test.service",
            format!(
                "[Unit]\nAfter=multi-user.target\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n\
                 [Service]\nType=oneshot\nExecStart=/bin/sh /{AREA}/run\n"
            ),
        );
        let wrapper = format!(
            "cd /{AREA}\nsh -eu ./script >stdout 2>stderr </dev/null\necho $? >code\n\
             journalctl --boot --no-pager --output=short-monotonic >journal 2>&1\n"
        );
        self.file(format!("{AREA}/run"), wrapper);
    }

    /// The machine's root, as it is seen from outside.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A path in the machine, without a slash in front, as it is seen from outside.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        assert!(path.is_relative(), "{} would be outside the machine", path.display());
        match (&self.store, path.strip_prefix("opt/tope")) {
            (Some(image), Ok(below)) => image.path(below),
            _ => self.root().join(path),
        }
    }

    /// Writes a file in the machine, with its parents.
    pub fn file(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        tree::file(self.path(path), contents);
    }

    /// Writes an executable file in the machine, with its parents.
    pub fn program(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        tree::program(self.path(path), contents);
    }

    /// What a file in the machine holds.
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = self.path(path);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where a link in the machine points; empty if there is none.
    pub fn link(&self, path: &str) -> String {
        std::fs::read_link(self.path(path)).map(|target| target.display().to_string()).unwrap_or_default()
    }

    /// Boots, runs the script (`sh -eu`) and powers off.
    #[track_caller]
    pub fn boot(&self, script: &str) -> Result<Ran, Skipped> {
        self.start(script)?.wait()
    }

    /// Boots and goes on while the script runs.
    pub fn start(&self, script: &str) -> Result<Running<'_>, Skipped> {
        for left in ["stdout", "stderr", "code", "journal"] {
            let _ = std::fs::remove_file(self.path(AREA).join(left));
        }
        self.file(format!("{AREA}/script"), script);
        let console = std::fs::File::create(self.console()).expect("a file for the console");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", BECOME, "sh"]);
        let store = self.store.as_ref().map_or(self.directory.path(), Image::directory);
        command.arg(self.directory.path()).arg(store).arg(std::env::temp_dir());
        command.args(self.groups.iter().map(|group| group.join("cgroup.procs"))).arg("--");
        command.args(["systemd-nspawn", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]);
        command.arg(format!("--machine={}", self.name)).arg("--directory").arg(self.root());
        if let Some(image) = &self.store {
            command.arg(format!("--bind={}:/opt/tope", image.mounted().display()));
        }
        command.args(["--boot", "systemd.unit=tope-test.target", "systemd.show_status=no"]);
        command.stdin(Stdio::null()).stderr(console.try_clone().expect("a handle")).stdout(console);
        let child = command.spawn().map_err(|error| Skipped(format!("cannot run unshare: {error}")))?;
        Ok(Running { machine: self, child, until: Instant::now() + LIMIT })
    }

    fn console(&self) -> PathBuf {
        self.directory.path().join("console")
    }

    /// What the last boot logged, or what the console saw of it.
    pub fn journal(&self) -> String {
        let journal = std::fs::read(self.path(AREA).join("journal")).unwrap_or_default();
        let console = std::fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(if journal.is_empty() { &console } else { &journal }).into_owned()
    }
}

impl Drop for Machine {
    #[allow(clippy::print_stderr, reason = "libtest shows it with the test that failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine's journal:\n{}", self.journal());
        }
        for mounted in [self.root(), self.directory.path().join("layers")] {
            // Lazily, if a killed container has not let go of it yet.
            let unmount = |how: &[&str]| Command::new("umount").args(how).arg(&mounted).output();
            if !unmount(&[]).is_ok_and(|output| output.status.success()) {
                let _ = unmount(&["-l"]);
            }
        }
        for group in &self.groups {
            for item in walkdir::WalkDir::new(group).contents_first(true).into_iter().flatten() {
                if item.file_type().is_dir() {
                    let _ = std::fs::remove_dir(item.path());
                }
            }
        }
    }
}

/// A machine that runs; killed when dropped.
pub struct Running<'a> {
    machine: &'a Machine,
    child: Child,
    until: Instant,
}

impl Running<'_> {
    /// Waits until it has powered itself off.
    #[track_caller]
    pub fn wait(mut self) -> Result<Ran, Skipped> {
        while self.child.try_wait().expect("a child").is_none() {
            self.tick("power off");
        }
        let area = self.machine.path(AREA);
        let read =
            |name: &str| String::from_utf8_lossy(&std::fs::read(area.join(name)).unwrap_or_default()).into_owned();
        match read("code").trim().parse() {
            Ok(code) => Ok(Ran { code, stdout: read("stdout"), stderr: read("stderr") }),
            // Where not even its systemd comes to a word, the place does not allow containers.
            Err(_) if !self.machine.journal().contains("running in system mode") => {
                Err(Skipped(format!("no container boots here: {}", self.machine.journal().trim())))
            }
            Err(_) => panic!("the machine went off before the script ended: {}", self.machine.journal()),
        }
    }

    /// Waits until the machine has this file; its script makes it to say how far it is.
    #[track_caller]
    pub fn wait_for(&mut self, path: &str) {
        while std::fs::symlink_metadata(self.machine.path(path)).is_err() {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it went off before there was {path}: {}", self.machine.journal());
            self.tick(path);
        }
    }

    #[track_caller]
    fn tick(&mut self, what: &str) {
        std::thread::sleep(Duration::from_millis(2));
        if Instant::now() > self.until {
            self.kill();
            panic!("no {what} within {LIMIT:?}: {}", self.machine.journal());
        }
    }

    /// Cuts the power: the store's file system, if it has its own, takes nothing more from this instant, not even its
    /// journal, and all processes are gone. Afterwards it is mounted again, and the machine can be booted.
    pub fn cut_power(mut self) -> Outcome {
        if let Some(image) = &self.machine.store {
            // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
            let shut = "import fcntl,os,struct,sys\n\
                        fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))";
            run(Command::new("python3").arg("-c").arg(shut).arg(image.mounted()))?;
        }
        self.kill();
        match &self.machine.store {
            Some(image) => image.unmount().and_then(|()| image.mount(&["loop"])),
            None => Ok(()),
        }
    }

    /// Kills the first process, with which the kernel kills all others, and waits for the container's end.
    fn kill(&mut self) {
        let supervisor = self.child.id();
        let first = || {
            let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
            children.split_whitespace().find_map(|child| rustix::process::Pid::from_raw(child.parse().ok()?))
        };
        let until = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().expect("a child").is_none() {
            if let Some(first) = first() {
                let _ = rustix::process::kill_process(first, rustix::process::Signal::KILL);
            }
            if Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Control groups of this name in each hierarchy that systemd uses; where there can be none, the machine runs in ours.
fn own_groups(name: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, "cgroup2", ..] => Some(at),
        [_, at, "cgroup", options, ..] if options.split(',').any(|option| option == "name=systemd") => Some(at),
        _ => None,
    });
    let groups = hierarchies.map(|hierarchy| Path::new(hierarchy).join(name));
    groups.filter(|group| std::fs::create_dir(group).is_ok()).collect()
}
