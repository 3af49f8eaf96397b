//! Text for people.

use tope_store::model::units;

/// A size with a unit.
pub fn size(bytes: u64) -> String {
    units::readable_size(bytes)
}

/// A point in time in the local zone, with its offset.
pub fn time(unix_seconds: i64) -> String {
    match jiff::Timestamp::from_second(unix_seconds) {
        Ok(time) => time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T %:z").to_string(),
        Err(_) => format!("{unix_seconds} s since 1970"),
    }
}

/// The same, with what is to be thought of the clock that gave it.
pub fn moment(unix_seconds: i64, synchronised: bool) -> String {
    let doubt = if synchronised { "" } else { " (clock not synchronised)" };
    time(unix_seconds) + doubt
}

/// The same as RFC 3339, for documents.
pub fn rfc3339(unix_seconds: i64) -> String {
    match jiff::Timestamp::from_second(unix_seconds) {
        Ok(time) => time.strftime("%FT%TZ").to_string(),
        Err(_) => unix_seconds.to_string(),
    }
}

/// How long something took.
pub fn elapsed(duration: std::time::Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 100.0 => format!("{seconds:.1} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

/// A count with its noun.
pub fn count(number: u64, noun: &str) -> String {
    count_of(number, noun, &format!("{noun}s"))
}

/// The same for a noun with a plural of its own.
pub fn count_of(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}
