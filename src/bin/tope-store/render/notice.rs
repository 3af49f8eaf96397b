//! What `[notify]` is told: one JSON document on the standard input of the command that is configured.

use serde::Serialize;
use tope_store::model::VersionName;
use tope_store::model::event::Evidence;
use tope_store::ops::notify::notify;
use tope_store::ops::supervise::{Outcome, Report};
use tope_store::store::Store;

use super::json;
use crate::context::Context;

/// Something that somebody has to know.
#[derive(Serialize)]
pub struct Notice {
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
    pub fn new(store: &Store, event: &'static str, version: Option<&VersionName>, message: String) -> Self {
        let now = store.clock().now();
        Self {
            event,
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

    /// Of a supervised switch that did not end as it was meant to.
    pub fn of_switch(store: &Store, report: &Report) -> Self {
        let (event, message) = match report.outcome {
            Outcome::Degraded => ("degraded", format!("no version holds; {} runs, the least bad one", report.current)),
            _ => ("rolled-back", format!("{} does not hold; {} runs", report.to, report.current)),
        };
        let evidence = report.attempts.iter().find_map(|attempt| attempt.failure());
        Self::new(store, event, Some(&report.current), message).from(Some(&report.to), report.level).because(evidence)
    }

    /// Tells it, if somebody is to be told. That this cannot be had is said and changes nothing else. The command of an
    /// offline image is one for the device, not for the machine that works on it.
    pub fn send(&self, context: &Context) {
        if context.global().sysroot.is_some() {
            return;
        }
        let mut document = Vec::new();
        let written = json::write(&mut document, self).map_err(|error| error.to_string());
        if let Err(why) = written.and_then(|()| notify(&context.config().notify, &document)) {
            tracing::warn!(event = self.event, "nobody could be told: {why}");
        }
    }
}
