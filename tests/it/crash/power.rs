//! The power goes before a call: what the medium has is all that is left.
//!
//! The command is stopped before one of its calls, the file system takes nothing more from this instant, not even its
//! journal, the command is killed, and the file system is mounted again. Before every second cut another program
//! syncs a file of its own: that makes names durable whose bytes are not, and an object with the right name and no bytes
//! must not be trusted by the next run.

#![allow(unsafe_code, reason = "the shutdown of a file system is an ioctl")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use super::kill::{afterwards, at_once};
use super::sample::{Plan, points};
use super::scene::{self, ALL, Base, End, Operation, command};
use super::trace::{self, Fate};
use crate::support::image::{Image, Kind};
use crate::support::{Outcome, needs_root};

/// Points of each operation on each medium, unless told otherwise.
pub const SAMPLE: usize = 2;

/// A file system and how it is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Medium {
    pub name: &'static str,
    pub kind: Kind,
    pub mebibytes: u64,
    pub options: &'static [&'static str],
}

pub const MEDIA: [Medium; 4] = [
    Medium { name: "ext4-ordered", kind: Kind::Ext4, mebibytes: 64, options: &["loop", "data=ordered"] },
    Medium { name: "ext4-writeback", kind: Kind::Ext4, mebibytes: 64, options: &["loop", "data=writeback"] },
    Medium { name: "xfs", kind: Kind::Xfs, mebibytes: 300, options: &["loop"] },
    Medium { name: "btrfs", kind: Kind::Btrfs, mebibytes: 256, options: &["loop"] },
];

pub fn tests() -> Vec<Trial> {
    MEDIA.iter().map(|medium| super::trial(&format!("power::{}", medium.name), move || cut(medium))).collect()
}

/// A scene on a medium of its own, put back to its beginning as often as needed.
pub struct Stage {
    medium: &'static Medium,
    pub image: Image,
    pristine: PathBuf,
}

impl Stage {
    fn new(medium: &'static Medium, base: Base) -> Result<Self, crate::support::Skipped> {
        Self::prepared(medium, |scene| scene::prepare(scene, base))
    }

    pub fn prepared(medium: &'static Medium, prepare: impl FnOnce(&Path)) -> Result<Self, crate::support::Skipped> {
        let image = Image::with_options(medium.kind, medium.mebibytes, &[])?;
        std::fs::create_dir(image.path("scene")).expect("a directory");
        prepare(&image.path("scene"));
        image.unmount()?;
        let pristine = image.file().with_extension("pristine");
        copy(&image.file(), &pristine);
        Ok(Self { medium, image, pristine })
    }

    pub fn scene(&self) -> PathBuf {
        self.image.path("scene")
    }

    /// Mounts it as it was in the beginning.
    pub fn begin(&self) -> Outcome {
        copy(&self.pristine, &self.image.file());
        self.image.mount(self.medium.options)
    }

    /// From this instant nothing reaches the medium.
    pub fn shut_down(&self) {
        match self.medium.kind {
            // It has no such call. What was given to the device so far is in its file.
            Kind::Btrfs => copy(&self.image.file(), &self.image.file().with_extension("cut")),
            Kind::Ext4 | Kind::Xfs => {
                let top = std::fs::File::open(self.image.mounted()).expect("its top");
                // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, without a flush of the log.
                let flags: u32 = 2;
                // SAFETY: the call reads one number, which lives until it returns.
                let result = unsafe { libc::ioctl(top.as_raw_fd(), 0x8004_587d, &raw const flags) };
                assert_eq!(result, 0, "{}: {}", self.medium.name, std::io::Error::last_os_error());
            }
        }
    }

    /// Mounts what is left.
    pub fn come_back(&self) -> Outcome {
        self.image.unmount()?;
        let cut = self.image.file().with_extension("cut");
        if cut.exists() {
            std::fs::rename(cut, self.image.file()).expect("it can be moved");
        }
        self.image.mount(self.medium.options)
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([from, to]).status();
    assert!(copied.expect("cp runs").success(), "{} could not be copied", from.display());
}

/// Another program makes a file of its own durable, and with it what the journal has.
fn somebody_syncs(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("somebody")).expect("a file");
    file.write_all(b"else").and_then(|()| file.sync_all()).expect("it can be synced");
}

fn cut(medium: &'static Medium) -> Outcome {
    each_operation(medium, of_operation)
}

/// Gives every operation a stage with the scene that it begins with.
pub fn each_operation(medium: &'static Medium, run: fn(&Stage, &Operation) -> Outcome) -> Outcome {
    needs_root()?;
    let mut bases: Vec<(Base, Stage)> = Vec::new();
    for operation in ALL {
        if !bases.iter().any(|(base, _)| *base == operation.base) {
            bases.push((operation.base, Stage::new(medium, operation.base)?));
        }
        let (_, stage) = bases.iter().find(|(base, _)| *base == operation.base).expect("it was just made");
        run(stage, operation)?;
    }
    Ok(())
}

fn of_operation(stage: &Stage, operation: &Operation) -> Outcome {
    let dir = stage.scene();
    stage.begin()?;
    let calls = points(&dir, operation);
    let done = scene::Roles::of(&dir);
    let reference = super::kill::end(operation, &dir, "untouched");
    stage.image.unmount()?;
    let plan = Plan::sampled(&format!("power-{}", stage.medium.name), operation.name, &calls, SAMPLE);
    for (at, point) in plan.points().enumerate() {
        stage.begin()?;
        let synced = at % 2 == 1;
        let by = if synced { ", somebody synced before" } else { "" };
        let when = format!("{}, cut off before call {point}, {}{by}", operation.name, calls[point]);
        let mut number = 0;
        trace::run(&mut command(&dir, operation.arguments), &dir, &mut |_| {
            number += 1;
            if number != point + 1 {
                return Fate::Happens;
            }
            if synced {
                somebody_syncs(&dir);
            }
            stage.shut_down();
            Fate::Killed
        });
        stage.come_back()?;
        at_once(operation, &dir, &when);
        afterwards(operation, &dir, &reference, at % 4 < 2, &when);
        stage.image.unmount()?;
    }
    what_was_reported_is_there(stage, operation, &done, &reference)?;
    plan.done();
    Ok(())
}

/// The command ended well, and then the power went.
fn what_was_reported_is_there(stage: &Stage, operation: &Operation, done: &scene::Roles, reference: &End) -> Outcome {
    let dir = stage.scene();
    let when = format!("{}, cut off behind its end", operation.name);
    stage.begin()?;
    scene::ran(&dir, operation.arguments).ok();
    stage.shut_down();
    stage.come_back()?;
    at_once(operation, &dir, &when);
    assert_eq!(&scene::Roles::of(&dir), done, "{when}: what it reported is not there");
    assert_eq!(&super::kill::end(operation, &dir, &when), reference, "{when}");
    stage.image.unmount()
}
