//! Many processes on one store at once, some of them killed, while readers look at what `current` leads to.
//!
//! Nothing is arranged here: whatever happens at the same time may. Each command must end as it may end by itself or
//! say who is in its way; a reader that has opened `current` must find one version, whole, however long it reads; and
//! when all is over nothing is wrong by the independent checker and nothing is left. `TOPE_STRESS` is the number of
//! seconds, `TOPE_STRESS_SEED` chooses the commands (not what happens between them).

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::support::random::{Random, seed};
use crate::support::{Fixture, Outcome, Ran, tree};

tests![many_processes_at_once_lose_nothing_and_readers_see_whole_versions];

const NAMES: [&str; 6] = ["v1", "v2", "v3", "v4", "v5", "v6"];
/// Files of each version that say which one it is.
const FILES: usize = 40;
const ACTORS: u64 = 5;
const READERS: usize = 2;
/// Milliseconds that a command runs before it is killed, at most.
const LIFE: usize = 40;

/// A command, and how it may end beside 0.
type Act = (&'static [&'static str], &'static [i32]);

/// `NAME` stands for a version that may be there or not. 6: somebody else holds a lock that cannot be waited for.
const ACTS: &[Act] = &[
    (&["import", "NAME", "--version", "NAME"], &[6]),
    (&["import", "NAME", "--version", "NAME"], &[6]),
    (&["import", "NAME", "--version", "NAME"], &[6]),
    (&["import", "NAME.tar", "--version", "NAME"], &[4, 6]),
    (&["activate", "NAME"], &[3, 4, 6]),
    (&["activate", "NAME", "--force"], &[3, 6]),
    (&["activate", "NAME", "--force"], &[3, 6]),
    (&["rollback", "--force"], &[3, 4, 6]),
    (&["rollback", "--to", "NAME", "--force"], &[3, 4, 6]),
    (&["factory", "set", "NAME", "--replace"], &[3, 4, 6]),
    (&["confirm"], &[6]),
    (&["pin", "NAME"], &[3, 6]),
    (&["unpin", "NAME"], &[3, 6]),
    (&["note", "NAME", "a note"], &[3, 6]),
    (&["remove", "NAME"], &[3, 4, 6]),
    (&["gc", "--keep-last", "1"], &[6]),
    (&["gc", "--keep-last", "1"], &[6]),
    (&["rebuild-index"], &[6]),
    (&["verify"], &[]),
    (&["verify", "--quick"], &[]),
    (&["list"], &[]),
    (&["status"], &[]),
    (&["du"], &[6]),
    (&["history"], &[]),
    (&["diff", "NAME", "current"], &[3]),
    (&["find", "**/*.so"], &[]),
];

