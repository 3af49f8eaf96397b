//! The checker itself: a sound store is sound, and each kind of damage is seen.

use std::path::Path;

use super::look;
use super::manifest::decode_body;
use crate::support::{Fixture, Outcome, tree};

tests![
    a_sound_store_is_sound,
    each_kind_of_damage_is_seen,
    a_torn_end_of_the_history_is_told_apart,
    the_published_vector_decodes,
    events_that_are_not_understood_are_told_apart,
];

/// Three releases, roles, a service's paths.
fn store() -> Fixture {
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"lib/own\"]\nshared = [\"services/*/settings.toml\"]\n")
        .unwrap();
    for number in 1..=3 {
        tree::release(fixture.beside("source"), number);
        tree::file(fixture.beside("source/lib/own"), "service");
        fixture.import("source", &format!("1.{number}.0"));
    }
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["activate", "1.2.0"]).ok();
    fixture.run(&["factory", "set", "1.1.0"]).ok();
    fixture
}

fn a_sound_store_is_sound() -> Outcome {
    let fixture = store();
    let seen = look(&fixture.root()).settled("untouched");
    assert_eq!(seen.versions.keys().collect::<Vec<_>>(), ["v1.1.0", "v1.2.0", "v1.3.0"]);
    assert_eq!(
        seen.roles.iter().map(|(role, to)| format!("{role} {to}")).collect::<Vec<_>>(),
        ["current v1.2.0", "factory v1.1.0", "previous v1.1.0"]
    );
    let listed = fixture.json(&["list"]);
    for version in listed["versions"].as_array().unwrap() {
        assert_eq!(seen.versions[version["name"].as_str().unwrap()], version["digest"].as_str().unwrap());
    }
    Ok(())
}

