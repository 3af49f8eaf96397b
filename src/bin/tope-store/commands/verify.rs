//! `verify`

use std::io::Write;

use clap::Args;
use serde::Serialize;
use tope_store::config::Occasion;
use tope_store::error::{Result, Shown};
use tope_store::model::event::Evidence;
use tope_store::model::{Role, Selector, VersionName};
use tope_store::ops::check::{Depth, ReadFrom};
use tope_store::ops::repair::{self, Mended};
use tope_store::ops::verify::{Finding, NEWER, Options, Report, verify};
use tope_store::store::Store;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::PathFields;
use crate::render::notice::Notice;

/// Compare trees, objects, manifests, the history and the links with what was recorded, and mend them
#[derive(Debug, Args)]
#[command(after_help = "Exit code 5 if anything is damaged; with --repair, if anything is still damaged afterwards. \
Exit code 9 if nothing is, and this binary is too old for the manifest of a version.

An object whose bytes are wrong is revoked, which the history records: no import links it again, and a version that \
has it is not activated, until --repair or an import that has the right bytes makes it again for all versions.

With --repair good bytes are looked for in the whole store: other versions, objects with another mode or owner, \
isolated factory trees, private copies. What cannot be mended is listed, and its versions are not activated until \
a later --repair finds them sound.

Examples:
  tope-store verify                    read every file once, from the medium
  tope-store verify --quick            look at every file, read only what looks wrong
  tope-store verify current --cached   read one version as processes see it
  tope-store verify --repair           mend what is damaged from what the store has
  tope-store verify --repair --from app-1.2.0.tar.gz
                                       and from a release: a directory, an archive, another store")]
pub struct Arguments {
    /// Versions or roles; without any, the whole store
    version: Vec<Selector>,
    /// Look at inodes only, and read just the files that are not what was linked
    #[arg(long)]
    quick: bool,
    /// Read from memory what is there, instead of from the medium
    #[arg(long, conflicts_with = "quick")]
    cached: bool,
    /// Mend what is damaged, in every version that has it
    #[arg(long, conflicts_with = "quick")]
    pub repair: bool,
    /// Where good bytes may be found if the store has none: a directory, an archive or another store
    #[arg(long, value_name = "SOURCE", requires = "repair")]
    from: Option<std::path::PathBuf>,
}

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    depth: &'static str,
    versions: u64,
    entries: u64,
    objects: u64,
    read_files: u64,
    unseen: u64,
    elapsed_ms: u128,
    problems: Vec<ProblemDocument<'a>>,
    revoked: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unrecorded: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairDocument<'a>>,
}

#[derive(Serialize)]
struct RepairDocument<'a> {
    mended: Vec<MendedDocument<'a>>,
    remaining: Vec<ProblemDocument<'a>>,
    marked: Vec<&'a str>,
    cleared: Vec<&'a str>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct MendedDocument<'a> {
    version: Option<&'a str>,
    #[serde(flatten)]
    path: PathFields,
    how: &'a str,
}

#[derive(Serialize)]
struct ProblemDocument<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    #[serde(flatten)]
    path: PathFields,
    detail: &'a str,
    damage: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store()?;
    let versions = arguments.version.iter().map(|selector| store.resolve(selector)).collect::<Result<Vec<_>>>()?;
    if arguments.repair {
        return mend(context, &store, versions, arguments);
    }
    let options = Options {
        versions,
        depth: if arguments.quick { Depth::Quick } else { Depth::Full },
        from: if arguments.cached { ReadFrom::Cache } else { ReadFrom::Medium },
    };
    let progress = context.progress();
    let report = verify(&store, &options, &progress)?;
    drop(progress);
    answer(context, &options, &report)?;
    tell_of(context, &store, &report.findings);
    Ok(verdict(report.ok(), &report))
}

/// The exit code: damage comes before versions that this binary is too old to verify.
fn verdict(sound: bool, found: &Report) -> Exit {
    match (sound, found.has_newer()) {
        (false, _) => Exit::Corrupt,
        (true, true) => Exit::NoStore,
        (true, false) => Exit::Done,
    }
}

/// Whoever is to be told is told of damage, or of what is left of it.
fn tell_of(context: &Context, store: &Store, findings: &[Finding]) {
    let damage: Vec<_> = findings.iter().filter(|finding| finding.damage).collect();
    let Some(first) = damage.first() else { return };
    let message =
        format!("{} found by verify, the first: {}", human::count(damage.len() as u64, "problem"), first.detail);
    let roles = store.refs().and_then(|refs| refs.read()).ok();
    let current = roles.as_ref().and_then(|roles| roles.version(Role::Current));
    let evidence = Evidence {
        check: "verify".into(),
        detail: format!("{}{}", place(&first.path), first.detail),
        ..Evidence::default()
    };
    Notice::new(store, Occasion::Corruption, current, message).because(Some(&evidence)).send(context, store);
}

