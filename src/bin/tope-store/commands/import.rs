//! `import`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tope_store::error::{Error, Result};
use tope_store::model::{Selector, VersionName};
use tope_store::object::LinkPolicy;
use tope_store::ops::activate::{self, Report as Activated, sentence};
use tope_store::ops::import::pyc::PycPolicy;
use tope_store::ops::import::{Input, Mode, Options, Report, Reread, import};
use tope_store::store::Store;

use super::activate::{Document as SwitchDocument, say_warnings};
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::notice::Notice;

/// Import a release: a directory, or a tar, tar.gz, tar.xz, tar.zst or zip archive
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store import build/ --version 1.2.0 --note 'fixes the clock'
  tope-store import release.tar.zst --version 1.2.0 --label channel=beta
  build-release | tope-store import - --version 1.2.0 --activate

The configuration limits archives: total_bytes, entries, ratio, decoder_memory and held_bytes in [import.limits].")]
pub struct Arguments {
    /// A directory, an archive, or - for a tar archive on standard input
    source: PathBuf,
    /// The name to give it; a leading digit gets a v
    #[arg(long, value_name = "VERSION")]
    version: VersionName,
    /// What is to be known of it
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// A label; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::label)]
    label: Vec<(String, String)>,
    /// Record this owner for everything, instead of the source's
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    chown: Option<(u32, u32)>,
    /// Give no new object a later modification time than this many seconds since 1970
    #[arg(long, value_name = "EPOCH", env = "SOURCE_DATE_EPOCH")]
    mtime: Option<i64>,
    /// Read every file, also those that have not changed since they were read (files on read-only mounts, on images, and
    /// on network, FUSE and overlay file systems are always read)
    #[arg(long)]
    no_cache: bool,
    /// Python sources with timestamp-based compiled files: keep their times, or share them all the same
    #[arg(long, value_name = "HOW", default_value = "pin")]
    pyc: Pyc,
    /// Fail where hardlinks cannot be made, instead of copying
    #[arg(long)]
    require_hardlinks: bool,
    /// Switch to it when it is there, as activate does
    #[arg(long, conflicts_with = "dry_run")]
    activate: bool,
    /// Read and hash everything, write nothing, and say what would happen
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Pyc {
    Pin,
    Share,
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "an owner has the form UID:GID, in numbers".into())
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'a str,
    digest: String,
    import_number: Option<u64>,
    already_there: bool,
    dry_run: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    total_bytes: u64,
    new_objects: u64,
    new_bytes: u64,
    reflinked_bytes: u64,
    linked_files: u64,
    copied_files: u64,
    private_files: u64,
    unread_files: u64,
    elapsed_ms: u128,
    warnings: Vec<WarningDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activated: Option<SwitchDocument>,
}

#[derive(Serialize)]
struct WarningDocument<'a> {
    kind: &'static str,
    message: std::borrow::Cow<'a, str>,
}

pub fn run(context: &Context, arguments: Arguments) -> Result<Exit> {
    let mut labels = BTreeMap::new();
    for (key, value) in arguments.label {
        if labels.insert(key.clone(), value).is_some() {
            return Err(Error::Usage(format!("the label {key} is given twice")));
        }
    }
    let configured = &context.config().import;
    let options = Options {
        note: arguments.note,
        labels,
        owner: arguments.chown,
        latest_mtime: arguments.mtime,
        reread: if arguments.no_cache { Reread::All } else { Reread::Changed },
        pyc: if arguments.pyc == Pyc::Pin { PycPolicy::Pin } else { PycPolicy::Share },
        links: if arguments.require_hardlinks { LinkPolicy::Require } else { LinkPolicy::CopyIfNeeded },
        minimum_free_bytes: configured.min_free.unwrap_or(0),
        private: configured.private.clone(),
        shared: configured.shared.clone(),
        limits: super::archive_limits(&configured.limits),
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Write },
    };
    let input = if arguments.source.as_os_str() == "-" {
        Input::Stream(Box::new(context.standard_input()))
    } else {
        Input::Path(arguments.source)
    };
    let store = context.store()?;
    let progress = context.progress();
    let report = import(&store, input, &arguments.version, &options, &progress)?;
    drop(progress);
    for warning in &report.warnings {
        context.warn(&warning.message);
    }
    let activated = match arguments.activate {
        true => Some(switch(context, &store, &report)?),
        false => None,
    };
    answer(context, &store, &report, activated.as_ref())?;
    if let Some(activated) = activated.filter(|activated| activated.changed) {
        Notice::switched(&store, activated.from.as_ref(), &activated.to).send(context, &store);
    }
    Ok(Exit::Done)
}

/// Activates what was imported. If that is refused, the version is there all the same.
fn switch(context: &Context, store: &Store, report: &Report) -> Result<Activated> {
    let selector = Selector::Name(report.version.clone());
    let activated = activate::activate(store, &selector, &activate::Options::default(), &context.progress());
    let activated = activated.inspect_err(|_| {
        context.say(format_args!(
            "{} is imported ({}); only switching to it failed",
            report.version,
            report.digest.short()
        ));
    })?;
    say_warnings(context, &activated.external_changes, &activated.warnings);
    Ok(activated)
}

fn answer(context: &Context, store: &Store, report: &Report, activated: Option<&Activated>) -> Result<()> {
    // On a terminal the log has said so.
    let forgotten = store.forgotten().into_iter().map(|name| WarningDocument {
        kind: "forgotten",
        message: format!("{name} is forgotten: its tree was removed by hand, and nothing protects it").into(),
    });
    let warnings = report.warnings.iter().map(|w| WarningDocument { kind: w.kind, message: (&*w.message).into() });
    let document = Document {
        version: report.version.as_str(),
        digest: report.digest.to_string(),
        import_number: report.import_number,
        already_there: report.already_there,
        dry_run: report.dry_run,
        files: report.files,
        directories: report.directories,
        symlinks: report.symlinks,
        total_bytes: report.total_bytes,
        new_objects: report.new_objects,
        new_bytes: report.new_bytes,
        reflinked_bytes: report.reflinked_bytes,
        linked_files: report.linked_files,
        copied_files: report.copied_files,
        private_files: report.private_files,
        unread_files: report.unread_files,
        elapsed_ms: report.elapsed.as_millis(),
        warnings: forgotten.chain(warnings).collect(),
        activated: activated.map(SwitchDocument::of),
    };
    context.answer(&document, |out| {
        let Report { version, digest, files, total_bytes, new_objects, new_bytes, .. } = report;
        if report.already_there {
            writeln!(out, "{version} is there already, with the same contents ({})", digest.short())?;
            return tell_switch(out, activated);
        }
        let verb = if report.dry_run { "would import" } else { "imported" };
        writeln!(out, "{verb} {version} ({}) in {}", digest.short(), human::elapsed(report.elapsed))?;
        writeln!(out, "  {} with {} in all", human::count(*files, "file"), human::size(*total_bytes))?;
        let shared = total_bytes.saturating_sub(*new_bytes);
        writeln!(
            out,
            "  {} with {}; {} shared",
            human::count(*new_objects, "new object"),
            human::size(*new_bytes),
            human::size(shared)
        )?;
        tell_switch(out, activated)
    })
}

fn tell_switch(out: &mut dyn std::io::Write, activated: Option<&Activated>) -> std::io::Result<()> {
    match activated {
        Some(activated) => writeln!(out, "{}", sentence(activated)),
        None => Ok(()),
    }
}
