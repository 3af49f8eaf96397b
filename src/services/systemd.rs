//! systemd, asked and ordered through `systemctl` and `journalctl`: they are on every device that has systemd, and speak
//! to any version of it.
//!
//! Orders are given with `--no-block`: a unit that hangs at its start holds up nobody, and its failure is seen when it
//! happens. `systemctl` hands over the units of one call one by one, so they are given in the order of their `After=`:
//! a job of an earlier one is then always there for a later one to wait for.
//!
//! **Invariant:** nothing here waits longer than its limit, and every program runs in the C locale.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::definition::is_a_name;
use super::hold::Hold;
use super::{Activity, Description, Loadable, Loaded, Patience, ServiceManager, UnitState};
use crate::error::{Error, Result, Shown};
use crate::fsys::child::{End, Ran, Run};

/// How long systemd may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long log lines are waited for: they are only evidence.
const LOG_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether units have stopped.
const STOP_POLL: Duration = Duration::from_millis(50);

const ENVIRONMENT: &[(&str, &str)] =
    &[("LC_ALL", "C"), ("SYSTEMD_COLORS", "0"), ("SYSTEMD_PAGER", ""), ("SYSTEMD_URLIFY", "0")];

const STATE: &str = "--property=Id,LoadState,ActiveState,SubState,Result,InvocationID,NRestarts,ExecMainCode,ExecMainStatus,Job,Type,MainPID,ConditionResult,ConditionTimestampMonotonic";

const DESCRIPTION: &str = "--property=Id,LoadState,ActiveState,UnitFileState,Type,ExecStart,WorkingDirectory,RootDirectory,Environment,EnvironmentFiles,FragmentPath,DropInPaths";

const LOADED: &str = "--property=Id,LoadState,LoadError,NeedDaemonReload,FragmentPath,DropInPaths,ExecStart,User,Group,SupplementaryGroups,DynamicUser,After,Requires,Requisite,BindsTo";

/// What is asked of units before an order: those that they are ordered behind, and those that keep them loaded.
const RELATIONS: &str = "--property=After,WantedBy,RequiredBy,RequisiteOf,BoundBy,ConsistsOf,UpheldBy,TriggeredBy";
/// The relations of which one is enough for a unit to stay loaded.
const KEEPING: [&str; 7] =
    ["WantedBy", "RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "UpheldBy", "TriggeredBy"];

/// The system's own systemd.
#[derive(Debug, Default)]
pub struct Systemd {
    /// What keeps the units of the last order loaded until this is dropped.
    held: Mutex<Option<Hold>>,
}

impl Systemd {
    /// Runs `systemctl` and gives what it wrote; what it says of units it does not know is the caller's to read.
    pub(super) fn systemctl(&self, words: &[&str], units: &[String], patience: Patience<'_>) -> Result<Ran> {
        let fixed = ["systemctl", "--system", "--no-pager", "--no-ask-password", "--plain", "--full"];
        let command: Vec<String> =
            fixed.iter().chain(words).map(|word| (*word).to_owned()).chain(["--".to_owned()]).collect();
        let command: Vec<String> = command.into_iter().chain(units.iter().cloned()).collect();
        let ran = run(&command, patience)?;
        if matches!(ran.end, End::Exited(_)) && !unreachable(&ran) && !ran.cut {
            return Ok(ran);
        }
        Err(problem(words, &ran))
    }

    /// Properties of units, one block per unit, in their order.
    pub(super) fn show(
        &self,
        properties: &str,
        units: &[String],
        limit: Duration,
    ) -> Result<Vec<Vec<(String, String)>>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let ran = self.systemctl(&["show", properties], units, Patience::of(limit.min(ANSWER_LIMIT)))?;
        let found = blocks(&String::from_utf8_lossy(&ran.stdout));
        if !ran.succeeded() || found.len() != units.len() {
            return Err(problem(&["show"], &ran));
        }
        Ok(found)
    }

    /// Gives an order that is to be carried out without us. It is given in full: `systemctl` that were broken off might
    /// have told of some units only.
    fn order(&self, verb: &str, units: &[String], patience: Patience<'_>) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let limit = patience.limit.min(ANSWER_LIMIT);
        let ran = self.systemctl(&["--no-block", verb], units, Patience::of(limit))?;
        if ran.succeeded() { Ok(()) } else { Err(problem(&[verb], &ran)) }
    }

    /// Units in the order of their own dependencies; those that have none between them stay in theirs.
    fn ordered(&self, units: &[String]) -> Result<Vec<String>> {
        if units.len() < 2 {
            return Ok(units.to_vec());
        }
        Ok(in_order(units, &self.show("--property=After", units, ANSWER_LIMIT)?))
    }

    /// The same, with their failures forgotten; both are asked at once, since starting `systemctl` is what takes time. Those
    /// that systemd would forget are kept loaded from here on.
    fn prepared(&self, units: &[String], patience: Patience<'_>) -> Result<Vec<String>> {
        let shown = std::thread::scope(|scope| {
            scope.spawn(|| self.forget_failures(units));
            self.show(RELATIONS, units, ANSWER_LIMIT)
        })?;
        let is_kept = |block: &[(String, String)]| KEEPING.iter().any(|name| !value(block, name).is_empty());
        let loose = units.iter().zip(&shown).filter(|(_, block)| !is_kept(block));
        let loose: Vec<String> = loose.map(|(unit, _)| unit.clone()).collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !loose.is_empty() && !held.as_ref().is_some_and(|held| held.covers(&loose, patience.limit)) {
            *held = Hold::on(&loose, patience.limit);
        }
        drop(held);
        Ok(in_order(units, &shown))
    }

    fn forget_failures(&self, units: &[String]) {
        // It fails for units that are not loaded, which have no failures either.
        let _ = self.systemctl(&["reset-failed"], units, Patience::of(ANSWER_LIMIT));
    }
}