/// What is done to a sound store, and the word that the checker must say.
type Damage = (&'static str, fn(&Path));

fn first(dir: &Path) -> std::path::PathBuf {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
    files.filter(|item| item.file_type().is_file()).map(walkdir::DirEntry::into_path).next().unwrap()
}

fn each_kind_of_damage_is_seen() -> Outcome {
    use std::fs;
    let wrong: [Damage; 14] = [
        ("wrong bytes", |root| fs::write(root.join("versions/v1.3.0/lib/common.so"), vec![8; 100_000]).unwrap()),
        ("it is missing", |root| fs::remove_file(root.join("versions/v1.3.0/lib/lock")).unwrap()),
        ("belongs to nothing", |root| fs::write(root.join("versions/v1.3.0/new"), "").unwrap()),
        ("instead of", |root| {
            let path = root.join("versions/v1.3.0/empty");
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }),
        ("another link", |root| {
            fs::remove_file(root.join("versions/v1.3.0/lib/common.so.1")).unwrap();
            std::os::unix::fs::symlink("x", root.join("versions/v1.3.0/lib/common.so.1")).unwrap();
        }),
        ("shared state", |root| {
            let path = root.join("versions/v1.3.0/services/device-api/settings.toml");
            fs::remove_file(&path).unwrap();
            fs::write(path, "port = 80\n").unwrap();
        }),
        ("store/objects", |root| fs::remove_file(first(&root.join("store/objects"))).unwrap()),
        ("checksum", |root| {
            let path = root.join("store/manifests/v1.3.0");
            let mut bytes = fs::read(&path).unwrap();
            bytes[20] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("is no version", |root| fs::rename(root.join("versions/v1.2.0"), root.join("versions/v9")).unwrap()),
        ("the chain is broken", |root| {
            let text = fs::read_to_string(root.join("store/history")).unwrap();
            fs::write(root.join("store/history"), text.replacen("\"seq\":2", "\"seq\":3", 1)).unwrap();
        }),
        ("another version's", |root| {
            fs::copy(root.join("store/manifests/v1.2.0"), root.join("x")).unwrap();
            fs::rename(root.join("x"), root.join("store/manifests/v1.3.0")).unwrap();
        }),
        ("names event", |root| {
            let text = fs::read_to_string(root.join("store/history")).unwrap();
            let end = text.trim_end().rfind('\n').unwrap() + 1;
            fs::write(root.join("store/history"), &text[..end]).unwrap();
        }),
        ("store/head", |root| fs::write(root.join("store/head"), [0; 512]).unwrap()),
        (".switched", |root| fs::write(root.join("versions/.switched"), "v1.2.0").unwrap()),
    ];
    let left: [Damage; 5] = [
        ("store/staging/run-1-0", |root| fs::create_dir(root.join("store/staging/run-1-0")).unwrap()),
        ("no manifest names it", |root| fs::write(first(&root.join("store/objects")).with_file_name("x"), "").unwrap()),
        ("has no manifest", |root| {
            fs::remove_dir_all(root.join("versions/v1.3.0")).unwrap();
            fs::remove_file(root.join("store/manifests/v1.3.0")).unwrap();
        }),
        ("versions/.was", |root| std::os::unix::fs::symlink("v1.1.0", root.join("versions/.was")).unwrap()),
        (" names, ", |root| {
            fs::hard_link(root.join("versions/v1.3.0/lib/common.so"), root.join("kept")).unwrap();
        }),
    ];
    for (number, (word, damage)) in wrong.iter().chain(&left).enumerate() {
        let fixture = store();
        damage(&fixture.root());
        let seen = look(&fixture.root());
        let list = if number < wrong.len() { &seen.wrong } else { &seen.left };
        assert!(list.iter().any(|problem| problem.contains(word)), "{word}: {seen:#?}");
        if number >= wrong.len() {
            seen.sound(word);
        }
    }
    let fixture = store();
    fs::remove_dir_all(fixture.path("versions/v1.3.0")).unwrap();
    assert_eq!(look(&fixture.root()).sound("a tree is gone").lost, ["v1.3.0".to_owned()].into());
    Ok(())
}

fn a_torn_end_of_the_history_is_told_apart() -> Outcome {
    let fixture = store();
    let text = std::fs::read_to_string(fixture.path("store/history")).unwrap();
    std::fs::write(fixture.path("store/history"), text + "0123").unwrap();
    assert!(look(&fixture.root()).settled("torn").torn.unwrap().contains("4 torn bytes"));
    Ok(())
}

fn events_that_are_not_understood_are_told_apart() -> Outcome {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/FORMAT.md")).unwrap();
    let block = text.split("```vector lenient-events\n").nth(1).unwrap().split("\n```").next().unwrap();
    for (json, expected) in block.lines().filter_map(|line| line.split_once(" => ")) {
        let event: serde_json::Value = serde_json::from_str(json).unwrap();
        let unknown = ["freeze", "label"].contains(&event["action"].as_str().unwrap());
        if expected != "broken" {
            assert_eq!(!unknown && super::history::is_understood(&event), expected == "understood", "{json}");
        }
    }
    Ok(())
}

fn the_published_vector_decodes() -> Outcome {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/FORMAT.md")).unwrap();
    let vector = |word: &str| -> Vec<u8> {
        let block = text.split(&format!("```vector {word}\n")).nth(1).unwrap().split("\n```").next().unwrap();
        let digits: String =
            block.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace()).collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    };
    let manifest = decode_body("v1.0.0", &vector("manifest-body")).unwrap();
    assert_eq!((manifest.import_number, manifest.anchor), (7, (12, [0xc4; 32])));
    assert_eq!(manifest.extensions, [(0x8001, b"kept".to_vec())].into());
    let paths: Vec<_> = manifest.items.keys().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["a", "a/f", "b", "b/f", "c.py", "d"]);
    let object = "3a/e7d805f6789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b5.0444.1.2";
    assert_eq!(manifest.items[&b"a/f"[..]].object().unwrap(), object);
    assert_eq!(manifest.items[&b"c.py"[..]].object().unwrap(), format!("{object}.m5"));
    Ok(())
}
