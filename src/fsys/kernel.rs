//! What the kernel itself uses of the files below a directory, for which no process shows a path.
//!
//! - the file behind a loop device, which `losetup` closes and the kernel keeps open;
//! - a directory or file that is bound to another place (`mount --bind`, a container), in any mount namespace that a
//!   process is in;
//! - the layers of an overlay, in the same namespaces. The kernel tells the path that `mount` was given, which may lead
//!   through a link that leads elsewhere by now: then it may be any of the names there.
//!
//! **Invariant:** an error ends the look, except that of a process that ended or belongs to another user: such a process is
//! counted by [`process`](super::process).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mounts::unescape;
use super::process::is_gone;
use crate::error::{Error, Result};
use crate::model::EntryName;

/// A use by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelUse {
    /// The name directly below the directory that was asked about; `None` if it may be any of them.
    pub name: Option<EntryName>,
    /// The user in words, as in `the loop device /dev/loop3, which reads image.sqfs`.
    pub user: String,
}

impl KernelUse {
    /// Whether it may be of this name.
    pub fn may_be_of(&self, name: &[u8]) -> bool {
        self.name.as_ref().is_none_or(|own| own.as_bytes() == name)
    }
}

/// Finds what the kernel uses below `directory`, which is absolute and without symbolic links.
///
/// # Errors
///
/// A table of mounts or the list of loop devices cannot be read. A system without `/proc` or `/sys` shows none.
pub fn uses_below(directory: &Path) -> Result<Vec<KernelUse>> {
    let mut uses = loops(Path::new("/sys/block"), directory)?;
    let own = table(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    let within = place_in_file_system(&own, directory.as_os_str().as_bytes());
    for (pid, table) in namespaces()? {
        let of = pid.map(|pid| format!(" of process {pid}")).unwrap_or_default();
        for mount in mounts(&table) {
            let point = String::from_utf8_lossy(&mount.point).into_owned();
            if let Some((device, place)) = &within
                && mount.device == device.as_slice()
                && let Some((name, path)) = split(&mount.root, place)
            {
                let user = format!("the mount at {point}{of}, which shows {}", shown(&path));
                uses.push(KernelUse { name: Some(name), user });
            }
            for layer in layers(&mount) {
                if let Some((name, path)) = split(&layer, directory.as_os_str().as_bytes()) {
                    let user = format!("the overlay at {point}{of}, which has {} as a layer", shown(&path));
                    let is_link = directory.join(std::ffi::OsStr::from_bytes(name.as_bytes())).is_symlink();
                    uses.push(KernelUse { name: (!is_link).then_some(name), user });
                }
            }
        }
    }
    uses.sort_unstable();
    uses.dedup();
    Ok(uses)
}

/// The files below `directory` behind loop devices, by `/sys/block/*/loop/backing_file`.
fn loops(devices: &Path, directory: &Path) -> Result<Vec<KernelUse>> {
    let entries = match std::fs::read_dir(devices) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::io("list", devices, error))?,
    };
    let mut uses = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", devices, error))?;
        let file = entry.path().join("loop/backing_file");
        let text = match std::fs::read(&file) {
            // Not a loop device, or one without a file.
            Err(error) if is_gone(&error) || error.kind() == ErrorKind::NotADirectory => continue,
            other => other.map_err(|error| Error::io("read", &file, error))?,
        };
        let path = text.strip_suffix(b"\n").unwrap_or(&text);
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        if let Some((name, path)) = split(path, directory.as_os_str().as_bytes()) {
            let device = entry.file_name();
            let user = format!("the loop device /dev/{}, which reads {}", device.display(), shown(&path));
            uses.push(KernelUse { name: Some(name), user });
        }
    }
    Ok(uses)
}

