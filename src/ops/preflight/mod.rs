//! Whether services can run after a switch, asked before anything is stopped or switched.
//!
//! One question for `activate --restart` (which refuses), `rollback --restart` and `boot-check --judge` (which report),
//! and `doctor`. It finds units that the manager cannot load, or that need another that it cannot load; users and groups
//! that do not exist; units that wait for each other; and programs that are not there: those of checks, of the supervisor,
//! of `[notify]`, and those that a unit starts.
//!
//! **Rule:** what is judged is the machine after the switch. A path that leads through `versions/current` is followed in
//! the version that is switched to, and a unit whose files come with that version is judged by those files, not by what
//! the manager has in memory.
//!
//! **Rule:** only what is known to be wrong is a finding. A manager that does not answer, a directory that cannot be read,
//! a user database that cannot be asked are none.

mod accounts;
mod commands;
mod files;
mod order;
mod units;

use std::path::Path;

use crate::config::Service;
use crate::fsys::foreseen::{Foreseen, Led};
use crate::layout;
pub use crate::model::preflight::{Finding, Severity};
use crate::model::{Role, VersionName};
use crate::services::{ServiceManager, discover};
use crate::store::Store;

pub(in crate::ops) use files::comes_with;

/// What is asked about.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Who starts and stops services.
    pub manager: &'a dyn ServiceManager,
    /// The services.
    pub services: &'a [Service],
    /// The units that are restarted: what keeps one of them from starting is a reason to refuse.
    pub touched: &'a dyn Fn(&str) -> bool,
    /// The units that are watched: what keeps the check of one of them from succeeding is a reason to refuse.
    pub watched: &'a dyn Fn(&str) -> bool,
    /// The command of `[notify]`; empty if there is none.
    pub notify: &'a [String],
    /// The version that is switched to; `None` for the machine as it is.
    pub target: Option<&'a VersionName>,
}

/// Finds what keeps services from running, the reasons to refuse first.
pub fn preflight(store: &Store, subject: &Subject<'_>) -> Vec<Finding> {
    let view = View::new(store, subject.target);
    let mut findings = supervisor(&view, subject);
    findings.extend(units::examine(&view, subject));
    findings.extend(commands::checks(&view, subject));
    findings.extend(commands::notify(&view, subject.notify));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The programs of the supervisor alone: for a manager that cannot be asked, since they may be the reason.
pub fn supervisor_of(store: &Store, subject: &Subject<'_>) -> Vec<Finding> {
    supervisor(&View::new(store, subject.target), subject)
}

fn supervisor(view: &View<'_>, subject: &Subject<'_>) -> Vec<Finding> {
    commands::supervisor(view, subject)
}

/// The same for the machine as it is and all of its services, whether a switch touches them or not.
pub fn standing(
    store: &Store,
    manager: &dyn ServiceManager,
    configured: &[Service],
    notify: &[String],
) -> Vec<Finding> {
    let services = discover::services(manager, configured, store.layout()).unwrap_or_else(|_| configured.to_vec());
    let all = |_: &str| true;
    let subject = Subject { manager, services: &services, touched: &all, watched: &all, notify, target: None };
    preflight(store, &subject)
}

/// The machine after the switch.
struct View<'a> {
    store: &'a Store,
    foreseen: Foreseen,
    target: Option<&'a VersionName>,
}

impl<'a> View<'a> {
    fn new(store: &'a Store, target: Option<&'a VersionName>) -> Self {
        // Without /proc the path may hold links, and what leads through current is not known as such.
        let versions = store.versions().real_path();
        let versions = versions.unwrap_or_else(|_| store.layout().device_root().join(layout::VERSIONS));
        let target_name = target.map(VersionName::as_str);
        Self { store, foreseen: Foreseen::new(versions, Role::Current.as_str(), target_name), target }
    }

    /// Where a path will lead; `None` if that cannot be known.
    fn follow(&self, path: &Path) -> Option<Led> {
        self.foreseen.follow(path).ok()
    }

    /// Where something is missing, for messages: " in v1.2.0" for what comes with a version.
    fn within(&self, switched: bool) -> String {
        match self.target.filter(|_| switched) {
            Some(target) => format!(" in {target}"),
            None => String::new(),
        }
    }
}

fn refuse_if(refuse: bool) -> Severity {
    if refuse { Severity::Refuse } else { Severity::Warn }
}
