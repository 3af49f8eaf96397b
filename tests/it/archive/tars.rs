//! What honest programs write is read whole.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

tests![
    both_formats_of_gnu_tar_through_every_compressor_give_one_digest,
    a_v7_tar_is_read_too,
    links_to_links_and_fifos_of_a_real_tree_do_not_stop_an_import,
    an_archive_in_several_members_streams_or_frames_is_one,
    sparse_files_of_every_format_are_read_with_their_holes,
    attributes_and_access_lists_arrive_as_the_kernel_holds_them,
    extended_headers_override_and_global_ones_stand_behind,
    large_ids_and_times_before_1970_come_in_base_256,
    harmless_spellings_are_forgiven,
    empty_archives_are_empty_trees,
    what_the_caller_does_not_read_is_skipped_and_stored_later,
    the_callers_own_failure_is_passed_on,
];

/// A tree with everything that a tar can say without privileges.
fn tree() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    std::fs::create_dir_all(at("d/e")).unwrap();
    std::fs::write(at("d/file"), b"content").unwrap();
    std::fs::write(at("d/empty"), b"").unwrap();
    std::fs::write(at("exec"), b"#!/bin/sh\n").unwrap();
    std::fs::set_permissions(at("exec"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(at("d/e"), std::fs::Permissions::from_mode(0o1700)).unwrap();
    std::fs::hard_link(at("d/file"), at("hard")).unwrap();
    symlink("d/file", at("link")).unwrap();
    symlink("/etc/passwd", at("outside")).unwrap();
    std::fs::write(at(&"n".repeat(255)), b"long").unwrap();
    symlink("t".repeat(300), at("long target")).unwrap();
    std::fs::write(at("new\nline"), b"newline").unwrap();
    std::fs::write(top.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), b"bytes").unwrap();
    let deep = "deep/".repeat(40);
    std::fs::create_dir_all(at(&deep)).unwrap();
    std::fs::write(at(&deep).join("x"), b"deep").unwrap();
    top
}

const OWNER: &str = "--owner=12 --group=34 --numeric-owner --mtime=@1700000000 --sort=name";

fn check(seen: &Seen, format: &str) {
    let mut lines = vec![
        "d 0755 12:34 d".to_owned(),
        "d 1700 12:34 d/e".into(),
        "- 0644 12:34 d/empty 0".into(),
        "- 0644 12:34 d/file 7".into(),
    ];
    lines.extend((1..=40).map(|depth| format!("d 0755 12:34 {}", vec!["deep"; depth].join("/"))));
    lines.extend([
        format!("- 0644 12:34 {}/x 4", vec!["deep"; 40].join("/")),
        "- 4755 12:34 exec 10".into(),
        "- 0644 12:34 hard 7".into(),
        "l 0777 12:34 link -> d/file".into(),
        format!("l 0777 12:34 long target -> {}", "t".repeat(300)),
        "- 0644 12:34 new\\nline 7".into(),
        format!("- 0644 12:34 {} 4", "n".repeat(255)),
        "l 0777 12:34 outside -> /etc/passwd".into(),
        "- 0644 12:34 \\xff\\xfe 5".into(),
    ]);
    let (mut seen_lines, mut expected) = (seen.lines.clone(), lines);
    seen_lines.sort();
    expected.sort();
    assert_eq!(seen_lines, expected, "{format}");
    assert_eq!(seen.contents["d/file"], b"content");
    assert_eq!(seen.contents["\\xff\\xfe"], b"bytes");
    assert_eq!(seen.mtimes["exec"], Some(Mtime { seconds: 1_700_000_000, nanoseconds: 0 }));
    assert_eq!(seen.warnings(), ["outside: a symbolic link that points out of the tree"], "{format}");
}

fn both_formats_of_gnu_tar_through_every_compressor_give_one_digest() -> Outcome {
    let top = tree();
    let mut digests = Vec::new();
    for format in ["gnu", "posix"] {
        for (compress, kind) in [
            ("cat", Format::Tar),
            ("gzip -c", Format::TarGz),
            ("xz -c", Format::TarXz),
            ("xz -c --check=sha256 --block-size=4096", Format::TarXz),
            ("zstd -c --check", Format::TarZst),
        ] {
            let bytes = run(top.path(), &format!("tar -c --format={format} {OWNER} . | {compress}"))?;
            let seen = see(&bytes).unwrap();
            assert_eq!(seen.summary.format, kind);
            check(&seen, &format!("{format} {compress}"));
            assert_eq!(see_file(&bytes, &Limits::default()).unwrap().built, seen.built);
            digests.push(seen.built.root);
        }
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    Ok(())
}

fn a_v7_tar_is_read_too() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("f"), b"old").unwrap();
    let bytes = run(top.path(), &format!("tar -c --format=v7 {OWNER} f"))?;
    assert_eq!(see(&bytes).unwrap().lines, ["- 0644 12:34 f 3"]);
    Ok(())
}

