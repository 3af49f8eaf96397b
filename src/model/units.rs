//! Sizes and durations as people write them: `64MiB`, `1.5GB`, `1000`; `30d`, `5s`, `1h30m`.
//!
//! Reading is strict, since a size that is read wrongly deletes the wrong versions: every unit says whether it counts
//! in thousands (`kB`, `MB`, …) or in 1024s (`KiB`, `MiB`, …), and the bare letters that other tools read now one way,
//! now the other (`K`, `M`) are refused with both spellings.
//!
//! **Invariant:** what [`exact_size`] and [`exact_duration`] print reads back as the same value.

use std::fmt;
use std::time::Duration;

use crate::error::Shown;

/// Units of size with their bytes, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of time with their milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Most digits behind the point: more than any unit can need, few enough for exact arithmetic.
const MAX_FRACTION_DIGITS: usize = 12;

/// A text that is no size or no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem} at character {}", Shown::text(text), self.position())]
pub struct UnitError {
    /// The text as given.
    pub text: String,
    /// Byte offset of what is wrong with it.
    pub at: usize,
    /// What is wrong.
    pub problem: UnitProblem,
}

impl UnitError {
    /// The place of the problem, counted in characters from 1, as people count.
    pub fn position(&self) -> usize {
        self.text.get(..self.at).map_or(self.at, |before| before.chars().count()) + 1
    }
}

/// What is wrong with a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitProblem {
    /// A number must stand here.
    NoNumber,
    /// A unit of time must follow the number: what a bare number counts is anybody's guess.
    NoUnit,
    /// These letters are no unit of size.
    UnknownSizeUnit(String),
    /// These letters are no unit of time.
    UnknownTimeUnit(String),
    /// Bytes and parts of durations are not divisible here.
    Fraction,
    /// Larger than can be counted.
    TooLarge,
    /// The units of a duration go from large to small, each once.
    Order,
}

impl fmt::Display for UnitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => f.write_str("a number is missing"),
            Self::NoUnit => f.write_str("a unit is missing (one of w, d, h, m, s, ms)"),
            Self::UnknownSizeUnit(unit) => match two_readings(unit) {
                Some((thousands, powers)) => write!(
                    f,
                    "{} is not clear: write {thousands} (powers of 1000) or {powers} (powers of 1024)",
                    Shown::text(unit)
                ),
                None => {
                    write!(f, "{} is no unit of size (one of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB)", Shown::text(unit))
                }
            },
            Self::UnknownTimeUnit(unit) => {
                write!(f, "{} is no unit of time (one of w, d, h, m, s, ms)", Shown::text(unit))
            }
            Self::Fraction => f.write_str("a fraction that is not possible here"),
            Self::TooLarge => f.write_str("a number that is too large"),
            Self::Order => f.write_str("a unit out of order (from large to small, each once)"),
        }
    }
}

/// The two units that a letter such as `M` could stand for.
fn two_readings(unit: &str) -> Option<(&'static str, &'static str)> {
    match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "k" => Some(("kB", "KiB")),
        "m" => Some(("MB", "MiB")),
        "g" => Some(("GB", "GiB")),
        "t" => Some(("TB", "TiB")),
        _ => None,
    }
}

/// Reads a size in bytes: digits, perhaps a fraction, perhaps one space, perhaps a unit; without a unit bytes.
///
/// A fraction of a unit is rounded down to whole bytes (`0.1MiB` is 104857 bytes); a fraction of a byte is refused.
///
/// # Errors
///
/// [`UnitError`] with the place of the first thing that is wrong.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let fail = |at, problem| Err(UnitError { text: text.to_owned(), at, problem });
    let digits = leading_digits(text);
    let mut at = digits.len();
    if digits.is_empty() {
        return fail(0, UnitProblem::NoNumber);
    }
    let mut fraction = "";
    if text[at..].starts_with('.') {
        fraction = leading_digits(&text[at + 1..]);
        if fraction.is_empty() {
            return fail(at + 1, UnitProblem::NoNumber);
        }
        if fraction.len() > MAX_FRACTION_DIGITS {
            return fail(at + 1 + MAX_FRACTION_DIGITS, UnitProblem::Fraction);
        }
        at += 1 + fraction.len();
    }
    let written = text[at..].strip_prefix(' ').unwrap_or(&text[at..]);
    let unit_at = text.len() - written.len();
    let bytes_per_unit = match (written, unit_at > at) {
        ("", false) => 1,
        ("", true) => return fail(unit_at, UnitProblem::UnknownSizeUnit(String::new())),
        _ => match SIZE_UNITS.iter().find(|(unit, _)| *unit == written) {
            Some((_, bytes)) => *bytes,
            None => return fail(unit_at, UnitProblem::UnknownSizeUnit(written.to_owned())),
        },
    };
    if bytes_per_unit == 1 && !fraction.is_empty() {
        return fail(digits.len(), UnitProblem::Fraction);
    }
    let whole = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(bytes_per_unit));
    // At most 10^12 times 2^40: far inside 128 bits.
    let parts: u128 = fraction.parse().unwrap_or(0);
    let part = parts * u128::from(bytes_per_unit) / 10_u128.pow(fraction.len() as u32);
    match whole.and_then(|whole| whole.checked_add(part as u64)) {
        Some(bytes) => Ok(bytes),
        None => fail(0, UnitProblem::TooLarge),
    }
}

