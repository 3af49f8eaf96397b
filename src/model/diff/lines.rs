//! Text patches: two byte strings in, a unified diff out, as `diff -u` and `git diff` write it and `patch -p1` reads it.
//!
//! A line ends with a newline and nothing else; carriage returns and bytes that are not UTF-8 are part of it, so that
//! the patch gives the second file back byte by byte. Names stand behind `a/` and `b/` and are quoted as git does.

use std::collections::HashMap;
use std::time::Instant;

use similar::udiff::UnifiedHunkHeader;
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline, group_diff_ops};

use crate::model::name::TreePath;

/// How many equal lines surround a difference, as with `diff -u`.
pub const CONTEXT_LINES: usize = 3;
/// How many bytes are looked at to tell text from other data; as many as git does.
pub const BINARY_PROBE_BYTES: usize = 8 * 1024;
/// Largest file of which differing lines are shown unless told otherwise. A device has 512 MiB of memory; both sides are
/// held with some twenty bytes per line, so that even two files of nothing but newlines stay below 200 MiB.
pub const MAX_PATCH_BYTES: u64 = 4 << 20;

/// One side of a patch.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Where the file is.
    pub path: &'a TreePath,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Why no lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotShown {
    /// One side is not text.
    Binary,
    /// One side has more bytes than this.
    TooLarge(u64),
}

/// Whether these bytes are something else than text: a NUL in the first 8 KiB says so, as git and grep see it.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(BINARY_PROBE_BYTES)].contains(&0)
}

/// The patch that makes the second side of the first. Empty if they are equal; a side that is absent is `/dev/null`.
///
/// Data that are not text, or longer than `max_bytes`, give the one line of [`differ`]. Past the `deadline` the lines
/// are compared less thoroughly: the patch is still right, and longer than it need be.
pub fn patch(before: Option<Side<'_>>, after: Option<Side<'_>>, max_bytes: u64, deadline: Option<Instant>) -> Vec<u8> {
    let paths = (before.map(|side| side.path), after.map(|side| side.path));
    let (old, new) = (before.map_or(&b""[..], |side| side.bytes), after.map_or(&b""[..], |side| side.bytes));
    if old == new {
        return Vec::new();
    }
    let max_bytes = max_bytes.min(u64::from(u32::MAX));
    if old.len().max(new.len()) as u64 > max_bytes {
        return differ(paths.0, paths.1, NotShown::TooLarge(max_bytes));
    }
    if is_binary(old) || is_binary(new) {
        return differ(paths.0, paths.1, NotShown::Binary);
    }
    let (old, new) = (lines(old), lines(new));
    let mut numbers = HashMap::new();
    let (old_numbers, new_numbers) = (number(&old, &mut numbers), number(&new, &mut numbers));
    let changes = capture_diff_slices_deadline(Algorithm::Myers, &old_numbers, &new_numbers, deadline);
    let mut out = head(paths.0, paths.1);
    for hunk in group_diff_ops(changes, CONTEXT_LINES) {
        out.extend_from_slice(UnifiedHunkHeader::new(&hunk).to_string().as_bytes());
        out.push(b'\n');
        for change in hunk {
            let (tag, gone, come) = change.as_tag_tuple();
            let (gone, come) = (&old[gone], &new[come]);
            match tag {
                DiffTag::Equal => put_lines(&mut out, b' ', gone),
                DiffTag::Delete | DiffTag::Insert | DiffTag::Replace => {
                    put_lines(&mut out, b'-', gone);
                    put_lines(&mut out, b'+', come);
                }
            }
        }
    }
    out
}

/// The line that stands where lines are not shown: `Binary files a/x and b/x differ`, as `diff` and git have it.
pub fn differ(before: Option<&TreePath>, after: Option<&TreePath>, why: NotShown) -> Vec<u8> {
    let (old, new) = (side_name(b"a/", before), side_name(b"b/", after));
    let (what, note) = match why {
        NotShown::Binary => ("Binary files", String::new()),
        NotShown::TooLarge(bytes) => ("Files", format!(" (larger than {bytes} bytes)")),
    };
    [what.as_bytes(), b" ", &old, b" and ", &new, b" differ", note.as_bytes(), b"\n"].concat()
}

fn head(before: Option<&TreePath>, after: Option<&TreePath>) -> Vec<u8> {
    let mut out = Vec::new();
    for (sign, prefix, path) in [(b"--- ", b"a/", before), (b"+++ ", b"b/", after)] {
        let name = side_name(prefix, path);
        out.extend_from_slice(sign);
        out.extend_from_slice(&name);
        // `patch` takes a name with spaces to its end only if a tab follows (where a time would stand).
        if name.contains(&b' ') {
            out.push(b'\t');
        }
        out.push(b'\n');
    }
    out
}

fn side_name(prefix: &[u8], path: Option<&TreePath>) -> Vec<u8> {
    match path {
        Some(path) => quote(&[prefix, path.as_bytes()].concat()),
        None => b"/dev/null".to_vec(),
    }
}