/// GNU tar archives the second name of a symbolic link as a hard link, and a FIFO as itself.
fn links_to_links_and_fifos_of_a_real_tree_do_not_stop_an_import() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    symlink("nowhere", top.path().join("a")).unwrap();
    std::fs::hard_link(top.path().join("a"), top.path().join("b")).unwrap();
    run(top.path(), "mkfifo pipe")?;
    let bytes = run(top.path(), &format!("tar -c {OWNER} ."))?;
    let seen = see(&bytes).unwrap();
    assert_eq!(seen.lines, ["l 0777 12:34 a -> nowhere", "l 0777 12:34 b -> nowhere"]);
    assert_eq!(seen.warnings(), ["pipe: a FIFO, which is not imported"]);
    Ok(())
}

fn an_archive_in_several_members_streams_or_frames_is_one() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("f"), vec![7; 10_000]).unwrap();
    let tar = run(top.path(), "tar -c f")?;
    std::fs::write(top.path().join("a.tar"), tar).unwrap();
    for program in ["gzip", "xz", "zstd"] {
        let each = format!("(head -c 5000 a.tar | {program} -c; tail -c +5001 a.tar | {program} -c)");
        let bytes = run(top.path(), &format!("test -f a.tar && {each}"))?;
        let seen = see(&bytes).unwrap();
        assert_eq!(seen.contents["f"], vec![7; 10_000], "{program}");
        for cut in [1, 5, 12] {
            assert!(see(&bytes[..bytes.len() - cut]).is_err(), "{program} cut by {cut}");
        }
        let mut flipped = bytes.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        assert!(see(&flipped).is_err(), "{program}: a checksum at the very end counts");
    }
    Ok(())
}

fn sparse_files_of_every_format_are_read_with_their_holes() -> Outcome {
    use std::io::{Seek, SeekFrom, Write};
    let top = tempfile::tempdir().unwrap();
    let mut file = File::create(top.path().join("sparse")).unwrap();
    let mut expected = vec![0; 3 << 20];
    for (number, start) in (0..30).map(|number| (number, usize::from(number) * 100_000)) {
        file.seek(SeekFrom::Start(start as u64)).unwrap();
        file.write_all(&[number + 1; 5000]).unwrap();
        expected[start..start + 5000].fill(number + 1);
    }
    file.set_len(expected.len() as u64).unwrap();
    std::fs::write(top.path().join("zafter"), b"next").unwrap();
    for format in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        let bytes = run(top.path(), &format!("tar -cS {format} {OWNER} sparse zafter"))?;
        assert!(bytes.len() < expected.len() / 2, "tar did not find the holes");
        let seen = see(&bytes).unwrap();
        assert_eq!(seen.lines, ["- 0644 12:34 sparse 3145728", "- 0644 12:34 zafter 4"], "{format}");
        assert!(seen.contents["sparse"] == expected, "{format}");
        let limits = Limits { max_total_bytes: 2 << 20, ..Limits::default() };
        assert_eq!(see_within(&bytes, &limits).unwrap_err().name(), "unsafe-archive", "holes count: {format}");
    }
    Ok(())
}

fn attributes_and_access_lists_arrive_as_the_kernel_holds_them() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("f"), b"x").unwrap();
    let set = "setfattr -n user.binary -v 0x000a3dff f && setfacl -m u:12345:rwx,g:54321:r f";
    needs_program("setfattr")?;
    needs_program("setfacl")?;
    let set = Command::new("sh").arg("-c").arg(set).current_dir(top.path()).output().unwrap();
    if !set.status.success() {
        return Err(Skipped("needs a file system with attributes and access lists".into()));
    }
    let read = |options: &str| {
        run(top.path(), &format!("tar -c --format=posix {options} f")).map(|bytes| see(&bytes).unwrap())
    };
    let raw = read("--xattrs --xattrs-include='*'")?.xattrs["f"].clone();
    let names: Vec<&str> = raw.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["system.posix_acl_access", "user.binary"]);
    assert_eq!(raw[1].1, b"\0\n=\xff");
    let text = read("--xattrs --acls --numeric-owner")?.xattrs["f"].clone();
    assert_eq!(text, raw, "the text form says the same");
    run(top.path(), "setfacl -m u:daemon:r f")?;
    let named = see(&run(top.path(), "tar -c --format=posix --acls f")?).unwrap_err();
    assert_eq!((named.name(), named.hint().is_some()), ("unsupported-source", true), "{named}");
    Ok(())
}

