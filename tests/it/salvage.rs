//! The fire exit with a configuration that is refused: it needs nothing but the store, and must not take another one.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::supervise::{STEADY, Site};
use crate::support::{Fixture, Outcome, Ran, needs_root, releases, tree};

tests![
    one_unknown_key_does_not_change_the_store,
    what_cannot_be_read_at_all_leaves_the_usual_place_or_asks,
    services_and_their_supervisor_are_still_known,
    unknown_tables_are_warned_of_and_ignored,
    other_commands_refuse_unknown_keys,
    empty_variables_are_not_set,
];

/// An image whose store is said by its configuration, with another store at the usual place.
struct Device {
    fixture: Fixture,
}

impl Device {
    fn new() -> Self {
        let device = Self { fixture: Fixture::bare() };
        std::fs::create_dir_all(device.path("etc/tope-store")).unwrap();
        for root in ["/opt/tope", "/data/tope"] {
            device.run(&["--root", root, "init"]).ok();
            for number in 0..2 {
                let source = device.fixture.beside("source");
                tree::release(&source, number);
                let version = format!("1.{number}.0");
                let source = source.display().to_string();
                device.run(&["--root", root, "import", &source, "--version", &version, "--activate"]).ok();
            }
        }
        device
    }

    fn path(&self, path: &str) -> PathBuf {
        self.fixture.beside("image").join(path)
    }

