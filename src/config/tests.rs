//! The shape of the file, and that every mistake is met with its line and its key.

use super::*;
use crate::model::TreePath;
use proptest::prelude::*;

const WHOLE: &str = r#"
root = "/opt/tope"
bin_dir = "/usr/local/bin"

[import]
private = ["services/*/data/**"]
shared = ["services/*/state"]
min_free = "64MiB"

[retention]
keep_last = 5
keep_within = "30d"

[notify]
command = ["/usr/local/bin/tell-operations"]

[supervisor]
kind = "systemd"

[[service]]
unit = "device-api.service"
settle = "5s"
timeout = "30s"
http = "http://127.0.0.1:9080/health"
command = ["/usr/local/bin/check-device"]
"#;

fn failed(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn the_whole_shape_is_read() {
    let config = Config::parse(WHOLE).unwrap();
    assert_eq!(
        config,
        Config {
            root: Some("/opt/tope".into()),
            bin_dir: Some("/usr/local/bin".into()),
            import: Import {
                private: PathPatterns::new(&["services/*/data/**"]).unwrap(),
                shared: PathPatterns::new(&["services/*/state"]).unwrap(),
                min_free: Some(64 << 20),
                limits: Limits::default(),
            },
            retention: Policy {
                keep_last: Some(5),
                keep_within: Some(Duration::from_secs(30 * 86_400)),
                ..Policy::default()
            },
            notify: vec!["/usr/local/bin/tell-operations".into()],
            notify_on: Occasions::default(),
            supervisor: Supervisor::Systemd,
            services: vec![Service {
                unit: "device-api.service".into(),
                settle: Duration::from_secs(5),
                timeout: Duration::from_secs(30),
                http: Some(HttpProbe::of(HttpAddress::parse("http://127.0.0.1:9080/health").unwrap())),
                command: Some(CommandProbe {
                    command: vec!["/usr/local/bin/check-device".into()],
                    timeout: DEFAULT_PROBE_TIMEOUT,
                }),
                stop_first: false,
                paths: PathPatterns::default(),
            }],
            unknown_tables: Vec::new(),
        }
    );
    assert!(config.import.shared.covers(&TreePath::parse(b"services/api/state/db").unwrap()));
}

#[test]
fn probes_can_be_told_more() {
    let text = r#"
[[service]]
unit = "a.service"
settle = "0s"
stop_first = true
paths = ["lib/device/**"]
http = { url = "http://[::1]/", status = 204, body = "ok", timeout = "2s" }

[service.command]
command = ["/bin/check", "-q"]
timeout = "100ms"
"#;
    let expected = Service {
        settle: Duration::ZERO,
        stop_first: true,
        paths: PathPatterns::new(&["lib/device/**"]).unwrap(),
        http: Some(HttpProbe {
            address: HttpAddress::parse("http://[::1]/").unwrap(),
            status: Some(204),
            body: Some("ok".into()),
            timeout: Duration::from_secs(2),
        }),
        command: Some(CommandProbe {
            command: vec!["/bin/check".into(), "-q".into()],
            timeout: Duration::from_millis(100),
        }),
        ..Service::of("a.service")
    };
    assert_eq!(Config::parse(text).unwrap().services, [expected]);
}

#[test]
fn everything_may_be_absent() {
    assert_eq!(Config::parse(""), Ok(Config::default()));
    let config = Config::parse("[[service]]\nunit = \"a.service\"\n").unwrap();
    assert_eq!((config.services[0].settle.as_secs(), config.services[0].timeout.as_secs()), (5, 30));
    assert!(config.retention.is_empty());
}

#[test]
fn every_limit_on_archives_can_be_configured() {
    let text = "[import.limits]\ntotal_bytes = \"1GiB\"\nentries = 2\nratio = 3\ndecoder_memory = \"4MiB\"\nheld_bytes = \"5kB\"\n";
    let expected = Limits {
        total_bytes: Some(1 << 30),
        entries: Some(2),
        ratio: Some(3),
        decoder_memory: Some(4 << 20),
        held_bytes: Some(5000),
    };
    assert_eq!(Config::parse(text).unwrap().import.limits, expected);
    for (text, expected) in [
        ("[import.limits]\nbytes = 1", "line 2, import.limits.bytes: unknown field `bytes`"),
        ("[import.limits]\nentries = \"1\"", "line 2, import.limits.entries: invalid type: string \"1\", expected u64"),
        ("[import.limits]\ntotal_bytes = \"1M\"", "line 2, import.limits.total_bytes: 1M: M is not clear"),
    ] {
        let error = failed(text);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn every_rule_of_the_policy_can_be_configured() {
    let text =
        "[retention]\nkeep_daily = 1\nkeep_weekly = 2\nkeep_monthly = 3\nkeep_minor = 4\nkeep_label = [\"a=b=c\"]\n";
    let expected = Policy {
        keep_daily: Some(1),
        keep_weekly: Some(2),
        keep_monthly: Some(3),
        keep_minor: Some(4),
        keep_labels: vec![("a".into(), "b=c".into())],
        ..Policy::default()
    };
    assert_eq!(Config::parse(text).unwrap().retention, expected);
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for (text, place) in [
        ("rooot = \"/x\"", "line 1, rooot: unknown field `rooot`"),
        ("imports = []\n[import]\nprivate = []", "line 1, imports: unknown field `imports`"),
        ("[import]\n\nprivat = []", "line 3, import.privat: unknown field `privat`"),
        ("[retention]\nkeep_lsat = 1", "line 2, retention.keep_lsat: unknown field `keep_lsat`"),
        ("[retention]\nfree = \"1GB\"", "line 2, retention.free: unknown field `free`"),
        ("[notify]\ncommand = [\"x\"]\nurl = \"\"", "line 3, notify.url: unknown field `url`"),
        ("[supervisor]\nkind = \"systemd\"\nbus = 1", "line 3, supervisor.bus: unknown field `bus`"),
        (
            "[[service]]\nunit = \"a\"\n[[service]]\nunit = \"b\"\nhtpp = \"\"",
            "line 5, service[2].htpp: unknown field `htpp`",
        ),
    ] {
        let error = failed(text);
        assert!(error.starts_with(place), "{error}");
    }
}

#[test]
fn unknown_tables_are_named_and_ignored() {
    let text =
        "root = \"/x\"\n[zone]\nroot = \"/y\"\n[[alarm]]\nat = 1\n[zone.inner]\na = 1\n[notify]\ncommand = [\"x\"]\n";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.unknown_tables, ["zone", "alarm"]);
    assert_eq!((config.root.unwrap().to_str(), config.notify), (Some("/x"), vec!["x".to_owned()]));
    // What is wrong elsewhere is refused all the same.
    assert!(failed("[zone]\na = 1\n[notify]\ncommand = 3").starts_with("line 4, notify.command: "));
}

#[test]
fn every_value_is_checked_at_its_line_and_key() {
    for (text, expected) in [
        ("root = \"opt\"", "line 1, root: opt is not an absolute path"),
        ("\n\nroot = 5", "line 3, root: invalid type: integer `5`, expected a string"),
        (
            "[import]\nmin_free = \"64M\"",
            "line 2, import.min_free: 64M: M is not clear: write MB (powers of 1000) or MiB (powers of 1024) at character 3",
        ),
        ("[import]\nmin_free = 64", "line 2, import.min_free: invalid type: integer `64`, expected a string"),
        ("import = { min_free = \"x\" }", "line 1, import.min_free: x: a number is missing at character 1"),
        ("import.min_free = \"x\"", "line 1, import.min_free: x: a number is missing at character 1"),
        (
            "[import]\nshared = [\n  \"a\",\n  \"/b\",\n]",
            "line 2, import.shared: the pattern /b must be relative to the top of a version: leave out the leading slash",
        ),
        ("[retention]\nkeep_last = -1", "line 2, retention.keep_last: invalid value: integer `-1`, expected u32"),
        (
            "[retention]\nkeep_within = \"30\"",
            "line 2, retention.keep_within: 30: a unit is missing (one of w, d, h, m, s, ms) at character 3",
        ),
        (
            "[retention]\nkeep_label = [\"stable\"]",
            "line 2, retention.keep_label: stable is not a label of the form KEY=VALUE",
        ),
        (
            "[retention]\nkeep_label = [\"a b=c\"]",
            "line 2, retention.keep_label: a label's key is 1 to 64 letters, digits and . _ / -, unlike a b",
        ),
        ("[notify]\ncommand = []", "line 2, notify.command: a command needs at least the name of a program"),
        ("[notify]", "line 1, notify: missing field `command`"),
        (
            "[notify]\ncommand = [\"x\"]\non = [\"gc\", \"boot\"]",
            "line 3, notify.on: unknown event boot, expected one of rollback, rolled-back, degraded, corruption, switched, \
             gc",
        ),
        (
            "[supervisor]\nkind = \"runit\"",
            "line 2, supervisor.kind: unknown variant `runit`, expected `systemd` or `command`",
        ),
        ("\n[[service]]\nsettle = \"1s\"", "line 2, service[1]: missing field `unit`"),
        ("[[service]]\nunit = \"--now\"", "line 2, service[1].unit: --now cannot be the name of a unit"),
        ("[[service]]\nunit = \"a/b\"", "line 2, service[1].unit: a/b cannot be the name of a unit"),
        ("[[service]]\nunit = \"@a.service\"", "line 2, service[1].unit: @a.service cannot be the name of a unit"),
        (
            "[[service]]\nunit = \"a@.service\"",
            "line 2, service[1].unit: a@.service is a template, which never runs itself: name its instance, as in worker@1.service",
        ),
        (
            "[[service]]\nunit = \"a\"\nhttp = \"https://x/\"",
            "line 3, service[1].http: https://x/ does not begin with http:// (checks are made without encryption)",
        ),
        (
            "[[service]]\nunit = \"a\"\nhttp = 80",
            "line 3, service[1].http: invalid type: integer `80`, expected an address, or a table with url, status, body, timeout",
        ),
        (
            "[[service]]\nunit = \"a\"\nhttp = { url = \"http://x/\", status = 99 }",
            "line 3, service[1].http: 99 is not the status of an answer",
        ),
        (
            "[[service]]\nunit = \"a\"\ncommand = { command = [], timeout = \"1s\" }",
            "line 3, service[1].command.command: a command needs at least the name of a program",
        ),
        (
            "[[service]]\nunit = \"a\"\ncommand = { command = [\"x\"], timeout = \"0s\" }",
            "line 3, service[1].command.timeout: nothing answers in no time",
        ),
        (
            "[[service]]\nunit = \"a\"\nsettle = \"30s\"",
            "line 1, service[1]: a can never pass: it has to settle for 30s within a timeout of 30s",
        ),
        (
            "[[service]]\nunit = \"a\"\n\n[[service]]\nunit = \"a\"",
            "line 4, service[2].unit: a.service is configured twice",
        ),
        (
            "[[service]]\nunit = \"a.service\"\n[[service]]\nunit = \"a\"",
            "line 3, service[2].unit: a.service is configured twice",
        ),
    ] {
        assert_eq!(failed(text), expected, "in {text:?}");
    }
}

#[test]
fn a_hostile_key_cannot_drive_the_terminal() {
    let error = failed("\"a\\u001b[2J\\nb\" = 1");
    assert!(error.starts_with("line 1, a\\u{1b}[2J\\nb: unknown field `a\\u{1b}[2J\\nb`"), "{error}");
}

#[test]
fn text_that_is_no_toml_has_a_line() {
    let error = Config::parse("root = \"/x\"\nbin_dir = /usr\n").unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (2, ""));
    let error = Config::parse("root = \"/x\"\nroot = \"/y\"\n").unwrap_err();
    assert_eq!((error.line, error.problem.as_str()), (2, "duplicate key"));
}

#[test]
fn a_supervisor_of_commands_needs_all_of_them() {
    let whole = "[supervisor]\nkind = \"command\"\nstart = [\"rc\", \"{unit}\", \"start\"]\nstop = [\"rc\", \"{unit}\", \"stop\"]\nrestart = [\"rc-{unit}-again\"]\nstatus = [\"rc\", \"{unit}\"]\n";
    let Supervisor::Command(templates) = Config::parse(whole).unwrap().supervisor else { panic!("not a command") };
    assert_eq!(Templates::fill(&templates.start, "api"), ["rc", "api", "start"]);
    assert_eq!(Templates::fill(&templates.restart, "{unit}"), ["rc-{unit}-again"]);
    let without = whole.replace("status", "# status");
    assert_eq!(failed(&without), "line 1, supervisor: kind = \"command\" needs all of start, stop, restart and status");
    let systemd = whole.replace("\"command\"", "\"systemd\"");
    assert_eq!(failed(&systemd), "line 1, supervisor: start, stop, restart and status go with kind = \"command\" only");
    let same = whole.replace("[\"rc\", \"{unit}\"]", "[\"rc\"]");
    assert!(failed(&same).starts_with("line 6, supervisor.status: {unit} must stand somewhere"), "{}", failed(&same));
}

#[test]
fn a_service_is_named_after_its_unit() {
    let names = |supervisor: &str, unit: &str| {
        let config = Config::parse(&format!("{supervisor}[[service]]\nunit = \"{unit}\"")).unwrap();
        (config.services[0].unit.clone(), config.services[0].name().to_owned())
    };
    let other = "[supervisor]\nkind = \"command\"\nstart = [\"{unit}\"]\nstop = [\"{unit}\"]\nrestart = [\"{unit}\"]\nstatus = [\"{unit}\"]\n";
    for (unit, in_full, name) in [
        ("device-api.service", "device-api.service", "device-api"),
        ("worker@3.service", "worker@3.service", "worker"),
        ("worker@a.b", "worker@a.b.service", "worker"),
        ("plain", "plain.service", "plain"),
        ("a.b.service", "a.b.service", "a.b"),
        ("a.b", "a.b.service", "a.b"),
        ("sync.timer", "sync.timer", "sync"),
    ] {
        assert_eq!(names("", unit), (in_full.to_owned(), name.to_owned()), "{unit}");
        assert_eq!(names(other, unit), (unit.to_owned(), name.to_owned()), "{unit}");
    }
}

#[test]
fn addresses_are_taken_apart_and_hostile_ones_refused() {
    for (text, printed) in [
        ("http://localhost", "http://localhost:80/"),
        ("http://localhost/", "http://localhost:80/"),
        ("http://localhost?x=1", "http://localhost:80/?x=1"),
        ("http://[::1]:9/a/b?c=d", "http://[::1]:9/a/b?c=d"),
        ("http://10.0.0.1:65535/x", "http://10.0.0.1:65535/x"),
    ] {
        let address = HttpAddress::parse(text).unwrap();
        assert_eq!(address.to_string(), printed);
        assert_eq!(HttpAddress::parse(printed), Ok(address));
    }
    for wrong in [
        "",
        "localhost",
        "ftp://x",
        "http://",
        "http:///x",
        "http://:80/",
        "http://x:/",
        "http://x:0/",
        "http://x:65536/",
        "http://x:+1/",
        "http://u@x/",
        "http://[::1/",
        "http://[x]/",
        "http://[::1]9/",
        "http://x/a b",
        "http://x/\r\nHost: y",
        "http://x/#top",
        "http://\u{fc}/",
        "http://a:b:c/",
    ] {
        assert!(HttpAddress::parse(wrong).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn no_damage_to_the_file_panics(at in 0..WHOLE.len(), cut in 0_usize..9, insert in "[\\[\\]=\"'{}.#\n\\\\a1-]{0,3}") {
        let end = (at + cut).min(WHOLE.len());
        let text = format!("{}{insert}{}", &WHOLE[..at], &WHOLE[end..]);
        if let Err(error) = Config::parse(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1);
            prop_assert!(!error.problem.is_empty());
        }
    }
}
