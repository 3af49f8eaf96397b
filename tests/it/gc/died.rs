//! Removals that died, and trees that resist.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tope_store::model::{Action, Event};

use super::{current, decided, entries, name, names, sleeping, store, versions, with_versions};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, needs_program, tree};

tests![
    a_removal_that_died_is_completed_at_every_step,
    a_removal_that_died_is_undone_if_somebody_needs_the_version,
    what_was_isolated_as_factory_can_be_removed,
];

/// What each step of a removal leaves if it is the last.
fn die_after(fixture: &Fixture, step: u32) {
    let store = store(fixture);
    let manifest = store.manifests().unwrap().read(&name("v1.1.0")).unwrap();
    let trash = format!("store/trash/v1.1.0.{}", manifest.facts.import_number);
    std::fs::rename(fixture.path("versions/v1.1.0"), fixture.path(&trash)).unwrap();
    if step >= 2 {
        store.manifests().unwrap().remove(&name("v1.1.0")).unwrap();
    }
    if step >= 3 {
        store.record(vec![Event::about(Action::Remove, &name("v1.1.0"), Some(manifest.digest()))]).unwrap();
    }
    if step >= 4 {
        std::fs::remove_dir_all(fixture.path(trash).join("lib")).unwrap();
    }
}

fn a_removal_that_died_is_completed_at_every_step() -> Outcome {
    for step in 1..=4 {
        for next in ["gc", "import"] {
            let fixture = Fixture::new();
            with_versions(&fixture, 2);
            let told = fixture.json(&["gc", "--keep-last", "1", "-n"])["freed_bytes"].as_u64().unwrap();
            // Its directory; the files in it are objects that are swept in any case.
            let library = std::fs::metadata(fixture.path("versions/v1.1.0/lib")).unwrap().blocks() * 512;
            die_after(&fixture, step);
            if next == "gc" {
                let dry = fixture.json(&["gc", "--keep-last", "5", "-n"])["freed_bytes"].as_u64().unwrap();
                let done = fixture.json(&["gc", "--keep-last", "5"])["freed_bytes"].as_u64().unwrap();
                assert_eq!(names(&fixture.json(&["gc", "--keep-last", "5"]), "kept"), ["v1.2.0"]);
                // All but the manifest, which is gone or goes before the plan is made, and the library with step 4.
                let missing = 4096 + if step < 4 { 0 } else { library };
                assert_eq!((dry, done), (told - missing, told - missing), "step {step}");
            } else {
                tree::release(fixture.beside("other"), 9);
                fixture.import("other", "1.3.0");
            }
            assert!(!fixture.path("versions/v1.1.0").exists() && !fixture.path("store/manifests/v1.1.0").exists());
            assert_eq!(entries(fixture.path("store/trash")), 0, "step {step}, then {next}");
            let marks = store(&fixture).history().unwrap().present().unwrap().marks;
            assert!(!marks.versions.contains_key(&name("v1.1.0")), "step {step}, then {next}");
            fixture.import("source-1", "1.1.0");
            tree::assert_same(&fixture.beside("source-1"), &fixture.path("versions/v1.1.0"));
        }
    }
    Ok(())
}

fn a_removal_that_died_is_undone_if_somebody_needs_the_version() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    // A role that was set by hand while the tree was in trash.
    current(&fixture, "v1.1.0");
    die_after(&fixture, 1);
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!(decided(&report, "kept")[1], ("v1.1.0".to_owned(), vec!["current".to_owned()]));
    tree::assert_same(&fixture.beside("source-1"), &fixture.path("versions/current"));
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    let running = sleeping(Path::new("/bin/sleep"), &fixture.path("versions/v1.1.0/lib"));
    die_after(&fixture, 1);
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!(decided(&report, "kept")[1], ("v1.1.0".to_owned(), vec!["in-use".to_owned()]));
    drop(running);
    Ok(())
}

fn what_was_isolated_as_factory_can_be_removed() -> Outcome {
    needs_program("chattr")?;
    let image = Image::new(Kind::Ext4, 32)?;
    let fixture = Fixture::in_dir(image.mounted());
    with_versions(&fixture, 2);
    let top = fixture.path("versions/v1.1.0");
    // As isolation leaves it: inodes of its own that nobody may change.
    std::fs::remove_file(top.join("lib/own")).unwrap();
    std::fs::write(top.join("lib/own"), "of its own").unwrap();
    let protected = [top.join("lib/own"), top.join("lib"), top.join("empty"), top];
    assert!(Command::new("chattr").arg("+i").args(protected).status().unwrap().success());
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed"), ["v1.1.0"]);
    assert_eq!((versions(&fixture).len(), entries(fixture.path("store/trash"))), (1, 0));
    tree::assert_same(&fixture.beside("source-2"), &fixture.path("versions/v1.2.0"));
    Ok(())
}
