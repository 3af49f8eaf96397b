//! Events: what happened, when, by whom, why. One event is one line of the history.
//!
//! A line is the chain value in 64 hexadecimal digits, a space, the event as JSON, a newline. Each chain value hashes
//! the one before it and the JSON, so that nothing can be altered or left out in the middle unnoticed.
//!
//! A device rolls back to older binaries, so [`Event::parse`] reads leniently: a field that is not known is ignored, and
//! so is a value that cannot be read of a field that decides nothing. An event whose action, or one of whose
//! [deciding](DECIDING) fields, is not understood has no effect: it is kept as it is.

use serde::{Deserialize, Serialize};

use super::id::Digest;
use super::marks::Marks;
use super::name::{Role, VersionName};

pub use super::actor::{Actor, Claimed};

/// The context under which the chain is hashed.
pub const HISTORY_CONTEXT: &str = "tope-store 2026-11 history v1";

/// A link of the history's chain.
pub type Chain = [u8; 32];

/// What stands before the first event of a store.
pub const CHAIN_START: Chain = [0; 32];

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// The store was created.
    Init,
    /// A version was published.
    Import,
    /// A hand-made tree was taken under management.
    Adopt,
    /// `current` was switched forward.
    Activate,
    /// `current` was switched back.
    Rollback,
    /// A version was accepted; a bad mark goes.
    Confirm,
    /// A version was marked bad.
    Bad,
    /// A version passed its checks.
    Good,
    /// No version passes its checks; the least bad one runs.
    Degraded,
    /// A version is to be kept.
    Pin,
    /// A version need not be kept any longer.
    Unpin,
    /// A note was added.
    Note,
    /// `factory` was set.
    FactorySet,
    /// A version was removed.
    Remove,
    /// A retention run ended.
    Gc,
    /// Damage was mended.
    Repair,
    /// Objects were found not to be what their names say; they are not trusted until they are made again.
    Revoke,
    /// A link or tree was found changed by somebody else.
    ExternalChange,
    /// A version's tree was found gone.
    RemovedByHand,
    /// A torn tail of the history was cut.
    HistoryCut,
    /// The history's chain was found broken and was begun anew by the operator's order.
    HistoryReset,
    /// A new segment begins; carries all marks.
    Checkpoint,
    /// Something that this build does not know.
    #[serde(other)]
    Unknown,
}

impl Action {
    /// All that this build knows.
    pub const ALL: [Self; 22] = [
        Self::Init,
        Self::Import,
        Self::Adopt,
        Self::Activate,
        Self::Rollback,
        Self::Confirm,
        Self::Bad,
        Self::Good,
        Self::Degraded,
        Self::Pin,
        Self::Unpin,
        Self::Note,
        Self::FactorySet,
        Self::Remove,
        Self::Gc,
        Self::Repair,
        Self::Revoke,
        Self::ExternalChange,
        Self::RemovedByHand,
        Self::HistoryCut,
        Self::HistoryReset,
        Self::Checkpoint,
    ];

    /// The stable name, as it stands in the history and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Import => "import",
            Self::Adopt => "adopt",
            Self::Activate => "activate",
            Self::Rollback => "rollback",
            Self::Confirm => "confirm",
            Self::Bad => "bad",
            Self::Good => "good",
            Self::Degraded => "degraded",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Note => "note",
            Self::FactorySet => "factory-set",
            Self::Remove => "remove",
            Self::Gc => "gc",
            Self::Repair => "repair",
            Self::Revoke => "revoke",
            Self::ExternalChange => "external-change",
            Self::RemovedByHand => "removed-by-hand",
            Self::HistoryCut => "history-cut",
            Self::HistoryReset => "history-reset",
            Self::Checkpoint => "checkpoint",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a version is held to be bad.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// The check that failed: "operator", "quick", "unit device-api.service", "http …".
    #[serde(default)]
    pub check: String,
    /// What it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Exit code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The unit's last log lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl std::fmt::Display for Evidence {
    /// "http: status 500 (exit code 1)".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", crate::error::Shown::text(&self.check))?;
        if !self.detail.is_empty() {
            write!(f, ": {}", crate::error::Shown::text(&self.detail))?;
        }
        match self.exit_code {
            Some(code) => write!(f, " (exit code {code})"),
            None => Ok(()),
        }
    }
}

