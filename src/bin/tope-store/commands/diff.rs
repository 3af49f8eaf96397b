//! `diff`
//!
//! | field | |
//! | --- | --- |
//! | `before`, `after` | the sides: `kind` (`version`, `directory`), `version`, `digest`, `path` (within the version, or the directory's) |
//! | `changes[]` | `kind` (`added`, `removed`, `modified`, `renamed`, `metadata`, `type`), `path`, `from_path` of what is renamed, `before` and `after` (fields of an entry as in `ls`, absent on the side that has none), `differs[]` (`content`, `mode`, `owner`, `xattrs`) |
//! | `summary` | `added`, `removed`, `modified`, `renamed`, `metadata`, `type`, `total`: numbers of changes; `directories`: how many of those `added`, `removed` and `metadata` are directories; `bytes_added`, `bytes_removed`: sizes of files that are new, or gone, or new in content |
//! | `skipped[]` | `path`, `reason`: what is in a directory and could not be part of a version |

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tope_store::error::{Error, Result, Shown};
use tope_store::model::diff::{Change, ChangeKind, Differs, EntryFacts, Summary};
use tope_store::model::{Node, TreePath};
use tope_store::ops::diff::{Comparison, Options, Side, diff};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::EntryFields;
use crate::render::human;
use crate::render::json::{PathFields, hex};
use crate::render::table::{Align, Table};

/// Compare two versions, a version and a directory, or two directories
///
/// A and B are versions, roles, beginnings of digests (t1:…) or directories. What contains a slash, . and .. are
/// directories; anything else is one only if there is no version of that name.
#[derive(Debug, Args)]
#[command(after_help = "Letters: A added, D removed, M modified, R renamed, T became another kind of entry, \
P (last) only mode, owner or attributes differ.

Examples:
  tope-store diff previous current
  tope-store diff --stat -M 1.1.0 1.2.0
  tope-store diff -p 1.2.0 build/ services/device-api")]
pub struct Arguments {
    /// The first side
    a: OsString,
    /// The second side
    b: OsString,
    /// Only these paths and what lies below them
    path: Vec<OsString>,
    /// One letter and the path of each change; the default
    #[arg(long)]
    name_status: bool,
    /// The sizes before and after, and a summary
    #[arg(long, conflicts_with = "name_status")]
    stat: bool,
    /// The lines that differ, for git apply or patch -p1
    #[arg(short, long, conflicts_with_all = ["name_status", "stat"])]
    patch: bool,
    /// Show a file that disappeared here and appeared there with the same bytes as renamed
    #[arg(short = 'M', long)]
    find_renames: bool,
    /// Show letters and paths, as they are, each ended by a NUL
    #[arg(short = 'z', long, conflicts_with_all = ["stat", "patch"])]
    null: bool,
    /// Exit with 1 if there are differences, with 2 on any trouble
    #[arg(long)]
    exit_code: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    match (compare(context, arguments), arguments.exit_code) {
        (Ok(different), true) => Ok(if different { Exit::Failed } else { Exit::Done }),
        (Ok(_), false) => Ok(Exit::Done),
        (Err(error), true) => {
            context.fail(&error);
            Ok(Exit::Usage)
        }
        (Err(error), false) => Err(error),
    }
}

/// Answers; tells whether there are differences.
fn compare(context: &Context, arguments: &Arguments) -> Result<bool> {
    context.refuse_json_with(&[
        (arguments.name_status, "--name-status"),
        (arguments.stat, "--stat"),
        (arguments.patch, "--patch"),
        (arguments.null, "--null"),
    ])?;
    let paths = arguments.path.iter().map(super::ls::tree_path).collect::<Result<Vec<_>>>()?;
    let options = Options { paths, renames: arguments.find_renames };
    let store = context.store()?;
    let progress = context.progress();
    let comparison = diff(&store, &arguments.a, &arguments.b, &options, &progress)?;
    drop(progress);
    for (given, side) in [(&arguments.a, comparison.before()), (&arguments.b, comparison.after())] {
        remark(context, given, side);
    }
    let changes = &comparison.diff.changes;
    if arguments.patch {
        context.raw_result(|out| {
            for change in changes {
                let patch = comparison.patch(change)?;
                out.write_all(&patch).map_err(|error| Error::io("write to", "standard output", error))?;
            }
            Ok(())
        })?;
    } else if arguments.null {
        context.raw(|out| in_order(changes).try_for_each(|change| put_null(out, change)))?;
    } else {
        let document = context.global().json.then(|| Document::of(&comparison));
        context.answer(&document, |out| match arguments.stat {
            true => stat(out, &comparison),
            false => in_order(changes).try_for_each(|change| put_line(out, change)),
        })?;
    }
    Ok(!comparison.diff.is_empty())
}

