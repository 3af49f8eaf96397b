//! Getting out of one's own unit: who restarts the unit that it runs in is killed with it.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Runs a command as a transient unit of systemd, with this process's standard streams, and waits for its end; gives its
/// exit code. If this process is killed meanwhile, the command goes on.
///
/// # Errors
///
/// There is no `systemd-run`, or it cannot be run.
pub fn run(unit: &str, command: &[std::ffi::OsString], variables: &[(String, std::ffi::OsString)]) -> Result<i32> {
    let problem = |problem: String| Error::Services { manager: "systemd", problem };
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--collect", "--wait", "--pipe", "--service-type=exec", "--same-dir"]);
    run.arg(format!("--unit={unit}"));
    for (name, value) in variables {
        let mut setting = std::ffi::OsString::from(format!("--setenv={name}="));
        setting.push(value);
        run.arg(setting);
    }
    run.arg("--").args(command).stdin(Stdio::null());
    let status = run.status().map_err(|error| problem(format!("systemd-run cannot be run: {error}")))?;
    Ok(status.code().unwrap_or(1))
}
