//! Who may write, and to whom what is written belongs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::{Traces, arguments, error_of, import, names_in, shell};
use crate::support::{Fixture, Outcome, Ran, needs_program, needs_root, tree};

tests![
    a_user_imports_roots_files_with_roots_digest,
    another_user_is_refused,
    what_root_writes_in_a_users_store_is_the_users,
    what_a_user_may_not_read_stops_the_import,
    a_user_in_a_foreign_group_directory_can_import,
];

const USER: u32 = 65534;

/// The command as another user.
fn as_user(fixture: &Fixture, uid: u32) -> Command {
    let plain = fixture.command();
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg("--clear-groups");
    command.arg(plain.get_program()).args(plain.get_args());
    command
}

fn run(mut command: Command, arguments: &[std::ffi::OsString]) -> Ran {
    Ran::of(&command.args(arguments).output().unwrap())
}

/// A place that a user may use, with a store of theirs.
fn users_store() -> Result<Fixture, crate::support::Skipped> {
    needs_root()?;
    needs_program("setpriv")?;
    let fixture = Fixture::bare();
    fixture.config();
    shell(&fixture.dir, &format!("chmod 755 .; mkdir root; chown {USER}:{USER} root"));
    let ran = run(as_user(&fixture, USER), &["init".into()]);
    if ran.code != 0 && ran.stderr.contains("Permission denied") {
        return Err(crate::support::Skipped("another user cannot run the binary where it lies".into()));
    }
    ran.ok();
    Ok(fixture)
}

fn everything(top: &Path) {
    tree::release(top, 1);
    shell(
        top,
        "chown -R 0:0 .; chown 1234:5678 bin/web-server; chown 12:34 empty
         echo s >setuid; chmod 4755 setuid; mkdir shut; echo x >shut/x; chmod 555 shut; chmod 2755 services
         mkdir shut/deeper; echo y >shut/deeper/y; chmod 555 shut/deeper
         setfattr -n user.note -v hello lib/common.so || true; setfattr -n user.dir -v d shut || true
         setcap cap_net_raw+ep bin/device-api || true; setfacl -m u:1234599:rx lib/common.so || true",
    );
}

fn a_user_imports_roots_files_with_roots_digest() -> Outcome {
    let fixture = users_store()?;
    let source = fixture.beside("source");
    everything(&source);
    let squashed = run(as_user(&fixture, USER), &arguments(&source, "1.0", &[])).ok().json();
    let roots = Fixture::new();
    let recorded = import(&roots, &source, "1.0", &[]).ok().json();
    assert_eq!(squashed["digest"], recorded["digest"]);
    for item in walkdir::WalkDir::new(fixture.root()) {
        let item = item.unwrap();
        let stat = item.path().symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (USER, USER), "{}", item.path().display());
        assert!(item.file_type().is_dir() || stat.mode() & 0o6000 == 0, "{}", item.path().display());
    }
    let note = shell(&fixture.path("versions/v1.0"), "getfattr --only-values -n user.note lib/common.so || echo hello");
    assert!(String::from_utf8_lossy(&note).starts_with("hello"));
    // From an archive it is the same.
    shell(&source, "tar --xattrs --xattrs-include='*' --acls --numeric-owner -cf ../a.tar .; chmod 644 ../a.tar");
    let again = run(as_user(&fixture, USER), &arguments(fixture.beside("a.tar"), "1.1", &[])).ok().json();
    assert_eq!((&again["digest"], &again["new_objects"]), (&squashed["digest"], &0.into()));
    Ok(())
}

fn another_user_is_refused() -> Outcome {
    let fixture = users_store()?;
    tree::release(fixture.beside("source"), 1);
    let before = Traces::exactly(&fixture);
    let ran = run(as_user(&fixture, 12345), &arguments(fixture.beside("source"), "1.0", &[])).expect(4);
    let message = error_of(&ran, "not-allowed");
    assert!(message.contains("65534") && message.contains("12345"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn what_root_writes_in_a_users_store_is_the_users() -> Outcome {
    let fixture = users_store()?;
    std::fs::write(fixture.config(), "[import]\nprivate = [\"p/**\"]\nshared = [\"services/*/state\"]\n").unwrap();
    let source = fixture.beside("source");
    everything(&source);
    tree::file(source.join("services/device-api/state/s"), "s");
    tree::file(source.join("p/q/r"), "r");
    tree::file(source.join("pkg/a.py"), "1\n");
    let lost = ["store/publish.lock", "store/history.lock"];
    lost.iter().for_each(|lock| std::fs::remove_file(fixture.path(lock)).unwrap());
    import(&fixture, &source, "1.0", &[]).ok();
    let archive = shell(&source, "tar --xattrs --xattrs-include='*' --acls --numeric-owner -cf - .");
    fixture.run_with_input(&arguments("-", "1.1", &[]), &archive).ok();
    for item in walkdir::WalkDir::new(fixture.root()) {
        let item = item.unwrap();
        let stat = item.path().symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (USER, USER), "{}", item.path().display());
    }
    // The user goes on where root left off.
    tree::file(source.join("new"), "new");
    run(as_user(&fixture, USER), &arguments(&source, "1.2", &[])).ok();
    assert_eq!(names_in(fixture.path("versions"))[1..], ["v1.0", "v1.1", "v1.2"]);
    // What root left half done the user can clean up.
    let kill = ["-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL"];
    tree::file(source.join("newer"), "newer");
    super::finish(super::traced(&fixture, &kill, &arguments(&source, "1.3", &[]))?.spawn().unwrap()).expect(-9);
    run(as_user(&fixture, USER), &arguments(&source, "1.4", &[])).ok();
    assert_eq!(names_in(fixture.path("store/staging")), [""; 0]);
    Ok(())
}

fn what_a_user_may_not_read_stops_the_import() -> Outcome {
    let fixture = users_store()?;
    let before = Traces::of(&fixture);
    for (hide, path) in
        [("chmod 600 lib/common.so", "lib/common.so"), ("chmod 700 lib", "lib"), ("chmod 711 services", "services")]
    {
        let source = fixture.beside("source");
        let _ = std::fs::remove_dir_all(&source);
        tree::release(&source, 1);
        shell(&source, hide);
        let ran = run(as_user(&fixture, USER), &arguments(&source, "1.0", &[])).expect(1);
        let message = error_of(&ran, "source");
        assert!(message.contains(path) && message.contains("Permission denied"), "{message}");
        before.expect_unchanged(&fixture);
    }
    let ran = run(as_user(&fixture, USER), &arguments("/root/.bashrc", "1.0", &[])).expect(1);
    assert!(ran.stdout.contains("/root"), "{ran:?}");
    Ok(())
}

/// A root with a group that the user is no member of hands that group down; files could not be given to it.
fn a_user_in_a_foreign_group_directory_can_import() -> Outcome {
    needs_root()?;
    needs_program("setpriv")?;
    let fixture = Fixture::bare();
    fixture.config();
    shell(&fixture.dir, &format!("chmod 755 .; mkdir root; chown {USER}:4242 root; chmod 2755 root"));
    run(as_user(&fixture, USER), &["init".into()]).ok();
    tree::release(fixture.beside("source"), 1);
    run(as_user(&fixture, USER), &arguments(fixture.beside("source"), "1.0", &[])).ok();
    let stat = std::fs::metadata(fixture.path("versions/v1.0/bin/web-server")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (USER, USER));
    Ok(())
}
