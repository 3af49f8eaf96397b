//! Which kind of archive this is, told from its first bytes.
//!
//! Names lie: a `.tar.gz` that is really a zstd stream is common, and a hostile name is free. Only magic decides.

use std::fmt;

use super::header::{BLOCK, checksum_holds};

/// How many bytes [`Format::detect`] wants to see: one tar block, the longest magic.
pub const DETECT_BYTES: usize = BLOCK;

const GZIP: &[u8] = &[0x1f, 0x8b, 8];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// RFC 8878, 3.1.2: sixteen magic numbers begin a skippable frame; `pzstd` and seekable files start with one.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const ZIP_ENTRY: &[u8] = b"PK\x03\x04";
const ZIP_EMPTY: &[u8] = b"PK\x05\x06";

/// What else pipelines make: how it begins, what it is called, and the program that writes it out as it was packed.
const FOREIGN: [(&[u8], &str, Option<&str>); 11] = [
    (b"BZh", "bzip2", Some("bzip2 -dc")),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", Some("lz4 -dc")),
    (b"LZIP", "lzip", Some("lzip -dc")),
    (&[0x89, b'L', b'Z', b'O'], "lzop", Some("lzop -dc")),
    (&[0x1f, 0x9d], "compress", Some("gzip -dc")),
    (b"!<arch>\n", "a Debian package, or another ar archive", None),
    (&[0xed, 0xab, 0xee, 0xdb], "an RPM package", None),
    (b"7z\xbc\xaf\x27\x1c", "7z", None),
    (b"Rar!", "RAR", None),
    (b"07070", "cpio", None),
    (b"hsqs", "a squashfs image", None),
];

/// Says of bytes that [`Format::detect`] knows nothing of what they are, and what to do about it.
pub(super) fn what_else(first_bytes: &[u8]) -> String {
    let known = "tar, tar.gz, tar.xz, tar.zst nor zip";
    match FOREIGN.iter().find(|(magic, ..)| first_bytes.starts_with(magic)) {
        _ if first_bytes.is_empty() => "it is empty".to_owned(),
        None => format!("neither {known}"),
        Some((_, name, None)) => format!("it is {name}, and neither {known}: unpack it, and import the directory"),
        Some((_, name, Some(program))) => format!(
            "it is packed with {name}, and neither {known}: \
             {program} FILE | tope-store import - --version VERSION reads what is in it"
        ),
    }
}

/// A kind of archive that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A bare tar: v7, ustar, GNU or PAX.
    Tar,
    /// A tar in one or more gzip members.
    TarGz,
    /// A tar in one or more xz streams.
    TarXz,
    /// A tar in one or more zstd frames.
    TarZst,
    /// A zip, with or without zip64.
    Zip,
}

impl Format {
    /// Tells the format from the first [`DETECT_BYTES`] bytes (fewer, if there are no more).
    ///
    /// A tar is known by a header whose checksum holds, or by a first block of zeros (an empty tar). Compressed streams
    /// are taken to hold a tar; reading says so if one does not.
    pub fn detect(first_bytes: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| first_bytes.starts_with(magic);
        let skippable = first_bytes.first().is_some_and(|b| b & 0xf0 == 0x50)
            && first_bytes.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPABLE));
        if starts(GZIP) {
            Some(Self::TarGz)
        } else if starts(XZ) {
            Some(Self::TarXz)
        } else if starts(ZSTD) || skippable {
            Some(Self::TarZst)
        } else if starts(ZIP_ENTRY) || starts(ZIP_EMPTY) {
            Some(Self::Zip)
        } else {
            let block: &[u8; BLOCK] = first_bytes.first_chunk()?;
            let tar = checksum_holds(block) || block.get(257..262) == Some(b"ustar") || block.iter().all(|b| *b == 0);
            tar.then_some(Self::Tar)
        }
    }

    /// The name that users know: `tar`, `tar.gz`, `tar.xz`, `tar.zst`, `zip`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarXz => "tar.xz",
            Self::TarZst => "tar.zst",
            Self::Zip => "zip",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_decides_and_short_or_foreign_bytes_are_nothing() {
        let mut ustar = [0; BLOCK];
        ustar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], Option<Format>); 12] = [
            (&[0x1f, 0x8b, 8, 0], Some(Format::TarGz)),
            (b"\xfd7zXZ\0\0", Some(Format::TarXz)),
            (&[0x28, 0xb5, 0x2f, 0xfd], Some(Format::TarZst)),
            (&[0x5f, 0x2a, 0x4d, 0x18], Some(Format::TarZst)),
            (b"PK\x03\x04", Some(Format::Zip)),
            (b"PK\x05\x06", Some(Format::Zip)),
            (&ustar, Some(Format::Tar)),
            (&[0; BLOCK], Some(Format::Tar)),
            (b"", None),
            (b"PK", None),
            (&[0; BLOCK - 1], None),
            (&[b'x'; BLOCK], None),
        ];
        for (bytes, format) in cases {
            assert_eq!(Format::detect(bytes), format, "{:?}", &bytes[..bytes.len().min(8)]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_called_by_its_name() {
        assert_eq!(what_else(b""), "it is empty");
        assert_eq!(what_else(b"text"), "neither tar, tar.gz, tar.xz, tar.zst nor zip");
        let packed = what_else(b"BZh91AY&SY");
        assert!(packed.contains("bzip2 -dc FILE | tope-store import -"), "{packed}");
        assert!(what_else(b"!<arch>\ndebian-binary").starts_with("it is a Debian package"));
        for (magic, ..) in FOREIGN {
            assert_eq!(Format::detect(magic), None);
        }
    }

    #[test]
    fn an_old_v7_header_is_known_by_its_checksum() {
        let mut header = tar::Header::new_old();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert_eq!(Format::detect(header.as_bytes()), Some(Format::Tar));
    }
}
