//! `list`
//!
//! | field | |
//! | --- | --- |
//! | `versions[].name`, `digest`, `roles[]`, `pinned` | `digest` is `null` where neither manifest nor history tell it |
//! | `versions[].seq` | the import number; higher is newer |
//! | `versions[].state` | `good`, `bad`, `unconfirmed` (neither), `missing-tree`, `damaged-manifest`, `newer`, `unmanaged` |
//! | `versions[].good`, `bad`, `was_current` | what is held of the digest, whatever the state |
//! | `versions[].note`, `labels` | the last note, at import or since |
//! | `versions[].files`, `directories`, `symlinks`, `total_bytes` | what is in it; absent without a sound manifest, as what follows |
//! | `versions[].imported_at`, `clock_synchronised` | RFC 3339; a label, not an order |
//! | `versions[].source` | `kind` (`directory`, `archive`, `stream`, `adopted`; another name for a kind of a newer build), `path` |

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tope_store::error::Result;
use tope_store::history::State;
use tope_store::model::Role;
use tope_store::ops::list::{Listed, Sort, list};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::first_line;
use crate::render::human;
use crate::render::json::PathFields;
use crate::render::table::{Align, Table};

/// List all versions with their roles and state
#[derive(Debug, Args)]
pub struct Arguments {
    /// The order: by import number, oldest first, or by name
    #[arg(long, value_name = "BY", default_value = "import")]
    sort: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Import,
    Name,
}

#[derive(Serialize)]
struct Document<'a> {
    versions: Vec<VersionDocument<'a>>,
}

/// One version.
#[derive(Serialize)]
pub struct VersionDocument<'a> {
    name: &'a str,
    digest: Option<String>,
    roles: Vec<&'static str>,
    state: &'static str,
    pinned: bool,
    seq: Option<u64>,
    good: bool,
    bad: bool,
    was_current: bool,
    note: &'a str,
    #[serde(flatten)]
    published: Option<PublishedDocument<'a>>,
}

#[derive(Serialize)]
struct PublishedDocument<'a> {
    labels: &'a BTreeMap<String, String>,
    files: u64,
    directories: u64,
    symlinks: u64,
    total_bytes: u64,
    imported_at: String,
    clock_synchronised: bool,
    source: SourceDocument,
}

#[derive(Serialize)]
struct SourceDocument {
    kind: Cow<'static, str>,
    #[serde(flatten)]
    path: PathFields,
}

impl<'a> VersionDocument<'a> {
    pub fn of(listed: &'a Listed) -> Self {
        let published = listed.published.as_ref().map(|published| PublishedDocument {
            labels: &published.facts.labels,
            files: published.counts.files,
            directories: published.counts.directories,
            symlinks: published.counts.symlinks,
            total_bytes: published.counts.total_bytes,
            imported_at: human::rfc3339(published.facts.imported_at),
            clock_synchronised: published.facts.clock_synchronised,
            source: SourceDocument {
                kind: published.facts.source.kind.name(),
                path: PathFields::of(&published.facts.source.path),
            },
        });
        Self {
            name: listed.name.as_str(),
            digest: listed.digest.map(|digest| digest.to_string()),
            roles: listed.roles.iter().copied().map(Role::as_str).collect(),
            state: listed.state.name(),
            pinned: listed.pinned,
            seq: listed.import_number,
            good: listed.standing.good,
            bad: listed.standing.bad.is_some(),
            was_current: listed.standing.was_current,
            note: listed.note(),
            published,
        }
    }
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let sort = match arguments.sort {
        By::Import => Sort::Import,
        By::Name => Sort::Name,
    };
    let store = context.store()?;
    let listed = list(&store, sort)?;
    if let State::Doubt { detail, .. } = store.history_state()? {
        context.warn(format_args!("the history is in doubt: events are lost: {detail}"));
    }
    let document = Document { versions: listed.iter().map(VersionDocument::of).collect() };
    context.answer(&document, |out| {
        if listed.is_empty() {
            return Ok(());
        }
        let [left, right] = [Align::Left, Align::Right];
        let mut table = Table::new([left, left, left, right, right, left, left, left]);
        table.row(["version", "roles", "imported", "files", "size", "state", "", "note"].map(str::to_owned));
        for version in &listed {
            table.row(cells(version));
        }
        table.write(out)
    })?;
    Ok(Exit::Done)
}

fn cells(version: &Listed) -> [String; 8] {
    let roles: Vec<&str> = version.roles.iter().copied().map(Role::as_str).collect();
    let published = version.published.as_ref();
    // A clock that was never set gives a time all the same.
    let imported =
        published.map(|published| human::moment(published.facts.imported_at, published.facts.clock_synchronised));
    [
        version.name.to_string(),
        roles.join(","),
        imported.unwrap_or_default(),
        published.map(|published| published.counts.files.to_string()).unwrap_or_default(),
        published.map(|published| human::size(published.counts.total_bytes)).unwrap_or_default(),
        version.state.name().to_owned(),
        if version.pinned { "pinned".to_owned() } else { String::new() },
        first_line(version.note()),
    ]
}
