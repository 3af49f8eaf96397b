//! What somebody uses, or is about to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tope_store::model::Role;
use tope_store::model::retention::Reason;
use tope_store::store::removal::TakenOut;

use super::{Running, decided, entries, name, names, sleeping, store, with_program, with_versions};
use crate::support::{Fixture, Outcome, Ran, Skipped, needs_program, needs_root, tree};

tests![
    what_a_running_process_executes_or_works_in_stays,
    what_a_process_reaches_through_a_bind_mount_stays,
    a_version_with_a_mount_in_it_stays,
    what_only_the_kernel_uses_stays,
    what_is_used_at_the_second_look_is_moved_back,
    where_no_process_can_be_seen_nothing_is_removed,
    a_role_that_was_set_after_the_plan_protects,
    gc_waits_for_an_import_and_names_it,
];

fn what_a_running_process_executes_or_works_in_stays() -> Outcome {
    let fixture = Fixture::new();
    let version = with_program(&fixture);
    with_versions(&fixture, 2);
    for (program, works_in) in [(version.join("bin/sleep"), "/".into()), ("/bin/sleep".into(), version.join("bin"))] {
        let running = sleeping(&program, &works_in);
        let report = fixture.json(&["gc", "--keep-last", "1", "-n"]);
        assert_eq!(decided(&report, "kept")[1], ("v1.9.0".to_owned(), vec!["in-use".to_owned()]));
        let why = report["kept"][1]["why"][0].as_str().unwrap();
        assert!(why.contains(&format!("pid {}", running.0.id())), "{why}");
        let refused = fixture.run(&["remove", "1.9.0"]).expect(4);
        assert!(refused.stderr.contains(&running.0.id().to_string()), "{refused:?}");
    }
    let open = std::fs::File::open(version.join("data")).unwrap();
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((names(&report, "removed"), names(&report, "kept").len()), (vec!["v1.1.0".to_owned()], 2));
    drop(open);
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed"), ["v1.9.0"]);
    Ok(())
}

fn what_a_process_reaches_through_a_bind_mount_stays() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    let version = with_program(&fixture);
    with_versions(&fixture, 1);
    let mounted = fixture.beside("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let mount = |arguments: &[&std::ffi::OsStr]| Command::new("mount").args(arguments).status().unwrap().success();
    assert!(mount(&["--bind".as_ref(), version.as_os_str(), mounted.as_os_str()]));
    let running = sleeping(&mounted.join("bin/sleep"), Path::new("/"));
    // Away from this name space, as with a service that has one of its own: its path now says nothing at all.
    assert!(Command::new("umount").arg("-l").arg(&mounted).status().unwrap().success());
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!(decided(&report, "kept")[1], ("v1.9.0".to_owned(), vec!["in-use".to_owned()]));
    drop(running);
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed"), ["v1.9.0"]);
    Ok(())
}

fn a_version_with_a_mount_in_it_stays() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    let inside = fixture.path("versions/v1.1.0/empty");
    std::fs::write(fixture.beside("precious"), "not of this version").unwrap();
    assert!(Command::new("mount").arg("--bind").arg(&fixture.dir).arg(&inside).status().unwrap().success());
    let report = fixture.run(&["--json", "gc", "--keep-last", "1"]);
    let unmounted = Command::new("umount").arg("-l").arg(&inside).status().unwrap().success();
    let report = report.ok().json();
    assert!(unmounted && fixture.beside("precious").exists());
    assert_eq!(decided(&report, "kept")[1], ("v1.1.0".to_owned(), vec!["in-use".to_owned()]));
    assert!(report["kept"][1]["why"][0].as_str().unwrap().contains("mount"), "{report}");
    Ok(())
}