/// The shortest exact spelling of a size: in the largest unit that divides it (of two equal counts the unit of 1024s),
/// else as a bare number of bytes. Reads back as the same value.
pub fn exact_size(bytes: u64) -> String {
    let divides = |(unit, each): &(&'static str, u64)| {
        (*each > 1 && bytes > 0 && bytes.is_multiple_of(*each)).then(|| (bytes / each, *unit))
    };
    // Fewest digits first; the table's order settles the rest.
    match SIZE_UNITS.iter().filter_map(divides).min_by_key(|(count, _)| count.to_string().len()) {
        Some((count, unit)) => format!("{count}{unit}"),
        None => bytes.to_string(),
    }
}

/// A size for people: three or more digits in a unit of 1024s, as in `1.46 GiB`, `64.0 MiB`, `512 B`.
pub fn readable_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, each)) = UNITS.into_iter().find(|(_, each)| bytes >= *each) else {
        return format!("{bytes} B");
    };
    // In integers, rounded down, so that the same number prints the same way everywhere and never as more than it is.
    let (whole, hundredths) = (bytes / each, (u128::from(bytes % each) * 100 / u128::from(each)) as u64);
    match whole {
        0..10 => format!("{whole}.{hundredths:02} {unit}"),
        10..100 => format!("{whole}.{} {unit}", hundredths / 10),
        _ => format!("{whole} {unit}"),
    }
}

/// Reads a duration: whole numbers with units from large to small, each unit once, without spaces: `30d`, `1h30m`.
///
/// Units are `w`, `d` (always 24 hours), `h`, `m` (minutes), `s`, `ms`. `0` alone needs no unit.
///
/// # Errors
///
/// [`UnitError`] with the place of the first thing that is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let fail = |at, problem| Err(UnitError { text: text.to_owned(), at, problem });
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut at, mut milliseconds, mut smallest) = (0, 0_u64, None);
    while at < text.len() || smallest.is_none() {
        let digits = leading_digits(&text[at..]);
        if digits.is_empty() {
            return fail(at, UnitProblem::NoNumber);
        }
        let unit_at = at + digits.len();
        if text[unit_at..].starts_with('.') {
            return fail(unit_at, UnitProblem::Fraction);
        }
        let rest = &text[unit_at..];
        let written = &rest[..rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len())];
        if written.is_empty() {
            return fail(unit_at, UnitProblem::NoUnit);
        }
        let Some(unit) = TIME_UNITS.iter().position(|(unit, _)| *unit == written) else {
            return fail(unit_at, UnitProblem::UnknownTimeUnit(written.to_owned()));
        };
        if smallest.is_some_and(|smallest| unit <= smallest) {
            return fail(unit_at, UnitProblem::Order);
        }
        smallest = Some(unit);
        let part = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(TIME_UNITS[unit].1));
        milliseconds = match part.and_then(|part| milliseconds.checked_add(part)) {
            Some(sum) => sum,
            None => return fail(at, UnitProblem::TooLarge),
        };
        at = unit_at + written.len();
    }
    Ok(Duration::from_millis(milliseconds))
}