/// One event. Fields that do not apply are absent from the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the history, from 1, without gaps.
    pub seq: u64,
    /// Wall time in seconds since 1970; a label, not an order.
    pub time: i64,
    /// Whether the clock was synchronised.
    pub synchronised: bool,
    /// The boot it happened in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What happened.
    pub action: Action,
    /// Who did it.
    #[serde(default)]
    pub who: Actor,
    /// The version it is about; for a switch the new target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionName>,
    /// That version's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Import number, for `import` and `adopt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import_number: Option<u64>,
    /// The hash of its manifest's body in hexadecimal digits, for `import` and `adopt`, and for a `repair` that wrote
    /// another manifest than was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The role it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// For a switch: what the role pointed at before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VersionName>,
    /// For `rollback`: the digest of the version that was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_digest: Option<Digest>,
    /// For a `rollback` that a failed check made: the version that was tried. The evidence says why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<VersionName>,
    /// For `factory-set`: whether the tree has inodes of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// The reason that was given, or the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of it, in a word: `done`, `failed`, `superseded`; empty for events that only record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// How long it took in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Bytes that came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<u64>,
    /// For `bad`, `degraded` and a `rollback` that a failed check made: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// For `note`: the text. For `external-change` and `history-cut`: what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For `revoke`: names of the objects that are not trusted from here on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Names of objects whose revocation ends here: they were made again, or swept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cleared: Vec<String>,
    /// For `checkpoint` and `history-reset`: all marks up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Box<Marks>>,
    /// For `checkpoint`: the chain value before it in hexadecimal digits, so that a segment can be checked by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_before: Option<String>,
    /// Commands that must understand this event; the others may go on without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decides: Vec<String>,
    /// The JSON of an event that this build does not understand. It has no effect, and checkpoints carry it on.
    #[serde(skip)]
    pub not_understood: Option<Box<str>>,
}

/// Fields that decide what an event does. One with a value that this build cannot read makes the event one that it does
/// not understand; such a value of any other field is left out.
const DECIDING: [&str; 11] = [
    "version",
    "digest",
    "import_number",
    "manifest",
    "role",
    "from",
    "from_digest",
    "isolated",
    "objects",
    "cleared",
    "decides",
];
/// Fields without which there is no event, or no log.
const REQUIRED: [&str; 6] = ["seq", "time", "synchronised", "action", "marks", "chain_before"];

impl Event {
    /// An event with nothing but its action; the log fills in number, time and boot when it is appended.
    pub fn new(action: Action) -> Self {
        Self {
            seq: 0,
            time: 0,
            synchronised: false,
            boot: String::new(),
            action,
            who: Actor::default(),
            version: None,
            digest: None,
            import_number: None,
            manifest: None,
            role: None,
            from: None,
            from_digest: None,
            tried: None,
            isolated: false,
            reason: None,
            outcome: String::new(),
            duration_ms: None,
            freed_bytes: None,
            evidence: None,
            text: None,
            objects: Vec::new(),
            cleared: Vec::new(),
            marks: None,
            chain_before: None,
            decides: Vec::new(),
            not_understood: None,
        }
    }

    /// Reads an event's JSON as far as this build understands it.
    ///
    /// # Errors
    ///
    /// It is no event.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let (mut event, understood) = match serde_json::from_slice::<Self>(json) {
            Ok(event) => (event, true),
            Err(error) => Self::parse_in_part(json).ok_or(error)?,
        };
        if !understood || event.action == Action::Unknown {
            event.not_understood = Some(String::from_utf8_lossy(json).into());
        }
        Ok(event)
    }

    /// Leaves out the fields that cannot be read; tells whether the others decide all that the event does.
    fn parse_in_part(json: &[u8]) -> Option<(Self, bool)> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).ok()?;
        let is_required = |name: &str| REQUIRED.contains(&name);
        let (mut readable, rest): (serde_json::Map<_, _>, Vec<_>) = (
            object.iter().filter(|(name, _)| is_required(name)).map(|(n, v)| (n.clone(), v.clone())).collect(),
            object.iter().filter(|(name, _)| !is_required(name)).collect(),
        );
        let mut understood = true;
        for (name, value) in rest {
            readable.insert(name.clone(), value.clone());
            if Self::deserialize(serde_json::Value::Object(readable.clone())).is_err() {
                readable.remove(name);
                understood &= !DECIDING.contains(&name.as_str());
            }
        }
        Self::deserialize(serde_json::Value::Object(readable)).ok().map(|event| (event, understood))
    }

    /// An event about one version.
    pub fn about(action: Action, version: &VersionName, digest: Option<Digest>) -> Self {
        Self { version: Some(version.clone()), digest, ..Self::new(action) }
    }

    /// The line that records this event behind `previous`, and the chain value it carries.
    pub fn to_line(&self, previous: &Chain) -> (Vec<u8>, Chain) {
        let json = serde_json::to_vec(self).expect("an event holds nothing that JSON cannot");
        let chain = chain_behind(previous, &json);
        let mut line = blake3::Hash::from_bytes(chain).to_hex().as_bytes().to_vec();
        line.push(b' ');
        line.extend_from_slice(&json);
        line.push(b'\n');
        (line, chain)
    }

    /// Reads a line (without its newline) that follows `previous`.
    ///
    /// # Errors
    ///
    /// [`LineError`] tells a broken chain from a line that makes no sense.
    pub fn from_line(line: &[u8], previous: &Chain) -> Result<(Self, Chain), LineError> {
        let (hex, rest) = line.split_at_checked(64).ok_or(LineError::Malformed)?;
        let json = rest.strip_prefix(b" ").ok_or(LineError::Malformed)?;
        let written = blake3::Hash::from_hex(hex).map_err(|_| LineError::Malformed)?;
        let chain = chain_behind(previous, json);
        if written != blake3::Hash::from_bytes(chain) {
            return Err(LineError::Chain);
        }
        let event = Self::parse(json).map_err(|error| LineError::Event(error.to_string()))?;
        Ok((event, chain))
    }

    /// Reads the first line of a segment (without its newline): gives the event, the chain value that it says stood
    /// before it ([`CHAIN_START`] if it says none), and its own.
    ///
    /// # Errors
    ///
    /// As [`Event::from_line`].
    pub fn from_first_line(line: &[u8]) -> Result<(Self, Chain, Chain), LineError> {
        let event = Self::salvage(line).ok_or(LineError::Malformed)?;
        let before = match &event.chain_before {
            Some(hex) => *blake3::Hash::from_hex(hex).map_err(|_| LineError::Malformed)?.as_bytes(),
            None => CHAIN_START,
        };
        Self::from_line(line, &before).map(|(event, chain)| (event, before, chain))
    }

    /// Reads the event of a line whose chain value cannot be checked, if there is one.
    pub fn salvage(line: &[u8]) -> Option<Self> {
        let (_, rest) = line.split_at_checked(64)?;
        Self::parse(rest.strip_prefix(b" ")?).ok()
    }
}

