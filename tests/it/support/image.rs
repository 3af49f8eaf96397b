//! Real file systems in loop mounts. Need root and the programs that make them.

use std::path::{Path, PathBuf};
use std::process::Command;

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

    /// Unmounts it.
    pub fn unmount(&self) -> Outcome {
        run(Command::new("umount").arg(self.mounted()))
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

fn run(command: &mut Command) -> Outcome {
    let output = command.output().map_err(|error| Skipped(format!("cannot run {command:?}: {error}")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Skipped(format!("{command:?} failed here: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}
