//! `doctor`: every finding says what is wrong, why it matters and what mends it; `--fix` mends what is safe.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::support::image::{Image, Kind, fill, make_room};
use crate::support::{Fixture, Outcome, Ran, needs_root, releases, run_as, tree, with_releases};

tests![
    a_sound_store_has_no_findings,
    every_finding_says_what_why_and_how_to_mend_it,
    role_links_are_found_and_mended,
    links_to_programs_are_found_and_mended,
    writes_into_a_tree_are_named_by_version_and_path,
    a_broken_history_is_begun_anew_and_gc_works_again,
    a_lost_history_is_begun_anew_from_manifests,
    a_damaged_index_is_made_anew,
    a_damaged_format_file_is_written_anew,
    what_interruptions_left_is_removed,
    it_works_with_a_full_disk,
    it_works_read_only,
    it_works_for_a_user_who_owns_nothing,
    risky_mount_options_and_a_missing_reserve_are_told,
    a_refused_configuration_is_found,
    too_little_room_is_found,
    what_switches_left_behind_is_found,
    what_does_not_belong_into_a_version_is_found,
    a_role_that_leads_to_a_name_without_v_is_found,
    processes_of_another_version_and_those_that_write_are_found,
    a_supervisor_that_does_not_answer_is_found,
];

fn run(fixture: &Fixture, arguments: &[&str]) -> Ran {
    let bin = fixture.beside("bin").display().to_string();
    std::fs::create_dir_all(fixture.beside("bin")).unwrap();
    let mut command = fixture.command();
    Ran::of(&command.args(["--json", "doctor", "--bin-dir", &bin]).args(arguments).output().unwrap())
}

fn doctor(fixture: &Fixture, arguments: &[&str], code: i32) -> Value {
    run(fixture, arguments).expect(code).json()
}

/// Kinds of findings, but for processes that nobody may inspect: which machine has some is not ours to say.
fn kinds(document: &Value) -> Vec<String> {
    let all = document["findings"].as_array().unwrap().iter();
    let kinds = all.map(|finding| finding["kind"].as_str().unwrap().to_owned());
    kinds.filter(|kind| kind != "processes-hidden").collect()
}

fn sound(fixture: &Fixture) {
    let document = doctor(fixture, &[], 0);
    assert_eq!(kinds(&document), Vec::<String>::new(), "{document:#}");
    assert_eq!(document["not_done"], serde_json::json!([]));
}

fn a_sound_store_has_no_findings() -> Outcome {
    let fixture = releases(2);
    sound(&fixture);
    for call in [&["activate", "1.0.0"][..], &["activate", "1.1.0"], &["factory", "set", "1.0.0"]] {
        fixture.run(call).ok();
    }
    sound(&fixture);
    let measured = &doctor(&fixture, &[], 0)["measured"];
    assert_eq!((&measured["hardlinks"], &measured["read_only"]), (&true.into(), &false.into()));
    assert!(measured["most_links"].as_u64().unwrap() >= 3, "the object itself and two trees: {measured}");
    let before = std::fs::read(fixture.path("store/history")).unwrap();
    let document = doctor(&fixture, &["--fix"], 0);
    assert_eq!(document["fixed"], serde_json::json!([]));
    assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), before);
    Ok(())
}

