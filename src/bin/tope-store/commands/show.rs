//! `show`
//!
//! The document has the fields of `list` for the one version, and:
//!
//! | field | |
//! | --- | --- |
//! | `notes[]` | `time`, `text`: notes added since the import |
//! | `ownership` | `as-recorded`, or `squash` with `uid` and `gid`: how owners were applied |
//! | `placement` | numbers of files: `linked` (of those `pinned_mtime`), `private`, `shared`, `empty` |
//! | `shared_paths[]` | `path`: what lives outside the version |
//! | `evidence` | `check`, `detail`, `exit_code`, `log[]`: why it is bad, if it is |
//! | `events[]` | `seq`, `time`, `action`, …: the last ones about it, newest first |

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::model::event::Evidence;
use tope_store::model::{Ownership, Role, Selector};
use tope_store::ops::show::{Placed, Report, show};

use super::list::VersionDocument;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::entry::{EventFields, by};
use crate::render::human;
use crate::render::json::PathFields;

/// Show everything about one version
#[derive(Debug, Args)]
pub struct Arguments {
    /// A version, a role, or the beginning of a digest (t1:…)
    version: Selector,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    version: VersionDocument<'a>,
    notes: Vec<NoteDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ownership: Option<OwnershipDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<PlacementDocument>,
    shared_paths: Vec<PathFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceDocument<'a>>,
    events: Vec<EventFields<'a>>,
}

#[derive(Serialize)]
struct NoteDocument<'a> {
    time: String,
    text: &'a str,
}

#[derive(Serialize)]
struct OwnershipDocument {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
}

#[derive(Serialize)]
struct PlacementDocument {
    linked: u64,
    pinned_mtime: u64,
    private: u64,
    shared: u64,
    empty: u64,
}

#[derive(Serialize)]
struct EvidenceDocument<'a> {
    check: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    log: &'a [String],
}

fn document(report: &Report) -> Document<'_> {
    let listed = &report.listed;
    let facts = listed.published.as_ref().map(|published| &published.facts);
    let note = |note: &'_ tope_store::model::marks::Note| human::rfc3339(note.time);
    Document {
        version: VersionDocument::of(listed),
        notes: listed.notes.iter().map(|each| NoteDocument { time: note(each), text: &each.text }).collect(),
        ownership: facts.map(|facts| match facts.ownership {
            Ownership::AsRecorded => OwnershipDocument { kind: "as-recorded", uid: None, gid: None },
            Ownership::Squash { uid, gid } => OwnershipDocument { kind: "squash", uid: Some(uid), gid: Some(gid) },
        }),
        placement: report.placed.map(|Placed { linked, pinned_mtime, private, shared, empty }| PlacementDocument {
            linked,
            pinned_mtime,
            private,
            shared,
            empty,
        }),
        shared_paths: facts.map(|facts| facts.shared.iter().map(PathFields::of).collect()).unwrap_or_default(),
        evidence: listed.standing.bad.as_ref().map(|Evidence { check, detail, exit_code, log }| EvidenceDocument {
            check,
            detail,
            exit_code: *exit_code,
            log,
        }),
        events: report.events.iter().map(EventFields::of).collect(),
    }
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let report = show(&context.store()?, &arguments.version)?;
    context.answer(&document(&report), |out| text(out, &report))?;
    Ok(Exit::Done)
}

fn text(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let listed = &report.listed;
    let mut field = |name: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => writeln!(out, "{name:10} {value}"),
    };
    let roles: Vec<&str> = listed.roles.iter().copied().map(Role::as_str).collect();
    field("version", listed.name.to_string())?;
    field("digest", listed.digest.map(|digest| digest.to_string()).unwrap_or_default())?;
    field("roles", roles.join(", "))?;
    let pinned = if listed.pinned { ", pinned" } else { "" };
    field("state", format!("{}{pinned}", listed.state.name()))?;
    if let Some(evidence) = &listed.standing.bad {
        let code = evidence.exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
        let detail =
            if evidence.detail.is_empty() { String::new() } else { format!(": {}", Shown::text(&evidence.detail)) };
        field("bad", format!("{}{code}{detail}", Shown::text(&evidence.check)))?;
        for line in &evidence.log {
            field("", format!("  {}", Shown::text(line)))?;
        }
    }
    field("import", listed.import_number.map(|number| format!("number {number}")).unwrap_or_default())?;
    if let Some(published) = &listed.published {
        let (facts, counts) = (&published.facts, &published.counts);
        field("imported", human::moment(facts.imported_at, facts.clock_synchronised))?;
        let path = match facts.source.path.is_empty() {
            true => String::new(),
            false => format!(" {}", Shown::bytes(&facts.source.path)),
        };
        field("source", format!("{}{path}", facts.source.kind.name()))?;
        let (files, size) = (human::count(counts.files, "file"), human::size(counts.total_bytes));
        let directories = human::count_of(counts.directories, "directory", "directories");
        let links = human::count(counts.symlinks, "symbolic link");
        field("contents", format!("{files} with {size}, {directories}, {links}"))?;
        if let Some(placed) = report.placed {
            let Placed { linked, pinned_mtime, private, shared, empty } = placed;
            let some = |number: u64, what: &str| if number > 0 { format!(", {number} {what}") } else { String::new() };
            let rest = some(pinned_mtime, "of them with a time of their own")
                + &some(private, "private")
                + &some(shared, "in shared paths")
                + &some(empty, "empty");
            field("files", format!("{linked} linked{rest}"))?;
        }
        if let Ownership::Squash { uid, gid } = facts.ownership {
            field("owner", format!("everything belongs to {uid}:{gid}; recorded owners are kept in the manifest"))?;
        }
        for path in &facts.shared {
            field("shared", path.to_string())?;
        }
        for (key, value) in &facts.labels {
            field(
                "label",
                format!(
                    "{}={}",
                    Shown::text(key),
                    if value.is_empty() { String::new() } else { Shown::text(value).to_string() }
                ),
            )?;
        }
        for line in facts.note.lines() {
            field("note", Shown::text(line).to_string())?;
        }
    }
    for note in &listed.notes {
        field("note", format!("{} {}", human::time(note.time), Shown::text(&note.text)))?;
    }
    for event in &report.events {
        let from = event.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        let of =
            |text: &Option<String>| text.as_ref().map(|text| format!(": {}", Shown::text(text))).unwrap_or_default();
        let (reason, text) = (of(&event.reason), of(&event.text));
        let (time, by) = (human::moment(event.time, event.synchronised), by(&event.who));
        field("event", format!("{time} {}{from} by {by}{reason}{text}", event.action.name()))?;
    }
    Ok(())
}