#[allow(clippy::print_stderr, reason = "what was tried, and a seed that is not told cannot be repeated")]
fn many_processes_at_once_lose_nothing_and_readers_see_whole_versions() -> Outcome {
    let seconds = std::env::var("TOPE_STRESS").map_or(8, |given| given.parse().expect("TOPE_STRESS is a number"));
    let seed = seed("TOPE_STRESS_SEED");
    let fixture = Fixture::new();
    for name in NAMES {
        for file in 0..FILES {
            tree::file(fixture.beside(name).join(format!("lib/{}/{file}.so", file % 7)), format!("{file} of {name}\n"));
            // Most of a release is that of the one before.
            tree::file(fixture.beside(name).join(format!("share/{file}")), format!("{file} of all\n"));
        }
        tree::file(fixture.beside(name).join("version"), name);
        let mut tar = std::process::Command::new("tar");
        tar.args(["--create", "--owner=0", "--group=0", "--file"]).arg(fixture.beside(format!("{name}.tar")));
        assert!(tar.arg("--directory").arg(fixture.beside(name)).arg(".").status().expect("tar runs").success());
    }
    fixture.import("v1", "v1");
    fixture.run(&["activate", "v1"]).ok();
    fixture.run(&["factory", "set", "v1"]).ok();
    let site = Site {
        fixture: &fixture,
        goes_on: AtomicBool::new(true),
        wrong: Mutex::default(),
        commands: AtomicU32::new(0),
        killed: AtomicU32::new(0),
        seen: AtomicU32::new(0),
        dying_switch: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for actor in 0..ACTORS {
            let site = &site;
            scope.spawn(move || site.act(Random(seed.wrapping_add(actor).wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        }
        for _ in 0..READERS {
            scope.spawn(|| site.read());
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && site.wrong.lock().expect("nobody panics").is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        site.goes_on.store(false, Ordering::Relaxed);
    });
    let [commands, killed, seen] =
        [&site.commands, &site.killed, &site.seen].map(|count| count.load(Ordering::Relaxed));
    eprintln!("stress: {commands} commands, {killed} of them killed, {seen} looks, TOPE_STRESS_SEED={seed}");
    let wrong = site.wrong.into_inner().expect("nobody panics");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(commands > 0 && seen > 0);
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    crate::checker::look(&fixture.root()).settled("when all is over");
    fixture.run(&["verify"]).ok();
    let gc = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((&gc["orphan_objects"], &gc["leftovers"]), (&0.into(), &0.into()), "{gc}");
    Ok(())
}

struct Site<'a> {
    fixture: &'a Fixture,
    goes_on: AtomicBool,
    /// What should not have been.
    wrong: Mutex<Vec<String>>,
    commands: AtomicU32,
    killed: AtomicU32,
    seen: AtomicU32,
    /// Held from a switch that is killed until what it did is recorded.
    dying_switch: Mutex<()>,
}

impl Site<'_> {
    fn goes_on(&self) -> bool {
        self.goes_on.load(Ordering::Relaxed)
    }

    fn say(&self, what: String) {
        self.wrong.lock().expect("nobody panics").push(what);
    }

    fn act(&self, mut random: Random) {
        while self.goes_on() {
            let ((words, codes), name) = (random.of(ACTS), random.of(&NAMES));
            let place = self.fixture.beside("").display().to_string();
            let argument = |(at, word): (usize, &&str)| match *word {
                "NAME" if at == 1 && words[0] == "import" => format!("{place}{name}"),
                "NAME.tar" => format!("{place}{name}.tar"),
                "NAME" => name.to_owned(),
                word => word.to_owned(),
            };
            let arguments: Vec<String> = words.iter().enumerate().map(argument).collect();
            let mut command = self.fixture.command();
            command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("the binary runs");
            let dies = random.below(6) == 0;
            // A switch that died leaves links as no history has them, which the next one records; if that died as well,
            // what both left could be damage, and would be called that.
            let switches = dies && ["activate", "rollback"].contains(&words[0]);
            let _alone = switches.then(|| self.dying_switch.lock().expect("nobody panics"));
            if dies {
                std::thread::sleep(Duration::from_millis(random.below(LIFE) as u64));
                child.kill().expect("it can be killed");
            }
            let ran = Ran::of(&child.wait_with_output().expect("it ends"));
            self.commands.fetch_add(1, Ordering::Relaxed);
            if dies && ran.code == -9 {
                self.killed.fetch_add(1, Ordering::Relaxed);
                if switches {
                    let record = || self.fixture.run(&["activate", "current", "--force", "--verify", "none"]).code == 0;
                    while !record() && self.goes_on() {}
                }
            } else if ran.code != 0 && !codes.contains(&ran.code) {
                self.say(format!("{}: {ran:#?}", arguments.join(" ")));
            }
        }
    }

    /// What was opened stays whole: gc leaves alone what somebody has open.
    fn read(&self) {
        let current = self.fixture.path("versions/current");
        while self.goes_on() {
            if let Err(error) = look(&current) {
                self.say(format!("a reader of current: {error}"));
                return;
            }
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Opens a version and reads all of it that says which one it is.
fn look(current: &Path) -> Result<(), String> {
    let open = |at, path: &str, flags| {
        rustix::fs::openat(at, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("{path}: {error}"))
    };
    let top = open(rustix::fs::CWD, current.to_str().expect("plain"), OFlags::DIRECTORY)?;
    let read = |path: &str| {
        let mut text = String::new();
        let file = open(std::os::fd::AsFd::as_fd(&top), path, OFlags::empty())?;
        std::fs::File::from(file).read_to_string(&mut text).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>(text)
    };
    let version = read("version")?;
    for file in 0..FILES {
        let (path, expected) = (format!("lib/{}/{file}.so", file % 7), format!("{file} of {version}\n"));
        match read(&path)? {
            text if text == expected => {}
            text => return Err(format!("{path} of {version}: {text:?}")),
        }
    }
    Ok(())
}
