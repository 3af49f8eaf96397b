//! Root at work where another user may rename at any instant: in a user's store, in a user's directory of a release.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Fixture, Outcome, Ran, Skipped, needs_program, needs_root, tree};

tests![
    no_file_of_roots_is_given_away,
    nothing_is_changed_by_name,
    no_directory_made_for_links_changes_the_mode_of_another_file,
    roots_files_in_the_place_of_the_stores_are_neither_read_nor_written,
    a_fifo_in_the_place_of_a_file_holds_up_nothing,
    a_user_cannot_make_root_apply_owners,
    parts_of_two_users_are_refused,
    a_repair_leaves_roots_directories_in_a_users_directory_alone,
];

const USER: u32 = 65534;

/// A command as the user.
fn as_user(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]).arg(program);
    command.stdin(Stdio::null());
    command
}

fn shell_as_user(at: &Path, script: &str) -> std::process::Child {
    as_user("sh").arg("-c").arg(script).current_dir(at).spawn().expect("setpriv runs")
}

/// A store of the user's with one version, and a directory of the user's in which a file of root's lies.
fn users_store() -> Result<Fixture, Skipped> {
    needs_root()?;
    needs_program("setpriv")?;
    let fixture = Fixture::bare();
    fixture.config();
    std::fs::set_permissions(&fixture.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["root", "home"] {
        std::fs::create_dir(fixture.beside(name)).unwrap();
        std::os::unix::fs::chown(fixture.beside(name), Some(USER), Some(USER)).unwrap();
    }
    // The build's own directory need not be open to others.
    let copy = fixture.beside("tope-store");
    std::fs::copy(crate::support::binary(), &copy).unwrap();
    tree::release(fixture.beside("source"), 1);
    let source = fixture.beside("source").display().to_string();
    for arguments in [&["init"][..], &["import", &source, "--version", "1.0.0", "--activate"]] {
        let plain = fixture.command();
        let ran = as_user(copy.to_str().unwrap()).args(plain.get_args()).args(arguments).output().unwrap();
        Ran::of(&ran).ok();
    }
    bait(&fixture);
    Ok(fixture)
}

/// What a user must not get: text without a newline, which a log takes for a line that was torn.
const SECRET: &str = "secret of roots";

fn bait(fixture: &Fixture) -> PathBuf {
    let path = fixture.beside("home/bait");
    std::fs::write(&path, SECRET).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// The file of root's, wherever the user moved it.
#[track_caller]
fn expect_bait_untouched(fixture: &Fixture, inode: u64) {
    let found = walkdir::WalkDir::new(&fixture.dir).into_iter().flatten();
    let found =
        found.map(|item| item.path().to_owned()).find(|path| path.symlink_metadata().is_ok_and(|s| s.ino() == inode));
    // Whoever owns a directory may remove what is in it.
    let Some(path) = found else { return };
    let stat = path.symlink_metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o600), "{}", path.display());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), SECRET, "{}", path.display());
}

fn strace(arguments: &[&str], fixture: &Fixture) -> Result<Command, Skipped> {
    needs_program("strace")?;
    let plain = fixture.command();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(arguments).arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::null());
    Ok(command)
}

/// A user's `mv` between the creation of a file and its change of owner made that user the owner of the moved file.
fn no_file_of_roots_is_given_away() -> Outcome {
    let fixture = users_store()?;
    for lost in ["store/publish.lock", "services"] {
        let inode = bait(&fixture).symlink_metadata().unwrap().ino();
        let path = fixture.path(lost);
        if path.is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let thief = format!("until mv -T ../root/{lost} gone-$$ 2>/dev/null; do :; done; mv bait ../root/{lost}");
        let delayed = ["-o", "/dev/null", "-e", "trace=fchownat", "-e", "inject=fchownat:delay_enter=500000"];
        let mut command = strace(&delayed, &fixture)?;
        let mut thief = shell_as_user(&fixture.beside("home"), &thief);
        let source = fixture.beside("source");
        match lost {
            "services" => command.arg("link").arg("--bin-dir").arg(fixture.beside("bin")),
            _ => command.arg("import").arg(&source).args(["--version", "1.1.0"]),
        };
        let ran = Ran::of(&command.output().unwrap());
        thief.kill().unwrap();
        thief.wait().unwrap();
        assert!([0, 1, 4].contains(&ran.code) && !ran.stderr.contains("strace"), "{ran:?}");
        expect_bait_untouched(&fixture, inode);
        let _ = std::fs::remove_file(&path);
    }
    Ok(())
}

