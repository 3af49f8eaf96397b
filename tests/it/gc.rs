//! `gc`

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tope_store::layout::Layout;
use tope_store::model::retention::Reason;
use tope_store::model::{Action, Event, Role, VersionName};
use tope_store::store::removal::TakenOut;
use tope_store::store::{Settings, Store};

use crate::support::image::{Image, Kind, bytes_free, fill};
use crate::support::{Fixture, Outcome, needs_program, needs_root, tree};

tests![
    rules_keep_versions_and_say_why,
    rules_come_from_the_configuration_where_no_flag_says_otherwise,
    an_empty_policy_is_refused,
    a_dry_run_tells_what_a_real_one_does_and_touches_nothing,
    roles_pins_trials_and_the_recorded_factory_protect,
    in_doubt_nothing_is_removed,
    unmanaged_directories_are_none_of_its_business,
    what_no_version_needs_goes_and_is_told_apart,
    bytes_that_are_linked_or_held_elsewhere_do_not_count,
    free_takes_the_oldest_until_enough_comes_back,
    what_a_running_process_executes_or_works_in_stays,
    what_a_process_reaches_through_a_bind_mount_stays,
    a_version_with_a_mount_in_it_stays,
    what_is_used_at_the_second_look_is_moved_back,
    a_role_that_was_set_after_the_plan_protects,
    gc_waits_for_an_import_and_names_it,
    a_removal_that_died_is_completed_at_every_step,
    a_removal_that_died_is_undone_if_somebody_needs_the_version,
    the_bytes_that_were_told_come_back,
    where_blocks_may_be_shared_it_says_up_to,
    a_disk_without_a_free_block_or_inode_is_no_obstacle,
    what_was_isolated_as_factory_can_be_removed,
];

/// A store with versions 1.1.0, 1.2.0 … 1.N.0; each has 100 kB of its own and shares 100 kB.
fn with_versions(fixture: &Fixture, count: u32) {
    for number in 1..=count {
        let source = fixture.beside(format!("source-{number}"));
        tree::release(&source, number);
        tree::file(source.join("lib/own"), vec![b'0' + u8::try_from(number).unwrap(); 100_000]);
        fixture.import(&format!("source-{number}"), &format!("1.{number}.0"));
    }
}

fn store(fixture: &Fixture) -> Store {
    Store::open(Layout::new(fixture.root(), None), Settings::default()).unwrap()
}

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn current(fixture: &Fixture, version: &str) {
    let link = fixture.path("versions/current");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(version, link).unwrap();
}

/// Names with their reasons, in order.
fn decided(document: &Value, field: &str) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = document[field].as_array().unwrap().iter();
    all.map(|item| (text(&item["name"]), item["reasons"].as_array().unwrap().iter().map(text).collect())).collect()
}

fn names(document: &Value, field: &str) -> Vec<String> {
    decided(document, field).into_iter().map(|(name, _)| name).collect()
}

fn versions(fixture: &Fixture) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixture.path("versions"))
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn entries(path: PathBuf) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A release whose program can be run, as the version 1.9.0.
fn with_program(fixture: &Fixture) -> PathBuf {
    let source = fixture.beside("source-program");
    tree::program(source.join("bin/sleep"), std::fs::read("/bin/sleep").unwrap());
    tree::file(source.join("data"), vec![9; 50_000]);
    fixture.import("source-program", "1.9.0");
    fixture.path("versions/v1.9.0")
}

fn sleeping(program: &Path, works_in: &Path) -> Running {
    let child = Command::new(program).arg("600").current_dir(works_in).stdout(Stdio::null()).spawn().unwrap();
    // Until it was replaced by the program its links show the parent's.
    let start = Instant::now();
    while std::fs::read_link(format!("/proc/{}/exe", child.id()))
        .is_ok_and(|exe| exe.file_name() != program.file_name())
    {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    Running(child)
}

fn rules_keep_versions_and_say_why() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 5);
    current(&fixture, "v1.2.0");
    let report = fixture.json(&["gc", "--keep-last", "2", "--keep-minor", "1"]);
    let reasons = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pair = |name: &str, list: &[&str]| (name.to_owned(), reasons(list));
    // Every release here is a minor of its own.
    assert_eq!(decided(&report, "removed"), []);
    let report = fixture.json(&["gc", "--keep-last", "2"]);
    assert_eq!(decided(&report, "removed"), [pair("v1.1.0", &["no-rule-keeps"]), pair("v1.3.0", &["no-rule-keeps"])]);
    assert_eq!(
        decided(&report, "kept"),
        [pair("v1.5.0", &["keep-last"]), pair("v1.4.0", &["keep-last"]), pair("v1.2.0", &["current"])]
    );
    assert_eq!(report["kept"][2]["why"][0], "is current");
    assert_eq!((&report["dry_run"], &report["interrupted"]), (&false.into(), &false.into()));
    assert_eq!(versions(&fixture), ["current", "v1.2.0", "v1.4.0", "v1.5.0"]);
    for kept in [2, 4, 5] {
        let (source, version) = (format!("source-{kept}"), format!("versions/v1.{kept}.0"));
        tree::assert_same(&fixture.beside(source), &fixture.path(version));
    }
    let text = fixture.run(&["gc", "--keep-last", "1", "-n"]).ok().stdout;
    assert!(
        text.starts_with("remove  v1.4.0  no rule keeps it\nkeep    v1.5.0  is number 1 of the last 1\n"),
        "{text}"
    );
    assert_eq!(fixture.json(&["list"].map(|_| "du"))["versions"].as_array().unwrap().len(), 3);
    Ok(())
}

