//! The symlink guide, chapter by chapter, from an empty root: its steps, its scripts, its troubleshooting checks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Fixture, Outcome, Ran, binary, tree};

tests![
    the_guide_runs_from_an_empty_root,
    what_the_guide_does_by_hand_is_understood,
    the_switch_test_restores_when_it_fails,
    the_switch_test_says_that_it_takes_two_versions,
    the_links_are_dry_run_and_removed_by_the_script_too,
    the_setup_is_verified_and_what_is_wrong_is_named,
];

/// A device: a root, a directory of programs, and what its scripts are called with.
struct Device {
    fixture: Fixture,
}

impl Device {
    /// Without a root, as it comes out of the box.
    fn new() -> Self {
        let fixture = Fixture::bare();
        std::fs::create_dir(fixture.beside("bin")).unwrap();
        Self { fixture }
    }

    fn with(versions: &[&str]) -> Self {
        let device = Self::new();
        device.fixture.run(&["init"]).ok();
        for version in versions {
            device.build(version);
            device.fixture.import(version, version);
        }
        device.fixture.run(&["activate", versions[0]]).ok();
        device
    }

    /// What a build of this version gives, beside the root.
    fn build(&self, version: &str) -> PathBuf {
        let top = self.fixture.beside(version);
        for service in ["device-api", "web-server"] {
            tree::program(top.join("bin").join(service), format!("#!/bin/sh\necho {service} {version}\n"));
            tree::file(top.join("services").join(service).join("settings.toml"), "port = 9080\n");
        }
        top
    }

    /// A shell at the device, with the guide's paths replaced by this one's.
    fn command(&self, line: &str) -> Command {
        let (root, bin) = (self.fixture.root(), self.fixture.beside("bin"));
        let line = line
            .replace("/opt/tope", &root.display().to_string())
            .replace("/usr/local/bin", &bin.display().to_string())
            .replace("/path/to", &self.fixture.dir.display().to_string());
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", &line]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).stdin(Stdio::null());
        command.env("TOPE_ROOT", root).env("TOPE_BIN_DIR", bin).env("TOPE_STORE", binary());
        command.env("TOPE_CONFIG", self.fixture.config());
        command
    }

    fn try_shell(&self, line: &str) -> Ran {
        Ran::of(&self.command(line).output().expect("a shell"))
    }

    /// Runs a line of the guide, which must succeed; gives what it said, with the paths of the guide.
    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let said = self.try_shell(line).ok().stdout;
        let said = said.replace(&self.fixture.root().display().to_string(), "/opt/tope");
        said.replace(&self.fixture.beside("bin").display().to_string(), "/usr/local/bin").trim_end().to_owned()
    }

    #[track_caller]
    fn tope(&self, arguments: &[&str]) -> Ran {
        self.fixture.run(arguments).ok()
    }

    fn roles(&self) -> [String; 3] {
        ["current", "previous", "factory"].map(|role| self.fixture.link(&format!("versions/{role}")))
    }
}

