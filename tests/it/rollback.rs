//! `rollback`

use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::image::{Image, Kind};
use crate::support::{
    Fixture, Outcome, Skipped, Thawed, needs_program, redacted, releases, run_as, tree, with_releases,
};

tests![
    the_guide_goes_back_in_two_levels,
    what_is_left_becomes_bad_unless_told_otherwise,
    the_factory_version_never_becomes_bad,
    the_same_content_under_two_names_does_not_become_bad,
    a_bad_candidate_is_passed_over,
    a_damaged_candidate_yields_to_the_next_and_the_last_is_only_warned_of,
    a_dangling_previous_yields_to_factory,
    a_switch_back_without_its_record_is_no_damage,
    a_named_version_must_not_be_bad,
    nothing_to_go_back_to_is_said,
    the_index_and_the_history_may_be_in_any_state,
    an_index_that_another_process_holds_is_not_asked,
    a_format_of_the_future_and_a_broken_configuration_do_not_matter,
    a_missing_or_damaged_manifest_does_not_matter,
    a_full_disk_does_not_matter,
    a_running_import_and_a_held_store_lock_are_not_waited_for,
    little_happens_before_the_switch,
    a_normal_user_with_a_store_of_his_own_goes_back
];

fn activated(fixture: Fixture) -> Fixture {
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture
}

/// `v1.0.0` is factory, `v1.1.0` previous, `v1.2.0` current.
fn three() -> Fixture {
    let fixture = releases(3);
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    activated(fixture)
}

fn roles(fixture: &Fixture) -> [String; 3] {
    ["current", "previous", "factory"].map(|role| fixture.link(&format!("versions/{role}")))
}

fn program(fixture: &Fixture) -> String {
    std::fs::read_to_string(fixture.path("versions/current/bin/device-api")).unwrap()
}

fn the_guide_goes_back_in_two_levels() -> Outcome {
    let fixture = three();
    assert_eq!(program(&fixture), "#!/bin/sh\necho 2\n");
    let document = fixture.json(&["rollback", "--reason", "no network"]);
    let digest = document["digest"].clone();
    let expected = json!({
        "schema": 1, "from": "v1.2.0", "to": "v1.1.0", "level": 1, "outcome": "done", "digest": digest,
        "marked_bad": true, "previous": "v1.0.0", "recorded": true, "external_changes": [], "warnings": [],
        "switched_after_ms": "…", "elapsed_ms": "…",
    });
    assert_eq!(redacted(&fixture, &document), expected);
    assert_eq!(roles(&fixture), ["v1.1.0", "v1.0.0", "v1.0.0"]);
    assert_eq!(program(&fixture), "#!/bin/sh\necho 1\n");
    let ran = fixture.run(&["rollback", "--to", "factory"]).ok();
    assert_eq!(
        ran.stdout,
        "current is now v1.0.0 (was v1.1.0)\n\
         v1.1.0 is marked bad; to clear that: tope-store confirm v1.1.0\n\
         there is no previous version to go back to any longer\n"
    );
    assert_eq!(roles(&fixture), ["v1.0.0", "", "v1.0.0"]);
    let document = fixture.json(&["rollback", "--to", "factory"]);
    assert_eq!((&document["outcome"], &document["level"]), (&"unchanged".into(), &2.into()));
    // The history knows all of it: nothing looks as if it was changed by hand.
    let status = fixture.json(&["status"]);
    assert!(["current", "previous", "factory"].iter().all(|role| status[role]["changed_by_hand"] == false));
    Ok(())
}

fn bad(fixture: &Fixture) -> Vec<String> {
    let events = fixture.json(&["history", "--action", "bad"])["events"].clone();
    events.as_array().unwrap().iter().map(|event| event["version"].as_str().unwrap().to_owned()).collect()
}

fn what_is_left_becomes_bad_unless_told_otherwise() -> Outcome {
    let fixture = three();
    fixture.run(&["rollback", "--not-bad"]).ok();
    assert_eq!(bad(&fixture), Vec::<String>::new());
    fixture.run(&["activate", "1.2.0"]).ok();
    fixture.run(&["rollback", "--reason", "smoke"]).ok();
    let event = fixture.json(&["history", "--action", "bad"])["events"][0].clone();
    let evidence = json!({"check": "operator", "detail": "smoke", "exit_code": null, "log": []});
    assert_eq!((&event["version"], &event["evidence"]), (&"v1.2.0".into(), &evidence));
    let confirmed = fixture.json(&["confirm", "1.2.0"]);
    assert_eq!((&confirmed["was_bad"], &confirmed["changed"]), (&"operator: smoke".into(), &true.into()));
    fixture.run(&["activate", "1.2.0"]).ok();
    // Confirmed versions are left with the same consequence.
    assert_eq!(fixture.json(&["rollback"])["marked_bad"], true);
    Ok(())
}

