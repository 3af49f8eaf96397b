//! `find`
//!
//! `found[]` has one element per entry that differs: `path`, the fields of an entry as in `ls`, and `versions[]`, the
//! names of the versions that have exactly this entry there, oldest import first.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tope_store::error::{Error, Result};
use tope_store::index::Found;
use tope_store::model::glob::Glob;
use tope_store::model::{Selector, VersionName};
use tope_store::ops::find::{Wanted, content_of, contents_beginning, find};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::{self, EntryFields};
use crate::render::json::PathFields;
use crate::render::table::{Align, Table};

/// Find paths and contents over all versions
#[derive(Debug, Args)]
#[command(after_help = "Patterns: * and ? stay within a name, ** crosses directories, [ab] and {a,b} choose. \
Without a slash a pattern is matched against the last name of a path, with one against the whole path.

Examples:
  tope-store find '*.so'                         every shared library, and which versions have it
  tope-store find 'services/*/settings.toml'
  tope-store find --content-of ./suspicious.bin  which versions have these bytes, and where")]
#[group(skip)]
pub struct Arguments {
    /// Which paths
    #[arg(required_unless_present_any = ["content", "content_of"])]
    glob: Option<String>,
    /// Only files whose content (BLAKE3) begins with these hexadecimal digits
    #[arg(long, value_name = "HEX")]
    content: Option<String>,
    /// Only files with the same bytes as this one
    #[arg(long, value_name = "FILE", conflicts_with = "content")]
    content_of: Option<PathBuf>,
    /// Only in this version; may be given more than once
    #[arg(long, value_name = "VERSION")]
    version: Vec<Selector>,
    /// Show nothing but paths, as they are, each once and ended by a NUL
    #[arg(short = 'z', long)]
    null: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    found: Vec<FoundDocument<'a>>,
}

#[derive(Serialize)]
struct FoundDocument<'a> {
    #[serde(flatten)]
    path: PathFields,
    #[serde(flatten)]
    entry: EntryFields,
    versions: Vec<&'a str>,
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    context.refuse_json_with(&[(arguments.null, "--null")])?;
    let glob = arguments.glob.map(|glob| Glob::new(&glob).map_err(|error| Error::Usage(error.to_string())));
    let contents = match (&arguments.content, &arguments.content_of) {
        (Some(hex), _) => Some(contents_beginning(hex)?),
        (None, Some(path)) => Some(content_of(path)?),
        (None, None) => None,
    };
    let wanted = Wanted { glob: glob.transpose()?, contents, versions: arguments.version };
    let found = find(&context.store()?, &wanted)?;
    if arguments.null {
        let mut last = None;
        context.raw(|out| {
            for Found { path, .. } in &found {
                if last != Some(path) {
                    super::put_null(out, path)?;
                }
                last = Some(path);
            }
            Ok(())
        })?;
        return Ok(Exit::Done);
    }
    let document = |found: &'_ Found| EntryFields::of(&found.entry.metadata, &found.entry.node);
    let names = |found: &'_ Found| -> Vec<String> { found.versions.iter().map(VersionName::to_string).collect() };
    let documents = match context.global().json {
        true => found
            .iter()
            .map(|found| FoundDocument {
                path: PathFields::of(&found.path),
                entry: document(found),
                versions: found.versions.iter().map(VersionName::as_str).collect(),
            })
            .collect(),
        false => Vec::new(),
    };
    context.answer(&Document { found: documents }, |out| {
        let [left, right] = [Align::Left, Align::Right];
        let mut table = Table::new([left, right, left, left, left]);
        for each in &found {
            let node = &each.entry.node;
            table.row([
                entry::mode(&each.entry.metadata, node),
                entry::size_cell(node),
                entry::content_cell(node),
                entry::path_cell(&each.path, node),
                names(each).join(" "),
            ]);
        }
        table.write(out)
    })?;
    Ok(Exit::Done)
}
