//! What the arguments of `import` do.

use std::os::unix::fs::MetadataExt;

use super::{Traces, arguments, import, shell};
use crate::support::{Fixture, Outcome, needs_root, tree};

tests![
    a_dry_run_writes_nothing_and_predicts_exactly,
    a_dry_run_of_an_archive_predicts_exactly,
    modification_times_are_clamped_and_never_zero,
    an_unchanged_file_keeps_the_time_of_its_first_import,
    an_owner_can_be_recorded_for_everything,
    labels_and_notes_are_kept,
    labels_and_names_that_are_not_allowed_are_refused,
    the_umask_decides_nothing,
    what_the_root_hands_down_reaches_no_tree,
];

/// Many equal files, some that an older version has, some private by configuration, Python with and without pins.
fn mixed(fixture: &Fixture) -> std::path::PathBuf {
    std::fs::write(fixture.config(), "[import]\nprivate = [\"services/*/data/**\"]\nshared = [\"services/*/state\"]\n")
        .unwrap();
    tree::release(fixture.beside("old"), 1);
    let source = fixture.beside("source");
    tree::release(&source, 2);
    for number in 0..30 {
        tree::file(source.join(format!("equal/{number}")), "all the same");
        tree::file(source.join(format!("some/{number}")), format!("{}", number % 7));
    }
    tree::file(source.join("services/device-api/data/a"), "0");
    tree::file(source.join("services/device-api/data/empty"), "");
    tree::file(source.join("services/device-api/state/b"), "state");
    tree::file(source.join("large"), vec![3; 3 << 20]);
    tree::file(source.join("large-too"), vec![3; 3 << 20]);
    tree::file(source.join("pkg/a.py"), "print(1)\n");
    tree::file(source.join("pkg/b.py"), "print(1)\n");
    tree::file(source.join("pkg/c.py"), "print(1)\n");
    // A compiled file for a.py only.
    shell(&source, "touch -d @1700000000 pkg/a.py; touch -d @1700000001 pkg/b.py");
    let head = [&b"\xa7\x0d\x0d\x0a\0\0\0\0"[..], &1_700_000_000_u32.to_le_bytes(), &9_u32.to_le_bytes()].concat();
    tree::file(source.join("pkg/__pycache__/a.cpython-311.pyc"), head);
    source
}

const PREDICTED: [&str; 9] = [
    "digest",
    "files",
    "directories",
    "symlinks",
    "total_bytes",
    "new_objects",
    "new_bytes",
    "linked_files",
    "private_files",
];

