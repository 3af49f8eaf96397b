//! What no honest program writes is refused, by path.

use super::*;

tests![
    names_that_leave_the_tree_are_refused,
    nothing_is_written_through_a_link_or_over_another_member,
    what_cannot_be_part_of_a_version_is_refused_by_path,
    headers_that_readers_understand_differently_are_refused,
    a_truncated_tar_is_never_a_smaller_tree,
    a_header_with_a_wrong_checksum_is_no_header,
    bytes_that_are_no_archive_are_said_to_be_none,
    extended_headers_of_any_declared_length_take_no_memory,
    declared_sizes_are_refused_before_anything_is_read,
    entries_are_counted_with_the_directories_they_imply,
    decompression_bombs_end_at_the_limits,
    endless_zeros_behind_the_end_are_not_read_for_ever,
    decoders_stay_within_their_memory,
    a_compressed_stream_without_a_tar_in_it_is_named_as_broken,
    sparse_maps_that_make_no_sense_are_refused,
];

/// Reads and must be refused; gives the error's stable name and its text.
fn refused(hand: Hand) -> (String, String) {
    let error = see(&hand.end()).unwrap_err();
    (error.name().to_owned(), error.to_string())
}

fn names_that_leave_the_tree_are_refused() -> Outcome {
    let long = [b'x'; 100];
    let cases: [(&[u8], &str); 6] = [
        (b"/etc/passwd", "/etc/passwd: the name is absolute"),
        (b"../x", "../x: the name climbs with '..'"),
        (b"a/../../x", "a/../../x: the name climbs with '..'"),
        (b"a/..", "a/..: the name climbs with '..'"),
        (b"", "'': a member has no name"),
        (b"/", "/: the name is absolute"),
    ];
    for (name, text) in cases {
        let hand = Hand::default().put(b'0', name, b"", 0, b"");
        assert_eq!(refused(hand), ("unsafe-archive".to_owned(), text.to_owned()));
    }
    for name in [&b"a\0b"[..], &long.repeat(3), &b"x/".repeat(5000), &b"x".repeat(70_000)] {
        let (kind, _) = refused(Hand::default().pax(b'x', &[("path", name)]).file("f", b""));
        assert_eq!(kind, "unsafe-archive");
        if !name.contains(&0) {
            let hand = Hand::default().put(b'L', b"././@LongLink", b"", name.len() as u64, name).file("f", b"");
            assert_eq!(refused(hand).0, "unsafe-archive");
        }
    }
    Ok(())
}

fn nothing_is_written_through_a_link_or_over_another_member() -> Outcome {
    let start = || Hand::default().file("f", b"1").directory("d").link(b'2', "s", "/etc");
    let cases = [
        (start().file("s/passwd", b""), "s/passwd: it would be written through the symbolic link s"),
        (start().directory("s"), "s: a directory has the path of another member"),
        (start().file("s", b""), "s: two members have this path"),
        (start().file("f", b"2"), "f: two members have this path"),
        (start().file("./f", b"1"), "f: two members have this path"),
        (start().file("f/x", b""), "f/x: it lies below f, which is not a directory"),
        (start().file("d", b""), "d: another member has this path as a directory"),
        (start().link(b'2', "d", "x"), "d: another member has this path as a directory"),
        (start().link(b'1', "h", "s/passwd"), "h: a hard link to s/passwd, which is not among the members before it"),
        (
            start().link(b'1', "h", "later").file("later", b""),
            "h: a hard link to later, which is not among the members before it",
        ),
        (start().link(b'1', "h", "d"), "h: a hard link to d, a directory"),
        (start().link(b'1', "h", "/etc/passwd"), "h: a hard link out of the tree (/etc/passwd: the name is absolute)"),
        (start().link(b'1', "h", "../f"), "h: a hard link out of the tree (../f: the name climbs with '..')"),
        (start().link(b'1', "h", ""), "h: a hard link out of the tree ('': a member has no name)"),
        (start().link(b'2', "e", ""), "e: a symbolic link: its target is empty"),
        (start().put(b'5', b"g", b"", 512, &[0; 512]), "g: the header of a member without contents declares some"),
        (start().put(b'1', b"g", b"f", 1, b"x"), "g: the header of a member without contents declares some"),
        (
            start().pax(b'x', &[("linkpath", &[b'x'; 4096])]).link(b'2', "e", "t"),
            "e: a symbolic link: its target has more than 4095 bytes",
        ),
        (
            start().pax(b'x', &[("linkpath", b"a\0b")]).link(b'2', "e", "t"),
            "e: a symbolic link: its target holds a NUL",
        ),
    ];
    for (hand, text) in cases {
        assert_eq!(refused(hand), ("unsafe-archive".to_owned(), text.to_owned()));
    }
    Ok(())
}

