//! Replacing a file so that a reader, a crash or a power cut finds the old contents or the new, never a mixture.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | creating the temporary file | the old file; a leftover `.NAME.new`, replaced by the next write |
//! | syncing it | the same |
//! | the rename | old or new |
//! | syncing the directory | the new file |

use std::io::Write;

use super::dir::Dir;
use super::file;
use crate::error::{Error, Result};

/// Writes a file whole and durably, replacing what had the name.
pub fn write(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = write_beside(dir, name, bytes, mode)?;
    dir.rename(&temporary, dir, name)?;
    dir.sync()
}

/// Writes a file whole and durably under a name that must be free.
pub fn write_new(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = write_beside(dir, name, bytes, mode)?;
    if let Err(error) = dir.rename_new(&temporary, dir, name) {
        dir.remove_file_if_present(&temporary)?;
        return Err(error);
    }
    dir.sync()
}

/// The temporary name beside `name`.
pub fn temporary_name(name: &str) -> String {
    format!(".{name}.new")
}

fn write_beside(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<String> {
    let temporary = temporary_name(name);
    dir.remove_file_if_present(&temporary)?;
    let mut file = dir.create_file(&temporary, mode)?;
    let path = || dir.path_of(&temporary);
    let written = file
        .write_all(bytes)
        .map_err(|error| Error::io("write", path(), error))
        .and_then(|()| file::set_mode(dir.holding(&file), mode, path))
        .and_then(|()| file::sync(&file, path));
    if let Err(error) = written {
        // A full disk must not be left fuller.
        let _ = dir.remove_file_if_present(&temporary);
        return Err(error);
    }
    Ok(temporary)
}
