//! The activation on trial: what a supervised switch leaves on the medium before it switches, so that whoever comes
//! after a power cut knows what was going on.
//!
//! One line: BLAKE3 of the JSON in 64 hexadecimal digits, a space, the JSON, a newline. A device rolls
//! back to older binaries, so fields that this build does not know are kept when the trial is written again; and a kind
//! of trial that it does not know is judged like a rollback: its target never becomes bad by itself.

use serde::{Deserialize, Serialize};

use super::event::Evidence;
use super::id::Digest;
use super::lenient::{Unknown, Word};
use super::name::VersionName;

/// Boots that a version may take to prove itself.
pub const MOST_ATTEMPTS: u32 = 3;

/// What began a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Begun {
    /// A switch forward: its target is bad if it fails.
    Activation,
    /// A switch back by an operator: its target is a fallback, which never becomes bad by itself.
    Rollback,
}

/// Which services are restarted by a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Those for which the two versions differ.
    #[default]
    Changed,
    /// All of them.
    All,
}

/// The process that watches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watcher {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since the boot: a process id may be given again.
    pub started: u64,
    /// The boot in which it runs.
    pub boot: String,
    /// Whether it is a guardian, which took over from the process that switched.
    #[serde(default, skip_serializing_if = "is_false")]
    pub guardian: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A version that failed in a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub version: VersionName,
    /// The first check that failed.
    pub evidence: Evidence,
    /// How many units had not failed when that was seen.
    #[serde(default)]
    pub standing_units: usize,
    /// What this build does not know of it.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// An open trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What names this trial among all.
    pub id: String,
    /// What began it.
    pub begun: Word<Begun>,
    /// The version that is tried.
    pub version: VersionName,
    /// Its digest; a directory that was made by hand has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What was current before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VersionName>,
    /// Where `current` leads at this level, or is about to.
    pub current: VersionName,
    /// 0: the version that is tried; 1: previous; 2: factory.
    pub level: u8,
    /// Which services are restarted.
    pub restart: Word<Restart>,
    /// Units that were stopped or restarted, or are about to be.
    #[serde(default)]
    pub units: Vec<String>,
    /// Whether all of them were ordered to start at this level, so that they need no restart.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ordered: bool,
    /// Boots since this level began.
    #[serde(default)]
    pub attempts: u32,
    /// The boot that was counted last.
    #[serde(default)]
    pub boot: String,
    /// Who watches.
    #[serde(default)]
    pub watcher: Watcher,
    /// What failed before this level.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// What this build does not know of this trial.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Trial {
    /// The line.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("names and numbers are JSON");
        format!("{} {json}\n", blake3::hash(json.as_bytes()).to_hex())
    }

    /// Reads a line; says what is wrong with one that is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let (hash, json) =
            text.strip_suffix('\n').and_then(|line| line.split_once(' ')).ok_or("it is not one whole line")?;
        if blake3::hash(json.as_bytes()).to_hex().as_str() != hash {
            return Err("its checksum does not match".into());
        }
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    /// The check that failed on this trial's last two versions, if it is the same: the fault is then probably outside
    /// the release.
    pub fn same_check_twice(&self) -> Option<&str> {
        match self.failures.as_slice() {
            [.., one, two] if one.evidence.check == two.evidence.check && one.version != two.version => {
                Some(&two.evidence.check)
            }
            _ => None,
        }
    }

    /// Whether every version that was tried failed by the same probe, and more than one was. A probe may ask more than
    /// the release (a network, say); a unit that does not stay up is about the release.
    pub fn same_probe_everywhere(&self) -> bool {
        let checks: std::collections::BTreeSet<&str> =
            self.failures.iter().map(|failure| failure.evidence.check.as_str()).collect();
        let is_probe = |check: &&str| !check.starts_with("unit ");
        self.failures.len() > 1 && checks.len() == 1 && checks.iter().all(is_probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn trial() -> Trial {
        Trial {
            id: "5-1f-2".into(),
            begun: Word::Known(Begun::Activation),
            version: "v1.2.0".parse().unwrap(),
            digest: None,
            from: Some("v1.1.0".parse().unwrap()),
            current: "v1.2.0".parse().unwrap(),
            level: 0,
            restart: Word::Known(Restart::Changed),
            units: vec!["device-api.service".into()],
            ordered: false,
            attempts: 0,
            boot: "b0".into(),
            watcher: Watcher { pid: 31, started: 7, boot: "b0".into(), guardian: false },
            failures: Vec::new(),
            unknown: Unknown::new(),
        }
    }

    #[test]
    fn a_trial_is_a_line_of_this_form() {
        let line = trial().to_line();
        let json = r#"{"id":"5-1f-2","begun":"activation","version":"v1.2.0","from":"v1.1.0","current":"v1.2.0","level":0,"restart":"changed","units":["device-api.service"],"attempts":0,"boot":"b0","watcher":{"pid":31,"started":7,"boot":"b0"},"failures":[]}"#;
        assert_eq!(line, format!("{} {json}\n", blake3::hash(json.as_bytes()).to_hex()));
        assert_eq!(Trial::parse(line.as_bytes()), Ok(trial()));
        for (bad, why) in [
            (&line[..line.len() - 1], "it is not one whole line"),
            (&line.replace("v1.2.0", "v1.3.0"), "its checksum does not match"),
            ("", "it is not one whole line"),
        ] {
            assert_eq!(Trial::parse(bad.as_bytes()), Err(why.into()));
        }
    }

    #[test]
    fn what_a_newer_build_wrote_into_a_trial_survives_the_next_writing() {
        let line = crate::test_vectors::vector("unknown-trial");
        assert_eq!(Trial::parse(line.as_bytes()).unwrap().to_line(), line);
    }

    #[test]
    fn one_check_that_fails_everywhere_points_outside() {
        let failure = |version: &str, check: &str| Failure {
            version: version.parse().unwrap(),
            evidence: Evidence { check: check.into(), ..Evidence::default() },
            standing_units: 0,
            unknown: Unknown::new(),
        };
        let with = |failures: Vec<Failure>| Trial { failures, ..trial() };
        let one = with(vec![failure("v3", "http")]);
        let two = with(vec![failure("v3", "http"), failure("v2", "http")]);
        let mixed = with(vec![failure("v3", "unit"), failure("v2", "http"), failure("v1", "http")]);
        assert_eq!([&one, &two, &mixed].map(|trial| trial.same_check_twice()), [None, Some("http"), Some("http")]);
        assert_eq!([&one, &two, &mixed].map(Trial::same_probe_everywhere), [false, true, false]);
        let unit = with(vec![failure("v3", "unit a"), failure("v2", "unit a")]);
        assert_eq!((unit.same_check_twice(), unit.same_probe_everywhere()), (Some("unit a"), false));
    }
}
