//! Mount points below a directory.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::EntryName;

/// Mount points below `directory` (absolute, without symbolic links): the name directly in it, and the path below that.
/// Those of other mount namespaces are not seen.
///
/// # Errors
///
/// The table of mounts cannot be read, so that any path may be one. A system without `/proc` shows none.
pub fn mounts_below(directory: &Path) -> Result<Vec<(EntryName, Vec<u8>)>> {
    let table = "/proc/self/mountinfo";
    let text = match std::fs::read(table) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|error| Error::io("read", table, error))?,
    };
    let directory = directory.as_os_str().as_bytes();
    Ok(text.split(|byte| *byte == b'\n').filter_map(|line| below(line, directory)).collect())
}

/// The options of the file system with this device number, those of the mount and its own; `None` if it is not seen.
pub fn options_of(device: u64) -> Option<String> {
    let text = std::fs::read("/proc/self/mountinfo").ok()?;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    text.split(|byte| *byte == b'\n').find_map(|line| options(line, &device))
}

/// Third field: device; sixth: options of the mount; last: those of the file system.
fn options(line: &[u8], device: &str) -> Option<String> {
    let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    (fields.get(2) == Some(&device))
        .then(|| format!("{},{}", fields[5.min(fields.len() - 1)], fields[fields.len() - 1]))
}

/// A line of `/proc/self/mountinfo`: the mount point is its fifth field.
fn below(line: &[u8], directory: &[u8]) -> Option<(EntryName, Vec<u8>)> {
    let point = unescape(line.split(|byte| *byte == b' ').nth(4)?, b" \t\n\\");
    let rest = point.strip_prefix(directory)?.strip_prefix(b"/")?;
    let (name, path) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
    Some((EntryName::new(name).ok()?, path.strip_prefix(b"/").unwrap_or(path).to_vec()))
}

/// Takes back what the kernel writes as a backslash and three octal digits: blanks, tabs, newlines and backslashes in a
/// table of mounts, newlines alone in `/proc/*/maps`. Other digits behind a backslash are part of the name.
pub(super) fn unescape<'a>(field: &'a [u8], escaped: &[u8]) -> Cow<'a, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok().filter(|value| escaped.contains(value))
        });
        out.push(octal.unwrap_or(*byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_mount_and_of_the_file_system() {
        let line = b"36 35 98:0 / /opt rw,noatime master:1 - ext4 /dev/root rw,data=writeback";
        assert_eq!(options(line, "98:0").as_deref(), Some("rw,noatime,rw,data=writeback"));
        assert_eq!(options(line, "98:1"), None);
    }

    #[test]
    fn a_mount_point_is_found_below_its_directory_only() {
        let line = br"36 35 98:0 / /opt/versions/v1/a\040b rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(below(line, b"/opt/versions"), Some((EntryName::new(*b"v1").unwrap(), b"a b".to_vec())));
        assert_eq!(below(line, b"/opt/version"), None);
        assert_eq!(below(line, b"/opt/versions/v1/a b"), None);
    }

    #[test]
    fn only_what_the_kernel_escapes_there_is_taken_back() {
        assert_eq!(&*unescape(br"/a\012b\040c", b"\n"), b"/a\nb\\040c");
        assert_eq!(&*unescape(br"/a\134012\9", b" \t\n\\"), br"/a\012\9");
    }
}
