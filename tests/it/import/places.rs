//! Where a store lies: on two file systems, on a read-only one, in a format of another build.

use std::process::Command;

use super::{Traces, error_of, import, names_in};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, needs_root, tree};

tests![
    two_file_systems_are_refused,
    a_bind_mount_is_two_file_systems,
    a_read_only_root_is_an_error_and_stays_as_it_is,
    an_unknown_format_is_not_written,
];

fn mount(arguments: &[&std::ffi::OsStr]) -> Outcome {
    let output = Command::new("mount").args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(crate::support::Skipped(format!("cannot mount: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn two_file_systems_are_refused() -> Outcome {
    let image = Image::new(Kind::Ext4, 16)?;
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    mount(&["--bind".as_ref(), image.mounted().as_os_str(), fixture.path("versions").as_os_str()])?;
    let _mounted = Mounted(fixture.path("versions"));
    let before = Traces::of(&fixture);
    let message = error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(4), "not-allowed");
    assert!(message.contains("two file systems") && message.contains("mount one file system"), "{message}");
    before.expect_unchanged(&fixture);
    // The same is told before a store is made.
    let other = Fixture::bare();
    std::fs::create_dir_all(other.path("versions")).unwrap();
    mount(&["--bind".as_ref(), image.mounted().as_os_str(), other.path("versions").as_os_str()])?;
    let _other_mounted = Mounted(other.path("versions"));
    error_of(&other.run(&["--json", "init"]).expect(4), "not-allowed");
    error_of(&import(&other, fixture.beside("source"), "1.0", &[]).expect(9), "no-store");
    Ok(())
}

/// One device number, and still no link from one to the other.
fn a_bind_mount_is_two_file_systems() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    std::fs::create_dir(fixture.beside("elsewhere")).unwrap();
    mount(&["--bind".as_ref(), fixture.beside("elsewhere").as_os_str(), fixture.path("versions").as_os_str()])?;
    let _mounted = Mounted(fixture.path("versions"));
    let before = Traces::of(&fixture);
    let message = error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(4), "doubt");
    assert!(message.contains("mounted over versions"), "{message}");
    before.expect_unchanged(&fixture);
    let other = Fixture::bare();
    std::fs::create_dir_all(other.path("versions")).unwrap();
    mount(&["--bind".as_ref(), fixture.beside("elsewhere").as_os_str(), other.path("versions").as_os_str()])?;
    let _other_mounted = Mounted(other.path("versions"));
    error_of(&other.run(&["--json", "init"]).expect(4), "not-allowed");
    Ok(())
}

fn a_read_only_root_is_an_error_and_stays_as_it_is() -> Outcome {
    let image = Image::new(Kind::Ext4, 16)?;
    let fixture = Fixture::in_dir(image.path(""));
    tree::release(fixture.beside("source"), 1);
    import(&fixture, fixture.beside("source"), "1.0", &[]).ok();
    mount(&["-o".as_ref(), "remount,ro".as_ref(), image.mounted().as_os_str()])?;
    let before = Traces::exactly(&fixture);
    let ran = import(&fixture, fixture.beside("source"), "1.1", &[]).expect(1);
    let message = error_of(&ran, "io");
    assert!(message.contains("Read-only file system") && message.contains("remount"), "{message}");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn an_unknown_format_is_not_written() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let format = std::fs::read_to_string(fixture.path("store/format")).unwrap();
    for set in ["incompatible", "read_only_compatible"] {
        let line = format.lines().find(|line| line.starts_with(set)).unwrap_or_else(|| panic!("{format}"));
        let (key, known) = line.split_once(" = [").unwrap_or_else(|| panic!("{format}"));
        let zoned = format!("{key} = [\"zoned\", {known}");
        std::fs::write(fixture.path("store/format"), format.replace(line, &zoned)).unwrap();
        let before = Traces::exactly(&fixture);
        let message = error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(9), "no-store");
        assert!(message.contains("zoned") && message.contains("newer one"), "{message}");
        before.expect_unchanged(&fixture);
    }
    std::fs::write(fixture.path("store/format"), "\0\0\0").unwrap();
    error_of(&import(&fixture, fixture.beside("source"), "1.0", &[]).expect(5), "corrupt");
    std::fs::write(fixture.path("store/format"), &format).unwrap();
    import(&fixture, fixture.beside("source"), "1.0", &[]).ok();
    assert_eq!(names_in(fixture.path("versions"))[1..], ["v1.0"]);
    Ok(())
}