fn nothing_is_changed_by_name() -> Outcome {
    let fixture = users_store()?;
    let calls = "trace=?chown,?lchown,fchownat,?chmod,fchmodat,?fchmodat2,setxattr,lsetxattr,utimensat";
    let log = fixture.beside("calls");
    let lost = ["publish.lock", "history.lock", "refs.lock", "turns.lock"];
    lost.iter().for_each(|lock| std::fs::remove_file(fixture.path("store").join(lock)).unwrap());
    let source = fixture.beside("source").display().to_string();
    tree::release(fixture.beside("source"), 2);
    for arguments in [
        &["import", &source, "--version", "1.2.0", "--activate"][..],
        &["factory", "set", "1.0.0", "--isolated"],
        &["factory", "set", "1.2.0", "--replace"],
        &["rebuild-index"],
        &["verify", "--repair"],
        &["gc", "--keep-last", "1"],
    ] {
        let mut command = strace(&["-o", log.to_str().unwrap(), "-e", calls], &fixture)?;
        let ran = Ran::of(&command.args(arguments).output().unwrap());
        let traced = std::fs::read_to_string(&log).unwrap();
        let named =
            traced.lines().filter(|line| line.contains('"') && !line.contains(", \"\"") && !line.contains("/proc/"));
        assert_eq!(named.collect::<Vec<_>>(), [""; 0], "{arguments:?}");
        ran.ok();
    }
    for item in walkdir::WalkDir::new(fixture.root()) {
        let item = item.unwrap();
        let stat = item.path().symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (USER, USER), "{}", item.path().display());
    }
    Ok(())
}

fn no_directory_made_for_links_changes_the_mode_of_another_file() -> Outcome {
    let fixture = users_store()?;
    let inode = fixture.beside("home/bait").symlink_metadata().unwrap().ino();
    let inject = "inject=?chmod,fchmodat,?fchmodat2,fchmod:delay_enter=500000";
    let mut command =
        strace(&["-o", "/dev/null", "-e", "trace=?chmod,fchmodat,?fchmodat2,fchmod", "-e", inject], &fixture)?;
    let mut thief = shell_as_user(&fixture.beside("home"), "until rmdir bin 2>/dev/null; do :; done; ln -s bait bin");
    let ran = Ran::of(&command.args(["link", "--bin-dir"]).arg(fixture.beside("home/bin")).output().unwrap());
    thief.kill().unwrap();
    thief.wait().unwrap();
    assert!([0, 1].contains(&ran.code) && !ran.stderr.contains("strace"), "{ran:?}");
    expect_bait_untouched(&fixture, inode);
    Ok(())
}

/// Names in `store/` that root opens.
const NAMES: &[&str] = &[
    "history",
    "format",
    "trial",
    "index.db",
    "index.db-journal",
    "index.db-wal",
    "lock",
    "history.lock",
    "refs.lock",
    "turns.lock",
    "manifests/v1.0.0",
];

fn commands(fixture: &Fixture) -> Vec<Vec<String>> {
    let source = fixture.beside("source").display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        words(&["list"]),
        words(&["note", "1.0.0", "a note"]),
        words(&["doctor", "--fix"]),
        words(&["import", &source, "--version", "2.0.0"]),
        words(&["rebuild-index"]),
        words(&["gc", "--keep-last", "1"]),
    ]
}

/// Runs the command, which must end.
fn ends(fixture: &Fixture, arguments: &[String]) -> Ran {
    let plain = fixture.command();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60"]).arg(plain.get_program()).args(plain.get_args()).args(["--lock-timeout", "1"]);
    Ran::of(&command.args(arguments).stdin(Stdio::null()).output().unwrap())
}

