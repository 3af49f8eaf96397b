//! `status`

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tope_store::error::{Result, Shown};
use tope_store::history::State;
use tope_store::model::marks::Degraded;
use tope_store::model::notice::Undelivered;
use tope_store::model::switch::Switch;
use tope_store::model::{Role, VersionName};
use tope_store::ops::state_word::StateWord;
use tope_store::ops::status::{CurrentHealth, Options, Report, RoleStatus, Running, Standing, status};
use tope_store::refs::{RoleLink, Spelling};
use tope_store::store::trial::Found;

use super::activate::Check;
use super::supervised::{EvidenceDocument, when_mended};
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::problems::{self, ProblemDocument};

/// Tell what runs, whether it is sound, and what was changed by hand
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store status
  tope-store status --verify full                    read every byte of the current version
  tope-store --json status
  tope-store status --check                          one word and an exit code, for monitoring

Works for every user and on a read-only mount. Exit code 3 if current is missing or leads to no version, else 0.

--check answers with the first of these words that is true:
  degraded     exit code 8: no version holds, and the least bad one runs
  damaged      5: the current version fails its check, the tree of a version is gone, a repair could not mend one, the \
history cannot be trusted, or the trial cannot be read
  bad          1: the current version is marked bad
  rolled-back  1: a failed check made the last switch; ends with the next switch, or when what runs is confirmed
  missing      3: current leads to no version
  unmanaged    1: the current version was made by hand
  trial        0: a version is on trial
  unconfirmed  0: the current version is neither good nor bad
  ok           0: the current version is good")]
pub struct Arguments {
    /// Answer with one word, and exit with the code that goes with it
    #[arg(long)]
    check: bool,
    /// How closely to check the current version: every name, every byte, or not at all
    #[arg(long, value_name = "HOW", default_value = "quick")]
    verify: Check,
}

#[derive(Serialize)]
struct Document<'a> {
    root: String,
    check: &'static str,
    current: RoleDocument,
    previous: RoleDocument,
    factory: RoleDocument,
    health: HealthDocument,
    trial: Option<TrialDocument<'a>>,
    degraded: Option<DegradedDocument<'a>>,
    last_switch: Option<SwitchDocument<'a>>,
    bad: Vec<BadDocument<'a>>,
    running: Vec<RunningDocument<'a>>,
    hidden_processes: usize,
    undelivered: Option<UndeliveredDocument<'a>>,
    versions: usize,
    missing_tree: Vec<&'a str>,
    loss: Option<&'a str>,
    unmanaged: Vec<&'a str>,
    history: &'static str,
    history_detail: Option<String>,
    abandoned: Option<&'a [String]>,
    free_bytes: u64,
    free_inodes: Option<u64>,
    format_obstacle: Option<&'a str>,
}

#[derive(Serialize, Default)]
struct RoleDocument {
    version: Option<String>,
    link: &'static str,
    target: Option<String>,
    digest: Option<String>,
    state: &'static str,
    evidence: Option<String>,
    recorded: Option<String>,
    changed_by_hand: bool,
}

#[derive(Serialize)]
struct TrialDocument<'a> {
    version: Option<&'a str>,
    current: Option<&'a str>,
    level: Option<u8>,
    attempts: Option<u32>,
    watched: bool,
    unreadable: Option<&'a str>,
}

impl<'a> TrialDocument<'a> {
    fn of(report: &'a Report) -> Option<Self> {
        let watched = report.trial_is_watched;
        match &report.trial {
            Found::None => None,
            Found::Open(trial) => Some(Self {
                version: Some(trial.version.as_str()),
                current: Some(trial.current.as_str()),
                level: Some(trial.level),
                attempts: Some(trial.attempts),
                watched,
                unreadable: None,
            }),
            Found::Unreadable(why) => {
                let unreadable = Some(why.as_str());
                Some(Self { version: None, current: None, level: None, attempts: None, watched, unreadable })
            }
        }
    }
}

#[derive(Serialize)]
struct DegradedDocument<'a> {
    version: &'a str,
    since: Option<String>,
    check: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
struct SwitchDocument<'a> {
    event: u64,
    time: String,
    synchronised: bool,
    from: Option<&'a str>,
    to: &'a str,
    automatic: bool,
    tried: Option<&'a str>,
    evidence: Option<EvidenceDocument<'a>>,
    accepted: bool,
}