fn rules_come_from_the_configuration_where_no_flag_says_otherwise() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 4);
    std::fs::write(fixture.config(), "[retention]\nkeep_last = 3\n").unwrap();
    assert_eq!(names(&fixture.json(&["gc", "-n"]), "removed"), ["v1.1.0"]);
    assert_eq!(names(&fixture.json(&["gc", "-n", "--keep-last", "1"]), "removed"), ["v1.1.0", "v1.2.0", "v1.3.0"]);
    assert_eq!(names(&fixture.json(&["gc", "-n", "--free", "1GiB"]), "removed"), ["v1.1.0"], "rules hold beside it");
    Ok(())
}

fn an_empty_policy_is_refused() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 1);
    for arguments in [&["gc"][..], &["gc", "--keep-last", "0"], &["gc", "-n"]] {
        assert!(fixture.run(arguments).expect(2).stderr.contains("empty policy"));
    }
    assert_eq!(versions(&fixture), ["v1.1.0"]);
    Ok(())
}

fn a_dry_run_tells_what_a_real_one_does_and_touches_nothing() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 4);
    let before = (tree::describe(&fixture.path("versions"), false), tree::describe(&fixture.path("store"), false));
    let mut told = fixture.json(&["gc", "--keep-last", "1", "--dry-run"]);
    let after = (tree::describe(&fixture.path("versions"), false), tree::describe(&fixture.path("store"), false));
    assert!(before == after, "a dry run changed something");
    let mut done = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((told["dry_run"].take(), done["dry_run"].take()), (true.into(), false.into()));
    assert!(told["freed_bytes"].as_u64().unwrap() > 300_000);
    told["elapsed_ms"].take();
    done["elapsed_ms"].take();
    assert_eq!(told, done);
    assert_eq!(versions(&fixture), ["v1.4.0"]);
    Ok(())
}

fn roles_pins_trials_and_the_recorded_factory_protect() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 8);
    current(&fixture, "v1.1.0");
    // By hand, absolute, as people do.
    std::os::unix::fs::symlink(fixture.path("versions/v1.2.0"), fixture.path("versions/previous")).unwrap();
    std::os::unix::fs::symlink("v1.3.0", fixture.path("versions/factory")).unwrap();
    std::fs::write(fixture.path("store/trial"), r#"{"id":1,"from":"v1.4.0","to":"v1.5.0"}"#).unwrap();
    let about = |action, version| Event::about(action, &name(version), None);
    let factory = Event { role: Some(Role::Factory), ..about(Action::FactorySet, "v1.6.0") };
    store(&fixture).record(vec![about(Action::Pin, "v1.7.0"), factory]).unwrap();
    let report = fixture.json(&["gc", "--free", "1GiB"]);
    assert_eq!(names(&report, "removed"), ["v1.8.0"]);
    let reasons: Vec<String> = decided(&report, "kept").into_iter().flat_map(|(_, reasons)| reasons).collect();
    assert_eq!(reasons, ["pinned", "recorded-factory", "on-trial", "on-trial", "factory", "previous", "current"]);
    Ok(())
}

fn in_doubt_nothing_is_removed() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 3);
    let damage = |path: &str, at: usize| {
        let path = fixture.path(path);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        (path, sound)
    };
    for (path, at) in [("store/manifests/v1.2.0", 60), ("store/history", 100)] {
        let (path, sound) = damage(path, at);
        for arguments in [&["--json", "gc", "--keep-last", "1"][..], &["--json", "gc", "-n", "--keep-last", "1"]] {
            assert_eq!(fixture.run(arguments).expect(4).json()["error"]["kind"], "doubt", "{}", path.display());
        }
        assert_eq!(fixture.run(&["--json", "remove", "1.1.0"]).expect(4).json()["error"]["kind"], "doubt");
        std::fs::write(path, sound).unwrap();
    }
    assert_eq!(versions(&fixture).len(), 3);
    std::fs::rename(fixture.path("store/history"), fixture.beside("history")).unwrap();
    fixture.run(&["gc", "--keep-last", "1"]).expect(4);
    std::fs::rename(fixture.beside("history"), fixture.path("store/history")).unwrap();
    assert_eq!(names(&fixture.json(&["gc", "--keep-last", "1"]), "removed").len(), 2);
    Ok(())
}