fn mend(context: &Context, store: &Store, versions: Vec<VersionName>, arguments: &Arguments) -> Result<Exit> {
    let from = if arguments.cached { ReadFrom::Cache } else { ReadFrom::Medium };
    let options = repair::Options {
        versions,
        from,
        source: arguments.from.clone(),
        limits: super::archive_limits(&context.config().import.limits),
    };
    let progress = context.progress();
    let report = repair::repair(store, &options, &progress)?;
    drop(progress);
    let repair = RepairDocument {
        mended: report.mended.iter().map(mended).collect(),
        remaining: report.remaining.iter().map(problem).collect(),
        marked: report.marked.iter().map(VersionName::as_str).collect(),
        cleared: report.cleared.iter().map(VersionName::as_str).collect(),
        warnings: &report.warnings,
    };
    let document = Document { ok: report.ok(), repair: Some(repair), ..document(Depth::Full, &report.found) };
    context.answer(&document, |out| {
        findings(out, &report.found)?;
        for mended in &report.mended {
            let version = mended.version.as_ref().map_or(String::new(), |version| format!("{version}: "));
            let path = if mended.path.is_empty() { b"." } else { &mended.path[..] };
            writeln!(out, "{:<9}{version}{}", mended.how, Shown::bytes(path))?;
        }
        for finding in &report.remaining {
            let version = finding.version.as_ref().map_or(String::new(), |version| format!("{version}: "));
            writeln!(out, "remains  {version}{}{}", place(&finding.path), finding.detail)?;
        }
        for name in &report.marked {
            writeln!(out, "{name} is marked as damaged and will not be activated")?;
        }
        for name in &report.cleared {
            writeln!(out, "{name} is sound again")?;
        }
        let remaining = match report.remaining.len() as u64 {
            0 => "sound".to_owned(),
            remaining => format!("{} left", human::count(remaining, "damage")),
        };
        let mended = human::count(report.mended.len() as u64, "thing");
        writeln!(out, "{remaining}: {mended} mended in {}", human::elapsed(report.elapsed))
    })?;
    warn_of_unrecorded(context, &report.found);
    for warning in &report.warnings {
        context.warn(warning);
    }
    tell_of(context, store, &report.remaining);
    Ok(verdict(report.ok(), &report.found))
}

fn document(depth: Depth, report: &Report) -> Document<'_> {
    Document {
        ok: report.ok(),
        depth: depth.name(),
        versions: report.versions,
        entries: report.entries,
        objects: report.objects,
        read_files: report.read_files,
        unseen: report.unseen,
        elapsed_ms: report.elapsed.as_millis(),
        problems: report.findings.iter().map(problem).collect(),
        revoked: report.revoked.iter().map(|key| format!("store/objects/{key}")).collect(),
        unrecorded: report.unrecorded.as_deref(),
        repair: None,
    }
}

fn findings(out: &mut dyn Write, report: &Report) -> std::io::Result<()> {
    for finding in &report.findings {
        let word = match finding.kind.as_str() {
            NEWER => NEWER,
            _ if finding.damage => "damaged",
            _ => "superfluous",
        };
        let version = finding.version.as_ref().map_or(String::new(), |version| format!("{version}: "));
        writeln!(out, "{word}  {version}{}{}", place(&finding.path), finding.detail)?;
    }
    Ok(())
}

fn mended(mended: &Mended) -> MendedDocument<'_> {
    MendedDocument {
        version: mended.version.as_ref().map(VersionName::as_str),
        path: PathFields::of(&mended.path),
        how: mended.how,
    }
}

fn answer(context: &Context, options: &Options, report: &Report) -> Result<()> {
    let document = document(options.depth, report);
    context.answer(&document, |out| {
        findings(out, report)?;
        for key in &report.revoked {
            writeln!(out, "revoked  store/objects/{key}: it is not used again before it is made again")?;
        }
        let damaged = report.findings.iter().filter(|finding| finding.damage).count() as u64;
        let verdict =
            if damaged == 0 { "sound".to_owned() } else { format!("{} found", human::count(damaged, "damage")) };
        writeln!(
            out,
            "{verdict}: {}, {}, {} read in {}",
            human::count(report.versions, "version"),
            human::count(report.objects, "object"),
            human::count(report.read_files, "file"),
            human::elapsed(report.elapsed)
        )
    })?;
    warn_of_unrecorded(context, report);
    if report.unseen > 0 {
        context.warn(format!("{} may not be looked at by this user", human::count(report.unseen, "name")));
    }
    Ok(())
}

/// Damage that nobody remembers is taken for intact again where it looks so.
fn warn_of_unrecorded(context: &Context, report: &Report) {
    if let Some(why) = &report.unrecorded {
        context.warn(format!(
            "the damaged objects could not be recorded, and may be linked again until verify can record them: {why}"
        ));
    }
}

fn problem(finding: &Finding) -> ProblemDocument<'_> {
    ProblemDocument {
        kind: &finding.kind,
        version: finding.version.as_ref().map(VersionName::as_str),
        path: PathFields::of(&finding.path),
        detail: &finding.detail,
        damage: finding.damage,
    }
}

/// A path and what separates it from what is said of it; nothing for what is said of a whole version.
fn place(path: &[u8]) -> String {
    match path {
        [] => String::new(),
        path => format!("{}: ", Shown::bytes(path)),
    }
}
