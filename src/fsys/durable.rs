//! Replacing a file so that a reader, a crash or a power cut finds the old contents or the new, never a mixture.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | creating the temporary file | the old file; a leftover `.NAME.new`, replaced by the next write |
//! | syncing it | the same |
//! | the rename | old or new |
//! | syncing the directory | the new file |
//!
//! Where the rename is made under a lock that others need at once, the steps are taken one by one: [`prepare`] before the
//! lock, the rename under it, the sync of the directory behind it. [`show`] does without the first sync: what it writes is
//! there for every process, and after a power cut the file may be empty.

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

/// Makes a file with these bytes, durable but for its name, which must be free.
pub fn prepare(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    create(dir, name, bytes, mode, true)
}

/// Writes a file whole, replacing what had the name, and waits for nothing: [`settle`] makes it durable.
pub fn show(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = temporary_name(name);
    dir.remove_file_if_present(&temporary)?;
    create(dir, &temporary, bytes, mode, false)?;
    dir.rename(&temporary, dir, name)
}

/// Makes a file durable that was shown, with its name.
pub fn settle(dir: &Dir, name: &str) -> Result<()> {
    file::sync(&dir.open_file(name)?, || dir.path_of(name))?;
    dir.sync()
}

/// The temporary name beside `name`.
pub fn temporary_name(name: &str) -> String {
    format!(".{name}.new")
}

fn write_beside(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<String> {
    let temporary = temporary_name(name);
    dir.remove_file_if_present(&temporary)?;
    create(dir, &temporary, bytes, mode, true)?;
    Ok(temporary)
}

fn create(dir: &Dir, name: &str, bytes: &[u8], mode: u32, durable: bool) -> Result<()> {
    let mut file = dir.create_file(name, mode)?;
    let path = || dir.path_of(name);
    let written = file
        .write_all(bytes)
        .map_err(|error| Error::io("write", path(), error))
        .and_then(|()| file::set_mode(dir.holding(&file), mode, path))
        .and_then(|()| if durable { file::sync(&file, path) } else { Ok(()) });
    // A full disk must not be left fuller.
    written.inspect_err(|_| drop(dir.remove_file_if_present(name)))
}
