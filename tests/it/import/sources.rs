//! Source directories that change, cannot be read, or hold strange things.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use super::{Traces, arguments, assert_no_litter, error_of, finish, import, traced, wait_until_it_reads};
use crate::support::{Fixture, Outcome, needs_root, tree};

tests![
    a_file_that_is_truncated_while_it_is_read_has_its_new_contents,
    a_big_file_that_is_truncated_while_it_is_read_has_its_new_contents,
    a_file_that_keeps_changing_stops_the_import,
    a_big_file_that_keeps_changing_stops_the_import,
    a_file_that_vanishes_stops_the_import,
    a_directory_that_vanishes_stops_the_import,
    a_file_that_becomes_a_fifo_stops_the_import,
    a_file_that_is_linked_while_it_is_read_is_imported,
    a_source_that_is_missing_is_an_error,
    a_device_node_is_refused_by_its_path,
    sockets_and_fifos_are_skipped_and_said,
    names_are_bytes,
    paths_beyond_the_systems_limit_are_imported_and_removed,
    links_that_lead_in_circles_are_links,
    the_store_itself_is_no_source,
    an_import_that_was_killed_leaves_nothing_behind_the_next_command,
    many_directories_that_hand_down_need_few_handles,
];

/// A store with one version, and a source beside it.
fn prepared() -> (Fixture, PathBuf) {
    let fixture = Fixture::new();
    tree::release(fixture.beside("old"), 1);
    fixture.import("old", "0.1");
    let source = fixture.beside("source");
    tree::release(&source, 2);
    (fixture, source)
}

/// Imports under strace, which holds up the first of these calls on the path for a while. `meanwhile` runs as soon as
/// the source was looked at.
fn import_slowly(
    fixture: &Fixture,
    call: &str,
    path: &Path,
    meanwhile: impl FnOnce(&AtomicBool) + Send,
) -> Result<crate::support::Ran, crate::support::Skipped> {
    let inject = format!("inject={call}:delay_enter=600000:when=1");
    let path_argument = path.to_str().expect("a plain path");
    let mut command =
        traced(fixture, &["-P", path_argument, "-e", &inject], &arguments(fixture.beside("source"), "1.0", &[]))?;
    let child = command.spawn().expect("strace runs");
    wait_until_it_reads(fixture);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let over = AtomicBool::new(false);
    Ok(std::thread::scope(|scope| {
        scope.spawn(|| meanwhile(&over));
        let ran = finish(child);
        over.store(true, Ordering::Release);
        ran
    }))
}

fn truncated(length: usize) -> Outcome {
    let (fixture, source) = prepared();
    let file = source.join("data");
    tree::file(&file, vec![b'x'; length]);
    let ran = import_slowly(&fixture, "read", &file, |_| std::fs::write(&file, "short").unwrap())?.ok();
    assert_eq!(std::fs::read(fixture.path("versions/v1.0/data")).unwrap(), b"short");
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    let again = import(&fixture, &source, "1.0", &[]).ok().json();
    assert_eq!((&again["already_there"], &again["digest"]), (&true.into(), &ran.json()["digest"]));
    Ok(())
}

fn a_file_that_is_truncated_while_it_is_read_has_its_new_contents() -> Outcome {
    truncated(5000)
}

fn a_big_file_that_is_truncated_while_it_is_read_has_its_new_contents() -> Outcome {
    truncated(33 << 20)
}

