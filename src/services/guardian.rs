//! Arming the guardian of a supervised switch: a process that outlives the one that switches, and goes on with the trial
//! if that dies.
//!
//! Under systemd it is a transient unit, in a control group of its own: it outlives the session that the switch was started
//! from, and the end of the unit that the switch runs in. Elsewhere it is a process in its own session, without a terminal
//! and without descriptors of its parent.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result, chain};
use crate::fsys::child::Run;
use crate::fsys::system;

/// How long systemd may take to start it: a rollback must not wait for a manager that hangs.
const LIMIT: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug, Clone)]
pub struct Guardian {
    /// The program with its arguments, to be started by systemd.
    pub command: Vec<OsString>,
    /// Variables of its environment; in a session of its own it has those of this process.
    pub variables: Vec<(String, OsString)>,
    /// The name of its unit; `None` where there is no systemd.
    pub unit: Option<String>,
    /// Units that it must not outlive: at a shutdown it ends before they do, and does not see them go down.
    pub before: Vec<String>,
}

/// A guardian on its way.
#[must_use = "until it is confirmed, nobody guards"]
pub struct Arming {
    guardian: Guardian,
    begun: Begun,
}

enum Begun {
    Unit(JoinHandle<Result<()>>),
    Session(Result<()>),
}

impl Guardian {
    /// Starts it; a systemd that takes its time is not waited for yet.
    pub fn arm(self) -> Arming {
        let begun = match self.in_unit() {
            Some(command) => match std::thread::Builder::new().name("guardian".into()).spawn(|| start_unit(command)) {
                Ok(starting) => Begun::Unit(starting),
                Err(_) => Begun::Session(self.in_session()),
            },
            None => Begun::Session(self.in_session()),
        };
        Arming { guardian: self, begun }
    }

    /// The command that makes it a unit. `None` where there is no systemd, or a word that is no text.
    fn in_unit(&self) -> Option<Vec<String>> {
        let unit = self.unit.as_ref()?;
        let mut words: Vec<String> =
            ["systemd-run", "--system", "--quiet", "--collect", "--no-ask-password", "--service-type=exec"]
                .map(str::to_owned)
                .into();
        words.push(format!("--unit={unit}"));
        words.push("--description=Guard a version on trial".into());
        // Where memory is short, this is the last that should go.
        words.push("--property=OOMScoreAdjust=-500".into());
        words.extend(self.before.iter().map(|unit| format!("--property=After={unit}")));
        for (name, value) in &self.variables {
            words.push(format!("--setenv={name}={}", value.to_str()?));
        }
        words.push("--".into());
        for word in &self.command {
            words.push(word.to_str()?.to_owned());
        }
        Some(words)
    }

    /// Starts it in a session of its own. From the return on it runs: the program was found and has begun.
    fn in_session(&self) -> Result<()> {
        // This very program, even if its file was replaced.
        let mut command = Command::new("/proc/self/exe");
        command.args(self.command.iter().skip(1)).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        system::close_on_exec();
        system::in_own_session(&mut command);
        command.spawn().map(drop).map_err(|error| Error::io("run", "/proc/self/exe", error))
    }
}

fn start_unit(command: Vec<String>) -> Result<()> {
    let environment = &[("LC_ALL", "C")];
    let ran = Run { command: &command, input: b"", environment, limit: LIMIT, keep_on: &|| true }.wait()?;
    match ran.succeeded() {
        true => Ok(()),
        false => {
            let said = ran.last_lines(1).pop().unwrap_or_else(|| ran.end.to_string());
            Err(Error::Services { manager: "systemd", problem: format!("systemd-run: {said}") })
        }
    }
}

impl Arming {
    /// Waits until it is certain that it runs; gives what weakens it, if something does.
    ///
    /// # Errors
    ///
    /// There is no guardian.
    pub fn confirm(self) -> Result<Option<String>> {
        match self.begun {
            Begun::Session(started) => started.map(|()| None),
            Begun::Unit(starting) => {
                let started = starting.join().unwrap_or_else(|_| {
                    Err(Error::Services { manager: "systemd", problem: "systemd-run was not waited for".into() })
                });
                match started {
                    Ok(()) => Ok(None),
                    Err(error) => self.guardian.in_session().map(|()| {
                        Some(format!(
                            "the guardian of this switch is no unit, and may end with this session: {}",
                            chain(&error)
                        ))
                    }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guardian() -> Guardian {
        Guardian {
            command: ["/usr/bin/tope-store", "boot-check", "--guard", "5:77"].map(OsString::from).into(),
            variables: vec![("TOPE_ROOT".into(), "/opt/tope".into())],
            unit: Some("tope-store-guardian-5-77".into()),
            before: vec!["api.service".into()],
        }
    }

    #[test]
    fn a_guardian_is_a_unit_that_ends_before_what_it_watches() {
        let words = guardian().in_unit().unwrap();
        let options = "systemd-run --system --quiet --collect --no-ask-password --service-type=exec \
                       --unit=tope-store-guardian-5-77 --description=Guard a version on trial \
                       --property=OOMScoreAdjust=-500 --property=After=api.service --setenv=TOPE_ROOT=/opt/tope -- \
                       /usr/bin/tope-store boot-check --guard 5:77";
        assert_eq!(words.join(" "), options);
        assert_eq!(Guardian { unit: None, ..guardian() }.in_unit(), None);
    }

    #[test]
    fn words_that_are_no_text_keep_it_from_being_a_unit() {
        use std::os::unix::ffi::OsStringExt;
        let strange = OsString::from_vec(b"/root\xff".into());
        assert_eq!(Guardian { command: vec![strange], ..guardian() }.in_unit(), None);
    }
}
