//! Random sequences of commands, beside a model that keeps the same in memory.
//!
//! After every command the links, the list, the exit code and what was asked are compared with the model; after every
//! sequence the trees file by file, by a checker that shares no code with the store, and what a new index says.
//! `TOPE_MODEL` is the number of sequences, `TOPE_MODEL_SEED` repeats them.

mod world;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use self::world::{End, File, Release, World};
use crate::support::random::{Random, seed};
use crate::support::{Fixture, Outcome, Ran, tree};

tests![random_sequences_of_commands_do_what_a_plain_model_does];

/// Commands of one sequence.
const LENGTH: usize = 50;
const NAMES: [&str; 6] = ["v1.0.0", "v1.1.0", "v1.2.0", "v2.0.0", "v2.0.0-rc.1", "nightly"];
const PATHS: [&str; 6] =
    ["bin/app", "bin/tool", "etc/app.conf", "lib/deep/er/plugin", "lib/plugin", "with space\nand line"];
const CONTENTS: [&str; 4] = ["", "one", "two", "three, which is longer"];

#[allow(clippy::print_stderr, reason = "a seed that is not told cannot be repeated")]
fn random_sequences_of_commands_do_what_a_plain_model_does() -> Outcome {
    let count = std::env::var("TOPE_MODEL").map_or(6, |given| given.parse().expect("TOPE_MODEL is a number"));
    let first = seed("TOPE_MODEL_SEED");
    for number in 0..count {
        let seed = first.wrapping_add(number);
        eprintln!("model: {LENGTH} commands, TOPE_MODEL_SEED={seed}");
        let mut run = Run {
            fixture: Fixture::new(),
            world: World::default(),
            // Neighbouring seeds are to have nothing in common.
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            said: Vec::new(),
        };
        for _ in 0..LENGTH {
            run.step();
            run.compare();
        }
        run.end();
    }
    Ok(())
}

struct Run {
    fixture: Fixture,
    world: World,
    random: Random,
    /// Every command, for who reads a failure.
    said: Vec<String>,
}

impl Run {
    #[track_caller]
    fn command(&mut self, arguments: &[&str], end: End) -> Ran {
        self.said.push(format!("{} # {}", arguments.join(" "), end.code()));
        let ran = self.fixture.run(arguments);
        assert_eq!(ran.code, end.code(), "{ran:#?}\nafter\n{}", self.story());
        ran
    }

    fn story(&self) -> String {
        self.said.join("\n")
    }