fn unmanaged_directories_are_none_of_its_business() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    tree::release(fixture.path("versions/v9.0.0"), 9);
    tree::release(fixture.path("versions/a directory"), 9);
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!((names(&report, "removed"), names(&report, "kept")), (vec!["v1.1.0".into()], vec!["v1.2.0".into()]));
    assert_eq!(versions(&fixture), ["a directory", "v1.2.0", "v9.0.0"]);
    Ok(())
}

fn what_no_version_needs_goes_and_is_told_apart() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 1);
    let orphan = format!("store/objects/ab/{}.0444.0.0", "cd".repeat(31));
    tree::file(fixture.path(&orphan), vec![1; 20_000]);
    tree::file(fixture.path("store/objects/ab/garbage"), vec![1; 5_000]);
    tree::file(fixture.path("store/staging/run-1-0/tree/x"), vec![1; 30_000]);
    // A name of a live object, which keeps its inode.
    let object = fixture.path("versions/v1.1.0/lib/common.so");
    std::fs::hard_link(object, fixture.path("store/staging/run-1-0/tree/y")).unwrap();
    tree::file(fixture.path("store/trash/v0.1.0.9/x"), vec![1; 40_000]);
    for mode in [&["gc", "--keep-last", "9", "-n"][..], &["gc", "--keep-last", "9"]] {
        let report = fixture.json(mode);
        assert_eq!(names(&report, "removed"), Vec::<String>::new());
        assert_eq!((&report["orphan_objects"], &report["leftovers"]), (&1.into(), &2.into()));
        let block = |bytes: u64| bytes.next_multiple_of(4096);
        assert_eq!(report["orphan_bytes"], block(20_000) + block(5_000));
        // Their three directories besides.
        assert_eq!(report["leftover_bytes"], block(30_000) + block(40_000) + 3 * 4096);
        assert_eq!(
            report["freed_bytes"].as_u64(),
            Some(report["orphan_bytes"].as_u64().unwrap() + report["leftover_bytes"].as_u64().unwrap())
        );
    }
    assert!(!fixture.path(orphan).exists());
    assert_eq!((entries(fixture.path("store/staging")), entries(fixture.path("store/trash"))), (0, 0));
    tree::assert_same(&fixture.beside("source-1"), &fixture.path("versions/v1.1.0"));
    Ok(())
}

fn bytes_that_are_linked_or_held_elsewhere_do_not_count() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    let own = fixture.path("versions/v1.1.0/lib/own");
    let freed = |fixture: &Fixture| fixture.json(&["gc", "--keep-last", "1", "-n"])["freed_bytes"].as_u64().unwrap();
    let all = freed(&fixture);
    let bytes = std::fs::metadata(&own).unwrap().blocks() * 512;
    std::fs::hard_link(&own, fixture.beside("kept")).unwrap();
    assert_eq!(freed(&fixture), all - bytes);
    std::fs::remove_file(fixture.beside("kept")).unwrap();
    assert_eq!(freed(&fixture), all);
    // Held by a name that is gone: it uses no version, and its blocks stay until it is closed.
    std::fs::hard_link(&own, fixture.beside("kept")).unwrap();
    let held = std::fs::File::open(fixture.beside("kept")).unwrap();
    std::fs::remove_file(fixture.beside("kept")).unwrap();
    let report = fixture.json(&["gc", "--keep-last", "1", "-n"]);
    assert_eq!(names(&report, "removed"), Vec::<String>::new(), "whose inode a process holds is in use");
    drop(held);
    assert_eq!(freed(&fixture), all);
    Ok(())
}

fn free_takes_the_oldest_until_enough_comes_back() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 5);
    let one = fixture.json(&["gc", "--free", "1"]);
    assert_eq!((names(&one, "removed"), &one["wanted_bytes"]), (vec!["v1.1.0".to_owned()], &1.into()));
    let wanted = (one["freed_bytes"].as_u64().unwrap() + 1).to_string();
    let two = fixture.json(&["gc", "--free", &wanted]);
    assert_eq!(names(&two, "removed"), ["v1.2.0", "v1.3.0"]);
    assert_eq!(decided(&two, "kept")[0].1, ["enough-is-freed"]);
    tree::file(fixture.path("store/staging/run-1-0/tree/x"), vec![1; 3_000_000]);
    let none = fixture.json(&["gc", "--free", "1MiB"]);
    assert_eq!(names(&none, "removed"), Vec::<String>::new(), "what no version needs is enough");
    Ok(())
}

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

