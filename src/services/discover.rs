//! Which units run from the current version, and what of it they name.
//!
//! A path names something of the current version if it lies, by its text, below `versions/current` or `services/` of the
//! store, or is a link that leads there, as those in the directory for programs do. A unit that names one version by its
//! own name is not moved by a switch, and does not count.
//!
//! **Rule:** services that are configured are the services. Only where none is, units are looked for: those that are
//! there to run on, are in use (enabled, or not inactive), and name something of the current version.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{Description, ServiceManager};
use crate::config::Service;
use crate::error::Result;
use crate::layout::{self, Layout};
use crate::model::{Role, TreePath};

/// How many links are followed from one path.
const MOST_LINKS: usize = 8;

/// The services: those that are configured, or those that are found where none is.
///
/// # Errors
///
/// The manager cannot be asked.
pub fn services(manager: &dyn ServiceManager, configured: &[Service], layout: &Layout) -> Result<Vec<Service>> {
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let described = manager.describe(&manager.all_units()?)?;
    let found = described.into_iter().filter(|unit| unit.runs_on && unit.in_use && !places(unit, layout).is_empty());
    Ok(found.map(|unit| Service::of(unit.unit)).collect())
}

/// What of the current version a unit names, each once.
pub fn places(unit: &Description, layout: &Layout) -> Vec<TreePath> {
    let mut places: Vec<TreePath> = unit.paths.iter().filter_map(|path| place(path, layout)).collect();
    places.sort();
    places.dedup();
    places
}

/// Where in the current version a path of the device leads, if there.
fn place(path: &Path, layout: &Layout) -> Option<TreePath> {
    let mut path = lexical(path);
    for _ in 0..MOST_LINKS {
        if let Some(place) = below_current(&path, layout) {
            return Some(place);
        }
        let (parent, name) = (path.parent()?, path.file_name()?);
        let target = layout.open_dir(parent).ok()?.read_link(name.as_bytes()).ok()?;
        path = lexical(&parent.join(Path::new(std::ffi::OsStr::from_bytes(&target))));
    }
    None
}

fn below_current(path: &Path, layout: &Layout) -> Option<TreePath> {
    let below = path.strip_prefix(layout.device_root()).ok()?;
    let in_current = Path::new(layout::VERSIONS).join(Role::Current.as_str());
    let place = match below.strip_prefix(in_current) {
        Ok(place) => place,
        // A link for each of the services' directories leads through current.
        Err(_) if below.starts_with(layout::SERVICES) && below.components().nth(1).is_some() => below,
        Err(_) => return None,
    };
    TreePath::parse(place.as_os_str().as_bytes()).ok()
}

/// A path without `.` and `..`, which are taken by their text alone.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut out, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_through_current_is_found_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path();
        let layout = Layout::new("/opt/tope", Some(top.to_owned()));
        let bin = top.join("usr/local/bin");
        std::fs::create_dir_all(&bin).unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, bin.join(name)).unwrap();
        link("/opt/tope/versions/current/bin/api", "api");
        link("api", "alias");
        link("loop", "loop");
        link("/opt/tope/versions/v1.0.0/bin/api", "pinned");
        let found = |path: &str| place(Path::new(path), &layout).map(|place| place.to_string());
        for path in ["/opt/tope/versions/current/bin/api", "/usr/local/bin/api", "/usr/local/bin/alias"] {
            assert_eq!(found(path).as_deref(), Some("bin/api"), "{path}");
        }
        assert_eq!(found("/opt/tope/services/api/../api/c.toml").as_deref(), Some("services/api/c.toml"));
        assert_eq!(place(Path::new("/opt/tope/versions/current"), &layout), Some(TreePath::top()));
        for path in [
            "/usr/local/bin/loop",
            "/usr/local/bin/pinned",
            "/usr/local/bin/none",
            "/opt/tope/versions/v1.0.0/bin/api",
            "/opt/tope/services",
            "/opt/tope/shared/x",
            "/usr/bin/python3",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
