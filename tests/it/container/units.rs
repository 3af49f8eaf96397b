//! The units in `deploy/`, run by systemd with all their restrictions.

use std::os::unix::fs::PermissionsExt;

use tope_store::model::Trial;
use tope_store::model::trial::Watcher;

use crate::support::container::Machine;
use crate::support::{Outcome, needs_program, tree};

tests![
    the_store_is_read_by_its_unit_and_damage_fails_it,
    versions_are_collected_by_their_unit_but_for_what_others_use,
    a_store_of_another_user_is_served_by_the_units_as_that_user,
    the_notices_of_each_unit_reach_a_receiver_on_the_network,
    a_trial_in_a_users_store_is_counted_judged_and_undone_by_the_units,
    the_example_services_run_and_cannot_write_into_a_version,
    the_timers_are_accepted_and_wait
];

/// A machine with the units in place.
fn machine() -> Result<Machine, crate::support::Skipped> {
    let machine = Machine::new()?;
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for item in std::fs::read_dir(deploy).expect("deploy").map(|item| item.expect("a file").path()) {
        let name = item.file_name().expect("a name").to_string_lossy().into_owned();
        let name = name.trim_end_matches(".example");
        if name.ends_with(".service") || name.ends_with(".timer") {
            machine.file(format!("etc/systemd/system/{name}"), std::fs::read(&item).expect("a unit"));
        }
    }
    Ok(machine)
}

fn releases(machine: &Machine, versions: &[&str]) {
    for version in versions {
        let top = machine.path(format!("root/{version}"));
        tree::program(top.join("bin/device-api"), format!("#!/bin/sh\necho {version}\nexec sleep 1000\n"));
        tree::file(top.join("services/device-api/settings.toml"), "port = 9080\n");
        tree::file(top.join("lib/secret"), "for its owner only\n");
        let secret: std::fs::Permissions = PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(top.join("lib/secret"), secret).unwrap();
        std::os::unix::fs::chown(top.join("lib/secret"), Some(1234), Some(1234)).unwrap();
    }
}

/// Imports what [`releases`] made.
const IMPORT: &str = "
    tope-store init >/dev/null
    for release in /root/[0-9]*; do tope-store import $release --version ${release##*/} >/dev/null; done
";
/// Prints how a unit ended.
const RESULT: &str =
    "result() { systemctl show --property Result --property ExecMainStatus --value \"$1\" | tr '\\n' ' '; echo; }";

fn the_store_is_read_by_its_unit_and_damage_fails_it() -> Outcome {
    let machine = machine()?;
    releases(&machine, &["1.0.0", "1.1.0"]);
    let script = format!(
        "systemctl start tope-store-verify
        {IMPORT}
        {RESULT}
        systemctl start tope-store-verify
        result tope-store-verify
        chmod u+w /opt/tope/versions/v1.1.0/lib/secret
        echo changed >/opt/tope/versions/v1.1.0/lib/secret
        systemctl start tope-store-verify || result tope-store-verify
        tope-store history --action revoke | wc -l
        systemctl start tope-store-verify || result tope-store-verify
        tope-store history --action revoke | wc -l
        mkdir /etc/systemd/system/tope-store-verify.service.d
        printf '%s\\n' '[Service]' ExecStart= \
            \"ExecStart=/bin/sh -c 'for at in store/objects store/manifests store/trash store versions .; \
                do touch /opt/tope/\\$\\$at/x && echo wrote \\$\\$at; done; true'\" \
            >/etc/systemd/system/tope-store-verify.service.d/other.conf
        systemctl daemon-reload
        systemctl start tope-store-verify
        journalctl --sync; journalctl --unit tope-store-verify --output cat"
    );
    let ran = machine.boot(&script)?.ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..5], ["success 0 ", "exit-code 5 ", "1", "exit-code 5 ", "1"], "{ran:#?}");
    let wrote: Vec<&&str> = lines.iter().filter(|line| line.starts_with("wrote ")).collect();
    assert_eq!(wrote, [&"wrote store"], "{ran:#?}");
    assert!(ran.stdout.contains("sound: 2 versions"), "{ran:#?}");
    assert!(lines.iter().any(|line| line.contains("lib/secret")), "{ran:#?}");
    assert!(lines.iter().any(|line| line.starts_with("revoked  store/objects/")), "{ran:#?}");
    assert!(!ran.stdout.contains("could not be recorded"), "{ran:#?}");
    Ok(())
}

