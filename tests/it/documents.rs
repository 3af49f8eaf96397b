//! `--json`: what commands answer, and what `schema/JSON.md` says they do.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Fixture, Outcome, tree};

tests![every_command_has_a_section, documents_hold_only_what_is_documented, errors_are_documents_too];

const DOCUMENTED: &str = include_str!("../../schema/JSON.md");

/// Commands that answer with text for other programs, and have no document.
const TEXT_ONLY: &[&str] = &["cat", "completions", "man", "help"];

/// The section of a command.
fn section(command: &str) -> Option<&'static str> {
    let (_, rest) = DOCUMENTED.split_once(&format!("\n## `{command}`"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

/// Words in code: names of fields, with or without brackets and dots.
fn words(text: &str) -> BTreeSet<&str> {
    let code = text.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).collect()
}

/// All names of fields in a document; not those of objects whose fields are data.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                found.insert(name.clone());
                if !matches!(name.as_str(), "labels" | "xattrs") {
                    fields(inner, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
        _ => {}
    }
}

fn every_command_has_a_section() -> Outcome {
    let help = Fixture::bare().run(&["--help"]).ok().stdout;
    let (_, commands) = help.split_once("\nCommands:\n").expect("the help lists the commands");
    let names = commands.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"import"), "{names:?}");
    let missing = names.iter().filter(|name| !TEXT_ONLY.contains(name) && section(name).is_none());
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new(), "commands without a section in schema/JSON.md");
    Ok(())
}

fn documents_hold_only_what_is_documented() -> Outcome {
    let fixture = Fixture::bare();
    tree::release(fixture.beside("one"), 1);
    tree::release(fixture.beside("two"), 2);
    let (one, two) = (fixture.beside("one").display().to_string(), fixture.beside("two").display().to_string());
    let bin = fixture.beside("bin").display().to_string();
    std::fs::create_dir(&bin).unwrap();
    let by_hand = fixture.path("versions/v0.9.0");
    let calls: &[&[&str]] = &[
        &["init"],
        &["import", &one, "--version", "1.0.0"],
        &["import", &two, "--version", "1.1.0", "--label", "a=b", "--note", "second"],
        &["import", &one, "--version", "1.2.0"],
        &["adopt"],
        &["activate", "1.0.0"],
        &["factory", "set", "1.0.0"],
        &["factory", "show"],
        &["factory", "verify"],
        &["link", "--bin-dir", &bin],
        &["activate", "1.1.0"],
        &["status"],
        &["boot-check"],
        &["rollback", "--reason", "why"],
        &["status"],
        &["note", "1.1.0", "known issue"],
        &["pin", "1.2.0"],
        &["unpin", "1.2.0"],
        &["list"],
        &["show", "1.1.0"],
        &["ls", "1.1.0", "lib"],
        &["find", "*.so*"],
        &["diff", "1.0.0", "1.1.0"],
        &["diff", "current", &two],
        &["confirm", "1.1.0"],
        &["history"],
        &["du"],
        &["who", "--all"],
        &["rebuild-index"],
        &["verify"],
        &["verify", "--repair"],
        &["doctor", "--fix", "--bin-dir", &bin],
        &["gc", "--free", "1", "--dry-run"],
        &["gc", "--keep-last", "2"],
        &["remove", "1.2.0"],
    ];
    for call in calls {
        if call[0] == "adopt" {
            tree::release(&by_hand, 9);
        }
        assert_documented(call[0], &fixture.json(call));
    }
    Ok(())
}

/// A command's document has only fields that its section has; an error only those of errors.
#[track_caller]
pub fn assert_documented(command: &str, document: &Value) {
    let mut found = BTreeSet::new();
    fields(document, &mut found);
    assert!(found.remove("schema"), "{command}: {document}");
    if document.get("error").is_some() {
        return;
    }
    // As the schema, in every document.
    found.remove("configuration");
    let own = section(command).expect("a section");
    let mut documented = words(own);
    for shape in ["Problems", "Entries"] {
        if own.contains(&format!("*{shape}*")) {
            documented.extend(words(DOCUMENTED.split_once(&format!("\n## {shape}\n")).expect("a section").1));
        }
    }
    // "As `gc`, …"
    for other in own.split("s `").skip(1).filter_map(|rest| rest.split(['`', ' ']).next()) {
        documented.extend(section(other).map(words).unwrap_or_default());
    }
    let unknown: Vec<_> = found.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "{command} has fields that schema/JSON.md does not: {unknown:?}");
}

/// The same for what `[notify]` is told.
#[track_caller]
pub fn assert_notice(notice: &Value) {
    let mut found = BTreeSet::new();
    fields(notice, &mut found);
    assert!(found.remove("schema"), "{notice}");
    let (_, own) = DOCUMENTED.split_once("\n## Notices\n").expect("a section");
    let documented = words(own.split("\n## ").next().expect("a section"));
    assert!(found.iter().all(|name| documented.contains(name.as_str())), "{notice}");
}

fn errors_are_documents_too() -> Outcome {
    let fixture = Fixture::bare();
    for (call, code, kind) in
        [(&["import", ".", "--version", "1"][..], 9, "no-store"), (&["init", "--lock-timeout", "-1"][..], 2, "usage")]
    {
        let ran = fixture.run(&[&["--json"], call].concat()).expect(code);
        assert_eq!(ran.json()["error"]["kind"], kind);
        assert!(DOCUMENTED.contains(&format!("\n| `{kind}` | {code} |")), "{kind}");
    }
    Ok(())
}
