//! The layers of the library, asserted from its sources: a module uses only what its layer may use, and each outside
//! crate lives in its room.

use std::path::{Path, PathBuf};

use crate::support::Outcome;

tests![
    modules_use_only_what_their_layer_may,
    outside_crates_live_in_their_rooms,
    the_file_system_is_touched_in_one_room
];

/// Modules by layer, lowest first; those of one layer may use each other only where [`SIDEWAYS`] says so.
const LAYERS: &[&[&str]] = &[
    &["model", "config", "error", "observe", "clock"],
    &["fsys", "layout"],
    &["scan", "hash", "archive", "services"],
    &["object", "manifests", "history", "index", "staging", "materialise", "refs"],
    &["store", "ops"],
];

/// Uses within the layer of the store's parts.
const SIDEWAYS: &[(&str, &str)] = &[
    // A tree is made of links to objects.
    ("materialise", "object"),
    // It answers which objects are published, and takes in lines of the history.
    ("index", "object"),
];

/// Crates and the modules that may name them.
const ROOMS: &[(&str, &[&str])] = &[
    ("rusqlite", &["index"]),
    ("memmap2", &["hash"]),
    ("rustix", &["fsys"]),
    ("tar", &["archive"]),
    ("zip", &["archive"]),
    ("flate2", &["archive"]),
    ("lzma_rust2", &["archive"]),
    ("globset", &["model"]),
    ("similar", &["model"]),
    ("semver", &["model"]),
    ("toml", &["model", "config"]),
    ("ureq", &["services"]),
    ("clap", &["bin"]),
    ("indicatif", &["bin"]),
    ("signal_hook", &["bin"]),
    ("anstream", &["bin"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&top).into_iter().map(|item| item.expect("a readable source tree"));
    files
        .filter(|item| item.path().extension().is_some_and(|extension| extension == "rs"))
        .filter(|item| !item.path().iter().any(|part| part.to_string_lossy().contains("tests")))
        // Sample values for the tests of a room.
        .filter(|item| item.file_name() != "samples.rs")
        .map(|item| {
            let relative = item.path().strip_prefix(&top).expect("below").to_owned();
            let first = relative.iter().next().expect("a component").to_string_lossy().replace(".rs", "");
            let text = std::fs::read_to_string(item.path()).expect("a source file");
            // Tests of a module may use what they like.
            let tests = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
                let following = text[*at..].lines().find(|line| !line.starts_with("#["));
                following.is_some_and(|line| line == "mod tests {")
            });
            let code = text[..tests.unwrap_or(text.len())].to_owned();
            (first, relative, code)
        })
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Names that follow `prefix` in a line, as in `crate::NAME`.
fn names_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix)
        .filter(move |(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(move |(at, _)| {
            let rest = &line[at + prefix.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
}

fn modules_use_only_what_their_layer_may() -> Outcome {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let Some(own) = layer(&module) else {
            let allowed = ["lib", "bin", "test_vectors"].contains(&module.as_str());
            assert!(allowed, "{} belongs to no layer", path.display());
            continue;
        };
        for (number, line) in code_lines(&text) {
            for used in names_after(line, "crate::") {
                let Some(other) = layer(used) else { continue };
                let sideways = own == 3 && other == 3 && used != module && !SIDEWAYS.contains(&(&module, used));
                if other > own || sideways {
                    wrong.push(format!("{}:{number}: {module} uses {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn outside_crates_live_in_their_rooms() -> Outcome {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        for (number, line) in code_lines(&text) {
            for (name, rooms) in ROOMS {
                let qualified = format!("{name}::");
                let used = line
                    .match_indices(&qualified)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
                if used && !rooms.contains(&module.as_str()) {
                    wrong.push(format!("{}:{number}: {name} is used in {module}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn the_file_system_is_touched_in_one_room() -> Outcome {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        if module == "fsys" {
            continue;
        }
        let allows = text.lines().filter(|line| line.contains("allow(") && line.contains("disallowed_methods")).count();
        // The command reads who the user is; nothing else has a reason.
        let expected = usize::from(module == "bin" && path.ends_with("context.rs"));
        if allows > expected {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these silence the rule that keeps file system calls in fsys: {wrong:#?}");
    Ok(())
}