fn predicted(archive: bool) -> Outcome {
    let fixture = Fixture::new();
    let mut source = mixed(&fixture);
    fixture.import("old", "0.1");
    if archive {
        shell(&source, "tar -cf ../a.tar .");
        source = fixture.beside("a.tar");
    }
    let before = Traces::exactly(&fixture);
    let dry = import(&fixture, &source, "1.0", &["--dry-run"]).ok().json();
    before.expect_unchanged(&fixture);
    assert_eq!((&dry["dry_run"], &dry["import_number"]), (&true.into(), &serde_json::Value::Null));
    let real = import(&fixture, &source, "1.0", &[]).ok().json();
    for field in PREDICTED {
        assert_eq!(dry[field], real[field], "{field}");
    }
    assert_eq!(dry["warnings"], real["warnings"]);
    let before = Traces::exactly(&fixture);
    let again = import(&fixture, &source, "1.1", &["-n"]).ok().json();
    assert_eq!((&again["new_objects"], &again["new_bytes"]), (&0.into(), &0.into()));
    // A name that is taken is said to be, without writing.
    assert_eq!(import(&fixture, &source, "1.0", &["-n"]).ok().json()["already_there"], true);
    import(&fixture, &source, "0.1", &["-n"]).expect(4);
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_dry_run_writes_nothing_and_predicts_exactly() -> Outcome {
    predicted(false)
}

fn a_dry_run_of_an_archive_predicts_exactly() -> Outcome {
    predicted(true)
}

fn mtime(fixture: &Fixture, path: &str) -> i64 {
    std::fs::symlink_metadata(fixture.path(path)).unwrap().mtime()
}

fn modification_times_are_clamped_and_never_zero() -> Outcome {
    for archive in [false, true] {
        let fixture = Fixture::new();
        let source = fixture.beside("source");
        tree::release(&source, 1);
        shell(
            &source,
            "touch -d @0 lib/common.so lib/lock; touch -d @1000 bin/web-server; touch -d @-5 services/*/index.html",
        );
        let given = if archive {
            // An honest tar has no time before 1970 in its plain format.
            shell(&source, "tar --format=posix -cf ../a.tar .");
            fixture.beside("a.tar")
        } else {
            source
        };
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        import(&fixture, &given, "1.0", &[]).ok();
        for path in ["lib/common.so", "lib/lock", "services/web-server/index.html"] {
            assert!(mtime(&fixture, &format!("versions/v1.0/{path}")) >= started - 1, "{path}");
        }
        assert_eq!(mtime(&fixture, "versions/v1.0/bin/web-server"), 1000);
        // A store of its own, since objects keep their times.
        for (variable, argument) in [(true, false), (false, true)] {
            let clamped = Fixture::new();
            let mut command = clamped.command();
            if variable {
                command.env("SOURCE_DATE_EPOCH", "500000000");
            }
            command.args(arguments(&given, "1.0", if argument { &["--mtime", "500000000"] } else { &[] }));
            crate::support::Ran::of(&command.output().unwrap()).ok();
            assert_eq!(mtime(&clamped, "versions/v1.0/lib/common.so"), 500_000_000);
            assert_eq!(mtime(&clamped, "versions/v1.0/lib/lock"), 500_000_000);
            assert_eq!(mtime(&clamped, "versions/v1.0/bin/device-api"), 500_000_000);
            assert_eq!(mtime(&clamped, "versions/v1.0/bin/web-server"), 1000);
        }
        let zero = Fixture::new();
        import(&zero, &given, "1.0", &["--mtime", "0"]).ok();
        assert_eq!(mtime(&zero, "versions/v1.0/lib/common.so"), 1);
    }
    Ok(())
}

fn an_unchanged_file_keeps_the_time_of_its_first_import() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    shell(&source, "touch -d @1600000000 lib/common.so");
    fixture.import("source", "1.0");
    shell(&source, "touch -d @1700000000 lib/common.so; echo 2 >bin/web-server; touch -d @1700000000 bin/web-server");
    fixture.import("source", "1.1");
    assert_eq!(mtime(&fixture, "versions/v1.1/lib/common.so"), 1_600_000_000);
    assert_eq!(mtime(&fixture, "versions/v1.1/bin/web-server"), 1_700_000_000);
    Ok(())
}

fn an_owner_can_be_recorded_for_everything() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    let directory = import(&fixture, &source, "1.0", &["--chown", "123:456"]).ok().json();
    for item in walkdir::WalkDir::new(fixture.path("versions/v1.0")).min_depth(1) {
        let stat = item.unwrap().path().symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (123, 456));
    }
    let archive = shell(&source, "tar -cf - .");
    let streamed = fixture.run_with_input(&arguments("-", "1.1", &["--chown", "123:456"]), &archive).ok().json();
    assert_eq!(streamed["digest"], directory["digest"]);
    let own = import(&fixture, &source, "1.2", &[]).ok().json();
    assert_ne!(own["digest"], directory["digest"]);
    shell(&source, "chown -hR 123:456 .");
    assert_eq!(import(&fixture, &source, "1.3", &[]).ok().json()["digest"], directory["digest"]);
    Ok(())
}

/// A key with a newline was accepted, and stood in the output of `show` as a line of its own.
fn labels_and_names_that_are_not_allowed_are_refused() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::file(source.join("f"), "x");
    let source = source.to_str().unwrap();
    for label in ["a\nb=c", "a b=c", "gr\u{fc}n=c", "=c", "a", "a=b\nc", "a=\u{9b}2J", &format!("{}=c", "k".repeat(65))]
    {
        let ran = fixture.run(&["import", source, "--version", "1", "--label", label]).expect(2);
        assert!(ran.stderr.contains("label"), "{ran:?}");
        fixture.run(&["gc", "--keep-last", "1", "--keep-label", label]).expect(2);
        let toml = format!("[retention]\nkeep_label = [{label:?}]\n").replace("\\u{9b}", "\\u009b");
        std::fs::write(fixture.config(), toml).unwrap();
        let ran = fixture.run(&["gc", "--dry-run"]);
        assert!(ran.code != 0 && ran.stderr.contains("retention.keep_label"), "{ran:?}");
        std::fs::remove_file(fixture.config()).unwrap();
    }
    let ran = fixture.run(&["import", source, "--version", "newest"]).expect(2);
    assert!(ran.stderr.contains("reserved"), "{ran:?}");
    assert_eq!(fixture.json(&["list"])["versions"], serde_json::json!([]));
    fixture.run(&["import", source, "--version", "newest-1", "--label", "site/room.7_b-2=a=b"]).ok();
    Ok(())
}

