//! What comes back, and that a full disk is no obstacle.

use std::os::unix::fs::MetadataExt;

use tope_store::model::Action;

use super::{current, decided, entries, names, store, versions, with_versions};
use crate::support::image::{Image, Kind, bytes_free, fill};
use crate::support::{Fixture, Outcome, needs_program, tree};

tests![
    what_no_version_needs_goes_and_is_told_apart,
    bytes_that_are_linked_or_held_elsewhere_do_not_count,
    free_takes_the_oldest_until_enough_comes_back,
    the_bytes_that_were_told_come_back,
    where_blocks_may_be_shared_it_says_up_to,
    a_disk_without_a_free_block_or_inode_is_no_obstacle,
];

fn what_no_version_needs_goes_and_is_told_apart() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 1);
    let orphan = format!("store/objects/ab/{}.0444.0.0", "cd".repeat(31));
    tree::file(fixture.path(&orphan), vec![1; 20_000]);
    tree::file(fixture.path("store/objects/ab/garbage"), vec![1; 5_000]);
    tree::file(fixture.path("store/staging/run-1-0/tree/x"), vec![1; 30_000]);
    // A name of a live object, which keeps its inode.
    let object = fixture.path("versions/v1.1.0/lib/common.so");
    std::fs::hard_link(object, fixture.path("store/staging/run-1-0/tree/y")).unwrap();
    tree::file(fixture.path("store/trash/v0.1.0.9/x"), vec![1; 40_000]);
    for mode in [&["gc", "--keep-last", "9", "-n"][..], &["gc", "--keep-last", "9"]] {
        let report = fixture.json(mode);
        assert_eq!(names(&report, "removed"), Vec::<String>::new());
        assert_eq!((&report["orphan_objects"], &report["leftovers"]), (&1.into(), &2.into()));
        let block = |bytes: u64| bytes.next_multiple_of(4096);
        assert_eq!(report["orphan_bytes"], block(20_000) + block(5_000));
        // Their three directories besides.
        assert_eq!(report["leftover_bytes"], block(30_000) + block(40_000) + 3 * 4096);
        assert_eq!(
            report["freed_bytes"].as_u64(),
            Some(report["orphan_bytes"].as_u64().unwrap() + report["leftover_bytes"].as_u64().unwrap())
        );
    }
    assert!(!fixture.path(orphan).exists());
    assert_eq!((entries(fixture.path("store/staging")), entries(fixture.path("store/trash"))), (0, 0));
    tree::assert_same(&fixture.beside("source-1"), &fixture.path("versions/v1.1.0"));
    Ok(())
}

fn bytes_that_are_linked_or_held_elsewhere_do_not_count() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    let own = fixture.path("versions/v1.1.0/lib/own");
    let freed = |fixture: &Fixture| fixture.json(&["gc", "--keep-last", "1", "-n"])["freed_bytes"].as_u64().unwrap();
    let all = freed(&fixture);
    let bytes = std::fs::metadata(&own).unwrap().blocks() * 512;
    std::fs::hard_link(&own, fixture.beside("kept")).unwrap();
    assert_eq!(freed(&fixture), all - bytes);
    std::fs::remove_file(fixture.beside("kept")).unwrap();
    assert_eq!(freed(&fixture), all);
    // Held by a name that is gone: it uses no version, and its blocks stay until it is closed.
    std::fs::hard_link(&own, fixture.beside("kept")).unwrap();
    let held = std::fs::File::open(fixture.beside("kept")).unwrap();
    std::fs::remove_file(fixture.beside("kept")).unwrap();
    let report = fixture.json(&["gc", "--keep-last", "1", "-n"]);
    assert_eq!(names(&report, "removed"), Vec::<String>::new(), "whose inode a process holds is in use");
    drop(held);
    assert_eq!(freed(&fixture), all);
    Ok(())
}

fn free_takes_the_oldest_until_enough_comes_back() -> Outcome {
    let fixture = Fixture::new();
    with_versions(&fixture, 5);
    let one = fixture.json(&["gc", "--free", "1"]);
    assert_eq!((names(&one, "removed"), &one["wanted_bytes"]), (vec!["v1.1.0".to_owned()], &1.into()));
    let wanted = (one["freed_bytes"].as_u64().unwrap() + 1).to_string();
    let two = fixture.json(&["gc", "--free", &wanted]);
    assert_eq!(names(&two, "removed"), ["v1.2.0", "v1.3.0"]);
    assert_eq!(decided(&two, "kept")[0].1, ["enough-is-freed"]);
    tree::file(fixture.path("store/staging/run-1-0/tree/x"), vec![1; 3_000_000]);
    let none = fixture.json(&["gc", "--free", "1MiB"]);
    assert_eq!(names(&none, "removed"), Vec::<String>::new(), "what no version needs is enough");
    Ok(())
}

