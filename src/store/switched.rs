//! What follows a switch that is visible: telling those who watch `versions/.switched`, and recording it in the order in
//! which switches were made.

use std::time::Duration;

use super::Store;
use super::survey::Survey;
use crate::error::{Result, chain};
use crate::layout;
use crate::model::{Action, Event, Role};
use crate::observe::Observer;
use crate::refs::{Place, Roles, Switch};

/// A record of a switch waits this many times as long for others as a lock is waited for: the switch is made, and its
/// record must not be lost because a medium is slow.
const PATIENCE: u32 = 6;

impl Store {
    /// How long the record of a switch that was made waits for others.
    pub fn patience(&self) -> Duration {
        self.settings.lock_timeout.saturating_mul(PATIENCE)
    }

    /// Tells those who watch `.switched`, unless another switch was made meanwhile, which tells them itself. That it
    /// cannot be done (a full disk) is only a warning.
    pub fn announce(&self, switch: &Switch, observer: &dyn Observer) {
        if !switch.changed {
            return;
        }
        let line = format!("{} {}\n", switch.to, self.clock().now().unix_seconds);
        let told = self.replace(self.versions(), layout::SWITCHED, line.as_bytes(), |locked| {
            Ok(locked.read()?.version(Role::Current) == Some(&switch.to))
        });
        if let Err(error) = told {
            let path = self.versions().path_of(layout::SWITCHED);
            observer.warn(&format!(
                "{} cannot be written: {}; who watches this file is not told of the switch",
                path.display(),
                chain(&error)
            ));
        }
    }

    /// Links and history as they are when a switch is recorded: all switches that were made before it are recorded by
    /// now, unless one of them takes too long. `before` is how the links were when the switch was made.
    ///
    /// # Errors
    ///
    /// As [`Store::survey_with`].
    pub fn survey_in_turn(&self, place: &Place, before: Roles) -> Result<Survey> {
        if !place.wait(self.patience()) {
            tracing::warn!(
                "a switch that was made before this one is not recorded yet; it is recorded behind this one"
            );
        }
        self.survey_with(before)
    }

    /// Brings the recorded roles to agree with the links, where another switch was recorded while this one was on its way:
    /// one of them may have been recorded in the wrong order. `known` is the history when this one was prepared, `found`
    /// when it was recorded; its place has been given back by now.
    ///
    /// # Errors
    ///
    /// Links and history cannot be read; the history cannot be written.
    pub fn restate_roles(&self, known: &Survey, found: &Survey) -> Result<()> {
        let overtaken = known.marks.last_event != found.marks.last_event;
        if !overtaken || !found.history.is_trustworthy() || self.record_obstacle().is_some() {
            return Ok(());
        }
        let survey = self.survey()?;
        // Who is on the way records what it did, and looks as well.
        if self.refs()?.is_moving().unwrap_or(true) {
            return Ok(());
        }
        let restated = |role| {
            let (found, recorded) = (survey.roles.version(role), survey.marks.roles.get(&role));
            (found != recorded).then(|| Event {
                version: found.cloned(),
                from: recorded.cloned(),
                role: Some(role),
                text: Some(format!("{role} was recorded in another order than it was switched")),
                ..Event::new(Action::ExternalChange)
            })
        };
        let events: Vec<Event> = [Role::Current, Role::Previous].into_iter().filter_map(restated).collect();
        if events.is_empty() { Ok(()) } else { self.record_switch(events).map(drop) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::FixedClock;
    use crate::layout::Layout;
    use crate::model::VersionName;
    use crate::store::Settings;
    use crate::store::create::{CreateOptions, create};
    use crate::test_vectors::vector;

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Observer for Warnings {
        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    /// A store with the directories `v1` and `v2`.
    fn store(top: &std::path::Path) -> Store {
        let settings = Settings { lock_timeout: Duration::from_millis(200), ..Settings::default() };
        let (store, _) = create(Layout::new(top, None), settings, CreateOptions::default()).unwrap();
        for version in ["v1", "v2"] {
            store.versions().create_dir(version, 0o755).unwrap();
        }
        store.with_clock(FixedClock::at(1_767_225_600))
    }

    fn switched(store: &Store, version: &str) -> Switch {
        let version: VersionName = version.parse().unwrap();
        store.refs().unwrap().lock(Duration::from_secs(1)).unwrap().activate(&version).unwrap()
    }

    #[test]
    fn watchers_are_told_of_the_last_switch() {
        let temporary = tempfile::tempdir().unwrap();
        let store = store(&temporary.path().join("store"));
        let (first, second) = (switched(&store, "v1"), switched(&store, "v2"));
        let warnings = Warnings::default();
        store.announce(&second, &warnings);
        // Late: somebody else switched and told them.
        store.announce(&first, &warnings);
        assert_eq!(store.versions().read(".switched").unwrap(), vector("switched").as_bytes());
        assert_eq!(*warnings.0.lock().unwrap(), [""; 0]);
        assert_eq!(store.staging_dir().unwrap().items().unwrap(), []);
    }

    #[test]
    fn a_watcher_that_cannot_be_told_is_a_warning() {
        let temporary = tempfile::tempdir().unwrap();
        let store = store(&temporary.path().join("store"));
        store.versions().create_dir(".switched", 0o755).unwrap();
        let warnings = Warnings::default();
        store.announce(&switched(&store, "v1"), &warnings);
        let warnings = warnings.0.into_inner().unwrap();
        assert!(matches!(&warnings[..], [one] if one.contains(".switched")), "{warnings:?}");
    }

    #[test]
    fn roles_that_were_recorded_in_the_wrong_order_are_restated() {
        let temporary = tempfile::tempdir().unwrap();
        let store = store(&temporary.path().join("store"));
        let known = store.survey().unwrap();
        let place = store.refs().unwrap().lock(Duration::from_secs(1)).unwrap().place();
        let _ = (switched(&store, "v1"), switched(&store, "v2"));
        let event = |version: &str| Event::about(Action::Activate, &version.parse().unwrap(), None);
        store.record_switch(vec![event("v2")]).unwrap();
        store.record_switch(vec![event("v1")]).unwrap();
        let found = store.survey().unwrap();
        let recorded = || store.survey().unwrap().marks.roles.get(&Role::Current).map(ToString::to_string);
        // Somebody is on the way, and will look.
        store.restate_roles(&known, &found).unwrap();
        assert_eq!(recorded().as_deref(), Some("v1"));
        drop(place);
        store.restate_roles(&known, &known).unwrap();
        assert_eq!(recorded().as_deref(), Some("v1"), "nothing was recorded meanwhile");
        store.restate_roles(&known, &found).unwrap();
        assert_eq!(recorded().as_deref(), Some("v2"));
    }
}
