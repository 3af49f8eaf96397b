//! Manifests and archives that become more than they look like, and machines with little memory.

use std::io::Write;
use std::process::Command;

use crate::support::{Fixture, Outcome, Ran, releases};

tests![
    a_manifest_that_is_a_bomb_is_refused_in_little_memory,
    a_bomb_in_the_store_that_a_repair_reads_from_is_refused,
    every_limit_on_archives_is_configured_and_named,
];

/// Address space that a command may take: what it takes anyway, and far less than the bomb becomes.
const ADDRESS_SPACE_KIB: u64 = 1 << 20;
const CLAIMED: u64 = 3 << 30;

/// A manifest of 101 KB with the beginning of a sound one, whose body is said to have 3 GiB, and has.
fn bomb(sound: &[u8]) -> Vec<u8> {
    let beginning = zstd::decode_all(&sound[52..]).unwrap();
    let mut bomb = sound[..12].to_vec();
    bomb.extend_from_slice(&CLAIMED.to_le_bytes());
    bomb.extend_from_slice(&sound[20..52]);
    // A zstd frame with a window of 128 KiB; a raw block; then blocks of one byte that is repeated.
    bomb.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]);
    let header = |length: u64, kind: u64, last: bool| ((length << 3) | (kind << 1) | u64::from(last)).to_le_bytes();
    bomb.extend_from_slice(&header(beginning.len() as u64, 0, false)[..3]);
    bomb.extend_from_slice(&beginning);
    let mut left = CLAIMED - beginning.len() as u64;
    while left > 0 {
        let block = left.min(128 << 10);
        left -= block;
        bomb.extend_from_slice(&header(block, 1, left == 0)[..3]);
        bomb.push(0);
    }
    assert!(bomb.len() < 110_000, "{}", bomb.len());
    bomb
}

/// Runs the command with little address space.
fn run_small(fixture: &Fixture, arguments: &[&str]) -> Ran {
    let command = fixture.command();
    let mut small = Command::new("sh");
    small.arg("-c").arg(format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$@\"")).arg("sh");
    small.arg(command.get_program()).args(command.get_args()).args(["--jobs", "2"]).args(arguments);
    Ran::of(&small.output().unwrap())
}

/// Such a manifest made `list` take 3.1 GiB.
fn a_manifest_that_is_a_bomb_is_refused_in_little_memory() -> Outcome {
    let fixture = releases(3);
    fixture.run(&["activate", "1.2.0"]).ok();
    let path = fixture.path("store/manifests/v1.1.0");
    let bomb = bomb(&std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bomb).unwrap();
    let source = fixture.beside("source");
    let source = source.to_str().unwrap();
    for (arguments, code, names_it) in [
        (&["list"][..], 0, false),
        (&["status"], 0, false),
        (&["show", "1.0.0"], 0, false),
        (&["du"], 5, true),
        (&["rebuild-index"], 0, false),
        (&["import", source, "--version", "1.2.0"], 0, false),
        (&["verify"], 5, true),
        (&["gc", "--keep-last", "1"], 4, true),
        (&["activate", "1.0.0"], 0, false),
        (&["rollback", "--to", "1.1.0", "--not-bad"], 0, true),
    ] {
        let ran = run_small(&fixture, arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        let all = ran.stdout + &ran.stderr;
        assert!(!names_it || all.contains(&format!("it claims {CLAIMED} bytes, more than ")), "{arguments:?}: {all}");
    }
    let ran = run_small(&fixture, &["verify", "--repair"]);
    assert!([0, 5].contains(&ran.code), "{ran:?}");
    Ok(())
}

fn a_bomb_in_the_store_that_a_repair_reads_from_is_refused() -> Outcome {
    let (fixture, other) = (releases(2), releases(2));
    let path = other.path("store/manifests/v1.1.0");
    let bytes = bomb(&std::fs::read(&path).unwrap());
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(fixture.path("store/manifests/v1.0.0")).unwrap();
    std::fs::write(fixture.path("store/manifests/v1.1.0"), "damaged").unwrap();
    let from = other.root();
    let ran = run_small(&fixture, &["verify", "--repair", "--from", from.to_str().unwrap()]);
    assert!([0, 5].contains(&ran.code), "{ran:?}");
    Ok(())
}

fn archive(members: u32, bytes: usize) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    // One byte in 64 cannot be foretold: no bomb, and much smaller when compressed.
    let noise =
        |at: usize| if at.is_multiple_of(64) { ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8 } else { 0 };
    let contents: Vec<u8> = (0..bytes).map(noise).collect();
    for number in 0..members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("a-file-with-a-long-name-{number:06}"), &contents[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn every_limit_on_archives_is_configured_and_named() -> Outcome {
    let fixture = Fixture::new();
    let mut large = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    large.window_log(24).unwrap();
    large.write_all(&archive(1, 66 << 20)).unwrap();
    let large = large.finish().unwrap();
    for (name, bytes) in [("many.tar", archive(100, 10)), ("large.tar.zst", large)] {
        std::fs::write(fixture.beside(name), bytes).unwrap();
    }
    for (archive, limit, value) in [
        ("many.tar", "total_bytes = \"1kB\"", "1000"),
        ("many.tar", "entries = 99", "99"),
        ("many.tar", "held_bytes = \"2kB\"", "2000"),
        ("large.tar.zst", "ratio = 3", "3"),
        ("large.tar.zst", "decoder_memory = \"1MiB\"", "1.00 MiB"),
    ] {
        let source = fixture.beside(archive);
        let import = ["import", source.to_str().unwrap(), "--version", "1", "--dry-run"];
        std::fs::write(fixture.config(), format!("[import.limits]\n{limit}\n")).unwrap();
        let ran = fixture.run(&import);
        let key = limit.split(' ').next().unwrap();
        assert!(ran.code != 0 && ran.stderr.contains(&format!("import.limits.{key}")), "{limit}: {ran:?}");
        assert!(ran.stderr.contains(value), "{limit}: {ran:?}");
        std::fs::write(fixture.config(), "").unwrap();
        fixture.run(&import).ok();
    }
    Ok(())
}