fn the_guide_runs_from_an_empty_root() -> Outcome {
    let device = Device::new();
    device.build("1.0.0");

    // 1. The first version, by hand as in the guide, and taken under management.
    device.shell("mkdir -p /opt/tope/versions/v1.0.0/bin");
    device.shell("mkdir -p /opt/tope/versions/v1.0.0/services");
    device.shell("cp /path/to/1.0.0/bin/device-api /opt/tope/versions/v1.0.0/bin/");
    device.shell("cp /path/to/1.0.0/bin/web-server /opt/tope/versions/v1.0.0/bin/");
    device.shell("cp -r /path/to/1.0.0/services/device-api /opt/tope/versions/v1.0.0/services/device-api");
    device.shell("cp -r /path/to/1.0.0/services/web-server /opt/tope/versions/v1.0.0/services/web-server");
    device.shell("ln -s /opt/tope/versions/v1.0.0 /opt/tope/versions/current");
    device.tope(&["init"]);
    device.tope(&["adopt", "v1.0.0"]);
    tree::assert_same(&device.fixture.beside("1.0.0"), &device.fixture.path("versions/v1.0.0"));

    // 2. The links.
    device.shell("deploy/setup_symlinks.sh");
    for service in ["device-api", "web-server"] {
        let link = device.shell(&format!("readlink /usr/local/bin/{service}"));
        assert_eq!(link, format!("/opt/tope/versions/current/bin/{service}"));
        let link = device.fixture.link(&format!("services/{service}"));
        assert_eq!(link, format!("../versions/current/services/{service}"));
    }
    assert_eq!(device.shell("/usr/local/bin/device-api --version"), "device-api 1.0.0");

    // 4. The factory version (3 is systemd's).
    device.shell("deploy/create_factory_version.sh 1.0.0");
    assert_eq!(device.fixture.link("versions/factory"), "v1.0.0");
    device.fixture.run(&["remove", "1.0.0"]).expect(4);

    // A new version, and the switch to it.
    device.build("1.1.0");
    device.fixture.import("1.1.0", "1.1.0");
    device.tope(&["activate", "1.1.0"]);
    assert_eq!(device.roles(), ["v1.1.0", "v1.0.0", "v1.0.0"]);
    assert_eq!(device.shell("/usr/local/bin/device-api --version"), "device-api 1.1.0");

    // Its switch test.
    let said = device.shell("deploy/test_symlink_switch.sh");
    assert!(said.ends_with("\nPASSED: v1.1.0 -> v1.0.0 -> v1.1.0"), "{said}");
    assert!(said.contains("   ok: /usr/local/bin/device-api\n"), "{said}");
    assert!(said.contains("   ok: /opt/tope/services/web-server\n"), "{said}");
    assert_eq!(device.roles(), ["v1.1.0", "v1.0.0", "v1.0.0"]);

    // Back to the previous version; then a third one, and back to factory.
    device.tope(&["rollback"]);
    assert_eq!(device.shell("/usr/local/bin/device-api --version"), "device-api 1.0.0");
    device.build("1.2.0");
    device.fixture.import("1.2.0", "1.2.0");
    device.tope(&["activate", "1.2.0"]);
    device.tope(&["rollback", "--to", "factory"]);
    assert_eq!(device.roles()[0], "v1.0.0");
    assert_eq!(device.fixture.link("versions/factory"), "v1.0.0");

    // Its troubleshooting checks.
    let listed = device.shell("ls -l /usr/local/bin/device-api");
    assert!(listed.ends_with("/usr/local/bin/device-api -> /opt/tope/versions/current/bin/device-api"), "{listed}");
    let listed = device.shell("ls -l /opt/tope/services/device-api");
    assert!(listed.ends_with(" -> ../versions/current/services/device-api"), "{listed}");
    assert_eq!(
        device.shell("readlink -f /usr/local/bin/device-api"),
        device.shell("readlink -f /opt/tope") + "/versions/v1.0.0/bin/device-api"
    );
    let listed = device.shell("ls -l $(readlink -f /usr/local/bin/device-api)");
    assert!(listed.starts_with("-r-xr-xr-x"), "sealed, and still a program: {listed}");
    assert!(device.shell("ls -l /opt/tope/versions/current/bin/device-api").starts_with("-r-xr-xr-x"));
    assert_eq!(device.shell("readlink /opt/tope/versions/current"), "v1.0.0");
    assert_eq!(device.shell("/usr/local/bin/device-api --version"), "device-api 1.0.0");
    Ok(())
}

fn what_the_guide_does_by_hand_is_understood() -> Outcome {
    let device = Device::with(&["1.0.0", "1.1.0"]);
    device.shell("deploy/create_factory_version.sh 1.0.0");

    // Its second way to switch.
    device.shell("ln -sfn /opt/tope/versions/v1.1.0 /opt/tope/versions/current");
    let status = device.fixture.json(&["status"]);
    assert_eq!(status["current"]["version"], "v1.1.0", "{status:#}");
    device.tope(&["rollback"]);
    assert_eq!(device.roles()[0], "v1.0.0");

    // Its second way back to factory, through a role.
    device.shell("ln -sfn /opt/tope/versions/factory /opt/tope/versions/current");
    assert_eq!(device.fixture.json(&["status"])["current"]["version"], "v1.0.0");
    device.tope(&["activate", "1.1.0", "--force"]);
    assert_eq!(device.roles(), ["v1.1.0", "v1.0.0", "v1.0.0"]);

    // A version that nobody imported.
    device.build("1.2.0");
    device.shell("cp -r /path/to/1.2.0 /opt/tope/versions/v1.2.0");
    device.tope(&["activate", "1.2.0"]);
    assert_eq!(device.roles()[0], "v1.2.0");
    Ok(())
}

