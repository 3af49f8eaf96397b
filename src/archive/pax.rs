//! PAX extended headers: records of `length key=value\n` that override the fixed fields of a tar header.
//!
//! Values are taken by their length, so that names with newlines and binary attributes arrive whole. Where two readers
//! could understand a header differently (a path given twice, a global path), it is refused: such a difference is how
//! one archive shows one tree to the checker and another to the device.

use crate::model::Xattrs;

use super::Mtime;
use super::acl;

/// `XATTR_NAME_MAX` and `XATTR_SIZE_MAX` of Linux: no file system holds more.
const MAX_ATTRIBUTE_NAME: usize = 255;
const MAX_ATTRIBUTE_VALUE: usize = 64 << 10;

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// What the extended headers of one member say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) access_list: Option<Vec<u8>>,
    pub(super) default_list: Option<Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// GNU's records for sparse files, formats 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// 1 if the map stands before the data (format 1.0).
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offset and length of each piece of data.
    pub(super) map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl Sparse {
    /// Whether the member is sparse at all.
    pub(super) fn is_used(&self) -> bool {
        *self != Self::default()
    }
}

impl Pax {
    /// Reads the records of a member's own header.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        each_record(bytes, |key, value| pax.take(key, value))?;
        if pax.sparse.offset.is_some() {
            return Err("a sparse map ends with an offset".into());
        }
        Ok(pax)
    }

    /// Reads the records of a global header over earlier ones. Only times and owners may be global.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong.
    pub(super) fn take_global(&mut self, bytes: &[u8]) -> Result<(), String> {
        let pax = Self::parse(bytes)?;
        let Self { uid, gid, mtime, .. } = pax;
        if (Self { uid, gid, mtime, ..Self::default() }) != pax {
            return Err("a global header holds what only one member can have".into());
        }
        self.uid = uid.or(self.uid);
        self.gid = gid.or(self.gid);
        self.mtime = mtime.or(self.mtime);
        Ok(())
    }

    /// The attributes that are part of a version, access lists in the form of the kernel.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong.
    pub(super) fn xattrs(&self) -> Result<Xattrs, String> {
        let mut all = Vec::new();
        let lists = [(acl::ACCESS, &self.access_list), (acl::DEFAULT, &self.default_list)];
        for (name, text) in lists {
            if let Some(text) = text {
                all.extend(acl::from_text(name, text)?.map(|value| (name.to_vec(), value)));
            }
        }
        for (name, value) in self.attributes.iter().filter(|(name, _)| Xattrs::is_recorded(name)) {
            if name.len() > MAX_ATTRIBUTE_NAME || value.len() > MAX_ATTRIBUTE_VALUE || name.contains(&0) {
                return Err("an extended attribute that no file system can hold".into());
            }
            if name == acl::ACCESS || name == acl::DEFAULT {
                all.extend(acl::from_binary(name, value)?.map(|value| (name.clone(), value)));
            } else {
                all.push((name.clone(), value.clone()));
            }
        }
        Ok(Xattrs::collect(all))
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let decimal = || decimal(value).ok_or_else(|| not_a(key, "number"));
        let id = || decimal().and_then(|id| u32::try_from(id).map_err(|_| not_a(key, "32-bit id")));
        match key {
            b"path" => once(&mut self.path, key, value.to_vec()),
            b"linkpath" => once(&mut self.link_path, key, value.to_vec()),
            b"size" => once(&mut self.size, key, decimal()?),
            b"uid" => once(&mut self.uid, key, id()?),
            b"gid" => once(&mut self.gid, key, id()?),
            b"mtime" => once(&mut self.mtime, key, time(value).ok_or_else(|| not_a(key, "time"))?),
            b"SCHILY.acl.access" => once(&mut self.access_list, key, value.to_vec()),
            b"SCHILY.acl.default" => once(&mut self.default_list, key, value.to_vec()),
            b"GNU.sparse.major" => once(&mut self.sparse.major, key, decimal()?),
            b"GNU.sparse.minor" | b"GNU.sparse.numblocks" => decimal().map(drop),
            b"GNU.sparse.name" => once(&mut self.sparse.name, key, value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => once(&mut self.sparse.real_size, key, decimal()?),
            b"GNU.sparse.offset" => once(&mut self.sparse.offset, key, decimal()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or("a sparse length without an offset")?;
                self.sparse.map.push((offset, decimal()?));
                Ok(())
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(super::pax::decimal).collect();
                let numbers = numbers.filter(|all| all.len().is_multiple_of(2)).ok_or_else(|| not_a(key, "map"))?;
                self.sparse.map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                Ok(())
            }
            _ => {
                if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
                    self.attributes.push((unescape(name), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                    let value = base64(value).ok_or_else(|| not_a(key, "base64 value"))?;
                    self.attributes.push((unescape(name), value));
                }
                Ok(())
            }
        }
    }
}

fn once<T: PartialEq>(place: &mut Option<T>, key: &[u8], value: T) -> Result<(), String> {
    match place {
        Some(earlier) if *earlier != value => {
            Err(format!("the extended header gives {} twice", String::from_utf8_lossy(key)))
        }
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn not_a(key: &[u8], what: &str) -> String {
    format!("{} of the extended header is not a {what}", String::from_utf8_lossy(key))
}

/// Calls `take` for each `length key=value\n`; the length counts the whole record, itself included.
fn each_record(mut bytes: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<(), String>) -> Result<(), String> {
    const MALFORMED: &str = "a malformed extended header";
    while !bytes.is_empty() {
        let blank = bytes.iter().take(20).position(|b| *b == b' ').ok_or(MALFORMED)?;
        let length = decimal(&bytes[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or(MALFORMED)?;
        let record = bytes.get(blank + 1..length).ok_or(MALFORMED)?;
        let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(MALFORMED)?;
        take(&record[..equals], &record[equals + 1..])?;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with an optional sign and fraction; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Undoes `%3D` in an attribute's name: GNU tar escapes `=` and `%`, libarchive everything unusual.
fn unescape(name: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut out, mut rest) = (Vec::with_capacity(name.len()), name);
    while let [first, after @ ..] = rest {
        if let [b'%', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// Base64 as libarchive writes it: the usual alphabet, without padding or with it.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    let (mut out, mut bits, mut held) = (Vec::with_capacity(end * 3 / 4), 0_u32, 0_u32);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    (held < 6).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_are_taken_by_length_so_that_newlines_and_binary_survive() {
        let bytes = [
            record("path", b"a\nb\xff"),
            record("mtime", b"1700000000.123456789"),
            record("uid", b"4000000000"),
            record("comment", b""),
            record("SCHILY.xattr.user.a%3Db", b"\0\n=\xff"),
            record("LIBARCHIVE.xattr.user.caf%C3%A9", b"AAr/"),
            record("SCHILY.xattr.security.selinux", b"x"),
        ];
        let pax = Pax::parse(&bytes.concat()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb\xff"[..]));
        assert_eq!(pax.mtime, Some(Mtime { seconds: 1_700_000_000, nanoseconds: 123_456_789 }));
        assert_eq!(pax.uid, Some(4_000_000_000));
        let expected = [
            (b"user.a=b".to_vec(), b"\0\n=\xff".to_vec()),
            ("user.caf\u{e9}".as_bytes().to_vec(), b"\0\x0a\xff".to_vec()),
        ];
        assert_eq!(pax.xattrs().unwrap(), Xattrs::collect(expected));
    }

    #[test]
    fn malformed_or_ambiguous_headers_are_refused() {
        let bad: [&[u8]; 9] = [
            b"x",
            b"5 a=b",
            b"6 a=b\n6 a=b",
            b"999999 a=b\n",
            b"99999999999999999999 a=b\n",
            b"3 a=b\n",
            b"5 ab\n",
            b"9 uid=-1\n",
            b"0 a=b\n",
        ];
        for bytes in bad {
            assert!(Pax::parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(Pax::parse(&[record("path", b"a"), record("path", b"b")].concat()).is_err());
        assert!(Pax::parse(&record("uid", b"4294967296")).is_err());
        assert!(Pax::default().take_global(&record("path", b"a")).is_err());
        let mut global = Pax::default();
        global.take_global(&[record("comment", b"abc"), record("mtime", b"5")].concat()).unwrap();
        assert_eq!(global.mtime, Some(Mtime { seconds: 5, nanoseconds: 0 }));
        let huge = Pax::parse(&record("SCHILY.xattr.user.x", &vec![0; MAX_ATTRIBUTE_VALUE + 1])).unwrap();
        assert!(huge.xattrs().is_err());
    }

    #[test]
    fn times_before_1970_count_their_fraction_upwards() {
        let cases: [(&[u8], Option<Mtime>); 7] = [
            (b"-1.5", Some(Mtime { seconds: -2, nanoseconds: 500_000_000 })),
            (b"-3", Some(Mtime { seconds: -3, nanoseconds: 0 })),
            (b"1.0000000019", Some(Mtime { seconds: 1, nanoseconds: 1 })),
            (b"1.", Some(Mtime { seconds: 1, nanoseconds: 0 })),
            (b"", None),
            (b"1e5", None),
            (b"99999999999999999999", None),
        ];
        for (text, value) in cases {
            assert_eq!(time(text), value, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn base64_has_one_alphabet() {
        for (text, bytes) in [("", &b""[..]), ("Zg", b"f"), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo")] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(base64(b"Z"), None);
        assert_eq!(base64(b"Zm-v"), None);
    }
}