/// A loop device, a bind mount and an overlay use files without any process that shows a path to them.
fn what_only_the_kernel_uses_stays() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    with_versions(&fixture, 5);
    let run = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let path = |name: &str| fixture.path("versions").join(name).display().to_string();
    let beside = |name: &str| fixture.beside(name).display().to_string();
    std::fs::create_dir(beside("bound")).unwrap();
    std::fs::create_dir(beside("over")).unwrap();
    let (looped, device) = run(format!("losetup -r -f --show {}", path("v1.1.0/lib/own")));
    if !looped {
        return Err(Skipped("there is no loop device".into()));
    }
    let bound = run(format!("mount --bind {} {}", path("v1.2.0/bin"), beside("bound"))).0;
    let layers = format!("lowerdir={}:{}", path("v1.3.0"), beside("source-1"));
    let overlaid = run(format!("mount -t overlay -o {layers} overlay {}", beside("over"))).0;
    let report = fixture.run(&["--json", "gc", "--keep-last", "1"]);
    let refused = fixture.run(&["remove", "1.1.0"]);
    assert!(run(format!("losetup -d {device}")).0);
    assert_eq!(
        [run(format!("umount {}", beside("bound"))).0, run(format!("umount {}", beside("over"))).0],
        [bound, overlaid]
    );
    let report = report.ok().json();
    let why = |version: &str| {
        let kept = report["kept"].as_array().unwrap().iter().find(|kept| kept["name"] == version);
        kept.map(|kept| kept["why"].to_string()).unwrap_or_default()
    };
    assert!(why("v1.1.0").contains(&format!("the loop device {device}, which reads lib/own")), "{report:#}");
    assert!(
        bound && why("v1.2.0").contains(&format!("the mount at {}, which shows bin", beside("bound"))),
        "{report:#}"
    );
    assert!(!overlaid || why("v1.3.0").contains(&format!("the overlay at {}", beside("over"))), "{report:#}");
    assert!(refused.expect(4).stderr.contains(&device));
    assert!(names(&report, "removed").contains(&"v1.4.0".to_owned()), "{report:#}");
    // They go when the kernel is done with them.
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 1);
    Ok(())
}

/// A process may begin to use a version after the plan was made: the look in trash sees it.
fn what_is_used_at_the_second_look_is_moved_back() -> Outcome {
    let fixture = Fixture::new();
    let version = with_program(&fixture);
    let before = tree::describe(&version, false);
    let running = sleeping(&version.join("bin/sleep"), &version.join("bin"));
    let store = store(&fixture);
    let locked = store.exclude().unwrap();
    let manifest = store.manifests().unwrap().read(&name("v1.9.0")).unwrap();
    let take_out = || locked.take_out(&name("v1.9.0"), manifest.facts.import_number, manifest.digest()).unwrap();
    let TakenOut::Kept(reasons) = take_out() else { panic!("it went although it is used") };
    assert!(matches!(reasons.as_slice(), [Reason::InUse(user)] if user.contains("executes")), "{reasons:?}");
    assert!(before == tree::describe(&version, false));
    assert_eq!(entries(fixture.path("store/trash")), 0);
    drop(running);
    assert_eq!(take_out(), TakenOut::Gone);
    assert!(!version.exists() && !fixture.path("store/manifests/v1.9.0").exists());
    Ok(())
}

/// As in an image that is built in a bare chroot.
fn where_no_process_can_be_seen_nothing_is_removed() -> Outcome {
    needs_root()?;
    needs_program("unshare")?;
    let hidden = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/proc"]).status();
    if !hidden.is_ok_and(|status| status.success()) {
        return Err(Skipped("nothing can be mounted on /proc here".into()));
    }
    let fixture = Fixture::new();
    with_versions(&fixture, 3);
    let plain = fixture.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args()).args(["gc", "--keep-last", "1"]);
    let ran = Ran::of(&command.output().unwrap()).expect(1);
    assert!(ran.stderr.contains("mount -t proc proc /proc"), "{ran:?}");
    fixture.run(&["gc", "--keep-last", "1"]).ok();
    Ok(())
}

fn a_role_that_was_set_after_the_plan_protects() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 1);
    let store = store(&fixture);
    let locked = store.exclude().unwrap();
    let manifest = store.manifests().unwrap().read(&name("v1.1.0")).unwrap();
    // A switch that died before `.was` became `previous`: the only link to the version.
    std::os::unix::fs::symlink("v1.1.0", fixture.path("versions/.was")).unwrap();
    let taken_out = locked.take_out(&name("v1.1.0"), manifest.facts.import_number, manifest.digest()).unwrap();
    assert_eq!(taken_out, TakenOut::Kept(vec![Reason::Role(Role::Previous)]));
    assert_eq!(fixture.link("versions/previous"), "v1.1.0");
    Ok(())
}

fn gc_waits_for_an_import_and_names_it() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    let mut command = fixture.command();
    command.args(["import", "-", "--version", "1.3.0"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let importing = Running(command.stderr(Stdio::null()).spawn().unwrap());
    // It is at work when it has a directory of its own in staging.
    let start = Instant::now();
    while entries(fixture.path("store/staging")) == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = fixture.run(&["--lock-timeout", "0.2", "gc", "--keep-last", "1"]).expect(6);
    assert!(ran.stderr.contains(&format!("pid {}", importing.0.id())), "{ran:?}");
    assert!(ran.stderr.contains("import"), "{ran:?}");
    drop(importing);
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed"), ["v1.1.0"]);
    assert_eq!(entries(fixture.path("store/staging")), 0);
    Ok(())
}
