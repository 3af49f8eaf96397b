//! Zips: what the programs write, and what is refused.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use ::zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

tests![
    a_zip_of_the_zip_program_is_read_with_modes_links_and_times,
    a_zip_that_was_streamed_is_read_by_its_data_descriptors,
    an_entry_that_cannot_be_read_is_named_with_the_reason,
    entries_without_a_mode_get_the_usual_one_and_dos_times_are_utc,
    the_type_in_a_mode_decides_what_an_entry_is,
    hostile_zip_entries_are_refused,
    two_entries_of_one_name_are_refused_however_they_are_spelt,
    a_wrong_checksum_names_the_entry,
    directory_and_local_headers_must_agree,
    a_zip_on_a_stream_is_refused_with_the_reason,
    limits_hold_for_zips_too,
    an_empty_zip_is_an_empty_tree,
];

fn see_zip(bytes: &[u8]) -> Result<Seen> {
    see_file(bytes, &Limits::default())
}

fn written(fill: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    fill(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn one_file(name: &str, bytes: &[u8]) -> Vec<u8> {
    written(|zip| {
        zip.start_file(name, SimpleFileOptions::default().unix_permissions(0o640)).unwrap();
        zip.write_all(bytes).unwrap();
    })
}

/// Replaces every occurrence of some bytes by others of the same length.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_ne!(out, bytes, "the pattern occurs");
    out
}

fn a_zip_of_the_zip_program_is_read_with_modes_links_and_times() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join("tree").join(name);
    std::fs::create_dir_all(at("d/e")).unwrap();
    std::fs::write(at("d/f"), vec![b'f'; 5000]).unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    for (name, mode) in [("d", 0o755), ("d/e", 0o755), ("d/f", 0o750), ("empty", 0o644)] {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("d/f", at("link")).unwrap();
    run(&at(""), "find . -exec touch -h -d @1700000001 {} +")?;
    needs_program("zip")?;
    for (options, has_directories) in [("-qry", true), ("-qryD", false)] {
        let seen =
            see_zip(&run(&at(""), &format!("zip {options} ../{options}.zip . && cat ../{options}.zip"))?).unwrap();
        assert_eq!(seen.summary.format, Format::Zip);
        let mut lines = vec![
            "d 0755 0:0 d",
            "d 0755 0:0 d/e",
            "- 0750 0:0 d/f 5000",
            "- 0644 0:0 empty 0",
            "l 0777 0:0 link -> d/f",
        ];
        if !has_directories {
            lines.remove(1);
        }
        assert_eq!(seen.lines, lines, "{options}");
        assert_eq!(seen.contents["d/f"], vec![b'f'; 5000]);
        assert_eq!(seen.mtimes["d/f"], Some(Mtime { seconds: 1_700_000_001, nanoseconds: 0 }), "not in steps of 2 s");
    }
    Ok(())
}

/// What can be streamed depends on the build of the zip program (some refuse to store a link in a pipe), so the library
/// writes this zip. The program adds one that any build can make.
fn a_zip_that_was_streamed_is_read_by_its_data_descriptors() -> Outcome {
    let mut zip = ZipWriter::new_stream(Vec::new());
    let options = SimpleFileOptions::default().unix_permissions(0o750);
    zip.add_directory("d", options).unwrap();
    zip.start_file("d/f", options).unwrap();
    zip.write_all(&[b'f'; 5000]).unwrap();
    zip.start_file("large", options.large_file(true)).unwrap();
    zip.write_all(b"zip64").unwrap();
    zip.add_symlink("link", "d/f", options).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.windows(4).any(|window| window == b"PK\x07\x08"), "it has data descriptors");
    let seen = see_zip(&bytes).unwrap();
    assert_eq!(seen.lines, ["d 0750 0:0 d", "- 0750 0:0 d/f 5000", "- 0750 0:0 large 5", "l 0777 0:0 link -> d/f"]);
    assert_eq!((&seen.contents["d/f"][..], &seen.contents["large"][..]), (&[b'f'; 5000][..], &b"zip64"[..]));

    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("f"), vec![b'f'; 5000]).unwrap();
    let piped = see_zip(&run(top.path(), "cat f | zip -q - -")?).unwrap();
    assert_eq!(piped.contents["-"], vec![b'f'; 5000], "zip64 with a data descriptor");
    Ok(())
}

fn an_entry_that_cannot_be_read_is_named_with_the_reason() -> Outcome {
    // Flags and method stand at these places of the local and of the central header.
    let with = |at_local: usize, at_central: usize, value: u8| {
        let mut bytes = one_file("d/f", b"bytes");
        let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        (bytes[at_local], bytes[central + at_central]) = (value, value);
        see_zip(&bytes).unwrap_err()
    };
    let (encrypted, bzip2) = (with(6, 8, 1), with(8, 10, 12));
    assert_eq!(
        (encrypted.name(), encrypted.to_string().as_str()),
        ("unsupported-source", "d/f: the entry is encrypted")
    );
    assert_eq!(bzip2.name(), "unsupported-source");
    assert!(bzip2.to_string().starts_with("d/f: the compression method"), "{bzip2}");
    Ok(())
}

fn entries_without_a_mode_get_the_usual_one_and_dos_times_are_utc() -> Outcome {
    let time = ::zip::DateTime::from_date_and_time(2024, 2, 29, 12, 34, 56).unwrap();
    let mut bytes = written(|zip| {
        let options = SimpleFileOptions::default().last_modified_time(time);
        zip.start_file("f", options).unwrap();
        zip.add_directory("d", options).unwrap();
    });
    // The system that made it, in each central header: DOS, which has no modes.
    for at in 0..bytes.len() - 6 {
        if &bytes[at..at + 4] == b"PK\x01\x02" {
            bytes[at + 5] = 0;
        }
    }
    let seen = see_zip(&bytes).unwrap();
    assert_eq!(seen.lines, ["d 0755 0:0 d", "- 0644 0:0 f 0"]);
    assert_eq!(seen.mtimes["f"], Some(Mtime { seconds: 1_709_210_096, nanoseconds: 0 }));
    Ok(())
}

