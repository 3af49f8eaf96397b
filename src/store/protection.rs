//! The protections of a version: why it is neither removed nor forgotten.
//!
//! Everything that removes or forgets a version asks here: gc's plan, `remove`, recovery, `repair`, `doctor --fix`. The
//! rules themselves are [`retention::protections`]; this module collects what they need.
//!
//! A *lost* version has a manifest and a record and no tree. It may be forgotten only if no rule of gc protects it, its
//! digest is not good, and nothing that could protect it is in doubt: a manifest, history, or trial that cannot be read
//! protects every version that it might be about.
//!
//! **Invariant:** an error is a protection, never the absence of one.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use super::removal::{users_of, wanting};
use super::trial::Found;
use crate::error::{Error, Result, chain};
use crate::fsys::mutation::Mutation;
use crate::fsys::process::uses_below;
use crate::layout;
use crate::model::retention::{self, Candidate, Reason};
use crate::model::{Digest, Marks, Role, VersionName};
use crate::refs::Roles;

/// What protects versions at one moment.
#[derive(Debug)]
pub struct Protections {
    marks: Marks,
    roles: Roles,
    /// The text of the open trial.
    trial: Option<Vec<u8>>,
}

impl Protections {
    /// Reads links and trial, and takes the marks.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn read(store: &Store, marks: Marks) -> Result<Self> {
        Ok(Self { marks, roles: store.refs()?.read()?, trial: store.dir().try_read(layout::TRIAL)? })
    }

    /// The marks that were taken.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// A version as the planner sees it, without the facts of its manifest and the processes that use it.
    pub fn candidate(&self, name: &VersionName, import_number: u64, digest: &Digest) -> Candidate {
        let standing = self.marks.standing(digest);
        let recorded = Role::ALL.into_iter().filter(|role| self.marks.roles.get(role) == Some(name));
        Candidate {
            bad: standing.bad.is_some(),
            good: standing.good,
            was_current: standing.was_current,
            left_by_rollback: standing.left,
            roles: BTreeSet::from_iter(wanting(&self.roles, name)),
            recorded_roles: recorded.collect(),
            pinned: self.marks.pins.contains(name) && !Mutation::Protection.is_made(),
            on_trial: self.trial.as_ref().is_some_and(|trial| names(trial, name)),
            ..Candidate::new(name.clone(), import_number, 0)
        }
    }
}

/// Whether a text names this version, whatever the text's format: a trial that cannot be understood must still protect.
fn names(text: &[u8], version: &VersionName) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    text.split(|byte| !in_name(byte)).any(|word| word == version.as_str().as_bytes())
}

/// Why lost versions are kept, each with at least one reason. The others may be forgotten.
pub type Kept = BTreeMap<VersionName, Vec<Reason>>;

impl Store {
    /// The reasons why these lost versions are kept.
    ///
    /// # Errors
    ///
    /// The system refuses to read links, history or processes. Then nothing may be forgotten.
    pub fn protections_of_lost<'n>(&self, lost: impl IntoIterator<Item = &'n VersionName>) -> Result<Kept> {
        let lost: Vec<&VersionName> = lost.into_iter().collect();
        if lost.is_empty() {
            return Ok(Kept::new());
        }
        let reading = self.history()?.read()?;
        let general = match self.trial()? {
            Found::Unreadable(why) => Some(format!("the open trial cannot be read: {why}")),
            _ if !reading.state.is_trustworthy() => Some("the history cannot be trusted".to_owned()),
            _ => None,
        };
        let protections = Protections::read(self, reading.marks)?;
        let uses = uses_below(&self.versions().real_path()?)?;
        let candidates = protections.marks.versions.iter().map(|(name, known)| Candidate {
            in_use: users_of(&uses, name.as_str().as_bytes()),
            ..protections.candidate(name, known.import_number, &known.digest)
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let mut by_rule = retention::protections(&candidates);
        let mut kept = Kept::new();
        for name in lost {
            let mut reasons = by_rule.remove(name).unwrap_or_default();
            let candidate = candidates.iter().find(|candidate| candidate.name == *name);
            let manifest = self.manifests()?.facts(name);
            // What gc began to remove, or what is gone with its manifest, is not kept by a mark of the past.
            let begun = self.is_being_removed(name)?;
            if !begun && candidate.is_some_and(|candidate| candidate.good) && !reasons.contains(&Reason::NewestGood) {
                reasons.push(Reason::Good);
            }
            // Died while it was published, or its record is lost.
            if candidate.is_none() {
                let roles = wanting(&protections.roles, name);
                reasons.extend(roles.into_iter().map(Reason::Role));
            }
            reasons.extend(general.iter().cloned().map(Reason::Doubt));
            match manifest {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => reasons.push(Reason::Doubt(chain(&error))),
            }
            if !reasons.is_empty() {
                kept.insert(name.clone(), reasons);
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_names_its_versions_in_any_format() {
        let named = |text: &str, version: &str| names(text.as_bytes(), &version.parse().unwrap());
        assert!(named(r#"{"from":"v1.0.0","to":"v1.1.0"}"#, "v1.1.0"));
        assert!(named("from=v1.0.0\nto=v1.1.0\n", "v1.0.0"));
        assert!(!named(r#"{"to":"v1.1.0-rc.1"}"#, "v1.1.0"));
    }
}
