//! The machines that the other tests stand on: they boot, keep what was written, and lose what was not durable.

use crate::support::container::Machine;
use crate::support::image::{Image, Kind};
use crate::support::{Outcome, tree};

tests![
    a_service_runs_from_the_current_version,
    a_machine_boots_again_with_what_it_was_given,
    a_script_that_fails_gives_its_code,
    a_power_cut_keeps_what_was_synced_and_nothing_else
];

const UNIT: &str =
    "[Service]\nExecStart=/opt/tope/versions/current/bin/device-api\n[Install]\nWantedBy=multi-user.target\n";

fn a_service_runs_from_the_current_version() -> Outcome {
    let machine = Machine::new()?;
    for version in ["1.0.0", "1.1.0"] {
        let program = format!("#!/bin/sh\necho \"this is {version}\"\nexec sleep 1000\n");
        tree::program(machine.path(format!("root/{version}/bin/device-api")), program);
    }
    machine.file("etc/systemd/system/device-api.service", UNIT);
    let script = "
        tope-store init
        for version in 1.0.0 1.1.0; do tope-store import /root/$version --version $version; done
        tope-store activate 1.0.0
        systemctl start device-api
        systemctl is-active device-api
        tope-store activate 1.1.0
        systemctl restart device-api
        systemctl is-active device-api
        readlink /proc/$(systemctl show --property MainPID --value device-api)/exe
        journalctl --sync
        journalctl --unit device-api --output cat | grep 'this is'";
    let ran = machine.boot(script)?.ok();
    let said: Vec<&str> = ran.stdout.lines().filter(|line| *line == "active" || line.contains("this is")).collect();
    assert_eq!(said, ["active", "active", "this is 1.0.0", "this is 1.1.0"], "{ran:#?}");
    assert_eq!(machine.link("opt/tope/versions/current"), "v1.1.0");
    Ok(())
}

fn a_machine_boots_again_with_what_it_was_given() -> Outcome {
    let machine = Machine::new()?;
    machine.file("etc/systemd/system/device-api.service", UNIT);
    machine.program("opt/tope/versions/v1/bin/device-api", "#!/bin/sh\nexec sleep 1000\n");
    std::os::unix::fs::symlink("v1", machine.path("opt/tope/versions/current")).unwrap();
    let boot_id = "cat /proc/sys/kernel/random/boot_id; systemctl enable device-api";
    let first = machine.boot(boot_id)?.ok();
    let second = machine.boot("cat /proc/sys/kernel/random/boot_id; systemctl is-active device-api")?.ok();
    let (first, second): (Vec<_>, Vec<_>) = (first.stdout.lines().collect(), second.stdout.lines().collect());
    assert_eq!((first.len(), second.len()), (1, 2), "{first:?} {second:?}");
    assert_ne!(first[0], second[0], "each boot has an id of its own");
    assert_eq!(second[1], "active", "{}", machine.journal());
    Ok(())
}

fn a_script_that_fails_gives_its_code() -> Outcome {
    let machine = Machine::new()?;
    let ran = machine.boot("echo out; echo err >&2; tope-store rollback")?;
    assert_eq!((ran.code, ran.stdout.as_str()), (9, "out\n"), "{ran:#?}");
    assert!(ran.stderr.starts_with("err\n"), "{ran:#?}");
    Ok(())
}

fn a_power_cut_keeps_what_was_synced_and_nothing_else() -> Outcome {
    let machine = Machine::with_store_on(Image::new(Kind::Ext4, 32)?)?;
    let mut running = machine.start(
        "echo kept >/opt/tope/kept; sync; echo lost >/opt/tope/lost; echo >/tope-test/written; exec sleep 1000",
    )?;
    running.wait_for("tope-test/written");
    running.cut_power()?;
    assert_eq!(machine.read("opt/tope/kept"), "kept\n");
    assert!(!machine.path("opt/tope/lost").exists());
    assert_eq!(machine.boot("cat /opt/tope/kept")?.ok().stdout, "kept\n");
    Ok(())
}
