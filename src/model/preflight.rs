//! What keeps services from running after a switch, as it is known before it.

/// What a finding means for a switch that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The switch is not made: a service that it touches, or the check of one that it watches, cannot succeed.
    Refuse,
    /// The switch is made, and the operator is warned.
    Warn,
}

impl Severity {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
        }
    }
}

/// One thing that is not as a switch needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word.
    pub kind: &'static str,
    /// What it means.
    pub severity: Severity,
    /// The unit that it concerns, if it concerns one.
    pub unit: Option<String>,
    /// What is wrong: a sentence that names the unit, the path and the reason.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// The reasons to refuse in one line.
pub fn reasons(findings: &[Finding]) -> String {
    let refusing = findings.iter().filter(|finding| finding.severity == Severity::Refuse);
    let sentences: Vec<&str> = refusing.map(|finding| finding.what.as_str()).collect();
    sentences.join("; ")
}
