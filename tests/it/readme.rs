//! README.md: every command in it works as pasted.

use std::process::{Command, Stdio};

use crate::support::{Fixture, Outcome, Ran, binary, needs_program, needs_root, readme, tree};

tests![
    every_block_is_run_by_some_test,
    the_quick_start_works_as_pasted,
    the_installation_on_a_device_works_as_pasted,
    every_command_in_the_tables_exists
];

/// Words of blocks that need more than an empty directory, and what runs them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("demo", "house::the_demo_runs_twice_without_a_network"),
    ("tests", "house::ci_runs_the_test_command_of_the_readme, and whoever runs this"),
    ("install", "a release build; only its form is looked at here"),
    ("package", "container::package"),
    ("device", "the_installation_on_a_device_works_as_pasted"),
];

fn every_block_is_run_by_some_test() -> Outcome {
    let words: Vec<String> =
        readme::blocks().into_iter().map(|(word, _)| word).filter(|word| !word.is_empty()).collect();
    assert_eq!(words, ELSEWHERE.iter().map(|(word, _)| *word).collect::<Vec<_>>());
    assert_eq!(readme::block("install"), "cargo install --locked --path . --root /usr/local\n");
    assert_eq!(readme::block("package"), "sh deploy/build_deb.sh\n");
    let text = include_str!("../../README.md");
    let others: Vec<&str> =
        text.lines().filter(|line| line.starts_with("```") && *line != "```" && !line.starts_with("```sh")).collect();
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

/// A shell in the fixture's directory that finds the binary under test.
fn shell(fixture: &Fixture, script: &str) -> Command {
    let mut path = vec![binary().parent().expect("a directory").to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", script]).current_dir(&fixture.dir).stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(path).expect("a search path")).env("TOPE_CONFIG", fixture.config());
    for variable in ["TOPE_ROOT", "TOPE_SYSROOT", "TOPE_JOBS", "TOPE_LOG", "SOURCE_DATE_EPOCH"] {
        command.env_remove(variable);
    }
    command
}

fn the_quick_start_works_as_pasted() -> Outcome {
    let fixture = Fixture::bare();
    let blocks = readme::blocks().into_iter().filter(|(word, _)| word.is_empty());
    let script: String = blocks.map(|(_, text)| text).collect();
    let ran = Ran::of(&shell(&fixture, &script).output().expect("a shell")).ok();
    let seen: Vec<&str> = ran.stdout.lines().filter(|line| matches!(*line, "1.0.0" | "1.1.0")).collect();
    assert_eq!(seen, ["1.0.0", "1.1.0", "1.0.0"], "what bin/device-api said: {ran:#?}");
    let json = ran.stdout.rfind("\n{\n").map(|at| &ran.stdout[at..]).expect("the last command answers with a document");
    assert_eq!(serde_json::from_str::<serde_json::Value>(json).expect("JSON")["schema"], 1);
    Ok(())
}

/// In a mount namespace of its own, where `/etc` and `/opt` are empty and systemd is a witness.
fn the_installation_on_a_device_works_as_pasted() -> Outcome {
    needs_root()?;
    needs_program("unshare")?;
    let fixture = Fixture::bare();
    let witness = fixture.beside("asked");
    for asked in ["systemctl", "useradd"] {
        let text = format!("#!/bin/sh\necho {asked} \"$@\" >>{}\n", witness.display());
        tree::program(fixture.beside("bin").join(asked), text);
    }
    tree::program(fixture.beside("build/bin/device-api"), "#!/bin/sh\n");
    let script = format!(
        "mount -t tmpfs none /etc; mount -t tmpfs none /opt; mount -t tmpfs none /usr/local/bin; mkdir /etc/systemd; PATH={}:$PATH; unset TOPE_CONFIG; cd {}; {}
        test -x /usr/local/bin/device-api; tope-store --json list; cat /etc/systemd/system/device-api.service",
        fixture.beside("bin").display(),
        env!("CARGO_MANIFEST_DIR"),
        readme::block("device").replace("/path/to/build", &fixture.beside("build").display().to_string())
    );
    if !matches!(shell(&fixture, "unshare --mount mount -t tmpfs none /opt").status(), Ok(status) if status.success()) {
        return Err(crate::support::Skipped("needs mount namespaces".into()));
    }
    let script = format!("unshare --mount --propagation private sh -eu -c '{}'", script.replace('\'', "'\\''"));
    let ran = Ran::of(&shell(&fixture, &script).output().expect("a shell")).ok();
    assert!(ran.stdout.contains("[Service]"), "{ran:#?}");
    assert_eq!(
        std::fs::read_to_string(witness).expect("systemd was asked"),
        "useradd --system tope\nsystemctl daemon-reload\nsystemctl enable --now device-api\n"
    );
    Ok(())
}

/// Not their arguments: those are in the tests of each command.
fn every_command_in_the_tables_exists() -> Outcome {
    let text = include_str!("../../README.md");
    let mut names: Vec<&str> = text
        .split('`')
        .filter_map(|code| code.strip_prefix("tope-store "))
        .filter_map(|rest| rest.split([' ', '\n']).find(|word| !word.starts_with('-') && !word.starts_with("COMMAND")))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        Fixture::bare().run(&[name, "--help"]).ok();
    }
    Ok(())
}