/// Quotes a name as git does (`core.quotePath`): in double quotes, with the escapes of C, if it holds a quote, a
/// backslash, a control character or a byte beyond ASCII; else as it is.
pub fn quote(name: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    if name.iter().all(plain) {
        return name.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in name {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            0x07 => quoted.extend(b"\\a"),
            0x08 => quoted.extend(b"\\b"),
            b'\t' => quoted.extend(b"\\t"),
            b'\n' => quoted.extend(b"\\n"),
            0x0b => quoted.extend(b"\\v"),
            0x0c => quoted.extend(b"\\f"),
            b'\r' => quoted.extend(b"\\r"),
            b' '..=b'~' => quoted.push(*byte),
            _ => quoted.extend(format!("\\{byte:03o}").as_bytes()),
        }
    }
    quoted.push(b'"');
    quoted
}

/// The lines with their newlines; the last may lack it.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

/// Equal lines get equal numbers, so that each is hashed once and compared in one step.
fn number<'a>(lines: &[&'a [u8]], numbers: &mut HashMap<&'a [u8], u32>) -> Vec<u32> {
    lines
        .iter()
        .map(|line| {
            // 2^32 distinct lines have more bytes than any limit lets through.
            let next = numbers.len() as u32;
            *numbers.entry(line).or_insert(next)
        })
        .collect()
}

