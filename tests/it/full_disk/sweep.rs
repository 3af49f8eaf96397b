//! Every command at every amount of free space.
//!
//! Each cell gets a fresh copy of one store, in a loop mount on which so many bytes are left, and runs one command. No
//! signal may end it; it answers with a documented code and one document; what only reads succeeds. Afterwards the
//! checker finds nothing wrong, a rollback works on the disk as it is, and, where that space was set aside, is recorded.
//!
//! Without further words a sample runs, chosen by a seed that is printed; `TOPE_FULL_SEED=N` chooses the same one again,
//! `TOPE_FULL=N` runs N cells of each file system, `TOPE_FULL=all` every cell.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{COMMANDS, Ends, misbehaved, prepare};
use crate::checker;
use crate::support::image::{Image, Kind};
use crate::support::random::{Random, seed};
use crate::support::{Fixture, Outcome, Ran};

tests![
    ext4_with_blocks_of_1_kib,
    ext4_with_blocks_of_2_kib,
    ext4_with_blocks_of_4_kib,
    ext4_with_blocks_of_1_kib_without_a_journal,
    ext4_with_blocks_of_2_kib_without_a_journal,
    ext4_with_blocks_of_4_kib_without_a_journal,
    xfs_by_the_kib,
    btrfs_by_the_kib,
];

/// Cells of a sample, of each file system.
const SAMPLE: usize = 24;
/// Where a sample ends, on a machine that has other things to do.
const SAMPLE_TIME: Duration = Duration::from_secs(6);
/// The most that is left free.
const MOST_FREE: u64 = 64 << 10;

fn ext4_with_blocks_of_1_kib() -> Outcome {
    ext4("1024", &[])
}

fn ext4_with_blocks_of_2_kib() -> Outcome {
    ext4("2048", &[])
}

fn ext4_with_blocks_of_4_kib() -> Outcome {
    ext4("4096", &[])
}

fn ext4_with_blocks_of_1_kib_without_a_journal() -> Outcome {
    ext4("1024", &["-O", "^has_journal"])
}

fn ext4_with_blocks_of_2_kib_without_a_journal() -> Outcome {
    ext4("2048", &["-O", "^has_journal"])
}

fn ext4_with_blocks_of_4_kib_without_a_journal() -> Outcome {
    ext4("4096", &["-O", "^has_journal"])
}

/// Only with `TOPE_FULL`: the smallest image takes longer to fill than a sample may.
fn xfs_by_the_kib() -> Outcome {
    match is_asked_for() {
        true => sweep("xfs", &Image::new(Kind::Xfs, 320)?, 4096),
        false => Ok(()),
    }
}

/// As with xfs. A full btrfs may refuse a rename, so there a rollback may fail.
fn btrfs_by_the_kib() -> Outcome {
    match is_asked_for() {
        true => sweep("btrfs", &Image::with_options(Kind::Btrfs, 120, &["--mixed"])?, 4096),
        false => Ok(()),
    }
}

fn ext4(block: &str, more: &[&str]) -> Outcome {
    let options = [&["-b", block, "-m", "0", "-N", "2048"][..], more].concat();
    let what = ["ext4", block, &more.join(" ")].join(" ");
    sweep(what.trim(), &Image::with_options(Kind::Ext4, 12, &options)?, block.parse().unwrap())
}

fn is_asked_for() -> bool {
    std::env::var_os("TOPE_FULL").is_some()
}

