//! Units that systemd skips, and forgets at once since nothing refers to them.

use serde_json::Value;

use crate::support::container::Machine;
use crate::support::{Outcome, tree};

tests![a_unit_that_is_skipped_and_forgotten_passes, units_see_the_boot_of_the_container,];

/// Started by a device, say: neither enabled nor wanted.
fn a_unit_that_is_skipped_and_forgotten_passes() -> Outcome {
    let machine = Machine::new()?;
    let unit = |name: &str, text: &str| {
        let text = format!("{text}\n[Service]\nExecStart=/opt/tope/versions/current/bin/{name}\n");
        machine.file(format!("etc/systemd/system/{name}.service"), text);
    };
    unit("api", "[Unit]");
    unit("rare", "[Unit]\nConditionPathExists=/no/such/device");
    unit("picky", "[Unit]\nConditionPathExists=/opt/tope/versions/current/wanted");
    unit("short", "[Unit]");
    let service =
        |name: &str| format!("[[service]]\nunit = \"{name}.service\"\nsettle = \"300ms\"\ntimeout = \"20s\"\n");
    machine.file("etc/tope-store/config.toml", ["api", "rare", "picky"].map(service).concat());
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        for name in ["api", "rare", "picky"] {
            let text = format!("#!/bin/sh\n# {version}\nexec sleep 100000\n");
            tree::program(machine.path(format!("root/{version}/bin/{name}")), text);
        }
        tree::program(machine.path(format!("root/{version}/bin/short")), format!("#!/bin/sh\n# {version}\n"));
    }
    machine.file("root/1.1.0/wanted", "");
    let more = service("short").replace('\n', "\\n");
    let script = format!(
        "try() {{ code=0; tope-store --json activate $1 --restart=all >/tope-test/$1.json || code=$?; echo $1 $code; }}
        tope-store init
        for version in /root/1.*; do tope-store import $version --version ${{version#/root/}} >/dev/null; done
        tope-store factory set 1.0.0
        # Both are skipped; then one runs; then it runs no longer, and the release took away what it needs.
        try 1.0.0
        try 1.1.0
        try 1.2.0
        # One that ends at once is forgotten as well, and was not skipped: it holds with no version.
        printf '{more}' >>/etc/tope-store/config.toml
        try 1.3.0
        tope-store --json status >/tope-test/status.json
        until [ -z \"$(systemctl list-units --all --no-legend 'tope-store-hold-*')\" ]; do sleep 0.1; done"
    );
    let ran = machine.boot(&script)?.ok();
    let told: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("1.")).collect();
    assert_eq!(told, ["1.0.0 0", "1.1.0 0", "1.2.0 7", "1.3.0 8"], "{ran:#?}\n{}", machine.journal());
    let json =
        |name: &str| -> Value { serde_json::from_str(&machine.read(format!("tope-test/{name}.json"))).expect("JSON") };
    let judged = |version: &str| json(version)["attempts"][0]["services"].clone();
    for version in ["1.0.0", "1.1.0"] {
        let services = judged(version);
        let passed = services.as_array().unwrap().iter().filter(|one| one["judgement"] == "passed").count();
        assert_eq!(passed, 3, "{version}: {services:#}");
    }
    let evidence = |version: &str, at: usize| judged(version)[at]["evidence"]["detail"].to_string();
    assert!(evidence("1.2.0", 2).contains("it ran before, and a condition"), "{}", judged("1.2.0"));
    assert!(!evidence("1.3.0", 3).contains("null"), "{}", judged("1.3.0"));
    Ok(())
}

/// The sandbox of a unit covers what a container mounts over the kernel's file. An event that is recorded in it tells which
/// boot the unit sees.
fn units_see_the_boot_of_the_container() -> Outcome {
    let machine = Machine::new()?;
    tree::release(machine.path("root/1.0.0"), 1);
    let units = ["tope-store-boot-check", "tope-store-boot-judge", "tope-store-gc"];
    for unit in units {
        let text = std::fs::read(format!("{}/deploy/{unit}.service", env!("CARGO_MANIFEST_DIR"))).expect("a unit");
        machine.file(format!("etc/systemd/system/{unit}.service"), text);
        let other = format!(
            "[Unit]\nConditionPathExists=\n[Service]\nExecStart=\nExecStart=/usr/bin/tope-store note 1.0.0 {unit}\nType=oneshot\n"
        );
        machine.file(format!("etc/systemd/system/{unit}.service.d/other.conf"), other);
    }
    let script = format!(
        "tope-store init >/dev/null
        tope-store import /root/1.0.0 --version 1.0.0 >/dev/null
        for unit in {}; do systemctl start $unit; done
        cat /proc/sys/kernel/random/boot_id
        grep -o '\"action\":\"note\"' /opt/tope/store/history | wc -l
        grep '\"action\":\"note\"' /opt/tope/store/history | grep -o '\"boot\":\"[^\"]*\"' | sort -u",
        units.join(" ")
    );
    let ran = machine.boot(&script)?.ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[1..], ["3", &format!("\"boot\":\"{}\"", lines[0])], "{ran:#?}\n{}", machine.journal());
    Ok(())
}
