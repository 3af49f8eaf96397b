//! Whatever the bytes are: no panic, no endless loop, no unbounded memory.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

tests![damaged_archives_are_errors_or_trees, random_bytes_are_no_archive_or_a_harmless_one,];

/// Small archives of each format, to be damaged.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    use std::io::Write;
    let map: &[(&str, &[u8])] = &[("GNU.sparse.map", b"0,3,10,2"), ("GNU.sparse.size", b"20")];
    let records: &[(&str, &[u8])] = &[
        ("path", b"long/name"),
        ("mtime", b"1.5"),
        ("SCHILY.xattr.user.x", b"y"),
        ("SCHILY.acl.access", b"user::rw-,user:5:r--,group::r--,mask::r--,other::---"),
    ];
    let mut sparse = Hand::default();
    sparse.header(b'S', b"old", b"", |header| {
        header.set_size(3);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(9);
        gnu.sparse[0].set_offset(2);
        gnu.sparse[0].set_length(3);
    });
    let tar = sparse
        .data(b"abc")
        .directory("d")
        .file("d/f", b"hello")
        .link(b'1', "h", "d/f")
        .link(b'2', "s", "../x")
        .pax(b'g', &[("mtime", b"5")])
        .pax(b'x', records)
        .file("p", b"pax")
        .pax(b'x', map)
        .file("sparse", b"12345")
        .put(b'L', b"l", b"", 200, &[b'n'; 200])
        .file("l", b"")
        .end();
    assert_eq!(see(&tar).unwrap().lines.len(), 9);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.add_directory("d", options).unwrap();
    zip.start_file("d/f", options).unwrap();
    zip.write_all(&[b'z'; 300]).unwrap();
    zip.add_symlink("s", "d/f", options).unwrap();
    let gz = gz.finish().unwrap();
    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("a"), &tar).unwrap();
    vec![
        // The decoder's crate is built without an encoder.
        run(top.path(), "xz -1 -c a").unwrap_or_else(|_| gz.clone()),
        gz,
        zstd::encode_all(&tar[..], 1).unwrap(),
        zip.finish().unwrap().into_inner(),
        tar,
    ]
});

/// Tight limits, so that what a mutation asks for is refused and not granted.
fn limits() -> Limits {
    Limits {
        max_total_bytes: 1 << 20,
        max_entries: 1000,
        decoder_memory_bytes: 8 << 20,
        max_held_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// Sets the checksum of every block that could be a header, so that damage gets past it.
fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        let sum: u32 =
            block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    fn damage_archives(
        seed in 0_usize..5,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = SEEDS[seed].clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = if seed == 4 { with_checksums(bytes) } else { bytes };
        let _ = see_within(&bytes, &limits());
        let _ = see_file(&bytes, &limits());
    }

    fn read_random_bytes(
        magic in 0_usize..6,
        rest in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let magic: &[u8] = [&b""[..], b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PK\x05\x06"][magic];
        let bytes = [magic, &rest].concat();
        let _ = Format::detect(&bytes);
        let _ = see_within(&bytes, &limits());
        let _ = see_file(&bytes, &limits());
    }
}

fn damaged_archives_are_errors_or_trees() -> Outcome {
    damage_archives();
    Ok(())
}

fn random_bytes_are_no_archive_or_a_harmless_one() -> Outcome {
    read_random_bytes();
    Ok(())
}