fn the_switch_test_restores_when_it_fails() -> Outcome {
    let device = Device::with(&["1.0.0", "1.1.0"]);
    device.shell("deploy/setup_symlinks.sh");
    // Links of others do not count; one that goes past current does.
    let other = device.fixture.beside("other/versions/current/bin/device-api");
    tree::program(&other, "#!/bin/sh\n");
    std::os::unix::fs::symlink(&other, device.fixture.beside("bin/other")).unwrap();
    let past = device.fixture.path("versions/current/../v1.0.0/bin/device-api");
    std::os::unix::fs::symlink(past, device.fixture.beside("bin/past")).unwrap();
    let ran = device.try_shell("deploy/test_symlink_switch.sh").expect(1);
    assert!(ran.stdout.contains("2. Switching from v1.0.0 to v1.1.0\n"), "{ran:#?}");
    assert!(ran.stderr.contains("FAILED: ") && ran.stderr.contains("bin/past leads elsewhere"), "{ran:#?}");
    assert_eq!(device.roles()[0], "v1.0.0");
    Ok(())
}

fn the_switch_test_says_that_it_takes_two_versions() -> Outcome {
    let device = Device::new();
    device.tope(&["init"]);
    let ran = device.try_shell("deploy/test_symlink_switch.sh").expect(1);
    assert!(ran.stderr.contains("no version is current"), "{ran:#?}");
    let device = Device::with(&["1.0.0"]);
    let ran = device.try_shell("deploy/test_symlink_switch.sh").expect(1);
    assert!(ran.stderr.contains("there is no version but v1.0.0"), "{ran:#?}");
    assert_eq!(device.roles()[0], "v1.0.0");
    let ran = device.try_shell("deploy/create_factory_version.sh").expect(2);
    assert!(ran.stderr.starts_with("usage: "), "{ran:#?}");
    Ok(())
}

fn the_links_are_dry_run_and_removed_by_the_script_too() -> Outcome {
    let device = Device::with(&["1.0.0"]);
    let program = device.fixture.beside("bin/device-api");
    device.shell("deploy/setup_symlinks.sh --dry-run");
    assert!(!program.is_symlink());
    device.shell("deploy/setup_symlinks.sh");
    device.shell("deploy/setup_symlinks.sh");
    assert!(program.is_file());
    device.shell("deploy/setup_symlinks.sh --remove");
    assert!(!program.is_symlink() && !device.fixture.path("services/device-api").is_symlink());
    Ok(())
}

fn the_setup_is_verified_and_what_is_wrong_is_named() -> Outcome {
    let device = Device::with(&["1.0.0"]);
    let ran = device.try_shell("deploy/verify_setup.sh").expect(1);
    assert!(ran.stderr.ends_with("FAILED: links, factory version\n"), "{ran:#?}");
    assert!(ran.stdout.contains("would be created "), "{ran:#?}");
    device.shell("deploy/setup_symlinks.sh");
    device.shell("deploy/create_factory_version.sh 1.0.0");
    let said = device.shell("deploy/verify_setup.sh");
    assert!(said.ends_with("\nPASSED"), "{said}");
    device.shell("chmod u+w /opt/tope/versions/v1.0.0/bin/device-api");
    let ran = device.try_shell("deploy/verify_setup.sh").expect(1);
    assert!(ran.stderr.contains("FAILED: trees"), "{ran:#?}");
    device.shell("rm /opt/tope/versions/current");
    let ran = device.try_shell("deploy/verify_setup.sh").expect(1);
    assert!(ran.stderr.contains("current version"), "{ran:#?}");
    Ok(())
}
