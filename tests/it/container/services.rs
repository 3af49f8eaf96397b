//! The systemd manager and the watch against a real systemd. The tests run in the machine: this very test binary is
//! started there with [`MARK`] in its environment.

#![allow(clippy::print_stdout, reason = "the half in the machine tells the half outside")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tope_store::config::{HttpAddress, HttpProbe, Service, Supervisor};
use tope_store::layout::Layout;
use tope_store::model::VersionName;
use tope_store::ops::affected::affected;
use tope_store::ops::who::{Use, Which, who};
use tope_store::services::affected::Affected;
use tope_store::services::{Activity, Judgement, Patience, ServiceManager, Verdict, discover, manager, watch};
use tope_store::store::{Settings, Store};

use crate::support::container::Machine;
use crate::support::{Outcome, needs_program};

tests![a_real_systemd_is_asked_ordered_and_watched];

/// Set where the binary runs in the machine.
const MARK: &str = "TOPE_TEST_IN_MACHINE";

/// How long systemd may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Answers `/health` as its argument says.
const SERVER: &str = r#"
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if sys.argv[2] == "late":
            time.sleep(600)
        self.send_response(500 if sys.argv[2] == "broken" else 200)
        self.end_headers()
        self.wfile.write(b"state: " + sys.argv[2].encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn a_real_systemd_is_asked_ordered_and_watched() -> Outcome {
    needs_program("python3")?;
    let machine = Machine::new()?;
    let unit = |name: &str, text: &str| machine.file(format!("etc/systemd/system/{name}.service"), text);
    let service = |name: &str, text: &str| unit(name, &format!("[Service]\n{text}\n"));
    service("steady", "ExecStart=/bin/sleep infinity");
    service("exits", "ExecStart=/bin/sh -c 'echo cannot go on; exit 3'");
    service("later", "ExecStart=/bin/sleep 1");
    service("hangs", "Type=notify\nExecStart=/bin/sleep infinity");
    service("loops", "ExecStart=/bin/sh -c 'sleep 0.2; exit 1'\nRestart=always\nRestartSec=100ms");
    service("absent-program", "ExecStart=/opt/none");
    service("absent-user", "User=nobody-of-this-name\nExecStart=/bin/sleep infinity");
    service("once", "Type=oneshot\nExecStart=/bin/true");
    unit("for-a-modem", "[Unit]\nConditionPathExists=/dev/none\n[Service]\nExecStart=/bin/false\n");
    service("for-others", "ExecCondition=/bin/false\nExecStart=/bin/false");
    // Enabled, so that systemd does not forget why it did not start them.
    for name in ["for-a-modem", "for-others"] {
        let wants = machine.path("etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).expect("a directory");
        std::os::unix::fs::symlink(format!("../{name}.service"), wants.join(format!("{name}.service")))
            .expect("a link");
    }
    unit("first", "[Service]\nExecStartPre=/bin/sh -c 'echo first >>/run/order'\nExecStart=/bin/sleep infinity\n");
    unit(
        "second",
        "[Unit]\nAfter=first.service\n[Service]\nExecStartPre=/bin/sh -c 'echo second >>/run/order'\nExecStart=/bin/sleep infinity\n",
    );
    unit(
        "needs",
        "[Unit]\nRequires=exits-once.service\nAfter=exits-once.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    );
    service("exits-once", "Type=oneshot\nExecStart=/bin/false");
    machine.file("opt/server.py", SERVER);
    for (name, port) in [("ok", 8001), ("broken", 8002), ("late", 8003)] {
        service(&format!("http-{name}"), &format!("ExecStart=/usr/bin/python3 /opt/server.py {port} {name}"));
    }
    for (number, release) in ["one", "two"].into_iter().enumerate() {
        let follow = "#!/bin/sh\nexec tail -f /opt/tope/versions/current/lib/plugin\n";
        machine.program(format!("srv/{release}/bin/found"), follow);
        machine.file(format!("srv/{release}/lib/plugin"), number.to_string());
    }
    service("found", "ExecStart=/opt/tope/versions/current/bin/found");
    let own = std::env::current_exe().expect("this binary");
    std::fs::copy(own, machine.path("usr/bin/tope-store-tests")).expect("a copy of this binary");
    let script = "tope-store init\ntope-store import /srv/one --version 1\ntope-store import /srv/two --version 2\n\
                  tope-store activate 1\nsystemctl start found\n\
                  until tope-store who --all | grep -q plugin; do sleep 0.05; done\ntope-store activate 2\n";
    let ran = machine.boot(&format!("{script}{MARK}=1 exec tope-store-tests"))?;
    let ran = ran.ok();
    assert!(ran.stdout.ends_with("all is well\n"), "{ran:?}");
    Ok(())
}

/// The half that runs in the machine, if this is there.
pub fn in_machine() -> Option<ExitCode> {
    std::env::var_os(MARK)?;
    let manager = manager(&Supervisor::Systemd);
    what_runs_from_the_store(&*manager);
    states_and_orders(&*manager);
    good_ones_pass(&*manager);
    bad_ones_fail_with_their_cause(&*manager);
    println!("all is well");
    Some(ExitCode::SUCCESS)
}

fn service(name: &str, settle_ms: u64) -> Service {
    let (settle, timeout) = (Duration::from_millis(settle_ms), Duration::from_secs(20));
    Service { settle, timeout, ..Service::of(format!("{name}.service")) }
}

fn asked(name: &str, port: u16, timeout_ms: u64) -> Service {
    let address = HttpAddress { host: "127.0.0.1".into(), port, path: "/health".into() };
    let http = HttpProbe { body: Some("state: ok".into()), ..HttpProbe::of(address) };
    Service { http: Some(http), timeout: Duration::from_millis(timeout_ms), ..service(name, 0) }
}

fn long() -> Patience<'static> {
    Patience::of(Duration::from_secs(20))
}

/// Restarts and watches; says how long it took.
fn restarted(manager: &dyn ServiceManager, services: &[Service]) -> Vec<Verdict> {
    let begun = Instant::now();
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    manager.restart(&units, long()).expect("systemd answers");
    let ordered = begun.elapsed();
    let verdicts = watch(manager, services, &|_| false, begun, &|| true);
    println!("{units:?}: ordered in {ordered:?}, judged in {:?}: {verdicts:?}", begun.elapsed());
    manager.stop(&units, long()).expect("systemd answers");
    let down = |activity| !matches!(activity, Activity::Active | Activity::Changing);
    let states = manager.states(&units, LIMIT).expect("systemd answers");
    assert!(states.iter().all(|state| down(state.activity)), "{states:?}");
    verdicts
}

fn states_and_orders(manager: &dyn ServiceManager) {
    let activity = |unit: &str| manager.states(&[unit.to_owned()], LIMIT).expect("systemd answers").remove(0).activity;
    assert_eq!(activity("none.service"), Activity::Absent);
    assert_eq!(activity("steady.service"), Activity::Inactive);
    assert_eq!(activity("for-a-modem.service"), Activity::Skipped);
    let error = manager.restart(&["none.service".to_owned()], long()).expect_err("there is none");
    assert!(error.to_string().contains("none.service"), "{error}");
    // Given the wrong way round.
    let order = || std::fs::read_to_string("/run/order").expect("a file");
    let verdicts = restarted(manager, &[service("second", 0), service("first", 0)]);
    assert!(verdicts.iter().all(Verdict::passed), "{verdicts:?}");
    assert_eq!(order(), "first\nsecond\n");
}

/// `found` follows a file that neither its name nor its unit tells of, and it runs from the version before.
fn what_runs_from_the_store(manager: &dyn ServiceManager) {
    let layout = Layout::new("/opt/tope", None);
    let found = discover::services(manager, &[], &layout).expect("systemd answers");
    assert_eq!(found, [Service::of("found.service")]);
    let store = Store::open(layout, Settings::default()).expect("a store");
    let processes = who(&store, Which::Stale).expect("an answer").processes;
    let [process] = &processes[..] else { panic!("{processes:?}") };
    let path = b"lib/plugin".to_vec();
    assert_eq!((process.unit.as_deref(), process.version.as_str()), (Some("found.service"), "v1"));
    assert_eq!(process.uses, [Use { how: "has open", path, writes: false }]);
    let [one, two] = ["1", "2"].map(|version| version.parse::<VersionName>().expect("a version"));
    let touched = affected(&store, manager, &found, Some(&one), &two).expect("an answer");
    let reasons = vec![format!("lib/plugin differs, which process {} has open", process.pid)];
    assert_eq!(touched.units, [Affected { unit: "found.service".into(), reasons }]);
}

fn good_ones_pass(manager: &dyn ServiceManager) {
    for services in [
        vec![service("steady", 0), service("once", 0)],
        vec![service("steady", 500), service("first", 300)],
        vec![asked("http-ok", 8001, 20_000)],
        // For hardware that this device does not have.
        vec![asked("for-a-modem", 8009, 20_000), service("for-others", 0), service("steady", 0)],
    ] {
        let verdicts = restarted(manager, &services);
        assert!(verdicts.iter().all(Verdict::passed), "{verdicts:?}");
    }
}

fn bad_ones_fail_with_their_cause(manager: &dyn ServiceManager) {
    let hangs = Service { timeout: Duration::from_secs(1), ..service("hangs", 0) };
    for (bad, check, detail, exit_code) in [
        (service("exits", 15_000), "unit exits.service", "exit-code", Some(3)),
        (service("later", 15_000), "unit later.service", "it did not stay up", None),
        (hangs, "unit hangs.service", "it did not come up within 1s: activating (start)", None),
        (service("loops", 15_000), "unit loops.service", "", Some(1)),
        (service("absent-program", 15_000), "unit absent-program.service", "cannot execute its program", Some(203)),
        (service("absent-user", 15_000), "unit absent-user.service", "no such user", Some(217)),
        (service("needs", 15_000), "unit needs.service", "it is not running", None),
        (asked("http-broken", 8002, 15_000), "http http://127.0.0.1:8002/health", "status 500 (within 15s)", None),
        (asked("http-late", 8003, 15_000), "http http://127.0.0.1:8003/health", "timeout: global (within 15s)", None),
    ] {
        let verdicts = restarted(manager, &[bad, service("steady", 25_000)]);
        let Judgement::Failed(evidence) = &verdicts[0].judgement else { panic!("{verdicts:?}") };
        assert_eq!(evidence.check, check);
        assert!(evidence.detail.contains(detail), "{evidence:?}");
        if exit_code.is_some() {
            assert_eq!(evidence.exit_code, exit_code, "{evidence:?}");
        }
        assert!(!evidence.log.is_empty(), "{evidence:?}");
        if check == "unit exits.service" {
            assert!(evidence.log.iter().any(|line| line == "cannot go on"), "{evidence:?}");
        }
        assert_eq!(verdicts[1].judgement, Judgement::Open);
    }
}