fn labels_and_notes_are_kept() -> Outcome {
    use tope_store::model::Manifest;
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let more = ["--label", "channel=beta", "--label", "empty=", "--label", "eq=a=b", "--note", "fixes\nthe clock"];
    import(&fixture, fixture.beside("source"), "1.0", &more).ok();
    let manifest = Manifest::decode(&std::fs::read(fixture.path("store/manifests/v1.0")).unwrap()).unwrap();
    let labels: Vec<(&str, &str)> = manifest.facts.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("channel", "beta"), ("empty", ""), ("eq", "a=b")]);
    assert_eq!(manifest.facts.note, "fixes\nthe clock");
    Ok(())
}

/// Modes and owners of everything in a root but the index.
fn modes(fixture: &Fixture) -> Vec<String> {
    let walk = walkdir::WalkDir::new(fixture.root()).sort_by_file_name().into_iter();
    let is_index = |item: &walkdir::DirEntry| item.file_name().to_string_lossy().starts_with("index.db");
    walk.filter_entry(|item| !is_index(item))
        .map(|item| {
            let item = item.unwrap();
            let stat = item.path().symlink_metadata().unwrap();
            let path = item.path().strip_prefix(fixture.root()).unwrap();
            let acl = rustix::fs::llistxattr(item.path(), &mut [0; 1024]).unwrap_or(0);
            format!("{:o} {}:{} {acl} {}", stat.mode(), stat.uid(), stat.gid(), path.display())
        })
        .collect()
}

fn shaped(umask: &str, prepare: &str) -> (Fixture, Vec<String>) {
    let fixture = Fixture::bare();
    std::fs::write(fixture.config(), "[import]\nprivate = [\"lib/lock\", \"p/**\"]\nshared = [\"services/*/state\"]\n")
        .unwrap();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    tree::file(source.join("services/device-api/state/deep/s"), "s");
    tree::file(source.join("p/q/r"), "r");
    shell(
        &source,
        "chmod 777 empty; chmod 666 lib/common.so; chmod 2775 p; chmod 700 services; chmod 664 services/device-api/state/deep/s",
    );
    shell(&fixture.beside("."), "tar -C source -cf a.tar .; touch -d @1700000000 a.tar");
    shell(&fixture.beside("."), prepare);
    let script = format!("umask {umask}; exec \"$@\"");
    for arguments in
        [vec!["init".into()], arguments(&source, "1.0", &[]), arguments(fixture.beside("a.tar"), "1.1", &[])]
    {
        let plain = fixture.command();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args()).args(arguments);
        crate::support::Ran::of(&command.output().unwrap()).ok();
    }
    let modes = modes(&fixture);
    (fixture, modes)
}

fn the_umask_decides_nothing() -> Outcome {
    let (fixture, expected) = shaped("022", "");
    assert_eq!(std::fs::metadata(fixture.root()).unwrap().mode() & 0o7777, 0o755);
    assert!(expected.iter().any(|line| line.starts_with("100444 ") && line.ends_with("versions/v1.0/lib/common.so")));
    for umask in ["077", "000", "027"] {
        let (fixture, found) = shaped(umask, "");
        assert_eq!(found, expected, "{umask}");
        let mode = |path: &str| std::fs::metadata(fixture.beside(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode("root/store/index.db"), 0o644, "{umask}");
        // On the way to an image's store and programs, which services of any user must pass.
        let script = format!(
            "umask {umask}; PATH={}:$PATH; mkdir image; run() {{ tope-store --sysroot image \"$@\"; }}
             run init; run import source --version 1.0 --activate; run link --bin-dir /usr/local/bin",
            crate::support::binary().parent().unwrap().display()
        );
        shell(&fixture.beside("."), &script);
        for path in ["opt", "opt/tope", "usr", "usr/local", "usr/local/bin"] {
            assert_eq!(mode(&format!("image/{path}")), 0o755, "{umask}: {path}");
        }
    }
    Ok(())
}

fn what_the_root_hands_down_reaches_no_tree() -> Outcome {
    needs_root()?;
    crate::support::needs_program("setfacl")?;
    let (_, expected) = shaped("022", "mkdir root; chmod 755 root");
    let strip = |modes: Vec<String>| modes.into_iter().skip(1).collect::<Vec<_>>();
    let expected = strip(expected);
    assert_eq!(strip(shaped("022", "mkdir root; chgrp 4242 root; chmod 2755 root").1), expected);
    assert_eq!(strip(shaped("022", "mkdir root; setfacl -m d:u:1234:rwx,d:g:99:rwx root").1), expected);
    Ok(())
}
