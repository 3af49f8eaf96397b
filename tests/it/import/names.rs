//! Version names and other usage errors: exit 2, one document, nothing created.

use super::{Traces, arguments, error_of, import};
use crate::support::{Fixture, Outcome, Ran, tree};

tests![
    names_that_are_no_versions_are_usage_errors,
    usage_errors_are_documents_too,
    help_is_no_error,
    a_missing_store_has_its_own_code,
    a_directory_made_by_hand_is_not_overwritten,
];

fn prepared() -> Fixture {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    fixture
}

fn names_that_are_no_versions_are_usage_errors() -> Outcome {
    let fixture = prepared();
    let before = Traces::exactly(&fixture);
    let long = "1".repeat(100);
    for name in [
        "../x",
        "x/../../y",
        "a/b",
        "/",
        ".",
        "..",
        "",
        " ",
        "current",
        "previous",
        "factory",
        "1.0\n",
        "v\t1",
        ".hidden",
        "-1",
        "ü",
        &long,
    ] {
        let argument = format!("--version={name}");
        let source = fixture.beside("source");
        let ran = fixture.run(&["--json".as_ref(), "import".as_ref(), source.as_os_str(), argument.as_ref()]).expect(2);
        error_of(&ran, "usage");
        let ran = fixture.run(&["import".as_ref(), source.as_os_str(), argument.as_ref()]).expect(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("error: "), "{ran:?}");
    }
    before.expect_unchanged(&fixture);
    import(&fixture, fixture.beside("source"), &"1".repeat(99), &[]).ok();
    Ok(())
}

fn usage_errors_are_documents_too() -> Outcome {
    let fixture = prepared();
    for (arguments, says) in [
        (&["import"][..], "--version"),
        (&["import", "--no-such-option"], "--no-such-option"),
        (&["no-such-command"], "no-such-command"),
        (&["import", ".", "--version", "1", "--chown", "root"], "UID:GID"),
        (&["import", ".", "--version", "1", "--label", "x"], "KEY=VALUE"),
        (&["import", ".", "--version", "1", "--label", "a=1", "--label", "a=2"], "given twice"),
        (&["import", ".", "--version", "1", "--lock-timeout=-1"], "lock-timeout"),
        (&["import", ".", "--version", "1", "--mtime", "soon"], "soon"),
        (&[], "requires a subcommand"),
    ] {
        let ran = Ran::of(&fixture.command().args(arguments).arg("--json").output().unwrap()).expect(2);
        let message = error_of(&ran, "usage");
        assert!(message.contains(says), "{arguments:?}: {message}");
        assert_eq!(ran.stderr, "");
    }
    // Behind -- it is an argument like any other.
    let ran = Ran::of(&fixture.command().args(["no-such", "--", "--json"]).output().unwrap()).expect(2);
    assert_eq!(ran.stdout, "");
    Ok(())
}

fn help_is_no_error() -> Outcome {
    let fixture = prepared();
    for arguments in [&["--help"][..], &["--json", "import", "--help"], &["--version"]] {
        let ran = fixture.run(arguments).ok();
        assert!(ran.stdout.contains("tope-store") && ran.stderr.is_empty(), "{ran:?}");
    }
    Ok(())
}

fn a_missing_store_has_its_own_code() -> Outcome {
    let fixture = Fixture::bare();
    tree::release(fixture.beside("source"), 1);
    let message = error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(9), "no-store");
    assert!(message.contains("tope-store init"), "{message}");
    assert!(!fixture.root().exists());
    // A directory that merely exists is no store either.
    std::fs::create_dir_all(fixture.path("versions")).unwrap();
    error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(9), "no-store");
    assert_eq!(super::names_in(fixture.root()), ["versions"]);
    Ok(())
}

fn a_directory_made_by_hand_is_not_overwritten() -> Outcome {
    let fixture = prepared();
    tree::file(fixture.path("versions/v1.0/mine"), "mine");
    std::os::unix::fs::symlink("nowhere", fixture.path("versions/v1.1")).unwrap();
    let before = Traces::of(&fixture);
    for version in ["1.0", "1.1"] {
        let message = error_of(&import(&fixture, fixture.beside("source"), version, &[]).expect(4), "exists");
        assert!(message.contains(&format!("versions/v{version}")), "{message}");
        let archive = super::shell(&fixture.beside("source"), "tar -cf - .");
        fixture.run_with_input(&arguments("-", version, &[]), &archive).expect(4);
    }
    before.expect_unchanged(&fixture);
    Ok(())
}