impl<'a> SwitchDocument<'a> {
    fn of(switch: &'a Switch) -> Self {
        Self {
            event: switch.event,
            time: human::rfc3339(switch.time),
            synchronised: switch.synchronised,
            from: switch.from.as_ref().map(VersionName::as_str),
            to: switch.version.as_str(),
            automatic: switch.tried.is_some(),
            tried: switch.tried.as_ref().map(VersionName::as_str),
            evidence: switch.evidence.as_ref().map(EvidenceDocument::of),
            accepted: switch.accepted,
        }
    }
}

#[derive(Serialize)]
struct BadDocument<'a> {
    version: &'a str,
    evidence: EvidenceDocument<'a>,
}

#[derive(Serialize)]
struct RunningDocument<'a> {
    version: &'a str,
    processes: usize,
    units: &'a [String],
}

#[derive(Serialize)]
struct UndeliveredDocument<'a> {
    event: &'a str,
    time: String,
    synchronised: bool,
    why: &'a str,
}

#[derive(Serialize)]
struct HealthDocument {
    checked: bool,
    ok: Option<bool>,
    not_checked_because: Option<String>,
    problems: Vec<ProblemDocument>,
    unseen: u64,
    newer: bool,
}

/// How a link is written, in a stable word, and its target where that is not the plain name.
fn spelling(link: &RoleLink) -> (&'static str, Option<String>) {
    let text = |target: &[u8]| Some(Shown::bytes(target).to_string());
    match link {
        RoleLink::Absent => ("absent", None),
        RoleLink::NotALink(_) => ("not-a-link", None),
        RoleLink::Dangling { target } => ("dangling", text(target)),
        RoleLink::Foreign { target } => ("foreign", text(target)),
        RoleLink::Version { spelling: Spelling::Plain, .. } => ("plain", None),
        RoleLink::Version { spelling: Spelling::Roundabout { target }, .. } => ("roundabout", text(target)),
        RoleLink::Version { spelling: Spelling::Through(role), .. } => ("through-role", Some(role.to_string())),
    }
}

fn standing(standing: &Standing) -> &'static str {
    match standing {
        Standing::Good => "good",
        Standing::Bad(_) => "bad",
        Standing::Unknown => "unconfirmed",
        Standing::Unmanaged => "unmanaged",
    }
}

impl RoleDocument {
    fn of(status: &RoleStatus) -> Self {
        let (link, target) = spelling(&status.link);
        let evidence = match &status.standing {
            Standing::Bad(evidence) => Some(evidence.to_string()),
            _ => None,
        };
        Self {
            version: status.link.version().map(ToString::to_string),
            link,
            target,
            digest: status.digest.map(|digest| digest.to_string()),
            state: standing(&status.standing),
            evidence,
            recorded: status.recorded.as_ref().map(ToString::to_string),
            changed_by_hand: status.changed_by_hand,
        }
    }
}

/// The state of the history in a stable word, and what is wrong.
pub fn history_state(state: &State) -> (&'static str, Option<String>) {
    match state {
        State::Sound => ("sound", None),
        State::Missing => ("missing", None),
        State::Torn { bytes, .. } => ("torn", Some(format!("the last append did not end: {bytes} bytes"))),
        State::Broken { segment, line, detail } => ("broken", Some(format!("{segment} line {line}: {detail}"))),
        State::Doubt { detail, .. } => ("doubt", Some(format!("events are lost: {detail}"))),
    }
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let store = context.store_leniently()?;
    let progress = context.progress();
    let report = status(&store, &Options { verify: arguments.verify.verify() }, &progress)?;
    drop(progress);
    let root = store.root().path().display().to_string();
    let role = |role| report.role(role).map(RoleDocument::of).unwrap_or_default();
    let (history, history_detail) = history_state(&report.history);
    let word = StateWord::of(&report);
    let document = Document {
        root: root.clone(),
        check: word.name(),
        current: role(Role::Current),
        previous: role(Role::Previous),
        factory: role(Role::Factory),
        health: health(&report.health),
        trial: TrialDocument::of(&report),
        degraded: report.degraded.as_ref().map(|Degraded { version, evidence, time, .. }| DegradedDocument {
            version: version.as_str(),
            since: time.map(human::rfc3339),
            check: &evidence.check,
            detail: &evidence.detail,
        }),
        last_switch: report.last_switch.as_ref().map(SwitchDocument::of),
        bad: report
            .bad
            .iter()
            .map(|(version, evidence)| BadDocument {
                version: version.as_str(),
                evidence: EvidenceDocument::of(evidence),
            })
            .collect(),
        running: report
            .in_use
            .running
            .iter()
            .map(|Running { version, processes, units }| RunningDocument {
                version: version.as_str(),
                processes: *processes,
                units,
            })
            .collect(),
        hidden_processes: report.in_use.hidden,
        undelivered: report.undelivered.as_ref().map(|failed| UndeliveredDocument {
            event: &failed.event,
            time: human::rfc3339(failed.time),
            synchronised: failed.synchronised,
            why: &failed.why,
        }),
        versions: report.versions,
        missing_tree: report.missing_tree.iter().map(VersionName::as_str).collect(),
        loss: report.loss.as_deref(),
        unmanaged: report.unmanaged.iter().map(VersionName::as_str).collect(),
        history,
        history_detail,
        abandoned: report.abandoned.as_deref(),
        free_bytes: report.free_bytes,
        free_inodes: report.free_inodes,
        format_obstacle: report.format_obstacle.as_deref(),
    };
    context.answer(&document, |out| match arguments.check {
        true => writeln!(out, "{}", word.name()),
        false => tell(out, &root, &report),
    })?;
    Ok(match report.has_current() {
        _ if arguments.check => exit(word),
        true => Exit::Done,
        false => Exit::NotFound,
    })
}

