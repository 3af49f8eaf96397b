//! `rebuild-index`
//!
//! The document: `versions`, `trees`, `entries`, `objects`, `events` (rows of each), `damaged[]` (names of versions whose
//! manifests cannot be trusted, which are not in the index), `elapsed_ms`.

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::VersionName;
use tope_store::ops::rebuild_index::rebuild_index;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

/// Make the index anew from manifests and history
///
/// Never needed: an index that is missing, damaged or behind is dealt with by the command that meets it.
#[derive(Debug, Args)]
pub struct Arguments {}

#[derive(Serialize)]
struct Document<'a> {
    versions: u64,
    trees: u64,
    entries: u64,
    objects: u64,
    events: u64,
    damaged: Vec<&'a str>,
    elapsed_ms: u128,
}

pub fn run(context: &Context, _: &Arguments) -> Result<Exit> {
    let report = rebuild_index(&context.store()?)?;
    for name in &report.damaged {
        context.warn(format!("the manifest of {name} is damaged; see what can be done with: tope-store verify {name}"));
    }
    let totals = report.totals;
    let document = Document {
        versions: totals.versions,
        trees: totals.trees,
        entries: totals.entries,
        objects: totals.objects,
        events: totals.events,
        damaged: report.damaged.iter().map(VersionName::as_str).collect(),
        elapsed_ms: report.elapsed.as_millis(),
    };
    context.answer(&document, |out| {
        let [versions, trees, entries, objects, events] = [
            (totals.versions, "version"),
            (totals.trees, "distinct tree"),
            (totals.entries, "file name"),
            (totals.objects, "object"),
            (totals.events, "event"),
        ]
        .map(|(number, noun)| human::count(number, noun));
        let elapsed = human::elapsed(report.elapsed);
        writeln!(out, "rebuilt the index in {elapsed}: {versions}, {trees}, {entries}, {objects}, {events}")
    })?;
    Ok(Exit::Done)
}
