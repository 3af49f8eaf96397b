//! What a real systemd cannot start is found before a switch, by its files where they come with the release.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::support::container::Machine;
use crate::support::{Outcome, tree};

tests![what_systemd_cannot_start_is_refused_before_the_switch, units_that_come_with_a_release_are_judged_by_its_files];

const FUNCTIONS: &str = "
    begin() {
        tope-store init
        for version in /root/[12].*; do tope-store import $version --version ${version#/root/} >/dev/null; done
        tope-store factory set 1.0.0
        tope-store activate 1.0.0 --restart=all
    }
    pid() { systemctl show --property=MainPID --value api; }
    try() {
        code=0; before=$(pid)
        tope-store --json activate $1 --restart=all >/tope-test/$2.json || code=$?
        [ $before = $(pid) ] && same=untouched || same=restarted
        echo $2 $code $(readlink /opt/tope/versions/current) $same
        tope-store --json doctor >/tope-test/$2.doctor || echo doctor $2 $?
    }
    service() { printf '[[service]]\\nunit = \"%s.service\"\\nsettle = \"100ms\"\\n' $1 >>/etc/tope-store/config.toml; }
    with() { cp /etc/tope-store/config.toml /root/config; service $1; }
    without() { cp /root/config /etc/tope-store/config.toml; }
";

const CONFIG: &str = "[[service]]\nunit = \"api.service\"\nsettle = \"100ms\"\n";

fn json(machine: &Machine, name: &str) -> Value {
    serde_json::from_str(&machine.read(format!("tope-test/{name}"))).expect("a document")
}

/// The findings of an answer: kind and unit.
fn kinds(findings: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    findings.as_array().expect("findings").iter().map(|one| (text(one, "kind"), text(one, "unit"))).collect()
}

fn release(machine: &Machine, version: &str) {
    let text = format!("#!/bin/sh\n# {version}\nexec sleep 100000\n");
    tree::program(machine.path(format!("root/{version}/bin/api")), text);
}

fn what_systemd_cannot_start_is_refused_before_the_switch() -> Outcome {
    let machine = Machine::new()?;
    let unit = |name: &str, text: &str| machine.file(format!("etc/systemd/system/{name}.service"), text);
    let program = "ExecStart=/opt/tope/versions/current/bin/api";
    unit("api", &format!("[Service]\n{program}\n[Install]\nWantedBy=multi-user.target\n"));
    unit("typo", &format!("[Servic]\n{program}\n"));
    unit("stranger", &format!("[Service]\nUser=no-such-user\n{program}\n"));
    unit("egg", &format!("[Unit]\nAfter=hen.service\n[Service]\n{program}\n"));
    unit("hen", &format!("[Unit]\nAfter=egg.service\n[Service]\n{program}\n"));
    unit("needy", &format!("[Unit]\nRequires=nothing.service\n[Service]\n{program}\n"));
    machine.file("etc/tope-store/config.toml", CONFIG);
    release(&machine, "1.0.0");
    release(&machine, "1.1.0");
    let cases = [
        ("gone", "unit-absent"),
        ("typo", "unit-refused"),
        ("stranger", "unit-account"),
        ("hen", "unit-order"),
        ("needy", "unit-needs"),
    ];
    let tries: String = cases
        .iter()
        .map(|(name, _)| {
            let more = if *name == "hen" { "service egg" } else { "" };
            format!("with {name}; {more}\ntry 1.1.0 {name}\nwithout\n")
        })
        .collect();
    let script = format!(
        "{FUNCTIONS}
        begin
        {tries}
        try 1.1.0 good
        # Going back is never refused.
        with typo; service gone
        code=0; tope-store --json rollback --restart >/tope-test/back.json || code=$?
        echo back $code $(readlink /opt/tope/versions/current)"
    );
    let ran = machine.boot(&script)?.ok();
    for (name, kind) in cases {
        assert!(ran.stdout.contains(&format!("{name} 4 v1.0.0 untouched\n")), "{name}: {}", ran.stdout);
        let refused = json(&machine, &format!("{name}.json"));
        assert_eq!(refused["error"]["kind"], "preflight");
        let expected = vec![(kind.to_owned(), format!("{name}.service"))];
        assert_eq!(kinds(&refused["error"]["findings"]), expected, "{refused:#}");
        let doctor = json(&machine, &format!("{name}.doctor"));
        let found: Vec<String> = kinds(&doctor["findings"]).into_iter().map(|(kind, _)| kind).collect();
        assert!(found.contains(&kind.to_owned()), "{name}: {doctor:#}");
        assert!(ran.stdout.contains(&format!("doctor {name} 1\n")), "{name}: {}", ran.stdout);
    }
    let typo = json(&machine, "typo.json");
    let message = typo["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("it has no ExecStart= in [Service]"), "{message}");
    assert!(ran.stdout.contains("good 0 v1.1.0 restarted\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("back 0 v1.0.0\n"), "{ran:#?}");
    let expected = [("unit-refused", "typo.service"), ("unit-absent", "gone.service")];
    let back = json(&machine, "back.json");
    assert_eq!(kinds(&back["preflight"]), expected.map(|(kind, unit)| (kind.to_owned(), unit.to_owned())), "{back:#}");
    Ok(())
}

fn units_that_come_with_a_release_are_judged_by_its_files() -> Outcome {
    let machine = Machine::new()?;
    let link = |target: &str, path: &str| {
        let path = machine.path(format!("etc/systemd/system/{path}"));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        symlink(target, path).expect("a link");
    };
    link("/opt/tope/versions/current/units/api.service", "api.service");
    link("../api.service", "multi-user.target.wants/api.service");
    link("/opt/tope/versions/current/units/api.service.d", "api.service.d");
    let program = "/opt/tope/versions/current/bin/api";
    let good = format!("[Service]\nExecStart={program}\n");
    let check = "command = [\"/opt/tope/versions/current/bin/check\"]\n";
    machine.file("etc/tope-store/config.toml", CONFIG);
    let cases: [(&str, &str, String, &str); 6] = [
        ("2.1.0", "units/api.service", good.replace("[Service]", "[Servic]"), "unit-refused"),
        ("2.2.0", "units/api.service", good.replace("ExecStart", "ExceStart"), "unit-refused"),
        ("2.3.0", "units/api.service", format!("{good}User=no-such-user\n"), "unit-account"),
        ("2.4.0", "units/api.service", good.replace("bin/api", "bin/another"), "unit-program"),
        ("2.5.0", "units/api.service.d/more.conf", "[Service]\nGroup=no-such-group\n".to_owned(), "unit-account"),
        ("2.6.0", "units/other.service", good.clone(), "unit-absent"),
    ];
    for version in ["1.0.0", "1.1.0"].into_iter().chain(cases.iter().map(|(version, ..)| *version)) {
        release(&machine, version);
        if version != "2.6.0" {
            machine.file(format!("root/{version}/units/api.service"), &good);
        }
    }
    for (version, path, text, _) in &cases {
        machine.file(format!("root/{version}/{path}"), text);
    }
    machine.program("root/1.1.0/bin/check", "#!/bin/sh\nexit 0\n");
    let tries: String = cases.iter().map(|(version, ..)| format!("try {version} {version}\n")).collect();
    let script = format!(
        "{FUNCTIONS}
        begin
        {tries}
        # A check that only the new release brings.
        printf '%s\\n' '{check}' >>/etc/tope-store/config.toml
        try 1.1.0 good"
    );
    let ran = machine.boot(&script)?.ok();
    for (version, _, _, kind) in &cases {
        assert!(ran.stdout.contains(&format!("{version} 4 v1.0.0 untouched\n")), "{version}: {}", ran.stdout);
        let refused = json(&machine, &format!("{version}.json"));
        let found = kinds(&refused["error"]["findings"]);
        assert_eq!(found[0], ((*kind).to_owned(), "api.service".to_owned()), "{version}: {refused:#}");
    }
    assert!(ran.stdout.contains("good 0 v1.1.0 restarted\n"), "{}", ran.stdout);
    Ok(())
}
