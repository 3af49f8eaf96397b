//! Prepared stores, made once and copied for every point, and the operations that are tried on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::trace::{self, Fate};
use crate::checker;
use crate::support::{Fixture, Ran, tree};

/// What an operation begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Sources and no store.
    Bare,
    /// An empty store.
    Empty,
    /// Six versions, roles, shared and private paths, a tree made by hand.
    Full,
    /// The same, with a history whose segment is full.
    Long,
    /// The same as full, where an import and a removal died.
    Broken,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    pub base: Base,
    pub arguments: &'static [&'static str],
    /// Versions that may come or go.
    pub changing: &'static [&'static str],
    /// What `current` may lead to meanwhile.
    pub current: &'static [&'static str],
    /// A role that an interruption may leave otherwise: what it leads to is found after the switch, for convenience.
    pub loose: Option<&'static str>,
    /// Exit codes of a second run after one that had its effect.
    pub again: &'static [i32],
}

const fn operation(name: &'static str, base: Base, arguments: &'static [&'static str]) -> Operation {
    Operation { name, base, arguments, changing: &[], current: &["v1.2.0"], loose: None, again: &[0] }
}

/// All of them.
pub const ALL: &[Operation] = &[
    Operation { current: &[], ..operation("init", Base::Bare, &["init"]) },
    Operation {
        changing: &["v1.4.0"],
        current: &[],
        ..operation("import-first", Base::Empty, &["import", "next", "--version", "1.4.0"])
    },
    Operation { changing: &["v1.4.0"], ..operation("import", Base::Full, &["import", "next", "--version", "1.4.0"]) },
    Operation {
        changing: &["v1.4.0"],
        ..operation("import-tar", Base::Full, &["import", "next.tar", "--version", "1.4.0"])
    },
    Operation {
        changing: &["v1.4.0"],
        current: &["v1.2.0", "v1.4.0"],
        ..operation("import-activate", Base::Full, &["import", "next", "--version", "1.4.0", "--activate"])
    },
    Operation { changing: &["v0.9.0"], ..operation("adopt", Base::Full, &["adopt", "v0.9.0"]) },
    Operation { current: &["v1.2.0", "v1.3.0"], ..operation("activate", Base::Full, &["activate", "1.3.0"]) },
    Operation {
        current: &["v1.2.0", "v1.1.0"],
        loose: Some("previous"),
        ..operation("rollback", Base::Full, &["rollback"])
    },
    Operation {
        current: &["v1.2.0", "v1.0.0"],
        loose: Some("previous"),
        ..operation("rollback-factory", Base::Full, &["rollback", "--to", "factory"])
    },
    operation("factory-set", Base::Full, &["factory", "set", "1.3.0", "--replace"]),
    operation("factory-isolated", Base::Full, &["factory", "set", "1.3.0", "--replace", "--isolated"]),
    Operation { changing: &["v1.0.1", "v1.0.2"], ..operation("gc", Base::Full, &["gc", "--keep-last", "1"]) },
    Operation { changing: &["v1.0.1"], again: &[0, 3], ..operation("remove", Base::Full, &["remove", "1.0.1"]) },
    operation("rebuild-index", Base::Full, &["rebuild-index"]),
    operation("pin", Base::Full, &["pin", "1.0.1"]),
    operation("note", Base::Full, &["note", "1.0.1", "seen"]),
    operation("confirm", Base::Full, &["confirm", "1.2.0"]),
    operation("link", Base::Full, &["link", "--bin-dir", "bin"]),
    operation("history-segment", Base::Long, &["note", "1.0.1", "seen"]),
    Operation { changing: &["v1.4.0", "v1.0.1"], ..operation("heal", Base::Broken, HEAL) },
    Operation {
        changing: &["v1.4.0", "v1.0.1"],
        ..operation("heal-by-import", Base::Broken, &["import", "next", "--version", "1.4.0"])
    },
];

/// What heals: an ordinary command that removes nothing, not even a version marked bad.
pub const HEAL: &[&str] = &["gc", "--keep-last", "99", "--keep-within", "9999d"];

/// Versions of a full store.
pub const VERSIONS: [&str; 6] = ["v1.0.0", "v1.0.1", "v1.0.2", "v1.1.0", "v1.2.0", "v1.3.0"];

/// A directory that is gone when this is; in memory where that can be had, since thousands of stores are made.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = |place: &Path| tempfile::Builder::new().prefix("tope-").tempdir_in(place);
    builder(memory).or_else(|_| builder(&std::env::temp_dir())).expect("a temporary directory")
}

/// A small release; every second file is the same in all.
pub fn release(top: &Path, number: u32) {
    let _ = std::fs::remove_dir_all(top);
    tree::program(top.join("bin/api"), format!("#!/bin/sh\necho {number}\n"));
    tree::file(top.join("lib/common"), "the same in all");
    tree::file(top.join("lib/own"), format!("{number}").repeat(3000));
    tree::file(top.join("lib/lock"), "");
    tree::file(top.join("services/api/data/db"), "pristine");
    tree::file(top.join("services/api/state/s"), "state");
    std::os::unix::fs::symlink("common", top.join("lib/link")).expect("a link");
}

fn import(fixture: &Fixture, version: &str, number: u32) {
    release(&fixture.beside("source"), number);
    fixture.import("source", version);
}

