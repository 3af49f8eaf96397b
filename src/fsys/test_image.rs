//! Small file systems of their own, for tests of what happens when they are full.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in an image, mounted on a loop device until it is dropped.
#[derive(Debug)]
pub(crate) struct TestImage {
    // Unmounted first, removed then.
    mount: PathBuf,
    _directory: tempfile::TempDir,
}

impl TestImage {
    /// An ext4 of this many bytes and inodes. `None`, and a message, where this user or machine cannot mount one.
    pub(crate) fn ext4(bytes: u64, inodes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (image, mount) = (directory.path().join("image"), directory.path().join("mount"));
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let inodes = inodes.to_string();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", &inodes]).arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        if !made {
            let mut errors = std::io::stderr();
            let _ = writeln!(errors, "skipped: needs root, mkfs.ext4 and a loop device");
            return None;
        }
        Some(Self { mount, _directory: directory })
    }

    /// The mounted top.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes every block and every inode.
    pub(crate) fn fill(&self) {
        // Twice: blocks that were promised and not yet placed turn up when they are.
        for round in 0..2 {
            for size in [64 << 10, 4096, 1024, 1] {
                let name = self.mount.join(format!("fill-{round}-{size}"));
                let Ok(mut file) = std::fs::File::create(name) else { continue };
                while file.write_all(&vec![1; size]).is_ok() {}
                let _ = file.sync_all();
            }
        }
        let mut number = 0;
        while std::fs::File::create(self.mount.join(format!("inode-{number}"))).is_ok() {
            number += 1;
        }
        rustix::fs::syncfs(std::fs::File::open(&self.mount).unwrap()).unwrap();
        let more = std::fs::OpenOptions::new().append(true).open(self.mount.join("fill-0-65536"));
        let more = more.and_then(|mut file| file.write_all(&[1; 4096])).unwrap_err();
        assert_eq!(more.kind(), std::io::ErrorKind::StorageFull);
        let more = std::os::unix::fs::symlink("x", self.mount.join("fill-link")).unwrap_err();
        assert_eq!(more.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives back what [`TestImage::fill`] took.
    pub(crate) fn make_room(&self) {
        for item in std::fs::read_dir(&self.mount).unwrap().flatten() {
            let name = item.file_name().into_string().unwrap();
            if name.starts_with("fill-") || name.starts_with("inode-") {
                std::fs::remove_file(item.path()).unwrap();
            }
        }
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}
