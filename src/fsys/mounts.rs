//! Mount points below a directory.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::model::EntryName;

/// Mount points below `directory` (absolute, without symbolic links): the name directly in it, and the path below that.
/// Those of other mount namespaces are not seen.
pub fn mounts_below(directory: &Path) -> Vec<(EntryName, Vec<u8>)> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(|line| below(line, directory.as_os_str().as_bytes())).collect()
}

/// A line of `/proc/self/mountinfo`: the mount point is its fifth field.
fn below(line: &[u8], directory: &[u8]) -> Option<(EntryName, Vec<u8>)> {
    let point = unescape(line.split(|byte| *byte == b' ').nth(4)?);
    let rest = point.strip_prefix(directory)?.strip_prefix(b"/")?;
    let (name, path) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
    Some((EntryName::new(name).ok()?, path.strip_prefix(b"/").unwrap_or(path).to_vec()))
}

/// Blanks, tabs, newlines and backslashes stand there as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_found_below_its_directory_only() {
        let line = br"36 35 98:0 / /opt/versions/v1/a\040b rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(below(line, b"/opt/versions"), Some((EntryName::new(*b"v1").unwrap(), b"a b".to_vec())));
        assert_eq!(below(line, b"/opt/version"), None);
        assert_eq!(below(line, b"/opt/versions/v1/a b"), None);
    }
}
