//! Sources on other file systems: a reading may stand for bytes only where this kernel set the change time of every
//! write since, on the very mount that the file was read from.
//!
//! Two reproducible images hold a file with one name, inode number, size and time, and other bytes. Mounted one after
//! the other at one place, the second was imported with the bytes of the first.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::import;
use crate::support::image::{Image, Kind, run};
use crate::support::{Fixture, Outcome, Skipped, needs_program, needs_root, tree};

tests![
    a_second_read_only_image_at_one_place_is_read,
    a_repair_reads_its_source,
    a_mount_in_the_middle_of_a_source_is_read,
    bytes_that_changed_while_unmounted_are_read,
    a_copy_with_the_same_identifiers_is_read,
    nothing_stands_for_bytes_on_read_only_mounts,
    nothing_stands_for_bytes_where_times_are_made_up,
    an_unchanged_source_is_not_read_where_this_kernel_sets_the_times,
    a_mount_is_known_from_the_second_import_on,
    an_older_kernel_remembers_only_the_stores_own_file_system,
    the_stores_own_medium_is_known_by_an_older_kernel_when_it_comes_again,
    files_of_two_subvolumes_are_not_taken_for_each_other,
];

/// Something mounted somewhere; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], what: impl AsRef<std::ffi::OsStr>, place: &Path) -> Result<Self, Skipped> {
        needs_root()?;
        run(Command::new("mount").args(options).arg(what.as_ref()).arg(place))?;
        Ok(Self(place.to_owned()))
    }

    fn unmount(self) -> Outcome {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        // A program that another test is just starting holds copies of our files until it is itself.
        while let Err(Skipped(why)) = run(Command::new("umount").arg(&self.0)) {
            assert!(why.contains("busy") && std::time::Instant::now() < until, "{why}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A file that changed within the last two seconds is read again in any case.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

/// A read-only image that holds one file, made so that two differ in nothing but its bytes.
fn squashfs(fixture: &Fixture, name: &str, bytes: &str) -> Result<PathBuf, Skipped> {
    needs_program("mksquashfs")?;
    let (source, image) = (fixture.beside(format!("{name}-source")), fixture.beside(format!("{name}.squashfs")));
    tree::file(source.join("app"), bytes);
    let times = ["-all-root", "-all-time", "1700000000", "-mkfs-time", "1700000000", "-quiet", "-no-progress"];
    run(Command::new("mksquashfs").args([&source, &image]).args(times))?;
    Ok(image)
}

/// A directory for mounts.
fn place(fixture: &Fixture) -> PathBuf {
    let place = fixture.beside("source");
    std::fs::create_dir_all(&place).unwrap();
    place
}

/// Files that an import did not read, and all its files.
#[track_caller]
fn unread(fixture: &Fixture, source: &Path, version: &str) -> (u64, u64) {
    unread_by(fixture.command(), source, version)
}

#[track_caller]
fn unread_by(mut command: Command, source: &Path, version: &str) -> (u64, u64) {
    command.args(super::arguments(source, version, &[]));
    let report = crate::support::Ran::of(&command.output().expect("the binary runs")).ok().json();
    (report["unread_files"].as_u64().unwrap(), report["files"].as_u64().unwrap())
}

/// As a kernel before 6.8 does, a mount has no identifier that is never given again.
fn on_an_older_kernel(fixture: &Fixture) -> Result<Command, Skipped> {
    if !cfg!(debug_assertions) {
        return Err(Skipped("needs a build with debug assertions".into()));
    }
    let mut command = fixture.command();
    command.env("TOPE_MUTATION", "no-mount-id");
    Ok(command)
}

/// Writes other bytes over a file of an ext4 image that is not mounted. Nothing else of it changes: no size, no time.
fn change_beneath(image: &Path, path: &str, bytes: &[u8]) -> Outcome {
    needs_program("debugfs")?;
    let ask = |request: &str| {
        let output = Command::new("debugfs").args(["-R", request]).arg(image).output().expect("debugfs runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let block: u64 = ask(&format!("blocks /{path}")).trim().parse().expect("one block");
    let size = ask("stats").lines().find_map(|line| line.strip_prefix("Block size:")?.trim().parse::<u64>().ok());
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(bytes, block * size.expect("a block size")).unwrap();
    file.sync_all().unwrap();
    Ok(())
}

#[track_caller]
fn holds(fixture: &Fixture, version: &str, bytes: &str) {
    assert_eq!(std::fs::read_to_string(fixture.path(format!("versions/v{version}/app"))).unwrap(), bytes);
}

fn a_second_read_only_image_at_one_place_is_read() -> Outcome {
    let fixture = Fixture::new();
    let (place, one, two) = (place(&fixture), squashfs(&fixture, "one", "one\n")?, squashfs(&fixture, "two", "two\n")?);
    let mounted = Mounted::new(&["-o", "loop"], &one, &place)?;
    import(&fixture, &place, "1.0", &[]).ok();
    mounted.unmount()?;
    let mounted = Mounted::new(&["-o", "loop"], &two, &place)?;
    let differences = fixture.json(&["diff".as_ref(), "1.0".as_ref(), place.as_os_str()]);
    assert_eq!(differences["changes"][0]["path"], "app", "{differences:#}");
    import(&fixture, &place, "1.1", &[]).ok();
    holds(&fixture, "1.1", "two\n");
    mounted.unmount()
}

/// What was read of one image is no proof that another has it.
fn a_repair_reads_its_source() -> Outcome {
    let fixture = Fixture::new();
    let (place, one, two) = (place(&fixture), squashfs(&fixture, "one", "one\n")?, squashfs(&fixture, "two", "two\n")?);
    let mounted = Mounted::new(&["-o", "loop"], &one, &place)?;
    import(&fixture, &place, "1.0", &[]).ok();
    mounted.unmount()?;
    for lost in [super::object_of(&fixture, "versions/v1.0/app"), fixture.path("versions/v1.0/app")] {
        std::fs::remove_file(lost).unwrap();
    }
    let repair = |code| {
        fixture.run(&["verify".as_ref(), "--repair".as_ref(), "--from".as_ref(), place.as_os_str()]).expect(code);
    };
    let mounted = Mounted::new(&["-o", "loop"], &two, &place)?;
    repair(5);
    assert!(!fixture.path("versions/v1.0/app").exists());
    mounted.unmount()?;
    let mounted = Mounted::new(&["-o", "loop"], &one, &place)?;
    repair(0);
    holds(&fixture, "1.0", "one\n");
    mounted.unmount()
}

fn a_mount_in_the_middle_of_a_source_is_read() -> Outcome {
    let fixture = Fixture::new();
    let (one, two) = (squashfs(&fixture, "one", "one\n")?, squashfs(&fixture, "two", "two\n")?);
    let source = fixture.beside("source");
    tree::release(&source, 1);
    std::fs::create_dir(source.join("image")).unwrap();
    settle();
    for (version, image, bytes) in [("1.0", &one, "one\n"), ("1.1", &two, "two\n")] {
        let mounted = Mounted::new(&["-o", "loop"], image, &source.join("image"))?;
        import(&fixture, &source, version, &[]).ok();
        let imported = std::fs::read_to_string(fixture.path(format!("versions/v{version}/image/app")));
        assert_eq!(imported.unwrap(), bytes);
        mounted.unmount()?;
    }
    Ok(())
}

/// An ext4 image with one file, `app`, that holds `one`.
fn image() -> Result<Image, Skipped> {
    let image = Image::new(Kind::Ext4, 16)?;
    std::fs::write(image.path("app"), "one\n").unwrap();
    Ok(image)
}

fn bytes_that_changed_while_unmounted_are_read() -> Outcome {
    let (fixture, image) = (Fixture::new(), image()?);
    settle();
    import(&fixture, image.mounted(), "1.0", &[]).ok();
    image.unmount()?;
    change_beneath(&image.file(), "app", b"two\n")?;
    image.mount(&["loop"])?;
    import(&fixture, image.mounted(), "1.1", &[]).ok();
    holds(&fixture, "1.1", "two\n");
    Ok(())
}

fn a_copy_with_the_same_identifiers_is_read() -> Outcome {
    let (fixture, image) = (Fixture::new(), image()?);
    image.unmount()?;
    let copy = fixture.beside("copy");
    std::fs::copy(image.file(), &copy).unwrap();
    change_beneath(&copy, "app", b"two\n")?;
    settle();
    image.mount(&["loop"])?;
    import(&fixture, image.mounted(), "1.0", &[]).ok();
    image.unmount()?;
    let mounted = Mounted::new(&["-o", "loop"], &copy, &image.mounted())?;
    import(&fixture, image.mounted(), "1.1", &[]).ok();
    holds(&fixture, "1.0", "one\n");
    holds(&fixture, "1.1", "two\n");
    mounted.unmount()
}

fn nothing_stands_for_bytes_on_read_only_mounts() -> Outcome {
    let (fixture, image) = (Fixture::new(), image()?);
    settle();
    import(&fixture, image.mounted(), "1.0", &[]).ok();
    image.unmount()?;
    image.mount(&["loop", "ro"])?;
    for version in ["1.1", "1.2"] {
        assert_eq!(unread(&fixture, &image.mounted(), version), (0, 1), "{version}");
    }
    // Nor where only this way to the file system is read-only: who may write by another is not seen from here.
    image.unmount()?;
    image.mount(&["loop"])?;
    let place = place(&fixture);
    let _bound = Mounted::new(&["--bind", "-o", "ro"], image.mounted(), &place)?;
    for version in ["1.3", "1.4"] {
        assert_eq!(unread(&fixture, &place, version), (0, 1), "{version}");
    }
    Ok(())
}

fn nothing_stands_for_bytes_where_times_are_made_up() -> Outcome {
    let fixture = Fixture::new();
    let (place, image) = (place(&fixture), squashfs(&fixture, "one", "one\n")?);
    let mounted = Mounted::new(&["-o", "loop"], &image, &place)?;
    for version in ["1.0", "1.1"] {
        assert_eq!(unread(&fixture, &place, version), (0, 1), "{version}");
    }
    // An overlay can be written, and shows the image's times all the same.
    let layers = Image::new(Kind::Ext4, 16)?;
    let (upper, work, merged) = (layers.path("upper"), layers.path("work"), fixture.beside("merged"));
    for directory in [&upper, &work, &merged] {
        std::fs::create_dir(directory).unwrap();
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", place.display(), upper.display(), work.display());
    let overlay = Mounted::new(&["-t", "overlay", "-o", &options], "overlay", &merged)?;
    for version in ["1.2", "1.3"] {
        assert_eq!(unread(&fixture, &merged, version), (0, 1), "{version}");
    }
    overlay.unmount()?;
    mounted.unmount()
}

/// Goes on only where a mount has an identifier that is never given again.
fn needs_mount_ids() -> Outcome {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 8) { Ok(()) } else { Err(Skipped("needs Linux 6.8".into())) }
}

fn an_unchanged_source_is_not_read_where_this_kernel_sets_the_times() -> Outcome {
    needs_mount_ids()?;
    let (fixture, image) = (Fixture::new(), image()?);
    let memory = place(&fixture);
    let _mounted = Mounted::new(&["-t", "tmpfs"], "tmpfs", &memory)?;
    for source in [image.mounted(), memory] {
        tree::release(&source, 1);
        let fixture = Fixture::new();
        settle();
        assert_eq!(unread(&fixture, &source, "1.0").0, 0);
        let (unread, all) = unread(&fixture, &source, "1.1");
        assert_eq!(unread + 1, all, "all but the empty file: {}", source.display());
    }
    Ok(())
}

fn a_mount_is_known_from_the_second_import_on() -> Outcome {
    needs_mount_ids()?;
    let (fixture, image) = (Fixture::new(), image()?);
    settle();
    let unread = |source: &Path, version: &str| unread(&fixture, source, version).0;
    assert_eq!((unread(&image.mounted(), "1.0"), unread(&image.mounted(), "1.1")), (0, 1));
    // The same file system at another place is another mount.
    let place = place(&fixture);
    let mounted = Mounted::new(&["--bind"], image.mounted(), &place)?;
    assert_eq!((unread(&place, "1.2"), unread(&place, "1.3"), unread(&image.mounted(), "1.4")), (0, 1, 1));
    mounted.unmount()?;
    // So is the same at the same place, when it was gone.
    image.unmount()?;
    image.mount(&["loop"])?;
    assert_eq!((unread(&image.mounted(), "1.5"), unread(&image.mounted(), "1.6")), (0, 1));
    Ok(())
}

fn an_older_kernel_remembers_only_the_stores_own_file_system() -> Outcome {
    let (fixture, image) = (Fixture::new(), image()?);
    settle();
    for version in ["1.0", "1.1"] {
        let older = on_an_older_kernel(&fixture)?;
        assert_eq!(unread_by(older, &image.mounted(), version), (0, 1), "{version}");
    }
    let own = Fixture::in_dir(image.path(""));
    tree::release(own.beside("source"), 1);
    settle();
    for version in ["1.0", "1.1"] {
        let (unread, all) = unread_by(on_an_older_kernel(&own)?, &own.beside("source"), version);
        assert_eq!(unread, if version == "1.0" { 0 } else { all - 1 });
    }
    Ok(())
}

fn the_stores_own_medium_is_known_by_an_older_kernel_when_it_comes_again() -> Outcome {
    if !Path::new("/sys/block/loop0/diskseq").exists() {
        return Err(Skipped("needs sequence numbers of disks (Linux 5.15)".into()));
    }
    let image = Image::new(Kind::Ext4, 16)?;
    let fixture = Fixture::in_dir(image.path(""));
    tree::file(fixture.beside("source/app"), "one\n");
    settle();
    unread_by(on_an_older_kernel(&fixture)?, &fixture.beside("source"), "1.0");
    image.unmount()?;
    change_beneath(&image.file(), "source/app", b"two\n")?;
    image.mount(&["loop"])?;
    assert_eq!(unread_by(on_an_older_kernel(&fixture)?, &fixture.beside("source"), "1.1"), (0, 1));
    holds(&fixture, "1.1", "two\n");
    Ok(())
}

/// Subvolumes of one btrfs share a mount and give the same inode numbers, and two writes within one tick of the clock get
/// the same time.
fn files_of_two_subvolumes_are_not_taken_for_each_other() -> Outcome {
    let image = Image::new(Kind::Btrfs, 128)?;
    let fixture = Fixture::new();
    let tops = ["one", "two"].map(|name| image.path(name));
    for top in &tops {
        run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(top))?;
    }
    let said = |top: &Path| {
        let stat = std::fs::metadata(top.join("app")).unwrap();
        (stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec())
    };
    let files = tops.each_ref().map(|top| std::fs::File::create(top.join("app")).unwrap());
    for _ in 0..100 {
        for (file, bytes) in files.iter().zip(["one\n", "two\n"]) {
            file.write_all_at(bytes.as_bytes(), 0).unwrap();
        }
        if said(&tops[0]) == said(&tops[1]) {
            break;
        }
    }
    if said(&tops[0]) != said(&tops[1]) {
        return Err(Skipped("needs a clock with ticks".into()));
    }
    settle();
    for (version, top, bytes) in [("1.0", &tops[0], "one\n"), ("1.1", &tops[1], "two\n")] {
        import(&fixture, top, version, &[]).ok();
        holds(&fixture, version, bytes);
    }
    Ok(())
}