fn the_factory_version_never_becomes_bad() -> Outcome {
    let fixture = three();
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = fixture.json(&["rollback"]);
    assert_eq!((&document["to"], &document["marked_bad"]), (&"v1.2.0".into(), &false.into()));
    assert_eq!(document["warnings"], json!(["v1.0.0 is the factory version and is not marked bad"]));
    assert_eq!(bad(&fixture), Vec::<String>::new());
    assert_eq!(fixture.link("versions/previous"), "v1.1.0", "the newest that is older");
    Ok(())
}

fn the_same_content_under_two_names_does_not_become_bad() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    fixture.import("source", "1.0.0");
    fixture.import("source", "1.0.1");
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.0.1"]).ok();
    assert_eq!(fixture.json(&["rollback"])["marked_bad"], false);
    assert_eq!(bad(&fixture), Vec::<String>::new());
    Ok(())
}

fn a_bad_candidate_is_passed_over() -> Outcome {
    let fixture = three();
    fixture.run(&["rollback"]).ok();
    // v1.2.0 is bad now; by force it runs again, and becomes previous.
    fixture.run(&["activate", "1.2.0", "--force"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    assert_eq!(roles(&fixture), ["v1.1.0", "v1.2.0", "v1.0.0"]);
    let document = fixture.json(&["rollback", "--not-bad"]);
    assert_eq!((&document["to"], &document["level"]), (&"v1.0.0".into(), &2.into()));
    let warning = "previous is v1.2.0, which is bad (operator: left by a rollback); going back to factory";
    assert_eq!(document["warnings"], json!([warning]));
    Ok(())
}

fn a_damaged_candidate_yields_to_the_next_and_the_last_is_only_warned_of() -> Outcome {
    let fixture = three();
    std::fs::remove_file(fixture.path("versions/v1.1.0/bin/device-api")).unwrap();
    let document = fixture.json(&["rollback"]);
    assert_eq!((&document["to"], &document["level"]), (&"v1.0.0".into(), &2.into()));
    let warning = "v1.1.0 fails its check (bin/device-api: it is not there); trying the next";
    assert_eq!(document["warnings"], json!([warning]));

    let fixture = three();
    for version in ["v1.0.0", "v1.1.0"] {
        std::fs::remove_file(fixture.path(format!("versions/{version}/lib/lock"))).unwrap();
    }
    let document = fixture.json(&["rollback"]);
    assert_eq!(document["to"], "v1.0.0");
    let warnings = json!([
        "v1.1.0 fails its check (lib/lock: it is not there); trying the next",
        "all that could be gone back to fails its check; the fault is probably outside the releases",
        "v1.0.0 fails its check (lib/lock: it is not there), and there is nothing better",
    ]);
    assert_eq!(document["warnings"], warnings);

    let fixture = three();
    std::fs::remove_file(fixture.path("versions/v1.1.0/lib/lock")).unwrap();
    assert_eq!(fixture.json(&["rollback", "--to", "previous"])["to"], "v1.1.0", "what was asked for is the last one");
    let fixture = three();
    std::fs::remove_file(fixture.path("versions/v1.1.0/lib/lock")).unwrap();
    assert_eq!(fixture.json(&["rollback", "--verify", "none"])["to"], "v1.1.0");
    Ok(())
}

fn a_dangling_previous_yields_to_factory() -> Outcome {
    let fixture = three();
    std::fs::remove_dir_all(fixture.path("versions/v1.1.0")).unwrap();
    fixture.run(&["--json", "rollback", "--to", "previous"]).expect(3);
    assert_eq!(fixture.json(&["rollback"])["to"], "v1.0.0");
    assert_eq!(roles(&fixture), ["v1.0.0", "", "v1.0.0"]);
    // With current itself dangling there is a way back as well.
    let fixture = three();
    std::fs::remove_dir_all(fixture.path("versions/v1.2.0")).unwrap();
    let document = fixture.json(&["rollback"]);
    assert_eq!(
        (&document["from"], &document["to"], &document["marked_bad"]),
        (&().into(), &"v1.1.0".into(), &false.into())
    );
    Ok(())
}

/// What a rollback leaves that loses its power behind the rename: `previous` is `current` now, and nothing says so.
fn a_switch_back_without_its_record_is_no_damage() -> Outcome {
    let fixture = three();
    std::fs::rename(fixture.path("versions/previous"), fixture.path("versions/current")).unwrap();
    assert_eq!(fixture.json(&["verify"])["problems"], json!([]));
    fixture.run(&["verify", "--repair"]).ok();
    assert!(!fixture.path("versions/previous").exists(), "it must not lead where current leads");
    assert_eq!(fixture.json(&["rollback"])["to"], "v1.0.0");
    // Somebody's own removal is damage.
    fixture.run(&["activate", "1.1.0", "--force"]).ok();
    std::fs::remove_file(fixture.path("versions/previous")).unwrap();
    let problems = fixture.run(&["--json", "verify"]).expect(5).json()["problems"].clone();
    assert_eq!((&problems[0]["path"], problems.as_array().unwrap().len()), (&"versions/previous".into(), 1));
    fixture.run(&["verify", "--repair"]).ok();
    assert_eq!(roles(&fixture), ["v1.1.0", "v1.0.0", "v1.0.0"]);
    Ok(())
}

fn a_named_version_must_not_be_bad() -> Outcome {
    let fixture = three();
    fixture.run(&["rollback"]).ok();
    fixture.run(&["activate", "1.0.0"]).ok();
    let ran = fixture.run(&["--json", "rollback", "--to", "1.2.0"]).expect(4);
    assert_eq!(ran.json()["error"]["kind"], "bad");
    let document = fixture.json(&["rollback", "--to", "1.2.0", "--force"]);
    assert_eq!((&document["to"], &document["level"]), (&"v1.2.0".into(), &0.into()));
    assert_eq!(fixture.json(&["rollback", "--to", "current"])["outcome"], "unchanged");
    Ok(())
}

fn nothing_to_go_back_to_is_said() -> Outcome {
    let fixture = releases(1);
    let message = |code| fixture.run(&["--json", "rollback"]).expect(code).json()["error"]["message"].clone();
    let nothing = "no such version to go back to: no such role: previous; no such role: factory";
    assert_eq!(message(3), nothing);
    fixture.run(&["factory", "set", "1.0.0"]).ok();
    fixture.run(&["activate", "1.0.0"]).ok();
    let nothing = "no such version to go back to: no such role: previous; factory is v1.0.0, which is current";
    assert_eq!(message(3), nothing);
    Ok(())
}

type Damage = fn(&Fixture);

fn the_index_and_the_history_may_be_in_any_state() -> Outcome {
    let damages: &[(&str, bool, Damage)] = &[
        ("no index", true, |f| drop(std::fs::remove_file(f.path("store/index.db")))),
        ("an empty index", true, |f| std::fs::write(f.path("store/index.db"), "").unwrap()),
        ("an index of zeros", true, |f| std::fs::write(f.path("store/index.db"), vec![0; 8192]).unwrap()),
        ("an index of noise", true, |f| std::fs::write(f.path("store/index.db"), "noise".repeat(999)).unwrap()),
        ("an index that is a directory", true, |f| {
            let _ = std::fs::remove_file(f.path("store/index.db"));
            std::fs::create_dir(f.path("store/index.db")).unwrap();
        }),
        ("no history", false, |f| std::fs::remove_file(f.path("store/history")).unwrap()),
        ("an empty history", false, |f| std::fs::write(f.path("store/history"), "").unwrap()),
        ("a torn history", true, |f| {
            let mut history = std::fs::read(f.path("store/history")).unwrap();
            history.truncate(history.len() - 10);
            std::fs::write(f.path("store/history"), history).unwrap();
        }),
        ("a broken history", false, |f| {
            let mut history = std::fs::read(f.path("store/history")).unwrap();
            history[100] ^= 1;
            std::fs::write(f.path("store/history"), history).unwrap();
        }),
        ("a history that is a directory", false, |f| {
            std::fs::remove_file(f.path("store/history")).unwrap();
            std::fs::create_dir(f.path("store/history")).unwrap();
        }),
        ("no lock for the history", false, |f| {
            std::fs::remove_file(f.path("store/history.lock")).unwrap();
            std::fs::create_dir(f.path("store/history.lock")).unwrap();
        }),
        ("no objects", true, |f| std::fs::remove_dir_all(f.path("store/objects")).unwrap()),
    ];
    for (what, recorded, damage) in damages {
        let fixture = three();
        damage(&fixture);
        let document = fixture.json(&["rollback", "--to", "previous"]);
        let answer = (document["to"].clone(), document["recorded"].clone());
        assert_eq!(answer, ("v1.1.0".into(), (*recorded).into()), "{what}: {document:#}");
        assert_eq!(fixture.link("versions/current"), "v1.1.0", "{what}");
        if !recorded {
            assert!(document["warnings"].to_string().contains("cannot be recorded"), "{what}: {document:#}");
        }
        fixture.run(&["status"]).ok();
    }
    Ok(())
}

fn an_index_that_another_process_holds_is_not_asked() -> Outcome {
    needs_program("sqlite3")?;
    let fixture = three();
    let mut holder = std::process::Command::new("sqlite3")
        .arg(fixture.path("store/index.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = holder.stdin.take().unwrap();
    orders.write_all(b"CREATE TABLE IF NOT EXISTS held (x);\nBEGIN EXCLUSIVE;\nSELECT 'held';\n").unwrap();
    orders.flush().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut said).unwrap();
    assert_eq!(said, "held\n");
    let start = Instant::now();
    fixture.run(&["rollback"]).ok();
    assert!(start.elapsed() < Duration::from_secs(4), "it waited");
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    drop(orders);
    holder.wait().unwrap();
    Ok(())
}

fn a_format_of_the_future_and_a_broken_configuration_do_not_matter() -> Outcome {
    for text in ["store = \"tope-store\"\nincompatible = [\"base-1\", \"from-the-future\"]\n", "noise", ""] {
        let fixture = three();
        std::fs::write(fixture.path("store/format"), text).unwrap();
        std::fs::write(fixture.config(), "roott = 3").unwrap();
        let history = std::fs::read(fixture.path("store/history")).unwrap();
        let document = fixture.json(&["rollback"]);
        assert_eq!((&document["to"], &document["recorded"]), (&"v1.1.0".into(), &false.into()));
        let status = fixture.json(&["status"]);
        assert_eq!(status["current"]["version"], "v1.1.0");
        assert!(status["format_obstacle"].is_string());
        assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), history, "who knows what is allowed in it");
        std::fs::write(fixture.config(), "").unwrap();
        assert!([5, 9].contains(&fixture.run(&["activate", "1.0.0"]).code));
    }
    Ok(())
}

fn a_missing_or_damaged_manifest_does_not_matter() -> Outcome {
    let fixture = three();
    std::fs::write(fixture.path("store/manifests/v1.1.0"), "noise").unwrap();
    let document = fixture.json(&["rollback"]);
    assert_eq!(document["to"], "v1.1.0");
    assert!(
        document["warnings"][0].as_str().unwrap().starts_with("v1.1.0 cannot be checked: manifest "),
        "{document:#}"
    );
    let fixture = three();
    std::fs::remove_dir_all(fixture.path("store/manifests")).unwrap();
    assert_eq!(fixture.json(&["rollback"])["to"], "v1.1.0");
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    Ok(())
}

/// Takes every block and every inode.
fn fill(image: &Image) {
    let zeros = vec![0_u8; 1 << 16];
    let mut ballast = std::fs::File::create(image.path("ballast")).unwrap();
    for piece in [1 << 16, 4096, 1] {
        while ballast.write_all(&zeros[..piece]).and_then(|()| ballast.sync_data()).is_ok() {}
    }
    std::fs::create_dir(image.path("inodes")).unwrap_or_default();
    let mut count = 0;
    while std::fs::File::create(image.path(format!("inode-{count}"))).is_ok() {
        count += 1;
    }
    let probe = symlink("x", image.path("probe"));
    assert_eq!(probe.map_err(|error| error.raw_os_error()), Err(Some(rustix::io::Errno::NOSPC.raw_os_error())));
}

fn a_full_disk_does_not_matter() -> Outcome {
    for options in [&["--to", "previous"][..], &["--to", "factory"], &[], &["--to", "1.0.0"]] {
        let image = Image::with_options(Kind::Ext4, 32, &["-m", "0", "-N", "1000"])?;
        let fixture = with_releases(Fixture::in_dir(image.mounted()), 3);
        fixture.run(&["factory", "set", "1.0.0"]).ok();
        let fixture = activated(fixture);
        fixture.config();
        fill(&image);
        let arguments: Vec<&str> = [&["rollback", "--reason", "full"], options].concat();
        let document = fixture.json(&arguments);
        let to = if options.last().is_none_or(|to| *to == "previous") { "v1.1.0" } else { "v1.0.0" };
        assert_eq!(document["to"], to, "{document:#}");
        assert_eq!(document["recorded"], true, "room was set aside for it: {document:#}");
        assert_eq!(fixture.link("versions/current"), to);
        assert_eq!(fixture.json(&["status"])["current"]["version"], to);
        assert_eq!(bad(&fixture), ["v1.2.0"]);
        // And once more, from there to the last level.
        fixture.json(&["rollback", "--to", "factory"]);
        assert_eq!(fixture.link("versions/current"), "v1.0.0");
    }
    Ok(())
}

fn a_running_import_and_a_held_store_lock_are_not_waited_for() -> Outcome {
    let fixture = three();
    // A tar archive that begins and does not go on.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_path("big").unwrap();
    header.set_cksum();
    builder.get_mut().extend_from_slice(header.as_bytes());
    let mut import = fixture
        .command()
        .args(["import", "-", "--version", "9.9.9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stream = import.stdin.take().unwrap();
    stream.write_all(builder.get_ref()).unwrap();
    stream.write_all(&[1; 1000]).unwrap();
    let staging = fixture.path("store/staging");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(&staging).unwrap().next().is_none() {
        assert!(Instant::now() < deadline, "the import never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    fixture.json(&["--lock-timeout", "0", "rollback"]);
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    assert!(import.try_wait().unwrap().is_none(), "the import still runs");
    drop(stream);
    assert!(!import.wait().unwrap().success());
    // A gc holds these two.
    let hold = |name: &str| {
        let file = std::fs::File::options().append(true).open(fixture.path("store").join(name)).unwrap();
        file.lock().unwrap();
        file
    };
    let _held = [hold("lock"), hold("publish.lock")];
    fixture.json(&["--lock-timeout", "0", "activate", "1.0.0"]);
    fixture.json(&["--lock-timeout", "0", "rollback", "--to", "1.1.0"]);
    assert_eq!(fixture.link("versions/current"), "v1.1.0");
    Ok(())
}

/// The switch comes before anything is synced or written, and after a handful of looks.
fn little_happens_before_the_switch() -> Outcome {
    needs_program("strace")?;
    let fixture = three();
    let trace = fixture.beside("trace");
    let mut command = std::process::Command::new("strace");
    command.arg("-f").arg("-o").arg(&trace).arg(crate::support::binary());
    command.arg("--root").arg(fixture.root()).arg("--config").arg(fixture.config());
    let output = command.args(["rollback", "--verify", "none"]).output().unwrap();
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    if !output.status.success() && text.is_empty() {
        return Err(Skipped("strace may not trace here".into()));
    }
    let calls: Vec<&str> = text.lines().collect();
    let at = |what: &str| calls.iter().position(|call| call.contains(what));
    let opened = at("\"versions\"").expect("versions/ is opened");
    let switched = at("\"current\") = 0").expect("the switch");
    assert!(calls[switched].contains("rename"), "{}", calls[switched]);
    let before = &calls[opened..switched];
    assert!(before.len() < 90, "{} calls: {before:#?}", before.len());
    for needless in ["sync", "clone", "manifests", "objects", "index.db", "write("] {
        assert!(!before.iter().any(|call| call.contains(needless)), "{needless}: {before:#?}");
    }
    assert!(calls[switched..].iter().any(|call| call.contains("fsync")));
    Ok(())
}

fn a_normal_user_with_a_store_of_his_own_goes_back() -> Outcome {
    const NOBODY: u32 = 65534;
    let fixture = Fixture::bare();
    run_as(&fixture, NOBODY, &["--version"])?.ok();
    std::os::unix::fs::chown(&fixture.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    run_as(&fixture, NOBODY, &["init"])?.ok();
    for number in 0..2 {
        tree::release(fixture.beside("source"), number);
        let (source, version) = (fixture.beside("source"), format!("1.{number}.0"));
        run_as(&fixture, NOBODY, &["import", source.to_str().unwrap(), "--version", &version, "--activate"])?.ok();
    }
    let _thawed = Thawed(&fixture);
    run_as(&fixture, NOBODY, &["factory", "set", "1.0.0", "--isolated"])?.ok();
    run_as(&fixture, NOBODY, &["factory", "verify"])?.ok();
    run_as(&fixture, NOBODY, &["rollback"])?.ok();
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    Ok(())
}