/// The exit code of `--check`.
fn exit(word: StateWord) -> Exit {
    match word {
        StateWord::Degraded => Exit::Degraded,
        StateWord::Damaged => Exit::Corrupt,
        StateWord::Missing => Exit::NotFound,
        StateWord::Bad | StateWord::RolledBack | StateWord::Unmanaged => Exit::Failed,
        StateWord::Trial | StateWord::Unconfirmed | StateWord::Ok => Exit::Done,
    }
}

fn health(health: &CurrentHealth) -> HealthDocument {
    match health {
        CurrentHealth::Checked(checked) => HealthDocument {
            checked: true,
            ok: Some(checked.is_sound()),
            not_checked_because: None,
            problems: problems::documents(checked),
            unseen: checked.unseen,
            newer: false,
        },
        CurrentHealth::NotChecked(why) | CurrentHealth::Failed(why) => HealthDocument {
            checked: false,
            ok: None,
            not_checked_because: Some(why.clone()),
            problems: Vec::new(),
            unseen: 0,
            newer: false,
        },
        CurrentHealth::Newer(why) => {
            HealthDocument { newer: true, ..self::health(&CurrentHealth::NotChecked(why.clone())) }
        }
    }
}

fn tell(out: &mut dyn Write, root: &str, report: &Report) -> io::Result<()> {
    writeln!(out, "store     {root}")?;
    for status in &report.roles {
        tell_role(out, status)?;
    }
    match &report.health {
        CurrentHealth::Checked(checked) => {
            let unexpected = checked.problems.len() - checked.damage().count();
            let unseen = if checked.unseen > 0 { ", as far as you may look" } else { "" };
            match (checked.damage().count(), unexpected) {
                (0, 0) => writeln!(out, "health    as imported{unseen}")?,
                (0, _) => writeln!(out, "health    as imported{unseen}, with names that are no part of it:")?,
                _ => writeln!(out, "health    damaged{unseen}:")?,
            }
            for problem in &checked.problems {
                writeln!(out, "          {problem}")?;
            }
        }
        CurrentHealth::NotChecked(why) => writeln!(out, "health    not checked: {why}")?,
        CurrentHealth::Failed(why) => writeln!(out, "health    cannot be checked: {why}")?,
        CurrentHealth::Newer(why) => writeln!(out, "health    newer: {why}")?,
    }
    tell_trial(out, report)?;
    tell_rolled_back(out, report)?;
    writeln!(out, "versions  {}", report.versions)?;
    tell_bad_and_running(out, report)?;
    let names = |names: &[VersionName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !report.unmanaged.is_empty() {
        writeln!(out, "unmanaged {} (made by hand; adopt takes them in)", names(&report.unmanaged))?;
    }
    if !report.missing_tree.is_empty() {
        writeln!(out, "missing-tree {} (verify --repair builds it again)", names(&report.missing_tree))?;
    }
    if let Some(loss) = &report.loss {
        writeln!(out, "loss      {loss}; nothing is changed until that is mended")?;
    }
    let (state, detail) = history_state(&report.history);
    writeln!(out, "history   {state}{}", detail.map(|detail| format!(" ({detail})")).unwrap_or_default())?;
    if let Some(abandoned) = report.abandoned.as_ref().filter(|abandoned| !abandoned.is_empty()) {
        writeln!(
            out,
            "left over {} (the next import removes it)",
            human::count(abandoned.len() as u64, "interrupted run")
        )?;
    }
    let inodes = report.free_inodes.map(|inodes| format!(", {inodes} inodes")).unwrap_or_default();
    writeln!(out, "free      {}{inodes}", human::size(report.free_bytes))?;
    if let Some(obstacle) = &report.format_obstacle {
        writeln!(out, "format    not supported for writing: {obstacle}")?;
    }
    Ok(())
}

fn tell_trial(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    match &report.trial {
        Found::None => {}
        Found::Open(trial) => {
            let who = match report.trial_is_watched {
                true if trial.watcher.guardian => format!("its guardian, process {}, watches it", trial.watcher.pid),
                true => format!("process {} watches it", trial.watcher.pid),
                false => "nobody watches it; have it judged with: tope-store boot-check".to_owned(),
            };
            writeln!(out, "on trial  {} (level {}): {who}", trial.current, trial.level)?;
        }
        Found::Unreadable(why) => writeln!(out, "on trial  not known: store/trial cannot be read: {why}")?,
    }
    if let Some(Degraded { version, evidence, time, .. }) = &report.degraded {
        let since = time.map(|time| format!(", since {}", human::time(time))).unwrap_or_default();
        writeln!(out, "degraded  no version holds{since}, and {version} is the least bad one: {evidence}")?;
        writeln!(out, "          {}", when_mended(version))?;
    }
    Ok(())
}

/// What a failed check undid, until the next switch.
fn tell_rolled_back(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Some(switch) = report.rolled_back() else { return Ok(()) };
    let tried = switch.tried.as_ref().map_or("?", |tried| tried.as_str());
    let time = human::moment(switch.time, switch.synchronised);
    writeln!(out, "rolled back from {tried} to {} at {time}", switch.version)?;
    if let Some(evidence) = &switch.evidence {
        writeln!(out, "          {tried} failed: {evidence}")?;
        for line in evidence.log.iter().rev().take(3).rev() {
            writeln!(out, "          | {}", Shown::text(line))?;
        }
    }
    writeln!(out, "          said until the next switch, or: tope-store confirm {}", switch.version)
}

fn tell_bad_and_running(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for (version, evidence) in &report.bad {
        writeln!(out, "bad       {version}: {evidence}")?;
    }
    for Running { version, processes, units } in &report.in_use.running {
        let units = if units.is_empty() { String::new() } else { format!(" of {}", units.join(", ")) };
        let processes = human::count_of(*processes as u64, "process", "processes");
        writeln!(out, "running   {version}, which is not current: {processes}{units} (tope-store who)")?;
    }
    if let Some(why) = &report.in_use.unknown {
        writeln!(out, "running   not known: {why}")?;
    }
    if let Some(Undelivered { event, time, synchronised, why }) = &report.undelivered {
        let time = human::moment(*time, *synchronised);
        writeln!(out, "notify    {} of {time} reached nobody: {}", Shown::text(event), Shown::text(why))?;
        writeln!(out, "          when that is mended: tope-store notify --test")?;
    }
    if report.in_use.hidden > 0 {
        let processes = human::count_of(report.in_use.hidden as u64, "process", "processes");
        writeln!(out, "running   not known of {processes} that could not be inspected")?;
    }
    Ok(())
}

fn tell_role(out: &mut dyn Write, status: &RoleStatus) -> io::Result<()> {
    write!(out, "{:<9} ", status.role)?;
    let (word, target) = spelling(&status.link);
    match (status.link.version(), target) {
        (Some(version), target) => {
            write!(out, "{version}")?;
            if let Some(digest) = status.digest {
                write!(out, "  {}", digest.short())?;
            }
            match &status.standing {
                Standing::Bad(evidence) => write!(out, "  bad ({evidence})")?,
                Standing::Unknown => {}
                other => write!(out, "  {}", standing(other))?,
            }
            if let Some(target) = target {
                write!(out, "  written as {target}")?;
            }
        }
        (None, Some(target)) => write!(out, "{word}: leads to {target}")?,
        (None, None) => write!(out, "{word}")?,
    }
    if status.changed_by_hand {
        let recorded = status.recorded.as_ref().map_or("none", |version| version.as_str());
        write!(out, "  (recorded: {recorded}; changed by somebody else)")?;
    }
    writeln!(out)
}
