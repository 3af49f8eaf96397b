//! Which units two versions differ for, and why.
//!
//! A unit is affected by a change of what it needs: its program `bin/<name>`, everything below its directory
//! `services/<name>/`, its unit file, that of its template and drop-ins wherever in the tree, what it is configured to
//! need, what the manager says that it names, and what its processes were seen to use. In doubt it is affected: a unit of
//! which nothing is known is restarted too often rather than left on another version's files.

use crate::config::{Service, UnitName};
use crate::model::TreePath;
use crate::model::diff::{Change, ChangeKind};
use crate::model::glob::PathPatterns;

/// How many reasons are spelled out.
const MOST_REASONS: usize = 3;

/// What of a version a unit needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The unit.
    pub unit: String,
    /// Files, and directories with all that is below them.
    pub paths: Vec<TreePath>,
    /// More of them, by pattern.
    pub patterns: PathPatterns,
    /// Names of the files that define the unit, wherever they lie.
    pub unit_files: Vec<String>,
    /// Names of the directories with more of its definition, wherever they lie.
    pub drop_ins: Vec<String>,
}

impl Needs {
    /// What follows from a service's name and its configuration.
    pub fn of(service: &Service) -> Self {
        let name = service.name().as_bytes();
        let paths = [b"bin/".as_slice(), b"services/"].map(|place| TreePath::parse(&[place, name].concat()));
        let unit = UnitName::of(&service.unit);
        Self {
            unit: service.unit.clone(),
            paths: paths.into_iter().flatten().collect(),
            patterns: service.paths.clone(),
            // Other managers call the file what they call the service.
            unit_files: unit.files().into_iter().chain([service.unit.clone()]).collect(),
            drop_ins: unit.drop_in_directories(),
        }
    }

    /// Why this unit is touched by these changes; empty if it is not.
    pub fn reasons(&self, changes: &[Change]) -> Vec<String> {
        let touching: Vec<&Change> = changes
            .iter()
            .filter(|change| {
                self.touched_by(&change.path) || change.from_path.as_ref().is_some_and(|from| self.touched_by(from))
            })
            .collect();
        let mut reasons: Vec<String> = touching.iter().take(MOST_REASONS).map(|change| reason(change)).collect();
        if touching.len() > MOST_REASONS {
            reasons.push(format!("and {} more", touching.len() - MOST_REASONS));
        }
        reasons
    }

    fn touched_by(&self, path: &TreePath) -> bool {
        let among = |names: &[String], part: &[u8]| names.iter().any(|name| name.as_bytes() == part);
        // A directory that holds what is needed may itself be gone, or have become something else.
        self.paths.iter().any(|need| path.starts_with(need) || (!path.is_top() && need.starts_with(path)))
            || self.patterns.covers(path)
            || path.last().is_some_and(|last| among(&self.unit_files, last))
            || path.components().any(|part| among(&self.drop_ins, part))
    }
}

/// A change in words.
pub fn reason(change: &Change) -> String {
    let what = match change.kind {
        ChangeKind::Added => "is new",
        ChangeKind::Removed => "is gone",
        ChangeKind::Renamed => "was moved there",
        ChangeKind::Modified | ChangeKind::Metadata | ChangeKind::Type => "differs",
    };
    format!("{} {what}", change.path)
}

/// What becomes of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The unit.
    pub unit: String,
    /// Why it is affected, as in "bin/device-api differs"; empty if it is not.
    pub reasons: Vec<String>,
}

impl Affected {
    /// Whether it is affected.
    pub fn is_affected(&self) -> bool {
        !self.reasons.is_empty()
    }
}
