//! `verify --repair`: what is damaged is mended from good bytes, in every version that has it, or said to be lost.

mod bytes;
mod told;
mod whole;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Fixture, Ran, tree};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [bytes::tests(), told::tests(), whole::tests()].into_iter().flatten().collect()
}

fn run(fixture: &Fixture, arguments: &[&str]) -> Ran {
    Ran::of(&fixture.command().args(["--json", "verify", "--repair"]).args(arguments).output().unwrap())
}

fn repair(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let document = run(fixture, arguments).expect(code).json();
    // Whatever could be mended is, and a second run finds nothing else to do.
    let again = run(fixture, arguments).expect(code).json();
    assert_eq!(again["repair"]["mended"], serde_json::json!([]), "{document:#}");
    assert_eq!(again["repair"]["remaining"], document["repair"]["remaining"]);
    document
}

fn list(document: &Value, name: &str) -> Vec<String> {
    let all = document["repair"][name].as_array().unwrap().iter();
    all.map(|item| {
        let text = |field: &str| item[field].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {}",
            if item["how"].is_null() { text("kind") } else { text("how") },
            text("version"),
            text("path")
        )
    })
    .collect()
}

#[track_caller]
fn assert_sound(fixture: &Fixture) {
    let ran = fixture.run(&["verify"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(std::fs::read_dir(fixture.path("store/staging")).unwrap().count(), 0);
}

/// Changes a sealed file in place.
fn overwrite(path: &Path, bytes: &[u8], keep_time: bool) {
    let before = std::fs::metadata(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
    if keep_time {
        std::fs::File::open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    }
}

fn objects_of(fixture: &Fixture, contents: &[u8]) -> Vec<PathBuf> {
    let hex = blake3::hash(contents).to_hex().to_string();
    let dir = fixture.path(format!("store/objects/{}", &hex[..2]));
    let items = std::fs::read_dir(dir).into_iter().flatten().map(|item| item.unwrap().path());
    items.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&hex[2..])).collect()
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

static COMMON: [u8; 100_000] = [7; 100_000];

/// A store whose `lib/common.so` exists in another mode too, as `bin/common`.
fn with_another_mode() -> Fixture {
    let fixture = Fixture::new();
    tree::release(fixture.beside("one"), 1);
    tree::release(fixture.beside("two"), 2);
    tree::program(fixture.beside("two/bin/common"), COMMON);
    fixture.import("one", "1.0.0");
    fixture.import("two", "1.1.0");
    fixture
}