fn extended_headers_override_and_global_ones_stand_behind() -> Outcome {
    let bytes = Hand::default()
        .pax(b'g', &[("comment", b"0123"), ("mtime", b"50"), ("uid", b"9")])
        .pax(
            b'x',
            &[
                ("path", b"p/a\nb"),
                ("mtime", b"1700000000.5"),
                ("uid", b"4000000000"),
                ("size", b"3"),
                ("SCHILY.acl.access", b"user::rw-,user:alice:rw-:1000,group::r--,mask::rw-,other::---"),
                ("LIBARCHIVE.xattr.user.x", b"AAE"),
            ],
        )
        .put(b'0', b"short", b"", 0, b"abc")
        .file("other", b"")
        .end();
    let seen = see(&bytes).unwrap();
    assert_eq!(seen.lines, ["- 0644 9:2 other 0", "d 0755 0:0 p", "- 0644 4000000000:2 p/a\\nb 3"]);
    assert_eq!(seen.mtimes["p/a\\nb"], Some(Mtime { seconds: 1_700_000_000, nanoseconds: 500_000_000 }));
    assert_eq!(seen.mtimes["other"], Some(Mtime { seconds: 50, nanoseconds: 0 }));
    let names: Vec<&str> = seen.xattrs["p/a\\nb"].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["system.posix_acl_access", "user.x"]);
    Ok(())
}

fn large_ids_and_times_before_1970_come_in_base_256() -> Outcome {
    let mut hand = Hand::default();
    hand.header(b'0', b"f", b"", |header| {
        header.set_uid(4_000_000_000);
        header.as_old_mut().mtime = [0xff; 12];
    });
    let seen = see(&hand.end()).unwrap();
    assert_eq!(seen.lines, ["- 0644 4000000000:2 f 0"]);
    assert_eq!(seen.mtimes["f"], Some(Mtime { seconds: -1, nanoseconds: 0 }));
    Ok(())
}

fn harmless_spellings_are_forgiven() -> Outcome {
    let bytes = Hand::default()
        .directory("./")
        .directory("./d/")
        .directory("d")
        .file("./d//f", b"1")
        .put(0, b"old/", b"", 0, b"")
        .put(b'V', b"label", b"", 0, b"")
        .link(b'1', "h", "./d/f")
        .link(b'6', "fifo", "")
        .end();
    let seen = see(&bytes).unwrap();
    assert_eq!(seen.lines, ["d 0644 1:2 d", "- 0644 1:2 d/f 1", "- 0644 1:2 h 1", "d 0644 1:2 old"]);
    assert_eq!(seen.warnings(), ["fifo: a FIFO, which is not imported"]);
    Ok(())
}

fn empty_archives_are_empty_trees() -> Outcome {
    let seen = see(&[0; 10_240]).unwrap();
    assert_eq!((seen.lines.len(), seen.summary.members), (0, 0));
    Ok(())
}

fn what_the_caller_does_not_read_is_skipped_and_stored_later() -> Outcome {
    let bytes = Hand::default().file("a", &[1; 3000]).file("b", b"2").end();
    let (limits, mut ids) = (Limits::default(), Vec::new());
    let mut builder = TreeBuilder::new(&limits);
    let summary = read(Input::Stream(Box::new(Cursor::new(bytes))), &limits, &mut builder, &mut |member| {
        if let MemberKind::File { id, .. } = member.kind {
            ids.push(id);
        }
        Ok(None)
    });
    assert_eq!(summary.unwrap().content_bytes, 3001);
    for id in ids {
        assert_eq!(builder.metadata(id), &Metadata::new(0o644, 1, 2));
        builder.store(id, ContentId::of(b"later"));
    }
    assert_eq!(builder.finish().unwrap().trees.len(), 1);
    Ok(())
}

fn the_callers_own_failure_is_passed_on() -> Outcome {
    let bytes = Hand::default().file("a", b"1").end();
    let limits = Limits::default();
    let result =
        read(Input::Stream(Box::new(Cursor::new(bytes))), &limits, &mut TreeBuilder::new(&limits), &mut |_| {
            Err(Error::Interrupted)
        });
    assert!(matches!(result, Err(Error::Interrupted)));
    Ok(())
}