/// The table of mounts of each mount namespace that a process is in, with the number of such a process; without it for
/// the namespace of this one.
fn namespaces() -> Result<Vec<(Option<i32>, Vec<u8>)>> {
    let mut tables = Vec::new();
    let mut seen = HashSet::new();
    let identity = |process: &Path| std::fs::metadata(process.join("ns/mnt")).map(|found| (found.dev(), found.ino()));
    if let Some(own) = table(Path::new("/proc/self/mountinfo"))? {
        tables.push((None, own));
        seen.extend(identity(Path::new("/proc/self")).ok());
    }
    let processes = match std::fs::read_dir("/proc") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(tables),
        other => other.map_err(|error| Error::io("list", "/proc", error))?,
    };
    for process in processes {
        let process = process.map_err(|error| Error::io("list", "/proc", error))?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        match identity(&process.path()) {
            Ok(namespace) if seen.insert(namespace) => {}
            Ok(_) => continue,
            Err(error) if is_gone(&error) || error.kind() == ErrorKind::PermissionDenied => continue,
            Err(error) => return Err(Error::io("inspect", process.path(), error)),
        }
        if let Some(table) = table(&process.path().join("mountinfo"))? {
            tables.push((Some(pid), table));
        }
    }
    Ok(tables)
}

/// A table of mounts; `None` if the process ended, or belongs to another user.
fn table(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(table) => Ok(Some(table)),
        // EINVAL: a process that is about to end has no namespace any longer.
        Err(error) if is_gone(&error) || error.kind() == ErrorKind::InvalidInput => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// A line of a table of mounts, by proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount<'a> {
    /// `major:minor`.
    device: &'a [u8],
    /// The path in the file system that is shown.
    root: Vec<u8>,
    /// Where it is shown.
    point: Vec<u8>,
    kind: &'a [u8],
    /// Options of the file system, still escaped.
    options: &'a [u8],
}

fn mounts(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // Optional fields end with a hyphen.
        let end = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let unescaped = |at: usize| fields.get(at).map(|field| unescape(field, b" \t\n\\").into_owned());
        Some(Mount {
            device: fields.get(2)?,
            root: unescaped(3)?,
            point: unescaped(4)?,
            kind: fields.get(end + 1)?,
            options: fields.get(end + 3)?,
        })
    })
}

/// The device of the file system that a directory is on, and the directory's path in it.
fn place_in_file_system(table: &[u8], directory: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let below = |point: &[u8]| match point {
        b"/" => Some(directory.to_vec()),
        point => directory.strip_prefix(point).filter(|rest| rest.is_empty() || rest[0] == b'/').map(<[u8]>::to_vec),
    };
    // Of two mounts at one point, the later one is seen.
    let found = mounts(table).filter_map(|mount| Some((mount.point.len(), below(&mount.point)?, mount)));
    let (_, rest, mount) = found.max_by_key(|(length, ..)| *length)?;
    let root = if mount.root == b"/" { Vec::new() } else { mount.root };
    Some((mount.device.to_vec(), [root, rest].concat()))
}

/// The layers of an overlay, as `mount` was given them.
fn layers(mount: &Mount<'_>) -> Vec<Vec<u8>> {
    if mount.kind != b"overlay" {
        return Vec::new();
    }
    let mut layers = Vec::new();
    for option in split_unescaped(mount.options, b',') {
        let Some(at) = option.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (&option[..at], unescape(&option[at + 1..], b" \t\n\\"));
        match key {
            b"lowerdir" => layers.extend(split_unescaped(&value, b':').into_iter().map(plain)),
            b"lowerdir+" | b"datadir+" | b"upperdir" | b"workdir" => layers.push(plain(&value)),
            _ => {}
        }
    }
    layers
}

/// Splits where no backslash stands before the separator.
fn split_unescaped(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        if *byte == separator && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Takes the backslashes out that `mount` needs before separators.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            other => out.push(*other),
        }
    }
    out
}