fn roots_files_in_the_place_of_the_stores_are_neither_read_nor_written() -> Outcome {
    let fixture = users_store()?;
    let kept = fixture.beside("kept");
    copy(&fixture.root(), &kept);
    for name in NAMES {
        for linked in [true, false] {
            std::fs::remove_dir_all(fixture.root()).unwrap();
            copy(&kept, &fixture.root());
            // Held open: a file that was removed must not give its number to another.
            let held = std::fs::File::open(bait(&fixture)).unwrap();
            let inode = held.metadata().unwrap().ino();
            let place = fixture.path("store").join(name);
            let _ = std::fs::remove_file(&place);
            match linked {
                true => symlink(fixture.beside("home/bait"), &place).unwrap(),
                // As a user moves it, who owns both directories.
                false => std::fs::rename(fixture.beside("home/bait"), &place).unwrap(),
            }
            for arguments in commands(&fixture) {
                let ran = ends(&fixture, &arguments);
                assert!((0..=9).contains(&ran.code), "{name} {arguments:?}: {ran:?}");
                assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET), "{name} {arguments:?}: {ran:?}");
                expect_bait_untouched(&fixture, inode);
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn a_fifo_in_the_place_of_a_file_holds_up_nothing() -> Outcome {
    let fixture = users_store()?;
    let kept = fixture.beside("kept");
    copy(&fixture.root(), &kept);
    for name in NAMES {
        std::fs::remove_dir_all(fixture.root()).unwrap();
        copy(&kept, &fixture.root());
        let place = fixture.path("store").join(name);
        let _ = std::fs::remove_file(&place);
        let made = as_user("mkfifo").arg(&place).status().unwrap();
        assert!(made.success());
        for arguments in commands(&fixture) {
            let ran = ends(&fixture, &arguments);
            assert!((0..=9).contains(&ran.code), "{name} {arguments:?}: {ran:?}");
        }
    }
    Ok(())
}

/// The format file is the user's. That it no longer says so does not make the store root's, whose releases may hold
/// programs with the rights of root.
fn a_user_cannot_make_root_apply_owners() -> Outcome {
    let fixture = users_store()?;
    let format = fixture.path("store/format");
    let text = std::fs::read_to_string(&format).unwrap().replace("\"squash\"", "");
    std::fs::write(&format, text).unwrap();
    let source = fixture.beside("source");
    tree::file(source.join("bin/setuid"), "#!/bin/sh\n");
    std::fs::set_permissions(source.join("bin/setuid"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    fixture.run(&["import", source.to_str().unwrap(), "--version", "2.0.0"]).ok();
    for item in walkdir::WalkDir::new(fixture.root()) {
        let item = item.unwrap();
        let stat = item.path().symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o4000), (USER, 0), "{}", item.path().display());
    }
    Ok(())
}

fn parts_of_two_users_are_refused() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    std::os::unix::fs::chown(fixture.path("versions"), Some(USER), Some(USER)).unwrap();
    tree::release(fixture.beside("source"), 1);
    let source = fixture.beside("source").display().to_string();
    let ran = fixture.run(&["import", &source, "--version", "1.0.0"]).expect(4);
    assert!(ran.stderr.contains("could be replaced at any time"), "{ran:?}");
    Ok(())
}

/// In a store of root's a release has directories of a service's user. What lies in one may have been put there by that
/// user, and is not given to it as damage that is mended.
fn a_repair_leaves_roots_directories_in_a_users_directory_alone() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::file(source.join("var/state/x"), "x");
    for path in ["var", "var/state"] {
        std::os::unix::fs::chown(source.join(path), Some(USER), Some(USER)).unwrap();
    }
    fixture.import("source", "1.0.0");
    let var = fixture.path("versions/v1.0.0/var");
    tree::file(var.join("roots/secret"), SECRET);
    std::fs::set_permissions(var.join("roots"), std::fs::Permissions::from_mode(0o700)).unwrap();
    // As the user may, who owns the directory.
    std::fs::rename(var.join("state"), var.join("away")).unwrap();
    std::fs::rename(var.join("roots"), var.join("state")).unwrap();
    let ran = fixture.run(&["verify", "--repair"]);
    let stat = var.join("state").symlink_metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o700), "{ran:?}");
    assert_eq!(std::fs::read_to_string(var.join("state/secret")).unwrap(), SECRET);
    assert_eq!(ran.code, 5, "{ran:?}");
    // A directory of root's in the place of a file is not removed either.
    std::fs::rename(var.join("state"), var.join("roots")).unwrap();
    std::fs::rename(var.join("away"), var.join("state")).unwrap();
    std::fs::remove_file(var.join("state/x")).unwrap();
    tree::file(var.join("state/x/secret"), SECRET);
    let ran = fixture.run(&["verify", "--repair"]);
    assert!(var.join("state/x/secret").exists(), "{ran:?}");
    Ok(())
}
