//! Private and shared paths: where a service writes.

use std::os::unix::fs::MetadataExt;

use super::{arguments, import, shell};
use crate::support::{Fixture, Outcome, needs_root, tree};

tests![
    private_files_are_writable_copies,
    what_a_service_writes_is_no_damage,
    a_shared_path_is_seeded_once_and_never_replaced,
    the_configuration_is_no_part_of_the_digest,
    a_private_python_source_is_kept_whole,
    a_second_import_finds_everything,
];

const CONFIG: &str =
    "[import]\nprivate = [\"services/*/data/**\", \"lib/lock\"]\nshared = [\"services/*/state\", \"one-file\"]\n";

fn prepared() -> (Fixture, std::path::PathBuf) {
    let fixture = Fixture::new();
    std::fs::write(fixture.config(), CONFIG).unwrap();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    tree::file(source.join("services/device-api/data/db"), "rows");
    tree::file(source.join("services/device-api/data/log"), "");
    tree::file(source.join("services/device-api/state/conf"), "first");
    tree::file(source.join("services/device-api/state/deep/empty"), "");
    std::os::unix::fs::symlink("conf", source.join("services/device-api/state/link")).unwrap();
    tree::file(source.join("one-file"), "alone");
    shell(
        &source,
        "chmod 664 services/device-api/data/db; chmod 660 services/device-api/data/log; chmod 640 services/device-api/state/conf; chmod 750 services/device-api/state",
    );
    (fixture, source)
}

/// Imports a directory and an archive of it, each into a store of its own.
fn from_both(check: impl Fn(&Fixture, &serde_json::Value)) {
    for archive in [false, true] {
        let (fixture, source) = prepared();
        let report = if archive {
            let bytes = shell(&source, "tar -cf - .");
            fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).ok().json()
        } else {
            import(&fixture, &source, "1.0", &[]).ok().json()
        };
        check(&fixture, &report);
    }
}

fn private_files_are_writable_copies() -> Outcome {
    from_both(|fixture, report| {
        assert_eq!(report["private_files"], 1);
        let stat = |path: &str| {
            let stat = std::fs::symlink_metadata(fixture.path(format!("versions/v1.0/{path}"))).unwrap();
            (stat.mode() & 0o7777, stat.nlink(), stat.len())
        };
        assert_eq!(stat("services/device-api/data/db"), (0o664, 1, 4));
        assert_eq!(stat("services/device-api/data/log"), (0o660, 1, 0));
        assert_eq!(stat("lib/lock"), (0o644, 1, 0));
        // The pristine bytes are an object that no write reaches.
        std::fs::write(fixture.path("versions/v1.0/services/device-api/data/db"), "changed").unwrap();
        let pristine: Vec<_> =
            super::objects(fixture).into_iter().filter(|path| std::fs::read(path).unwrap() == b"rows").collect();
        assert_eq!(pristine.len(), 1);
    });
    Ok(())
}

