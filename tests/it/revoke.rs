//! Objects that were found to be damaged: they are not used again before they are made again.
//!
//! The story: bytes of an object were changed in place, and size and time restored. `verify --repair` found no right bytes
//! and marked the versions. The import of a release that had them read them, discarded them, and linked the damaged
//! object, since it looked intact; and that version was activated.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, Ran, needs_program, needs_root, releases, run_as, tree};

tests![
    an_import_with_the_right_bytes_makes_a_damaged_object_again_for_all,
    an_import_that_met_the_object_before_reads_the_bytes_again,
    importing_a_version_again_makes_its_objects_again,
    an_adoption_with_the_right_bytes_makes_a_damaged_object_again,
    whatever_reads_an_object_and_finds_it_damaged_revokes_it,
    a_finding_is_recorded_once_and_lasts_whatever_the_object_looks_like,
    a_repair_never_keeps_the_inode_that_was_found_damaged,
    what_only_looks_wrong_is_not_revoked,
    a_version_with_a_revoked_object_is_not_switched_to,
    files_of_their_own_do_not_suffer_from_a_revoked_object,
    a_new_index_and_a_new_segment_keep_revocations,
    a_revocation_ends_when_the_object_is_swept,
    a_finding_that_cannot_be_recorded_is_said_to_be_so,
    another_user_is_told_that_the_finding_is_lost,
];

static COMMON: [u8; 100_000] = [7; 100_000];

fn object(fixture: &Fixture, contents: &[u8]) -> PathBuf {
    let hex = blake3::hash(contents).to_hex().to_string();
    let dir = fixture.path(format!("store/objects/{}", &hex[..2]));
    let mut found = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    found.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&hex[2..])).unwrap()
}

/// Writes other bytes into a sealed file, and puts back what a look shows.
fn corrupt(path: &Path, bytes: &[u8]) {
    let before = std::fs::metadata(path).unwrap();
    assert_eq!(before.len(), bytes.len() as u64);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
    std::fs::File::open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

fn wrong() -> Vec<u8> {
    let mut bytes = COMMON.to_vec();
    bytes[50_000] ^= 1;
    bytes
}

fn run_json(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    Ran::of(&fixture.command().arg("--json").args(arguments).output().unwrap()).expect(code).json()
}

/// Events of these kinds, oldest first, each with its list of objects in this field.
fn events(fixture: &Fixture, action: &str, field: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(fixture.path("store/history")).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(&line[65..]).unwrap());
    let names = |event: Value| serde_json::from_value(event[field].clone()).unwrap_or_default();
    all.filter(|event| event["action"] == action).map(names).collect()
}