fn versions_are_collected_by_their_unit_but_for_what_others_use() -> Outcome {
    let machine = machine()?;
    releases(&machine, &["1.0.0", "1.1.0", "1.2.0", "1.3.0"]);
    machine.file("etc/tope-store/config.toml", "[retention]\nkeep_last = 1\n");
    // Somebody else stands in 1.1.0, which only one who may inspect others can see; the factory version is immutable.
    let script = format!(
        "{IMPORT}
        {RESULT}
        tope-store factory set 1.0.0 --isolated >/dev/null
        tope-store activate 1.3.0 >/dev/null
        systemd-run --quiet --unit other --property User=nobody --working-directory /opt/tope/versions/v1.1.0 sleep 1000
        systemctl start tope-store-gc || :
        result tope-store-gc
        ls /opt/tope/versions
        systemctl stop other
        tope-store factory set 1.3.0 --replace >/dev/null
        systemctl start tope-store-gc || :
        result tope-store-gc
        ls /opt/tope/versions"
    );
    let ran = machine.boot(&script)?.ok();
    let said: Vec<&str> = ran.stdout.lines().collect();
    let expected = ["success 0 ", "current", "factory", "v1.0.0", "v1.1.0", "v1.3.0"];
    let expected = expected.into_iter().chain(["success 0 ", "current", "factory", "v1.3.0"]);
    assert_eq!(said, expected.collect::<Vec<_>>(), "{ran:#?}");
    Ok(())
}

/// Without the right to act as the store's owner, the units refused such a store, or left files of root's in it.
fn a_store_of_another_user_is_served_by_the_units_as_that_user() -> Outcome {
    let machine = machine()?;
    releases(&machine, &["1.0.0", "1.1.0", "1.2.0"]);
    machine.file("etc/tope-store/config.toml", "[retention]\nkeep_last = 1\n");
    let script = format!(
        "useradd --system tope
        install -d -o tope -g tope /opt/tope
        chown -R tope /root/[0-9]*; chmod 755 /root
        printf '%s' '{IMPORT}' >/root/import
        runuser -u tope -- sh -e /root/import
        runuser -u tope -- tope-store activate 1.2.0 >/dev/null
        {RESULT}
        for unit in tope-store-boot-check tope-store-verify tope-store-gc; do
            systemctl start $unit || journalctl --unit $unit --output cat
            result $unit
        done
        ls /opt/tope/versions
        find /opt/tope ! -user tope"
    );
    let ran = machine.boot(&script)?.ok();
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(said, ["success 0 ", "success 0 ", "success 0 ", "current", "v1.2.0"], "{ran:#?}");
    Ok(())
}

/// Takes documents over TCP for as long as there is no file `/root/deaf`, and lists their events.
const RECEIVER: &str = r#"
import json, os, socket
with socket.create_server(("127.0.0.1", 9999)) as server:
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            document = json.load(stream)
            if os.path.exists("/root/deaf"):
                continue
            with open("/root/told", "a") as told:
                print(document["event"], document["version"], document["from"], file=told)
            connection.sendall(b"taken")
"#;
/// Sends what it reads, and fails unless that is taken.
const SENDER: &str = r#"
import socket, sys
with socket.create_connection(("127.0.0.1", 9999), timeout=5) as connection:
    connection.sendall(sys.stdin.buffer.read())
    connection.shutdown(socket.SHUT_WR)
    sys.exit("not taken" if connection.recv(16) != b"taken" else 0)
"#;

