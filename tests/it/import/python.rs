//! Python sources that come with compiled files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{arguments, import, objects, shell};
use crate::support::{Fixture, Outcome, needs_program, tree};

tests![
    compiled_files_stay_valid,
    sharing_gives_up_the_time,
    unchecked_compiled_files_are_shared,
    objects_are_exactly_what_manifests_refer_to,
];

/// The interpreter itself: what is found first may be a wrapper that takes its time.
fn python() -> &'static str {
    static PYTHON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PYTHON.get_or_init(|| {
        let path = shell(Path::new("/"), "python3 -c 'import sys; print(sys.executable)'");
        String::from_utf8(path).unwrap().trim().to_owned()
    })
}

/// A package, compiled; its sources have this time.
fn package(top: &Path, time: u32, mode: &str) -> Outcome {
    needs_program("python3")?;
    let _ = std::fs::remove_dir_all(top);
    tree::file(top.join("pkg/__init__.py"), "from . import a, b\n");
    tree::file(top.join("pkg/a.py"), "VALUE = 1\n");
    // The same bytes under another name, and a source that has no compiled file.
    tree::file(top.join("pkg/b.py"), "VALUE = 1\n");
    tree::file(top.join("tools/a.py"), "VALUE = 1\n");
    tree::file(top.join("pkg/empty.py"), "");
    tree::file(top.join("data"), "data");
    shell(
        top,
        &format!(
            "find . -name '*.py' -exec touch -d @{time} {{}} +
             {} -ES -m compileall -q --invalidation-mode {mode} pkg",
            python()
        ),
    );
    Ok(())
}

/// What Python says when it imports the package: nothing may have to be compiled again.
fn is_compiled_anew(version: &Path) -> bool {
    let output = std::process::Command::new(python())
        .args(["-S", "-v", "-c", "import pkg.a, pkg.b, pkg.empty"])
        .env("PYTHONPATH", version)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    let text: String = text.split_inclusive('\n').filter(|line| line.contains("pkg")).collect();
    let matches = text.lines().filter(|line| line.contains(" matches ")).count();
    let stale = text.lines().any(|line| line.contains(" is stale "));
    assert!(stale || matches == 4, "{text}");
    stale
}

fn given(fixture: &Fixture, source: &Path, archive: bool) -> PathBuf {
    if !archive {
        return source.to_owned();
    }
    // Sources before compiled files, as every tar has them, and the other way round.
    shell(source, "find . | sort | tar --no-recursion -T - -cf ../sorted.tar");
    fixture.beside("sorted.tar")
}

fn compiled_files_stay_valid() -> Outcome {
    for archive in [false, true] {
        let fixture = Fixture::new();
        let source = fixture.beside("source");
        for (version, time) in [("1.0", 1_600_000_000), ("1.1", 1_600_000_000), ("1.2", 1_700_000_000)] {
            package(&source, time, "timestamp")?;
            let report = import(&fixture, given(&fixture, &source, archive), version, &[]).ok().json();
            assert!(!is_compiled_anew(&fixture.path(format!("versions/v{version}"))), "{archive} {version}");
            let warned = report["warnings"].as_array().unwrap().iter().any(|warning| warning["kind"] == "pyc");
            assert!(warned, "the cost is said");
        }
        // The time of the first two is one; no object is made for the second.
        let again = import(&fixture, given(&fixture, &source, archive), "1.3", &[]).ok().json();
        assert_eq!(again["new_objects"], 0);
    }
    Ok(())
}

fn sharing_gives_up_the_time() -> Outcome {
    for archive in [false, true] {
        let fixture = Fixture::new();
        let source = fixture.beside("source");
        package(&source, 1_600_000_000, "timestamp")?;
        import(&fixture, given(&fixture, &source, archive), "1.0", &["--pyc", "share"]).ok();
        package(&source, 1_700_000_000, "timestamp")?;
        let report = import(&fixture, given(&fixture, &source, archive), "1.1", &["--pyc", "share"]).ok().json();
        assert!(is_compiled_anew(&fixture.path("versions/v1.1")));
        assert!(report["warnings"].as_array().unwrap().is_empty());
    }
    Ok(())
}

fn unchecked_compiled_files_are_shared() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    package(&source, 1_600_000_000, "unchecked-hash")?;
    import(&fixture, &source, "1.0", &[]).ok();
    package(&source, 1_700_000_000, "unchecked-hash")?;
    let report = import(&fixture, &source, "1.1", &[]).ok().json();
    assert_eq!((&report["new_objects"], report["warnings"].as_array().unwrap().len()), (&0.into(), 0));
    assert!(!is_compiled_anew(&fixture.path("versions/v1.1")));
    Ok(())
}

/// Keys of all manifests.
fn referred(fixture: &Fixture) -> BTreeSet<PathBuf> {
    use tope_store::model::Manifest;
    let mut keys = BTreeSet::new();
    for name in super::names_in(fixture.path("store/manifests")) {
        let manifest = Manifest::decode(&std::fs::read(fixture.path("store/manifests").join(name)).unwrap()).unwrap();
        let _ = manifest.walk(|_, entry, placement| {
            let key = placement.and_then(|placement| manifest.object_key(entry, placement));
            keys.extend(key.map(|key| fixture.path("store/objects").join(key.to_string())));
            Ok::<(), ()>(())
        });
    }
    keys
}

fn objects_are_exactly_what_manifests_refer_to() -> Outcome {
    for order in [[false, true, true], [true, false, true], [true, true, false]] {
        let fixture = Fixture::new();
        let source = fixture.beside("source");
        for (number, archive) in order.into_iter().enumerate() {
            package(&source, 1_600_000_000 + u32::try_from(number).unwrap(), "timestamp")?;
            // A big source as well, which does not pass through memory.
            tree::file(source.join("pkg/a.py"), format!("VALUE = '{}'\n", "x".repeat(2 << 20)));
            shell(&source, &format!("touch -d @1650000000 pkg/a.py; {} -ES -m compileall -q -f pkg", python()));
            import(&fixture, given(&fixture, &source, archive), &format!("1.{number}"), &[]).ok();
            let there: BTreeSet<PathBuf> = objects(&fixture).into_iter().collect();
            assert_eq!(there, referred(&fixture), "{order:?} {number}");
            assert!(!is_compiled_anew(&fixture.path(format!("versions/v1.{number}"))));
        }
    }
    // Compiled files before their sources.
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    package(&source, 1_600_000_000, "timestamp")?;
    let bytes = shell(&source, "find . | sort -r | tar --no-recursion -T - -cf -");
    fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).ok();
    let there: BTreeSet<PathBuf> = objects(&fixture).into_iter().collect();
    assert_eq!(there, referred(&fixture));
    Ok(())
}
