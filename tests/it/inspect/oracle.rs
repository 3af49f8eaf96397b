//! `diff` against two programs that know nothing of this store: `git diff --no-index` and `diff -rq`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Fixture, Outcome, Skipped, needs_program};

tests![real_trees_differ_in_what_others_see_as_well];

/// Trees that most machines have.
const REAL: [&str; 4] = ["/usr/lib/python3.11", "/usr/lib/python3.12", "/usr/lib/python3.13", "/usr/share/perl"];
/// Files that are taken of them.
const MOST_FILES: usize = 1500;

fn real_tree() -> Result<PathBuf, Skipped> {
    let found = REAL.iter().map(PathBuf::from).find(|path| path.is_dir());
    found.ok_or_else(|| Skipped(format!("needs one of {REAL:?}")))
}

fn copy(from: &Path, to: &Path) {
    let mut files = 0;
    for item in walkdir::WalkDir::new(from).sort_by_file_name() {
        let item = item.unwrap();
        let target = to.join(item.path().strip_prefix(from).unwrap());
        if item.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else if item.file_type().is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(item.path()).unwrap(), &target).unwrap();
        } else if item.file_type().is_file() {
            std::fs::copy(item.path(), &target).unwrap();
            files += 1;
        }
        if files == MOST_FILES {
            break;
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Changes a tree in some hundred ways.
fn mutate(top: &Path, seed: u64) {
    let mut numbers = Numbers(seed);
    let all: Vec<PathBuf> = walkdir::WalkDir::new(top)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .map(|item| item.unwrap().into_path())
        .collect();
    let directories: Vec<&PathBuf> = all.iter().filter(|path| path.is_dir()).collect();
    for step in 0..150 {
        let path = &all[numbers.below(all.len())];
        let directory = directories[numbers.below(directories.len())];
        if !directory.is_dir() || std::fs::symlink_metadata(path).is_err() {
            continue;
        }
        let regular = std::fs::symlink_metadata(path).unwrap().is_file();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        match numbers.below(12) {
            0 => std::fs::write(directory.join(format!("new-{step}")), format!("new {step}\n")).unwrap(),
            1 => std::fs::create_dir(directory.join(format!("empty-{step}"))).unwrap(),
            2 => std::os::unix::fs::symlink("nowhere", directory.join(format!("link-{step}"))).unwrap(),
            3 if regular => std::fs::remove_file(path).unwrap(),
            4 if regular => {
                let mut bytes = std::fs::read(path).unwrap();
                bytes.push(b'\n');
                std::fs::write(path, bytes).unwrap();
            }
            5 if regular => {
                // The same size.
                let mut bytes = std::fs::read(path).unwrap();
                if let Some(byte) = bytes.first_mut() {
                    *byte ^= 1;
                }
                std::fs::write(path, bytes).unwrap();
            }
            6 if regular => mode(path, 0o755),
            7 if regular => mode(path, 0o600),
            8 if regular => {
                std::fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("became-a-link", path).unwrap();
            }
            9 if regular => {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
                std::fs::write(path.join("inside"), "x").unwrap();
            }
            10 if regular => std::fs::rename(path, directory.join(format!("moved-{step}"))).unwrap(),
            11 if path.is_dir() && numbers.below(4) == 0 => {
                std::fs::remove_dir_all(path).unwrap();
                std::fs::write(path, "was a directory").unwrap();
            }
            _ => {}
        }
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// What git sees of our changes: no directories, and of modes only whether a file is executable.
fn as_git_sees(changes: &[Value]) -> BTreeMap<String, char> {
    let mut seen = BTreeMap::new();
    for change in changes {
        let side = |side: &str| (text(&change[side], "kind").to_owned(), text(&change[side], "mode").to_owned());
        let (before, after) = (side("before"), side("after"));
        let executable = |mode: &str| u32::from_str_radix(mode, 8).unwrap() & 0o100 != 0;
        let letter = match (text(change, "kind"), &*before.0, &*after.0) {
            ("added", _, "directory") | ("removed", "directory", _) | ("metadata", "directory", _) => None,
            ("added", ..) => Some('A'),
            ("removed", ..) => Some('D'),
            ("modified", ..) => Some('M'),
            ("metadata", ..) => (executable(&before.1) != executable(&after.1)).then_some('M'),
            ("type", "directory", _) => Some('A'),
            ("type", _, "directory") => Some('D'),
            ("type", ..) => Some('T'),
            other => panic!("{other:?}"),
        };
        if let Some(letter) = letter {
            assert_eq!(seen.insert(text(change, "path").to_owned(), letter), None);
        }
    }
    seen
}

fn git(dir: &Path) -> BTreeMap<String, char> {
    let arguments = ["diff", "--no-index", "--no-renames", "--name-status", "-z", "a", "b"];
    let output = Command::new("git").args(arguments).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.split_terminator('\0');
    let mut seen = BTreeMap::new();
    while let (Some(letter), Some(path)) = (parts.next(), parts.next()) {
        let path = path.split_once('/').expect("below a or b").1;
        seen.insert(path.to_owned(), letter.chars().next().unwrap());
    }
    seen
}

/// Paths that differ in kind or content, and the topmost paths that only one side has, as `diff -rq` tells them.
fn diff(dir: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut command = Command::new("diff");
    let output =
        command.args(["-rq", "--no-dereference", "a", "b"]).env("LC_ALL", "C").current_dir(dir).output().unwrap();
    let (mut differ, mut only) = (BTreeSet::new(), BTreeSet::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some(rest) = line.strip_prefix("Only in ") {
            let (directory, name) = rest.split_once(": ").unwrap();
            let path = format!("{directory}/{name}");
            only.insert(path.split_once('/').unwrap().1.to_owned());
        } else {
            let word = line.split(' ').find(|word| word.starts_with("a/")).unwrap();
            differ.insert(word[2..].to_owned());
        }
    }
    (differ, only)
}

fn real_trees_differ_in_what_others_see_as_well() -> Outcome {
    needs_program("git")?;
    needs_program("diff")?;
    let real = real_tree()?;
    let fixture = Fixture::new();
    copy(&real, &fixture.beside("a"));
    fixture.import("a", "1");
    for seed in 1..=4 {
        let b = fixture.beside("b");
        let _ = std::fs::remove_dir_all(&b);
        let copied = Command::new("cp").arg("-a").arg(fixture.beside("a")).arg(&b).status().unwrap();
        assert!(copied.success());
        mutate(&b, seed);
        let from_directory = fixture.json(&["diff", "1", b.to_str().unwrap()]);
        fixture.import("b", &format!("2.{seed}"));
        let document = fixture.json(&["diff", "1", &format!("2.{seed}")]);
        assert_eq!(document["changes"], from_directory["changes"], "a version and its source are the same");
        let changes = document["changes"].as_array().unwrap();
        assert!(changes.len() > 50, "the trees were hardly changed: {}", changes.len());
        assert_eq!(as_git_sees(changes), git(&fixture.dir), "seed {seed}");

        let (differ, only) = diff(&fixture.dir);
        let of_kind = |kinds: &[&str]| {
            let found = changes.iter().filter(|change| kinds.contains(&text(change, "kind")));
            found.map(|change| text(change, "path").to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(of_kind(&["modified", "type"]), differ, "seed {seed}");
        let (one_sided, changed) = (of_kind(&["added", "removed"]), of_kind(&["type"]));
        let topmost = one_sided.iter().filter(|path| {
            let parent = path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            parent.is_none_or(|parent| !one_sided.contains(&parent) && !changed.contains(&parent))
        });
        assert_eq!(topmost.cloned().collect::<BTreeSet<_>>(), only, "seed {seed}");

        let renamed = fixture.json(&["diff", "-M", "1", &format!("2.{seed}")]);
        for change in renamed["changes"].as_array().unwrap().iter().filter(|change| change["kind"] == "renamed") {
            let (from, to) = (fixture.beside("a").join(text(change, "from_path")), b.join(text(change, "path")));
            assert_eq!(std::fs::read(from).unwrap(), std::fs::read(to).unwrap(), "{change}");
        }
        let all = |summary: &Value| summary["total"].as_u64().unwrap() + summary["renamed"].as_u64().unwrap();
        assert_eq!(all(&renamed["summary"]), all(&document["summary"]), "a rename stands for two changes");
    }
    Ok(())
}
