//! Reading the configuration file.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::Layout;

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
    let Some(bytes) = layout.try_read(path)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Error::Usage(format!("{} is not UTF-8: {error}", path.display())))?;
    Config::parse(text).map(Some).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
