//! The troubleshooting chapter, automated: what is wrong, why it matters, and the command that mends it.
//!
//! Looks at links, trees, manifests, the history, the index, the file system, the configuration, the state of switches,
//! processes and services, each in a family of its own. Works with whatever part of the store damaged, on a full disk, on a read-only mount and for every user: what
//! cannot be looked at is said and stops nothing. It measures instead of guessing: links, clones and attributes are
//! tried in staging.
//!
//! With `fix` it does what is safe and then looks again ([`fix`]): nothing that would choose a version for the operator,
//! replace what is not ours, or give up bytes.

mod fix;
mod history;
mod index;
mod links;
mod processes;
mod services;
mod state;
mod storage;
mod trees;

use std::path::PathBuf;

use crate::config::Service;
use crate::error::{Error, Refusal, Result, chain};
use crate::model::VersionName;
use crate::observe::Observer;
use crate::services::ServiceManager;
use crate::store::Store;

/// What to look at, and whether to mend.
#[derive(Default)]
pub struct Options<'a> {
    /// The directory for links to programs, as the device sees it.
    pub bin_dir: PathBuf,
    /// Bytes that imports keep free.
    pub min_free: u64,
    /// Who runs services, and which; none where they run nowhere, as those of an image.
    pub services: Option<Asked<'a>>,
    /// Why the configuration was refused, if it was.
    pub refused_configuration: Option<String>,
    /// Whether what can be mended safely is.
    pub fix: bool,
}

/// Services that are looked at.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Who starts and stops them.
    pub manager: &'a dyn ServiceManager,
    /// Those that are configured; where none is, they are found by what they run.
    pub configured: &'a [Service],
    /// The command of `[notify]`; empty if there is none.
    pub notify: &'a [String],
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something is lost or wrong.
    Damage,
    /// Something does not work, or will not when it is needed.
    Trouble,
    /// Something could be better.
    Advice,
}

impl Severity {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Damage => "damage",
            Self::Trouble => "trouble",
            Self::Advice => "advice",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The version it concerns, if it concerns one.
    pub version: Option<VersionName>,
    /// Where: in the version, or from the root.
    pub path: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// The command that mends it, or what to do.
    pub remedy: String,
    /// Whether `doctor --fix` mends it.
    pub fixable: bool,
}

impl Finding {
    fn new(kind: &'static str, severity: Severity, what: impl Into<String>, why: &'static str) -> Self {
        let remedy = "tope-store doctor --fix".to_owned();
        Self { kind, severity, version: None, path: None, what: what.into(), why, remedy, fixable: false }
    }

    fn at(self, path: impl Into<Vec<u8>>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    fn of(self, version: &VersionName) -> Self {
        Self { version: Some(version.clone()), ..self }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    fn fixable(self) -> Self {
        Self { fixable: true, ..self }
    }
}

/// Something that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// A stable word.
    pub name: &'static str,
    /// What it is.
    pub value: String,
}

/// What was found.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What is wrong, the gravest first; with `fix`, what is left.
    pub findings: Vec<Finding>,
    /// What the file system can do and has left.
    pub measured: Vec<Measured>,
    /// What was mended.
    pub fixed: Vec<String>,
    /// What could not be looked at or mended, and why.
    pub not_done: Vec<String>,
}

impl Report {
    /// Whether nothing is lost or wrong.
    pub fn ok(&self) -> bool {
        self.worst() != Some(Severity::Damage)
    }

    /// How much the gravest finding matters; `None` if nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).min()
    }
}

/// Looks at everything; with `fix` mends what is safe, and looks again.
///
/// # Errors
///
/// [`Error::Interrupted`]; with `fix`, [`Error::Refused`] while most versions are gone. What keeps it from looking is in
/// the report.
pub fn doctor(store: &Store, options: &Options<'_>, observer: &dyn Observer) -> Result<Report> {
    let mut report = examine(store, options, observer)?;
    if !options.fix {
        return Ok(report);
    }
    refuse_losses(store)?;
    let (mut fixed, mut not_done) = (Vec::new(), Vec::new());
    // A fix may show what it hid: the marks of a new chain, the links of a role that leads somewhere again.
    for _ in 0..3 {
        let before = fixed.len();
        // Opened again: what the format says is read when a store is opened.
        let opened = Store::open_leniently(store.layout().clone(), store.settings().clone());
        fix::fix(opened.as_ref().unwrap_or(store), options, &report, &mut fixed, &mut not_done, observer)?;
        let opened = Store::open_leniently(store.layout().clone(), store.settings().clone());
        report = examine(opened.as_ref().unwrap_or(store), options, observer)?;
        if fixed.len() == before {
            break;
        }
    }
    not_done.dedup();
    report.fixed = fixed;
    report.not_done.extend(not_done);
    report.not_done.dedup();
    Ok(report)
}

/// Refuses to mend while most versions are gone: what they need could go with them.
fn refuse_losses(store: &Store) -> Result<()> {
    match store.check_changeable() {
        Err(error @ Error::Refused { why: Refusal::Doubt, .. }) => Err(error),
        // Whatever else stands in the way is found by the step that needs it.
        _ => Ok(()),
    }
}

/// A family of findings.
type Family = fn(&Store, &Options<'_>, &mut Report, &dyn Observer) -> Result<()>;

const FAMILIES: &[(&str, Family)] = &[
    ("the format", storage::format),
    ("the history", history::examine),
    ("the links", links::examine),
    ("the trees", trees::examine),
    ("the index", index::examine),
    ("the file system", storage::examine),
    ("the configuration", state::configuration),
    ("the state", state::examine),
    ("the processes", processes::examine),
    ("the services", services::examine),
];

fn examine(store: &Store, options: &Options<'_>, observer: &dyn Observer) -> Result<Report> {
    let mut report = Report::default();
    for (name, family) in FAMILIES {
        match family(store, options, &mut report, observer) {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => report.not_done.push(format!("looking at {name}: {}", chain(&error))),
        }
    }
    report.findings.sort_by_key(|finding| finding.severity);
    Ok(report)
}
