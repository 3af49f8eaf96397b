//! What follows a switch back that is visible already: the bad mark, and where `previous` leads now. None of it can
//! undo the switch or make it fail.

use super::{Attempt, Left};
use crate::error::{Error, chain};
use crate::model::event::Evidence;
use crate::model::{Action, Digest, Event, Role, VersionName};
use crate::observe::Observer;
use crate::refs::Refs;

/// What is said of a version in evidence of an operator's decision.
const OPERATOR: &str = "operator";

impl Attempt<'_> {
    /// The event that marks what is left as bad, unless there is a reason against it.
    pub(super) fn bad_mark(
        &self,
        from: Option<&VersionName>,
        left: Option<Digest>,
        kept: Option<Digest>,
    ) -> Option<Event> {
        let from = from.filter(|_| self.options.left == Left::Bad)?;
        let Some(digest) = left else {
            self.warnings.warn(&format!("{from} was made by hand and cannot be marked bad"));
            return None;
        };
        if self.survey.marks.bad(&digest).is_some() {
            return None;
        }
        let factory = [self.survey.roles.version(Role::Factory), self.survey.marks.roles.get(&Role::Factory)];
        let is_factory = factory
            .into_iter()
            .flatten()
            .any(|factory| factory == from || self.survey.digest(self.store, factory) == Some(digest));
        if is_factory {
            self.warnings.warn(&format!("{from} is the factory version and is not marked bad"));
            return None;
        }
        if kept == Some(digest) {
            self.warnings.warn(&format!("{from} holds the same as what is current now and is not marked bad"));
            return None;
        }
        let detail = self.options.reason.clone().unwrap_or_else(|| "left by a rollback".into());
        let evidence = Evidence { check: OPERATOR.into(), detail, ..Evidence::default() };
        Some(Event { evidence: Some(evidence), ..Event::about(Action::Bad, from, Some(digest)) })
    }

    /// Points `previous` at the newest version that is older than `to` and not bad. Where there is none, or no room
    /// for a link, `previous` is absent: it must lead neither forward nor to a bad version.
    ///
    /// If somebody else switched since this one, `previous` is theirs.
    pub(super) fn set_previous(&self, refs: &Refs, to: &VersionName, bad: Option<Digest>) -> Option<VersionName> {
        // Manifests may have to be read for it, so without the lock.
        let older = self.older_than(to, bad);
        let locked = match refs.lock(self.store.settings().lock_timeout) {
            Ok(locked) if locked.expect_current(Some(to)).is_ok() => locked,
            Ok(_) => return None,
            Err(error) => {
                self.warnings.warn(&format!("previous stays what it was: {}", chain(&error)));
                return None;
            }
        };
        for version in older {
            match locked.set_previous(&version) {
                Ok(_) => return Some(version),
                // Its tree is gone; the next one may be there.
                Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    self.warnings.warn(&format!("previous stays absent for now: {}", chain(&error)));
                    break;
                }
            }
        }
        if let Err(error) = locked.clear_previous() {
            self.warnings.warn(&format!("previous stays what it was: {}", chain(&error)));
        }
        None
    }

    /// Versions older than `to` that are not bad, newest first.
    pub(super) fn older_than(&self, to: &VersionName, bad: Option<Digest>) -> Vec<VersionName> {
        let Some(limit) = self.survey.import_number(self.store, to) else { return Vec::new() };
        let trusted = self.survey.history.is_trustworthy();
        let names = match trusted {
            true => self.survey.marks.versions.keys().cloned().collect(),
            false => self.store.manifests().and_then(|manifests| manifests.names()).unwrap_or_default(),
        };
        let mut older: Vec<(u64, VersionName)> = Vec::new();
        for name in names {
            let number = self.survey.import_number(self.store, &name).filter(|number| *number < limit);
            let digest = self.survey.digest(self.store, &name);
            let is_bad = digest.is_some_and(|digest| bad == Some(digest) || self.survey.marks.bad(&digest).is_some());
            if let Some(number) = number.filter(|_| !is_bad) {
                older.push((number, name));
            }
        }
        older.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        older.into_iter().map(|(_, name)| name).collect()
    }
}