fn put_lines(out: &mut Vec<u8>, sign: u8, lines: &[&[u8]]) {
    for line in lines {
        out.push(sign);
        out.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            out.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn path(bytes: impl AsRef<[u8]>) -> TreePath {
        TreePath::parse(bytes.as_ref()).unwrap()
    }

    fn between(name: &TreePath, old: &[u8], new: &[u8]) -> Vec<u8> {
        patch(Some(Side { path: name, bytes: old }), Some(Side { path: name, bytes: new }), MAX_PATCH_BYTES, None)
    }

    fn shown(old: &str, new: &str) -> String {
        String::from_utf8(between(&path("f"), old.as_bytes(), new.as_bytes())).unwrap()
    }

    #[test]
    fn a_patch_has_three_lines_around_every_difference() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n";
        assert_eq!(
            shown(old, new),
            "--- a/f\n+++ b/f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n@@ -13,3 +13,4 @@\n 13\n 14\n 15\n+16\n"
        );
        assert_eq!(shown(old, old), "");
    }

    #[test]
    fn a_missing_newline_at_the_end_is_said_on_the_side_that_lacks_it() {
        let none = "\\ No newline at end of file";
        assert_eq!(shown("a\nb", "a\nb\n"), format!("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n{none}\n+b\n"));
        assert_eq!(shown("b\n", "b"), format!("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-b\n+b\n{none}\n"));
        assert_eq!(shown("a\nb", "c\nb"), format!("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-a\n+c\n b\n{none}\n"));
    }

    #[test]
    fn files_that_come_and_go_are_dev_null_on_the_other_side() {
        let name = path("d/f");
        let side = Some(Side { path: &name, bytes: b"x\n" });
        assert_eq!(patch(None, side, 99, None), b"--- /dev/null\n+++ b/d/f\n@@ -0,0 +1 @@\n+x\n");
        assert_eq!(patch(side, None, 99, None), b"--- a/d/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n");
    }

    #[test]
    fn data_that_are_no_text_or_too_long_give_one_line() {
        let name = path("my app");
        assert_eq!(between(&name, b"a\0b", b"c"), b"Binary files a/my app and b/my app differ\n");
        let late = [vec![b'x'; BINARY_PROBE_BYTES], vec![0]].concat();
        assert!(!is_binary(&late) && is_binary(&late[1..]));
        let (old, new) = (Side { path: &name, bytes: b"12345" }, Side { path: &name, bytes: b"12" });
        assert_eq!(patch(Some(old), Some(new), 4, None), b"Files a/my app and b/my app differ (larger than 4 bytes)\n");
        assert_eq!(differ(None, Some(&path("x")), NotShown::Binary), b"Binary files /dev/null and b/x differ\n");
    }

    #[test]
    fn names_are_quoted_as_git_does() {
        for (name, quoted) in [
            (&b"a/plain-name_1.x"[..], &b"a/plain-name_1.x"[..]),
            (b"a b'c", b"a b'c"),
            (b"a\"b", b"\"a\\\"b\""),
            (b"a\\b", b"\"a\\\\b\""),
            (b"\x07\x08\t\n\x0b\x0c\r", b"\"\\a\\b\\t\\n\\v\\f\\r\""),
            (b"\x1b[31m\x7f", b"\"\\033[31m\\177\""),
            ("n\u{e4}".as_bytes(), b"\"n\\303\\244\""),
            (b"\xff", b"\"\\377\""),
        ] {
            assert_eq!(quote(name), quoted);
        }
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_the_patch() {
        let shown = between(&path(b"x\n+++ b/etc/passwd"), b"1\n", b"2\n");
        assert_eq!(shown.split(|b| *b == b'\n').filter(|line| line.starts_with(b"+++ ")).count(), 1);
        assert!(shown.starts_with(b"--- \"a/x\\n+++ b/etc/passwd\"\t\n"));
    }

    #[test]
    fn a_deadline_that_has_passed_still_gives_a_right_patch() {
        let text = |seed: usize| (0..3000).map(|i| format!("{}\n", i * seed % 97)).collect::<String>();
        let (old, new, name) = (text(7), text(13), path("f"));
        let past = Instant::now().checked_sub(Duration::from_secs(1));
        let side = |bytes| Some(Side { path: &name, bytes });
        let quick = patch(side(old.as_bytes()), side(new.as_bytes()), MAX_PATCH_BYTES, past);
        assert_eq!(apply(&quick, old.as_bytes()), new.as_bytes());
    }

    /// Applies a patch by its hunks' numbers alone, checking every line that it claims to see.
    fn apply(patch: &[u8], old: &[u8]) -> Vec<u8> {
        let old = lines(old);
        let (mut new, mut at) = (Vec::new(), 0);
        let mut rest = patch.split_inclusive(|b| *b == b'\n').skip(2).peekable();
        while let Some(line) = rest.next() {
            if line.starts_with(b"@@ -") {
                let header = std::str::from_utf8(line).unwrap();
                let mut numbers =
                    header[4..].split(' ').next().unwrap().split(',').map(|n| n.parse::<usize>().unwrap());
                let (start, count) = (numbers.next().unwrap(), numbers.next().unwrap_or(1));
                let start = if count == 0 { start } else { start - 1 };
                new.extend(old[at..start].concat());
                at = start;
                continue;
            }
            let mut body = line[1..].to_vec();
            if rest.next_if(|next| next.starts_with(b"\\")).is_some() {
                body.pop();
            }
            if line[0] != b'+' {
                assert_eq!(body, old[at]);
                at += 1;
            }
            if line[0] != b'-' {
                new.extend(body);
            }
        }
        new.extend(old[at..].concat());
        new
    }

    /// What `patch -p1` makes of the old file, found by the name in the patch; `None` where there is no `patch`.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn patched(name: &str, old: &[u8], patch: &[u8]) -> Option<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = tempfile::Builder::new();
        let inner = builder.prefix("d").rand_bytes(0).tempdir_in(directory.path()).unwrap();
        let base = Path::new(name).file_name().unwrap();
        let mut file = tempfile::Builder::new().prefix(base).rand_bytes(0).tempfile_in(inner.path()).unwrap();
        file.write_all(old).unwrap();
        let mut command = Command::new("patch");
        command.args(["-p1", "--quiet", "--output=-", "--fuzz=0"]).current_dir(directory.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: there is no patch(1) here");
            return None;
        };
        child.stdin.take().unwrap().write_all(patch).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(patch)
        );
        Some(output.stdout)
    }

    #[test]
    fn the_real_patch_reproduces_the_new_file() {
        let long: String = (0..200).map(|i| format!("line {i}\n")).collect();
        let edited = long.replace("line 20\n", "").replace("line 150\n", "line 150\nand more\n");
        for name in ["d/f", "d/my file.conf", "d/n\u{e4}me", "d/quo\"te", "d/back\\slash", "d/tab\there"] {
            for (old, new) in [
                ("a\nb\nc\n", "a\nB\nc\n"),
                ("a\nb", "a\nb\n"),
                ("a\nb\n", "a\nb"),
                ("a\nb", "c\nb"),
                ("x\n", "x\ny"),
                ("a\r\nb\r\n", "a\r\nc\r\n"),
                ("a\rb\n", "a\rc\n"),
                ("\n\n\n", "\n\n"),
                ("--- a\n+++ b\n@@ -1 +1 @@\n", "--- a\n+++ c\n"),
                (&long, &edited),
            ] {
                let made = between(&path(name), old.as_bytes(), new.as_bytes());
                let Some(result) = patched(name, old.as_bytes(), &made) else { return };
                assert_eq!(String::from_utf8_lossy(&result), new, "{name}: {old:?} -> {new:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_patch_gives_the_new_file_back(
            old in "([a-d]{0,2}\r?\n){0,30}[a-d]{0,2}",
            new in "([a-d]{0,2}\r?\n){0,30}[a-d]{0,2}",
        ) {
            let made = between(&path("f"), old.as_bytes(), new.as_bytes());
            prop_assert_eq!(apply(&made, old.as_bytes()), new.as_bytes());
            prop_assert_eq!(made.is_empty(), old == new);
        }

        #[test]
        fn a_quoted_name_is_one_line_of_ascii(name in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert!(quote(&name).iter().all(|b| (b' '..=b'~').contains(b)));
        }
    }
}
