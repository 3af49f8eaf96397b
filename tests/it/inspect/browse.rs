//! `ls` and `cat`

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Fixture, Outcome, Ran, needs_program, needs_root, tree};

tests![
    entries_are_listed_as_recorded,
    names_that_are_no_text_are_shown_escaped_and_told_in_bytes,
    files_come_out_as_they_went_in,
    damaged_bytes_do_not_come_out_unnoticed,
    private_and_shared_files_come_out_pristine,
    other_users_look_as_well,
    a_closed_pipe_is_no_error,
];

fn released() -> Fixture {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let mode = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(fixture.beside("source/bin/web-server"), mode).unwrap();
    fixture.import("source", "1.0.0");
    fixture
}

fn entries_are_listed_as_recorded() -> Outcome {
    let fixture = released();
    assert_eq!(fixture.run(&["ls", "1.0.0"]).ok().stdout, "bin\nempty\nlib\nservices\n");
    assert_eq!(fixture.run(&["ls", "1.0.0", "/lib/"]).ok().stdout, "lib/common.so\nlib/common.so.1\nlib/lock\n");
    assert_eq!(fixture.run(&["ls", "1.0.0", "lib/lock"]).ok().stdout, "lib/lock\n");
    assert_eq!(fixture.run(&["ls", "1.0.0", "empty"]).ok().stdout, "");
    let all = fixture.run(&["ls", "-R", "1.0.0"]).ok().stdout;
    let mut expected: Vec<String> = tree::describe(&fixture.beside("source"), false)
        .into_keys()
        .map(|path| String::from_utf8(path).unwrap())
        .collect();
    expected.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    assert_eq!(all.lines().collect::<Vec<_>>(), expected);
    let long = fixture.run(&["ls", "-l", "1.0.0", "lib"]).ok().stdout;
    let owner = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let content = blake3::hash(&[7; 100_000]).to_hex();
    let empty = blake3::hash(b"").to_hex();
    assert_eq!(
        long,
        format!(
            "-rw-r--r--  {owner}  100000  {}  lib/common.so\nlrwxrwxrwx  {owner}                        lib/common.so.1 -> common.so\n-rw-r--r--  {owner}       0  {}  lib/lock\n",
            &content[..12],
            &empty[..12]
        )
    );
    assert!(fixture.run(&["ls", "-l", "1.0.0", "bin"]).ok().stdout.contains("-rwsr-xr-x"));
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let document = fixture.json(&["ls", "1.0.0", "lib"]);
    assert_eq!(
        document["entries"],
        json!([
            {"path": "lib/common.so", "kind": "file", "mode": "0644", "uid": uid, "gid": gid, "size": 100_000, "content": content.as_str()},
            {"path": "lib/common.so.1", "kind": "symlink", "mode": "0777", "uid": uid, "gid": gid, "target": "common.so"},
            {"path": "lib/lock", "kind": "file", "mode": "0644", "uid": uid, "gid": gid, "size": 0, "content": empty.as_str()},
        ])
    );
    assert_eq!(document["version"], "v1.0.0");
    fixture.run(&["ls", "1.0.0", "lib/nothing"]).expect(3);
    fixture.run(&["ls", "1.0.0", "lib/common.so.1/x"]).expect(3);
    fixture.run(&["ls", "1.0.0", "../escape"]).expect(2);
    fixture.run(&["--json", "ls", "-l", "1.0.0"]).expect(2);
    Ok(())
}

fn names_that_are_no_text_are_shown_escaped_and_told_in_bytes() -> Outcome {
    let fixture = Fixture::new();
    let name = std::ffi::OsStr::from_bytes(b"a\nb\xff\x1b[2J");
    std::fs::create_dir_all(fixture.beside("source")).unwrap();
    std::fs::write(fixture.beside("source").join(name), "x").unwrap();
    fixture.import("source", "1");
    assert_eq!(fixture.run(&["ls", "1"]).ok().stdout, "a\\nb\\xff\\u{1b}[2J\n");
    assert_eq!(fixture.run(&["find", "*"]).ok().stdout.lines().count(), 1);
    let entry = &fixture.json(&["ls", "1"])["entries"][0];
    assert_eq!((&entry["path"], &entry["path_bytes"]), (&"a\nb\u{fffd}\u{1b}[2J".into(), &"610a62ff1b5b324a".into()));
    for arguments in [&["ls", "-z", "1"][..], &["find", "-z", "*"]] {
        let output = fixture.command().args(arguments).output().unwrap();
        assert_eq!(output.stdout, [name.as_bytes(), b"\0"].concat(), "{arguments:?}");
    }
    let cat = fixture.command().args(["cat", "1"]).arg(name).output().unwrap();
    assert_eq!(cat.stdout, b"x");
    Ok(())
}

fn cat(fixture: &Fixture, path: &str) -> (i32, Vec<u8>) {
    let output = fixture.command().args(["cat", "1.0.0", path]).output().unwrap();
    (output.status.code().unwrap(), output.stdout)
}

