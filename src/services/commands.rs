//! A service manager of plain commands from the configuration, for devices without systemd.
//!
//! Each template is run once per unit, in the order given, with the unit put in. What the manager cannot know it does
//! not pretend to know: there is no invocation, no count of restarts, and a unit that does not run right after its
//! start may come yet. What a start wrote and how it ended is kept: it is the only evidence there is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Activity, Patience, ServiceManager, UnitState};
use crate::config::Templates;
use crate::error::Result;
use crate::fsys::child::{Ran, Run};

/// How long a status command may take.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// How many lines of a command's output are kept.
const KEPT_LINES: usize = 50;

/// What the last start or restart of a unit came to.
#[derive(Debug, Clone, Default)]
struct Started {
    /// Why it is held to have failed; empty if it went well.
    failure: String,
    exit_code: Option<i32>,
    output: Vec<String>,
}

/// Commands made from templates.
#[derive(Debug)]
pub struct Commands {
    templates: Templates,
    started: Mutex<HashMap<String, Started>>,
}

impl Commands {
    /// The manager of these templates.
    pub fn new(templates: Templates) -> Self {
        Self { templates, started: Mutex::default() }
    }

    fn run(template: &[String], unit: &str, patience: Patience<'_>) -> Result<Ran> {
        let command = Templates::fill(template, unit);
        let Patience { limit, keep_on } = patience;
        Run { command: &command, input: b"", environment: &[], limit, keep_on }.wait()
    }

    fn run_all(&self, verb: &str, template: &[String], units: &[String], patience: Patience<'_>) -> Result<()> {
        let begun = Instant::now();
        // The commands are the order: one that were broken off would leave a unit stopped, and the others as they were.
        let keep_on = if verb == "stop" { patience.keep_on } else { &|| true };
        for unit in units {
            let limit = patience.limit.saturating_sub(begun.elapsed());
            let ran = Self::run(template, unit, Patience { limit, keep_on })?;
            let failure = match ran.succeeded() {
                true => String::new(),
                // One that would not stop is found running; most fail at stopping what does not run.
                false if verb == "stop" => String::new(),
                false => format!("the {verb} command failed: {}", ran.end),
            };
            let mut output = ran.last_lines(KEPT_LINES);
            if ran.handed_on && ran.succeeded() && verb != "stop" {
                let problem = format!(
                    "what the {verb} command of {unit} left running holds the command's output, and dies of SIGPIPE when \
                     it writes there: start it with >/dev/null 2>&1, or into a log"
                );
                tracing::warn!("{problem}");
                output.push(problem);
            }
            let started = Started { failure, exit_code: ran.exit_code(), output };
            self.started.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.clone(), started);
        }
        Ok(())
    }

    fn last(&self, unit: &str) -> Started {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).get(unit).cloned().unwrap_or_default()
    }
}

impl ServiceManager for Commands {
    fn name(&self) -> &'static str {
        "commands"
    }

    fn tells_starting(&self) -> bool {
        false
    }

    fn states(&self, units: &[String]) -> Result<Vec<UnitState>> {
        let state = |unit: &String| {
            let ran = Self::run(&self.templates.status, unit, Patience::of(STATUS_LIMIT))?;
            let started = self.last(unit);
            let (activity, detail) = match (ran.succeeded(), started.failure) {
                (true, _) => (Activity::Active, String::new()),
                (false, failure) if failure.is_empty() => {
                    (Activity::Inactive, format!("the status command: {}", ran.end))
                }
                (false, failure) => (Activity::Failed, failure),
            };
            let exit_code = started.exit_code.filter(|_| activity == Activity::Failed);
            Ok(UnitState { unit: unit.clone(), activity, invocation: None, restarts: 0, detail, exit_code })
        };
        units.iter().map(state).collect()
    }

    fn start(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        self.run_all("start", &self.templates.start, units, patience)
    }

    fn stop(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        // Those that were given first are needed by those that follow.
        let last_first: Vec<String> = units.iter().rev().cloned().collect();
        self.run_all("stop", &self.templates.stop, &last_first, patience)
    }

    fn restart(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        self.run_all("restart", &self.templates.restart, units, patience)
    }

    fn programs(&self, unit: &str) -> Vec<(&'static str, String)> {
        let Templates { start, stop, restart, status } = &self.templates;
        let templates = [("start", start), ("stop", stop), ("restart", restart), ("status", status)];
        let program = |template: &[String]| Templates::fill(template, unit).into_iter().next();
        templates.into_iter().filter_map(|(verb, template)| Some((verb, program(template)?))).collect()
    }

    fn log(&self, unit: &str, lines: usize) -> Vec<String> {
        let output = self.last(unit).output;
        output[output.len().saturating_sub(lines)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(dir: &std::path::Path) -> Commands {
        let sh = |script: String| vec!["sh".to_owned(), "-c".to_owned(), script, "{unit}".to_owned()];
        let dir = dir.display();
        let start = format!("echo starting $0; test $0 != broken || exit 4; touch {dir}/$0");
        Commands::new(Templates {
            start: sh(start.clone()),
            stop: sh(format!("rm {dir}/$0")),
            restart: sh(start),
            status: sh(format!("test -e {dir}/$0")),
        })
    }

    #[test]
    fn units_are_started_stopped_and_looked_at_by_commands() {
        let temporary = tempfile::tempdir().unwrap();
        let manager = commands(temporary.path());
        let units = ["broken", "api"].map(str::to_owned);
        let states = |manager: &Commands| {
            let states = manager.states(&units).unwrap().into_iter();
            states.map(|state| (state.activity, state.exit_code, state.detail)).collect::<Vec<_>>()
        };
        let down = (Activity::Inactive, None, "the status command: it ended with exit code 1".to_owned());
        assert_eq!(states(&manager), [down.clone(), down.clone()]);
        manager.restart(&units, Patience::of(Duration::from_secs(30))).unwrap();
        let failed = "the restart command failed: it ended with exit code 4".to_owned();
        assert_eq!(states(&manager), [(Activity::Failed, Some(4), failed), (Activity::Active, None, String::new())]);
        assert_eq!(manager.log("broken", 5), ["starting broken"]);
        manager.stop(&units[1..], Patience::of(Duration::from_secs(30))).unwrap();
        assert_eq!(states(&manager)[1], down);
    }

    #[test]
    fn a_service_that_keeps_the_output_of_its_start_is_told_apart() {
        let temporary = tempfile::tempdir().unwrap();
        let mut manager = commands(temporary.path());
        let start = |manager: &mut Commands, script: &str| {
            manager.templates.start = ["sh", "-c", script].map(str::to_owned).into();
            manager.start(&["api".to_owned()], Patience::of(Duration::from_secs(30))).unwrap();
            manager.log("api", 5)
        };
        assert!(start(&mut manager, "sleep 5 & echo up").pop().unwrap().contains("SIGPIPE"));
        assert_eq!(start(&mut manager, "echo up; exec >/dev/null 2>&1; sleep 5 &"), ["up"]);
    }

    #[test]
    fn a_start_that_takes_too_long_has_failed() {
        let temporary = tempfile::tempdir().unwrap();
        let mut manager = commands(temporary.path());
        manager.templates.start = ["sleep", "600"].map(str::to_owned).into();
        let units = ["api".to_owned()];
        manager.start(&units, Patience::of(Duration::from_millis(100))).unwrap();
        let state = manager.states(&units).unwrap().remove(0);
        let expected = "the start command failed: it took too long and was killed";
        assert_eq!((state.activity, state.detail.as_str()), (Activity::Failed, expected));
    }
}
