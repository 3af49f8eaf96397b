//! `ls`
//!
//! | field | |
//! | --- | --- |
//! | `version`, `digest` | |
//! | `entries[]` | `path` from the version's top, `kind` (`file`, `directory`, `symlink`), `mode`, `uid`, `gid`, and as it applies `size`, `content`, `tree`, `target`, `xattrs[]` |

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use tope_store::error::{Error, Result};
use tope_store::model::{Entry, Selector, TreePath};
use tope_store::ops::browse::{Depth, Listing, list};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::{self, EntryFields};
use crate::render::json::PathFields;
use crate::render::table::{Align, Table};

/// List what is in a version, as it was recorded
///
/// Paths are shown from the version's top down, as `cat` takes them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest (t1:…)
    version: Selector,
    /// A path in it; the top unless one is given
    #[arg(default_value = "")]
    path: OsString,
    /// Show mode, owner, size and content too
    #[arg(short, long)]
    long: bool,
    /// Show everything below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show nothing but paths, as they are, each ended by a NUL
    #[arg(short = 'z', long, conflicts_with = "long")]
    null: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'a str,
    digest: String,
    entries: Vec<EntryDocument>,
}

#[derive(Serialize)]
struct EntryDocument {
    #[serde(flatten)]
    path: PathFields,
    #[serde(flatten)]
    entry: EntryFields,
}

/// Reads a path in a version.
pub fn tree_path(path: &OsString) -> Result<TreePath> {
    TreePath::parse(path.as_encoded_bytes()).map_err(|error| Error::Usage(error.to_string()))
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    context.refuse_json_with(&[(arguments.null, "--null"), (arguments.long, "--long")])?;
    let path = tree_path(&arguments.path)?;
    let depth = if arguments.recursive { Depth::All } else { Depth::One };
    let listing = list(&context.store()?, &arguments.version, &path, depth)?;
    if arguments.null {
        context.raw(|out| listing.entries.iter().try_for_each(|(path, _)| super::put_null(out, path)))?;
        return Ok(Exit::Done);
    }
    // Made for one of the two only: a version may have a million entries.
    let entries = if context.global().json { entries(&listing) } else { Vec::new() };
    let document = Document { version: listing.version.as_str(), digest: listing.digest.to_string(), entries };
    context.answer(&document, |out| match arguments.long {
        false => listing.entries.iter().try_for_each(|(path, _)| writeln!(out, "{path}")),
        true => {
            let [left, right] = [Align::Left, Align::Right];
            let mut table = Table::new([left, right, right, left, left]);
            for (path, Entry { metadata, node, .. }) in &listing.entries {
                table.row([
                    entry::mode(metadata, node),
                    format!("{}:{}", metadata.uid, metadata.gid),
                    entry::size_cell(node),
                    entry::content_cell(node),
                    entry::path_cell(path, node),
                ]);
            }
            table.write(out)
        }
    })?;
    Ok(Exit::Done)
}

fn entries(listing: &Listing) -> Vec<EntryDocument> {
    let document = |(path, entry): &(TreePath, Entry)| EntryDocument {
        path: PathFields::of(path),
        entry: EntryFields::of(&entry.metadata, &entry.node),
    };
    listing.entries.iter().map(document).collect()
}
