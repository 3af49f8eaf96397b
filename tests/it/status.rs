//! `status`

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, redacted, releases, run_as, tree, with_releases};

tests![
    the_document,
    a_missing_or_dangling_current_has_an_exit_code,
    drift_is_shown,
    a_read_only_mount_can_be_looked_at,
    any_user_may_look,
    what_an_interruption_left_is_named
];

fn the_document() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    fixture.run(&["activate", "1.1.0"]).ok();
    fixture.run(&["confirm"]).ok();
    let document = fixture.json(&["status"]);
    let role = |version: &str, digest: &serde_json::Value, state: &str| {
        json!({
            "version": version, "link": "plain", "target": null, "digest": digest, "state": state, "evidence": null,
            "recorded": version, "changed_by_hand": false,
        })
    };
    let expected = json!({
        "schema": 1, "root": "DIR/root",
        "current": role("v1.1.0", &document["current"]["digest"], "good"),
        "previous": role("v1.0.0", &document["previous"]["digest"], "unconfirmed"),
        "factory": {
            "version": null, "link": "absent", "target": null, "digest": null, "state": "unconfirmed", "evidence": null,
            "recorded": null, "changed_by_hand": false,
        },
        "health": {"checked": true, "ok": true, "not_checked_because": null, "problems": [], "unseen": 0, "newer": false},
        "trial": null, "degraded": null,
        "versions": 2, "missing_tree": [], "loss": null, "unmanaged": [], "history": "sound", "history_detail": null,
        "abandoned": [], "free_bytes": "…", "free_inodes": "…", "format_obstacle": null,
    });
    assert_eq!(redacted(&fixture, &document), expected);
    assert!(document["current"]["digest"].as_str().unwrap().starts_with("t1:"));
    Ok(())
}

fn a_missing_or_dangling_current_has_an_exit_code() -> Outcome {
    let fixture = releases(1);
    let ran = fixture.run(&["--json", "status"]).expect(3);
    assert_eq!(ran.json()["current"]["link"], "absent");
    symlink("v9", fixture.path("versions/current")).unwrap();
    let ran = fixture.run(&["status"]).expect(3);
    assert!(ran.stdout.contains("current   dangling: leads to v9"), "{ran:?}");
    std::fs::remove_file(fixture.path("versions/current")).unwrap();
    symlink("/etc", fixture.path("versions/current")).unwrap();
    assert_eq!(fixture.run(&["--json", "status"]).expect(3).json()["current"]["link"], "foreign");
    Fixture::bare().run(&["status"]).expect(9);
    Ok(())
}

fn drift_is_shown() -> Outcome {
    let fixture = releases(2);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::remove_file(fixture.path("versions/v1.0.0/lib/common.so")).unwrap();
    std::fs::create_dir(fixture.path("versions/by-hand")).unwrap();
    std::fs::remove_dir_all(fixture.path("versions/v1.1.0")).unwrap();
    let document = fixture.json(&["status"]);
    assert_eq!(document["health"]["problems"][0]["path"], "lib/common.so");
    assert_eq!((&document["unmanaged"], &document["missing_tree"]), (&json!(["by-hand"]), &json!(["v1.1.0"])));
    let text = fixture.run(&["status"]).ok().stdout;
    assert!(text.contains("health    damaged:\n          lib/common.so: it is not there\n"), "{text}");
    Ok(())
}

fn a_read_only_mount_can_be_looked_at() -> Outcome {
    let image = Image::new(Kind::Ext4, 32)?;
    let fixture = with_releases(Fixture::in_dir(image.mounted()), 1);
    fixture.run(&["activate", "1.0.0"]).ok();
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    let document = fixture.json(&["status", "--verify", "full"]);
    assert_eq!((&document["health"]["ok"], &document["current"]["version"]), (&true.into(), &"v1.0.0".into()));
    assert_eq!(fixture.json(&["history", "-n", "1"])["events"][0]["action"], "activate");
    Ok(())
}

fn any_user_may_look() -> Outcome {
    let fixture = releases(1);
    tree::file(fixture.beside("more/secret/key"), "x");
    fixture.import("more", "2.0.0");
    fixture.run(&["activate", "1.0.0"]).ok();
    let document = run_as(&fixture, 65534, &["--json", "status"])?.ok().json();
    assert_eq!((&document["health"]["ok"], &document["abandoned"]), (&true.into(), &().into()));
    run_as(&fixture, 65534, &["history"])?.ok();
    Ok(())
}

fn what_an_interruption_left_is_named() -> Outcome {
    let fixture = releases(1);
    fixture.run(&["activate", "1.0.0"]).ok();
    std::fs::create_dir(fixture.path("store/staging/run-1-0")).unwrap();
    assert_eq!(fixture.json(&["status"])["abandoned"], json!(["run-1-0"]));
    Ok(())
}
