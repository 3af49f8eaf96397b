//! Reading the configuration file.

use std::path::Path;

use crate::config::{Config, Salvaged, salvage};
use crate::error::{Error, Result};
use crate::layout::Layout;

/// The longest file that is read.
pub const MOST_BYTES: usize = 1 << 20;

/// A configuration that was refused, and what of it is used all the same.
#[derive(Debug)]
pub struct Refused {
    /// Why it was refused.
    pub error: Error,
    /// What could be taken of it.
    pub salvaged: Salvaged,
}

/// Reads a configuration; `None` if there is no such file.
///
/// # Errors
///
/// [`Error::Usage`] with file, line and key of what is wrong.
pub fn load(path: &Path) -> Result<Option<Config>> {
    load_from(&Layout::new("/", None), path)
}

/// Reads the configuration of a device by its path there, which may be in an image.
///
/// # Errors
///
/// As [`load`].
pub fn load_from(layout: &Layout, path: &Path) -> Result<Option<Config>> {
    load_leniently(layout, path).map_err(|refused| refused.error)
}

/// The same for what must work with a file that is refused.
///
/// # Errors
///
/// As [`load_from`], with what could be taken all the same.
pub fn load_leniently(layout: &Layout, path: &Path) -> std::result::Result<Option<Config>, Box<Refused>> {
    let refused = |error, salvaged| Box::new(Refused { error, salvaged });
    let bytes = match layout.try_read(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) => return Err(refused(error, Salvaged::default())),
    };
    if bytes.len() > MOST_BYTES {
        let why = Error::Usage(format!("{} is longer than {MOST_BYTES} bytes", path.display()));
        return Err(refused(why, Salvaged::default()));
    }
    let config = match std::str::from_utf8(&bytes) {
        Ok(text) => Config::parse(text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) => Err(format!("{} is not UTF-8: {error}", path.display())),
    };
    config.map(Some).map_err(|why| refused(Error::Usage(why), salvage(&bytes)))
}