fn remark(context: &Context, given: &OsString, side: &Side) {
    match side {
        Side::Recorded { version, .. } if given.as_encoded_bytes().contains(&b'/') => context.say(format!(
            "{} is in the tree of {version}: what is recorded of it is compared; see whether the tree is intact with: tope-store verify {version}",
            Shown::bytes(given.as_encoded_bytes())
        )),
        Side::Recorded { .. } => {}
        Side::Directory { skipped, .. } => {
            for (path, reason) in skipped {
                context.warn(format!("{path} is {reason} and is not compared"));
            }
        }
    }
}

/// What concerns contents first, then what concerns nothing but mode, owner and attributes.
fn in_order(changes: &[Change]) -> impl Iterator<Item = &Change> {
    let is_metadata = |change: &&Change| change.kind == ChangeKind::Metadata;
    changes.iter().filter(move |change| !is_metadata(change)).chain(changes.iter().filter(is_metadata))
}

fn put_null(out: &mut dyn Write, change: &Change) -> io::Result<()> {
    write!(out, "{}\0", change.kind.letter())?;
    if let Some(from) = &change.from_path {
        super::put_null(out, from)?;
    }
    super::put_null(out, &change.path)
}

fn put_line(out: &mut dyn Write, change: &Change) -> io::Result<()> {
    let letter = change.kind.letter();
    let path = shown(change);
    match (&change.from_path, change.kind) {
        (Some(from), _) => writeln!(out, "{letter}\t{from}\t{path}"),
        (None, ChangeKind::Metadata) => writeln!(out, "{letter}\t{path}\t{}", metadata(change)),
        (None, _) => writeln!(out, "{letter}\t{path}"),
    }
}

/// A path; a directory's ends with a slash.
fn shown(change: &Change) -> String {
    format!("{}{}", change.path, if change.is_directory() { "/" } else { "" })
}

/// In what mode, owner and attributes differ.
fn metadata(change: &Change) -> String {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return String::new() };
    let (a, b, differs) = (&before.metadata, &after.metadata, change.differs);
    let mut parts = Vec::new();
    if differs.mode {
        parts.push(format!("mode {:04o} -> {:04o}", a.mode, b.mode));
    }
    if differs.owner {
        parts.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if differs.xattrs {
        parts.push("extended attributes".to_owned());
    }
    parts.join(", ")
}

fn stat(out: &mut dyn Write, comparison: &Comparison<'_>) -> io::Result<()> {
    let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
    for change in in_order(&comparison.diff.changes) {
        let path = match &change.from_path {
            Some(from) => format!("{from} => {}", shown(change)),
            None => shown(change),
        };
        let size = |side: &Option<EntryFacts>| side.as_ref().and_then(EntryFacts::size);
        let growth = match (size(&change.before), size(&change.after)) {
            (None, None) => String::new(),
            _ if change.kind == ChangeKind::Metadata => String::new(),
            (before, after) => {
                format!("{:+}", i128::from(after.unwrap_or(0)) - i128::from(before.unwrap_or(0)))
            }
        };
        let what = match change.kind {
            ChangeKind::Metadata => metadata(change),
            ChangeKind::Type => type_change(change),
            _ => String::new(),
        };
        table.row([change.kind.letter().to_string(), path, growth, what]);
    }
    table.write(out)?;
    writeln!(out, "{}", summary_line(&comparison.diff.summary()))
}

fn type_change(change: &Change) -> String {
    let word = |side: &Option<EntryFacts>| match side.as_ref().map(|facts| &facts.node) {
        Some(Node::File { .. }) => "file",
        Some(Node::Directory { .. }) => "directory",
        Some(Node::Symlink { .. }) => "symbolic link",
        None => "nothing",
    };
    format!("{} -> {}", word(&change.before), word(&change.after))
}

