//! Going back: the fire exit.
//!
//! It needs trees and links. The history is asked which versions are bad, and manifests are compared with trees; where
//! either cannot be read, that is said, and the switch is made all the same. The index is never touched, `lock` and
//! `publish.lock` never waited for, and the format never a reason to refuse.
//!
//! | step | without it |
//! | --- | --- |
//! | 1. links and marks are read, `refs.lock` held for a moment if a crash left something to finish | no switch |
//! | 2. candidates are checked, without a lock | a damaged candidate yields to the next; the last one is only warned of |
//! | 3. under `refs.lock`: links are read again, the switch is made, **visible from here on** | [`Refusal::Superseded`] if somebody else switched since step 1 |
//! | 4. under `refs.lock` once more: `previous` is pointed at the newest older version that is not bad, unless somebody else switched by now | it stays absent |
//! | 5. the directory is synced, without a lock | said |
//! | 6. one append records all of it, the bad mark included, behind the records of earlier switches | said |
//! | 7. `.switched` is rewritten, a trial that this overtook is removed | said |
//!
//! Nobody who holds `refs.lock` waits for the medium, so steps 1 and 3 wait for renames of others at most. This command's own
//! waiting begins with step 5.

mod after;
mod ways;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::plan::{self, Plan, TreeCheck};
use super::switching::{self, BadVersions, Health, Verify, Warnings, health};
use crate::error::{Error, Refusal, Result, chain};
use crate::model::event::Evidence;
use crate::model::trial::Failure;
use crate::model::{Action, Digest, Event, Role, Selector, VersionName};
use crate::object::trust::Suspects;
use crate::observe::{Observer, Silent};
use crate::refs::{LockedRefs, Place, Refs, Roles, Switch};
use crate::store::Store;
use crate::store::survey::Survey;
use crate::store::trial::Standing;

/// What becomes of the version that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Left {
    /// It is marked bad, since there is a reason to leave it.
    #[default]
    Bad,
    /// It stays what it was.
    Unmarked,
}

pub use ways::{Ways, ways};

/// How to go back.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to; by default to previous, else to factory.
    pub to: Option<Selector>,
    /// How closely candidates are checked.
    pub verify: Verify,
    /// What to do about candidates that are marked bad.
    pub bad: BadVersions,
    /// What becomes of the version that is left.
    pub left: Left,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What going back came to.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was current before, if that was a version.
    pub from: Option<VersionName>,
    /// What is current now.
    pub to: VersionName,
    /// Its digest; a directory that was made by hand has none.
    pub digest: Option<Digest>,
    /// 0: the version that was asked for by name; 1: previous; 2: factory.
    pub level: u8,
    /// Whether that is another version than before.
    pub changed: bool,
    /// Whether the version that was left is marked bad by this.
    pub marked_bad: bool,
    /// What previous leads to now.
    pub previous: Option<VersionName>,
    /// Whether the history knows of it.
    pub recorded: bool,
    /// Links that somebody else had changed since the last record.
    pub external_changes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How long it took until the switch was visible.
    pub switched_after: Duration,
    /// How long it took in all.
    pub elapsed: Duration,
}

/// Switches `current` back.
///
/// # Errors
///
/// - [`Error::NotFound`] if there is nothing to go back to;
/// - [`Error::Refused`] if all that could be gone back to is bad, if somebody else switched meanwhile, or if this user
///   may not switch;
/// - [`Error::Locked`] if another switch does not end;
/// - the system refuses the switch itself.
///
/// In all these cases nothing was changed.
pub fn rollback(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Report> {
    go_back(store, options, None, observer)
}

/// What a switch back belongs to.
pub(super) struct Supervised<'a> {
    /// Called with the target and its level, without a lock, before the switch: for what must be durable by then. An
    /// error keeps the switch from being made.
    pub prepare: &'a dyn Fn(&VersionName, u8) -> Result<()>,
    /// Called with the target and its level under `refs.lock`, right before the switch, so it waits for nothing; an
    /// error keeps the switch from being made.
    pub guard: &'a dyn Fn(&LockedRefs<'_>, &VersionName, u8) -> Result<()>,
    /// Called without a lock when the switch is durable, before it is recorded.
    pub settle: &'a dyn Fn(),
    /// Versions that are no way back.
    pub excluded: &'a [VersionName],
    /// The failure that it is about, where no operator asked for it.
    pub failed: Option<&'a Failure>,
}

