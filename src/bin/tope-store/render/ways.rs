//! Versions that can be switched to by name, each with its command.

use std::io::{self, Write};

use tope_store::model::way::Way;

use super::human;
use super::table::{Align, Table};

/// How many are printed; JSON has all.
const MOST: usize = 20;

/// Prints them, the likeliest first.
pub fn write(out: &mut dyn Write, ways: &[Way]) -> io::Result<()> {
    let mut table = Table::new([Align::Left; 4]);
    for Way { version, state, last_current, command } in ways.iter().take(MOST) {
        let last = match last_current {
            Some(time) => format!("last current {}", human::time(*time)),
            None => String::new(),
        };
        table.row([version.to_string(), (*state).to_owned(), last, command.clone()]);
    }
    let mut text = Vec::new();
    table.write(&mut text)?;
    for line in String::from_utf8_lossy(&text).lines() {
        writeln!(out, "    {line}")?;
    }
    match ways.len().saturating_sub(MOST) {
        0 => Ok(()),
        more => writeln!(out, "    and {more} more: tope-store --json rollback --list"),
    }
}