fn the_type_in_a_mode_decides_what_an_entry_is() -> Outcome {
    let with = |mode: u32| {
        let mut bytes = one_file("dir/x", b"");
        let at = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[at + 38..at + 42].copy_from_slice(&(mode << 16).to_le_bytes());
        see_zip(&bytes)
    };
    for (mode, what) in [(0o010_644, "FIFO"), (0o140_755, "socket")] {
        let seen = with(mode).unwrap();
        assert_eq!(seen.warnings(), ["dir/x: a FIFO or socket, which is not imported"], "{what}");
        assert_eq!(seen.lines.len(), 0);
    }
    assert_eq!(with(0o060_644).unwrap_err().name(), "unsupported-source");
    assert_eq!(with(0o120_777).unwrap_err().to_string(), "dir/x: a symbolic link: its target is empty");
    assert_eq!(with(0o040_700).unwrap().lines, ["d 0755 0:0 dir", "d 0700 0:0 dir/x"]);
    assert_eq!(with(0o104_711).unwrap().lines, ["d 0755 0:0 dir", "- 4711 0:0 dir/x 0"]);
    Ok(())
}

fn hostile_zip_entries_are_refused() -> Outcome {
    for name in ["../xxxx", "/etc/xx", "a/../xx"] {
        let bytes = replaced(&one_file("a/b/c/x", b"1"), b"a/b/c/x", name.as_bytes());
        assert_eq!(see_zip(&bytes).unwrap_err().name(), "unsafe-archive", "{name}");
    }
    let through = written(|zip| {
        zip.add_symlink("s", "/etc", SimpleFileOptions::default()).unwrap();
        zip.start_file("s/passwd", SimpleFileOptions::default()).unwrap();
    });
    let error = see_zip(&through).unwrap_err().to_string();
    assert_eq!(error, "s/passwd: it would be written through the symbolic link s");
    let file_below_file = written(|zip| {
        zip.start_file("f", SimpleFileOptions::default()).unwrap();
        zip.start_file("f/x", SimpleFileOptions::default()).unwrap();
    });
    assert_eq!(see_zip(&file_below_file).unwrap_err().name(), "unsafe-archive");
    Ok(())
}

/// The `zip` crate keeps the last of two entries with one name, other programs the first.
fn two_entries_of_one_name_are_refused_however_they_are_spelt() -> Outcome {
    let two = |name: &str| {
        written(|zip| {
            for (name, bytes) in [("aaa", b"1"), (name, b"2")] {
                zip.start_file(name, SimpleFileOptions::default()).unwrap();
                zip.write_all(bytes).unwrap();
            }
        })
    };
    let same = replaced(&two("bbb"), b"bbb", b"aaa");
    assert_eq!(see_zip(&same).unwrap_err().to_string(), "the zip's directory has two entries of one name");
    assert_eq!(see_zip(&two("./aaa")).unwrap_err().to_string(), "aaa: two members have this path");
    Ok(())
}

fn a_wrong_checksum_names_the_entry() -> Outcome {
    let options = SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    let bytes = written(|zip| {
        zip.start_file("dir/file", options).unwrap();
        zip.write_all(b"unmistakable").unwrap();
    });
    assert_eq!(see_zip(&bytes).unwrap().contents["dir/file"], b"unmistakable");
    let error = see_zip(&replaced(&bytes, b"unmistakable", b"unmistakably")).unwrap_err();
    assert_eq!((error.name(), error.to_string().starts_with("dir/file: ")), ("source", true), "{error}");
    Ok(())
}

fn directory_and_local_headers_must_agree() -> Outcome {
    let bytes = one_file("abcdef", b"1");
    let at = bytes.windows(6).position(|window| window == b"abcdef").unwrap();
    let mut other = bytes.clone();
    other[at] = b'z';
    assert!(see_zip(&other).is_err(), "the local header has another name");
    for end in 1..bytes.len() {
        assert!(see_zip(&bytes[..end]).is_err(), "cut at {end}");
    }
    Ok(())
}

fn a_zip_on_a_stream_is_refused_with_the_reason() -> Outcome {
    let error = see(&one_file("a", b"1")).unwrap_err();
    assert_eq!(error.kind(), tope_store::error::ErrorKind::Usage);
    assert!(error.to_string().contains("stream"), "{error}");
    Ok(())
}

fn limits_hold_for_zips_too() -> Outcome {
    let bytes = one_file("a", &vec![0; 1 << 20]);
    let with = |limits| see_file(&bytes, &limits).map(drop).map_err(|error| error.name().to_owned());
    let unsafe_archive = Err("unsafe-archive".to_owned());
    assert_eq!(with(Limits { max_total_bytes: (1 << 20) - 1, ..Limits::default() }), unsafe_archive);
    assert_eq!(with(Limits { max_entries: 0, ..Limits::default() }), unsafe_archive);
    assert_eq!(with(Limits { max_held_bytes: 10, ..Limits::default() }), Err("source".to_owned()));
    assert_eq!(with(Limits { max_total_bytes: 1 << 20, max_entries: 1, ..Limits::default() }), Ok(()));
    Ok(())
}

fn an_empty_zip_is_an_empty_tree() -> Outcome {
    assert_eq!(see_zip(&written(|_| {})).unwrap().lines.len(), 0);
    Ok(())
}
