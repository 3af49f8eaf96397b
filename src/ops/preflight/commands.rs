//! Programs that this one runs itself: those of checks, of the supervisor, of `[notify]`.

use std::path::Path;

use super::{Subject, View, refuse_if};
use crate::error::Shown;
use crate::fsys::child;
use crate::fsys::foreseen::{Place, interpreter};
use crate::model::preflight::{Finding, Severity};

/// What is wrong with a program; nothing if it can be run, or if that cannot be known.
pub(super) fn problem(view: &View<'_>, program: &str) -> Option<String> {
    let (mut problems, mut unusable) = (Vec::new(), None);
    for candidate in child::candidates(program) {
        match at(view, &candidate) {
            Judged::Usable | Judged::Unknown => return None,
            Judged::Missing(problem) => problems.push(problem),
            Judged::Unusable(problem) => unusable = unusable.or(Some(problem)),
        }
    }
    let missing = match program.contains('/') {
        true => problems.into_iter().next(),
        false => Some(format!("there is no program {} in PATH", Shown::text(program))),
    };
    unusable.or(missing)
}

/// What is held of a path to a program.
pub(super) enum Judged {
    /// It can be run.
    Usable,
    /// It cannot be seen.
    Unknown,
    /// There is none.
    Missing(String),
    /// It is there, and cannot be run.
    Unusable(String),
}

impl Judged {
    /// What is wrong, if something is.
    pub(super) fn problem(self) -> Option<String> {
        match self {
            Self::Usable | Self::Unknown => None,
            Self::Missing(problem) | Self::Unusable(problem) => Some(problem),
        }
    }
}

/// Judges the program at a path.
pub(super) fn at(view: &View<'_>, path: &Path) -> Judged {
    let shown = Shown::path(path);
    let Some(led) = view.follow(path) else { return Judged::Unknown };
    let within = view.within(led.switched);
    match led.place {
        None => Judged::Missing(format!("there is no {shown}{within}")),
        Some(place) if !place.is_executable() => Judged::Unusable(format!("{shown} cannot be executed{within}")),
        Some(place) => match interpreter_problem(view, &place) {
            Some(problem) => Judged::Unusable(format!("{shown} is a script, and {problem}")),
            None => Judged::Usable,
        },
    }
}

/// What is wrong with the interpreter of a script.
fn interpreter_problem(view: &View<'_>, script: &Place) -> Option<String> {
    let text = view.foreseen.read(script).ok().flatten()?;
    let interpreter = interpreter(&text).filter(|path| path.is_absolute())?;
    let (shown, led) = (Shown::path(&interpreter), view.follow(&interpreter)?);
    let within = view.within(led.switched);
    match led.place {
        None => Some(format!("there is no {shown}{within} to run it")),
        Some(place) if !place.is_executable() => {
            Some(format!("{shown}{within}, which is to run it, cannot be executed"))
        }
        Some(_) => None,
    }
}

/// The command checks of services.
pub(super) fn checks(view: &View<'_>, subject: &Subject<'_>) -> Vec<Finding> {
    let found = subject.services.iter().filter_map(|service| {
        let program = service.command.as_ref()?.command.first()?;
        let problem = problem(view, program)?;
        let unit = &service.unit;
        Some(Finding {
            kind: "check-command",
            severity: refuse_if((subject.watched)(unit)),
            unit: Some(unit.clone()),
            what: format!("the check of {unit} cannot be run: {problem}"),
            why: "a check that cannot be run fails on every version, and a switch with --restart would find none that holds",
            remedy: format!("install {}, or correct the command of {unit} in the configuration", Shown::text(program)),
        })
    });
    found.collect()
}

/// The commands that handle services where there is no systemd; the same program of many units once.
pub(super) fn supervisor(view: &View<'_>, subject: &Subject<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let mut seen: Vec<(&'static str, String)> = Vec::new();
    for service in subject.services {
        for (key, program) in subject.manager.programs(&service.unit) {
            if seen.contains(&(key, program.clone())) {
                continue;
            }
            if let Some(problem) = problem(view, &program) {
                found.push(Finding {
                    kind: "supervisor-command",
                    severity: Severity::Refuse,
                    unit: program.contains(&service.unit).then(|| service.unit.clone()),
                    what: format!("the {key} command of the supervisor cannot be run: {problem}"),
                    why: "services can be neither restarted nor watched without it",
                    remedy: format!("install {}, or correct supervisor.{key}", Shown::text(&program)),
                });
            }
            seen.push((key, program));
        }
    }
    found
}

/// The command that is told of what happens.
pub(super) fn notify(view: &View<'_>, command: &[String]) -> Option<Finding> {
    let program = command.first()?;
    let problem = problem(view, program)?;
    Some(Finding {
        kind: "notify-command",
        severity: Severity::Warn,
        unit: None,
        what: format!("the command of [notify] cannot be run: {problem}"),
        why: "rollbacks, degraded states and corruption would reach no one",
        remedy: format!("install {}, or correct notify.command", Shown::text(program)),
    })
}
