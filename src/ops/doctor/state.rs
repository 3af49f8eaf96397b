//! What switches left behind: a degraded state, a trial that is not watched, a bad version that runs. And the configuration.

use super::{Finding, Options, Report, Severity};
use crate::error::Result;
use crate::model::Role;
use crate::observe::Observer;
use crate::store::Store;
use crate::store::trial::Found;

pub(super) fn configuration(_: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    if let Some(why) = &options.refused_configuration {
        report.findings.push(
            Finding::new(
                "configuration",
                Severity::Trouble,
                format!("the configuration is refused: {why}"),
                "most commands refuse to run; rollback, status, boot-check and doctor go on without it, and may miss services",
            )
            .remedy("correct that line; every key is explained in deploy/config.toml.example"),
        );
    }
    Ok(())
}

pub(super) fn examine(store: &Store, _: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    let survey = store.survey()?;
    let current = survey.roles.version(Role::Current);
    if let Some(degraded) = &survey.marks.degraded {
        let version = current.unwrap_or(&degraded.version);
        report.findings.push(
            Finding::new(
                "degraded",
                Severity::Trouble,
                format!("no version held, and {} runs as the least bad one: {}", degraded.version, degraded.evidence),
                "the device does not do what it is there for, or not all of it",
            )
            .of(&degraded.version)
            .remedy(format!("mend the fault, then: tope-store activate {version} --restart=all")),
        );
    }
    let digest = current.and_then(|current| survey.digest(store, current));
    let evidence = digest.and_then(|digest| survey.marks.bad(&digest));
    if let (Some(current), Some(evidence)) = (current, evidence) {
        report.findings.push(
            Finding::new(
                "current-bad",
                Severity::Trouble,
                format!("{current} is current, and is marked bad: {evidence}"),
                "it failed its checks, or was left by a rollback",
            )
            .of(current)
            .remedy(format!("tope-store rollback --restart; or, if it is good: tope-store confirm {current}")),
        );
    }
    report.findings.extend(trial(store)?);
    Ok(())
}

fn trial(store: &Store) -> Result<Option<Finding>> {
    let why = "no process watches whether its services hold, and nothing goes back by itself before the next boot";
    Ok(match store.trial()? {
        Found::None => None,
        Found::Open(trial) if store.is_watched(&trial) => None,
        Found::Open(trial) => Some(
            Finding::new(
                "trial-unwatched",
                Severity::Trouble,
                format!("{} is on trial, and the process that watched it is gone", trial.current),
                why,
            )
            .of(&trial.current)
            .at("store/trial")
            .remedy(format!("tope-store boot-check --judge; or, to accept it: tope-store confirm {}", trial.current)),
        ),
        Found::Unreadable(problem) => Some(
            Finding::new(
                "trial-unreadable",
                Severity::Trouble,
                format!("the open trial cannot be read: {problem}"),
                "what is current counts as failed at the next boot, unless it is known to be good",
            )
            .at("store/trial")
            .remedy("tope-store confirm current, if it is good; else: tope-store rollback --restart"),
        ),
    })
}
