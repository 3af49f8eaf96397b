//! Good and bad releases under a real systemd: what a supervised switch makes of each.

use serde_json::Value;

use crate::support::container::Machine;
use crate::support::image::{Image, Kind};
use crate::support::{Outcome, Skipped, needs_program, tree};

tests![
    every_bad_release_ends_on_the_previous_version_with_its_cause_known,
    fallbacks_are_tried_in_turn_and_the_least_bad_one_stays,
    who_is_touched_by_a_switch_moves_out_of_its_way,
    a_power_cut_of_a_supervised_switch_heals_at_boot,
];

/// `device-api` of a release: answers `/health` as it is told.
const SERVER: &str = r#"#!/usr/bin/python3
import http.server, socketserver, sys, time
MODE = "MODE_OF_RELEASE"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if MODE == "late":
            time.sleep(600)
        found = self.path == "/health" or (self.path == "/feature" and MODE != "featureless")
        self.send_response(500 if MODE == "broken" else 200 if found else 404)
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    allow_reuse_address = True
    daemon_threads = True
Server(("127.0.0.1", 9080), Handler).serve_forever()
"#;

/// `web-server`: needs a feature of `device-api`.
const WEB: &str = r#"#!/usr/bin/python3
import sys, time, urllib.request
for attempt in range(100):
    try:
        urllib.request.urlopen("http://127.0.0.1:9080/feature", timeout=5)
        break
    except urllib.error.HTTPError as error:
        sys.exit("device-api has no such feature: %s" % error)
    except OSError:
        time.sleep(0.05)
while True:
    time.sleep(1000)
"#;

const STEADY: &str = "#!/bin/sh\nexec sleep 100000\n";
const READY: &str = "#!/bin/sh\nsystemd-notify --ready\nexec sleep 100000\n";