impl ServiceManager for Systemd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tells_starting(&self) -> bool {
        true
    }

    fn states(&self, units: &[String], limit: Duration) -> Result<Vec<UnitState>> {
        let shown = self.show(STATE, units, limit)?;
        Ok(units.iter().zip(shown).map(|(unit, block)| state(unit, &block)).collect())
    }

    fn start(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        let units = self.prepared(units, patience)?;
        self.order("start", &units, patience)
    }

    fn stop(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut last_first = self.ordered(units)?;
        last_first.reverse();
        self.order("stop", &last_first, patience)?;
        while begun.elapsed() < patience.limit && (patience.keep_on)() {
            let states = self.states(units, ANSWER_LIMIT)?;
            if states.iter().all(|state| !matches!(state.activity, Activity::Active | Activity::Changing)) {
                break;
            }
            std::thread::sleep(STOP_POLL);
        }
        Ok(())
    }

    fn restart(&self, units: &[String], patience: Patience<'_>) -> Result<()> {
        let units = self.prepared(units, patience)?;
        self.order("restart", &units, patience)
    }

    fn reload(&self, patience: Patience<'_>) -> Result<()> {
        // Its own comparison (NeedDaemonReload) is of no use here: it asks for a newer file, and going back is to an
        // older one.
        let words = ["daemon-reload"];
        let ran = self.systemctl(&words, &[], patience)?;
        if ran.succeeded() { Ok(()) } else { Err(problem(&words, &ran)) }
    }

    fn describe(&self, units: &[String]) -> Result<Vec<Description>> {
        let shown = self.show(DESCRIPTION, units, ANSWER_LIMIT)?;
        Ok(units.iter().zip(shown).map(|(unit, block)| description(unit, &block)).collect())
    }

    fn loaded(&self, units: &[String]) -> Result<Vec<Loaded>> {
        let shown = self.show(LOADED, units, ANSWER_LIMIT)?;
        Ok(units.iter().zip(shown).map(|(unit, block)| loaded(unit, &block)).collect())
    }

    fn all_units(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        // Instances of templates are among those that are loaded only.
        for verb in ["list-unit-files", "list-units"] {
            let words = [verb, "--type=service", "--no-legend"];
            let ran = self.systemctl(&words, &[], Patience::of(ANSWER_LIMIT))?;
            if !ran.succeeded() {
                return Err(problem(&words, &ran));
            }
            let listed = String::from_utf8_lossy(&ran.stdout).into_owned();
            let first = listed.lines().filter_map(|line| line.split_ascii_whitespace().next());
            // A template itself never runs, and cannot be asked about.
            names.extend(first.filter(|name| !name.contains("@.")).map(str::to_owned));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn log(&self, unit: &str, lines: usize) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        // The last lines of a program that has just died may be on their way still. Only root may hurry them.
        let _ = run(&words(&["journalctl", "--sync"]), Patience::of(LOG_LIMIT));
        let count = format!("--lines={lines}");
        let command = words(&["journalctl", "--quiet", "--no-pager", "--output=cat", "--boot", &count, "--unit", unit]);
        match run(&command, Patience::of(LOG_LIMIT)) {
            Ok(ran) if ran.succeeded() => Ran { stderr: Vec::new(), ..ran }.last_lines(lines),
            _ => Vec::new(),
        }
    }
}