#[allow(clippy::print_stderr, reason = "a seed that is not printed cannot be repeated")]
fn sweep(what: &str, image: &Image, block: u64) -> Outcome {
    let prepared = prepare();
    let amounts = MOST_FREE / block + 1;
    let mut cells: Vec<(u64, usize)> =
        (0..amounts).flat_map(|blocks| (0..COMMANDS.len()).map(move |command| (blocks * block, command))).collect();
    let (total, begun, limited) = (cells.len(), Instant::now(), !is_asked_for());
    let wanted = match std::env::var("TOPE_FULL").as_deref() {
        Ok("all") => total,
        Ok(number) => number.parse().expect("TOPE_FULL is a number or all"),
        Err(_) => SAMPLE,
    };
    if wanted < total {
        let seed = seed("TOPE_FULL_SEED");
        let mut random = Random(seed);
        cells = (0..wanted).map(|_| cells.swap_remove(random.below(cells.len()))).collect();
        eprintln!("full_disk::sweep {what}: a sample of {wanted} of {total} cells, TOPE_FULL_SEED={seed}");
    }
    let (mut tried, mut failures) = (0, Vec::new());
    for (free, command) in cells {
        if limited && begun.elapsed() > SAMPLE_TIME {
            break;
        }
        tried += 1;
        failures.extend(
            cell(&prepared, image, free, command, what == "btrfs")
                .err()
                .map(|why| format!("{what}, {free} free: {why}")),
        );
    }
    eprintln!("full_disk::sweep {what}: {tried} of {total} cells tried");
    assert!(failures.is_empty(), "{} of {tried} cells:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn cell(prepared: &Fixture, image: &Image, free: u64, command: usize, may_refuse: bool) -> Result<(), String> {
    let (arguments, ends) = COMMANDS[command];
    let fixture = Fixture::at(image.path("cell"));
    std::fs::create_dir(&fixture.dir).unwrap();
    let copied = Command::new("cp").arg("-a").arg(prepared.root()).arg(&fixture.dir).status().unwrap();
    assert!(copied.success());
    // A copy has no space allocated ahead for the history, until the next event.
    fixture.run(&["pin", "1.3.0"]).ok();
    // A copy has other inodes: every second index is brought up to them first, the others are behind.
    if (free / 1024 + command as u64).is_multiple_of(2) {
        fixture.run(&["list"]).ok();
    }
    let filler = image.path("filler");
    fill(image, &filler, free);
    let call = |arguments: &[&str]| {
        let mut call = Command::new(crate::support::binary());
        call.arg("--root").arg(fixture.root()).arg("--config").arg(prepared.config());
        if arguments[0] != "cat" {
            call.arg("--json");
        }
        for argument in arguments {
            match *argument {
                "SOURCE" => call.arg(prepared.beside("new")),
                "BIN" => call.arg(prepared.beside("bin")),
                other => call.arg(other),
            };
        }
        Ran::of(&call.stdin(std::process::Stdio::null()).output().unwrap())
    };
    let ends = if may_refuse && arguments[0] == "rollback" { Ends::Documented } else { ends };
    let ran = call(arguments);
    let judged = judge(&fixture, &ran, arguments, ends).and_then(|()| {
        let current = fixture.link("versions/current");
        let back = call(&["rollback", "--to", "factory"]);
        let recorded = std::fs::read_to_string(fixture.path("store/history")).unwrap_or_default();
        match () {
            () if may_refuse && matches!(back.code, 0..=9) => Ok(()),
            () if back.code != 0 => Err(format!("no rollback afterwards: {back:?}")),
            () if !fixture.path("versions/current/bin/device-api").exists() => Err("current leads nowhere".into()),
            () if current != "v1.0.0"
                && !arguments.contains(&"factory")
                && !last_event(&recorded).contains("rollback") =>
            {
                Err(format!("the rollback is not recorded: {back:?}"))
            }
            () => Ok(()),
        }
    });
    std::fs::remove_file(&filler).unwrap();
    // With room again, the index is caught up, and everything can be read.
    let judged = judged.and_then(|()| {
        let listed = call(&["list"]);
        if listed.code == 0 { judge(&fixture, &listed, &["list"], Ends::Well) } else { Err(format!("{listed:?}")) }
    });
    let _ = Command::new("chattr").args(["-R", "-i"]).arg(&fixture.dir).output();
    std::fs::remove_dir_all(&fixture.dir).unwrap();
    let _ = Command::new("find").arg(prepared.beside("bin")).args(["-type", "l", "-delete"]).status();
    judged.map_err(|why| format!("`{}`: {why}", arguments.join(" ")))
}

fn judge(fixture: &Fixture, ran: &Ran, arguments: &[&str], ends: Ends) -> Result<(), String> {
    if let Some(what) = misbehaved(ran, arguments, ends) {
        return Err(format!("{what}: {ran:?}"));
    }
    let wrong = checker::look(&fixture.root()).wrong;
    if wrong.is_empty() { Ok(()) } else { Err(format!("{ran:?} left {wrong:#?}")) }
}

fn last_event(history: &str) -> &str {
    history.trim_end_matches(['\0', '\n']).rsplit('\n').next().unwrap_or_default()
}

/// Takes all but so many bytes of a file system.
fn fill(image: &Image, filler: &Path, leave: u64) {
    let file = std::fs::File::create(filler).unwrap();
    let mut taken = 0;
    for _ in 0..6 {
        rustix::fs::syncfs(&file).unwrap();
        // Without what the file system keeps for its own use.
        let space = rustix::fs::statvfs(image.mounted()).unwrap();
        let free = space.f_bavail * space.f_frsize;
        if free <= leave {
            break;
        }
        let more = free - leave;
        // Its own extents need blocks as well, so that the last part may be refused.
        for part in [more, more / 2, more / 8, 4096, 1024] {
            let flags = rustix::fs::FallocateFlags::empty();
            if part > 0 && rustix::fs::fallocate(&file, flags, taken, part).is_ok() {
                taken += part;
                break;
            }
        }
    }
}