/// A file to which somebody appends all the time: no reading of it is all old or all new.
fn kept_changing(length: usize) -> Outcome {
    let (fixture, source) = prepared();
    let file = source.join("data");
    tree::file(&file, vec![b'x'; length]);
    let before = Traces::of(&fixture);
    let ran = import_slowly(&fixture, "read", &file, |over| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        while !over.load(Ordering::Acquire) {
            file.write_at(b"y", 0).unwrap();
        }
    })?
    .expect(1);
    let message = error_of(&ran, "source");
    assert!(message.contains("data") && message.contains("changed while it was being read"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_file_that_keeps_changing_stops_the_import() -> Outcome {
    kept_changing(1 << 20)
}

fn a_big_file_that_keeps_changing_stops_the_import() -> Outcome {
    kept_changing(33 << 20)
}

fn vanishes(path: &str, change: impl FnOnce(&Path) + Send, expected: &str) -> Outcome {
    let (fixture, source) = prepared();
    let path_inside = source.join(path);
    let before = Traces::of(&fixture);
    // It is opened by its name in its directory, which nothing else opens a name in.
    let directory = path_inside.parent().unwrap();
    let ran = import_slowly(&fixture, "openat", directory, |_| change(&path_inside))?.expect(1);
    let message = error_of(&ran, "source");
    assert!(message.contains(path) && message.contains(expected), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_file_that_vanishes_stops_the_import() -> Outcome {
    vanishes("lib/common.so", |path| std::fs::remove_file(path).unwrap(), "vanished")
}

fn a_directory_that_vanishes_stops_the_import() -> Outcome {
    // Scanning opens it as well: the second opening is the one that is held up. One without files is not opened again.
    let (fixture, source) = prepared();
    let before = Traces::of(&fixture);
    let inner = source.join("empty/inner");
    tree::file(inner.join("file"), "in it");
    let above = source.join("empty");
    let inject = ["-P", above.to_str().unwrap(), "-e", "inject=openat:delay_enter=600000:when=2"];
    // One thread, since calls are counted for each.
    let child = traced(&fixture, &inject, &arguments(&source, "1.0", &["--jobs=1"]))?.spawn().unwrap();
    wait_until_it_reads(&fixture);
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::fs::remove_dir_all(&inner).unwrap();
    let message = error_of(&finish(child).expect(1), "source");
    assert!(message.contains("empty/inner") && message.contains("vanished"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_file_that_becomes_a_fifo_stops_the_import() -> Outcome {
    let change = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        super::shell(path.parent().unwrap(), "mkfifo common.so");
    };
    vanishes("lib/common.so", change, "changed while")
}

fn a_file_that_is_linked_while_it_is_read_is_imported() -> Outcome {
    let (fixture, source) = prepared();
    let file = source.join("lib/common.so");
    let link = fixture.beside("link");
    import_slowly(&fixture, "read", &file, |_| std::fs::hard_link(&file, &link).unwrap())?.ok();
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    Ok(())
}

fn a_source_that_is_missing_is_an_error() -> Outcome {
    let (fixture, _) = prepared();
    let before = Traces::of(&fixture);
    let message = error_of(&import(&fixture, fixture.beside("nowhere"), "1.0", &[]).expect(1), "io");
    assert!(message.contains("nowhere") && message.contains("No such file"), "{message}");
    for neither in ["/dev/null", "/proc/self/mem", "/proc/self/pagemap"] {
        let ran = import(&fixture, neither, "1.0", &[]).expect(1);
        assert!(ran.stdout.contains(neither), "{ran:?}");
    }
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_device_node_is_refused_by_its_path() -> Outcome {
    needs_root()?;
    let (fixture, source) = prepared();
    let before = Traces::of(&fixture);
    super::shell(&source, "mknod bin/console c 5 1");
    let message = error_of(&import(&fixture, &source, "1.0", &[]).expect(4), "unsupported-source");
    assert!(message.contains("bin/console is a device node"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn sockets_and_fifos_are_skipped_and_said() -> Outcome {
    let (fixture, source) = prepared();
    let plain = import(&fixture, &source, "1.0", &[]).ok().json();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("bin/s")).unwrap();
    super::shell(&source, "mkfifo f");
    let report = import(&fixture, &source, "1.1", &[]).ok().json();
    assert_eq!(report["digest"], plain["digest"]);
    let warnings: Vec<_> = report["warnings"].as_array().unwrap().iter().map(|w| w["message"].clone()).collect();
    assert_eq!(warnings, ["f is a FIFO and was skipped", "bin/s is a socket and was skipped"]);
    Ok(())
}

fn names_are_bytes() -> Outcome {
    let (fixture, source) = prepared();
    let names: [&[u8]; 9] = [
        b"new\nline",
        b"\xff\xfe not utf-8",
        &[b'n'; 255],
        b"-rf",
        b"--version",
        b" spaces ",
        b"...",
        b"\x1b[2J\t\\",
        "\u{202e}gnp.exe".as_bytes(),
    ];
    for name in names {
        tree::file(source.join(std::ffi::OsStr::from_bytes(name)), name);
        tree::file(source.join("d").join(std::ffi::OsStr::from_bytes(name)).join("inside"), "x");
    }
    import(&fixture, &source, "1.0", &[]).ok();
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    // An error about such a name cannot forge a line of output.
    if needs_root().is_ok() {
        super::shell(&source, "mknod \"$(printf 'a\\n\\033[2Jb')\" c 5 1");
        let message = error_of(&import(&fixture, &source, "1.1", &[]).expect(4), "unsupported-source");
        assert!(message.contains("a\\n\\u{1b}[2Jb"), "{message:?}");
    }
    Ok(())
}

/// Makes directories 240 bytes long, each in the last, with a file in the innermost.
fn dig(top: &Path, levels: usize) {
    let open = |dir: &rustix::fd::OwnedFd, name: &str| {
        rustix::fs::openat(dir, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    };
    let mut dir = rustix::fs::open(top, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    let name = "d".repeat(240);
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, &*name, Mode::from_raw_mode(0o755)).unwrap();
        dir = open(&dir, &name);
    }
    let file = rustix::fs::openat(&dir, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
}

fn paths_beyond_the_systems_limit_are_imported_and_removed() -> Outcome {
    let (fixture, source) = prepared();
    dig(&source, 40);
    let before = Traces::of(&fixture);
    // Killed when the tree stands and is not published: the next command has to remove it.
    let kill = ["-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL"];
    let child = traced(&fixture, &kill, &arguments(&source, "1.0", &[]))?.spawn().unwrap();
    finish(child).expect(-9);
    assert_eq!(super::names_in(fixture.path("store/staging")).len(), 1);
    import(&fixture, fixture.beside("old"), "0.1", &[]).ok();
    before.expect_unchanged(&fixture);
    let directory = import(&fixture, &source, "1.0", &[]).ok().json();
    let deepest = "find . -mindepth 41 -name leaf -execdir cat {} \\;";
    assert_eq!(super::shell(&fixture.path("versions/v1.0"), deepest), b"deep");
    let archive = super::shell(&source, "tar --sort=name -cf - .");
    let streamed = fixture.run_with_input(&arguments("-", "1.1", &[]), &archive).ok().json();
    assert_eq!(streamed["digest"], directory["digest"]);
    Ok(())
}

fn links_that_lead_in_circles_are_links() -> Outcome {
    let (fixture, source) = prepared();
    std::os::unix::fs::symlink("loop", source.join("loop")).unwrap();
    std::os::unix::fs::symlink("..", source.join("bin/up")).unwrap();
    std::os::unix::fs::symlink("/", source.join("slash")).unwrap();
    std::os::unix::fs::symlink(OsString::from_vec(vec![b'x'; 4000]), source.join("long")).unwrap();
    import(&fixture, &source, "1.0", &[]).ok();
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    // The source itself may be named by a link.
    std::os::unix::fs::symlink("source", fixture.beside("link")).unwrap();
    assert_eq!(import(&fixture, fixture.beside("link"), "1.0", &[]).ok().json()["already_there"], true);
    Ok(())
}

fn the_store_itself_is_no_source() -> Outcome {
    let (fixture, _) = prepared();
    let before = Traces::of(&fixture);
    for (source, says) in [
        (fixture.root(), "is the store's root"),
        (fixture.beside("."), "holds the store"),
        (fixture.path("store"), "is part of the store"),
        (fixture.path("store/objects"), "is part of the store"),
        (fixture.path("versions"), "holds the versions"),
        ("/".into(), "holds the store"),
    ] {
        let message = error_of(&import(&fixture, &source, "1.0", &[]).expect(4), "unsupported-source");
        assert!(message.contains(says), "{source:?}: {message}");
    }
    before.expect_unchanged(&fixture);
    // A version is a release like any other.
    let report = import(&fixture, fixture.path("versions/v0.1"), "0.2", &[]).ok().json();
    assert_eq!(report["new_objects"], 0);
    Ok(())
}

fn an_import_that_was_killed_leaves_nothing_behind_the_next_command() -> Outcome {
    let (fixture, source) = prepared();
    let before = Traces::of(&fixture);
    for kill in [
        &["-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL"][..],
        &["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=1"],
        &["-e", "trace=symlinkat", "-e", "inject=symlinkat:signal=KILL:when=1"],
    ] {
        let child = traced(&fixture, kill, &arguments(&source, "1.0", &[]))?.spawn().unwrap();
        finish(child).expect(-9);
        import(&fixture, fixture.beside("old"), "0.1", &[]).ok();
        before.expect_unchanged(&fixture);
    }
    import(&fixture, &source, "1.0", &[]).ok();
    assert_no_litter(&fixture);
    Ok(())
}

fn many_directories_that_hand_down_need_few_handles() -> Outcome {
    let (fixture, source) = prepared();
    super::shell(&source, "i=0; while [ $i -lt 300 ]; do mkdir -m 2755 s$i; : >s$i/f; i=$((i+1)); done");
    let mut command = std::process::Command::new("sh");
    let plain = fixture.command();
    command.args(["-c", "ulimit -n 100; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    let output = command.args(arguments(&source, "1.0", &[])).output().unwrap();
    crate::support::Ran::of(&output).ok();
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    Ok(())
}
