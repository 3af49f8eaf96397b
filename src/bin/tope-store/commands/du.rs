//! `du`
//!
//! | field | |
//! | --- | --- |
//! | `versions[]` | `name`, `total_bytes`, `unique_bytes`, `shared_bytes`, `freed_if_removed_bytes` |
//! | `store` | `versions`, `unshared_bytes`, `stored_bytes`, `dedup_ratio` (the first by the second), `objects`, `object_bytes`, `orphan_objects`, `orphan_bytes` (no version needs them), `variant_objects`, `variant_bytes` (the same contents under several modes, owners, attributes or pinned times) |
//! | `up_to` | whether `freed_if_removed_bytes` is an upper bound |

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::model::Selector;
use tope_store::ops::du::{Report, du};

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

/// Show what versions take, what they share, and what would come back
#[derive(Debug, Args)]
pub struct Arguments {
    /// The versions; all of them unless some are named
    #[arg(value_name = "VERSION")]
    versions: Vec<Selector>,
}

#[derive(Serialize)]
struct Document<'a> {
    versions: Vec<UsageDocument<'a>>,
    store: TotalsDocument,
    up_to: bool,
}

#[derive(Serialize)]
struct UsageDocument<'a> {
    name: &'a str,
    total_bytes: u64,
    unique_bytes: u64,
    shared_bytes: u64,
    freed_if_removed_bytes: u64,
}

#[derive(Serialize)]
struct TotalsDocument {
    versions: u64,
    unshared_bytes: u64,
    stored_bytes: u64,
    dedup_ratio: f64,
    objects: u64,
    object_bytes: u64,
    orphan_objects: u64,
    orphan_bytes: u64,
    variant_objects: u64,
    variant_bytes: u64,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store()?;
    let versions = arguments.versions.iter().map(|version| store.resolve(version)).collect::<Result<Vec<_>>>()?;
    let progress = context.progress();
    let report = du(&store, &versions, &progress)?;
    drop(progress);
    answer(context, &report)?;
    Ok(Exit::Done)
}

fn answer(context: &Context, report: &Report) -> Result<()> {
    let versions = report.versions.iter().map(|usage| UsageDocument {
        name: usage.name.as_str(),
        total_bytes: usage.total_bytes,
        unique_bytes: usage.unique_bytes,
        shared_bytes: usage.shared_bytes,
        freed_if_removed_bytes: usage.freed_if_removed_bytes,
    });
    let totals = &report.store;
    let document = Document {
        versions: versions.collect(),
        store: TotalsDocument {
            versions: totals.versions,
            unshared_bytes: totals.unshared_bytes,
            stored_bytes: totals.stored_bytes,
            dedup_ratio: totals.ratio(),
            objects: totals.objects,
            object_bytes: totals.object_bytes,
            orphan_objects: totals.orphan_objects,
            orphan_bytes: totals.orphan_bytes,
            variant_objects: totals.variant_objects,
            variant_bytes: totals.variant_bytes,
        },
        up_to: report.up_to,
    };
    context.answer(&document, |out| {
        let width = report.versions.iter().map(|usage| usage.name.as_str().len()).max().unwrap_or(0).max(7);
        if !report.versions.is_empty() {
            writeln!(
                out,
                "{:width$}  {:>10}  {:>10}  {:>10}  {:>10}",
                "version", "total", "unique", "shared", "if removed"
            )?;
        }
        for usage in &report.versions {
            let [total, unique, shared, freed] =
                [usage.total_bytes, usage.unique_bytes, usage.shared_bytes, usage.freed_if_removed_bytes]
                    .map(human::size);
            writeln!(out, "{:width$}  {total:>10}  {unique:>10}  {shared:>10}  {freed:>10}", usage.name)?;
        }
        let (stored, unshared) = (human::size(totals.stored_bytes), human::size(totals.unshared_bytes));
        let versions = human::count(totals.versions, "version");
        writeln!(out, "{versions} in {stored}; without sharing {unshared} ({:.1} times as much)", totals.ratio())?;
        if totals.variant_objects > 0 {
            let (objects, bytes) = (human::count(totals.variant_objects, "object"), human::size(totals.variant_bytes));
            writeln!(out, "{objects} with {bytes} repeat contents under another mode, owner or time")?;
        }
        if totals.orphan_objects > 0 {
            let (objects, bytes) = (human::count(totals.orphan_objects, "object"), human::size(totals.orphan_bytes));
            writeln!(out, "{objects} with {bytes} that no version needs; gc removes them")?;
        }
        Ok(())
    })
}