/// The chain value of an event with this JSON behind `previous`.
pub fn chain_behind(previous: &Chain, json: &[u8]) -> Chain {
    let mut hasher = blake3::Hasher::new_derive_key(HISTORY_CONTEXT);
    hasher.update(previous).update(json);
    *hasher.finalize().as_bytes()
}

/// A line that is not the next event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not a chain value, a space and JSON.
    #[error("not a line of the history")]
    Malformed,
    /// The chain value does not follow from what stands before.
    #[error("the chain is broken")]
    Chain,
    /// The chain holds, the JSON is no event.
    #[error("not an event: {0}")]
    Event(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_every_flipped_bit_is_noticed() {
        let event = Event { seq: 1, time: 5, ..Event::about(Action::Import, &"v1".parse().unwrap(), None) };
        let (line, chain) = event.to_line(&CHAIN_START);
        let bare = &line[..line.len() - 1];
        assert_eq!(Event::from_line(bare, &CHAIN_START), Ok((event, chain)));
        for at in 0..bare.len() {
            let mut damaged = bare.to_vec();
            damaged[at] ^= 1;
            assert!(Event::from_line(&damaged, &CHAIN_START).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_event_of_a_newer_build_is_read() {
        let json = br#"{"seq":3,"time":1,"synchronised":true,"action":"teleport","moon":1}"#;
        let mut line = blake3::Hash::from_bytes(chain_behind(&CHAIN_START, json)).to_hex().as_bytes().to_vec();
        line.push(b' ');
        line.extend_from_slice(json);
        let event = Event::from_line(&line, &CHAIN_START).unwrap().0;
        assert_eq!(
            (event.action, event.not_understood.as_deref().map(str::as_bytes)),
            (Action::Unknown, Some(&json[..]))
        );
    }

    #[test]
    fn events_are_understood_or_not_as_specified() {
        const COMMANDS: [&str; 12] = [
            "gc", "remove", "activate", "confirm", "pin", "unpin", "note", "factory", "import", "adopt", "link",
            "repair",
        ];
        for line in crate::test_vectors::vector("lenient-events").lines() {
            let (json, expected) = line.split_once(" => ").unwrap();
            let read = match Event::parse(json.as_bytes()) {
                Err(_) => "broken".to_owned(),
                Ok(event) if event.not_understood.is_none() => "understood".to_owned(),
                Ok(event) => {
                    let mut marks = Marks::default();
                    marks.apply(&event);
                    let stopped = COMMANDS.iter().filter(|name| marks.obstacle(name).is_some());
                    stopped.fold("not understood:".to_owned(), |text, name| text + " " + name)
                }
            };
            assert_eq!(read, expected, "{json}");
        }
    }

    #[test]
    fn a_value_that_decides_nothing_is_left_out_and_one_that_does_leaves_the_event_without_effect() {
        let with = |rest: &str| {
            let json = format!(r#"{{"seq":3,"time":1,"synchronised":true,"action":"bad","version":"v1"{rest}}}"#);
            Event::parse(json.as_bytes()).unwrap()
        };
        for rest in ["", r#","evidence":7"#, r#","who":"ada""#, r#","outcome":{"part":1}"#, r#","duration_ms":-1"#] {
            let event = with(rest);
            assert_eq!((event.action, event.not_understood), (Action::Bad, None), "{rest}");
        }
        assert_eq!(with(r#","outcome":"partial""#).outcome, "partial");
        for rest in [r#","role":"shadow""#, r#","digest":"t2:00""#, r#","from":"newest""#, r#","decides":"gc""#] {
            let event = with(rest);
            assert!(event.not_understood.is_some_and(|json| json.contains(rest)), "{rest}");
        }
        for json in [r#"{"seq":3}"#, "[]", r#"{"seq":-1,"time":1,"synchronised":true,"action":"bad"}"#] {
            assert!(Event::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