    fn any_name(&mut self) -> &'static str {
        self.random.of(&NAMES)
    }

    /// Of a version that is there, most of the time.
    fn likely_name(&mut self) -> String {
        let there: Vec<&String> = self.world.versions.keys().collect();
        match there.is_empty() || self.random.below(8) == 0 {
            true => self.any_name().to_owned(),
            false => self.random.of(&there).clone(),
        }
    }

    fn step(&mut self) {
        let force: &[&str] = if self.random.below(4) == 0 { &["--force"] } else { &[] };
        match self.random.below(21) {
            0..6 => self.import(),
            6..9 => {
                let name = self.likely_name();
                let end = self.world.activate(&name, !force.is_empty());
                self.command(&[&["activate", &name], force].concat(), end);
            }
            9..11 => {
                let end = self.world.rollback(!force.is_empty());
                self.command(&[&["rollback"], force].concat(), end);
            }
            11 => {
                let name = self.likely_name();
                let end = self.world.rollback_to(&name, !force.is_empty());
                self.command(&[&["rollback", "--to", &name], force].concat(), end);
            }
            12 => {
                let name = self.likely_name();
                let name = Some(name.as_str()).filter(|_| force.is_empty());
                let end = self.world.confirm(name);
                self.command(&["confirm"].into_iter().chain(name).collect::<Vec<_>>(), end);
            }
            13 => {
                let name = self.likely_name();
                let replace: &[&str] = if force.is_empty() { &[] } else { &["--replace"] };
                let end = self.world.set_factory(&name, !replace.is_empty());
                self.command(&[&["factory", "set", &name], replace].concat(), end);
            }
            14 => {
                let name = self.likely_name();
                let (verb, end) = match self.random.below(2) {
                    0 => ("pin", self.world.pin(&name)),
                    _ => ("unpin", self.world.unpin(&name)),
                };
                self.command(&[verb, &name], end);
            }
            15 => {
                let name = self.likely_name();
                let end = self.world.remove(&name);
                self.command(&["remove", &name], end);
            }
            16 => {
                let keep_last = 1 + self.random.below(3);
                self.gc(keep_last);
            }
            17 => self.diff(),
            18 => self.cat(),
            19 => self.lose(),
            _ => {
                let ran = self.command(&["verify"], End::Done);
                assert!(ran.stdout.contains("sound: "), "{ran:#?}\nafter\n{}", self.story());
            }
        }
    }

    fn release(&mut self) -> Release {
        let known: Vec<&Release> = self.world.versions.values().map(|(_, release)| release).collect();
        let mut release = match known.is_empty() {
            true => Release::new(),
            false => self.random.of(&known).clone(),
        };
        // Now and then the same as another one.
        for _ in 0..self.random.below(4) {
            let path = self.random.of(&PATHS);
            let file = File { contents: self.random.of(&CONTENTS), is_executable: self.random.below(2) == 0 };
            match self.random.below(4) {
                0 => drop(release.remove(path)),
                _ => drop(release.insert(path, file)),
            }
        }
        release
    }

    fn import(&mut self) {
        let (name, release) = (self.any_name(), self.release());
        let source = format!("source-{}", self.said.len());
        std::fs::create_dir(self.fixture.beside(&source)).expect("a directory");
        for (path, file) in &release {
            let path = self.fixture.beside(&source).join(path);
            match file.is_executable {
                true => tree::program(path, file.contents),
                false => tree::file(path, file.contents),
            }
        }
        let end = self.world.import(name, &release);
        let source = self.fixture.beside(source);
        self.command(&["import", source.to_str().expect("plain"), "--version", name], end);
        std::fs::remove_dir_all(source).expect("the source can be removed");
    }

    fn gc(&mut self, keep_last: usize) {
        let gone = self.world.gc(keep_last);
        let found = self.command(&["--json", "gc", "--keep-last", &keep_last.to_string()], End::Done).json();
        let removed = found["removed"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
        // Nothing is left behind by what was refused, removed or gone back from.
        let found = (Value::Array(removed), &found["orphan_objects"], &found["leftovers"]);
        assert_eq!(found, (json!(gone), &json!(0), &json!(0)), "after\n{}", self.story());
    }

    fn diff(&mut self) {
        let (before, after) = (self.likely_name(), self.likely_name());
        if [&before, &after].into_iter().any(|name| !self.world.versions.contains_key(name)) {
            self.command(&["diff", &before, &after], End::NotFound);
            return;
        }
        let ran = self.command(&["--json", "diff", &before, &after], End::Done);
        let change = |one: &Value| (one["path"].as_str().unwrap().to_owned(), one["kind"].as_str().unwrap().to_owned());
        let found: Vec<_> = ran.json()["changes"].as_array().expect("a list").iter().map(change).collect();
        let expected = self.world.diff(&before, &after).into_iter().map(|(path, kind)| (path, kind.to_owned()));
        assert_eq!(found, expected.collect::<Vec<_>>(), "{before} {after} after\n{}", self.story());
    }

    /// A tree goes by hand, or most trees at once; then a recovery or a repair runs.
    fn lose(&mut self) {
        let all: Vec<String> = self.world.oldest_first().into_iter().cloned().collect();
        let names: Vec<&String> = all.iter().collect();
        let Some(one) = (!all.is_empty()).then(|| self.random.of(&names).clone()) else { return };
        let most = all.len() >= 2 && self.random.below(3) == 0;
        for name in if most { &all[..] } else { std::slice::from_ref(&one) } {
            self.said.push(format!("rm -rf versions/{name}"));
            let top = self.fixture.path("versions").join(name);
            // Directories only: files share their inodes with objects.
            let mut writable = std::process::Command::new("find");
            writable.arg(&top).args(["-type", "d", "-exec", "chmod", "u+w", "{}", "+"]);
            assert!(writable.status().expect("find runs").success());
            std::fs::remove_dir_all(top).expect("the tree can be removed");
        }
        let states = self.fixture.json(&["list"])["versions"].take();
        let lost =
            states.as_array().expect("a list").iter().filter(|version| version["state"] == "missing-tree").count();
        assert_eq!(lost, if most { all.len() } else { 1 }, "after\n{}", self.story());
        let recovery = ["gc", "--keep-last", "99", "--keep-within", "9999d"];
        match most {
            true => drop(self.command(&recovery, End::Refused)),
            false if self.random.below(2) == 0 => {
                let gone = self.world.forget_lost(&one);
                let report = self.command(&[&["--json"], &recovery[..]].concat(), End::Done).json();
                assert_eq!(report["forgotten"], json!(gone), "after\n{}", self.story());
            }
            false => {}
        }
        self.command(&["verify", "--repair"], End::Done);
    }

    fn cat(&mut self) {
        let (name, path) = (self.likely_name(), self.random.of(&PATHS));
        let file = self.world.versions.get(&name).and_then(|(_, release)| release.get(path)).cloned();
        let end = if file.is_some() { End::Done } else { End::NotFound };
        let ran = self.command(&["cat", &name, path], end);
        assert_eq!(ran.stdout, file.map(|file| file.contents).unwrap_or_default(), "after\n{}", self.story());
    }

    /// What is seen from outside.
    fn compare(&self) {
        for (role, version) in
            [("current", &self.world.current), ("previous", &self.world.previous), ("factory", &self.world.factory)]
        {
            let link = self.fixture.path("versions").join(role);
            let target = std::fs::read_link(link).ok().map(|target| target.display().to_string());
            assert_eq!(&target, version, "{role} after\n{}", self.story());
        }
        assert_eq!(self.listed(), self.expected(), "after\n{}", self.story());
    }

    fn listed(&self) -> Vec<Value> {
        let versions = self.fixture.json(&["list"])["versions"].take();
        let fields = ["name", "roles", "state", "pinned", "good", "bad", "was_current", "files"];
        let shown = |version: &Value| fields.into_iter().map(|field| version[field].clone()).collect();
        versions.as_array().expect("a list").iter().map(shown).collect()
    }

    fn expected(&self) -> Vec<Value> {
        let shown = |name: &String| {
            let standing = self.world.standing(name);
            let state = match (standing.bad, standing.good) {
                (true, _) => "bad",
                (false, true) => "good",
                (false, false) => "unconfirmed",
            };
            let files = self.world.versions[name].1.len();
            let (pinned, roles) = (self.world.pins.contains(name), self.world.roles(name));
            json!([name, roles, state, pinned, standing.good, standing.bad, standing.was_current, files])
        };
        self.world.oldest_first().into_iter().map(shown).collect()
    }

    fn end(&mut self) {
        for (name, (_, release)) in &self.world.versions {
            let top = self.fixture.path("versions").join(name);
            let mut found = Vec::new();
            for item in walkdir::WalkDir::new(&top).into_iter().map(|item| item.expect("it can be read")) {
                if item.file_type().is_file() {
                    let path = item.path().strip_prefix(&top).expect("below").to_str().expect("plain").to_owned();
                    let contents = std::fs::read_to_string(item.path()).expect("it can be read");
                    let mode = item.metadata().expect("it is there").permissions().mode();
                    found.push((path, contents, mode & 0o111 != 0));
                }
            }
            found.sort();
            let expected =
                release.iter().map(|(path, file)| ((*path).to_owned(), file.contents.to_owned(), file.is_executable));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{name} after\n{}", self.story());
        }
        crate::checker::look(&self.fixture.root()).settled(&self.story());
        self.command(&["rebuild-index"], End::Done);
        self.compare();
        self.gc(1);
        self.compare();
    }
}
