//! Supervised switches, with plain commands as service manager: no systemd is needed.
//!
//! Services are real processes, kept by a small script as an init system would. A release says by its program how it
//! behaves.

mod boot;
mod degraded;
mod failing;
mod guardian;
mod outcomes;
mod overtaken;
mod planned;
mod preflight;
mod stopped;
mod terminal;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Fixture, Ran, tree};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    let tests = [
        boot::tests(),
        degraded::tests(),
        failing::tests(),
        guardian::tests(),
        outcomes::tests(),
        overtaken::tests(),
        planned::tests(),
        preflight::tests(),
        stopped::tests(),
        terminal::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// Starts and stops programs of the current version. A child of nobody may stay a zombie for long, and does not run.
/// What is stopped stays so for as long as there is a file `hold`; with a file `stuck` nothing is stopped; with a file
/// `hang` nobody says whether anything runs.
const CONTROL: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
runs() { [ -s "$1.pid" ] && grep -q '^State:.[^Z]' "/proc/$(cat "$1.pid")/status" 2>/dev/null; }
stop() {
    if runs "$1"; then kill "$(cat "$1.pid")"; fi
    rm -f "$1.pid"
    while [ -e hold ] && [ "$2" != start ]; do sleep 0.02; done
}
echo "$1 $2 $(readlink ../root/versions/current)" >>calls
case $1 in
    start | restart)
        [ "$1" = start ] && runs "$2" && exit 0
        grep -q keeps "../root/versions/current/bin/$2" && { echo "not now"; exit 1; }
        stop "$2" "$1"
        grep -q refuses "../root/versions/current/bin/$2" && { echo "not today"; exit 6; }
        exec </dev/null >/dev/null 2>&1
        "../root/versions/current/bin/$2" &
        echo $! >"$2.pid" ;;
    stop) [ -e stuck ] && exit 1; stop "$2" "$1" ;;
    status) [ -e hang ] && exec sleep 600; runs "$2" ;;
esac
"#;

/// A program that runs on.
pub const STEADY: &str = "exec sleep 1000";
/// One that ends at once.
pub const DEAD: &str = "exit 3";
/// One that the manager does not get started.
const REFUSES: &str = "# refuses";

/// One that the manager does not even stop the process of before for.
const KEEPS: &str = "exec sleep 1000 # keeps";

/// A store with two services, `api` and `web`.
pub struct Site {
    pub fixture: Fixture,
}

impl Site {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more in the table of `api`.
    pub fn with(api: &str) -> Self {
        let fixture = Fixture::new();
        tree::program(fixture.beside("rc/control"), CONTROL);
        let control = fixture.beside("rc/control").display().to_string();
        let verbs = ["start", "stop", "restart", "status"];
        let templates = verbs.map(|verb| format!("{verb} = [\"{control}\", \"{verb}\", \"{{unit}}\"]\n")).concat();
        let told = fixture.beside("told").display().to_string();
        let config = format!(
            "[notify]\ncommand = [\"sh\", \"-c\", 'cat >>\"$0\"', \"{told}\"]\n\
             [supervisor]\nkind = \"command\"\n{templates}\
             [[service]]\nunit = \"api\"\nsettle = \"300ms\"\ntimeout = \"60s\"\n{api}\n\
             [[service]]\nunit = \"web\"\nsettle = \"300ms\"\ntimeout = \"60s\"\n"
        );
        std::fs::write(fixture.config(), config).unwrap();
        Self { fixture }
    }

    /// Imports a release whose `api` does this, and whose `web` is the same in all.
    pub fn release(&self, version: &str, api: &str) {
        let source = self.fixture.beside(format!("source-{version}"));
        tree::program(source.join("bin/api"), format!("#!/bin/sh\n# {version}\n{api}\n"));
        tree::program(source.join("bin/web"), format!("#!/bin/sh\n{STEADY}\n"));
        self.fixture.import(&format!("source-{version}"), version);
    }