fn cleared(fixture: &Fixture) -> Vec<String> {
    ["repair", "gc"].iter().flat_map(|action| events(fixture, action, "cleared")).flatten().collect()
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

fn name(object: &Path) -> String {
    let mut parts = object.iter().rev().map(|part| part.to_string_lossy().into_owned());
    let (file, fan) = (parts.next().unwrap(), parts.next().unwrap());
    format!("{fan}/{file}")
}

/// Three versions that share a damaged object, which `verify` found.
fn found() -> (Fixture, PathBuf) {
    let fixture = releases(3);
    let object = object(&fixture, &COMMON);
    corrupt(&object, &wrong());
    let document = run_json(&fixture, &["verify"], 5);
    assert_eq!(document["revoked"], json!([format!("store/objects/{}", name(&object))]));
    (fixture, object)
}

/// The object is another inode than it was, whole, and the one that every version has.
#[track_caller]
fn assert_renewed(fixture: &Fixture, object: &Path, before: u64, versions: &[&str]) {
    assert_ne!(inode(object), before);
    for version in versions {
        let path = fixture.path(format!("versions/{version}/lib/common.so"));
        assert_eq!(std::fs::read(&path).unwrap(), COMMON, "{version}");
        assert_eq!(inode(&path), inode(object), "{version}");
    }
    assert_eq!(cleared(fixture), [name(object)]);
    fixture.run(&["verify"]).ok();
    assert_eq!(std::fs::read_dir(fixture.path("store/staging")).unwrap().count(), 0);
    let states = fixture.json(&["list"])["versions"].as_array().unwrap().clone();
    assert!(states.iter().all(|version| version["state"] == "unconfirmed"), "{states:?}");
}

fn an_import_with_the_right_bytes_makes_a_damaged_object_again_for_all() -> Outcome {
    needs_program("tar")?;
    for how in ["cached", "uncached", "tar"] {
        let fixture = releases(3);
        let object = object(&fixture, &COMMON);
        corrupt(&object, &wrong());
        let before = inode(&object);
        let document = run_json(&fixture, &["verify", "--repair"], 5);
        assert_eq!(document["repair"]["marked"], json!(["v1.0.0", "v1.1.0", "v1.2.0"]), "{how}");
        tree::release(fixture.beside("pristine"), 7);
        let mut source = fixture.beside("pristine");
        if how == "tar" {
            source = fixture.beside("pristine.tar");
            let mut tar = std::process::Command::new("tar");
            tar.arg("-cf").arg(&source).arg("-C").arg(fixture.beside("pristine")).arg(".");
            assert!(tar.status().unwrap().success());
        }
        let mut arguments = vec!["import", source.to_str().unwrap(), "--version", "7"];
        arguments.extend((how == "uncached").then_some("--no-cache"));
        let report = run_json(&fixture, &arguments, 0);
        let warnings = report["warnings"].as_array().unwrap();
        assert!(warnings.iter().any(|warning| warning["kind"] == "renewed"), "{how}: {report:#}");
        assert_renewed(&fixture, &object, before, &["v1.0.0", "v1.1.0", "v1.2.0", "v7"]);
        fixture.run(&["activate", "7"]).ok();
        fixture.run(&["activate", "1.0.0"]).ok();
    }
    Ok(())
}

/// The source has not changed since it was read, so that the stat cache may answer for it: with the content, not for the
/// object.
fn an_import_that_met_the_object_before_reads_the_bytes_again() -> Outcome {
    let fixture = releases(1);
    // What changed lately is not remembered.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    fixture.import("source", "2");
    let object = object(&fixture, &COMMON);
    let before = inode(&object);
    corrupt(&object, &wrong());
    run_json(&fixture, &["verify"], 5);
    fixture.import("source", "3");
    assert_renewed(&fixture, &object, before, &["v1.0.0", "v2", "v3"]);
    Ok(())
}

fn importing_a_version_again_makes_its_objects_again() -> Outcome {
    let (fixture, object) = found();
    let before = inode(&object);
    let report = fixture.import("source", "1.2.0");
    assert_eq!(report["already_there"], true);
    assert_renewed(&fixture, &object, before, &["v1.0.0", "v1.1.0", "v1.2.0"]);
    let report = fixture.import("source", "1.2.0");
    assert_eq!(report["warnings"], json!([]), "there is nothing left to do");
    Ok(())
}

fn an_adoption_with_the_right_bytes_makes_a_damaged_object_again() -> Outcome {
    let (fixture, object) = found();
    let before = inode(&object);
    tree::release(fixture.path("versions/v5"), 5);
    fixture.run(&["adopt", "v5"]).ok();
    assert_renewed(&fixture, &object, before, &["v1.0.0", "v1.1.0", "v1.2.0", "v5"]);
    Ok(())
}

fn whatever_reads_an_object_and_finds_it_damaged_revokes_it() -> Outcome {
    let readers: [(&[&str], i32); 7] = [
        (&["verify", "--cached", "1.1.0"], 5),
        (&["cat", "1.1.0", "lib/common.so"], 5),
        (&["diff", "-p", "1.1.0", "OTHER"], 5),
        (&["activate", "1.1.0", "--verify", "full"], 4),
        (&["factory", "set", "1.1.0", "--isolated"], 4),
        (&["factory", "verify"], 5),
        (&["rollback", "--verify", "full"], 0),
    ];
    for (arguments, code) in readers {
        let fixture = releases(2);
        for version in ["1.1.0", "1.0.0"] {
            fixture.run(&["activate", version]).ok();
        }
        fixture.run(&["activate", "1.0.0"]).ok();
        if arguments == ["factory", "verify"] {
            fixture.run(&["factory", "set", "1.0.0"]).ok();
        }
        // Short, so that a difference is shown as text.
        let settings = b"port = 80\n";
        let (object, contents): (_, &[u8]) = match arguments[0] {
            "diff" => (object(&fixture, settings), b"port = 90\n"),
            _ => (object(&fixture, &COMMON), &wrong()),
        };
        corrupt(&object, contents);
        tree::release(fixture.beside("other"), 1);
        tree::file(fixture.beside("other/services/device-api/settings.toml"), "port = 81\n");
        let other = fixture.beside("other").display().to_string();
        let arguments: Vec<&str> =
            arguments.iter().map(|word| if *word == "OTHER" { other.as_str() } else { *word }).collect();
        fixture.run(&arguments).expect(code);
        assert_eq!(events(&fixture, "revoke", "objects"), [[name(&object)]], "{arguments:?}");
    }
    Ok(())
}

fn a_finding_is_recorded_once_and_lasts_whatever_the_object_looks_like() -> Outcome {
    let (fixture, object) = found();
    run_json(&fixture, &["verify"], 5);
    run_json(&fixture, &["verify", "--repair"], 5);
    assert_eq!(events(&fixture, "revoke", "objects"), [[name(&object)]], "the weekly run adds nothing");
    // The right bytes in the old inode: who says that they will be there tomorrow?
    corrupt(&object, &COMMON);
    let document = run_json(&fixture, &["verify"], 5);
    assert_eq!(document["revoked"], json!([]));
    let problems = document["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 4, "the object, and each version that has it: {document:#}");
    assert!(problems.iter().all(|problem| problem["detail"].as_str().unwrap().contains("found damaged")));
    Ok(())
}

fn a_repair_never_keeps_the_inode_that_was_found_damaged() -> Outcome {
    let (fixture, object) = found();
    let before = inode(&object);
    // They can be read again, so that they are what the new inode is made from.
    corrupt(&object, &COMMON);
    let document = run_json(&fixture, &["verify", "--repair"], 0);
    assert_eq!(document["repair"]["remaining"], json!([]));
    assert_renewed(&fixture, &object, before, &["v1.0.0", "v1.1.0", "v1.2.0"]);
    Ok(())
}

/// A mode or a time may be put back, and then the object is what it was.
fn what_only_looks_wrong_is_not_revoked() -> Outcome {
    let fixture = releases(2);
    let object = object(&fixture, &COMMON);
    let before = std::fs::metadata(&object).unwrap();
    std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::File::open(&object).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    for depth in [&["verify"][..], &["verify", "--quick"]] {
        assert_eq!(run_json(&fixture, depth, 5)["revoked"], json!([]));
    }
    std::fs::set_permissions(&object, before.permissions()).unwrap();
    std::fs::File::open(&object).unwrap().set_modified(before.modified().unwrap()).unwrap();
    fixture.run(&["verify"]).ok();
    // With another length no byte has to be read.
    std::fs::OpenOptions::new().append(true).open(&object).and_then(|file| file.set_len(1)).unwrap();
    assert_eq!(run_json(&fixture, &["verify", "--quick"], 5)["revoked"].as_array().unwrap().len(), 1);
    Ok(())
}

fn a_version_with_a_revoked_object_is_not_switched_to() -> Outcome {
    let fixture = releases(4);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    // Only 1.1.0 has it.
    let program = b"#!/bin/sh\necho 1\n";
    let object = object(&fixture, program);
    corrupt(&object, b"#!/bin/sh\necho 9\n");
    run_json(&fixture, &["verify"], 5);
    corrupt(&object, program);
    let refused = run_json(&fixture, &["activate", "1.1.0"], 4);
    assert_eq!(refused["error"]["kind"], "unhealthy");
    assert!(refused["error"]["message"].as_str().unwrap().contains("found damaged"), "{refused}");
    let listed = fixture.json(&["list"]);
    let states: Vec<&Value> = listed["versions"].as_array().unwrap().iter().map(|version| &version["state"]).collect();
    assert_eq!(states, ["unconfirmed", "damaged", "unconfirmed", "unconfirmed"]);
    fixture.run(&["activate", "1.3.0"]).ok();
    fixture.run(&["activate", "1.1.0", "--verify", "none"]).ok();
    assert_eq!(fixture.json(&["status"])["health"]["ok"], false);
    fixture.run(&["activate", "1.3.0"]).ok();
    // Previous leads to it: the next candidate is taken.
    let report = run_json(&fixture, &["rollback"], 0);
    assert_eq!((&report["to"], &report["level"]), (&"v1.0.0".into(), &2.into()), "{report:#}");
    Ok(())
}

fn files_of_their_own_do_not_suffer_from_a_revoked_object() -> Outcome {
    needs_root()?;
    let fixture = releases(2);
    let _thawed = crate::support::Thawed(&fixture);
    fixture.run(&["factory", "set", "1.0.0", "--isolated"]).ok();
    let object = object(&fixture, &COMMON);
    let before = inode(&object);
    corrupt(&object, &wrong());
    run_json(&fixture, &["verify"], 5);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).expect(4);
    run_json(&fixture, &["factory", "verify"], 0);
    // It has the right bytes, too.
    run_json(&fixture, &["verify", "--repair"], 0);
    assert_ne!(inode(&object), before);
    assert_ne!(inode(fixture.path("versions/v1.0.0/lib/common.so")), inode(&object));
    assert_eq!(inode(fixture.path("versions/v1.1.0/lib/common.so")), inode(&object));
    fixture.run(&["verify"]).ok();
    Ok(())
}

fn a_new_index_and_a_new_segment_keep_revocations() -> Outcome {
    let (fixture, object) = found();
    corrupt(&object, &COMMON);
    for _ in 0..12 {
        fixture.run(&["note", "1.0.0", &"x".repeat(100_000)]).ok();
    }
    assert!(fixture.path("store/history.000001").exists());
    std::fs::remove_file(fixture.path("store/index.db")).unwrap();
    fixture.run(&["rebuild-index"]).ok();
    fixture.run(&["activate", "1.1.0"]).expect(4);
    let before = inode(&object);
    fixture.import("source", "3");
    assert_renewed(&fixture, &object, before, &["v1.0.0", "v1.1.0", "v1.2.0", "v3"]);
    Ok(())
}

fn a_revocation_ends_when_the_object_is_swept() -> Outcome {
    for command in [&["gc", "--keep-last", "1"][..], &["remove", "1.1.0"]] {
        let fixture = releases(3);
        let program = b"#!/bin/sh\necho 1\n";
        let object = object(&fixture, program);
        corrupt(&object, b"#!/bin/sh\necho 9\n");
        run_json(&fixture, &["verify"], 5);
        fixture.run(command).ok();
        assert!(!object.exists());
        assert_eq!(cleared(&fixture), [name(&object)]);
        // What is made later is made from its bytes.
        tree::release(fixture.beside("source"), 1);
        fixture.import("source", "4");
        assert_eq!(std::fs::read(&object).unwrap(), program);
        fixture.run(&["verify"]).ok();
        assert_eq!(cleared(&fixture).len(), 1);
    }
    Ok(())
}

fn a_finding_that_cannot_be_recorded_is_said_to_be_so() -> Outcome {
    let image = Image::new(Kind::Ext4, 32)?;
    let fixture = crate::support::with_releases(Fixture::in_dir(image.path("")), 2);
    corrupt(&object(&fixture, &COMMON), &wrong());
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    for _ in 0..2 {
        let document = run_json(&fixture, &["verify"], 5);
        assert_eq!(document["revoked"], json!([]));
        assert!(document["unrecorded"].as_str().unwrap().contains("ead-only file system"), "{document:#}");
        let ran = fixture.run(&["verify"]).expect(5);
        assert!(ran.stderr.contains("could not be recorded"), "{ran:?}");
    }
    image.unmount()?;
    image.mount(&["loop"])?;
    let document = run_json(&fixture, &["verify"], 5);
    assert_eq!((document["revoked"].as_array().unwrap().len(), &document["unrecorded"]), (1, &Value::Null));
    // What is recorded needs no record, whoever finds it again.
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    assert_eq!(run_json(&fixture, &["verify"], 5)["unrecorded"], Value::Null);
    Ok(())
}

fn another_user_is_told_that_the_finding_is_lost() -> Outcome {
    let fixture = releases(1);
    corrupt(&object(&fixture, &COMMON), &wrong());
    let ran = run_as(&fixture, 4711, &["--json", "verify"])?.expect(5);
    let document = ran.json();
    assert!(document["unrecorded"].as_str().unwrap().contains("belongs to user 0"), "{document:#}");
    assert_eq!(events(&fixture, "revoke", "objects"), Vec::<Vec<String>>::new());
    Ok(())
}
