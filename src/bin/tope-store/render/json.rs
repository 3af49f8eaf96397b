//! The documents of `--json`. Exactly one per command, `schema` first; fields are added, never changed.
//!
//! Wire types are apart from the library's: what scripts rely on must not move with a refactoring.

use std::io::{self, Write};

use serde::Serialize;
use tope_store::error::{Error, chain};
use tope_store::model::preflight::Finding;
use tope_store::model::way::Way;

use super::human;

/// Version of all documents.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a, T: Serialize> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    configuration: &'a [String],
}

/// Writes one document and a newline.
pub fn write(out: &mut dyn Write, body: &impl Serialize) -> io::Result<()> {
    write_with(out, &[], body)
}

/// The same with what is to be said of the configuration.
pub fn write_with(out: &mut dyn Write, configuration: &[String], body: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Document { schema: SCHEMA, body, configuration })?;
    out.write_all(b"\n")
}

/// A failed command.
#[derive(Debug, Serialize)]
pub struct Failure {
    error: FailureBody,
}

#[derive(Debug, Serialize)]
struct FailureBody {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<PreflightDocument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<WayDocument>>,
}

/// What keeps a service from running after a switch.
#[derive(Debug, Serialize)]
pub struct PreflightDocument {
    kind: &'static str,
    severity: &'static str,
    unit: Option<String>,
    what: String,
    why: &'static str,
    remedy: String,
}

impl PreflightDocument {
    /// The documents of findings.
    pub fn all(findings: &[Finding]) -> Vec<Self> {
        let of = |finding: &Finding| {
            let Finding { kind, severity, unit, what, why, remedy } = finding.clone();
            Self { kind, severity: severity.name(), unit, what, why, remedy }
        };
        findings.iter().map(of).collect()
    }
}

/// A version that can be switched to by name.
#[derive(Debug, Serialize)]
pub struct WayDocument {
    version: String,
    state: &'static str,
    last_current: Option<String>,
    command: String,
}

impl WayDocument {
    /// The documents of all of these.
    pub fn all(ways: &[Way]) -> Vec<Self> {
        let document = |way: &Way| Self {
            version: way.version.to_string(),
            state: way.state,
            last_current: way.last_current.map(human::rfc3339),
            command: way.command.clone(),
        };
        ways.iter().map(document).collect()
    }
}

impl Failure {
    /// The document for an error.
    pub fn of(error: &Error) -> Self {
        let findings = match error {
            Error::Preflight { findings, .. } => Some(PreflightDocument::all(findings)),
            _ => None,
        };
        let candidates = matches!(error, Error::NoWayBack { .. }).then(|| WayDocument::all(error.ways()));
        let (kind, message, hint) = (error.name(), chain(error), error.hint());
        Self { error: FailureBody { kind, message, hint, findings, candidates } }
    }
}

/// A path in two fields: readable, and its bytes in hexadecimal digits where it is not UTF-8.
#[derive(Debug, Clone, Serialize)]
pub struct PathFields {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl PathFields {
    /// The fields for a path in bytes.
    pub fn of(path: impl AsRef<[u8]>) -> Self {
        let bytes = path.as_ref();
        let path_bytes = std::str::from_utf8(bytes).is_err().then(|| hex(bytes));
        Self { path: String::from_utf8_lossy(bytes).into_owned(), path_bytes }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