    /// The factory version holds, and runs with both services.
    pub fn begun(self) -> Self {
        self.release("1.0.0", STEADY);
        self.fixture.run(&["factory", "set", "1.0.0"]).ok();
        self.fixture.run(&["activate", "1.0.0", "--restart=all"]).ok();
        self
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.fixture.run(arguments)
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str], code: i32) -> Value {
        let ran = self.fixture.run(&[&["--json"], arguments].concat()).expect(code);
        let document = ran.json();
        crate::documents::assert_documented(arguments[0], &document);
        document
    }

    pub fn status(&self) -> Value {
        let ran = self.fixture.run(&["--json", "status", "--verify", "none"]);
        crate::documents::assert_documented("status", &ran.json());
        ran.json()
    }

    /// The kinds of what `doctor` finds.
    #[track_caller]
    fn doctor(&self, code: i32) -> Vec<String> {
        let bin = self.fixture.beside("bin").display().to_string();
        std::fs::create_dir_all(&bin).unwrap();
        let document = self.json(&["doctor", "--bin-dir", &bin], code);
        let findings = document["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect()
    }

    pub fn current(&self) -> String {
        self.fixture.link("versions/current")
    }

    /// The process of a service, if it runs.
    pub fn process(&self, unit: &str) -> Option<u32> {
        let ran = std::process::Command::new(self.fixture.beside("rc/control")).args(["status", unit]).status();
        let pid = std::fs::read_to_string(self.fixture.beside(format!("rc/{unit}.pid"))).ok()?;
        ran.expect("a shell").success().then(|| pid.trim().parse().expect("a number"))
    }

    /// How many processes began as this service's program. By now each is `sleep`, in the directory of the script.
    pub fn instances(&self, unit: &str) -> usize {
        let area = self.fixture.beside("rc").canonicalize().expect("a directory");
        let other = self.process(if unit == "api" { "web" } else { "api" });
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let runs = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let works_in = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            line.starts_with(b"sleep\x001000") && works_in == area && Some(*pid) != other
        };
        pids.filter(runs).count()
    }

    /// The version whose program a service executes.
    pub fn version_of(&self, unit: &str) -> Option<String> {
        let pid = self.process(unit)?;
        // `exec` replaced the script; what it was started as is in the order.
        let calls = std::fs::read_to_string(self.fixture.beside("rc/calls")).ok()?;
        let last = calls.lines().rev().find(|line| {
            line.starts_with(&format!("restart {unit} ")) || line.starts_with(&format!("start {unit} "))
        })?;
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        last.rsplit(' ').next().map(str::to_owned)
    }

    /// What `[notify]` was told, event by event.
    pub fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.fixture.beside("told")).unwrap_or_default();
        let told: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().map(|item| item.expect("a document")).collect();
        for notice in &told {
            crate::documents::assert_notice(notice);
        }
        told
    }

    /// What is held of a version.
    pub fn state(&self, version: &str) -> String {
        let actions = ["--action", "good", "--action", "bad", "--action", "confirm"];
        let judged = self.fixture.json(&[&["history", "--version", version], &actions[..]].concat());
        // The newest comes first.
        judged["events"][0]["action"].as_str().unwrap_or_default().to_owned()
    }

    /// Stops the services.
    pub fn stop(&self) {
        let _ = std::fs::remove_file(self.fixture.beside("rc/hold"));
        for unit in ["api", "web"] {
            let _ = std::process::Command::new(self.fixture.beside("rc/control")).args(["stop", unit]).status();
        }
    }

    /// The guardians of switches in this store.
    pub fn guardians(&self) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        let root = self.fixture.root().display().to_string();
        pids.filter(|pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("--guard=") && line.contains(&root)
        })
        .collect()
    }

    /// Kills them, and waits until they are gone.
    pub fn kill_guardians(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        wait_until("the guardians are gone", || {
            let guardians = self.guardians();
            for pid in guardians.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
            guardians.is_empty()
        });
    }

    /// Starts a switch that goes on until its watch is over, and waits until the version is current and on trial.
    pub fn start(&self, arguments: &[&str], version: &str) -> Child {
        let mut command = self.fixture.command();
        command.arg("--json").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the binary runs");
        wait_until("the version is current and on trial", || {
            let status = self.status();
            status["trial"]["current"] == version && status["current"]["version"] == version
        });
        child
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill_guardians();
        self.stop();
    }
}

pub fn ended(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().expect("the binary ends"))
}

#[track_caller]
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
