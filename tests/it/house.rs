//! The house around the code: what lies at the top, the scripts, the example files, the demo, the one CI script.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Fixture, Outcome, Ran, binary, needs_program, readme, tree};

tests![
    the_top_holds_only_what_belongs_there,
    nothing_names_a_registry_or_a_machine,
    scripts_are_short_strict_and_portable,
    scripts_are_shellcheck_clean,
    ci_runs_the_test_command_of_the_readme,
    the_fuzz_build_is_locked_to_what_the_product_needs,
    the_example_configuration_is_read_with_and_without_its_commented_keys,
    the_units_are_understood_by_systemd_and_leave_little_exposed,
    the_demo_runs_twice_without_a_network,
];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the source tree, relative; neither the repository's own nor what a build makes.
fn files() -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(top()).sort_by_file_name().into_iter();
    let kept =
        walk.filter_entry(|item| item.depth() != 1 || (item.file_name() != ".git" && item.file_name() != "target"));
    let files = kept.map(|item| item.expect("a readable source tree")).filter(|item| item.file_type().is_file());
    files.map(|item| item.path().strip_prefix(top()).expect("below").to_owned()).collect()
}

fn scripts() -> Vec<PathBuf> {
    let deploy = files().into_iter().filter(|path| path.starts_with("deploy"));
    deploy.filter(|path| path.extension().is_some_and(|extension| extension == "sh")).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(top().join(path)).expect("a text file of the source tree")
}