/// The configuration; `settle` is that of `looper`, whose bad release takes three seconds to end.
const CONFIG: &str = "
[[service]]
unit = \"device-api.service\"
settle = \"400ms\"
timeout = \"4s\"
http = \"http://127.0.0.1:9080/health\"
[[service]]
unit = \"web-server.service\"
settle = \"800ms\"
timeout = \"30s\"
[[service]]
unit = \"looper.service\"
settle = \"4s\"
timeout = \"30s\"
[[service]]
unit = \"notifier.service\"
settle = \"200ms\"
timeout = \"4s\"
[notify]
command = [\"sh\", \"-c\", \"cat >>/root/told\"]
";

fn unit(machine: &Machine, name: &str, text: &str) {
    let text =
        format!("{text}\nExecStart=/opt/tope/versions/current/bin/{name}\n[Install]\nWantedBy=multi-user.target\n");
    machine.file(format!("etc/systemd/system/{name}.service"), text);
}

/// A machine with four services.
fn machine(store: Option<Image>) -> Result<Machine, Skipped> {
    needs_program("python3")?;
    let machine = match store {
        Some(image) => Machine::with_store_on(image)?,
        None => Machine::new()?,
    };
    unit(&machine, "device-api", "[Service]\n");
    unit(&machine, "web-server", "[Unit]\nAfter=device-api.service\nWants=device-api.service\n[Service]\n");
    unit(&machine, "looper", "[Service]\nRestart=always\nRestartSec=100ms\n");
    unit(&machine, "notifier", "[Service]\nType=notify\nNotifyAccess=all\n");
    machine.file("etc/tope-store/config.toml", CONFIG);
    Ok(machine)
}

/// Makes a release; the programs that are given differ from the good ones.
fn release(machine: &Machine, name: &str, programs: &[(&str, &str)]) {
    let good = [
        ("device-api", SERVER.replace("MODE_OF_RELEASE", "ok")),
        ("web-server", WEB.to_owned()),
        ("looper", STEADY.to_owned()),
        ("notifier", READY.to_owned()),
    ];
    for (program, text) in good {
        let own = programs.iter().find(|(own, _)| *own == program).map(|(_, text)| (*text).to_owned());
        tree::program(machine.path(format!("root/{name}/bin/{program}")), own.unwrap_or(text));
    }
}

fn server(mode: &str) -> String {
    SERVER.replace("MODE_OF_RELEASE", mode)
}

/// Shell functions that the scripts use.
const FUNCTIONS: &str = "
    take() { tope-store import /root/$1 --version $1 >/dev/null; }
    try() {
        set +e
        tope-store --json activate $1 --restart=${2:-changed} >/tope-test/$1.json
        echo $1 $? $(readlink /opt/tope/versions/current) $(systemctl is-active device-api web-server looper notifier)
        set -e
        tope-store --json history --version $1 --action bad >/tope-test/$1.bad
    }
    begin() {
        tope-store init
        for version in \"$@\"; do take $version; done
        tope-store factory set 1.0.0
        tope-store activate 1.0.0 --restart=all
        tope-store activate 1.1.0 --restart
    }
";

fn json(machine: &Machine, name: &str) -> Value {
    let text = machine.read(format!("tope-test/{name}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
}

fn every_bad_release_ends_on_the_previous_version_with_its_cause_known() -> Outcome {
    needs_program("cc")?;
    let machine = machine(None)?;
    release(&machine, "1.0.0", &[]);
    release(&machine, "1.1.0", &[("looper", "#!/bin/sh\n# newer\nexec sleep 100000\n")]);
    let api = |text: &str| vec![("device-api", text.to_owned())];
    // What is bad, the check that finds it, and what the ledger must hold.
    type Programs = Vec<(&'static str, String)>;
    let bad: Vec<(&str, Programs, &str, &str)> = vec![
        ("2.0.1", api("#!/bin/sh\necho cannot go on >&2\nexit 3\n"), "unit device-api.service", "cannot go on"),
        ("2.0.2", vec![("looper", "#!/bin/sh\nsleep 3\nexit 4\n".into())], "unit looper.service", ""),
        ("2.0.3", vec![("notifier", STEADY.into())], "unit notifier.service", ""),
        ("2.0.4", api(&server("broken")), "http http://127.0.0.1:9080/health", "500"),
        ("2.0.5", api(&server("late")), "http http://127.0.0.1:9080/health", ""),
        ("2.0.6", vec![("looper", "#!/bin/sh\nexit 1\n".into())], "unit looper.service", ""),
        ("2.0.7", api(""), "unit device-api.service", "libabsent.so"),
        ("2.0.8", api(STEADY), "unit device-api.service", "cannot execute its program"),
        ("2.0.9", api(STEADY), "unit device-api.service", "cannot execute its program"),
        ("2.0.10", api(&server("featureless")), "unit web-server.service", "no such feature"),
    ];
    for (name, programs, ..) in &bad {
        let programs: Vec<(&str, &str)> = programs.iter().map(|(program, text)| (*program, text.as_str())).collect();
        release(&machine, name, &programs);
    }
    linked_with_a_library_that_is_not_there(&machine.path("root/2.0.7/bin/device-api"));
    set_mode(&machine, "2.0.8", 0o644);
    set_mode(&machine, "2.0.9", 0o700);
    // Another user's program.
    unit(&machine, "device-api", "[Service]\nUser=nobody\n");
    let names: Vec<&str> = bad.iter().map(|(name, ..)| *name).collect();
    // What web-server needs is judged only if it is restarted with what it needs.
    let tries: String = names
        .iter()
        .map(|name| format!("take {name}\ntry {name} {}\n", if *name == "2.0.10" { "all" } else { "changed" }))
        .collect();
    let script =
        format!("{FUNCTIONS}\nbegin 1.0.0 1.1.0\n{tries}\ntope-store activate 2.0.4 2>&1 || echo refused $?\n");
    let ran = machine.boot(&script)?.ok();
    let healthy = "7 v1.1.0 active active active active";
    for (name, _, check, detail) in &bad {
        let document = json(&machine, &format!("{name}.json"));
        assert!(ran.stdout.contains(&format!("{name} {healthy}\n")), "{name}: {document:#}\n{}", ran.stdout);
        let events = json(&machine, &format!("{name}.bad"));
        let evidence = &events["events"][0]["evidence"];
        assert_eq!(evidence["check"], *check, "{name}: {document:#}");
        let told = format!("{} {}", evidence["detail"], evidence["log"]);
        assert!(told.contains(detail), "{name}: {told}");
        assert_eq!((&document["outcome"], &document["level"]), (&"rolled-back".into(), &1.into()), "{name}");
    }
    assert!(ran.stdout.ends_with("refused 4\n"), "{}", ran.stdout);
    assert_eq!(json(&machine, "2.0.1.bad")["events"][0]["evidence"]["exit_code"], 3);
    Ok(())
}

fn set_mode(machine: &Machine, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = machine.path(format!("root/{name}/bin/device-api"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn linked_with_a_library_that_is_not_there(program: &std::path::Path) {
    let build = tempfile::tempdir().unwrap();
    std::fs::write(build.path().join("l.c"), "int absent(void) { return 0; }\n").unwrap();
    std::fs::write(build.path().join("p.c"), "int absent(void);\nint main(void) { return absent(); }\n").unwrap();
    let script = "cc -shared -fPIC -o libabsent.so l.c && cc -o p p.c -L. -labsent";
    let built = std::process::Command::new("sh").args(["-c", script]).current_dir(build.path()).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    std::fs::copy(build.path().join("p"), program).unwrap();
}

fn fallbacks_are_tried_in_turn_and_the_least_bad_one_stays() -> Outcome {
    let machine = machine(None)?;
    let broken = server("broken");
    release(&machine, "1.0.0", &[]);
    release(&machine, "1.1.0", &[("notifier", "#!/bin/sh\n# newer\nsystemd-notify --ready\nexec sleep 100000\n")]);
    release(&machine, "1.2.0", &[("device-api", "#!/bin/sh\nexit 5\n")]);
    release(&machine, "1.3.0", &[("device-api", &broken)]);
    let script = format!(
        "{FUNCTIONS}
        begin 1.0.0 1.1.0
        take 1.2.0; take 1.3.0
        # Nobody watched this one.
        tope-store activate 1.2.0
        try 1.3.0
        tope-store --json status >/tope-test/status.1
        # Now the factory's own port is taken by somebody else, and nothing holds.
        systemctl stop device-api
        systemd-run --quiet --unit=thief /usr/bin/python3 -c 'import socket,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((\"127.0.0.1\", 9080)); s.listen()
time.sleep(1000)'
        tope-store confirm 1.3.0
        tope-store activate 1.1.0
        try 1.3.0
        tope-store --json status >/tope-test/status.2
        cat /root/told"
    );
    let ran = machine.boot(&script)?.ok();
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("1.3.0 ")).collect();
    assert_eq!(lines[0], "1.3.0 7 v1.0.0 active active active active", "{ran:#?}");
    assert!(
        lines[1].starts_with("1.3.0 8 v1.1.0 "),
        "in a tie the one that ran before: {lines:?}\n{}",
        machine.journal()
    );
    let status = [json(&machine, "status.1"), json(&machine, "status.2")];
    assert_eq!((&status[0]["degraded"], &status[0]["factory"]["state"]), (&Value::Null, &"good".into()));
    assert_eq!(status[1]["degraded"]["version"], "v1.1.0");
    assert_eq!((&status[1]["current"]["state"], &status[1]["trial"]), (&"good".into(), &Value::Null));
    assert!(ran.stdout.contains("\"event\": \"degraded\""), "{ran:#?}");
    Ok(())
}

/// Services that nothing differs for keep their processes; an updater that activates its own successor is restarted and
/// finds out what came of it.
fn who_is_touched_by_a_switch_moves_out_of_its_way() -> Outcome {
    let machine = machine(None)?;
    let updater = "#!/bin/sh\nif [ -e /root/update ]; then rm /root/update
        tope-store --json activate 1.2.0 --restart >/root/answer 2>/root/said; echo $? >>/root/ended; fi\nexec sleep 100000\n";
    release(&machine, "1.0.0", &[]);
    release(&machine, "1.1.0", &[("looper", updater)]);
    release(&machine, "1.2.0", &[("looper", &updater.replace("#!/bin/sh", "#!/bin/sh\n# newer"))]);
    let script = format!(
        "{FUNCTIONS}
        pids() {{ systemctl show --property=MainPID --value device-api web-server notifier | xargs; }}
        begin 1.0.0 1.1.0
        take 1.2.0
        pids
        touch /root/update
        systemctl restart looper
        # It has the answer, though its question was killed with it.
        until grep -q elapsed_ms /root/answer; do sleep 0.1; done
        pids
        systemctl is-active looper
        tope-store --json history --version 1.2.0 --action good
        mv /root/answer /tope-test/answer"
    );
    let ran = machine.boot(&script)?.ok();
    let lines: Vec<&str> =
        ran.stdout.lines().filter(|line| !line.starts_with("current") && !line.starts_with(' ')).collect();
    let pids: Vec<&&str> =
        lines.iter().filter(|line| line.split(' ').all(|word| word.parse::<u32>().is_ok())).collect();
    assert_eq!((pids.len(), pids[0]), (2, pids[1]), "{ran:#?}");
    assert!(ran.stdout.contains("\"action\": \"good\""), "{ran:#?}\n{}", machine.journal());
    assert_eq!(json(&machine, "answer")["outcome"], "done", "{ran:#?}");
    Ok(())
}

/// The whole device loses its power while a switch is under way; nobody is there to help.
fn a_power_cut_of_a_supervised_switch_heals_at_boot() -> Outcome {
    // From the order to switch; the switch itself takes some ten milliseconds, a restart some more.
    for (bad, milliseconds) in [(true, 0), (true, 40), (true, 120), (false, 60), (true, 600)] {
        let machine = machine(Some(Image::new(Kind::Ext4, 64)?))?;
        let mode = if bad { server("broken") } else { format!("{}# newer\n", server("ok")) };
        release(&machine, "1.0.0", &[]);
        release(&machine, "1.1.0", &[("notifier", "#!/bin/sh\n# newer\nsystemd-notify --ready\nexec sleep 100000\n")]);
        release(&machine, "1.2.0", &[("device-api", &mode)]);
        for unit in ["tope-store-boot-check.service", "tope-store-boot-judge.service"] {
            let text = std::fs::read(format!("{}/deploy/{unit}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            machine.file(format!("etc/systemd/system/{unit}"), text);
        }
        let script = format!(
            "{FUNCTIONS}
            systemctl enable device-api web-server looper notifier tope-store-boot-check tope-store-boot-judge
            begin 1.0.0 1.1.0
            take 1.2.0
            sync
            tope-store activate 1.2.0 --restart & echo >/tope-test/begun
            sleep 1000"
        );
        let mut running = machine.start(&script)?;
        running.wait_for("tope-test/begun");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        running.cut_power()?;
        let ran = machine.boot(
            "for attempt in $(seq 600); do
                states=$(systemctl is-active device-api web-server looper notifier | sort -u) || :
                tope-store --json status | grep -q '\"trial\": null' && [ \"$states\" = active ] && break
                sleep 0.1
            done
            tope-store status >&2
            systemctl list-jobs >&2
            readlink /opt/tope/versions/current
            tope-store verify >&2
            python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:9080/health\").status)'",
        )?;
        let ran = ran.ok();
        let when = format!("{milliseconds} ms after the order, bad: {bad}: {ran:#?}\n{}", machine.journal());
        let current = ran.stdout.lines().next().unwrap_or_default();
        assert!(ran.stdout.ends_with("\n200\n"), "{when}");
        assert!(current == "v1.1.0" || (!bad && current == "v1.2.0"), "{when}");
    }
    Ok(())
}