/// Makes what an operation begins with.
pub fn prepare(dir: &Path, base: Base) {
    let fixture = Fixture::at(dir);
    std::fs::write(
        fixture.config(),
        "[import]\nprivate = [\"services/*/data/**\"]\nshared = [\"services/*/state\"]\nmin_free = \"0\"\n",
    )
    .expect("a configuration");
    release(&fixture.beside("next"), 7);
    let tar = Command::new("tar").current_dir(dir).args(["-cf", "next.tar", "-C", "next", "."]).status();
    assert!(tar.expect("tar runs").success());
    std::fs::create_dir(fixture.beside("bin")).expect("a directory");
    if base == Base::Bare {
        return;
    }
    fixture.run(&["init"]).ok();
    if base == Base::Empty {
        return;
    }
    for (version, number) in VERSIONS.into_iter().zip(0..) {
        import(&fixture, version, number);
    }
    release(&fixture.path("versions/v0.9.0"), 8);
    for version in ["v1.1.0", "v1.2.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    match base {
        Base::Long => {
            for _ in 0..11 {
                fixture.run(&["note", "1.0.1", &"x".repeat(100_000)]).ok();
            }
        }
        Base::Broken => {
            killed(dir, &["import", "next", "--version", "1.4.0"], |call| {
                call.name == "rename" && call.path.ends_with("versions/v1.4.0")
            });
            killed(dir, &["remove", "1.0.1"], |call| call.name == "unlink" && call.path.contains("/manifests/"));
        }
        _ => {}
    }
}

/// Runs a command that dies before the first call of a kind.
pub fn killed(dir: &Path, arguments: &[&str], at: impl Fn(&trace::Call) -> bool) {
    let decide = &mut |call: &trace::Call| if at(call) { Fate::Killed } else { Fate::Happens };
    let ran = trace::run(&mut command(dir, arguments), dir, decide);
    assert_eq!(ran.code, -9, "{ran:#?}");
}

/// The command in a scene.
pub fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Fixture::at(dir).command();
    command.current_dir(dir).args(["--jobs", "1"]).args(arguments).stdin(Stdio::null());
    command
}

/// Runs the command in a scene.
pub fn ran(dir: &Path, arguments: &[&str]) -> Ran {
    Ran::of(&command(dir, arguments).output().expect("the binary runs"))
}

/// A prepared store of its own for every point.
pub struct Scenes {
    temporary: tempfile::TempDir,
    base: OnceLock<PathBuf>,
}

impl Scenes {
    pub fn new(base: Base) -> Self {
        let scenes = Self { temporary: temporary(), base: OnceLock::new() };
        let dir = scenes.temporary.path().join("base");
        std::fs::create_dir(&dir).expect("a directory");
        prepare(&dir, base);
        scenes.base.set(dir).expect("it is set once");
        scenes
    }

    /// A copy of the prepared one, under a name.
    pub fn copy(&self, name: &str) -> PathBuf {
        copy(self.base.get().expect("it is prepared"), &self.temporary.path().join(name))
    }
}

/// Copies a scene with its hardlinks and times.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    discard(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success(), "{} could not be copied", from.display());
    to.to_owned()
}

/// Removes a scene, immutable files and all.
pub fn discard(dir: &Path) {
    if std::fs::remove_dir_all(dir).is_err() && dir.exists() {
        let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(dir).output();
        std::fs::remove_dir_all(dir).expect("it can be removed");
    }
}

impl End {
    /// The same, whatever it takes.
    pub fn without_bytes(&self) -> String {
        format!("{:?} {:?} {:?} {:?} {:?}", self.versions, self.roles, self.unmanaged, self.objects, self.links)
    }
}

/// What links and manifests say at once, before anybody heals.
#[derive(Debug, PartialEq, Eq)]
pub struct Roles {
    roles: std::collections::BTreeMap<&'static str, String>,
    versions: std::collections::BTreeMap<String, String>,
}

impl Roles {
    pub fn of(dir: &Path) -> Self {
        let seen = checker::look(&dir.join("root"));
        Self { roles: seen.roles, versions: seen.versions }
    }

    pub fn current(&self) -> Option<&String> {
        self.roles.get("current")
    }
}

/// What a store comes to, when all is done.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    versions: std::collections::BTreeMap<String, String>,
    roles: std::collections::BTreeMap<&'static str, String>,
    unmanaged: std::collections::BTreeSet<String>,
    objects: Vec<String>,
    bytes: u64,
    links: Vec<String>,
}

impl End {
    /// Of a store in which nothing may be wrong and nothing left. One role may be left out.
    #[track_caller]
    pub fn of(dir: &Path, loose: Option<&str>, when: &str) -> Self {
        let mut seen = checker::look(&dir.join("root")).settled(when);
        assert_eq!(seen.torn, None, "{when}");
        if let Some(role) = loose {
            seen.roles.remove(role);
        }
        let objects = walkdir::WalkDir::new(dir.join("root/store/objects")).sort_by_file_name();
        let objects = objects.into_iter().map(|item| item.expect("readable").path().display().to_string());
        let below = |path: String| path.split("/objects/").nth(1).unwrap_or_default().to_owned();
        let links = ["bin", "root/services"].map(|place| {
            let items = walkdir::WalkDir::new(dir.join(place)).sort_by_file_name().into_iter().filter_map(Result::ok);
            items.map(|item| item.path().strip_prefix(dir).expect("below").display().to_string()).collect::<Vec<_>>()
        });
        Self {
            versions: seen.versions,
            roles: seen.roles,
            unmanaged: seen.unmanaged,
            objects: objects.map(below).filter(|path| path.contains('/')).collect(),
            // Blocks of a file system that copies on write come and go with its transactions.
            bytes: if is_btrfs(dir) { 0 } else { seen.bytes },
            links: links.concat(),
        }
    }
}

fn is_btrfs(dir: &Path) -> bool {
    // BTRFS_SUPER_MAGIC, by statfs(2).
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == 0x9123_683e)
}