/// The exact spelling of a duration, to the millisecond: `30d`, `1h30m`, `0s`. Whole weeks are printed as days, since
/// that is how policies are written. Reads back as the same value.
pub fn exact_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, each) in TIME_UNITS.into_iter().skip(1) {
        if left >= each {
            text.push_str(&format!("{}{unit}", left / each));
            left %= each;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

fn leading_digits(text: &str) -> &str {
    &text[..text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_count_in_the_unit_that_is_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("7B", 7),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("1.5GB", 1_500_000_000),
            ("1.5GiB", 3 << 29),
            ("0.1MiB", 104_857),
            ("0.999999999999TiB", (1 << 40) - 2),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_could_be_read_two_ways_are_refused_with_both() {
        for text in ["500M", "500m", "500mb", "500Mib", "500mib"] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.at, 3, "{text}");
            let unit = &text[3..];
            assert_eq!(
                error.to_string(),
                format!(
                    "{text}: {unit} is not clear: write MB (powers of 1000) or MiB (powers of 1024) at character 4"
                )
            );
        }
        assert!(parse_size("1KB").is_err(), "neither kB nor KiB");
    }

    #[test]
    fn a_wrong_size_is_refused_at_its_place() {
        use UnitProblem::{Fraction, NoNumber, TooLarge};
        let unknown = |unit: &str| UnitProblem::UnknownSizeUnit(unit.into());
        for (text, at, problem) in [
            ("", 0, NoNumber),
            ("MiB", 0, NoNumber),
            ("-1", 0, NoNumber),
            ("+1", 0, NoNumber),
            (" 1", 0, NoNumber),
            ("1.", 2, NoNumber),
            ("1.MiB", 2, NoNumber),
            ("1.5", 1, Fraction),
            ("1.5B", 1, Fraction),
            ("1.1234567890123MB", 14, Fraction),
            ("1 ", 2, unknown("")),
            ("1  MB", 2, unknown(" MB")),
            ("1MB ", 1, unknown("MB ")),
            ("1MB2", 1, unknown("MB2")),
            ("1_000", 1, unknown("_000")),
            ("1e6", 1, unknown("e6")),
            ("1µB", 1, unknown("µB")),
            ("18446744073709551616", 0, TooLarge),
            ("99999999TiB", 0, TooLarge),
        ] {
            assert_eq!(parse_size(text), Err(UnitError { text: text.into(), at, problem }), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_in_the_unit_that_fits() {
        for (bytes, exact, readable) in [
            (0, "0", "0 B"),
            (999, "999", "999 B"),
            (1000, "1kB", "1000 B"),
            (1024, "1KiB", "1.00 KiB"),
            (64 << 20, "64MiB", "64.0 MiB"),
            (1_500_000_000, "1500MB", "1.39 GiB"),
            (1 << 40, "1TiB", "1.00 TiB"),
            ((1 << 30) - 1, "1073741823", "1023 MiB"),
            (u64::MAX, "18446744073709551615", "16777215 TiB"),
        ] {
            assert_eq!((exact_size(bytes).as_str(), readable_size(bytes).as_str()), (exact, readable));
        }
    }

    #[test]
    fn durations_add_up() {
        for (text, seconds) in [("0", 0), ("0s", 0), ("5s", 5), ("1h30m", 5400), ("2w", 14 * 86_400), ("1w2d", 777_600)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("1m5ms"), Ok(Duration::from_millis(60_005)));
    }

    #[test]
    fn a_wrong_duration_is_refused_at_its_place() {
        use UnitProblem::{Fraction, NoNumber, NoUnit, Order, TooLarge};
        let unknown = |unit: &str| UnitProblem::UnknownTimeUnit(unit.into());
        for (text, at, problem) in [
            ("", 0, NoNumber),
            ("d", 0, NoNumber),
            ("-5s", 0, NoNumber),
            ("30", 2, NoUnit),
            ("1h30", 4, NoUnit),
            ("1.5h", 1, Fraction),
            ("1y", 1, unknown("y")),
            ("1M", 1, unknown("M")),
            ("1h 30m", 1, unknown("h ")),
            ("30m1h", 4, Order),
            ("1h1h", 3, Order),
            ("1s99999999999999999999ms", 2, TooLarge),
            ("99999999999999w", 0, TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(UnitError { text: text.into(), at, problem }), "{text}");
        }
        assert_eq!(
            parse_duration("12\u{fc}").unwrap_err().to_string(),
            "12\u{fc}: \u{fc} is no unit of time (one of w, d, h, m, s, ms) at character 3"
        );
    }

    #[test]
    fn durations_are_printed_as_policies_write_them() {
        for text in ["30d", "14d", "1h30m", "5s", "1d1ms"] {
            assert_eq!(exact_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(exact_duration(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bytes in any::<u64>(), shift in 0_u32..64, milliseconds in any::<u64>()) {
            for bytes in [bytes, bytes >> shift, (bytes >> shift) << shift] {
                prop_assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes));
            }
            let duration = Duration::from_millis(milliseconds >> shift);
            prop_assert_eq!(parse_duration(&exact_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics_and_every_error_points_into_it(text in ".{0,12}|[0-9.]{0,4}[kKMGTiBwdhms ]{0,4}[0-9]{0,2}") {
            for error in [parse_size(&text).err(), parse_duration(&text).err()].into_iter().flatten() {
                prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at));
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
