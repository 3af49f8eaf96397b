//! Archives that are hostile or broken: nothing of them stays, nothing is written outside.

use super::{Traces, arguments, assert_no_litter, error_of, import, shell};
use crate::support::{Fixture, Outcome, needs_program, tree};

tests![
    hostile_members_are_refused_by_path_and_leave_nothing,
    a_member_behind_a_link_out_of_the_tree_is_refused,
    truncated_archives_leave_nothing,
    corrupt_archives_leave_nothing,
    what_follows_the_end_is_said_of_the_archive,
    what_another_program_packed_is_told_with_that_program,
    a_bomb_is_refused,
    a_zip_cannot_come_through_a_pipe,
    what_is_no_archive_is_an_error,
    an_archive_over_an_existing_version_writes_nothing,
    a_failing_disk_is_told_as_it_is,
];

/// A tar made by hand, header by header.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn member(mut self, kind: u8, name: &str, target: &str, data: &[u8]) -> Self {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", data.len()).as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(b'0', name, "", data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A beginning with honest members, small and big, so that something is on its way when the hostile one comes.
fn honest() -> Tar {
    Tar::default().file("one", b"1").file("pkg/two.py", b"print(2)\n").file("big", &vec![7; 3 << 20])
}

fn prepared() -> (Fixture, Traces) {
    let fixture = Fixture::new();
    tree::release(fixture.beside("old"), 1);
    fixture.import("old", "0.1");
    let before = Traces::of(&fixture);
    (fixture, before)
}

fn hostile_members_are_refused_by_path_and_leave_nothing() -> Outcome {
    let (fixture, before) = prepared();
    let cases = [
        (honest().file("../evil", b"x"), "../evil"),
        (honest().file("a/../../evil", b"x"), "a/../../evil"),
        (honest().file("/etc/evil", b"x"), "/etc/evil"),
        (honest().file("one", b"x"), "one"),
        (honest().member(b'1', "hard", "/etc/passwd", b""), "/etc/passwd"),
        (honest().member(b'1', "hard", "../../etc/passwd", b""), "../../etc/passwd"),
        (honest().member(b'1', "hard", "later", b"").file("later", b"x"), "hard"),
        (honest().member(b'2', "one/under", "x", b""), "one/under"),
        (honest().file("one/under", b"x"), "one/under"),
        (honest().member(b'2', "link", "", b""), "link"),
        (honest().file(&format!("{}/x", "n".repeat(90)).replace("/x", "/\u{1}"), b"x").file("", b"x"), ""),
    ];
    for (tar, path) in cases {
        let bytes = tar.end();
        let ran = fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(4);
        let message = error_of(&ran, "unsafe-archive");
        assert!(message.contains(path), "{path}: {message}");
        before.expect_unchanged(&fixture);
        std::fs::write(fixture.beside("a.tar"), &bytes).unwrap();
        import(&fixture, fixture.beside("a.tar"), "1.0", &[]).expect(4);
        before.expect_unchanged(&fixture);
    }
    for kind in [b'3', b'4'] {
        let tar = honest().member(kind, "dev/console", "", b"").end();
        let message =
            error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &tar).expect(4), "unsupported-source");
        assert!(message.contains("dev/console"), "{message}");
        before.expect_unchanged(&fixture);
    }
    assert!(!fixture.beside("evil").exists());
    Ok(())
}

fn a_member_behind_a_link_out_of_the_tree_is_refused() -> Outcome {
    let (fixture, before) = prepared();
    let outside = fixture.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let tar = honest().member(b'2', "out", outside.to_str().unwrap(), b"").file("out/evil", b"x").end();
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &tar).expect(4), "unsafe-archive");
    assert!(message.contains("out/evil"), "{message}");
    before.expect_unchanged(&fixture);
    assert_eq!(super::names_in(&outside), [""; 0]);
    // The link alone is kept as it is, and said.
    let tar = honest().member(b'2', "out", outside.to_str().unwrap(), b"").end();
    let report = fixture.run_with_input(&arguments("-", "1.0", &[]), &tar).ok().json();
    assert_eq!(report["warnings"][0]["kind"], "link-leaves-tree");
    assert_eq!(fixture.link("versions/v1.0/out"), outside.to_str().unwrap());
    assert_no_litter(&fixture);
    Ok(())
}

/// A tar of a release in every compression that this machine can make.
fn compressed(fixture: &Fixture) -> Vec<(&'static str, Vec<u8>)> {
    let source = fixture.beside("archived");
    tree::release(&source, 3);
    // Bytes that do not compress, so that a cut is in the midst of them.
    let noise: Vec<u8> = (0..400_000_u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    tree::file(source.join("noise"), noise);
    let tar = "tar --sort=name --numeric-owner -cf - .";
    let mut all = vec![("tar", shell(&source, tar))];
    for program in ["gzip", "xz", "zstd"] {
        if needs_program(program).is_ok() {
            all.push((program, shell(&source, &format!("{tar} | {program} -c"))));
        }
    }
    if needs_program("zip").is_ok() {
        shell(&source, "zip -qry ../archived.zip .");
        all.push(("zip", std::fs::read(fixture.beside("archived.zip")).unwrap()));
    }
    all
}

fn truncated_archives_leave_nothing() -> Outcome {
    let (fixture, before) = prepared();
    for (format, bytes) in compressed(&fixture) {
        let mut cuts: Vec<usize> = [1, 3, 50, 95].iter().map(|percent| bytes.len() * percent / 100).collect();
        // A tar's last blocks are padding; what is compressed needs its very last byte.
        if format != "tar" {
            cuts.push(bytes.len() - 1);
        }
        for cut in cuts {
            let path = fixture.beside("cut");
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let message = error_of(&import(&fixture, &path, "1.0", &[]).expect(1), "source");
            before.expect_unchanged(&fixture);
            assert!(!message.contains("interrupted"), "{format} {cut}: {message}");
            if format != "zip" {
                fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes[..cut]).expect(1);
                before.expect_unchanged(&fixture);
            }
        }
    }
    Ok(())
}

