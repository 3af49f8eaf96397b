//! What links and history say at one moment, and where they disagree.
//!
//! Answered from links, trees, manifests and history alone, so that it works without an index. What cannot be read
//! answers nothing and stops nothing: a rollback asks here as well.

use std::time::{Duration, Instant};

use super::Store;
use crate::error::{Error, Result, Shown};
use crate::fsys::Kind;
use crate::history::State;
use crate::model::{Action, Digest, EntryName, Event, Manifest, Marks, Role, Selector, VersionName};
use crate::refs::{RoleLink, Roles};

/// How long a switch may look unfinished to a user who cannot wait for its lock.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two of their looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What links and history say at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// What the roles lead to.
    pub roles: Roles,
    /// What follows from the history; with damage the best that can be had.
    pub marks: Marks,
    /// Whether the history can be trusted.
    pub history: State,
}

impl Store {
    /// Reads links and history.
    ///
    /// # Errors
    ///
    /// The links cannot be read; never because of the history.
    pub fn survey(&self) -> Result<Survey> {
        self.survey_with(self.refs()?.read()?)
    }

    /// The same for links that were read already.
    ///
    /// # Errors
    ///
    /// None but those of opening `store/` once more.
    pub fn survey_with(&self, roles: Roles) -> Result<Survey> {
        let (marks, history) = match self.history()?.present() {
            Ok(present) => (present.marks, present.state),
            Err(error) => {
                let detail = crate::error::chain(&error);
                (Marks::default(), State::Broken { segment: crate::layout::HISTORY.into(), line: 0, detail })
            }
        };
        Ok(Survey { roles, marks, history })
    }

    /// What `judge` finds wrong with links and history; if it finds anything, what it finds while nobody switches.
    ///
    /// A switch is visible before it is recorded, and moves one link after the other: who looks in between finds what
    /// is not so. Nobody who wants to switch waits for `judge`: it holds no lock, and judges again until nobody switched
    /// meanwhile, for as long as a lock is waited for. A user who may not find out whether anybody switches looks until
    /// nothing is found, for a second at most.
    ///
    /// # Errors
    ///
    /// As [`Store::survey`]; those of `judge`.
    pub fn judge_at_rest<T>(&self, judge: impl Fn(&Survey) -> Result<Vec<T>>) -> Result<Vec<T>> {
        let refs = self.refs()?;
        let start = Instant::now();
        loop {
            let survey = self.survey()?;
            let found = judge(&survey)?;
            if found.is_empty() {
                return Ok(found);
            }
            let is_moving = refs.is_moving();
            let patience = if is_moving.is_ok() { self.settings().lock_timeout } else { PATIENCE };
            let at_rest = is_moving.is_ok_and(|moving| !moving) && self.survey()?.is_as(&survey);
            if at_rest {
                // What was seen before may have been on the way then; what is seen now is not, or is seen once more.
                let again = judge(&survey)?;
                if again.is_empty() || refs.is_moving().is_ok_and(|moving| !moving) && self.survey()?.is_as(&survey) {
                    return Ok(again);
                }
            }
            if start.elapsed() >= patience {
                return Ok(found);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether there is a directory of this name.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn has_tree(&self, version: &VersionName) -> Result<bool> {
        Ok(self.versions().try_stat(version)?.is_some_and(|stat| stat.kind == Kind::Directory))
    }

    /// Those of these versions whose name leads to nothing in `versions/`.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn without_tree(&self, names: &[VersionName]) -> Result<Vec<VersionName>> {
        let mut lost = Vec::new();
        for name in names {
            if self.versions().try_stat(name)?.is_none() {
                lost.push(name.clone());
            }
        }
        Ok(lost)
    }

    /// Whether neither manifest nor tree of a version is anywhere, in trash least of all: of one that the history knows,
    /// both were lost.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn is_lost_entirely(&self, name: &VersionName) -> Result<bool> {
        if self.manifests()?.stat(name)?.is_some() || self.versions().try_stat(name)?.is_some() {
            return Ok(false);
        }
        Ok(!self.trashed()?.iter().any(|trashed| trashed.version == *name))
    }

    /// A version's manifest, or `None` if it is not managed.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it cannot be trusted; the system refuses.
    pub fn manifest(&self, version: &VersionName) -> Result<Option<Manifest>> {
        match self.manifests()?.read(version) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The trees that were made by hand.
    ///
    /// # Errors
    ///
    /// The system refuses to list.
    pub fn made_by_hand(&self) -> Result<MadeByHand> {
        let manifests = self.manifests()?;
        let mut found = MadeByHand::default();
        for item in self.versions().items()? {
            if self.versions().try_stat(&item.name)?.is_none_or(|stat| stat.kind != Kind::Directory) {
                continue;
            }
            let name = std::str::from_utf8(item.name.as_bytes()).ok().and_then(|text| text.parse().ok());
            match name.filter(|name: &VersionName| name.as_str().as_bytes() == item.name.as_bytes()) {
                Some(name) if manifests.stat(&name)?.is_none() => found.versions.push(name),
                Some(_) => {}
                None => found.unsuitable.push(item.name),
            }
        }
        found.versions.sort();
        Ok(found)
    }
}

/// Directories in `versions/` that no manifest describes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MadeByHand {
    /// Those that can be adopted, in order.
    pub versions: Vec<VersionName>,
    /// Those whose names no version can have.
    pub unsuitable: Vec<EntryName>,
}

impl MadeByHand {
    /// What to do about a name that no version can have.
    pub fn way_out(unsuitable: &EntryName) -> String {
        let meant = std::str::from_utf8(unsuitable.as_bytes()).ok().and_then(|text| text.parse::<VersionName>().ok());
        match meant {
            Some(name) => format!("rename it to {name}, then: tope-store adopt {name}"),
            None => "rename it, as in v1.2.0, and adopt it, or move it out of versions/".to_owned(),
        }
    }
}

impl Survey {
    /// Whether nothing was switched or recorded between this and another look.
    fn is_as(&self, other: &Self) -> bool {
        self.roles == other.roles && self.marks.last_event == other.marks.last_event
    }