/// The sandbox of `tope-store-verify.service` had no network, so that nobody ever heard of corruption; and where a unit may
/// not write, nobody would see that a notice was lost.
fn the_notices_of_each_unit_reach_a_receiver_on_the_network() -> Outcome {
    needs_program("python3")?;
    let machine = machine()?;
    releases(&machine, &["1.0.0", "1.1.0", "1.2.0", "1.3.0"]);
    machine.file("opt/receiver.py", RECEIVER);
    machine.file("opt/sender.py", SENDER);
    machine.file("etc/systemd/system/receiver.service", "[Service]\nExecStart=/usr/bin/python3 /opt/receiver.py\n");
    let run = "[Service]\nExecStart=/opt/tope/versions/current/bin/device-api\n";
    machine.file("etc/systemd/system/steady.service", run);
    machine.file(
        "etc/tope-store/config.toml",
        "[retention]\nkeep_last = 1\n[notify]\ncommand = [\"/usr/bin/python3\", \"/opt/sender.py\"]\n\
         on = [\"rolled-back\", \"corruption\", \"gc\"]\n[[service]]\nunit = \"steady\"\nsettle = \"200ms\"\n",
    );
    // A trial that cannot be read counts as used up.
    let script = format!(
        "{IMPORT}
        {RESULT}
        systemctl start receiver
        until tope-store notify --test >/dev/null 2>&1; do sleep 0.1; done
        undelivered() {{ tope-store --json status | grep -A 1 '\"undelivered\"' | grep -o '\"event\": .*' || echo none; }}
        tope-store activate 1.2.0 >/dev/null
        tope-store activate 1.3.0 >/dev/null
        systemctl start steady
        echo used up >/opt/tope/store/trial
        systemctl start tope-store-boot-check
        result tope-store-boot-check
        systemctl start --wait tope-store-boot-judge || :
        tope-store status --check || echo $?
        tope-store history -n 2 --action rollback | grep -o 'v1.3.0 -> v1.2.0  by [^:]*'
        systemctl start tope-store-gc
        tope-store --json history -n 1 --action gc | grep -E '\"(user|unit|sudo_user)\"'
        echo changed >/opt/tope/versions/v1.2.0/lib/secret
        systemctl start tope-store-verify || result tope-store-verify
        undelivered
        cat /root/told
        touch /root/deaf
        systemctl start tope-store-verify || undelivered
        tope-store verify --repair --from /root/1.2.0 >/dev/null
        rm /opt/tope/store/notice
        tope-store import /root/1.0.0 --version 3.0.0 >/dev/null
        tope-store import /root/1.1.0 --version 4.0.0 >/dev/null
        systemctl start tope-store-gc
        undelivered
        rm /root/deaf
        tope-store notify --test >/dev/null
        undelivered"
    );
    let ran = machine.boot(&script)?.ok();
    let said: Vec<&str> = ran.stdout.lines().collect();
    let expected = [
        "success 7 ",
        "rolled-back",
        "1",
        "v1.3.0 -> v1.2.0  by root in tope-store-boot-check.service",
        "      \"user\": \"root\",",
        "      \"unit\": \"tope-store-gc.service\",",
        "exit-code 5 ",
        "none",
        "test None None",
        "rolled-back v1.2.0 v1.3.0",
        "rolled-back v1.2.0 v1.3.0",
        "gc v1.2.0 None",
        "corruption v1.2.0 None",
        "\"event\": \"corruption\",",
        "\"event\": \"gc\",",
        "none",
    ];
    assert_eq!(said, expected, "{ran:#?}");
    Ok(())
}

