//! Disks that are full, or fill up meanwhile.

use super::{Traces, arguments, error_of, finish, import, shell, traced, wait_until_it_reads};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, tree};

tests![
    too_few_bytes_are_told_before_anything_moves,
    too_few_inodes_are_told_before_anything_moves,
    a_release_that_is_there_already_needs_no_room,
    a_stream_that_does_not_fit_leaves_nothing,
    the_minimum_to_keep_free_is_kept,
    a_disk_that_fills_up_meanwhile_leaves_nothing,
];

/// A small disk with a store and one version; sources lie elsewhere.
fn small(mebibytes: u64, options: &[&str]) -> Result<(Image, Fixture, Fixture), crate::support::Skipped> {
    let image = Image::with_options(Kind::Ext4, mebibytes, options)?;
    let fixture = Fixture::in_dir(image.path(""));
    let sources = Fixture::bare();
    tree::release(sources.beside("old"), 1);
    import(&fixture, sources.beside("old"), "0.1", &[]).ok();
    Ok((image, fixture, sources))
}

fn too_few_bytes_are_told_before_anything_moves() -> Outcome {
    let (_image, fixture, sources) = small(12, &[])?;
    tree::file(sources.beside("big/file"), vec![5; 30 << 20]);
    let before = Traces::of(&fixture);
    for more in [&[][..], &["--dry-run"]] {
        let message = error_of(&import(&fixture, sources.beside("big"), "1.0", more).expect(1), "no-space");
        assert!(message.contains("not enough room") && message.contains("tope-store gc --free"), "{message}");
        before.expect_unchanged(&fixture);
    }
    // The shortfall is exact enough to act upon.
    let message = error_of(&import(&fixture, sources.beside("big"), "1.0", &[]).expect(1), "no-space");
    let hinted: u64 = message.rsplit("--free ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((18 << 20..32 << 20).contains(&hinted), "{message}");
    Ok(())
}

fn too_few_inodes_are_told_before_anything_moves() -> Outcome {
    let (_image, fixture, sources) = small(12, &["-N", "200"])?;
    shell(&sources.beside("."), "mkdir many; cd many; for i in $(seq 400); do echo $i >$i; done");
    let before = Traces::of(&fixture);
    let message = error_of(&import(&fixture, sources.beside("many"), "1.0", &[]).expect(1), "no-space");
    assert!(message.contains("inodes"), "{message}");
    before.expect_unchanged(&fixture);
    // Four hundred names of one content need one inode.
    shell(&sources.beside("."), "mkdir equal; cd equal; for i in $(seq 400); do echo same >$i; done");
    import(&fixture, sources.beside("equal"), "1.1", &[]).ok();
    Ok(())
}

fn a_release_that_is_there_already_needs_no_room() -> Outcome {
    let (_image, fixture, sources) = small(16, &[])?;
    tree::file(sources.beside("big/file"), vec![5; 8 << 20]);
    import(&fixture, sources.beside("big"), "1.0", &[]).ok();
    // Twice does not fit, and need not.
    tree::file(sources.beside("big/new"), "new");
    import(&fixture, sources.beside("big"), "1.1", &[]).ok();
    tree::assert_same(&sources.beside("big"), &fixture.path("versions/v1.1"));
    Ok(())
}

fn a_stream_that_does_not_fit_leaves_nothing() -> Outcome {
    let (_image, fixture, sources) = small(12, &[])?;
    for number in 0..40 {
        tree::file(sources.beside(format!("s/{number}")), vec![number; 900 << 10]);
    }
    let bytes = shell(&sources.beside("s"), "tar -cf - .");
    let before = Traces::of(&fixture);
    let message = error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(1), "no-space");
    assert!(message.contains("gc"), "{message}");
    before.expect_unchanged(&fixture);
    import(&fixture, sources.beside("old"), "0.2", &[]).ok();
    Ok(())
}

fn the_minimum_to_keep_free_is_kept() -> Outcome {
    let (_image, fixture, sources) = small(20, &[])?;
    tree::file(sources.beside("some/file"), vec![5; 2 << 20]);
    std::fs::write(fixture.config(), "[import]\nmin_free = \"1GiB\"\n").unwrap();
    let before = Traces::of(&fixture);
    let message = error_of(&import(&fixture, sources.beside("some"), "1.0", &[]).expect(1), "no-space");
    assert!(message.contains("minimum of 1073741824 bytes"), "{message}");
    let bytes = shell(&sources.beside("some"), "tar -cf - .");
    error_of(&fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).expect(1), "no-space");
    before.expect_unchanged(&fixture);
    std::fs::write(fixture.config(), "[import]\nmin_free = \"1MiB\"\n").unwrap();
    import(&fixture, sources.beside("some"), "1.0", &[]).ok();
    Ok(())
}

fn a_disk_that_fills_up_meanwhile_leaves_nothing() -> Outcome {
    let (_image, fixture, sources) = small(24, &[])?;
    tree::file(sources.beside("some/a"), vec![1; 6 << 20]);
    tree::file(sources.beside("some/b"), vec![2; 6 << 20]);
    tree::file(sources.beside("some/small"), "small");
    let source = sources.beside("some");
    for archive in [false, true] {
        let mut given = source.clone();
        if archive {
            shell(&source, "tar -cf ../a.tar .");
            given = sources.beside("a.tar");
        }
        let before = Traces::of(&fixture);
        let slow = ["-e", "trace=write", "-e", "inject=write:delay_exit=150000:when=1+1"];
        let child = traced(&fixture, &slow, &arguments(&given, "1.0", &[]))?.spawn().unwrap();
        wait_until_it_reads(&fixture);
        // Somebody else takes what was free when the import looked.
        let filler = fixture.beside("filler");
        shell(&fixture.beside("."), "cat /dev/zero >filler 2>/dev/null || true");
        let message = error_of(&finish(child).expect(1), "no-space");
        assert!(message.contains("gc"), "{message}");
        std::fs::remove_file(filler).unwrap();
        before.expect_unchanged(&fixture);
    }
    import(&fixture, &source, "1.0", &[]).ok();
    Ok(())
}
