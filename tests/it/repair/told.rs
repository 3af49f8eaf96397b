//! What is said and recorded of a repair.

use super::{assert_sound, list, overwrite, repair, run, with_another_mode};
use crate::support::{Outcome, releases, tree};

tests![
    a_sound_store_needs_no_repair,
    what_cannot_be_mended_is_marked_and_refused_until_it_can,
    one_version_asked_for_mends_the_others_that_share_its_damage,
    a_repair_is_recorded,
];

fn a_sound_store_needs_no_repair() -> Outcome {
    let fixture = releases(2);
    let before = std::fs::read(fixture.path("store/history")).unwrap();
    let document = repair(&fixture, &[], 0);
    assert_eq!((&document["ok"], list(&document, "mended")), (&true.into(), vec![]));
    assert_eq!(std::fs::read(fixture.path("store/history")).unwrap(), before, "nothing is recorded");
    Ok(())
}

fn what_cannot_be_mended_is_marked_and_refused_until_it_can() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.0.0"]).ok();
    // The same size, the same time: no look shows it.
    let path = fixture.path("versions/v1.1.0/bin/device-api");
    let good = std::fs::read(&path).unwrap();
    let wrong = vec![b'x'; good.len()];
    overwrite(&path, &wrong, true);
    fixture.run(&["verify", "--quick"]).ok();
    let document = repair(&fixture, &[], 5);
    let remaining = list(&document, "remaining");
    assert!(remaining.contains(&"content v1.1.0 bin/device-api".to_owned()), "{remaining:?}");
    assert_eq!(document["repair"]["marked"], serde_json::json!(["v1.1.0"]));
    assert_eq!(fixture.json(&["show", "1.1.0"])["state"], "damaged");
    let refused = fixture.run(&["--json", "activate", "1.1.0"]).expect(4).json();
    assert_eq!(refused["error"]["kind"], "unhealthy");
    assert!(refused["error"]["message"].as_str().unwrap().contains("bin/device-api"), "{refused}");
    assert_eq!(fixture.link("versions/current"), "v1.0.0");
    fixture.run(&["activate", "1.2.0"]).ok();
    // The right bytes come from a release, and the mark goes.
    tree::file(fixture.beside("given/file"), &good);
    let given = fixture.beside("given").display().to_string();
    let document = repair(&fixture, &["--from", &given], 0);
    assert_eq!(document["repair"]["cleared"], serde_json::json!(["v1.1.0"]));
    assert_eq!(fixture.json(&["show", "1.1.0"])["state"], "unconfirmed");
    fixture.run(&["activate", "1.1.0"]).ok();
    assert_sound(&fixture);
    Ok(())
}

fn one_version_asked_for_mends_the_others_that_share_its_damage() -> Outcome {
    let fixture = with_another_mode();
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), &[9; 100_000], true);
    std::fs::remove_file(fixture.path("versions/v1.1.0/lib/lock")).unwrap();
    let document = run(&fixture, &["1.0.0"]).ok().json();
    let mended = list(&document, "mended");
    assert_eq!(mended[1..], ["relinked v1.0.0 lib/common.so", "relinked v1.1.0 lib/common.so"], "{mended:?}");
    // What it was not asked for and is not concerned with stays.
    let ran = fixture.run(&["verify"]).expect(5);
    assert!(ran.stdout.contains("v1.1.0: lib/lock: it is not there"), "{ran:?}");
    Ok(())
}

fn a_repair_is_recorded() -> Outcome {
    let fixture = with_another_mode();
    overwrite(&fixture.path("versions/v1.0.0/lib/common.so"), b"wrong", false);
    let _document = repair(&fixture, &[], 0);
    let events = fixture.json(&["history", "-n", "4"]);
    let told = events["events"].as_array().unwrap().iter().map(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or("-").to_owned();
        let what = text("text").split(' ').take(2).collect::<Vec<_>>().join(" ");
        format!("{} {} {} {}", text("action"), text("version"), text("outcome"), what)
    });
    let told: Vec<String> = told.collect();
    let of_version = |version| format!("repair {version} done relinked lib/common.so");
    assert_eq!(told[..2], [of_version("v1.1.0"), of_version("v1.0.0")]);
    assert!(told[2].starts_with("repair - done renewed store/objects/"), "{told:?}");
    assert!(told[3].starts_with("revoke - - "), "{told:?}");
    Ok(())
}
