//! Whose fault a copy was that did not end.

use std::fs::File;
use std::io::{self, Write};

/// Tells a failure to write from a failure to read when both pass through one copy.
pub(super) struct Blamed<'a> {
    pub(super) file: &'a File,
    pub(super) failed: Option<io::Error>,
}

impl Write for Blamed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let raw = error.raw_os_error();
                self.failed = Some(error);
                Err(raw.map_or_else(|| io::Error::other("write failed"), io::Error::from_raw_os_error))
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