fn every_finding_says_what_why_and_how_to_mend_it() -> Outcome {
    let fixture = releases(2);
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/lock")).unwrap();
    symlink("v9", fixture.path("versions/current")).unwrap();
    std::fs::remove_file(fixture.path("store/index.db")).unwrap();
    let document = doctor(&fixture, &[], 5);
    assert_eq!(kinds(&document), ["role-dangling", "missing", "index"], "the gravest first");
    for finding in document["findings"].as_array().unwrap() {
        for field in ["what", "why", "remedy"] {
            assert!(finding[field].as_str().unwrap().len() > 10, "{finding}");
        }
    }
    let said = fixture.run(&["doctor"]).expect(5).stdout;
    for part in ["damage   v1.0.0: lib/lock: it is not there", "why:  ", "mend: tope-store verify v1.0.0 --repair"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}

fn role_links_are_found_and_mended() -> Outcome {
    let fixture = releases(3);
    for version in ["1.0.0", "1.1.0"] {
        fixture.run(&["activate", version]).ok();
    }
    fixture.run(&["factory", "set", "1.2.0"]).ok();
    let point = |role: &str, target: &str| {
        let path = fixture.path("versions").join(role);
        std::fs::remove_file(&path).unwrap();
        symlink(target, path).unwrap();
    };
    point("current", "nowhere");
    point("previous", "./v1.0.0/");
    point("factory", "/elsewhere");
    let document = doctor(&fixture, &[], 5);
    assert_eq!(kinds(&document), ["role-dangling", "role-foreign", "role-roundabout"]);
    let document = doctor(&fixture, &["--fix"], 0);
    assert!(document["fixed"].as_array().unwrap().len() >= 2, "{document:#}");
    let links = ["current", "previous", "factory"].map(|role| fixture.link(&format!("versions/{role}")));
    assert_eq!(links, ["v1.1.0", "v1.0.0", "v1.2.0"]);
    sound(&fixture);
    // A link that somebody chose by hand is theirs.
    point("current", "v1.2.0");
    let document = doctor(&fixture, &["--fix"], 0);
    assert_eq!(kinds(&document), ["role-changed-by-hand"]);
    assert_eq!(fixture.link("versions/current"), "v1.2.0");
    // What is no link stays, and is said.
    std::fs::remove_file(fixture.path("versions/previous")).unwrap();
    std::fs::create_dir(fixture.path("versions/previous")).unwrap();
    let document = doctor(&fixture, &["--fix"], 5);
    assert!(kinds(&document).contains(&"role-not-a-link".to_owned()), "{document:#}");
    assert!(fixture.path("versions/previous").is_dir());
    Ok(())
}

fn links_to_programs_are_found_and_mended() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.1.0"]).ok();
    let bin = fixture.beside("bin");
    std::fs::create_dir(&bin).unwrap();
    fixture.run(&["link", "--bin-dir", bin.to_str().unwrap()]).ok();
    sound(&fixture);
    std::fs::remove_file(bin.join("web-server")).unwrap();
    std::fs::remove_file(bin.join("device-api")).unwrap();
    symlink(fixture.path("versions/v1.0.0/bin/device-api"), bin.join("device-api")).unwrap();
    symlink(fixture.path("versions/current/bin/gone"), bin.join("gone")).unwrap();
    std::fs::remove_file(fixture.path("services/web-server")).unwrap();
    std::fs::write(fixture.path("services/web-server"), "mine").unwrap();
    let found: std::collections::BTreeSet<String> = kinds(&doctor(&fixture, &[], 1)).into_iter().collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["link-foreign", "link-missing", "link-stale", "link-wrong"]);
    let document = doctor(&fixture, &["--fix"], 0);
    assert_eq!(kinds(&document), ["link-foreign"]);
    assert_eq!(document["fixed"].as_array().unwrap().len(), 3);
    assert_eq!(std::fs::read_to_string(fixture.path("services/web-server")).unwrap(), "mine");
    Ok(())
}

fn writes_into_a_tree_are_named_by_version_and_path() -> Outcome {
    needs_root()?;
    let fixture = releases(2);
    std::fs::write(fixture.path("versions/v1.1.0/bin/device-api"), "written by root").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(fixture.path("versions/v1.0.0/bin/device-api"), mode).unwrap();
    let document = doctor(&fixture, &["--fix"], 5);
    let told: Vec<(String, String, String)> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap_or("-").to_owned();
            (text("kind"), text("version"), text("path"))
        })
        .filter(|(kind, ..)| kind != "object" && kind != "processes-hidden")
        .collect();
    let expected = [("mode", "v1.0.0", "bin/device-api"), ("written", "v1.1.0", "bin/device-api")];
    assert_eq!(told, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())), "{document:#}");
    Ok(())
}

fn damage_history(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap().replacen("\"import\"", "\"imporT\"", 1);
    std::fs::write(path, text).unwrap();
}