fn the_top_holds_only_what_belongs_there() -> Outcome {
    let allowed = [
        "Cargo.lock",
        "Cargo.toml",
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "clippy.toml",
        "deny.toml",
        "deploy",
        "rustfmt.toml",
        "schema",
        "src",
        "tests",
    ];
    let tops = files().into_iter().map(|path| path.iter().next().expect("a component").to_string_lossy().into_owned());
    let wrong: std::collections::BTreeSet<String> =
        tops.filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

fn nothing_names_a_registry_or_a_machine() -> Outcome {
    // In pieces, so that this file does not name them either.
    let words: [&[&str]; 12] = [
        &["crates", ".io"],
        &["pypi", ".org"],
        &["python", "hosted"],
        &["npm", "js"],
        &["deb", ".debian"],
        &["archive", ".ubuntu"],
        &["docker", ".io"],
        &["ghcr", ".io"],
        &["gol", "ang.org"],
        &["rust", "-lang.org"],
        &["/wo", "rk/"],
        &["/fa", "rm/"],
    ];
    let mut wrong = Vec::new();
    // Lock files are cargo's own, and name where packages come from.
    for path in files().into_iter().filter(|path| !path.ends_with("Cargo.lock")) {
        let text = String::from_utf8_lossy(&std::fs::read(top().join(&path)).expect("a readable file")).into_owned();
        for word in words.map(<[&str]>::concat) {
            if let Some(line) = text.lines().position(|line| line.contains(&word)) {
                wrong.push(format!("{}:{}: {word}", path.display(), line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn scripts_are_short_strict_and_portable() -> Outcome {
    let scripts = scripts();
    for guide in ["setup_symlinks.sh", "create_factory_version.sh", "test_symlink_switch.sh", "verify_setup.sh"] {
        assert!(scripts.contains(&Path::new("deploy").join(guide)), "the guide calls {guide}");
    }
    for script in scripts {
        let text = read(&script);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh"), "{}", script.display());
        assert_eq!(lines.find(|line| !line.starts_with('#')), Some("set -eu"), "{}", script.display());
        assert!(text.lines().count() < 50, "{} has {} lines", script.display(), text.lines().count());
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(top().join(&script)).expect("a script").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} cannot be run", script.display());
    }
    Ok(())
}

fn scripts_are_shellcheck_clean() -> Outcome {
    needs_program("shellcheck")?;
    let checked =
        Command::new("shellcheck").current_dir(top()).args(scripts()).args([".ci/run", "tests/fuzz/run.sh"]).output();
    Ran::of(&checked.expect("shellcheck runs")).ok();
    Ok(())
}

fn ci_runs_the_test_command_of_the_readme() -> Outcome {
    let command = readme::block("tests");
    assert_eq!(command.lines().count(), 1, "{command}");
    let run = read(".ci/run");
    let runs = |line: &str| line.trim().split(" 2>&1").next() == Some(command.trim());
    assert!(run.lines().any(runs), ".ci/run does not run {command}");
    Ok(())
}

fn the_fuzz_build_is_locked_to_what_the_product_needs() -> Outcome {
    let table = |path: &str| read(path).parse::<toml::Table>().expect("TOML");
    let manifest = table("Cargo.toml");
    let needed = manifest["dependencies"].as_table().expect("a table").iter();
    let needed = needed.filter(|(_, how)| how.get("optional").and_then(toml::Value::as_bool) != Some(true));
    let needed: Vec<&str> = needed.map(|(name, _)| name.as_str()).collect();

    let lock = table("tests/fuzz/Cargo.lock");
    let packages = lock["package"].as_array().expect("an array");
    let product = packages.iter().find(|package| package["name"].as_str() == Some("tope-store")).expect("the product");
    let locked = product["dependencies"].as_array().expect("an array").iter().filter_map(toml::Value::as_str);
    // A version follows where a name is locked twice.
    let locked: Vec<&str> = locked.map(|entry| entry.split(' ').next().unwrap_or(entry)).collect();
    assert_eq!(locked, needed, "cargo update --workspace --manifest-path tests/fuzz/Cargo.toml mends it");
    Ok(())
}

fn the_example_configuration_is_read_with_and_without_its_commented_keys() -> Outcome {
    use tope_store::config::{Config, Supervisor};
    let text = read("deploy/config.toml.example");
    let config = Config::parse(&text).expect("the example as it stands");
    assert_eq!((config.services.len(), config.supervisor), (1, Supervisor::Systemd));
    // As it stands it names no program that a device need not have.
    let service = &config.services[0];
    assert_eq!((&service.http, &service.command, &config.notify), (&None, &None, &Vec::new()));
    assert_eq!(config.retention.keep_last, Some(5));
    let commented = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let whole: String = text
        .lines()
        .map(|line| if commented(line) { &line[1..] } else { line })
        .fold(String::new(), |text, line| text + line + "\n");
    let whole = whole.replace("kind = \"systemd\"", "kind = \"command\"");
    let config = Config::parse(&whole).expect("the example with every key");
    assert!(matches!(config.supervisor, Supervisor::Command(_)));
    assert!(config.services[0].http.is_some() && config.services[0].command.is_some() && !config.notify.is_empty());
    assert_eq!((config.retention.keep_daily, config.retention.keep_minor), (Some(7), Some(1)));
    Ok(())
}

/// Names and contents of all units, with programs and users that need not exist here replaced.
fn units() -> Vec<(String, String)> {
    let names = files().into_iter().filter(|path| path.starts_with("deploy")).filter_map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().trim_end_matches(".example").to_owned();
        (name.ends_with(".service") || name.ends_with(".timer")).then_some((path, name))
    });
    names
        .map(|(path, name)| {
            let mut unit = read(path);
            for program in ["/usr/local/bin/device-api", "/usr/local/bin/web-server", "/usr/bin/tope-store"] {
                unit = unit.replace(program, "/bin/true");
            }
            (name, unit.replace("=tope\n", "=root\n"))
        })
        .collect()
}

fn the_units_are_understood_by_systemd_and_leave_little_exposed() -> Outcome {
    needs_program("systemd-analyze")?;
    let fixture = Fixture::bare();
    let units = units();
    assert!(units.len() >= 6, "{units:?}");
    for (name, unit) in &units {
        tree::file(fixture.beside(name), unit);
    }
    let analyze = |arguments: &[&str], name: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(fixture.beside(name));
        let command = command.env("SYSTEMD_UNIT_PATH", format!("{}:", fixture.dir.display())).output();
        Ran::of(&command.expect("systemd-analyze runs"))
    };
    for (name, unit) in &units {
        let ran = analyze(&["verify", "--man=no"], name).ok();
        let about: Vec<&str> = ran.stderr.lines().filter(|line| line.contains(name)).collect();
        assert!(about.is_empty(), "{about:#?}");
        if unit.contains("[Service]") {
            // In tenths, from 0 to 100; 4 of them are the right to act as the store's owner. What judges a trial runs commands
            // of which it knows nothing.
            let threshold = if name == "tope-store-boot-judge.service" { 70 } else { 30 };
            let threshold = format!("--threshold={threshold}");
            let ran = analyze(&["security", "--offline=true", "--no-pager", &threshold], name);
            assert_eq!(ran.code, 0, "{}", ran.stdout);
        }
    }
    Ok(())
}

/// The demo's own command, with the binary under test and with package clients that obtain nothing.
fn the_demo_runs_twice_without_a_network() -> Outcome {
    let fixture = Fixture::bare();
    for client in ["python3", "npm", "cargo"] {
        tree::program(fixture.beside("clients").join(client), "#!/bin/sh\nexit 1\n");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(fixture.beside("clients")).chain(std::env::split_paths(&path)));
    for _ in 0..2 {
        let demo = Command::new("sh")
            .arg("-c")
            .arg(format!("{} \"$1\"", readme::block("demo").trim()))
            .args(["sh".as_ref(), fixture.root().as_os_str()])
            .current_dir(top())
            .env("PATH", path.as_ref().expect("a search path"))
            .env("TMPDIR", &fixture.dir)
            .env("TOPE_STORE", binary())
            .env("TOPE_CONFIG", fixture.config())
            .output();
        let ran = Ran::of(&demo.expect("the demo runs")).ok();
        assert!(ran.stdout.contains("this is a generated pair"), "{ran:#?}");
        assert!(ran.stdout.contains("\n$ tope-store rollback"), "{ran:#?}");
        assert_eq!(fixture.link("versions/current"), "v1.0.0");
        let left: Vec<_> =
            std::fs::read_dir(&fixture.dir).expect("a directory").map(|item| item.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "root, clients, config.toml: {left:?}");
    }
    Ok(())
}
