//! Guardians: this same program, started beside a switch, to go on with it if the switching process dies.

use std::ffi::OsString;
use std::path::Path;

use tope_store::config::{Service, Supervisor};
use tope_store::error::{Result, chain};
use tope_store::layout;
use tope_store::model::Trial;
use tope_store::model::trial::{Restart, Watcher};
use tope_store::observe::Silent;
use tope_store::ops::supervise::{Supervision, start_left};
use tope_store::services::guardian::{Arming, Guardian};
use tope_store::services::manager;
use tope_store::store::Store;

use crate::context::Context;

/// Starts the guardian of a process.
pub fn arm(context: &Context, of: &Watcher, services: &[Service]) -> Arming {
    let Watcher { pid, started, .. } = of;
    let mut command = vec![own_program()];
    let global = context.global();
    let mut option = |name: &str, value: OsString| command.extend([name.into(), value]);
    option("--root", context.layout().root().into());
    if let Some(config) = &global.config {
        option("--config", std::path::absolute(config).unwrap_or_else(|_| config.clone()).into());
    }
    option("--lock-timeout", global.lock_timeout.to_string().into());
    command.push("boot-check".into());
    command.push(format!("--guard={pid}:{started}").into());
    let is_systemd = context.config().supervisor == Supervisor::Systemd;
    let guardian = Guardian {
        command,
        variables: context.variables(),
        unit: is_systemd.then(|| format!("tope-store-guardian-{pid}-{started}")),
        before: services.iter().map(|service| service.unit.clone()).collect(),
    };
    guardian.arm()
}

/// Where this program lies; a file that took its place since is as good.
fn own_program() -> OsString {
    let own = std::env::current_exe().unwrap_or_else(|_| "tope-store".into()).into_os_string();
    match own.to_str().and_then(|own| own.strip_suffix(" (deleted)")) {
        Some(replaced) => replaced.into(),
        None => own,
    }
}

/// For a command that changes something and switches nothing: has a guardian go on with a trial of this boot whose watcher
/// died.
pub fn go_on_with_left(context: &Context) {
    let path = context.layout().root().join(layout::STORE).join(layout::TRIAL);
    let Some(trial) = is_there(context, &path).then(|| left(context)).flatten() else { return };
    let current = &trial.current;
    match arm(context, &trial.watcher, &context.config().services).confirm() {
        Ok(weakness) => {
            weakness.iter().for_each(|weakness| context.warn(weakness));
            context.warn(format_args!(
                "the process that watched {current} on trial died: a guardian starts what it had stopped, and judges {current}"
            ));
        }
        Err(error) => context.warn(format_args!(
            "the process that watched {current} on trial died, and no guardian can be started ({}): have it judged with: \
             tope-store boot-check --judge",
            chain(&error)
        )),
    }
}

fn is_there(context: &Context, path: &Path) -> bool {
    context.global().sysroot.is_none() && context.layout().stat(path).is_some()
}

/// The trial of this boot whose watcher died, if this user may go on with it.
fn left(context: &Context) -> Option<Trial> {
    let store = context.store_leniently().ok()?;
    store.check_user().ok()?;
    store.left_trial()
}

/// For a command that may end a trial without restarting services: the trial whose watcher died before.
pub fn left_before(context: &Context, store: &Store) -> Option<Trial> {
    if context.global().sysroot.is_some() { None } else { store.left_trial() }
}

/// Starts what the watcher of such a trial had stopped, if the command has ended it.
///
/// # Errors
///
/// The trial cannot be read.
pub fn start_what_it_stopped(context: &Context, store: &Store, left: Option<&Trial>) -> Result<()> {
    let Some(left) = left else { return Ok(()) };
    let manager = manager(&context.config().supervisor);
    let say = |sentence: &str| context.say(sentence);
    let supervision = Supervision {
        manager: &*manager,
        configured: &context.config().services,
        notify: &context.config().notify,
        restart: Restart::Changed,
        say: &say,
        guard: None,
    };
    let warnings = start_left(store, left, &supervision, &Silent)?;
    warnings.iter().for_each(|warning| context.warn(warning));
    Ok(())
}
