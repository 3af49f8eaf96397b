//! The fixed fields of a tar header: checksum and numbers.
//!
//! Layout: POSIX.1-2017 `pax`, "ustar Interchange Format", and GNU tar's manual, "Basic Tar Format".

/// Everything in a tar comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Whether a block is a header: the sum of its bytes, the checksum field taken as blanks, is what that field says. Some
/// old programs summed signed bytes, so both readings count (as GNU tar has it).
pub(super) fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let bytes = block.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
    let (unsigned, signed) = bytes.fold((0_i64, 0_i64), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
    });
    number(&block[CHECKSUM]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Reads a numeric field: octal digits among blanks and NULs (none at all is 0), or, with the highest bit set, a
/// big-endian two's complement number (GNU's and star's "base-256").
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Six bits of the first byte count; sign-extend from there.
            let start = i128::from((first << 1).cast_signed() >> 1);
            let value = rest
                .iter()
                .try_fold(start, |value, byte| value.checked_mul(256).map(|value| value + i128::from(*byte)))?;
            i64::try_from(value).ok()
        }
        _ => {
            let start = field.iter().position(|b| !matches!(b, b' ' | 0)).unwrap_or(field.len());
            let digits = &field[start..];
            let end = digits.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(digits.len());
            digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

/// Reads a field that cannot be negative.
pub(super) fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_nothing_else() {
        let cases: [(&[u8], Option<i64>); 11] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"08", None),
            (b"-1", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field), value, "{field:?}");
        }
        assert_eq!(unsigned(b"\xff\xff\xff\xff"), None);
    }
}