/// Blocks of the store's own files, which grow with events and rows whatever is removed.
fn own_blocks(fixture: &Fixture) -> u64 {
    let files = ["history", "index.db", "index.db-wal", "index.db-shm", "reserve"];
    files.iter().filter_map(|file| Some(std::fs::metadata(fixture.path("store").join(file)).ok()?.blocks() * 512)).sum()
}

/// Measured on a file system of its own, with everything written back. What the history and the index take or give is
/// counted apart; beside that not a block may differ.
fn the_bytes_that_were_told_come_back() -> Outcome {
    let image = Image::new(Kind::Ext4, 64)?;
    let fixture = Fixture::in_dir(image.mounted());
    with_versions(&fixture, 6);
    // Private copies, links within a tree, metadata variants, long symbolic links.
    std::fs::write(fixture.config(), "[import]\nprivate = [\"lib/own\"]\n").unwrap();
    let source = fixture.beside("source-7");
    tree::release(&source, 7);
    tree::file(source.join("lib/own"), vec![77; 200_000]);
    tree::program(source.join("lib/variant"), vec![7_u8; 100_000]);
    std::fs::hard_link(source.join("lib/own"), source.join("lib/own-too")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), source.join("long")).unwrap();
    fixture.import("source-7", "1.7.0");
    current(&fixture, "v1.1.0");
    let free = || {
        rustix::fs::syncfs(std::fs::File::open(image.mounted()).unwrap()).unwrap();
        bytes_free(&image.mounted())
    };
    let told = fixture.json(&["gc", "--free", "1GiB", "-n"])["freed_bytes"].as_u64().unwrap();
    for arguments in [&["remove", "1.7.0", "1.4.0"][..], &["gc", "--free", "1GiB"]] {
        let (before, own) = (free(), own_blocks(&fixture));
        let done = fixture.json(arguments)["freed_bytes"].as_u64().unwrap();
        let (after, own_after) = (free(), own_blocks(&fixture));
        assert_eq!(after + own_after - before - own, done, "{arguments:?}");
        assert!(done > 200_000 && done < told, "{done} of {told}");
    }
    assert_eq!(versions(&fixture), ["current", "v1.1.0"]);
    Ok(())
}

fn a_disk_without_a_free_block_or_inode_is_no_obstacle() -> Outcome {
    needs_program("mkfs.ext4")?;
    for reserve in [true, false] {
        let image = Image::with_options(Kind::Ext4, 32, &["-m", "0", "-N", "600"])?;
        let fixture = Fixture::in_dir(image.mounted());
        with_versions(&fixture, 5);
        current(&fixture, "v1.5.0");
        if !reserve {
            std::fs::remove_file(fixture.path("store/reserve")).unwrap();
        }
        fill(&image.mounted());
        let told = fixture.json(&["gc", "--keep-last", "2", "-n"]);
        let done = fixture.json(&["gc", "--keep-last", "2"]);
        assert_eq!(told["freed_bytes"], done["freed_bytes"]);
        assert_eq!(names(&done, "removed"), ["v1.1.0", "v1.2.0", "v1.3.0"]);
        std::fs::write(image.path("room"), vec![1; 200_000]).unwrap();
        tree::assert_same(&fixture.beside("source-4"), &fixture.path("versions/v1.4.0"));
        let history = store(&fixture).history().unwrap().read().unwrap();
        let removals = history.trusted().filter(|event| event.action == Action::Remove).count();
        assert_eq!((removals, history.state.is_trustworthy()), (3, true));
        let asides = std::fs::metadata(fixture.path("store/reserve")).map_or(0, |file| file.blocks());
        assert!(!reserve || asides > 0, "the reserve was not set aside again");
    }
    Ok(())
}

fn where_blocks_may_be_shared_it_says_up_to() -> Outcome {
    for (kind, up_to) in [(Kind::Ext4, false), (Kind::Xfs, true), (Kind::Btrfs, true)] {
        let image = Image::new(kind, 320)?;
        let fixture = Fixture::in_dir(image.mounted());
        with_versions(&fixture, 3);
        let told = fixture.json(&["gc", "--keep-last", "1", "-n"]);
        let done = fixture.json(&["gc", "--keep-last", "1"]);
        assert_eq!((&told["up_to"], &done["up_to"]), (&up_to.into(), &up_to.into()), "{kind:?}");
        assert_eq!(told["freed_bytes"], done["freed_bytes"]);
        let text = fixture.run(&["remove", "-n", "1.3.0"]).ok().stdout;
        assert_eq!(text.contains("up to"), up_to, "{text}");
    }
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