/// Blocks of the store's own files, which grow with events and rows whatever is removed.
fn own_blocks(fixture: &Fixture) -> u64 {
    let files = ["history", "index.db", "index.db-journal", "reserve"];
    files.iter().filter_map(|file| Some(std::fs::metadata(fixture.path("store").join(file)).ok()?.blocks() * 512)).sum()
}

/// Measured on a file system of its own, with everything written back. What the history and the index take or give is
/// counted apart; beside that not a block may differ.
fn the_bytes_that_were_told_come_back() -> Outcome {
    let image = Image::new(Kind::Ext4, 64)?;
    let fixture = Fixture::in_dir(image.mounted());
    with_versions(&fixture, 6);
    // Private copies, links within a tree, metadata variants, long symbolic links.
    std::fs::write(fixture.config(), "[import]\nprivate = [\"lib/own\"]\n").unwrap();
    let source = fixture.beside("source-7");
    tree::release(&source, 7);
    tree::file(source.join("lib/own"), vec![77; 200_000]);
    tree::program(source.join("lib/variant"), vec![7_u8; 100_000]);
    std::fs::hard_link(source.join("lib/own"), source.join("lib/own-too")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), source.join("long")).unwrap();
    fixture.import("source-7", "1.7.0");
    current(&fixture, "v1.1.0");
    let free = || {
        rustix::fs::syncfs(std::fs::File::open(image.mounted()).unwrap()).unwrap();
        bytes_free(&image.mounted())
    };
    let told = fixture.json(&["gc", "--free", "1GiB", "-n"])["freed_bytes"].as_u64().unwrap();
    for arguments in [&["remove", "1.7.0", "1.4.0"][..], &["gc", "--free", "1GiB"]] {
        let (before, own) = (free(), own_blocks(&fixture));
        let done = fixture.json(arguments)["freed_bytes"].as_u64().unwrap();
        let (after, own_after) = (free(), own_blocks(&fixture));
        assert_eq!(after + own_after - before - own, done, "{arguments:?}");
        assert!(done > 200_000 && done < told, "{done} of {told}");
    }
    assert_eq!(versions(&fixture), ["current", "v1.1.0"]);
    Ok(())
}

fn a_disk_without_a_free_block_or_inode_is_no_obstacle() -> Outcome {
    needs_program("mkfs.ext4")?;
    for reserve in [true, false] {
        let image = Image::with_options(Kind::Ext4, 32, &["-m", "0", "-N", "600"])?;
        let fixture = Fixture::in_dir(image.mounted());
        with_versions(&fixture, 5);
        current(&fixture, "v1.5.0");
        if !reserve {
            std::fs::remove_file(fixture.path("store/reserve")).unwrap();
        }
        fill(&image.mounted());
        let told = fixture.json(&["gc", "--keep-last", "2", "-n"]);
        let done = fixture.json(&["gc", "--keep-last", "2"]);
        assert_eq!(told["freed_bytes"], done["freed_bytes"]);
        assert_eq!(names(&done, "removed"), ["v1.1.0", "v1.2.0", "v1.3.0"]);
        std::fs::write(image.path("room"), vec![1; 200_000]).unwrap();
        tree::assert_same(&fixture.beside("source-4"), &fixture.path("versions/v1.4.0"));
        let history = store(&fixture).history().unwrap().read().unwrap();
        let removals = history.trusted().filter(|event| event.action == Action::Remove).count();
        assert_eq!((removals, history.state.is_trustworthy()), (3, true));
        let asides = std::fs::metadata(fixture.path("store/reserve")).map_or(0, |file| file.blocks());
        assert!(!reserve || asides > 0, "the reserve was not set aside again");
    }
    Ok(())
}

fn where_blocks_may_be_shared_it_says_up_to() -> Outcome {
    for (kind, up_to) in [(Kind::Ext4, false), (Kind::Xfs, true), (Kind::Btrfs, true)] {
        let image = Image::new(kind, 320)?;
        let fixture = Fixture::in_dir(image.mounted());
        with_versions(&fixture, 3);
        let told = fixture.json(&["gc", "--keep-last", "1", "-n"]);
        let done = fixture.json(&["gc", "--keep-last", "1"]);
        assert_eq!((&told["up_to"], &done["up_to"]), (&up_to.into(), &up_to.into()), "{kind:?}");
        assert_eq!(told["freed_bytes"], done["freed_bytes"]);
        let text = fixture.run(&["remove", "-n", "1.3.0"]).ok().stdout;
        assert_eq!(text.contains("up to"), up_to, "{text}");
    }
    Ok(())
}
