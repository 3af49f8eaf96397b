//! POSIX access control lists: from the text of a tar, or the bytes of an attribute, to the kernel's form.
//!
//! The text is that of `acl(5)`, `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`, separated by commas or
//! newlines, in star's and libarchive's variant with the id behind (`user:alice:rw-:1000`). The kernel's form is
//! `linux/posix_acl_xattr.h`.
//!
//! **Names are not looked up.** GNU tar writes names of users; what they mean depends on the machine that reads them,
//! and one archive must give one digest everywhere. A named entry without a number is therefore refused (`root` is 0
//! everywhere); star's and libarchive's archives carry the number, and so do the raw attributes of
//! `tar --xattrs --xattrs-include='*'`.

/// Name of the attribute that holds the access list.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the attribute that holds a directory's default list.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Tag, id, permissions: in the order in which the kernel wants them.
type AclEntry = (u16, u32, u16);

/// Reads the text form. `None` if the list says no more than the mode does.
///
/// # Errors
///
/// A text that says what is wrong.
pub(super) fn from_text(name: &[u8], text: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut entries = Vec::new();
    for line in text.split(|b| matches!(b, b',' | b'\n')) {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default().trim_ascii();
        if !line.is_empty() {
            let line = String::from_utf8_lossy(line);
            entries.push(entry(line.strip_prefix("default:").unwrap_or(&line))?);
        }
    }
    encode(name, entries)
}

/// Checks the kernel's form and puts it in order. `None` if the list says no more than the mode does.
///
/// # Errors
///
/// A text that says what is wrong.
pub(super) fn from_binary(name: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let malformed = || "a malformed access control list".to_owned();
    let (version, rest) = value.split_first_chunk::<4>().ok_or_else(malformed)?;
    if u32::from_le_bytes(*version) != VERSION || !rest.len().is_multiple_of(8) {
        return Err(malformed());
    }
    let entries = rest.chunks_exact(8).map(|entry| {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let id = if matches!(tag, USER | GROUP) { id } else { NO_ID };
        (tag, id, u16::from_le_bytes([entry[2], entry[3]]))
    });
    encode(name, entries.collect())
}

fn entry(line: &str) -> Result<AclEntry, String> {
    let wrong = || format!("an access control entry that cannot be read: {}", line.escape_default());
    let mut fields = line.split(':').map(str::trim);
    let (kind, second) = (fields.next().unwrap_or_default(), fields.next().ok_or_else(wrong)?);
    let (who, mode, id) = match fields.next() {
        Some(mode) => (second, mode, fields.next()),
        // `mask:rwx`, `other:r--`: the empty name may be left out.
        None => ("", second, None),
    };
    if fields.next().is_some() {
        return Err(wrong());
    }
    let tag = match (kind, who) {
        ("user" | "u", "") => USER_OBJ,
        ("user" | "u", _) => USER,
        ("group" | "g", "") => GROUP_OBJ,
        ("group" | "g", _) => GROUP,
        ("mask" | "m", "") => MASK,
        ("other" | "o", "") => OTHER,
        _ => return Err(wrong()),
    };
    let number = match tag {
        USER | GROUP => {
            let number = id.unwrap_or(who).parse().ok().or_else(|| (who == "root").then_some(0));
            number.filter(|id| *id != NO_ID).ok_or_else(|| {
                let who = who.escape_default();
                format!("its access list names {who} without a number, and names differ between machines")
            })?
        }
        _ => NO_ID,
    };
    let mut permissions = 0;
    for letter in mode.chars() {
        permissions |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(wrong()),
        };
    }
    Ok((tag, number, permissions))
}

fn encode(name: &[u8], mut entries: Vec<AclEntry>) -> Result<Option<Vec<u8>>, String> {
    entries.sort_unstable();
    let count = |wanted: u16| entries.iter().filter(|(tag, ..)| *tag == wanted).count();
    let named = count(USER) + count(GROUP);
    let known = [USER_OBJ, GROUP_OBJ, OTHER, MASK].into_iter().map(count).sum::<usize>() + named == entries.len();
    let bases = [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1);
    let masked = count(MASK) == 1 || (count(MASK) == 0 && named == 0);
    let distinct = entries.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1));
    if name == DEFAULT && entries.is_empty() {
        return Ok(None);
    }
    if !(known && bases && masked && distinct) || entries.iter().any(|(.., mode)| *mode > 7) {
        return Err("an access control list that the kernel would not take".into());
    }
    if name == ACCESS && entries.len() == 3 {
        return Ok(None);
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn text_becomes_what_the_kernel_keeps() {
        let expected = bytes(&[
            (USER_OBJ, 6, NO_ID),
            (USER, 4, 5),
            (USER, 6, 1000),
            (GROUP_OBJ, 4, NO_ID),
            (GROUP, 5, 0),
            (MASK, 6, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        let texts = [
            "user::rw-\nuser:1000:rw-\nuser:5:r--\ngroup::r--\ngroup:root:r-x\nmask::rw-\nother::---\n",
            "user::rw-,user:alice:rw-:1000,user:bob:r--:5,group::r--,group:root:r-x:0,mask:rw-,other:---",
        ];
        for text in texts {
            assert_eq!(from_text(ACCESS, text.as_bytes()), Ok(Some(expected.clone())), "{text}");
        }
        assert_eq!(from_binary(ACCESS, &expected), Ok(Some(expected)));
    }

    #[test]
    fn a_list_that_only_repeats_the_mode_is_no_attribute() {
        let text = b"user::rw-\ngroup::r--\nother::r--\n";
        assert_eq!(from_text(ACCESS, text), Ok(None));
        assert!(from_text(DEFAULT, text).unwrap().is_some(), "a default list means something even so");
    }

    #[test]
    fn names_are_not_looked_up_and_nonsense_is_refused() {
        let named = from_text(ACCESS, b"user::rw-,user:alice:rw-,group::r--,mask::rw-,other::---").unwrap_err();
        assert!(named.contains("alice"), "{named}");
        for wrong in ["x", "user::rw-", "user::rwz,group::---,other::---", "user::rw-,user:1:r--,group::---,other::---"]
        {
            assert!(from_text(ACCESS, wrong.as_bytes()).is_err(), "{wrong}");
        }
        for wrong in [&b""[..], &[2, 0, 0, 0, 1], &[1, 0, 0, 0], &bytes(&[(USER_OBJ, 9, 0)]), &bytes(&[(64, 1, 0)])] {
            assert!(from_binary(ACCESS, wrong).is_err(), "{wrong:?}");
        }
    }
}
