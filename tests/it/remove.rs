//! `remove` and `du`

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{Fixture, Outcome, tree};

tests![
    a_version_goes_and_what_others_share_stays,
    all_go_or_none,
    a_directory_made_by_hand_is_refused_with_advice,
    du_tells_what_a_removal_frees,
    du_counts_each_inode_once_and_shared_ones_as_shared,
    du_tells_what_variants_cost,
];

fn with_versions(fixture: &Fixture, count: u32) {
    for number in 1..=count {
        let source = fixture.beside(format!("source-{number}"));
        tree::release(&source, number);
        tree::file(source.join("lib/own"), vec![b'0' + u8::try_from(number).unwrap(); 50_000 * number as usize]);
        fixture.import(&format!("source-{number}"), &format!("1.{number}.0"));
    }
}

fn usage<'a>(report: &'a Value, version: &str) -> &'a Value {
    report["versions"].as_array().unwrap().iter().find(|usage| usage["name"] == version).unwrap()
}

fn a_version_goes_and_what_others_share_stays() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 3);
    let told = fixture.json(&["remove", "-n", "1.2.0"]);
    assert!(fixture.path("versions/v1.2.0").exists());
    let done = fixture.json(&["remove", "1.2.0", "v1.2.0"]);
    assert_eq!((&done["removed"][0]["name"], &told["freed_bytes"]), (&"v1.2.0".into(), &done["freed_bytes"]));
    assert_eq!((done["removed"].as_array().unwrap().len(), done["kept"].as_array().unwrap().len()), (1, 0));
    assert!(!fixture.path("versions/v1.2.0").exists() && !fixture.path("store/manifests/v1.2.0").exists());
    for kept in [1, 3] {
        let (source, version) = (format!("source-{kept}"), format!("versions/v1.{kept}.0"));
        tree::assert_same(&fixture.beside(source), &fixture.path(version));
    }
    assert_eq!(fixture.json(&["gc", "--keep-last", "9"])["orphan_objects"], 0, "its objects went with it");
    fixture.run(&["remove", "1.2.0"]).expect(3);
    assert_eq!(fixture.import("source-2", "1.2.0")["already_there"], false);
    Ok(())
}

fn all_go_or_none() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 3);
    for role in ["current", "factory"] {
        std::os::unix::fs::symlink("v1.2.0", fixture.path("versions").join(role)).unwrap();
    }
    for arguments in [&["--json", "remove", "1.1.0", "1.2.0", "1.3.0"][..], &["--json", "remove", "-n", "1.2.0"]] {
        let error = fixture.run(arguments).expect(4).json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["kind"], "protected");
        assert!(message.contains("v1.2.0 is current, is factory") && !message.contains("v1.1.0"), "{message}");
    }
    fixture.run(&["remove", "1.1.0", "1.9.0"]).expect(3);
    assert_eq!(fixture.json(&["du"])["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn a_directory_made_by_hand_is_refused_with_advice() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.path("versions/v1.0.0"), 1);
    let ran = fixture.run(&["remove", "1.0.0"]).expect(4);
    assert!(ran.stderr.contains("adopt v1.0.0") && ran.stderr.contains("rm -r"), "{ran:?}");
    assert!(fixture.path("versions/v1.0.0/bin/device-api").exists());
    Ok(())
}

fn du_tells_what_a_removal_frees() -> Outcome {
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"lib/lock\", \"services/web-server/*\"]\n").unwrap();
    with_versions(&fixture, 3);
    tree::file(fixture.path(format!("store/objects/ab/{}.0444.0.0", "cd".repeat(31))), vec![1; 20_000]);
    for version in ["v1.2.0", "v1.1.0", "v1.3.0"] {
        let told = usage(&fixture.json(&["du", version]), version)["freed_if_removed_bytes"].clone();
        assert!(told.as_u64().unwrap() > 50_000);
        assert_eq!(fixture.json(&["remove", version])["freed_bytes"], told, "{version}");
    }
    let store = &fixture.json(&["du"])["store"];
    assert_eq!(
        (&store["versions"], &store["stored_bytes"], &store["orphan_objects"]),
        (&0.into(), &0.into(), &1.into())
    );
    Ok(())
}

fn du_counts_each_inode_once_and_shared_ones_as_shared() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    let report = fixture.json(&["du"]);
    let bytes = |usage: &Value, field: &str| usage[field].as_u64().unwrap();
    let mut manifests = 0;
    let (mut unique, mut total) = (0, 0);
    for version in ["v1.1.0", "v1.2.0"] {
        let usage = usage(&report, version);
        let manifest = std::fs::metadata(fixture.path("store/manifests").join(version)).unwrap().blocks() * 512;
        let tree = walkdir::WalkDir::new(fixture.path("versions").join(version));
        let tree: u64 = tree.into_iter().map(|item| item.unwrap().metadata().unwrap().blocks() * 512).sum();
        assert_eq!(bytes(usage, "total_bytes"), tree + manifest);
        assert_eq!(bytes(usage, "unique_bytes") + bytes(usage, "shared_bytes"), bytes(usage, "total_bytes"));
        assert_eq!(bytes(usage, "unique_bytes"), bytes(usage, "freed_if_removed_bytes"));
        assert!(bytes(usage, "shared_bytes") >= 100_000);
        manifests += manifest;
        unique += bytes(usage, "unique_bytes");
        total += bytes(usage, "total_bytes");
    }
    assert!(manifests > 0);
    let store = &report["store"];
    let shared = bytes(usage(&report, "v1.1.0"), "shared_bytes");
    assert_eq!((bytes(store, "unshared_bytes"), bytes(store, "stored_bytes")), (total, unique + shared));
    fixture.run(&["du", "1.9.0"]).expect(3);
    let text = fixture.run(&["du"]).ok().stdout;
    assert!(text.starts_with("version") && text.contains("2 versions in "), "{text}");
    Ok(())
}

fn du_tells_what_variants_cost() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::file(source.join("a"), vec![5; 100_000]);
    tree::program(source.join("b"), vec![5; 100_000]);
    tree::file(source.join("c"), vec![6; 100_000]);
    fixture.import("source", "1.0.0");
    let store = &fixture.json(&["du"])["store"];
    assert_eq!((&store["objects"], &store["variant_objects"]), (&3.into(), &1.into()));
    assert_eq!(store["variant_bytes"], 100_000_u64.next_multiple_of(4096));
    Ok(())
}