const NAME: &str = "systemd";

pub(super) fn run(command: &[String], patience: Patience<'_>) -> Result<Ran> {
    let Patience { limit, keep_on } = patience;
    let ran = Run { command, input: b"", environment: ENVIRONMENT, limit, keep_on }.wait();
    ran.map_err(|error| match error.is_io(std::io::ErrorKind::NotFound) {
        true => Error::Services {
            manager: NAME,
            problem: format!("there is no {} here; for another service manager set supervisor.kind", command[0]),
        },
        false => error,
    })
}

/// Whether there was nobody to answer.
fn unreachable(ran: &Ran) -> bool {
    let said = String::from_utf8_lossy(&ran.stderr);
    !ran.succeeded() && (said.contains("not been booted with systemd") || said.contains("Failed to connect to bus"))
}

fn problem(words: &[&str], ran: &Ran) -> Error {
    let said = String::from_utf8_lossy(&ran.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let said = match (said, ran.cut) {
        (_, true) => "its answer is too long".to_owned(),
        ("", _) => ran.end.to_string(),
        (said, _) => Shown::text(said).to_string(),
    };
    let verb = words.iter().find(|word| !word.starts_with('-')).unwrap_or(&"");
    Error::Services { manager: NAME, problem: format!("systemctl {verb}: {said}") }
}

/// Takes `systemctl show` apart: lines `Name=value`, units separated by an empty line. Values of the properties that are
/// asked for have one line.
fn blocks(text: &str) -> Vec<Vec<(String, String)>> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    for line in text.lines() {
        match line.split_once('=') {
            Some((name, value)) => block.push((name.to_owned(), value.to_owned())),
            None if line.is_empty() && !block.is_empty() => blocks.push(std::mem::take(&mut block)),
            None => {}
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

/// A property of a unit; empty if it does not have it.
pub(super) fn value<'a>(block: &'a [(String, String)], name: &str) -> &'a str {
    block.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

/// Reads the state of a unit from its properties.
fn state(unit: &str, block: &[(String, String)]) -> UnitState {
    let get = |name| value(block, name);
    let (active, sub, result) = (get("ActiveState"), get("SubState"), get("Result"));
    let oneshot = get("Type") == "oneshot";
    let activity = match (get("LoadState"), active) {
        ("masked", _) => Activity::Masked,
        ("not-found" | "bad-setting" | "error", "inactive") => Activity::Absent,
        // An empty job is 0 or nothing, depending on the version.
        _ if !matches!(get("Job"), "" | "0") => Activity::Changing,
        (_, "active" | "reloading" | "refreshing") => Activity::Active,
        (_, "activating") if sub.starts_with("auto-restart") => Activity::Failed,
        (_, "activating") => Activity::Changing,
        // Nobody ordered that it stop: it ended.
        (_, "deactivating" | "failed") => Activity::Failed,
        // A condition that was never looked at has no time.
        (_, "inactive")
            if result == "exec-condition"
                || (get("ConditionResult") == "no" && !matches!(get("ConditionTimestampMonotonic"), "" | "0")) =>
        {
            Activity::Skipped
        }
        // Once it is done systemd soon forgets that it ever ran.
        (_, "inactive") if oneshot && result == "success" => Activity::Done,
        _ => Activity::Inactive,
    };
    let number = |name| get(name).parse::<i32>().ok();
    // CLD_EXITED, CLD_KILLED, CLD_DUMPED; 0 while it has not ended. The status is of the last process, running or not.
    let ended = number("ExecMainCode").unwrap_or(0);
    let status = number("ExecMainStatus");
    let mut detail = match get("LoadState") {
        "loaded" | "" => Vec::new(),
        other => vec![other.to_owned()],
    };
    if !matches!(activity, Activity::Active | Activity::Done | Activity::Absent) {
        detail.push(format!("{active} ({sub})"));
    }
    if !matches!(result, "" | "success") {
        detail.push(result.to_owned());
    }
    match (ended, status) {
        (1, Some(status)) if activity != Activity::Active => detail.extend(meaning(status).map(str::to_owned)),
        (2 | 3, Some(signal)) if activity != Activity::Active => detail.push(format!("signal {signal}")),
        _ => {}
    }
    UnitState {
        unit: unit.to_owned(),
        activity,
        invocation: Some(get("InvocationID").to_owned()).filter(|id| !id.is_empty() && activity != Activity::Done),
        restarts: get("NRestarts").parse().unwrap_or(0),
        detail: detail.join(", "),
        exit_code: status.filter(|_| ended == 1),
    }
}

/// Reads from a unit's properties how it runs.
fn description(unit: &str, block: &[(String, String)]) -> Description {
    let get = |name| value(block, name);
    let enabled = matches!(get("UnitFileState"), "enabled" | "enabled-runtime" | "linked" | "linked-runtime");
    let named = ["ExecStart", "WorkingDirectory", "RootDirectory", "Environment", "EnvironmentFiles"];
    let own = ["FragmentPath", "DropInPaths"];
    // Whatever the shape of a property: words, separated by what cannot be part of a path worth knowing.
    let words = |name| get(name).split([' ', ';', '=', ':', '"', '\'', ',']);
    let words = named.into_iter().chain(own).flat_map(words);
    let words = words.map(|word| word.trim_start_matches(['-', '!', '@', '+']));
    let mut paths: Vec<PathBuf> =
        words.filter(|word| word.len() > 1 && word.starts_with('/')).map(PathBuf::from).collect();
    paths.sort();
    paths.dedup();
    Description {
        unit: unit.to_owned(),
        runs_on: get("Type") != "oneshot" && get("LoadState") == "loaded",
        in_use: enabled || !matches!(get("ActiveState"), "inactive" | ""),
        paths,
    }
}

/// Reads from a unit's properties how it is loaded.
fn loaded(unit: &str, block: &[(String, String)]) -> Loaded {
    let get = |name| value(block, name);
    let words = |name| get(name).split_ascii_whitespace().map(str::to_owned);
    // The name of an error of the bus, and a sentence in quotation marks.
    let sentence = get("LoadError").split_once('"').map_or("", |(_, rest)| rest.trim_end_matches('"'));
    let loadable = match get("LoadState") {
        "masked" => Loadable::Masked,
        "not-found" => Loadable::Missing,
        "bad-setting" | "error" => Loadable::Refused,
        _ => Loadable::Yes,
    };
    let problem = match (loadable, sentence) {
        (Loadable::Yes | Loadable::Missing, _) => String::new(),
        (_, "") => get("LoadState").to_owned(),
        (_, sentence) => Shown::text(sentence).to_string(),
    };
    let dynamic = get("DynamicUser") == "yes";
    let one = [("User", get("User")), ("Group", get("Group"))];
    let groups = get("SupplementaryGroups").split_ascii_whitespace().map(|group| ("SupplementaryGroups", group));
    let accounts = one.into_iter().chain(groups).filter(|(_, name)| !dynamic && is_a_name(name));
    let program = |part: &str| Some(part.split_once("path=")?.1.split(" ;").next()?.trim().to_owned());
    Loaded {
        unit: unit.to_owned(),
        loadable,
        problem,
        outdated: get("NeedDaemonReload") == "yes",
        files: words("FragmentPath").chain(words("DropInPaths")).map(PathBuf::from).collect(),
        programs: get("ExecStart").split("{ ").filter_map(program).filter(|path| path.starts_with('/')).collect(),
        accounts: accounts.map(|(key, name)| (key, name.to_owned())).collect(),
        after: words("After").collect(),
        requires: ["Requires", "Requisite", "BindsTo"].into_iter().flat_map(words).collect(),
    }
}

/// What an exit code means where systemd or the shell's custom gives it a meaning (`systemd.exec(5)`).
fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        126 => "not executable",
        127 => "a program or library is missing",
        200 => "cannot enter its working directory",
        203 => "cannot execute its program",
        216 => "no such group",
        217 => "no such user",
        226 => "cannot set up its namespaces",
        _ => return None,
    })
}