fn summary_line(summary: &Summary) -> String {
    if summary.total() == 0 {
        return "no differences".to_owned();
    }
    let both = |count: tope_store::model::diff::Count| count.files + count.directories;
    let parts = [
        (both(summary.added), "added"),
        (both(summary.removed), "removed"),
        (summary.modified, "modified"),
        (summary.renamed, "renamed"),
        (summary.type_changed, "of another kind"),
        (both(summary.metadata), "with other metadata only"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    let (new, gone) = (human::size(summary.bytes_added), human::size(summary.bytes_removed));
    format!("{}; {new} new, {gone} gone", parts.join(", "))
}

#[derive(Serialize)]
struct Document {
    before: SideDocument,
    after: SideDocument,
    changes: Vec<ChangeDocument>,
    summary: SummaryDocument,
    skipped: Vec<SkippedDocument>,
}

#[derive(Serialize)]
struct SideDocument {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(flatten)]
    path: PathFields,
}

#[derive(Serialize)]
struct ChangeDocument {
    kind: &'static str,
    #[serde(flatten)]
    path: PathFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<EntryFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<EntryFields>,
    differs: Vec<&'static str>,
}

#[derive(Serialize)]
struct SummaryDocument {
    added: u64,
    removed: u64,
    modified: u64,
    renamed: u64,
    metadata: u64,
    r#type: u64,
    total: u64,
    directories: DirectoriesDocument,
    bytes_added: u64,
    bytes_removed: u64,
}

#[derive(Serialize)]
struct DirectoriesDocument {
    added: u64,
    removed: u64,
    metadata: u64,
}

#[derive(Serialize)]
struct SkippedDocument {
    #[serde(flatten)]
    path: PathFields,
    reason: &'static str,
}

impl Document {
    fn of(comparison: &Comparison<'_>) -> Self {
        let sides = [comparison.before(), comparison.after()];
        let skipped = |side: &Side| match side {
            Side::Directory { skipped, .. } => skipped.clone(),
            Side::Recorded { .. } => Vec::new(),
        };
        let skipped = sides.into_iter().flat_map(skipped);
        Self {
            before: SideDocument::of(comparison.before()),
            after: SideDocument::of(comparison.after()),
            changes: comparison.diff.changes.iter().map(ChangeDocument::of).collect(),
            summary: SummaryDocument::of(&comparison.diff.summary()),
            skipped: skipped.map(|(path, reason)| SkippedDocument { path: PathFields::of(path), reason }).collect(),
        }
    }
}

impl SideDocument {
    fn of(side: &Side) -> Self {
        match side {
            Side::Recorded { version, digest, within } => Self {
                kind: "version",
                version: Some(version.to_string()),
                digest: Some(digest.to_string()),
                path: PathFields::of(within),
            },
            Side::Directory { path, .. } => Self {
                kind: "directory",
                version: None,
                digest: None,
                path: PathFields::of(path.as_os_str().as_encoded_bytes()),
            },
        }
    }
}

impl ChangeDocument {
    fn of(change: &Change) -> Self {
        let bytes = change.from_path.as_ref().map(TreePath::as_bytes);
        let entry =
            |side: &Option<EntryFacts>| side.as_ref().map(|facts| EntryFields::of(&facts.metadata, &facts.node));
        let Differs { content, mode, owner, xattrs } = change.differs;
        let differs = [(content, "content"), (mode, "mode"), (owner, "owner"), (xattrs, "xattrs")];
        Self {
            kind: change.kind.name(),
            path: PathFields::of(&change.path),
            from_path: bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            from_path_bytes: bytes.filter(|bytes| std::str::from_utf8(bytes).is_err()).map(hex),
            before: entry(&change.before),
            after: entry(&change.after),
            differs: differs.into_iter().filter(|(differs, _)| *differs).map(|(_, name)| name).collect(),
        }
    }
}

impl SummaryDocument {
    fn of(summary: &Summary) -> Self {
        let both = |count: tope_store::model::diff::Count| count.files + count.directories;
        Self {
            added: both(summary.added),
            removed: both(summary.removed),
            modified: summary.modified,
            renamed: summary.renamed,
            metadata: both(summary.metadata),
            r#type: summary.type_changed,
            total: summary.total(),
            directories: DirectoriesDocument {
                added: summary.added.directories,
                removed: summary.removed.directories,
                metadata: summary.metadata.directories,
            },
            bytes_added: summary.bytes_added,
            bytes_removed: summary.bytes_removed,
        }
    }
}