/// The same as a step of something larger.
pub(super) fn go_back(
    store: &Store,
    options: &Options,
    supervised: Option<&Supervised<'_>>,
    observer: &dyn Observer,
) -> Result<Report> {
    let start = Instant::now();
    store.check_user()?;
    let warnings = Warnings::new(observer);
    let refs = store.refs()?;
    let roles = {
        let locked = refs.lock(store.settings().lock_timeout)?;
        locked.recover()?;
        locked.read()?
    };
    let survey = store.survey_with(roles)?;
    let attempt =
        Attempt { store, options, supervised, warnings: &warnings, survey, start, suspects: Default::default() };
    attempt.warn_of_history();
    let candidates = attempt.candidates()?;
    let report = match candidates {
        Candidates::Here(version) => attempt.unchanged(version),
        Candidates::Some(candidates) => {
            let (chosen, _) = attempt.choose(candidates)?;
            attempt.switch(&refs, &chosen)?
        }
    };
    // Behind the switch, which nothing may delay.
    if let Some(why) = store.revoke(&attempt.suspects.take()).unrecorded {
        tracing::warn!(why, "the damage that was found cannot be recorded");
    }
    Ok(Report { warnings: warnings.finish(), ..report })
}

/// What [`rollback`] would do. Every user may ask, and nothing is changed: no interrupted switch is finished, and a finding
/// about damage is not recorded.
///
/// # Errors
///
/// As [`rollback`], except that this user may not switch: that is a warning.
pub fn plan(store: &Store, options: &Options, observer: &dyn Observer) -> Result<Plan> {
    plan_of(store, options, None, observer)
}

/// The same as a step of something larger.
pub(super) fn plan_of(
    store: &Store,
    options: &Options,
    supervised: Option<&Supervised<'_>>,
    observer: &dyn Observer,
) -> Result<Plan> {
    let warnings = Warnings::new(observer);
    if let Err(error) = store.check_user() {
        warnings.warn(&plan::not_allowed(&error));
    }
    let attempt = Attempt::looking(store, options, supervised, &warnings)?;
    attempt.warn_of_history();
    store.refs()?.require_link(&attempt.survey.roles, Role::Current)?;
    let plan = match attempt.candidates()? {
        Candidates::Here(version) => {
            let digest = attempt.survey.digest(store, &version);
            let role = attempt.asked_for();
            attempt.plan(Candidate { role, version, digest }, TreeCheck::Unchecked("it is current already".into()))
        }
        Candidates::Some(mut candidates) if options.verify == Verify::None => {
            attempt.plan(candidates.remove(0), TreeCheck::Unchecked("not asked for".into()))
        }
        Candidates::Some(candidates) => {
            let (chosen, tree) = attempt.choose(candidates)?;
            attempt.plan(chosen, tree)
        }
    };
    Ok(Plan { warnings: warnings.finish(), ..plan })
}

/// Where the same leads unless that turns out to be damaged; `None` if it is current already. Nothing is changed.
///
/// # Errors
///
/// There is nothing to go back to, or all of it is bad; or this user may not switch.
pub(super) fn first_candidate(store: &Store, options: &Options) -> Result<Option<VersionName>> {
    store.check_user()?;
    likeliest(store, options)
}

/// The same for every user.
fn likeliest(store: &Store, options: &Options) -> Result<Option<VersionName>> {
    // What is to be warned of is said by the attempt itself.
    let warnings = Warnings::new(&Silent);
    let attempt = Attempt::looking(store, options, None, &warnings)?;
    Ok(match attempt.candidates()? {
        Candidates::Here(_) => None,
        Candidates::Some(candidates) => candidates.into_iter().next().map(|candidate| candidate.version),
    })
}