    fn configure(&self, text: impl AsRef<[u8]>) {
        let file = self.path("etc/tope-store/config.toml");
        let _ = std::fs::remove_dir(&file);
        std::fs::write(file, text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(crate::support::binary());
        command.arg("--sysroot").arg(self.path("")).stdin(Stdio::null());
        for variable in ["TOPE_ROOT", "TOPE_SYSROOT", "TOPE_CONFIG", "TOPE_JOBS", "TOPE_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command().args(arguments).output().unwrap())
    }

    fn current(&self, root: &str) -> String {
        let link = std::fs::read_link(self.path(root).join("versions/current")).unwrap();
        link.display().to_string()
    }

    /// Both stores, as they were.
    fn put_back(&self) {
        for root in ["/opt/tope", "/data/tope"] {
            let sound = self.fixture.config().display().to_string();
            self.run(&["--config", &sound, "--root", root, "activate", "1.1.0", "--force"]).ok();
        }
    }

    /// Whether a command is about the store at the root of this configuration, and leaves the other one alone.
    fn assert_about(&self, ours: &str, text: &[u8]) {
        let when = text.escape_ascii().to_string();
        let other = if ours == "data/tope" { "opt/tope" } else { "data/tope" };
        std::fs::remove_file(self.path(ours).join("versions/previous")).unwrap();
        let status = self.run(&["--json", "status"]).ok().json();
        assert_eq!(status["previous"]["version"], Value::Null, "{when}");
        assert!(told(&status).len() > usize::from(ours == "opt/tope"), "{when}: {status}");
        std::os::unix::fs::symlink("v1.0.0", self.path(ours).join("versions/previous")).unwrap();
        let back = self.run(&["--json", "rollback"]).ok().json();
        assert!(told(&back)[0].contains("config.toml"), "{when}: {back}");
        assert_eq!((self.current(ours), self.current(other)), ("v1.0.0".into(), "v1.1.0".into()), "{when}");
        self.put_back();
    }
}

/// What a document says of the configuration.
fn told(document: &Value) -> Vec<String> {
    let told = document["configuration"].as_array().cloned().unwrap_or_default();
    told.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn one_unknown_key_does_not_change_the_store() -> Outcome {
    let device = Device::new();
    for text in [
        &b"root = \"/data/tope\"\nroott = 3\n"[..],
        b"root = \"/data/tope\"\n[import]\nprivat = []\n",
        b"root = \"/data/tope\"\n[[service]]\nunit = \"a/b\"\n",
        b"bin_dir = oops\nroot = \"/data/tope\"\n[import",
        b"root = \"/data/tope\"\n# caf\xe9\n",
    ] {
        device.configure(text);
        device.assert_about("data/tope", text);
    }
    // What is asked for comes first.
    device.configure("root = \"/opt/tope\"\nroott = 3\n");
    device.run(&["--root", "/data/tope", "rollback"]).ok();
    assert_eq!((device.current("data/tope").as_str(), device.current("opt/tope").as_str()), ("v1.0.0", "v1.1.0"));
    device.put_back();
    Ran::of(&device.command().env("TOPE_ROOT", "/data/tope").arg("rollback").output().unwrap()).ok();
    assert_eq!((device.current("data/tope").as_str(), device.current("opt/tope").as_str()), ("v1.0.0", "v1.1.0"));
    Ok(())
}

fn what_cannot_be_read_at_all_leaves_the_usual_place_or_asks() -> Outcome {
    let device = Device::new();
    let file = device.path("etc/tope-store/config.toml");
    let unreadable: [(&str, &dyn Fn()); 6] = [
        ("no root", &|| device.configure("roott = \"/data/tope\"\n")),
        ("two roots", &|| device.configure("root = \"/data/tope\"\nroot = \"/data/other\"\n")),
        ("bytes", &|| device.configure(b"\xff\xfe\x00")),
        ("too long", &|| device.configure(format!("root = \"/data/tope\"\n{}", "# x\n".repeat(300_000)))),
        ("a directory", &|| {
            let _ = std::fs::remove_file(&file);
            std::fs::create_dir(&file).unwrap();
        }),
        ("a FIFO", &|| {
            let _ = std::fs::remove_dir(&file);
            assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        }),
    ];
    for (what, configure) in unreadable {
        configure();
        device.assert_about("opt/tope", what.as_bytes());
        let said = device.run(&["status"]).ok().stderr;
        assert!(said.contains("this is about the one in") && said.contains("opt/tope"), "{what}: {said}");
        // Without a store there, nothing is guessed.
        std::fs::rename(device.path("opt/tope"), device.path("opt/away")).unwrap();
        for command in [&["rollback"][..], &["status"], &["boot-check"], &["doctor"]] {
            let asked = device.run(&[&["--json"], command].concat()).expect(2).json();
            let message = asked["error"]["message"].as_str().unwrap();
            assert!(message.contains("--root") && message.contains("config.toml"), "{what}: {message}");
        }
        assert_eq!(device.current("data/tope"), "v1.1.0");
        std::fs::rename(device.path("opt/away"), device.path("opt/tope")).unwrap();
        let _ = std::fs::remove_file(&file);
    }
    Ok(())
}

/// A trial is judged by the services that can still be read.
fn services_and_their_supervisor_are_still_known() -> Outcome {
    needs_root()?;
    let site = Site::new().begun();
    site.release("1.1.0", STEADY);
    site.fixture.run(&["activate", "1.1.0", "--restart"]).ok();
    let config = std::fs::read_to_string(site.fixture.config()).unwrap();
    std::fs::write(site.fixture.config(), format!("{config}htpp = \"\"\n[[service]]\nunit = \"a/b\"\n")).unwrap();
    let ran = site.fixture.run(&["--json", "rollback", "--restart=all"]).ok();
    let document = ran.json();
    let watched: Vec<&str> = document["attempts"][0]["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["unit"].as_str().unwrap())
        .collect();
    assert_eq!((&document["outcome"], &watched[..]), (&"done".into(), &["api", "web"][..]), "{document}");
    let told = told(&document);
    assert!(told.iter().any(|told| told.starts_with("service[2].htpp")), "{told:?}");
    assert!(told.iter().any(|told| told.starts_with("service[3]")), "{told:?}");
    let judged = site.fixture.run(&["--json", "boot-check"]).ok().json();
    assert_eq!(judged["trial"], "none");
    Ok(())
}

fn unknown_tables_are_warned_of_and_ignored() -> Outcome {
    let fixture = releases(1);
    std::fs::write(fixture.config(), "[campaign]\nwave = 3\n[[zone]]\nname = \"a\"\n").unwrap();
    for command in [&["list"][..], &["activate", "1.0.0"], &["status"], &["gc", "--keep-last", "1", "--dry-run"]] {
        let ran = fixture.run(command).ok();
        assert!(ran.stderr.contains("campaign") && ran.stderr.contains("zone"), "{command:?}: {ran:#?}");
        assert_eq!(told(&fixture.json(command)).len(), 2, "{command:?}");
    }
    Ok(())
}

fn other_commands_refuse_unknown_keys() -> Outcome {
    let fixture = releases(1);
    std::fs::write(fixture.config(), "[import]\nprivat = []\n").unwrap();
    for command in [&["list"][..], &["activate", "1.0.0"], &["gc", "--keep-last", "1"], &["confirm"], &["verify"]] {
        let refused = fixture.run(&[&["--json"], command].concat()).expect(2).json();
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("line 2, import.privat"), "{command:?}: {message}");
    }
    Ok(())
}

fn empty_variables_are_not_set() -> Outcome {
    let fixture = releases(1);
    let variables = ["TOPE_ROOT", "TOPE_SYSROOT", "TOPE_CONFIG", "TOPE_JOBS", "TOPE_LOCK_TIMEOUT", "TOPE_COLOR"];
    let mut command = Command::new(crate::support::binary());
    command.envs(variables.map(|variable| (variable, "")));
    let found = Ran::of(&command.args(["--json", "status", "--root"]).arg(fixture.root()).output().unwrap());
    // Whatever the machine's own configuration says: the variables are no mistake.
    assert!(!found.stderr.contains("a value is required") && found.code != 2, "{found:#?}");
    assert_eq!(found.json()["schema"], 1);
    Ok(())
}