fn corrupt_archives_leave_nothing() -> Outcome {
    let (fixture, before) = prepared();
    for (format, bytes) in compressed(&fixture) {
        // A tar has checksums of its headers only.
        let at = if format == "tar" { 2 } else { bytes.len() / 2 };
        let mut bytes = bytes;
        bytes[at] ^= 0x55;
        let path = fixture.beside("corrupt");
        std::fs::write(&path, &bytes).unwrap();
        let ran = import(&fixture, &path, "1.0", &[]);
        assert!(matches!(ran.code, 1 | 4), "{format}: {ran:?}");
        ran.json();
        before.expect_unchanged(&fixture);
    }
    Ok(())
}

fn what_follows_the_end_is_said_of_the_archive() -> Outcome {
    let (fixture, before) = prepared();
    for (format, mut bytes) in compressed(&fixture).into_iter().filter(|(format, _)| *format != "zip") {
        bytes.extend(b"Connection closed by foreign host.\n");
        let path = fixture.beside("followed");
        std::fs::write(&path, &bytes).unwrap();
        let message = error_of(&import(&fixture, &path, "1.0", &[]).expect(1), "source");
        assert!(message.contains("/followed: ") && message.contains("follows"), "{format}: {message}");
        let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(1), "source");
        assert!(message.contains("standard input: ") && message.contains("follows"), "{format}: {message}");
        before.expect_unchanged(&fixture);
    }
    Ok(())
}

fn what_another_program_packed_is_told_with_that_program() -> Outcome {
    for program in ["bzip2", "zstd"] {
        needs_program(program)?;
    }
    let (fixture, before) = prepared();
    let beside = fixture.beside(".");
    let bytes = shell(&beside, "tar -cf - release | bzip2");
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(1), "source");
    assert!(message.contains("bzip2 -dc FILE | tope-store import -"), "{message}");
    // A window that the program itself asks to be allowed.
    let bytes = shell(&beside, "head -c 150M /dev/zero >wide; tar -cf - wide | zstd -q -1 --long=28");
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(4), "unsafe-archive");
    assert!(
        message.contains("128 MiB") && message.contains("zstd --long=31 -dc FILE | tope-store import -"),
        "{message}"
    );
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_bomb_is_refused() -> Outcome {
    needs_program("zstd")?;
    let (fixture, before) = prepared();
    // 300 MB of zeros in a few kilobytes.
    let bomb = shell(&fixture.beside("."), "truncate -s 300M zeros; tar -cf - zeros | zstd -19 -c");
    assert!(bomb.len() < 100_000);
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bomb).expect(4), "unsafe-archive");
    assert!(message.contains("bomb"), "{message}");
    before.expect_unchanged(&fixture);
    // One that only declares too much.
    let mut declares = Tar::default().file("huge", b"x").end();
    declares[124..136].copy_from_slice(b"777777777777");
    let sum: u32 = declares[..512]
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
        .sum();
    declares[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let ran = fixture.run_with_input(&arguments("-", "1.0", &[]), &declares);
    assert!(matches!(ran.code, 1 | 4), "{ran:?}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_zip_cannot_come_through_a_pipe() -> Outcome {
    needs_program("zip")?;
    let (fixture, before) = prepared();
    let zip = shell(&fixture.beside("old"), "zip -qr - .");
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &zip).expect(2), "usage");
    assert!(message.contains("zip"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn what_is_no_archive_is_an_error() -> Outcome {
    let (fixture, before) = prepared();
    for bytes in [&b""[..], b"hello", &[0x1f, 0x8b, 8], &[0; 500], &[0xff; 5000]] {
        std::fs::write(fixture.beside("a"), bytes).unwrap();
        let ran = import(&fixture, fixture.beside("a"), "1.0", &[]);
        assert!(matches!(ran.code, 1 | 4) && ran.stdout.contains(&*fixture.beside("a").to_string_lossy()), "{ran:?}");
        before.expect_unchanged(&fixture);
    }
    Ok(())
}

fn an_archive_over_an_existing_version_writes_nothing() -> Outcome {
    let (fixture, before) = prepared();
    let same = shell(&fixture.beside("old"), "tar -cf - .");
    let report = fixture.run_with_input(&arguments("-", "0.1", &[]), &same).ok().json();
    assert_eq!((&report["already_there"], &report["new_objects"]), (&true.into(), &0.into()));
    let other = honest().end();
    error_of(&fixture.run_with_input(&arguments("-", "0.1", &[]), &other).expect(4), "exists");
    before.expect_unchanged(&fixture);
    Ok(())
}

/// A helping thread that cannot write must not end as "interrupted".
fn a_failing_disk_is_told_as_it_is() -> Outcome {
    let (fixture, before) = prepared();
    std::fs::write(fixture.beside("a.tar"), honest().end()).unwrap();
    let fail = ["-e", "trace=linkat", "-e", "inject=linkat:error=EIO:when=3+"];
    let child = super::traced(&fixture, &fail, &arguments(fixture.beside("a.tar"), "1.0", &[]))?.spawn().unwrap();
    let message = error_of(&super::finish(child).expect(1), "io");
    assert!(message.contains("Input/output error"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}
