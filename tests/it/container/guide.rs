//! The guides' walk-through on an empty machine, command by command.

use crate::support::container::Machine;
use crate::support::{Outcome, needs_program, tree};

tests![
    the_walk_through_of_the_guide_runs_from_an_empty_machine,
    the_device_chapter_of_the_readme_runs_on_an_empty_machine
];

const GUIDES: [&str; 2] = [include_str!("../../../deploy/GUIDE.zh.md"), include_str!("../../../deploy/GUIDE.md")];

/// The commands of the blocks that are marked to be run, in order.
fn commands(guide: &str) -> Vec<&str> {
    let blocks = guide.split("```sh run\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.flat_map(str::lines).collect()
}

/// A service that says its version, or serves.
fn service(version: &str) -> String {
    format!(
        "#!/usr/bin/python3
import http.server, sys
if '--version' in sys.argv:
    print('{version}')
    sys.exit()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 9080), Handler).serve_forever()
"
    )
}

fn the_walk_through_of_the_guide_runs_from_an_empty_machine() -> Outcome {
    needs_program("python3")?;
    let steps = commands(GUIDES[0]);
    assert_eq!(steps, commands(GUIDES[1]), "both guides walk the same way");
    assert!(steps.len() > 20, "{steps:?}");
    let machine = Machine::new()?;
    for version in ["1.0.0", "1.1.0"] {
        let top = machine.path(format!("path/to/build-{version}"));
        tree::program(top.join("bin/device-api"), service(version));
        tree::file(top.join("services/device-api/settings.toml"), "port = 9080\n");
    }
    // As the package lays it out, and what `deploy/config.toml.example` names.
    let examples = [
        "setup_symlinks.sh",
        "create_factory_version.sh",
        "test_symlink_switch.sh",
        "verify_setup.sh",
        "device-api.service.example",
    ];
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let place = "usr/share/doc/tope-store/examples";
    for name in examples {
        machine.program(format!("{place}/{name}"), std::fs::read(deploy.join(name)).unwrap());
    }
    let config = std::fs::read_to_string(deploy.join("config.toml.example")).unwrap();
    machine.file(format!("{place}/config.toml"), config.replace("settle = \"5s\"", "settle = \"1s\""));
    let script: String = steps
        .iter()
        .map(|step| {
            format!(
                "printf '%s\\n' '+ {}'\n{step}\nprintf '= %s %s\\n' $? $(readlink /opt/tope/versions/current)\n",
                step.replace('\'', "")
            )
        })
        .collect();
    // This machine may have it; an empty one has not.
    let script = format!("userdel tope 2>/dev/null || :\n{script}");
    let ran = machine.boot(&script)?.ok();
    let after = |step: &str| {
        let (_, rest) = ran.stdout.split_once(&format!("+ {}\n", step.replace('\'', ""))).expect("the step ran");
        let line = rest.lines().find(|line| line.starts_with("= ")).expect("it ended");
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    for (step, current) in [
        ("tope-store activate 1.0.0", "v1.0.0"),
        ("tope-store activate 1.1.0 --restart", "v1.1.0"),
        ("tope-store rollback --restart --reason \"时钟不对\"", "v1.0.0"),
        ("tope-store rollback --to factory --restart --not-bad", "v1.0.0"),
    ] {
        assert_eq!(after(step), current, "{step}: {ran:#?}");
    }
    for said in ["device-api.service: restarted, and holds", "PASSED", "\n1.0.0\n", "已知问题：时钟"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:#?}");
    }
    assert_eq!(machine.link("opt/tope/versions/factory"), "v1.0.0");
    Ok(())
}

/// Literally, with nothing installed but what the chapter installs.
fn the_device_chapter_of_the_readme_runs_on_an_empty_machine() -> Outcome {
    needs_program("python3")?;
    let machine = Machine::new()?;
    tree::program(machine.path("path/to/build/bin/device-api"), service("1.0.0"));
    tree::program(machine.path("path/to/next/bin/device-api"), service("1.1.0"));
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for name in ["config.toml.example", "device-api.service.example"] {
        machine.file(format!("root/deploy/{name}"), std::fs::read(deploy.join(name)).unwrap());
    }
    let chapter = crate::support::readme::block("device");
    let script = format!(
        "userdel tope 2>/dev/null || :
        cd /root
        {chapter}
        systemctl is-active device-api
        # Pasted once more it does no harm, and the first watched switch with the files as they are holds.
        {chapter}
        tope-store import /path/to/next --version 1.1.0
        tope-store activate 1.1.0 --restart
        stat --format %U /proc/$(systemctl show --property=MainPID --value device-api)
        tope-store --json doctor >/tope-test/doctor"
    );
    let ran = machine.boot(&script)?.ok();
    for said in ["\nactive\n", "device-api.service: restarted, and holds\ntope\n"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:#?}");
    }
    let document: serde_json::Value = serde_json::from_str(&machine.read("tope-test/doctor")).expect("a document");
    let found: Vec<_> = document["findings"].as_array().expect("findings").iter().map(|one| &one["kind"]).collect();
    assert!(found.iter().all(|kind| *kind == "processes-hidden"), "{document:#}");
    Ok(())
}
