//! The store's format file: which features a build must know to read or write it.
//!
//! As in ext4 there are three sets. A build that does not know a *compatible* feature may do everything; one that
//! does not know a *read-only-compatible* feature may read; one that does not know an *incompatible* feature may not
//! even read. Rolling back and showing the status need links and trees only and never ask.

use serde::{Deserialize, Serialize};

/// The base layout; every store has it.
pub const BASE: &str = "base-1";
/// Everything is applied as the store's owner; see [`super::metadata::Ownership`].
pub const SQUASH: &str = "squash";
/// The store may be written on a network or FUSE file system.
pub const NETWORK_FS: &str = "network-fs";

const KNOWN_READ_ONLY_COMPATIBLE: &[&str] = &[SQUASH];
const KNOWN_INCOMPATIBLE: &[&str] = &[BASE];

/// The contents of the format file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Always `tope-store`.
    pub store: String,
    /// Features that nobody needs to know.
    pub compatible: Vec<String>,
    /// Features that writers need to know.
    pub read_only_compatible: Vec<String>,
    /// Features that readers need to know.
    pub incompatible: Vec<String>,
}

/// A format that this build does not support, or cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not a format file.
    #[error("the format file cannot be read: {0}")]
    Malformed(String),
    /// Reading needs features that this build lacks.
    #[error("unknown features: {}", .0.join(", "))]
    Incompatible(Vec<String>),
}

impl Format {
    /// A new store's.
    pub fn new(squash: bool, network_fs: bool) -> Self {
        let set = |on: bool, name: &str| if on { vec![name.to_owned()] } else { Vec::new() };
        Self {
            store: "tope-store".into(),
            compatible: set(network_fs, NETWORK_FS),
            read_only_compatible: set(squash, SQUASH),
            incompatible: vec![BASE.into()],
        }
    }

    /// Reads a format file and checks that this build may read the store.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let text = std::str::from_utf8(bytes).map_err(|error| FormatError::Malformed(error.to_string()))?;
        let format: Self = toml::from_str(text).map_err(|error| FormatError::Malformed(error.message().to_owned()))?;
        if format.store != "tope-store" {
            return Err(FormatError::Malformed("it belongs to something else".into()));
        }
        // Nobody ever wrote one without it.
        if format.incompatible.is_empty() {
            return Err(FormatError::Malformed("it names no format at all".into()));
        }
        let unknown = unknown(&format.incompatible, KNOWN_INCOMPATIBLE);
        if unknown.is_empty() { Ok(format) } else { Err(FormatError::Incompatible(unknown)) }
    }

    /// The features that keep this build from writing; empty if it may.
    pub fn unwritable_because(&self) -> Vec<String> {
        unknown(&self.read_only_compatible, KNOWN_READ_ONLY_COMPATIBLE)
    }

    /// Whether everything is applied as the store's owner.
    pub fn squash(&self) -> bool {
        self.read_only_compatible.iter().any(|name| name == SQUASH)
    }

    /// Whether a network file system was accepted.
    pub fn network_fs(&self) -> bool {
        self.compatible.iter().any(|name| name == NETWORK_FS)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let list = |names: &[String]| {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("[{}]", quoted.join(", "))
        };
        format!(
            "store = \"{}\"\ncompatible = {}\nread_only_compatible = {}\nincompatible = {}\n",
            self.store,
            list(&self.compatible),
            list(&self.read_only_compatible),
            list(&self.incompatible)
        )
    }
}

fn unknown(names: &[String], known: &[&str]) -> Vec<String> {
    names.iter().filter(|name| !known.contains(&name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_sets_decide_what_a_build_may_do() {
        let format = Format::new(true, true);
        assert_eq!(Format::parse(format.to_text().as_bytes()), Ok(format.clone()));
        assert!(format.squash() && format.network_fs() && format.unwritable_because().is_empty());
        let newer = Format { read_only_compatible: vec!["deltas".into()], ..Format::new(false, false) };
        assert_eq!(Format::parse(newer.to_text().as_bytes()).unwrap().unwritable_because(), ["deltas"]);
        let newest = Format { incompatible: vec!["base-2".into()], ..newer };
        assert_eq!(Format::parse(newest.to_text().as_bytes()), Err(FormatError::Incompatible(vec!["base-2".into()])));
        let lost = format.to_text().replace("read_only_", "read_onlx_");
        assert!(
            matches!(Format::parse(lost.as_bytes()), Err(FormatError::Malformed(_))),
            "a feature must not get lost"
        );
        assert!(matches!(Format::parse(b""), Err(FormatError::Malformed(_))));
        assert!(matches!(Format::parse(&[0; 64]), Err(FormatError::Malformed(_))));
    }
}