fn what_cannot_be_part_of_a_version_is_refused_by_path() -> Outcome {
    let named = "user::rw-,user:alice:rw-,group::r--,mask::rw-,other::---";
    let cases = [
        Hand::default().link(b'3', "dev/null", ""),
        Hand::default().link(b'4', "dev/null", ""),
        Hand::default().link(b'M', "dev/null", ""),
        Hand::default().link(b'~', "dev/null", ""),
        Hand::default().pax(b'x', &[("SCHILY.acl.access", named.as_bytes())]).file("dev/null", b""),
    ];
    for hand in cases {
        let (kind, text) = refused(hand);
        assert_eq!(kind, "unsupported-source");
        assert!(text.starts_with("dev/null: "), "{text}");
    }
    Ok(())
}

fn headers_that_readers_understand_differently_are_refused() -> Outcome {
    let cases = [
        Hand::default().pax(b'x', &[("path", b"a"), ("path", b"b")]).file("f", b""),
        Hand::default().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"a")]).file("f", b""),
        Hand::default().put(b'L', b"l", b"", 2, b"a\0").put(b'L', b"l", b"", 2, b"a\0").file("f", b""),
        Hand::default().put(b'L', b"l", b"", 2, b"a\0").pax(b'x', &[("path", b"b")]).file("f", b""),
        Hand::default().pax(b'g', &[("path", b"a")]).file("f", b""),
        Hand::default().pax(b'g', &[("size", b"1")]).file("f", b""),
        Hand::default().file("f", b"").pax(b'x', &[("path", b"a")]),
        Hand::default().pax(b'x', &[("SCHILY.acl.default", b"user::rw-,group::r--,other::---")]).file("f", b""),
        Hand::default().put(b'x', b"pax", b"", 5, b"9 a=b"),
    ];
    for (number, hand) in cases.into_iter().enumerate() {
        assert!(see(&hand.end()).is_err(), "{number}");
    }
    let same = Hand::default().put(b'L', b"l", b"", 2, b"a\0").pax(b'x', &[("path", b"a")]).file("f", b"").end();
    assert_eq!(see(&same).unwrap().lines, ["- 0644 1:2 a 0"]);
    Ok(())
}

fn a_truncated_tar_is_never_a_smaller_tree() -> Outcome {
    let whole = Hand::default().file("a", &[1; 700]).file("b", b"2").0;
    for end in 1..whole.len() {
        let error = see(&whole[..end]).unwrap_err();
        assert_eq!(error.name(), "source", "cut at {end}: {error}");
    }
    let error = see(&whole).unwrap_err().to_string();
    assert!(error.starts_with("b: ") && error.contains("without an end marker"), "{error}");
    let mut ended = whole.clone();
    ended.resize(whole.len() + 512, 0);
    assert_eq!(see(&ended).unwrap().lines.len(), 2, "one block of zeros is enough");
    ended.extend_from_slice(&whole);
    assert!(see(&ended).unwrap_err().to_string().contains("end marker"), "a second archive would be lost");
    Ok(())
}

fn a_header_with_a_wrong_checksum_is_no_header() -> Outcome {
    let mut bytes = Hand::default().file("a", b"1").file("b", b"2").end();
    bytes[1024] ^= 1;
    let error = see(&bytes).unwrap_err().to_string();
    assert_eq!(error, "a: what follows is no tar header: its checksum is wrong");
    Ok(())
}

fn bytes_that_are_no_archive_are_said_to_be_none() -> Outcome {
    for bytes in [&b""[..], b"PK", &[b'x'; 1000]] {
        assert_eq!(see(bytes).unwrap_err().name(), "source");
        assert_eq!(see_file(bytes, &Limits::default()).unwrap_err().name(), "source");
    }
    Ok(())
}

/// A long name of 4 GiB must not be read into memory, and an extended header neither.
fn extended_headers_of_any_declared_length_take_no_memory() -> Outcome {
    for kind in [b'L', b'K', b'x', b'g'] {
        for size in [4 << 30, u64::MAX >> 1, (1 << 20) + 1] {
            let (name, text) = refused(Hand::default().put(kind, b"ext", b"", size, b""));
            assert_eq!(name, "unsafe-archive", "{text}");
        }
    }
    Ok(())
}