fn a_broken_history_is_begun_anew_and_gc_works_again() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["pin", "1.2.0"]).ok();
    damage_history(&fixture.path("store/history"));
    fixture.run(&["gc", "--keep-last", "1"]).expect(4);
    assert_eq!(kinds(&doctor(&fixture, &[], 5)), ["history-broken"]);
    let document = doctor(&fixture, &["--fix"], 0);
    assert!(document["fixed"][0].as_str().unwrap().starts_with("began the history again"), "{document:#}");
    sound(&fixture);
    let shown = fixture.json(&["list"]);
    let pinned = shown["versions"].as_array().unwrap().iter().filter(|version| version["pinned"] == true);
    assert_eq!(pinned.map(|version| version["name"].as_str().unwrap()).collect::<Vec<_>>(), ["v1.2.0"]);
    let events = fixture.json(&["history"]);
    let resets = events["events"].as_array().unwrap().iter().filter(|event| event["action"] == "history-reset");
    assert_eq!(resets.count(), 1);
    let removed = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2, "{removed:#}");
    fixture.run(&["verify"]).ok();
    Ok(())
}

fn a_lost_history_is_begun_anew_from_manifests() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.1.0"]).ok();
    std::fs::remove_file(fixture.path("store/history")).unwrap();
    fixture.run(&["gc", "--keep-last", "1"]).expect(4);
    // Nothing begins a history behind the operator's back.
    fixture.run(&["pin", "1.0.0"]).expect(5);
    fixture.run(&["gc", "--keep-last", "1"]).expect(4);
    assert_eq!(kinds(&doctor(&fixture, &[], 5)), ["history-missing"]);
    let _document = doctor(&fixture, &["--fix"], 0);
    sound(&fixture);
    let seqs = fixture.json(&["list"]);
    assert_eq!(seqs["versions"][1]["seq"], 2);
    tree::release(fixture.beside("source"), 7);
    fixture.import("source", "1.7.0");
    assert_eq!(fixture.json(&["show", "1.7.0"])["seq"], 3);
    fixture.run(&["verify"]).ok();
    Ok(())
}

fn a_damaged_index_is_made_anew() -> Outcome {
    let fixture = releases(2);
    let index = fixture.path("store/index.db");
    std::fs::write(&index, vec![7; 9000]).unwrap();
    assert_eq!(kinds(&doctor(&fixture, &[], 1)), ["index"]);
    let document = doctor(&fixture, &["--fix"], 0);
    assert_eq!(document["fixed"], serde_json::json!(["made the index anew"]));
    // Rows that make sense and are wrong.
    let connection = rusqlite::Connection::open(&index).unwrap();
    connection.execute("UPDATE entries SET mode = 511 WHERE kind = 1", []).unwrap();
    drop(connection);
    assert_eq!(kinds(&doctor(&fixture, &[], 1)), ["index"]);
    let _document = doctor(&fixture, &["--fix"], 0);
    sound(&fixture);
    Ok(())
}

fn a_damaged_format_file_is_written_anew() -> Outcome {
    for damage in [|path: &Path| std::fs::remove_file(path).unwrap(), |path: &Path| std::fs::write(path, "x").unwrap()]
    {
        let fixture = releases(1);
        let path = fixture.path("store/format");
        let before = std::fs::read(&path).unwrap();
        damage(&path);
        assert!(matches!(fixture.run(&["list"]).code, 5 | 9));
        assert_eq!(kinds(&doctor(&fixture, &[], 5))[0], "format-damaged");
        let _document = doctor(&fixture, &["--fix"], 0);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        sound(&fixture);
        // What a newer build wrote is none of our business.
        let newer = String::from_utf8(before).unwrap().replace("\"base-1\"", "\"base-1\", \"moon\"");
        std::fs::write(&path, &newer).unwrap();
        let document = doctor(&fixture, &["--fix"], 1);
        assert_eq!(kinds(&document)[0], "format-unknown");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
    }
    Ok(())
}

