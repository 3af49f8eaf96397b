//! Units that are defined by the release itself, whose definitions a switch takes along, and units that nothing defines.

use std::os::unix::fs::symlink;

use crate::support::container::Machine;
use crate::support::image::{Image, Kind};
use crate::support::{Outcome, Skipped, tree};

tests![
    a_switch_takes_definitions_along,
    what_nobody_can_start_makes_no_release_bad,
    a_boot_that_goes_back_starts_services_as_the_older_version_defines_them
];

/// Shell functions: what is said of the process that runs as `api`, and everything up to a store with all releases.
const FUNCTIONS: &str = "
    runs() {
        tr '\\0' '\\n' </proc/$(systemctl show --property=MainPID --value api)/environ | grep RELEASE=
    }
    begin() {
        tope-store init
        for version in /root/1.*; do tope-store import $version --version ${version#/root/} >/dev/null; done
        tope-store factory set 1.0.0
    }
";

/// A machine whose service, which has to settle for so long, is defined below `current`, and three releases, the last
/// with this in its definition.
fn machine(settle: &str, last: &str) -> Result<Machine, Skipped> {
    let machine = Machine::with_store_on(Image::new(Kind::Ext4, 64)?)?;
    let config = format!("[[service]]\nunit = \"api.service\"\nsettle = \"{settle}\"\ntimeout = \"10m\"\n");
    machine.file("etc/tope-store/config.toml", config);
    for (version, more) in [("1.0.0", ""), ("1.1.0", ""), ("1.2.0", last)] {
        let program = "/opt/tope/versions/current/bin/api";
        let unit = format!("[Service]\nType=exec\nEnvironment=RELEASE={version}\nExecStart={program}\n{more}\n");
        machine.file(format!("root/{version}/units/api.service"), unit);
        tree::program(machine.path(format!("root/{version}/bin/api")), "#!/bin/sh\nexec sleep 100000\n");
    }
    let link = |target: &str, path: &str| {
        let path = machine.path(format!("etc/systemd/system/{path}"));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        symlink(target, path).expect("a link");
    };
    link("/opt/tope/versions/current/units/api.service", "api.service");
    link("../api.service", "multi-user.target.wants/api.service");
    let unit = "tope-store-boot-check.service";
    let text = std::fs::read(format!("{}/deploy/{unit}", env!("CARGO_MANIFEST_DIR"))).expect("a unit");
    machine.file(format!("etc/systemd/system/{unit}"), text);
    link(&format!("../{unit}"), &format!("sysinit.target.wants/{unit}"));
    Ok(machine)
}

fn a_switch_takes_definitions_along() -> Outcome {
    let machine = machine("300ms", "ExecStartPre=/bin/false")?;
    let script = format!(
        "{FUNCTIONS}
        begin
        tope-store activate 1.0.0 --restart=all
        runs
        tope-store activate 1.1.0 --restart
        runs
        code=0; tope-store activate 1.2.0 --restart || code=$?
        echo code $code
        runs
        tope-store rollback --restart
        runs"
    );
    let ran = machine.boot(&script)?.ok();
    let told = |line: &&str| line.starts_with("RELEASE=") || line.starts_with("code ");
    let told: Vec<&str> = ran.stdout.lines().filter(told).collect();
    // The last is older than what was read before it.
    let expected = ["RELEASE=1.0.0", "RELEASE=1.1.0", "code 7", "RELEASE=1.1.0", "RELEASE=1.0.0"];
    assert_eq!(told, expected, "{ran:#?}\n{}", machine.journal());
    Ok(())
}

/// A mistake in the configuration, and an operator's wish.
fn what_nobody_can_start_makes_no_release_bad() -> Outcome {
    let machine = machine("300ms", "")?;
    let script = format!(
        "{FUNCTIONS}
        config=/etc/tope-store/config.toml
        ln -s /dev/null /etc/systemd/system/masked.service
        service() {{ printf '[[service]]\\nunit = \"%s.service\"\\nsettle = \"0s\"\\n' $1 >>$config; }}
        service masked
        cp $config right
        service mistyped
        begin
        code=0; tope-store activate 1.0.0 --restart=all 2>/tope-test/said || code=$?
        echo code $code $(ls /opt/tope/versions)
        cat right >$config
        tope-store activate 1.0.0 --restart=all
        tope-store activate 1.1.0 --restart
        runs
        # In the way back it must not stand.
        service mistyped
        tope-store rollback --restart
        runs
        tope-store --json list | grep -c '\"state\": \"bad\"'"
    );
    let ran = machine.boot(&script)?.ok();
    let told = |line: &&str| line.starts_with("RELEASE=") || line.starts_with("code ") || line.len() == 1;
    let told: Vec<&str> = ran.stdout.lines().filter(told).collect();
    let expected = ["code 4 factory v1.0.0 v1.1.0 v1.2.0", "RELEASE=1.1.0", "RELEASE=1.0.0", "1"];
    assert_eq!(told, expected, "{ran:#?}\n{}", machine.journal());
    let said = std::fs::read_to_string(machine.path("tope-test/said")).expect("a file");
    assert!(said.contains("there is no mistyped.service, and no file of it in v1.0.0"), "{said}");
    Ok(())
}

fn a_boot_that_goes_back_starts_services_as_the_older_version_defines_them() -> Outcome {
    // It has to settle for so long that every boot ends before it has proven itself.
    let machine = machine("5m", "")?;
    let script = format!(
        "{FUNCTIONS}
        begin
        tope-store activate 1.1.0
        sync
        tope-store activate 1.2.0 --restart=all &
        until [ $(readlink /opt/tope/versions/current) = v1.2.0 ]; do sleep 0.05; done
        echo >/tope-test/boot-0
        sleep 1000"
    );
    for boot in 0..=3 {
        let mark = format!("tope-test/boot-{boot}");
        let mut running = match boot {
            0 => machine.start(&script)?,
            _ => machine.start(&format!("echo >/{mark}\nsleep 1000"))?,
        };
        running.wait_for(&mark);
        running.cut_power()?;
    }
    let script = format!(
        "{FUNCTIONS}
        until [ \"$(systemctl is-active api)\" = active ]; do sleep 0.1; done
        readlink /opt/tope/versions/current
        runs"
    );
    let ran = machine.boot(&script)?.ok();
    assert_eq!(ran.stdout, "v1.1.0\nRELEASE=1.1.0\n", "{ran:#?}\n{}", machine.journal());
    Ok(())
}