fn declared_sizes_are_refused_before_anything_is_read() -> Outcome {
    let (name, text) = refused(Hand::default().put(b'0', b"big", b"", 1 << 50, b""));
    assert_eq!(name, "unsafe-archive");
    assert!(text.starts_with("big declares"), "{text}");
    let map: &[(&str, &[u8])] = &[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"9223372036854775807")];
    let (name, text) = refused(Hand::default().pax(b'x', map).file("sparse", b""));
    assert_eq!((name.as_str(), text.starts_with("sparse declares")), ("unsafe-archive", true), "{text}");
    Ok(())
}

fn entries_are_counted_with_the_directories_they_imply() -> Outcome {
    let limits = Limits { max_entries: 4, ..Limits::default() };
    let hand = || Hand::default().file("a/b/c/d", b"");
    assert!(see_within(&hand().end(), &limits).is_ok());
    assert_eq!(see_within(&hand().file("e", b"").end(), &limits).unwrap_err().name(), "unsafe-archive");
    let limits = Limits { max_held_bytes: 8, ..Limits::default() };
    assert_eq!(see_within(&hand().file("123456789", b"").end(), &limits).unwrap_err().name(), "unsafe-archive");
    Ok(())
}

fn decompression_bombs_end_at_the_limits() -> Outcome {
    use std::io::Write;
    let zeros = vec![0; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&Hand::default().put(b'0', b"bomb", b"", 300 << 20, b"").0).unwrap();
    for _ in 0..300 {
        encoder.write_all(&zeros).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let limits = Limits { max_ratio: 100, ..Limits::default() };
    let error = see_within(&bytes, &limits).unwrap_err();
    assert_eq!(error.name(), "unsafe-archive");
    assert!(error.to_string().contains("bomb"), "{error}");
    let limits = Limits { max_total_bytes: 10 << 20, ..Limits::default() };
    assert_eq!(see_within(&bytes, &limits).unwrap_err().name(), "unsafe-archive");
    Ok(())
}

fn endless_zeros_behind_the_end_are_not_read_for_ever() -> Outcome {
    let endless = Cursor::new(Hand::default().file("a", b"1").end()).chain(io::repeat(0));
    let error = see_input(Input::Stream(Box::new(endless)), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("padded without end"), "{error}");
    Ok(())
}

fn decoders_stay_within_their_memory() -> Outcome {
    let top = tempfile::tempdir().unwrap();
    let tar = Hand::default().file("a", &vec![1; 100_000]).end();
    std::fs::write(top.path().join("a.tar"), tar).unwrap();
    for command in ["zstd --ultra -22 --long=27 --no-check -c < a.tar", "xz -9 -c a.tar"] {
        let bytes = run(top.path(), command)?;
        assert!(see(&bytes).is_ok(), "{command}");
        let limits = Limits { decoder_memory_bytes: 1 << 20, ..Limits::default() };
        let error = see_within(&bytes, &limits).unwrap_err();
        assert_eq!((error.name(), error.hint().is_some()), ("unsafe-archive", true), "{command}: {error}");
    }
    Ok(())
}

fn a_compressed_stream_without_a_tar_in_it_is_named_as_broken() -> Outcome {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&[b'x'; 2000]).unwrap();
    let error = see(&encoder.finish().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no tar header"), "{error}");
    Ok(())
}

fn sparse_maps_that_make_no_sense_are_refused() -> Outcome {
    let maps: [&[(&str, &[u8])]; 6] = [
        &[("GNU.sparse.map", b"0,3,1,2"), ("GNU.sparse.size", b"9")],
        &[("GNU.sparse.map", b"0,3,9"), ("GNU.sparse.size", b"9")],
        &[("GNU.sparse.map", b"7,5"), ("GNU.sparse.size", b"9")],
        &[("GNU.sparse.map", b"0,5")],
        &[("GNU.sparse.offset", b"0"), ("GNU.sparse.size", b"5")],
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"5")],
    ];
    for map in maps {
        let hand = Hand::default().pax(b'x', map).file("s", b"12345").end();
        assert_eq!(see(&hand).unwrap_err().name(), "source", "{map:?}");
    }
    Ok(())
}