/// Units in the order of what was shown of them.
fn in_order(units: &[String], shown: &[Vec<(String, String)>]) -> Vec<String> {
    let after: Vec<Vec<&str>> =
        shown.iter().map(|block| value(block, "After").split_ascii_whitespace().collect()).collect();
    sorted(units, |unit, other| after[unit].contains(&units[other].as_str()))
}

/// Sorts so that whatever one comes after stands before it; a cycle is broken where it is met.
fn sorted(units: &[String], after: impl Fn(usize, usize) -> bool) -> Vec<String> {
    let mut left: Vec<usize> = (0..units.len()).collect();
    let mut out = Vec::with_capacity(units.len());
    while !left.is_empty() {
        let free = left.iter().position(|unit| !left.iter().any(|other| other != unit && after(*unit, *other)));
        out.push(units[left.remove(free.unwrap_or(0))].clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<UnitState> {
        blocks(text).iter().map(|block| state(value(block, "Id"), block)).collect()
    }

    #[test]
    fn a_state_is_read_from_what_systemctl_shows() {
        let text = "Type=simple\nMainPID=0\nNRestarts=0\nResult=exit-code\nExecMainCode=1\nExecMainStatus=203\nId=a.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nInvocationID=aa\n\nType=notify\nResult=success\nExecMainCode=0\nExecMainStatus=0\nNRestarts=2\nId=b.service\nLoadState=loaded\nActiveState=active\nSubState=running\nInvocationID=bb\nJob=0\n\nId=c.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        let unit = |unit: &str, activity, invocation: Option<&str>, restarts, detail: &str, exit_code| UnitState {
            unit: unit.into(),
            activity,
            invocation: invocation.map(str::to_owned),
            restarts,
            detail: detail.into(),
            exit_code,
        };
        let failed = "failed (failed), exit-code, cannot execute its program";
        assert_eq!(
            read(text),
            [
                unit("a.service", Activity::Failed, Some("aa"), 0, failed, Some(203)),
                unit("b.service", Activity::Active, Some("bb"), 2, "", None),
                unit("c.service", Activity::Absent, None, 0, "not-found", None),
            ]
        );
    }

    #[test]
    fn every_state_of_systemd_has_a_meaning() {
        for (text, expected) in [
            ("ActiveState=active\nJob=17", Activity::Changing),
            ("ActiveState=inactive\nJob=17", Activity::Changing),
            ("ActiveState=reloading\nJob=", Activity::Active),
            ("ActiveState=activating\nSubState=start", Activity::Changing),
            ("ActiveState=activating\nSubState=auto-restart", Activity::Failed),
            ("ActiveState=deactivating\nSubState=stop-sigterm", Activity::Failed),
            ("ActiveState=inactive\nResult=success", Activity::Inactive),
            ("ActiveState=inactive\nResult=success\nType=oneshot\nInvocationID=a", Activity::Done),
            ("ActiveState=inactive\nResult=exit-code\nType=oneshot", Activity::Inactive),
            ("ActiveState=inactive\nLoadState=masked", Activity::Masked),
            ("ActiveState=active\nLoadState=masked", Activity::Masked),
            ("ActiveState=inactive\nConditionResult=no\nConditionTimestampMonotonic=5", Activity::Skipped),
            ("ActiveState=inactive\nConditionResult=no\nConditionTimestampMonotonic=0", Activity::Inactive),
            ("ActiveState=inactive\nConditionResult=yes\nConditionTimestampMonotonic=5", Activity::Inactive),
            ("ActiveState=inactive\nResult=exec-condition", Activity::Skipped),
            // A unit whose file is gone and whose process runs on.
            ("ActiveState=active\nLoadState=not-found", Activity::Active),
        ] {
            assert_eq!(read(text)[0].activity, expected, "{text}");
        }
    }

    #[test]
    fn the_paths_that_a_unit_names_are_found_in_whatever_shape() {
        let text = "Id=a.service\nLoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nType=simple\nExecStart={ path=/usr/local/bin/a ; argv[]=/usr/local/bin/a --config=/opt/tope/services/a/c.toml ; ignore_errors=no }\nWorkingDirectory=-/opt/tope/versions/current\nEnvironment=\"P=/x:/y\" Q=1\nFragmentPath=/etc/systemd/system/a.service\n";
        let found = description("a.service", &blocks(text)[0]);
        let paths = [
            "/etc/systemd/system/a.service",
            "/opt/tope/services/a/c.toml",
            "/opt/tope/versions/current",
            "/usr/local/bin/a",
            "/x",
            "/y",
        ];
        let paths = paths.map(PathBuf::from).into();
        assert_eq!(found, Description { unit: "a.service".into(), runs_on: true, in_use: true, paths });
    }

    #[test]
    fn how_a_unit_is_loaded_is_read_from_its_properties() {
        let text = "Id=a.service\nLoadState=bad-setting\nLoadError=org.freedesktop.systemd1.BadUnitSetting \"Unit a.service has a bad unit file setting.\"\nNeedDaemonReload=yes\nFragmentPath=/etc/systemd/system/a.service\nDropInPaths=/x/1.conf /x/2.conf\nExecStart={ path=/bin/a ; argv[]=/bin/a b ; ignore_errors=no } { path=/bin/b ; argv[]=/bin/b }\nUser=tope\nGroup=0\nSupplementaryGroups=video\nDynamicUser=no\nAfter=b.service c.target\nRequires=d.service\nBindsTo=e.service\n";
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let expected = Loaded {
            unit: "a.service".into(),
            loadable: Loadable::Refused,
            problem: "Unit a.service has a bad unit file setting.".into(),
            outdated: true,
            files: ["/etc/systemd/system/a.service", "/x/1.conf", "/x/2.conf"].map(PathBuf::from).into(),
            programs: own(&["/bin/a", "/bin/b"]),
            accounts: vec![("User", "tope".into()), ("SupplementaryGroups", "video".into())],
            after: own(&["b.service", "c.target"]),
            requires: own(&["d.service", "e.service"]),
        };
        assert_eq!(loaded("a.service", &blocks(text)[0]), expected);
        let read = |text: &str| loaded("a.service", &blocks(text)[0]);
        for (text, loadable, problem) in [
            ("Id=a\nLoadState=loaded\nLoadError= \"\"", Loadable::Yes, ""),
            ("Id=a\nLoadState=not-found\nLoadError=x \"Unit a.service not found.\"", Loadable::Missing, ""),
            (
                "Id=a\nLoadState=masked\nLoadError=x \"Unit a.service is masked.\"",
                Loadable::Masked,
                "Unit a.service is masked.",
            ),
            ("Id=a\nLoadState=error", Loadable::Refused, "error"),
        ] {
            assert_eq!((read(text).loadable, read(text).problem.as_str()), (loadable, problem), "{text}");
        }
        assert_eq!(read("Id=a\nUser=x\nDynamicUser=yes").accounts, []);
    }

    #[test]
    fn nobody_to_ask_and_an_unknown_unit_are_told_in_systemds_words() {
        let said = |stderr: &str, code| {
            let ran =
                Ran { end: End::Exited(code), stdout: Vec::new(), stderr: stderr.into(), cut: false, handed_on: false };
            (unreachable(&ran), problem(&["--no-block", "restart"], &ran).to_string())
        };
        let text =
            "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to connect\n";
        let line = "systemd: systemctl restart: System has not been booted with systemd as init system (PID 1). Can't operate.";
        assert_eq!(said(text, 1), (true, line.into()));
        let line = "systemd: systemctl restart: Failed to restart x.service: Unit x.service not found.";
        assert_eq!(said("Failed to restart x.service: Unit x.service not found.\n", 5), (false, line.into()));
        let line = "systemd: systemctl restart: it ended with exit code 4";
        assert_eq!(said("", 4), (false, line.into()));
    }

    #[test]
    fn units_are_ordered_by_their_dependencies() {
        let units = ["web", "api", "log"].map(str::to_owned);
        let sort = |pairs: &[(usize, usize)]| sorted(&units, |unit, other| pairs.contains(&(unit, other)));
        assert_eq!(sort(&[]), ["web", "api", "log"]);
        assert_eq!(sort(&[(0, 1), (1, 2)]), ["log", "api", "web"]);
        assert_eq!(sort(&[(0, 1), (1, 0)]), ["log", "web", "api"]);
    }
}
