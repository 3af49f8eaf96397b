//! Real file systems in loop mounts. Need root and the programs that make them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Outcome, Skipped, needs_program, needs_root};

/// The file systems that a store is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
            Self::Btrfs => "mkfs.btrfs",
        }
    }
}

/// A mounted image; unmounted and removed when dropped.
pub struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    /// Makes and mounts a file system of this size.
    pub fn new(kind: Kind, mebibytes: u64) -> Result<Self, Skipped> {
        Self::with_options(kind, mebibytes, &[])
    }

    /// The same with further arguments for the program that makes it.
    pub fn with_options(kind: Kind, mebibytes: u64, options: &[&str]) -> Result<Self, Skipped> {
        needs_root()?;
        needs_program(kind.maker())?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = Self { directory };
        let file = std::fs::File::create(image.file()).expect("an image");
        file.set_len(mebibytes << 20).expect("its length");
        std::fs::create_dir(image.mounted()).expect("a mount point");
        let quiet = if kind == Kind::Ext4 { &["-q", "-F"][..] } else { &["-q"][..] };
        run(Command::new(kind.maker()).args(quiet).args(options).arg(image.file()))?;
        image.mount(&["loop"])?;
        Ok(image)
    }

    /// Mounts it, with mount options.
    pub fn mount(&self, options: &[&str]) -> Outcome {
        run(Command::new("mount").arg("-o").arg(options.join(",")).arg(self.file()).arg(self.mounted()))
    }

    /// Unmounts it, and waits until it is gone everywhere: a mount namespace that another test is just making has it for
    /// a moment, and who mounts the image then gets the same file system once more, in the state it is in.
    pub fn unmount(&self) -> Outcome {
        let until = Instant::now() + Duration::from_secs(60);
        // A program that another test is just starting holds copies of our files until it is itself.
        while let Err(Skipped(why)) = run(Command::new("umount").arg(self.mounted())) {
            assert!(why.contains("busy") && Instant::now() < until, "{why}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let attached = || Command::new("losetup").arg("-j").arg(self.file()).output().expect("losetup runs").stdout;
        while !attached().is_empty() {
            assert!(Instant::now() < until, "{} is still in use", self.file().display());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What everything of it lies in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file that holds it.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Where it is mounted.
    pub fn mounted(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// A path in it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mounted().join(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have something open there.
        let _ = Command::new("umount").arg("-l").arg(self.mounted()).output();
    }
}

/// Runs a program that makes or mounts something; where it fails, a test cannot run here.
pub fn run(command: &mut Command) -> Outcome {
    let output = command.output().map_err(|error| Skipped(format!("cannot run {command:?}: {error}")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Skipped(format!("{command:?} failed here: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// Bytes that anybody may still write.
pub fn bytes_free(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).expect("a file system");
    space.f_bfree * space.f_frsize
}

/// Takes every block and every inode of a file system.
pub fn fill(top: &Path) {
    use std::io::Write;
    // Twice: blocks that were promised and not yet placed turn up when they are.
    for round in 0..2 {
        for size in [64 << 10, 4096, 1024, 1] {
            let Ok(mut file) = std::fs::File::create(top.join(format!("fill-{round}-{size}"))) else { continue };
            while file.write_all(&vec![1; size]).is_ok() {}
            let _ = file.sync_all();
        }
    }
    let mut number = 0;
    while std::fs::File::create(top.join(format!("inode-{number}"))).is_ok() {
        number += 1;
    }
    rustix::fs::syncfs(std::fs::File::open(top).expect("its top")).expect("a file system");
    assert!(std::os::unix::fs::symlink("x", top.join("fill-link")).is_err(), "there is an inode left");
    let more = std::fs::OpenOptions::new().append(true).open(top.join("fill-0-65536"));
    assert!(more.and_then(|mut file| file.write_all(&[1; 4096])).is_err(), "there is a block left");
}

/// Gives back what [`fill`] took.
pub fn make_room(top: &Path) {
    for item in std::fs::read_dir(top).expect("its top").flatten() {
        let name = item.file_name();
        if name.to_string_lossy().starts_with("fill-") || name.to_string_lossy().starts_with("inode-") {
            std::fs::remove_file(item.path()).expect("what filled it");
        }
    }
}
