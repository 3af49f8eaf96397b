//! `diff`

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, Ran, needs_program, tree};

tests![
    every_kind_of_change_is_told,
    the_document_is_what_scripts_rely_on,
    a_side_may_be_a_directory,
    a_tree_in_versions_means_what_is_recorded_of_it,
    exit_codes_are_those_of_diff,
    patches_make_the_second_side_of_the_first,
    two_names_for_one_content_do_not_differ,
];

/// Two sources that differ in every way.
fn sources(fixture: &Fixture) {
    for (side, number) in [("a", 1), ("b", 2)] {
        let top = fixture.beside(side);
        tree::release(&top, number);
        tree::file(top.join(format!("moved/{side}/page.html")), "the same page\n");
        tree::file(top.join("mode"), "mode\n");
        tree::file(top.join(format!("only-{side}")), side);
    }
    std::fs::set_permissions(fixture.beside("b/mode"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(fixture.beside("b/lib/common.so.1")).unwrap();
    tree::file(fixture.beside("b/lib/common.so.1"), "a file now\n");
    std::fs::remove_dir(fixture.beside("b/empty")).unwrap();
    tree::file(fixture.beside("b/empty"), "");
}

fn imported() -> Fixture {
    let fixture = Fixture::new();
    sources(&fixture);
    fixture.import("a", "1");
    fixture.import("b", "2");
    fixture
}

const STATUS: &str = "\
M\tbin/device-api
T\tempty
T\tlib/common.so.1
D\tmoved/a/
D\tmoved/a/page.html
A\tmoved/b/
A\tmoved/b/page.html
D\tonly-a
A\tonly-b
M\tservices/web-server/index.html
P\tmode\tmode 0644 -> 0755
";

fn every_kind_of_change_is_told() -> Outcome {
    let fixture = imported();
    assert_eq!(fixture.run(&["diff", "1", "2"]).ok().stdout, STATUS);
    assert_eq!(fixture.run(&["diff", "--name-status", "1", "2"]).ok().stdout, STATUS);
    let renamed = fixture.run(&["diff", "-M", "1", "2", "moved"]).ok().stdout;
    assert_eq!(renamed, "D\tmoved/a/\nA\tmoved/b/\nR\tmoved/a/page.html\tmoved/b/page.html\n");
    let paths = fixture.run(&["diff", "1", "2", "bin", "mode"]).ok().stdout;
    assert_eq!(paths, "M\tbin/device-api\nP\tmode\tmode 0644 -> 0755\n");
    fixture.run(&["diff", "1", "2", "nothing"]).expect(3);
    let names = fixture.run(&["diff", "-z", "-M", "1", "2", "moved", "bin"]).ok().stdout;
    assert_eq!(names, "M\0bin/device-api\0D\0moved/a\0A\0moved/b\0R\0moved/a/page.html\0moved/b/page.html\0");
    let stat = fixture.run(&["diff", "--stat", "1", "2"]).ok().stdout;
    let last = stat.lines().last().unwrap();
    assert_eq!(
        last,
        "3 added, 3 removed, 2 modified, 2 of another kind, 1 with other metadata only; 52 B new, 41 B gone"
    );
    assert!(stat.contains("T  lib/common.so.1                 +11  symbolic link -> file\n"), "{stat}");
    let swapped = fixture.run(&["diff", "2", "1", "only-a", "only-b"]).ok().stdout;
    assert_eq!(swapped, "A\tonly-a\nD\tonly-b\n");
    Ok(())
}

fn the_document_is_what_scripts_rely_on() -> Outcome {
    let fixture = imported();
    let document = fixture.json(&["diff", "-M", "1", "2", "moved/a/page.html", "moved/b/page.html", "mode", "empty"]);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let page = blake3::hash(b"the same page\n").to_hex().to_string();
    let mode = blake3::hash(b"mode\n").to_hex().to_string();
    let file = |mode: &str, size: u64, content: &str| json!({"kind": "file", "mode": mode, "uid": uid, "gid": gid, "size": size, "content": content});
    let mut changes = document["changes"].clone();
    let tree = changes[0]["before"].as_object_mut().unwrap().remove("tree").unwrap();
    assert_eq!(tree.as_str().unwrap().len(), 64);
    assert_eq!(
        changes,
        json!([
            {
                "kind": "type", "path": "empty", "differs": ["content", "mode"],
                "before": {"kind": "directory", "mode": "0755", "uid": uid, "gid": gid},
                "after": file("0644", 0, blake3::hash(b"").to_hex().as_str()),
            },
            {
                "kind": "metadata", "path": "mode", "differs": ["mode"],
                "before": file("0644", 5, &mode), "after": file("0755", 5, &mode),
            },
            {
                "kind": "renamed", "path": "moved/b/page.html", "from_path": "moved/a/page.html", "differs": [],
                "before": file("0644", 14, &page), "after": file("0644", 14, &page),
            },
        ])
    );
    assert_eq!(
        document["summary"],
        json!({
            "added": 0, "removed": 0, "modified": 0, "renamed": 1, "metadata": 1, "type": 1, "total": 3,
            "directories": {"added": 0, "removed": 0, "metadata": 0}, "bytes_added": 0, "bytes_removed": 0,
        })
    );
    assert_eq!((&document["before"]["version"], &document["before"]["kind"]), (&"v1".into(), &"version".into()));
    assert_eq!(document["after"]["digest"], fixture.json(&["show", "2"])["digest"]);
    for option in ["--stat", "-p", "-z", "--name-status"] {
        fixture.run(&["--json", "diff", option, "1", "2"]).expect(2);
    }
    Ok(())
}

fn in_dir(fixture: &Fixture, dir: &std::path::Path, arguments: &[&str]) -> Ran {
    Ran::of(&fixture.command().current_dir(dir).args(arguments).output().unwrap())
}

fn a_side_may_be_a_directory() -> Outcome {
    let fixture = imported();
    let (a, b) = (fixture.beside("a"), fixture.beside("b"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    for sides in [["1", b], [a, "2"], [a, b]] {
        assert_eq!(fixture.run(&["diff", sides[0], sides[1]]).ok().stdout, STATUS, "{sides:?}");
    }
    assert_eq!(fixture.run(&["diff", "1", a]).ok().stdout, "");
    // A name is a version if there is one, and a directory otherwise; with a slash it is a directory.
    let beside = fixture.beside(".");
    assert_eq!(in_dir(&fixture, &beside, &["diff", "1", "a"]).ok().stdout, "");
    std::fs::rename(fixture.beside("b"), fixture.beside("v1")).unwrap();
    assert_eq!(in_dir(&fixture, &beside, &["diff", "v1", "a"]).ok().stdout, "");
    assert_eq!(in_dir(&fixture, &beside, &["diff", "a", "v1/"]).ok().stdout, STATUS);
    assert_eq!(in_dir(&fixture, &fixture.beside("a"), &["diff", "v1", "."]).ok().stdout, "");
    assert_eq!(
        in_dir(&fixture, &beside, &["--json", "diff", "v1", "v9"]).expect(3).json()["error"]["kind"],
        "not-found"
    );
    in_dir(&fixture, &beside, &["diff", "v1", "no/such"]).expect(3);
    in_dir(&fixture, &beside, &["diff", "v1", "no such"]).expect(2);
    // What no version can have is said.
    let _socket = std::os::unix::net::UnixListener::bind(fixture.beside("a/socket")).unwrap();
    let ran = in_dir(&fixture, &beside, &["diff", "v1", "a"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "warning: socket is a socket and is not compared\n"));
    let document = in_dir(&fixture, &beside, &["--json", "diff", "v1", "a"]).ok().json();
    assert_eq!(document["skipped"], json!([{"path": "socket", "reason": "a socket"}]));
    assert_eq!(document["after"], json!({"kind": "directory", "path": "a"}));
    Ok(())
}

fn a_tree_in_versions_means_what_is_recorded_of_it() -> Outcome {
    let fixture = imported();
    let path = |path: &str| fixture.path(path).to_str().unwrap().to_owned();
    std::os::unix::fs::symlink("v2", fixture.path("versions/current")).unwrap();
    for second in ["versions/v2", "versions/current", "versions/../versions/current/"] {
        let ran = fixture.run(&["diff", "1", &path(second)]).ok();
        assert_eq!(ran.stdout, STATUS, "{second}");
        assert!(ran.stderr.contains("is in the tree of v2"), "{}", ran.stderr);
    }
    let part = fixture.run(&["diff", &path("versions/v1/lib"), &path("versions/current/lib")]).ok().stdout;
    assert_eq!(part, "T\tcommon.so.1\n");
    let patch = fixture.run(&["-q", "diff", "-p", &path("versions/v1/bin"), &path("versions/v2/bin")]).ok().stdout;
    assert!(patch.contains("+++ b/device-api\n") && patch.contains("-echo 1\n+echo 2\n"), "{patch}");
    // A part of a source against the same part of a version.
    let source = fixture.beside("b/lib");
    assert_eq!(fixture.run(&["diff", &path("versions/v2/lib"), source.to_str().unwrap()]).ok().stdout, "");
    // A copy of the tree has lost its write bits, and a hand-made version is a directory like any other.
    tree::release(fixture.path("versions/by-hand"), 1);
    assert!(fixture.run(&["diff", "by-hand", "1"]).ok().stdout.contains("A\tonly-a\n"));
    Ok(())
}

fn exit_codes_are_those_of_diff() -> Outcome {
    let fixture = imported();
    for (sides, code) in [(["1", "1"], 0), (["1", "2"], 1), (["1", "7"], 2), (["1", "/nothing"], 2)] {
        fixture.run(&["diff", "--exit-code", sides[0], sides[1]]).expect(code);
        let document = fixture.run(&["--json", "diff", "--exit-code", sides[0], sides[1]]).expect(code).json();
        assert_eq!(document.get("error").is_some(), code == 2, "{sides:?}");
        fixture.run(&["diff", sides[0], sides[1]]).expect(if code == 2 { 3 } else { 0 });
    }
    fixture.run(&["diff", "1"]).expect(2);
    std::fs::remove_dir_all(fixture.path("store")).unwrap();
    fixture.run(&["diff", "--exit-code", "1", "2"]).expect(2);
    Ok(())
}

fn patches_make_the_second_side_of_the_first() -> Outcome {
    needs_program("git")?;
    needs_program("patch")?;
    let fixture = Fixture::new();
    sources(&fixture);
    for side in ["a", "b"] {
        let top = fixture.beside(side);
        tree::file(top.join("name with spaces"), format!("{side}\nsame\n"));
        tree::file(top.join("quoted \"\\ gr\u{fc}n"), format!("same\n{side}"));
    }
    tree::file(fixture.beside("b/new empty file"), "");
    tree::program(fixture.beside("b/deep/new/program"), "#!/bin/sh\n");
    fixture.import("a", "1");
    fixture.import("b", "2");
    let patch = fixture.command().args(["diff", "-p", "-M", "1", "2"]).output().unwrap().stdout;
    let contents = |top: &std::path::Path| {
        let all = tree::describe(top, false).into_iter().filter(|(_, described)| described.kind != 'd');
        all.map(|(path, d)| (path, d.kind, d.contents, d.mode & 0o100)).collect::<Vec<_>>()
    };
    for program in [&["git", "apply"][..], &["patch", "-p1", "--silent"]] {
        let top = fixture.beside(program[0]);
        let copied = std::process::Command::new("cp").arg("-a").arg(fixture.beside("a")).arg(&top).status().unwrap();
        assert!(copied.success());
        // An empty directory stands where a file is to be, which no patch can say.
        std::fs::remove_dir(top.join("empty")).unwrap();
        let mut command = std::process::Command::new(program[0]);
        command.args(&program[1..]).current_dir(&top).stdin(std::process::Stdio::piped());
        command.env("GIT_CEILING_DIRECTORIES", &fixture.dir).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &patch).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{program:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&patch)
        );
        let (found, expected) = (contents(&top), contents(&fixture.beside("b")));
        assert_eq!(found, expected, "{program:?}");
    }
    // From a directory the same text comes.
    let b = fixture.beside("b");
    let from_directory = fixture.run(&["diff", "-p", "-M", "1", b.to_str().unwrap()]).ok().stdout;
    assert_eq!(from_directory.as_bytes(), patch);
    Ok(())
}

fn two_names_for_one_content_do_not_differ() -> Outcome {
    let fixture = imported();
    fixture.import("a", "1.1");
    assert_eq!(fixture.run(&["diff", "--exit-code", "1", "1.1"]).ok().stdout, "");
    assert_eq!(fixture.run(&["diff", "--stat", "1", "1.1"]).ok().stdout, "no differences\n");
    let document = fixture.json(&["diff", "1", "1.1"]);
    assert_eq!((&document["changes"], &document["summary"]["total"]), (&Value::Array(Vec::new()), &0.into()));
    Ok(())
}