    /// The version that is meant: as [`Store::resolve`], but by the links that were read.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`]; for a role it is said where its link leads instead.
    pub fn resolve(&self, store: &Store, selector: &Selector) -> Result<VersionName> {
        match selector {
            Selector::Role(role) => self.of_role(*role),
            // A tree is enough: manifests may be lost.
            Selector::Name(name) if store.has_tree(name)? => Ok(name.clone()),
            other => store.resolve(other),
        }
    }

    fn of_role(&self, role: Role) -> Result<VersionName> {
        match self.roles.get(role) {
            RoleLink::Version { version, .. } => Ok(version.clone()),
            RoleLink::Absent => Err(Error::NotFound { what: "role", name: role.to_string() }),
            RoleLink::Dangling { target } | RoleLink::Foreign { target } => {
                let name = format!("{role} leads to {}, which is none", Shown::bytes(target));
                Err(Error::NotFound { what: "version", name })
            }
            RoleLink::NotALink(kind) => {
                let name = format!("{role} is {} instead of a link", kind.describe());
                Err(Error::NotFound { what: "role", name })
            }
        }
    }

    /// A version's digest: from the history where that can be trusted, else from its manifest.
    pub fn digest(&self, store: &Store, version: &VersionName) -> Option<Digest> {
        let recorded = self.marks.versions.get(version).map(|known| known.digest);
        match recorded {
            Some(digest) if self.history.is_trustworthy() => Some(digest),
            _ => store.manifest(version).ok().flatten().map(|manifest| manifest.digest()).or(recorded),
        }
    }

    /// A version's import number, found in the same way.
    pub fn import_number(&self, store: &Store, version: &VersionName) -> Option<u64> {
        let recorded = self.marks.versions.get(version).map(|known| known.import_number);
        match recorded {
            Some(number) if self.history.is_trustworthy() => Some(number),
            _ => store.manifest(version).ok().flatten().map(|manifest| manifest.facts.import_number).or(recorded),
        }
    }

    /// The version that an absent role should lead to: the recorded one, if its tree is there and the record can be
    /// trusted.
    ///
    /// Nothing is expected of `previous` where `current` does not lead where it was recorded: a rollback that died
    /// behind its switch leaves no `previous` and no record.
    ///
    /// # Errors
    ///
    /// The system refuses to look.
    pub fn missing(&self, store: &Store, role: Role) -> Result<Option<&VersionName>> {
        let Some(recorded) = self.marks.roles.get(&role).filter(|_| self.history.is_trustworthy()) else {
            return Ok(None);
        };
        let unrecorded = self.roles.version(Role::Current) != self.marks.roles.get(&Role::Current);
        let explained = role == Role::Previous && unrecorded && self.roles.version(Role::Current).is_some();
        let absent = matches!(self.roles.get(role), RoleLink::Absent);
        Ok(if absent && !explained && store.has_tree(recorded)? { Some(recorded) } else { None })
    }

    /// Roles that lead elsewhere than was recorded: somebody changed a link by hand, or a record was lost. Only
    /// meaningful for links that were read under `refs.lock`, and a history that was read when all switches before that
    /// were recorded ([`Store::survey_in_turn`]).
    ///
    /// The recorded factory version stays recorded, whatever was done to its link: it is protected until
    /// `factory set --replace`. So its event carries no role.
    ///
    /// # Errors
    ///
    /// The system refuses to read the history.
    pub fn external_changes(&self, store: &Store) -> Result<Vec<Event>> {
        if !self.history.is_trustworthy() {
            return Ok(Vec::new());
        }
        let changed = Role::ALL.into_iter().filter(|role| self.roles.version(*role) != self.marks.roles.get(role));
        let mut events: Vec<Event> = changed
            .map(|role| {
                let (found, recorded) = (self.roles.version(role), self.marks.roles.get(&role));
                let name = |version: Option<&VersionName>| version.map_or("none", VersionName::as_str).to_owned();
                Event {
                    version: found.cloned(),
                    from: recorded.cloned(),
                    role: (role != Role::Factory || recorded.is_none()).then_some(role),
                    text: Some(format!("{role} was {}, found {}", name(recorded), name(found))),
                    ..Event::new(Action::ExternalChange)
                }
            })
            .collect();
        if events.iter().any(|event| event.role.is_none()) {
            // The marks do not tell whether that was said before; the events do.
            let read = store.history()?.read()?;
            let since_set = read.events.iter().rev().map(|recorded| &recorded.event);
            let said: Vec<&Event> = since_set.take_while(|event| event.action != Action::FactorySet).collect();
            events.retain(|event| event.role.is_some() || !said.iter().any(|said| said.text == event.text));
        }
        Ok(events)
    }
}
