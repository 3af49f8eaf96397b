//! Every name that the store has on disk, in one place.
//!
//! The layout of `versions/` and of its links is frozen: a device rolls back to releases that carry an older build.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fsys::rooted::{self, Rooted};
use crate::fsys::{Dir, Stat, file};

/// Where a store lies when nobody says otherwise.
pub const DEFAULT_ROOT: &str = "/opt/tope";
/// Where links to programs go when nobody says otherwise.
pub const DEFAULT_BIN_DIR: &str = "/usr/local/bin";

/// Materialised trees and the role links.
pub const VERSIONS: &str = "versions";
/// Links to the services' directories.
pub const SERVICES: &str = "services";
/// State that outlives versions.
pub const SHARED: &str = "shared";
/// Everything that belongs to the store itself.
pub const STORE: &str = "store";

/// The file with the store's features, in [`STORE`].
pub const FORMAT: &str = "format";
/// Objects by key, in [`STORE`].
pub const OBJECTS: &str = "objects";
/// Manifests by version name, in [`STORE`].
pub const MANIFESTS: &str = "manifests";
/// The current segment of the history, in [`STORE`]; older ones have a number behind a dot.
pub const HISTORY: &str = "history";
/// Number and chain value of the history's last event, in [`STORE`].
pub const HEAD: &str = "head";
/// The activation on trial, in [`STORE`].
pub const TRIAL: &str = "trial";
/// That the last notice was not delivered, in [`STORE`].
pub const NOTICE: &str = "notice";
/// The index, in [`STORE`].
pub const INDEX: &str = "index.db";
/// What is being built, in [`STORE`].
pub const STAGING: &str = "staging";
/// What is being removed, in [`STORE`].
pub const TRASH: &str = "trash";
/// What names this store among all, in [`STORE`].
pub const IDENTITY: &str = "identity";
/// Blocks that gc gives back first on a full disk, in [`STORE`].
pub const RESERVE: &str = "reserve";

/// Shared by imports and index writers, exclusive for gc, repair, rebuild.
pub const LOCK: &str = "lock";
/// One publish at a time.
pub const PUBLISH_LOCK: &str = "publish.lock";
/// Held around a switch.
pub const REFS_LOCK: &str = "refs.lock";
/// A place for each switch that is made and not yet recorded.
pub const TURNS_LOCK: &str = "turns.lock";
/// Held around an append to the history.
pub const HISTORY_LOCK: &str = "history.lock";

/// In [`VERSIONS`]: the new `current`, before it is renamed into place.
pub const NEXT: &str = ".next";
/// In [`VERSIONS`]: what was `current`, before it is renamed over `previous`.
pub const WAS: &str = ".was";
/// In [`VERSIONS`]: the new `previous`, before it is renamed into place.
pub const PREVIOUS_NEW: &str = ".previous.new";
/// In [`VERSIONS`]: the new `factory`, before it is renamed into place.
pub const FACTORY_NEW: &str = ".factory.new";
/// In [`VERSIONS`]: a plain file rewritten after every switch, for those who watch files.
pub const SWITCHED: &str = ".switched";
/// In [`VERSIONS`]: the same line as [`IDENTITY`], so that the store knows the directory again.
pub const MARK: &str = ".identity";

/// Mode of directories that only the store's owner may enter.
pub const PRIVATE_DIR_MODE: u32 = 0o700;
/// Mode of directories that anybody may list.
pub const PUBLIC_DIR_MODE: u32 = 0o755;
/// Mode of files that anybody may read.
pub const PUBLIC_FILE_MODE: u32 = 0o644;

/// Where one store lies.
///
/// Paths of the device are reached by way of this: in an image they are resolved inside it ([`rooted`]), whatever links
/// they lead through, and otherwise as the machine resolves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    sysroot: Option<PathBuf>,
    root: PathBuf,
}

impl Layout {
    /// A store at `root`; with `sysroot` inside that image, where `root` is the path that the device will see.
    pub fn new(root: impl Into<PathBuf>, sysroot: Option<PathBuf>) -> Self {
        Self { sysroot, root: root.into() }
    }

    /// The root as services on the device see it; what links are written with.
    pub fn device_root(&self) -> &Path {
        &self.root
    }

    /// Whether it lies in an image.
    pub fn is_image(&self) -> bool {
        self.sysroot.is_some()
    }

    /// The root as this process spells it, for messages: in an image a link on the way may lead elsewhere in it. Where
    /// an opened store lies, its handle says ([`Dir::path`]).
    pub fn root(&self) -> PathBuf {
        match &self.sysroot {
            Some(sysroot) => sysroot.join(self.root.strip_prefix("/").unwrap_or(&self.root)),
            None => self.root.clone(),
        }
    }

    /// Opens a directory by its path on the device.
    ///
    /// # Errors
    ///
    /// There is none, in an image none in the image; the system refuses.
    pub fn open_dir(&self, path: &Path) -> Result<Dir> {
        match &self.sysroot {
            Some(sysroot) => Rooted::open(sysroot)?.open_dir(path),
            None => Dir::open(path),
        }
    }

    /// The same; it and its parents are made where they are missing, of this mode whatever the umask.
    ///
    /// # Errors
    ///
    /// A link on the way leads nowhere; the system refuses.
    pub fn create_dirs(&self, path: &Path, mode: u32) -> Result<Dir> {
        match &self.sysroot {
            Some(sysroot) => Rooted::open(sysroot)?.create_dirs(path, mode),
            None => rooted::open_or_create(path, mode),
        }
    }

    /// What a path of the device leads to when links are followed; `None` if it leads nowhere, or cannot be followed.
    pub fn stat(&self, path: &Path) -> Option<Stat> {
        match &self.sysroot {
            Some(sysroot) => Rooted::open(sysroot).and_then(|image| image.try_stat(path)).ok().flatten(),
            None => file::stat_path(path),
        }
    }

    /// The whole of a file by its path on the device, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn try_read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match &self.sysroot {
            Some(sysroot) => Rooted::open(sysroot)?.try_read(path),
            None => file::try_read_path(path),
        }
    }

    /// Where a directory that was opened here lies on the device: in an image without the links that led there.
    pub fn on_device(&self, dir: &Dir) -> PathBuf {
        match self.sysroot.as_ref().and_then(|sysroot| dir.path().strip_prefix(sysroot).ok()) {
            Some(inside) => Path::new("/").join(inside),
            None => dir.path().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_stands_before_the_root_and_not_in_it() {
        let layout = Layout::new("/opt/tope", Some("/mnt/image".into()));
        assert_eq!(layout.root(), Path::new("/mnt/image/opt/tope"));
        assert_eq!(layout.device_root(), Path::new("/opt/tope"));
        assert_eq!(Layout::new("/opt/tope", None).root(), Path::new("/opt/tope"));
    }
}