/// A way back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// The role whose link is taken; `None` for a version by its name.
    role: Option<Role>,
    version: VersionName,
    digest: Option<Digest>,
}

enum Candidates {
    /// At least one, best first.
    Some(Vec<Candidate>),
    /// What was asked for is current already.
    Here(VersionName),
}

struct Attempt<'a> {
    store: &'a Store,
    options: &'a Options,
    supervised: Option<&'a Supervised<'a>>,
    warnings: &'a Warnings<'a>,
    survey: Survey,
    start: Instant,
    /// Objects that checks found to be damaged.
    suspects: RefCell<Suspects>,
}

impl<'a> Attempt<'a> {
    /// One that only looks, without a lock.
    fn looking(
        store: &'a Store,
        options: &'a Options,
        supervised: Option<&'a Supervised<'a>>,
        warnings: &'a Warnings<'a>,
    ) -> Result<Self> {
        let survey = store.survey_with(store.refs()?.read()?)?;
        let (start, suspects) = (Instant::now(), RefCell::default());
        Ok(Self { store, options, supervised, warnings, survey, start, suspects })
    }
}

impl Attempt<'_> {
    fn warn_of_history(&self) {
        use crate::history::State;
        let why = match &self.survey.history {
            State::Broken { segment, line, detail } => format!("{segment} line {line}: {detail}"),
            State::Doubt { detail, .. } => format!("events are lost: {detail}"),
            State::Sound | State::Torn { .. } | State::Missing => return,
        };
        self.warnings.warn(&format!("the history cannot be trusted ({why}); which versions are bad may be unknown"));
    }

    fn current(&self) -> Option<&VersionName> {
        self.survey.roles.version(Role::Current)
    }

    fn candidate(&self, role: Option<Role>, version: VersionName) -> Candidate {
        let digest = self.survey.digest(self.store, &version);
        Candidate { role, version, digest }
    }

    fn evidence(&self, candidate: &Candidate) -> Option<&Evidence> {
        candidate.digest.and_then(|digest| self.survey.marks.bad(&digest))
    }

    fn candidates(&self) -> Result<Candidates> {
        match &self.options.to {
            Some(selector) => self.named(selector),
            None => self.fallbacks(),
        }
    }

    fn named(&self, selector: &Selector) -> Result<Candidates> {
        let version = self.survey.resolve(self.store, selector)?;
        if self.current() == Some(&version) {
            return Ok(Candidates::Here(version));
        }
        let role = match selector {
            Selector::Role(role) => Some(*role),
            _ => None,
        };
        let candidate = self.candidate(role, version);
        match self.evidence(&candidate) {
            Some(evidence) if self.options.bad == BadVersions::Refuse => Err(Error::refused_with(
                Refusal::Bad,
                format!("{} is marked bad: {evidence}", candidate.version),
                "to go back to it all the same: --force",
            )),
            _ => Ok(Candidates::Some(vec![candidate])),
        }
    }

    fn fallbacks(&self) -> Result<Candidates> {
        let (mut candidates, mut passed, mut bad): (Vec<Candidate>, Vec<String>, bool) =
            (Vec::new(), Vec::new(), false);
        for role in [Role::Previous, Role::Factory] {
            let version = match self.survey.resolve(self.store, &Selector::Role(role)) {
                Ok(version) => version,
                Err(error) => {
                    passed.push(error.to_string());
                    continue;
                }
            };
            if self.current() == Some(&version) {
                passed.push(format!("{role} is {version}, which is current"));
                continue;
            }
            if self.supervised.is_some_and(|supervised| supervised.excluded.contains(&version)) {
                passed.push(format!("{role} is {version}, which failed already"));
                continue;
            }
            let candidate = self.candidate(Some(role), version);
            match self.evidence(&candidate) {
                Some(evidence) if self.options.bad == BadVersions::Refuse => {
                    passed.push(format!("{role} is {}, which is bad ({evidence})", candidate.version));
                    bad = true;
                }
                _ if candidates.iter().any(|other| other.version == candidate.version) => {}
                _ => candidates.push(candidate),
            }
        }
        if let Some(first) = candidates.first() {
            if first.role == Some(Role::Factory) {
                passed.iter().for_each(|passed| self.warnings.warn(&format!("{passed}; going back to factory")));
            }
            return Ok(Candidates::Some(candidates));
        }
        let ways = ways::by_name(self.store, &self.survey, self.supervised.is_some());
        Err(Error::NoWayBack { why: passed.join("; "), bad, ways })
    }

    /// Checks candidates and gives the first that is sound, else the last.
    fn choose(&self, candidates: Vec<Candidate>) -> Result<(Candidate, TreeCheck)> {
        let count = candidates.len();
        for (at, candidate) in candidates.into_iter().enumerate() {
            let (version, last) = (&candidate.version, at + 1 == count);
            let problem = match health(self.store, &self.survey, version, self.options.verify, self.warnings)? {
                Health::Sound => return Ok((candidate, TreeCheck::Sound)),
                Health::Skipped => return Ok((candidate, TreeCheck::Unchecked("not asked for".into()))),
                Health::Unmanaged => {
                    self.warnings.warn(&format!("{version} was made by hand and cannot be checked"));
                    return Ok((candidate, TreeCheck::Unchecked("it was made by hand".into())));
                }
                // A manifest that cannot be read says nothing about the tree.
                Health::Unknown(error) => {
                    self.warnings.warn(&format!("{version} cannot be checked: {}", chain(&error)));
                    return Ok((candidate, TreeCheck::Unchecked(chain(&error))));
                }
                Health::Damaged(checked) => {
                    self.suspects.borrow_mut().extend(checked.suspects.iter().cloned());
                    switching::summary(&checked)
                }
            };
            if last {
                if count > 1 {
                    self.warnings.warn(
                        "all that could be gone back to fails its check; the fault is probably outside the releases",
                    );
                }
                self.warnings.warn(&format!("{version} fails its check ({problem}), and there is nothing better"));
                return Ok((candidate, TreeCheck::Damaged(problem)));
            }
            self.warnings.warn(&format!("{version} fails its check ({problem}); trying the next"));
        }
        Err(Error::NotFound { what: "version to go back to", name: "none".into() })
    }

    /// What a switch to this one would do.
    fn plan(&self, chosen: Candidate, tree: TreeCheck) -> Plan {
        let from = self.current();
        let changes = from != Some(&chosen.version);
        let left = from.filter(|_| changes).and_then(|from| self.survey.digest(self.store, from));
        let bad = self.bad_mark(from.filter(|_| changes), left, chosen.digest);
        let older = || self.older_than(&chosen.version, left.filter(|_| bad.is_some())).into_iter();
        let previous = match changes {
            true => older().find(|version| self.store.has_tree(version).unwrap_or(false)),
            false => self.survey.roles.version(Role::Previous).cloned(),
        };
        Plan {
            from: from.cloned(),
            digest: chosen.digest,
            level: self.level(chosen.role),
            changes,
            previous,
            bad: bad.and_then(|event| event.version),
            tree,
            services: None,
            warnings: Vec::new(),
            to: chosen.version,
        }
    }

    /// Nobody may have switched while candidates were checked.
    fn expect_unchanged(&self, roles: &Roles, chosen: &Candidate) -> Result<()> {
        roles.expect_current(self.current())?;
        let Some(role) = chosen.role else { return Ok(()) };
        match roles.version(role) == Some(&chosen.version) {
            true => Ok(()),
            false => Err(Error::refused(
                Refusal::Superseded,
                format!("{role} is no longer {}: somebody else switched", chosen.version),
            )),
        }
    }

    fn unchanged(&self, version: VersionName) -> Report {
        Report {
            from: Some(version.clone()),
            digest: self.survey.digest(self.store, &version),
            to: version,
            level: self.level(self.asked_for()),
            changed: false,
            marked_bad: false,
            previous: self.survey.roles.version(Role::Previous).cloned(),
            recorded: false,
            external_changes: Vec::new(),
            warnings: Vec::new(),
            switched_after: self.start.elapsed(),
            elapsed: self.start.elapsed(),
        }
    }

    /// The role that was asked for, if one was.
    fn asked_for(&self) -> Option<Role> {
        match &self.options.to {
            Some(Selector::Role(role)) => Some(*role),
            _ => None,
        }
    }

    fn level(&self, role: Option<Role>) -> u8 {
        match role {
            Some(Role::Previous) => 1,
            Some(Role::Factory) => 2,
            _ => 0,
        }
    }

    fn switch(&self, refs: &Refs, chosen: &Candidate) -> Result<Report> {
        let Visible { before, overtaken, place, switch, after: switched_after } = self.show(refs, chosen)?;
        let (from, to) = (switch.from.clone(), switch.to.clone());
        let from_digest = from.as_ref().and_then(|from| self.survey.digest(self.store, from));
        let bad = self.bad_mark(from.as_ref(), from_digest, chosen.digest);
        let previous = self.set_previous(refs, &to, from_digest.filter(|_| bad.is_some()));
        if let Err(error) = refs.sync() {
            let why = chain(&error);
            self.warnings.warn(&format!("the switch is visible, but a power cut may undo it: {why}"));
        }
        if let Some(supervised) = self.supervised {
            (supervised.settle)();
        }
        let survey = self.store.survey_in_turn(&place, before)?;
        let mut events = survey.external_changes(self.store).unwrap_or_default();
        let external_changes = events.iter().filter_map(|event| event.text.clone()).collect();
        let failed = self.supervised.and_then(|supervised| supervised.failed);
        events.push(Event {
            from: from.clone(),
            from_digest,
            tried: failed.map(|failed| failed.version.clone()),
            evidence: failed.map(|failed| failed.evidence.clone()),
            reason: self.options.reason.clone(),
            outcome: "done".into(),
            duration_ms: u64::try_from(switched_after.as_millis()).ok(),
            ..Event::about(Action::Rollback, &to, chosen.digest)
        });
        if let Some(previous) = &previous {
            let digest = self.survey.digest(self.store, previous);
            events.push(Event { role: Some(Role::Previous), ..Event::about(Action::Rollback, previous, digest) });
        }
        let marked_bad = bad.is_some();
        events.extend(bad);
        let recorded = switching::record(self.store, events, self.warnings);
        drop(place);
        switching::restate(self.store, &self.survey, &survey, self.warnings);
        self.store.announce(&switch, self.warnings);
        if self.supervised.is_none() {
            switching::end_trial(self.store, overtaken, self.warnings);
        }
        Ok(Report {
            from,
            to,
            digest: chosen.digest,
            level: self.level(chosen.role),
            changed: switch.changed,
            marked_bad: marked_bad && recorded,
            previous,
            recorded,
            external_changes,
            warnings: Vec::new(),
            switched_after,
            elapsed: self.start.elapsed(),
        })
    }

    /// Makes the switch visible.
    fn show(&self, refs: &Refs, chosen: &Candidate) -> Result<Visible> {
        let level = self.level(chosen.role);
        if let Some(supervised) = self.supervised {
            (supervised.prepare)(&chosen.version, level)?;
        }
        let locked = refs.lock(self.store.settings().lock_timeout)?;
        let before = locked.read()?;
        self.expect_unchanged(&before, chosen)?;
        if let Some(supervised) = self.supervised {
            (supervised.guard)(&locked, &chosen.version, level)?;
        }
        let switch = match chosen.role {
            Some(Role::Previous) => locked.roll_back_to_previous()?,
            Some(Role::Factory) => locked.roll_back_to_factory()?,
            _ => locked.roll_back_to(&chosen.version)?,
        };
        let after = self.start.elapsed();
        // While the lock is held nobody else takes a place, or ends a trial.
        Ok(Visible { before, overtaken: self.store.standing_trial(), place: locked.place(), switch, after })
    }
}

/// A switch that every process sees, and nothing else was done about.
struct Visible {
    /// The links before it.
    before: Roles,
    /// The trial that was open then.
    overtaken: Result<Option<Standing>>,
    /// When it is to be recorded.
    place: Place,
    switch: Switch,
    /// How long it took until it was visible.
    after: Duration,
}