/// Each unit that looks after a trial does all of its work in its own sandbox: counting writes the trial, going back moves
/// links and records, judging restarts a service and ends the trial. None leaves a file that is not the user's.
fn a_trial_in_a_users_store_is_counted_judged_and_undone_by_the_units() -> Outcome {
    let machine = machine()?;
    releases(&machine, &["1.0.0", "1.1.0"]);
    let service = |settle: &str| {
        format!(
            "[retention]\nkeep_last = 1\n[[service]]\nunit = \"device-api\"\nsettle = \"{settle}\"\ntimeout = \"90s\"\n"
        )
    };
    machine.file("etc/tope-store/config.toml", service("300ms"));
    machine.file("root/slow.toml", service("60s"));
    let unit =
        "[Service]\nExecStart=/opt/tope/versions/current/bin/device-api\n[Install]\nWantedBy=multi-user.target\n";
    machine.file("etc/systemd/system/device-api.service", unit);
    let begin = format!(
        "useradd --system tope
        install -d -o tope -g tope /opt/tope
        chown -R tope /root/[0-9]*; chmod 755 /root
        printf '%s' '{IMPORT}' >/root/import
        runuser -u tope -- sh -e /root/import
        systemctl enable --quiet device-api
        tope-store activate 1.0.0 --restart=all >/dev/null
        tope-store --config /root/slow.toml activate 1.1.0 --restart >/dev/null 2>&1 &
        until [ \"$(readlink /opt/tope/versions/current)\" = v1.1.0 ]; do sleep 0.1; done
        cp /opt/tope/store/trial /root/trial
        kill -9 $!
        stat -c %u /opt/tope/store"
    );
    let owner: u32 = machine.boot(&begin)?.ok().stdout.trim().parse().expect("a number");
    let open_again = |attempts: u32| {
        let mut trial = Trial::parse(machine.read("root/trial").as_bytes()).expect("a trial");
        (trial.attempts, trial.boot, trial.watcher) = (attempts, "another boot".into(), Watcher::default());
        let path = machine.path("opt/tope/store/trial");
        std::fs::write(&path, trial.to_line()).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
    };
    let functions = format!(
        "{RESULT}
        run() {{ systemctl start $1 || journalctl --unit $1 --output cat
            while systemctl is-active --quiet $1 && [ $1 = tope-store-boot-judge ]; do sleep 0.1; done; result $1; }}
        rest() {{ ls /opt/tope/store/trial /opt/tope/store/staging || :; readlink /opt/tope/versions/current
            tope-store verify --quick >/dev/null; find /opt/tope ! -user tope; }}"
    );
    open_again(1);
    let counted = format!(
        "{functions}
        run tope-store-boot-check
        grep -o '\"attempts\":[0-9]*' /opt/tope/store/trial
        run tope-store-boot-judge
        run tope-store-verify
        run tope-store-gc
        rest 2>&1"
    );
    let no_trial = "ls: cannot access '/opt/tope/store/trial': No such file or directory";
    let ran = machine.boot(&counted)?.ok();
    let said: Vec<&str> = ran.stdout.lines().collect();
    let well = "success 0 ";
    let expected = [well, "\"attempts\":2", well, well, well, no_trial, "/opt/tope/store/staging:", "v1.1.0"];
    assert_eq!(said, expected, "{ran:#?}");
    // It had its boots.
    open_again(3);
    let undone = format!(
        "{functions}
        run tope-store-boot-check
        readlink /opt/tope/versions/current
        run tope-store-boot-judge
        journalctl --boot --unit tope-store-boot-judge --output cat | grep 'does not hold'
        rest 2>&1"
    );
    let ran = machine.boot(&undone)?.ok();
    let said: Vec<&str> = ran.stdout.lines().collect();
    // The judge is not loaded any longer when it has ended, so that only its words say how.
    let judged = "v1.1.0 does not hold; current is v1.0.0 (level 1), and it holds";
    let expected = ["success 7 ", "v1.0.0", well, judged, no_trial, "/opt/tope/store/staging:", "v1.0.0"];
    assert_eq!(said, expected, "{ran:#?}");
    Ok(())
}

fn the_example_services_run_and_cannot_write_into_a_version() -> Outcome {
    let machine = machine()?;
    let top = machine.path("root/1.0.0");
    tree::file(top.join("services/device-api/data/log"), "");
    tree::file(top.join("services/device-api/state/count"), "0\n");
    tree::file(top.join("services/web-server/index.html"), "a page\n");
    let api = "#!/bin/sh
        for path in settings data/log state/count /opt/tope/versions/x /opt/tope/store/x /var/lib/device-api/x /etc/x; do
            { echo 1 >>$path; } 2>/dev/null && echo \"wrote $path\" || echo \"refused $path\"
        done
        exec sleep 1000\n";
    tree::program(top.join("bin/device-api"), api);
    tree::program(top.join("bin/web-server"), "#!/bin/sh\nexec python3 -m http.server 80\n");
    machine.file(
        "etc/tope-store/config.toml",
        "[import]\nprivate = [\"services/*/data/**\"]\nshared = [\"services/*/state\"]\n",
    );
    let script = "
        useradd --system tope
        chown -R tope:tope /root/1.0.0/services
        tope-store init >/dev/null
        tope-store import /root/1.0.0 --version 1.0.0 --activate >/dev/null
        tope-store link >/dev/null
        systemctl start web-server
        systemctl start device-api
        tries=0
        until python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1/\").read().decode())'; do
            sleep 0.1; tries=$((tries + 1)); [ $tries -lt 100 ]
        done 2>/dev/null
        until journalctl --sync; journalctl --unit device-api --output cat | grep /etc/x >/dev/null; do sleep 0.1; done
        systemctl is-active device-api web-server
        journalctl --unit device-api --output cat | grep -E 'wrote|refused' | sort
        tope-store verify --quick >&2";
    let ran = machine.boot(script)?.ok();
    let said: Vec<&str> = ran.stdout.lines().filter(|line| !line.is_empty()).collect();
    let expected = [
        "a page",
        "active",
        "active",
        "refused /etc/x",
        "refused /opt/tope/store/x",
        "refused /opt/tope/versions/x",
        "refused settings",
        "wrote /var/lib/device-api/x",
        "wrote data/log",
        "wrote state/count",
    ];
    assert_eq!(said, expected, "{ran:#?}");
    Ok(())
}

fn the_timers_are_accepted_and_wait() -> Outcome {
    let machine = machine()?;
    let script = "
        systemctl start tope-store-gc.timer tope-store-verify.timer
        systemctl list-timers --no-legend --all | grep -o 'tope-store-[a-z]*.service'";
    let ran = machine.boot(script)?.ok();
    let mut waiting: Vec<&str> = ran.stdout.lines().collect();
    waiting.sort_unstable();
    assert_eq!(waiting, ["tope-store-gc.service", "tope-store-verify.service"], "{ran:#?}");
    Ok(())
}
