//! The Debian package: what lintian says of it, and a device on which it is installed, upgraded, removed and purged.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::container::Machine;
use crate::support::{Fixture, Outcome, Ran, binary, needs_program};

tests![the_package_is_clean_and_goes_through_its_life];

/// Builds the package with the binary under test.
fn build(fixture: &Fixture) -> PathBuf {
    let package = fixture.beside("first.deb");
    let built = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/build_deb.sh"))
        .args(["--locked", "--offline", "--fast", "--output"])
        .arg(&package)
        .env("TOPE_STORE", binary())
        .output();
    Ran::of(&built.expect("a shell")).ok();
    package
}

/// The same with another version.
fn next(fixture: &Fixture, package: &Path) -> PathBuf {
    let (parts, next) = (fixture.beside("parts"), fixture.beside("second.deb"));
    let deb =
        |arguments: &[&OsStr]| Ran::of(&Command::new("dpkg-deb").args(arguments).output().expect("dpkg-deb")).ok();
    deb(&["-R".as_ref(), package.as_os_str(), parts.as_os_str()]);
    let control = std::fs::read_to_string(parts.join("DEBIAN/control")).expect("a control file");
    let newer = control.replace("\nVersion: 0.1.0-1\n", "\nVersion: 0.1.1-1\n");
    assert_ne!(control, newer);
    std::fs::write(parts.join("DEBIAN/control"), newer).expect("a control file");
    deb(&["-Znone".as_ref(), "-b".as_ref(), parts.as_os_str(), next.as_os_str()]);
    next
}

fn the_package_is_clean_and_goes_through_its_life() -> Outcome {
    for program in ["cargo-deb", "lintian", "dpkg-deb", "strip"] {
        needs_program(program)?;
    }
    let machine = Machine::new()?;
    let fixture = Fixture::bare();
    let first = build(&fixture);
    let lintian = Command::new("lintian").args(["--allow-root", "--fail-on", "warning,error"]).arg(&first).output();
    let lintian = Ran::of(&lintian.expect("lintian runs")).ok();
    assert_eq!(lintian.stdout, "", "what lintian says");
    let second = next(&fixture, &first);
    for (package, name) in [(first, "first.deb"), (second, "second.deb")] {
        std::fs::copy(package, machine.path("root").join(name)).expect("a copy");
    }
    std::fs::remove_file(machine.path("usr/bin/tope-store")).expect("the package brings its own");
    installed(&machine)?;
    upgraded(&machine)?;
    removed(&machine)
}

/// What of the package is seen by systemd, when the judge has done its work of this boot.
const UNITS: &str = "while systemctl is-active --quiet tope-store-boot-judge; do sleep 0.2; done
for unit in gc.timer verify.timer boot-check.service boot-judge.service; do unit=tope-store-$unit
    echo $unit $(systemctl is-enabled $unit 2>/dev/null || :) $(systemctl is-active $unit || :)
done\n";

/// The same when it is the two timers that are asked about.
fn states(gc: &str, verify: &str) -> String {
    let boot = ["check", "judge"].map(|name| format!("tope-store-boot-{name}.service enabled inactive\n")).concat();
    format!("tope-store-gc.timer {gc}\ntope-store-verify.timer {verify}\n{boot}")
}

fn installed(machine: &Machine) -> Outcome {
    let script = format!(
        "dpkg --install /root/first.deb >&2
        {UNITS}
        tope-store init
        mkdir -p /root/release/bin
        echo 1 >/root/release/bin/device-api
        tope-store import /root/release --version 1.0.0 --activate
        systemctl start tope-store-verify
        cat /etc/tope-store/config.toml
        zcat /usr/share/man/man1/tope-store-rollback.1.gz | head -n 5
        bash -c '. /usr/share/bash-completion/completions/tope-store; complete -p tope-store'
        for example in setup_symlinks.sh test_symlink_switch.sh config.toml device-api.service.example; do
            test -f /usr/share/doc/tope-store/examples/$example
        done
        sh /usr/share/doc/tope-store/examples/setup_symlinks.sh
        echo '[retention]
keep_last = 3' >>/etc/tope-store/config.toml"
    );
    let ran = machine.boot(&script)?.ok();
    assert!(ran.stdout.starts_with(&states("disabled inactive", "enabled active")), "{ran:#?}");
    assert!(ran.stdout.contains(" -F _tope__store tope-store\n"), "{ran:#?}");
    assert!(!ran.stderr.to_lowercase().contains("warning"), "{ran:#?}");
    Ok(())
}

/// In the next boot; an operator has changed the configuration and turned a timer on and the other off.
fn upgraded(machine: &Machine) -> Outcome {
    let script = format!(
        "{UNITS}
        systemctl enable --quiet --now tope-store-gc.timer
        systemctl disable --quiet --now tope-store-verify.timer
        dpkg --install /root/second.deb >&2 </dev/null
        dpkg-query --show --showformat '${{Version}} ${{Status}}\\n' tope-store
        {UNITS}
        tail -n 1 /etc/tope-store/config.toml
        readlink /opt/tope/versions/current"
    );
    let ran = machine.boot(&script)?.ok();
    let before = states("disabled inactive", "enabled active");
    let after = states("enabled active", "disabled inactive");
    let expected = format!("{before}0.1.1-1 install ok installed\n{after}keep_last = 3\nv1.0.0\n");
    assert_eq!(ran.stdout, expected, "{ran:#?}");
    Ok(())
}

fn removed(machine: &Machine) -> Outcome {
    let script = "while systemctl is-active --quiet tope-store-boot-judge; do sleep 0.2; done
        dpkg --remove tope-store >&2
        systemctl list-units --state=active --no-legend 'tope-store-*' | grep . || echo none
        ls /etc/tope-store /usr/bin/tope-store || :
        dpkg --purge tope-store >&2
        dpkg-query --show tope-store || echo unknown
        ls -d /etc/tope-store /etc/systemd/system/*.wants/tope-store* || echo gone
        ls /opt/tope/versions";
    let ran = machine.boot(script)?.ok();
    let expected = "none\n/etc/tope-store:\nconfig.toml\nunknown\ngone\ncurrent\nv1.0.0\n";
    assert_eq!(ran.stdout, expected, "{ran:#?}");
    Ok(())
}