/// The name directly below a directory that a path leads to, and the rest.
fn split(path: &[u8], directory: &[u8]) -> Option<(EntryName, Vec<u8>)> {
    let rest = path.strip_prefix(directory)?.strip_prefix(b"/")?;
    let (name, path) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
    Some((EntryName::new(name).ok()?, path.strip_prefix(b"/").unwrap_or(path).to_vec()))
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "its top".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 8:2 /@data /opt rw,noatime shared:1 master:2 - btrfs /dev/sda2 rw,subvol=/@data
31 21 8:2 /@data/tope/versions/v1/a\\040b /srv/app ro - btrfs /dev/sda2 rw
32 21 0:40 / /mnt rw - overlay o rw,lowerdir=/opt/tope/versions/v2/x\\134:y:/lower,upperdir=/u,workdir=/w
33 21 0:41 / /new rw - overlay o rw,lowerdir+=/opt/tope/versions/v3
";

    #[test]
    fn a_directory_has_a_place_in_its_file_system() {
        let place = |path: &str| {
            let (device, place) = place_in_file_system(TABLE, path.as_bytes()).unwrap();
            (String::from_utf8(device).unwrap(), String::from_utf8(place).unwrap())
        };
        assert_eq!(place("/opt/tope/versions"), ("8:2".into(), "/@data/tope/versions".into()));
        assert_eq!(place("/optional/tope"), ("8:1".into(), "/optional/tope".into()));
    }

    #[test]
    fn a_bound_directory_is_known_by_its_root() {
        let bound = mounts(TABLE).find(|mount| mount.point == b"/srv/app").unwrap();
        let found = split(&bound.root, b"/@data/tope/versions");
        assert_eq!(found, Some((EntryName::new(*b"v1").unwrap(), b"a b".to_vec())));
        assert_eq!(split(b"/@data/tope/versions", b"/@data/tope/versions"), None);
    }

    #[test]
    fn layers_are_read_with_their_separators() {
        let found: Vec<Vec<Vec<u8>>> = mounts(TABLE).map(|mount| layers(&mount)).collect();
        let text = |layers: &[&str]| layers.iter().map(|layer| layer.as_bytes().to_vec()).collect::<Vec<_>>();
        let empty = Vec::new();
        let first = text(&["/opt/tope/versions/v2/x:y", "/lower", "/u", "/w"]);
        assert_eq!(found, [empty.clone(), empty.clone(), empty, first, text(&["/opt/tope/versions/v3"])]);
    }

    #[test]
    fn the_file_behind_a_loop_device_is_a_use() {
        let temporary = tempfile::tempdir().unwrap();
        let device = |name: &str, file: Option<&str>| {
            std::fs::create_dir_all(temporary.path().join(name).join("loop")).unwrap();
            if let Some(file) = file {
                std::fs::write(temporary.path().join(name).join("loop/backing_file"), format!("{file}\n")).unwrap();
            }
        };
        device("loop0", Some("/opt/versions/v1/fs image.sqfs"));
        device("loop1", Some("/other/image"));
        device("loop2", None);
        device("loop3", Some("/opt/versions/v2/gone (deleted)"));
        let mut found = loops(temporary.path(), Path::new("/opt/versions")).unwrap();
        found.sort();
        let name = |name: &[u8]| Some(EntryName::new(name).unwrap());
        let user = |device: &str, path: &str| format!("the loop device /dev/{device}, which reads {path}");
        assert_eq!(
            found,
            [
                KernelUse { name: name(b"v1"), user: user("loop0", "fs image.sqfs") },
                KernelUse { name: name(b"v2"), user: user("loop3", "gone") },
            ]
        );
    }

    #[test]
    fn a_use_of_an_unknown_name_may_be_of_any() {
        let used =
            |name: Option<&[u8]>| KernelUse { name: name.map(|n| EntryName::new(n).unwrap()), user: String::new() };
        assert!(used(None).may_be_of(b"v1"));
        assert!(used(Some(b"v1")).may_be_of(b"v1") && !used(Some(b"v1")).may_be_of(b"v2"));
    }
}
