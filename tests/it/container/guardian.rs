//! A supervised switch under a real systemd dies in every way it can, and its services run in the end.

use crate::support::container::Machine;
use crate::support::{Outcome, Skipped, tree};

tests![
    a_switch_that_is_killed_leaves_its_services_running,
    a_switch_whose_session_is_killed_leaves_its_services_running,
    a_guardian_that_cannot_be_a_unit_guards_all_the_same,
];

/// `slow` takes its time to stop, and must not see a switch.
const CONFIG: &str = "
[[service]]
unit = \"slow.service\"
stop_first = true
settle = \"1200ms\"
timeout = \"30s\"
[[service]]
unit = \"steady.service\"
settle = \"200ms\"
timeout = \"30s\"
";

/// A machine that runs `1.1.0` with two services, which write down the version that they are of.
fn machine() -> Result<Machine, Skipped> {
    let machine = Machine::new()?;
    for (name, more) in [("slow", "ExecStop=/bin/sleep 0.5\n"), ("steady", "")] {
        let unit = format!("[Service]\n{more}ExecStart=/opt/tope/versions/current/bin/{name}\n");
        machine.file(format!("etc/systemd/system/{name}.service"), unit);
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            let program = format!("#!/bin/sh\necho v{version} >/run/{name}\nexec sleep 100000\n");
            tree::program(machine.path(format!("root/{version}/bin/{name}")), program);
        }
    }
    machine.file("etc/tope-store/config.toml", CONFIG);
    Ok(machine)
}

/// `try HOW POINT COMMAND...` switches to 1.2.0 by a command, lets `HOW` act on it at a point, and tells what came of it.
const FUNCTIONS: &str = r#"
current() { readlink /opt/tope/versions/current; }
at() {
    case $1 in
    stopping) until [ "$(systemctl show --property=ActiveState --value slow)" = deactivating ]; do :; done ;;
    switched) until [ "$(current)" = v1.2.0 ]; do :; done ;;
    watching) until [ "$(cat /run/slow /run/steady | xargs)" = 'v1.2.0 v1.2.0' ]; do :; done ;;
    esac
}
settled() {
    for attempt in $(seq 300); do
        states=$(systemctl is-active slow steady | sort -u) || :
        tope-store --json status --verify none | grep -q '"trial": null' && [ "$states" = active ] && break
        sleep 0.1
    done
    echo "$1 $(current) $(cat /run/slow) $(cat /run/steady) $(systemctl is-active slow steady | xargs)"
    until [ -z "$(systemctl list-units --no-legend 'tope-store-guardian-*')" ]; do sleep 0.1; done
}
begin() {
    tope-store init >/dev/null
    for version in 1.0.0 1.1.0 1.2.0; do tope-store import /root/$version --version $version >/dev/null; done
    tope-store activate 1.0.0 --restart=all >/dev/null
}
try() {
    how=$1 point=$2; shift 2
    tope-store activate 1.1.0 --restart=all --force >/dev/null
    "$@" >/tope-test/said 2>&1 & pid=$!
    at $point
    $how
    wait $pid || :
    settled "$point"
}
"#;

fn a_switch_that_is_killed_leaves_its_services_running() -> Outcome {
    let machine = machine()?;
    let points = ["stopping", "switched", "watching"];
    let tries = |signal: &str| {
        let tries = points.map(|point| format!("try 'kill_it {signal}' {point} tope-store activate 1.2.0 --restart\n"));
        tries.concat()
    };
    let script = format!(
        "{FUNCTIONS}kill_it() {{ kill -$1 $pid; }}\nbegin\n{}echo HUP\n{}echo TERM\n{}",
        tries("KILL"),
        tries("HUP"),
        tries("TERM")
    );
    let ran = machine.boot(&script)?.ok();
    let runs = |point: &str, version: &str| format!("{point} {version} {version} {version} active active");
    let after = |version: &str| [runs("stopping", version), runs("switched", "v1.2.0"), runs("watching", "v1.2.0")];
    let [killed, hung_up, asked] = ["v1.1.0", "v1.2.0", "v1.1.0"].map(after);
    let expected = [&killed[..], &["HUP".into()], &hung_up, &["TERM".into()], &asked].concat();
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), expected, "{ran:#?}\n{}", machine.journal());
    Ok(())
}

/// Everything that belongs to the session goes at once, as where lingering processes are killed.
fn a_switch_whose_session_is_killed_leaves_its_services_running() -> Outcome {
    let machine = machine()?;
    let points = ["stopping", "switched", "watching"];
    let session = "systemd-run --quiet --scope --collect --unit=session tope-store activate 1.2.0 --restart";
    let tries = points.map(|point| format!("try kill_all {point} {session}\n")).concat();
    let script = format!("{FUNCTIONS}kill_all() {{ systemctl kill --signal=KILL session.scope; }}\nbegin\n{tries}");
    let ran = machine.boot(&script)?.ok();
    let runs = |point: &str, version: &str| format!("{point} {version} {version} {version} active active");
    let expected = [runs("stopping", "v1.1.0"), runs("switched", "v1.2.0"), runs("watching", "v1.2.0")];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), expected, "{ran:#?}\n{}", machine.journal());
    Ok(())
}

fn a_guardian_that_cannot_be_a_unit_guards_all_the_same() -> Outcome {
    let machine = machine()?;
    machine.program("root/stub/systemd-run", "#!/bin/sh\necho no units today >&2\nexit 1\n");
    let script = format!(
        "{FUNCTIONS}kill_it() {{ kill -KILL $pid; }}
        begin
        tope-store activate 1.2.0 --restart &
        until [ -n \"$(systemctl list-units --no-legend 'tope-store-guardian-*')\" ]; do :; done
        systemctl show --property=After 'tope-store-guardian-*' | tr ' =' '\\n\\n' | sort -u | grep -c -x -e slow.service -e steady.service
        wait
        PATH=/root/stub:$PATH
        try kill_it watching tope-store activate 1.2.0 --restart
        tope-store --json activate 1.1.0 --restart=all | grep 'no unit'"
    );
    let ran = machine.boot(&script)?.ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines.contains(&"2"), "it is ordered behind what it watches: {ran:#?}");
    assert!(lines.contains(&"watching v1.2.0 v1.2.0 v1.2.0 active active"), "{ran:#?}");
    let weakness =
        "the guardian of this switch is no unit, and may end with this session: systemd: systemd-run: no units today";
    assert!(lines.last().is_some_and(|line| line.contains(weakness)), "{ran:#?}");
    Ok(())
}