fn a_shared_path_is_seeded_once_and_never_replaced() -> Outcome {
    from_both(|fixture, _| {
        assert_eq!(
            fixture.link("versions/v1.0/services/device-api/state"),
            "../../../../shared/services/device-api/state"
        );
        assert_eq!(fixture.link("versions/v1.0/one-file"), "../../shared/one-file");
        let state = fixture.path("versions/v1.0/services/device-api/state");
        assert_eq!(std::fs::read(state.join("conf")).unwrap(), b"first");
        assert_eq!(std::fs::read(fixture.path("versions/v1.0/one-file")).unwrap(), b"alone");
        assert_eq!(std::fs::metadata(state.join("conf")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::metadata(state.join("deep/empty")).unwrap().len(), 0);
        assert_eq!(fixture.link("shared/services/device-api/state/link"), "conf");
        // A service writes; the next release changes its seed; what the service wrote stays.
        std::fs::write(state.join("conf"), "written by the service").unwrap();
        let source = fixture.beside("source");
        tree::file(source.join("services/device-api/state/conf"), "second");
        tree::file(source.join("services/device-api/state/new"), "new");
        tree::file(source.join("services/web-server/state/born"), "later");
        import(fixture, &source, "1.1", &[]).ok();
        let state = fixture.path("versions/v1.1/services/device-api/state");
        assert_eq!(std::fs::read(state.join("conf")).unwrap(), b"written by the service");
        assert!(!state.join("new").exists());
        assert_eq!(std::fs::read(fixture.path("shared/services/web-server/state/born")).unwrap(), b"later");
        assert_eq!(super::names_in(fixture.path("store/staging")), [""; 0]);
    });
    Ok(())
}

fn the_configuration_is_no_part_of_the_digest() -> Outcome {
    let (fixture, source) = prepared();
    let placed = import(&fixture, &source, "1.0", &[]).ok().json();
    let plain = Fixture::new();
    let unplaced = import(&plain, &source, "1.0", &[]).ok().json();
    assert_eq!(placed["digest"], unplaced["digest"]);
    for same in ["files", "total_bytes", "new_objects", "new_bytes", "directories", "symlinks"] {
        assert_eq!(placed[same], unplaced[same], "{same}");
    }
    Ok(())
}

/// A source that is private is a copy of its own; that its compiled file names a time is nothing to its object.
fn a_private_python_source_is_kept_whole() -> Outcome {
    use tope_store::model::{Manifest, PlacementKind};
    from_both(|fixture, _| {
        let source = fixture.beside("python");
        tree::file(source.join("services/a/data/x.py"), "print(1)\n");
        let head = [&b"\xa7\x0d\x0d\x0a\0\0\0\0"[..], &1_700_000_000_u32.to_le_bytes(), &9_u32.to_le_bytes()].concat();
        tree::file(source.join("services/a/data/__pycache__/x.cpython-311.pyc"), head);
        shell(&source, "touch -d @1700000000 services/a/data/x.py; tar -cf ../python.tar .");
        import(fixture, &source, "2.0", &[]).ok();
        import(fixture, fixture.beside("python.tar"), "2.1", &[]).ok();
        for version in ["v2.0", "v2.1"] {
            let bytes = std::fs::read(fixture.path(format!("store/manifests/{version}"))).unwrap();
            let manifest = Manifest::decode(&bytes).unwrap();
            let mut keys = Vec::new();
            let _ = manifest.walk(|_, entry, placement| {
                let placement = placement.filter(|p| p.kind == PlacementKind::Private);
                keys.extend(placement.and_then(|placement| manifest.object_key(entry, placement)));
                Ok::<(), ()>(())
            });
            assert_eq!(keys.len(), 2);
            for key in keys {
                assert!(fixture.path("store/objects").join(key.to_string()).is_file(), "{version}: {key}");
            }
        }
    });
    Ok(())
}

fn a_second_import_finds_everything() -> Outcome {
    needs_root()?;
    let (fixture, source) = prepared();
    import(&fixture, &source, "1.0", &[]).ok();
    let second = import(&fixture, &source, "1.1", &[]).ok().json();
    assert_eq!((&second["new_objects"], &second["new_bytes"]), (&0.into(), &0.into()));
    let inode =
        |version: &str| std::fs::metadata(fixture.path(format!("versions/{version}/lib/common.so"))).unwrap().ino();
    assert_eq!(inode("v1.0"), inode("v1.1"));
    Ok(())
}

/// A service that wrote its log, empty in the release, once made its version fail the check before a switch.
fn what_a_service_writes_is_no_damage() -> Outcome {
    from_both(|fixture, _| {
        std::fs::write(fixture.path("versions/v1.0/services/device-api/data/log"), "started").unwrap();
        std::fs::write(fixture.path("versions/v1.0/services/device-api/data/db"), "more rows").unwrap();
        std::fs::write(fixture.path("versions/v1.0/lib/lock"), "1234").unwrap();
        fixture.run(&["verify"]).ok();
        fixture.run(&["activate", "1.0"]).ok();
    });
    Ok(())
}
