//! Columns for people: as wide as their widest cell, two spaces apart, nothing at the ends of lines.

use std::io::{self, Write};

/// To which side a column's cells are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table that is printed when all its rows are known.
pub struct Table<const COLUMNS: usize> {
    align: [Align; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// An empty one.
    pub fn new(align: [Align; COLUMNS]) -> Self {
        Self { align, rows: Vec::new() }
    }

    /// Adds a row. Cells hold no control characters: see [`tope_store::error::Shown`].
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Prints all rows.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for row in &self.rows {
            let mut line = String::new();
            // A column that is empty in all rows takes no room.
            for (at, cell) in row.iter().enumerate().filter(|(at, _)| widths[*at] > 0) {
                let padding = " ".repeat(widths[at] - cell.chars().count());
                let (before, after) = if self.align[at] == Align::Right { (&*padding, "") } else { ("", &*padding) };
                line.extend([before, cell, after, "  "]);
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
        table.row(["a".into(), String::new(), "1".into(), String::new()]);
        table.row(["gr\u{fc}n".into(), String::new(), "1000".into(), "x".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a        1\ngr\u{fc}n  1000  x\n");
    }
}