fn what_interruptions_left_is_removed() -> Outcome {
    let fixture = releases(1);
    tree::file(fixture.path("store/staging/run-1-0/tree/file"), "half");
    assert_eq!(kinds(&doctor(&fixture, &[], 0)), ["leftovers"]);
    let document = doctor(&fixture, &["--fix"], 0);
    assert_eq!(document["fixed"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(fixture.path("store/staging")).unwrap().count(), 0);
    sound(&fixture);
    Ok(())
}

fn it_works_with_a_full_disk() -> Outcome {
    let image = Image::with_options(Kind::Ext4, 16, &["-N", "400"])?;
    let fixture = with_releases(Fixture::in_dir(image.path("")), 2);
    fixture.run(&["activate", "1.1.0"]).ok();
    std::fs::create_dir_all(fixture.beside("bin")).unwrap();
    fill(&image.mounted());
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/lock")).unwrap();
    image_is_full_again(&image);
    let document = doctor(&fixture, &[], 5);
    let found = kinds(&document);
    assert!(found.contains(&"missing".to_owned()) && found.contains(&"space".to_owned()), "{document:#}");
    let document = doctor(&fixture, &["--fix"], 5);
    assert!(kinds(&document).contains(&"missing".to_owned()));
    make_room(&image.mounted());
    Ok(())
}

fn image_is_full_again(image: &Image) {
    drop(std::fs::File::create(image.path("inode-again")));
}

fn it_works_read_only() -> Outcome {
    let image = Image::new(Kind::Ext4, 64)?;
    let fixture = with_releases(Fixture::in_dir(image.path("")), 2);
    std::fs::create_dir_all(fixture.beside("bin")).unwrap();
    fixture.config();
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    let document = doctor(&fixture, &["--fix"], 1);
    assert_eq!(kinds(&document), ["read-only"], "{document:#}");
    Ok(())
}

fn it_works_for_a_user_who_owns_nothing() -> Outcome {
    needs_root()?;
    let fixture = releases(2);
    let ran = run_as(&fixture, 12345, &["--json", "doctor", "--fix"])?.ok();
    let document = ran.json();
    // Others' processes, of which it cannot tell what they use.
    assert_eq!(kinds(&document), Vec::<String>::new(), "{document:#}");
    let hidden = finding(&document, "processes-hidden");
    let what = hidden["what"].as_str().unwrap();
    assert!(what.starts_with("processes that could not be inspected: 1 ("), "each by number and command: {what}");
    assert!(!document["not_done"].as_array().unwrap().is_empty(), "{document:#}");
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/lock")).unwrap();
    let ran = run_as(&fixture, 12345, &["--json", "doctor", "--fix"])?.expect(5);
    assert_eq!(kinds(&ran.json()), ["missing"]);
    Ok(())
}

fn risky_mount_options_and_a_missing_reserve_are_told() -> Outcome {
    let image = Image::new(Kind::Ext4, 64)?;
    image.unmount()?;
    image.mount(&["loop", "data=writeback", "nobarrier"])?;
    let fixture = with_releases(Fixture::in_dir(image.path("")), 1);
    std::fs::remove_file(fixture.path("store/reserve")).unwrap();
    let document = doctor(&fixture, &[], 1);
    assert_eq!(kinds(&document), ["mount-options", "mount-options", "reserve"], "{document:#}");
    let document = doctor(&fixture, &["--fix"], 1);
    assert_eq!(document["fixed"], serde_json::json!(["set the reserve aside"]));
    Ok(())
}

/// The finding of a kind; what to do about it must be said.
#[track_caller]
fn finding(document: &Value, kind: &str) -> Value {
    let all = document["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {document:#}"));
    assert!(found["remedy"].as_str().unwrap().len() > 10 && found["why"].as_str().unwrap().len() > 10, "{found}");
    found.clone()
}

fn a_refused_configuration_is_found() -> Outcome {
    let fixture = releases(1);
    std::fs::write(fixture.config(), "[import]\nmin_fre = \"1MiB\"\n").unwrap();
    let found = finding(&doctor(&fixture, &[], 1), "configuration");
    assert!(found["what"].as_str().unwrap().contains("line 2, import.min_fre"), "{found}");
    Ok(())
}

fn too_little_room_is_found() -> Outcome {
    let fixture = releases(1);
    std::fs::write(fixture.config(), "[import]\nmin_free = \"1000TiB\"\n").unwrap();
    finding(&doctor(&fixture, &[], 1), "space");
    Ok(())
}

