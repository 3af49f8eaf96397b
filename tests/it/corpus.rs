//! The corpus of the fuzz targets, replayed: what broke a parser once does not break it again.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

use crate::support::Outcome;

tests![every_kept_input_is_read_without_breaking_a_promise, every_check_has_a_target_and_a_corpus];

fn fuzz() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names(directory: &Path) -> Vec<String> {
    let items = std::fs::read_dir(directory).expect("a directory of the source tree");
    let mut names: Vec<String> =
        items.map(|item| item.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn every_kept_input_is_read_without_breaking_a_promise() -> Outcome {
    for (name, check) in checks::ALL {
        let directory = fuzz().join("corpus").join(name);
        for input in names(&directory) {
            let bytes = std::fs::read(directory.join(&input)).expect("a kept input");
            let done = std::panic::catch_unwind(|| check(&bytes));
            assert!(done.is_ok(), "{name}/{input}: the reason stands above");
        }
    }
    checks::clean_up();
    Ok(())
}

fn every_check_has_a_target_and_a_corpus() -> Outcome {
    let checks: Vec<&str> = checks::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&fuzz().join("corpus")), checks);
    assert_eq!(names(&fuzz().join("fuzz_targets")), checks.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
    for name in &checks {
        assert!(names(&fuzz().join("corpus").join(name)).len() >= 3, "{name} has hardly a corpus");
    }
    Ok(())
}
