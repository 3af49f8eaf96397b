//! What `[notify]` is told: one JSON document on the standard input of the command that is configured.

use serde::Serialize;
use tope_store::config::Occasion;
use tope_store::error::{Error, Result};
use tope_store::model::event::Evidence;
use tope_store::model::{Role, VersionName};
use tope_store::ops::gc;
use tope_store::ops::notify::{self, notify};
use tope_store::ops::supervise::{Outcome, Report};
use tope_store::store::Store;

use super::{human, json};
use crate::context::Context;

/// Something that somebody may want to know.
#[derive(Serialize)]
pub struct Notice {
    /// What it is about; a test is about nothing.
    #[serde(skip)]
    occasion: Option<Occasion>,
    event: &'static str,
    root: String,
    time: i64,
    boot: String,
    version: Option<String>,
    from: Option<String>,
    level: Option<u8>,
    check: Option<String>,
    detail: Option<String>,
    log: Vec<String>,
    message: String,
}

impl Notice {
    /// Of this kind, about the version that is current now.
    pub fn new(store: &Store, occasion: Occasion, version: Option<&VersionName>, message: String) -> Self {
        Self { occasion: Some(occasion), event: occasion.name(), ..Self::about(store, version, message) }
    }

    /// One that only shows that notices arrive.
    pub fn test(store: &Store, version: Option<&VersionName>) -> Self {
        Self::about(store, version, "this is a test: notices arrive".to_owned())
    }

    fn about(store: &Store, version: Option<&VersionName>, message: String) -> Self {
        let now = store.clock().now();
        Self {
            occasion: None,
            event: "test",
            root: store.root().path().display().to_string(),
            time: now.unix_seconds,
            boot: now.boot_id,
            version: version.map(ToString::to_string),
            from: None,
            level: None,
            check: None,
            detail: None,
            log: Vec::new(),
            message,
        }
    }

    /// The version that was left, and the level that was gone back to.
    pub fn from(self, from: Option<&VersionName>, level: u8) -> Self {
        Self { from: from.map(ToString::to_string), level: Some(level), ..self }
    }

    /// Why.
    pub fn because(self, evidence: Option<&Evidence>) -> Self {
        let Some(evidence) = evidence else { return self };
        Self {
            check: Some(evidence.check.clone()),
            detail: Some(evidence.detail.clone()),
            log: evidence.log.clone(),
            ..self
        }
    }

    /// Of a supervised switch; `None` if nothing was switched.
    pub fn of_switch(store: &Store, report: &Report) -> Option<Self> {
        let Report { from, to, current, .. } = report;
        let (occasion, message) = match report.outcome {
            Outcome::Done if from.as_ref() != Some(current) => return Some(Self::switched(store, from.as_ref(), to)),
            Outcome::Degraded => (Occasion::Degraded, format!("no version holds; {current} runs, the least bad one")),
            Outcome::RolledBack => (Occasion::RolledBack, format!("{to} does not hold; {current} runs")),
            _ => return None,
        };
        let evidence = report.attempts.iter().find_map(|attempt| attempt.failure());
        Some(Self::new(store, occasion, Some(current), message).from(Some(to), report.level).because(evidence))
    }

    /// Of a switch that ended as it was meant to.
    pub fn switched(store: &Store, from: Option<&VersionName>, to: &VersionName) -> Self {
        let was = from.map(|from| format!(" (was {from})")).unwrap_or_default();
        let notice = Self::new(store, Occasion::Switched, Some(to), format!("current is now {to}{was}"));
        Self { from: from.map(ToString::to_string), ..notice }
    }

    /// Of an operator's switch back.
    pub fn rollback(store: &Store, from: Option<&VersionName>, to: &VersionName, level: u8) -> Self {
        let message = format!("current is now {to}, by an operator's rollback");
        Self::new(store, Occasion::Rollback, Some(to), message).from(from, level)
    }

    /// Of what `gc` removed; `None` if that is nothing.
    pub fn of_gc(store: &Store, report: &gc::Report) -> Option<Self> {
        let names = report.removed.iter().map(|removed| &removed.name).chain(&report.forgotten);
        let names: Vec<&str> = names.map(VersionName::as_str).collect();
        if report.dry_run || (names.is_empty() && report.freed_bytes == 0) {
            return None;
        }
        let versions = human::count(names.len() as u64, "version");
        let message = format!("gc removed {versions}; {} came back", human::size(report.freed_bytes));
        let roles = store.refs().and_then(|refs| refs.read()).ok();
        let current = roles.as_ref().and_then(|roles| roles.version(Role::Current));
        let detail = Some(names.join(", ")).filter(|names| !names.is_empty());
        Some(Self { detail, ..Self::new(store, Occasion::Gc, current, message) })
    }

    /// Tells it, if somebody is to be told of it. That this cannot be done is said and changes nothing else. The command
    /// of an offline image is one for the device, not for the machine that works on it.
    ///
    /// The caller holds no lock any longer: a slow receiver must not keep anybody waiting.
    pub fn send(&self, context: &Context, store: &Store) {
        let is_wanted = self.occasion.is_none_or(|occasion| context.config().notify_on.has(occasion));
        if context.global().sysroot.is_some() || !is_wanted {
            return;
        }
        match self.deliver(context, store) {
            Err(error) => tracing::warn!(event = self.event, "nobody could be told: {error}"),
            Ok(report) => {
                if let Some(why) = &report.failed {
                    tracing::warn!(event = self.event, "nobody could be told: {why}");
                }
                if let Some(why) = &report.unrecorded {
                    tracing::warn!(event = self.event, "whether anybody was told cannot be recorded: {why}");
                }
            }
        }
    }

    /// The same in any case; gives what it came to.
    pub fn deliver(&self, context: &Context, store: &Store) -> Result<notify::Report> {
        let mut document = Vec::new();
        json::write(&mut document, self).map_err(|error| Error::io("write", "a notice", error))?;
        Ok(notify(store, &context.config().notify, self.event, &document))
    }
}
