//! That the last notice reached nobody: what is kept of it until the next one is delivered.

use serde::{Deserialize, Serialize};

/// A notice that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Its event, as in the document that was to be delivered.
    pub event: String,
    /// When, by wall time in seconds.
    pub time: i64,
    /// Whether the clock was synchronised.
    #[serde(default)]
    pub synchronised: bool,
    /// Why it could not be delivered.
    pub why: String,
}

impl Undelivered {
    /// The line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("names and numbers are JSON") + "\n"
    }

    /// Reads a line. One that makes no sense still says that something was not delivered.
    pub fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|error| Self {
            event: "unknown".into(),
            time: 0,
            synchronised: false,
            why: format!("its record cannot be read: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_delivery_is_a_line_of_this_form() {
        let text = crate::test_vectors::vector("notice");
        let failed = Undelivered::parse(text.as_bytes());
        assert_eq!((failed.to_line().as_str(), failed.time), (text, 1_767_225_600));
        assert_eq!((failed.event.as_str(), failed.synchronised), ("corruption", true));
        let torn = Undelivered::parse(&text.as_bytes()[..20]);
        assert!(torn.event == "unknown" && torn.why.starts_with("its record cannot be read: "), "{torn:?}");
    }
}
