//! Files that may not grow beyond `ulimit -f`.

use std::process::{Command, Stdio};

use super::{COMMANDS, misbehaved, prepare};
use crate::checker;
use crate::support::{Fixture, Outcome, Ran, binary, tree};

tests![
    every_command_answers_under_a_limit_of_file_sizes,
    an_import_beyond_the_limit_says_so_and_leaves_nothing,
    a_program_that_is_started_has_the_default_signal,
];

/// Runs the command under `ulimit -f`, in units of 512 bytes.
fn limited(fixture: &Fixture, units: u32, arguments: &[&str]) -> Ran {
    let mut call = Command::new("sh");
    call.args(["-c", "ulimit -f \"$1\" && shift && exec \"$@\"", "sh", &units.to_string()]).arg(binary());
    call.arg("--root").arg(fixture.root()).arg("--config").arg(fixture.config());
    if arguments[0] != "cat" {
        call.arg("--json");
    }
    for argument in arguments {
        match *argument {
            "SOURCE" => call.arg(fixture.beside("new")),
            "BIN" => call.arg(fixture.beside("bin")),
            other => call.arg(other),
        };
    }
    Ran::of(&call.stdin(Stdio::null()).output().unwrap())
}

fn every_command_answers_under_a_limit_of_file_sizes() -> Outcome {
    let prepared = prepare();
    let all = std::env::var("TOPE_FULL").is_ok_and(|value| value == "all");
    for (at, units) in [0, 1, 16, 400].into_iter().enumerate() {
        // Without further words each command runs under one of the limits.
        for (_, (arguments, ends)) in COMMANDS.iter().enumerate().filter(|(number, _)| all || number % 4 == at) {
            let fixture = Fixture::bare();
            let copied = Command::new("cp").arg("-a").arg(prepared.dir.join(".")).arg(&fixture.dir).status().unwrap();
            assert!(copied.success());
            let ran = limited(&fixture, units, arguments);
            if let Some(what) = misbehaved(&ran, arguments, *ends) {
                panic!("{arguments:?} under {units}: {what}: {ran:?}");
            }
            checker::look(&fixture.root()).sound(&format!("{arguments:?} under {units}"));
            let back = limited(&fixture, units, &["rollback", "--to", "factory"]);
            let factory = fixture.link("versions/factory");
            assert_eq!((back.code, fixture.link("versions/current")), (0, factory), "{arguments:?} {units}: {back:?}");
            fixture.run(&["list"]).ok();
        }
    }
    Ok(())
}

fn an_import_beyond_the_limit_says_so_and_leaves_nothing() -> Outcome {
    let fixture = Fixture::new();
    tree::file(fixture.beside("new/big"), vec![7; 600_000]);
    tree::file(fixture.beside("new/small"), "small");
    let ran = limited(&fixture, 400, &["import", "SOURCE", "--version", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.json()["error"]["message"].as_str().unwrap().contains("File too large"), "{ran:?}");
    let seen = checker::look(&fixture.root()).settled("after an import that was refused");
    assert!(seen.versions.is_empty());
    assert_eq!(
        walkdir::WalkDir::new(fixture.path("store/objects"))
            .into_iter()
            .flatten()
            .filter(|item| item.file_type().is_file())
            .count(),
        0
    );
    fixture.import("new", "1");
    Ok(())
}

fn a_program_that_is_started_has_the_default_signal() -> Outcome {
    let fixture = prepare();
    let seen = fixture.beside("signals");
    let script = format!("grep ^Sig /proc/self/status >{}", seen.display());
    std::fs::write(fixture.config(), format!("[notify]\ncommand = [\"sh\", \"-c\", {script:?}]\n")).unwrap();
    fixture.run(&["rollback"]).ok();
    let text = std::fs::read_to_string(seen).unwrap();
    let masks: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"))
        .map(|line| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap())
        .collect();
    assert_eq!(masks.len(), 2, "{text}");
    // Signal 25 is SIGXFSZ.
    assert!(masks.iter().all(|mask| mask >> 24 & 1 == 0), "{text}");
    Ok(())
}