fn what_switches_left_behind_is_found() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["rollback"]).ok();
    // The version that was left is bad, and somebody makes it current by hand.
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    symlink("v1.1.0", fixture.path("versions/current")).unwrap();
    let found = finding(&doctor(&fixture, &[], 1), "current-bad");
    assert_eq!(found["version"], "v1.1.0");
    std::fs::write(fixture.path("store/trial"), "no trial").unwrap();
    finding(&doctor(&fixture, &[], 1), "trial-unreadable");
    Ok(())
}

fn what_does_not_belong_into_a_version_is_found() -> Outcome {
    let fixture = releases(1);
    tree::file(fixture.path("versions/v1.0.0/bin/stray"), "left here");
    let found = finding(&doctor(&fixture, &[], 1), "superfluous");
    assert_eq!((&found["version"], &found["path"]), (&"v1.0.0".into(), &"bin/stray".into()));
    Ok(())
}

fn a_role_that_leads_to_a_name_without_v_is_found() -> Outcome {
    let fixture = releases(1);
    tree::release(fixture.path("versions/2.0.0"), 2);
    for target in ["2.0.0", "./2.0.0/"] {
        let _ = std::fs::remove_file(fixture.path("versions/current"));
        symlink(target, fixture.path("versions/current")).unwrap();
        let found = finding(&doctor(&fixture, &[], 5), "role-without-v");
        assert_eq!(found["what"], "current leads to versions/2.0.0, and names of versions begin with v");
    }
    // The remedy, as it is printed.
    std::fs::rename(fixture.path("versions/2.0.0"), fixture.path("versions/v2.0.0")).unwrap();
    fixture.run(&["adopt", "v2.0.0"]).ok();
    fixture.run(&["activate", "v2.0.0"]).ok();
    sound(&fixture);
    Ok(())
}

fn processes_of_another_version_and_those_that_write_are_found() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    let reads = std::fs::File::open(fixture.path("versions/v1.0.0/bin/device-api")).unwrap();
    let document = doctor(&fixture, &[], 0);
    assert!(!kinds(&document).contains(&"service-stale".to_owned()), "it is current: {document:#}");
    fixture.run(&["activate", "1.1.0"]).ok();
    let found = finding(&doctor(&fixture, &[], 1), "service-stale");
    let what = found["what"].as_str().unwrap();
    assert!(what.contains(&format!("v1.0.0 is used while v1.1.0 is current, by {} (", std::process::id())), "{what}");
    drop(reads);
    // A directory that somebody stands in is no service.
    let mut stands =
        std::process::Command::new("sleep").arg("1000").current_dir(fixture.path("versions/v1.0.0")).spawn().unwrap();
    let document = doctor(&fixture, &[], 0);
    finding(&document, "process-stale");
    stands.kill().unwrap();
    stands.wait().unwrap();
    if needs_root().is_ok() {
        let path = fixture.path("versions/v1.1.0/bin/device-api");
        let writes = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let found = finding(&doctor(&fixture, &[], 1), "being-written");
        assert_eq!((&found["version"], &found["path"]), (&"v1.1.0".into(), &"bin/device-api".into()));
        drop(writes);
    }
    sound(&fixture);
    Ok(())
}

fn a_supervisor_that_does_not_answer_is_found() -> Outcome {
    let fixture = releases(1);
    let verbs = ["start", "stop", "restart", "status"];
    let templates = verbs.map(|verb| format!("{verb} = [\"/no/such/control\", \"{{unit}}\"]\n")).concat();
    let config = format!("[supervisor]\nkind = \"command\"\n{templates}[[service]]\nunit = \"api\"\n");
    std::fs::write(fixture.config(), config).unwrap();
    let document = doctor(&fixture, &[], 1);
    finding(&document, "supervisor-unanswered");
    finding(&document, "supervisor-command");
    // Nothing that this machine lacks is advised.
    assert!(
        !document.to_string().contains("systemctl") && !document.to_string().contains("journalctl"),
        "{document:#}"
    );
    // Where nothing is configured and no systemd runs, there is nothing to ask.
    if !Path::new("/run/systemd/system").exists() {
        std::fs::write(fixture.config(), "").unwrap();
        sound(&fixture);
    }
    Ok(())
}
