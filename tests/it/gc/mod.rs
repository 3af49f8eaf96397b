//! `gc`

mod bytes;
mod died;
mod overlay;
mod rules;
mod used;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tope_store::layout::Layout;
use tope_store::model::VersionName;
use tope_store::store::{Settings, Store};

use crate::support::{Fixture, tree};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [bytes::tests(), died::tests(), overlay::tests(), rules::tests(), used::tests()].into_iter().flatten().collect()
}

/// A store with versions 1.1.0, 1.2.0 … 1.N.0; each has 100 kB of its own and shares 100 kB.
fn with_versions(fixture: &Fixture, count: u32) {
    for number in 1..=count {
        let source = fixture.beside(format!("source-{number}"));
        tree::release(&source, number);
        tree::file(source.join("lib/own"), vec![b'0' + u8::try_from(number).unwrap(); 100_000]);
        fixture.import(&format!("source-{number}"), &format!("1.{number}.0"));
    }
}

fn store(fixture: &Fixture) -> Store {
    Store::open(Layout::new(fixture.root(), None), Settings::default()).unwrap()
}

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn current(fixture: &Fixture, version: &str) {
    let link = fixture.path("versions/current");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(version, link).unwrap();
}

/// Names with their reasons, in order.
fn decided(document: &Value, field: &str) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = document[field].as_array().unwrap().iter();
    all.map(|item| (text(&item["name"]), item["reasons"].as_array().unwrap().iter().map(text).collect())).collect()
}

fn names(document: &Value, field: &str) -> Vec<String> {
    decided(document, field).into_iter().map(|(name, _)| name).collect()
}

fn versions(fixture: &Fixture) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixture.path("versions"))
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn entries(path: PathBuf) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A release whose program can be run, as the version 1.9.0.
fn with_program(fixture: &Fixture) -> PathBuf {
    let source = fixture.beside("source-program");
    tree::program(source.join("bin/sleep"), std::fs::read("/bin/sleep").unwrap());
    tree::file(source.join("data"), vec![9; 50_000]);
    fixture.import("source-program", "1.9.0");
    fixture.path("versions/v1.9.0")
}

fn sleeping(program: &Path, works_in: &Path) -> Running {
    let child = Command::new(program).arg("600").current_dir(works_in).stdout(Stdio::null()).spawn().unwrap();
    // Until it was replaced by the program its links show the parent's.
    let start = Instant::now();
    while std::fs::read_link(format!("/proc/{}/exe", child.id()))
        .is_ok_and(|exe| exe.file_name() != program.file_name())
    {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    Running(child)
}
