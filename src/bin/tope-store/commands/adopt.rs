//! `adopt`
//!
//! | field | |
//! | --- | --- |
//! | `adopted[]` | `version`, `digest`, `import_number` (null in a dry run), `files`, `total_bytes`, `new_objects`, `new_bytes`, `linked_files`, `copied_files`, `private_files`, `displaced_in_use` (processes keep the old tree, which gc removes later), `warnings[]` with `kind` and `message`, `elapsed_ms`; in the order of import numbers |
//! | `already_managed[]` | names that were asked for and need no adoption |
//! | `unsuitable[]` | `path` of directories whose names no version can have |
//! | `dry_run` | |

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::VersionName;
use tope_store::ops::adopt::{Adopted, adopt};
use tope_store::ops::import::{Mode, Options};
use tope_store::store::survey::MadeByHand;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::{human, json};

/// Take trees that were made by hand (cp -r) under management, in place
///
/// Each tree is exchanged with one of links in a single step. A file that a process may write to, or that changes during
/// this, stops it, unless the configuration declares it as one that a service writes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The trees; all in versions/ that are not managed unless some are named
    #[arg(value_name = "VERSION")]
    versions: Vec<VersionName>,
    /// What is to be known of them
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Read and hash everything, write nothing, and say what would happen
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    adopted: Vec<AdoptedDocument<'a>>,
    already_managed: Vec<&'a str>,
    unsuitable: Vec<json::PathFields>,
    dry_run: bool,
}

#[derive(Serialize)]
struct AdoptedDocument<'a> {
    version: &'a str,
    digest: String,
    import_number: Option<u64>,
    files: u64,
    total_bytes: u64,
    new_objects: u64,
    new_bytes: u64,
    linked_files: u64,
    copied_files: u64,
    private_files: u64,
    displaced_in_use: bool,
    warnings: Vec<WarningDocument<'a>>,
    elapsed_ms: u128,
}

#[derive(Serialize)]
struct WarningDocument<'a> {
    kind: &'static str,
    message: &'a str,
}

impl<'a> AdoptedDocument<'a> {
    fn of(Adopted { import, displaced_in_use }: &'a Adopted) -> Self {
        let warning = |warning: &'a tope_store::ops::import::Warning| WarningDocument {
            kind: warning.kind,
            message: &warning.message,
        };
        Self {
            version: import.version.as_str(),
            digest: import.digest.to_string(),
            import_number: import.import_number,
            files: import.files,
            total_bytes: import.total_bytes,
            new_objects: import.new_objects,
            new_bytes: import.new_bytes,
            linked_files: import.linked_files,
            copied_files: import.copied_files,
            private_files: import.private_files,
            displaced_in_use: *displaced_in_use,
            warnings: import.warnings.iter().map(warning).collect(),
            elapsed_ms: import.elapsed.as_millis(),
        }
    }
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let configured = &context.config().import;
    let options = Options {
        note: arguments.note,
        minimum_free_bytes: configured.min_free.unwrap_or(0),
        private: configured.private.clone(),
        shared: configured.shared.clone(),
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Write },
        ..Options::default()
    };
    let store = context.store()?;
    let progress = context.progress();
    let report = adopt(&store, &arguments.versions, &options, &progress)?;
    drop(progress);
    for warning in report.adopted.iter().flat_map(|adopted| &adopted.import.warnings) {
        context.warn(&warning.message);
    }
    for name in &report.unsuitable {
        let way_out = MadeByHand::way_out(name);
        context.warn(format!("versions/{name} cannot be adopted, since no version can have this name: {way_out}"));
    }
    let document = Document {
        adopted: report.adopted.iter().map(AdoptedDocument::of).collect(),
        already_managed: report.already_managed.iter().map(VersionName::as_str).collect(),
        unsuitable: report.unsuitable.iter().map(json::PathFields::of).collect(),
        dry_run: arguments.dry_run,
    };
    context.answer(&document, |out| {
        let verb = if arguments.dry_run { "would adopt" } else { "adopted" };
        for Adopted { import, .. } in &report.adopted {
            let (digest, files) = (import.digest.short(), human::count(import.files, "file"));
            let shared = human::size(import.total_bytes.saturating_sub(import.new_bytes));
            writeln!(out, "{verb} {} ({digest}): {files}, {shared} shared", import.version)?;
        }
        for name in &report.already_managed {
            writeln!(out, "{name} is managed already")?;
        }
        if report.adopted.is_empty() && report.already_managed.is_empty() {
            writeln!(out, "there is nothing to adopt")?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
