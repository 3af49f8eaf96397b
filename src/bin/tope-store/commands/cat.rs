//! `cat`

use std::ffi::OsString;

use clap::Args;
use tope_store::error::{Error, Result};
use tope_store::model::Selector;
use tope_store::ops::browse;

use crate::context::Context;
use crate::exit::Exit;

/// Write the bytes of a file of a version to standard output, as they were imported
///
/// The bytes are hashed on their way out: what was damaged since ends with exit code 5, and if the file is not bigger
/// than 1 MiB, before the first byte. Symbolic links are not followed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest (t1:…)
    version: Selector,
    /// The file's path in it
    path: OsString,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    if context.global().json {
        return Err(Error::Usage("the bytes of a file are no JSON document: leave out --json".into()));
    }
    let path = super::ls::tree_path(&arguments.path)?;
    let store = context.store()?;
    context.raw_result(|out| browse::cat(&store, &arguments.version, &path, out))?;
    Ok(Exit::Done)
}
