//! Manifests of the future: a build that is too old for one says so, and leaves it as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tope_store::model::{Extensions, Manifest};

use crate::support::{Fixture, Outcome, releases};

tests![
    a_manifest_of_another_format_is_newer_and_is_left_alone,
    a_critical_extension_makes_a_manifest_newer,
    an_extension_that_may_be_ignored_outlives_a_repair,
];

fn manifest(fixture: &Fixture) -> PathBuf {
    fixture.path("store/manifests/v1.0.0")
}

fn with_code(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    let json = [&["--json"], arguments].concat();
    fixture.run(&json).expect(code).json()
}

/// Every command that meets it says that this binary is too old, and nothing changes it.
fn is_newer(fixture: &Fixture) {
    let before = std::fs::read(manifest(fixture)).unwrap();
    let listed = fixture.json(&["list"]);
    assert_eq!(
        (&listed["versions"][0]["state"], &listed["versions"][1]["state"]),
        (&"newer".into(), &"unconfirmed".into())
    );
    assert_eq!(fixture.json(&["show", "1.0.0"])["state"], "newer");
    for verify in [&["verify"][..], &["verify", "--repair"], &["verify", "1.0.0", "--repair"]] {
        let verified = with_code(fixture, verify, 9);
        let problem = &verified["problems"][0];
        assert_eq!((&problem["kind"], &problem["damage"]), (&"newer".into(), &false.into()), "{verified:#}");
        assert_eq!(verified["ok"], true);
    }
    let doctor = with_code(fixture, &["doctor", "--fix"], 1);
    let kinds = doctor["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]);
    assert!(kinds.clone().any(|kind| kind == "newer") && !kinds.clone().any(|kind| kind == "manifest"), "{doctor:#}");
    for refused in [&["gc", "--keep-last", "1"][..], &["remove", "1.1.0"], &["remove", "1.0.0"]] {
        assert_eq!(with_code(fixture, refused, 4)["error"]["kind"], "doubt");
    }
    for refused in [&["ls", "1.0.0"][..], &["diff", "1.0.0", "1.1.0"], &["activate", "1.0.0"]] {
        let error = &with_code(fixture, refused, 9)["error"];
        assert_eq!(error["kind"], "newer");
        assert!(error["message"].as_str().unwrap().contains("this binary is too old for the manifest"), "{error:#}");
    }
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback", "--to", "1.0.0", "--not-bad"]).ok();
    let status = fixture.json(&["status"]);
    assert_eq!((&status["current"]["version"], &status["health"]["newer"]), (&"v1.0.0".into(), &true.into()));
    fixture.run(&["rebuild-index"]).ok();
    assert_eq!(std::fs::read(manifest(fixture)).unwrap(), before);
}

fn a_manifest_of_another_format_is_newer_and_is_left_alone() -> Outcome {
    let fixture = releases(2);
    let written = std::fs::read(manifest(&fixture)).unwrap();
    let mut newer = written.clone();
    newer[8] = 2;
    std::fs::write(manifest(&fixture), &newer).unwrap();
    is_newer(&fixture);
    // For the build that knows it, nothing was lost.
    std::fs::write(manifest(&fixture), written).unwrap();
    fixture.run(&["verify"]).ok();
    Ok(())
}

fn a_critical_extension_makes_a_manifest_newer() -> Outcome {
    let fixture = releases(2);
    let file = std::fs::read(manifest(&fixture)).unwrap();
    let mut body = Manifest::decode(&file).unwrap().encode_body();
    let name = 2 + "v1.0.0".len();
    body.splice(name..name + 4, [1, 0, 0, 0, 1, 0]);
    let end = body.len() - 4;
    body.splice(end.., [1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let mut newer = file[..12].to_vec();
    newer.extend_from_slice(&(body.len() as u64).to_le_bytes());
    newer.extend_from_slice(&blake3::derive_key("tope-store 2026-11 manifest v1", &body));
    newer.extend_from_slice(&zstd::bulk::compress(&body, 1).unwrap());
    std::fs::write(manifest(&fixture), newer).unwrap();
    is_newer(&fixture);
    Ok(())
}

fn an_extension_that_may_be_ignored_outlives_a_repair() -> Outcome {
    let fixture = releases(2);
    let mut extended = Manifest::decode(&std::fs::read(manifest(&fixture)).unwrap()).unwrap();
    extended.extensions = Extensions::new(BTreeMap::from([(2, b"a verity digest".to_vec()), (0x9000, Vec::new())]));
    std::fs::write(manifest(&fixture), extended.encode()).unwrap();
    fixture.run(&["list"]).ok();
    let mut damaged = extended.encode();
    damaged.truncate(100);
    std::fs::write(manifest(&fixture), damaged).unwrap();
    fixture.run(&["verify", "--repair"]).ok();
    let repaired = Manifest::decode(&std::fs::read(manifest(&fixture)).unwrap()).unwrap();
    assert_eq!((repaired.extensions, repaired.facts.anchor), (extended.extensions, extended.facts.anchor));
    Ok(())
}
