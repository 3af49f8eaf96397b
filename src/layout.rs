//! Every name that the store has on disk, in one place.
//!
//! The layout of `versions/` and of its links is frozen: a device rolls back to releases that carry an older build.

use std::path::{Path, PathBuf};

use crate::model::VersionName;

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
/// The activation on trial, in [`STORE`].
pub const TRIAL: &str = "trial";
/// The index, in [`STORE`].
pub const INDEX: &str = "index.db";
/// What is being built, in [`STORE`].
pub const STAGING: &str = "staging";
/// What is being removed, in [`STORE`].
pub const TRASH: &str = "trash";
/// Blocks that gc gives back first on a full disk, in [`STORE`].
pub const RESERVE: &str = "reserve";

/// Shared by imports and index writers, exclusive for gc, repair, rebuild.
pub const LOCK: &str = "lock";
/// One publish at a time.
pub const PUBLISH_LOCK: &str = "publish.lock";
/// Held around a switch.
pub const REFS_LOCK: &str = "refs.lock";
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

/// Mode of directories that only the store's owner may enter.
pub const PRIVATE_DIR_MODE: u32 = 0o700;
/// Mode of directories that anybody may list.
pub const PUBLIC_DIR_MODE: u32 = 0o755;
/// Mode of files that anybody may read.
pub const PUBLIC_FILE_MODE: u32 = 0o644;

/// Where one store lies.
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

    /// The root as this process reaches it.
    pub fn root(&self) -> PathBuf {
        self.in_sysroot(&self.root)
    }

    /// Where a path of the device lies for this process.
    pub fn in_sysroot(&self, path: &Path) -> PathBuf {
        match &self.sysroot {
            Some(sysroot) => sysroot.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// The directory of one version, as this process reaches it.
    pub fn version(&self, name: &VersionName) -> PathBuf {
        self.root().join(VERSIONS).join(name.as_str())
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
        assert_eq!(
            Layout::new("/opt/tope", None).version(&"1.0".parse().unwrap()),
            Path::new("/opt/tope/versions/v1.0")
        );
    }
}