fn files_come_out_as_they_went_in() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    // Bytes that look like colours, and more than are held in memory at once.
    let raw: Vec<u8> = (0..3_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    tree::file(fixture.beside("source/big"), &raw);
    tree::file(fixture.beside("source/colour"), b"\x1b[31mred\x1b[0m\xff\0");
    fixture.import("source", "1.0.0");
    for path in ["big", "colour", "lib/common.so", "lib/lock", "bin/device-api"] {
        assert_eq!(cat(&fixture, path), (0, std::fs::read(fixture.beside("source").join(path)).unwrap()), "{path}");
    }
    for (path, code) in [("lib", 4), ("", 4), ("lib/common.so.1", 4), ("nothing", 3), ("big/below", 3)] {
        assert_eq!(cat(&fixture, path), (code, Vec::new()), "{path}");
    }
    fixture.run(&["--json", "cat", "1.0.0", "big"]).expect(2);
    Ok(())
}

/// Every inode that holds these bytes, in `objects/`.
fn objects(fixture: &Fixture, contents: &[u8]) -> Vec<std::path::PathBuf> {
    let all = walkdir::WalkDir::new(fixture.path("store/objects")).into_iter().map(|item| item.unwrap().into_path());
    all.filter(|path| path.is_file() && std::fs::read(path).unwrap() == contents).collect()
}

fn damaged_bytes_do_not_come_out_unnoticed() -> Outcome {
    let fixture = Fixture::new();
    let big: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
    tree::file(fixture.beside("source/small"), "small\n");
    tree::file(fixture.beside("source/big"), &big);
    tree::file(fixture.beside("source/saved"), "saved\n");
    tree::program(fixture.beside("source/saved-too"), "saved\n");
    fixture.import("source", "1.0.0");
    // The object and its links in trees are one inode.
    for (path, contents) in [("small", &b"small\n"[..]), ("big", &big)] {
        let object = objects(&fixture, contents).pop().unwrap();
        std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut damaged = contents.to_vec();
        damaged[1] ^= 1;
        std::fs::write(&object, damaged).unwrap();
        let (code, out) = cat(&fixture, path);
        assert_eq!(code, 5, "{path}");
        assert!(path == "big" || out.is_empty(), "a small file is checked before its first byte");
    }
    // Lost under one mode, there under another.
    let lost = objects(&fixture, b"saved\n").into_iter().find(|path| path.to_string_lossy().contains(".0444."));
    let lost = lost.unwrap();
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&lost, "wrong\n").unwrap();
    assert_eq!(cat(&fixture, "saved"), (0, b"saved\n".to_vec()));
    Ok(())
}

fn private_and_shared_files_come_out_pristine() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    tree::file(fixture.beside("source/services/device-api/data/db"), "pristine");
    tree::file(fixture.beside("source/services/device-api/state/seed"), "seed");
    let configuration = "[import]\nprivate = [\"services/*/data/**\"]\nshared = [\"services/*/state\"]\n";
    std::fs::write(fixture.config(), configuration).unwrap();
    fixture.import("source", "1.0.0");
    std::fs::write(fixture.path("versions/v1.0.0/services/device-api/data/db"), "written").unwrap();
    std::fs::write(fixture.path("versions/v1.0.0/services/device-api/state/seed"), "used").unwrap();
    assert_eq!(cat(&fixture, "services/device-api/data/db"), (0, b"pristine".to_vec()));
    assert_eq!(cat(&fixture, "services/device-api/state/seed"), (0, b"seed".to_vec()));
    let show = fixture.json(&["show", "1.0.0"]);
    assert_eq!((&show["placement"]["private"], &show["placement"]["shared"]), (&1.into(), &1.into()));
    assert_eq!(show["shared_paths"], json!([{"path": "services/device-api/state"}]));
    let seen = fixture.run(&["ls", "1.0.0", "services/device-api/state"]).ok().stdout;
    assert_eq!(seen, "services/device-api/state/seed\n", "what is outside of the tree is part of the version");
    Ok(())
}

fn other_users_look_as_well() -> Outcome {
    needs_root()?;
    needs_program("setpriv")?;
    let fixture = released();
    std::fs::set_permissions(&fixture.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    tree::release(fixture.beside("other"), 2);
    fixture.import("other", "2.0.0");
    let arguments: [&[&str]; 7] = [
        &["--json", "list"],
        &["--json", "show", "1.0.0"],
        &["ls", "-lR", "1.0.0"],
        &["cat", "1.0.0", "bin/device-api"],
        &["--json", "find", "*"],
        &["--json", "diff", "1.0.0", "2.0.0"],
        &["diff", "-p", "1.0.0", "2.0.0"],
    ];
    for arguments in arguments {
        let own = fixture.run(arguments).ok();
        let ours = fixture.command();
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(ours.get_program())
            .args(ours.get_args());
        let other = Ran::of(&command.args(arguments).output().unwrap()).ok();
        assert_eq!(other.stdout, own.stdout, "{arguments:?}");
    }
    Ok(())
}

fn a_closed_pipe_is_no_error() -> Outcome {
    use std::io::Read;
    let fixture = Fixture::new();
    for number in 0..3000 {
        tree::file(fixture.beside(format!("source/{number:04}-{}", "x".repeat(200))), number.to_string());
    }
    tree::file(fixture.beside("source/big"), vec![1; 5_000_000]);
    fixture.import("source", "1");
    for arguments in
        [&["ls", "-R", "1"][..], &["ls", "-z", "1"], &["--json", "ls", "1"], &["cat", "1", "big"], &["find", "*"]]
    {
        let mut command = fixture.command();
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let ran = Ran::of(&child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
    Ok(())
}
