//! The configuration file: text in, checked values out. Pure: who reads the file passes its text.
//!
//! Everything is checked here, once, so that a mistake is met when the file is read and not at 3 a.m. in a rollback:
//! unknown keys, sizes, durations, patterns, addresses, templates. Errors name the line and the key.
//!
//! A table that this build does not know is named and ignored: a newer build reads it. An unknown key in a known table is
//! refused, since it may be a mistake in one that decides.
//!
//! **Invariant:** a [`Config`] holds only what can be used; nothing in the file is read and ignored but whole tables, which
//! it names.
//!
//! What goes back and looks must work with a file that is refused as well: [`salvage`] takes of it what can be taken.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::error::Shown;
use crate::model::glob::PathPatterns;
use crate::model::label;
use crate::model::retention::Policy;
use crate::model::units::{parse_duration, parse_size};

mod notify;
mod probe;
mod salvage;
mod service;
mod unit;

pub use notify::{Occasion, Occasions};
pub use probe::{CommandProbe, DEFAULT_PROBE_TIMEOUT, HttpAddress, HttpProbe};
pub use salvage::{Salvaged, salvage};
pub use service::{DEFAULT_SETTLE, DEFAULT_TIMEOUT, Service, Supervisor, Templates, UNIT_PLACEHOLDER};
pub use unit::UnitName;

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/tope-store/config.toml";

/// The configuration. What is absent in the file is `None` or empty, so that flags and the environment can be laid over
/// it; only services have their defaults here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The root of the store.
    pub root: Option<PathBuf>,
    /// Where links to the current version's programs go.
    pub bin_dir: Option<PathBuf>,
    /// What imports do.
    pub import: Import,
    /// What `gc` keeps where the command line does not say so.
    pub retention: Policy,
    /// The command that is told of events, with its arguments; empty for none.
    pub notify: Vec<String>,
    /// The events that it is told of.
    pub notify_on: Occasions,
    /// What starts and stops services.
    pub supervisor: Supervisor,
    /// The services that are restarted and watched, in the order of the file; unit names are unique.
    pub services: Vec<Service>,
    /// Tables that this build does not know, in the order of the file.
    pub unknown_tables: Vec<String>,
}

/// What imports do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Files that are copied, writable, for each version.
    pub private: PathPatterns,
    /// Paths that live outside the versions.
    pub shared: PathPatterns,
    /// How many bytes an import leaves free.
    pub min_free: Option<u64>,
    /// How much an archive may ask for.
    pub limits: Limits,
}

/// How much an archive may ask for, where that differs from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Decompressed bytes in all.
    #[serde(default, deserialize_with = "size")]
    pub total_bytes: Option<u64>,
    /// Entries of the resulting tree.
    pub entries: Option<u64>,
    /// Decompressed bytes for each compressed one.
    pub ratio: Option<u64>,
    /// Memory of the decoder.
    #[serde(default, deserialize_with = "size")]
    pub decoder_memory: Option<u64>,
    /// Bytes of names, link targets and extended attributes.
    #[serde(default, deserialize_with = "size")]
    pub held_bytes: Option<u64>,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", Self::at_key(key))]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// The key with its tables, as in `import.min_free` or `service[2].http`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl ConfigError {
    fn at_key(key: &str) -> String {
        if key.is_empty() { String::new() } else { format!(", {}", Shown::text(key)) }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let unknown_tables = unknown_tables(text)?;
        let raw: Raw = toml::from_str(text).map_err(|error| located(text, &error))?;
        let mut config = Self {
            root: raw.root,
            bin_dir: raw.bin_dir,
            import: Import {
                private: raw.import.private,
                shared: raw.import.shared,
                min_free: raw.import.min_free,
                limits: raw.import.limits,
            },
            retention: raw.retention.into(),
            notify: raw.notify.command,
            notify_on: raw.notify.on,
            supervisor: raw.supervisor.unwrap_or_default(),
            services: Vec::with_capacity(raw.service.len()),
            unknown_tables,
        };
        for (at, service) in raw.service.into_iter().enumerate() {
            let span = service.span();
            let mut service = service.into_inner();
            if config.supervisor == Supervisor::Systemd {
                service.unit = UnitName::of(&service.unit).in_full();
            }
            if config.services.iter().any(|other| other.unit == service.unit) {
                let problem = format!("{} is configured twice", Shown::text(&service.unit));
                return Err(ConfigError {
                    line: line_of(text, span.start),
                    key: format!("service[{}].unit", at + 1),
                    problem,
                });
            }
            config.services.push(service);
        }
        Ok(config)
    }
}

/// All that stands at the top of a file.
const KNOWN: [&str; 7] = ["root", "bin_dir", "import", "retention", "notify", "supervisor", "service"];

/// The tables that this build does not know.
///
/// # Errors
///
/// There is an unknown key that is no table. Text that is no TOML has none: reading it says what is wrong.
fn unknown_tables(text: &str) -> Result<Vec<String>, ConfigError> {
    use toml::de::DeValue;
    let Ok(root) = toml::de::DeTable::parse(text) else { return Ok(Vec::new()) };
    let unknown = root.get_ref().iter().filter(|(key, _)| !KNOWN.contains(&key.get_ref().as_ref()));
    let mut unknown: Vec<_> = unknown.map(|(key, value)| (key.span().start, key.get_ref(), value)).collect();
    unknown.sort_unstable_by_key(|(start, ..)| *start);
    let is_table = |value: &DeValue<'_>| match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().next().is_some_and(|first| matches!(first.get_ref(), DeValue::Table(_))),
        _ => false,
    };
    match unknown.iter().find(|(.., value)| !is_table(value.get_ref())) {
        Some((start, key, _)) => {
            let known = KNOWN.map(|known| format!("`{known}`")).join(", ");
            let problem = format!("unknown field `{}`, expected one of {known}", Shown::text(key));
            Err(ConfigError { line: line_of(text, *start), key: key.to_string(), problem })
        }
        None => Ok(unknown.into_iter().map(|(_, key, _)| key.to_string()).collect()),
    }
}

/// The file as it is spelled, but for unknown tables.
#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "absolute")]
    root: Option<PathBuf>,
    #[serde(default, deserialize_with = "absolute")]
    bin_dir: Option<PathBuf>,
    #[serde(default)]
    import: RawImport,
    #[serde(default)]
    retention: RawRetention,
    #[serde(default)]
    notify: RawNotify,
    supervisor: Option<Supervisor>,
    #[serde(default)]
    service: Vec<toml::Spanned<Service>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawImport {
    #[serde(default, deserialize_with = "patterns")]
    private: PathPatterns,
    #[serde(default, deserialize_with = "patterns")]
    shared: PathPatterns,
    #[serde(default, deserialize_with = "size")]
    min_free: Option<u64>,
    #[serde(default)]
    limits: Limits,
}

/// The rules of [`Policy`] that make sense for a timer, by the names of their flags. How much to free is a question of
/// the moment and has no place in a file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawRetention {
    keep_last: Option<u32>,
    #[serde(default, deserialize_with = "optional_duration")]
    keep_within: Option<Duration>,
    keep_daily: Option<u32>,
    keep_weekly: Option<u32>,
    keep_monthly: Option<u32>,
    keep_minor: Option<u32>,
    #[serde(default, deserialize_with = "labels")]
    keep_label: Vec<(String, String)>,
}

impl From<RawRetention> for Policy {
    fn from(raw: RawRetention) -> Self {
        Self {
            keep_last: raw.keep_last,
            keep_within: raw.keep_within,
            keep_daily: raw.keep_daily,
            keep_weekly: raw.keep_weekly,
            keep_monthly: raw.keep_monthly,
            keep_minor: raw.keep_minor,
            keep_labels: raw.keep_label,
            free: None,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawNotify {
    #[serde(deserialize_with = "command")]
    command: Vec<String>,
    #[serde(default)]
    on: Occasions,
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::from(String::deserialize(deserializer)?);
    if !path.is_absolute() {
        return Err(serde::de::Error::custom(format!("{} is not an absolute path", Shown::path(&path))));
    }
    Ok(Some(path))
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathPatterns, D::Error> {
    PathPatterns::new(&Vec::<String>::deserialize(deserializer)?).map_err(|(_, error)| serde::de::Error::custom(error))
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parse_size(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| label::parse(text).map_err(serde::de::Error::custom)).collect()
}

/// A command with its arguments, run without a shell.
fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let command = Vec::<String>::deserialize(deserializer)?;
    if command.first().is_none_or(String::is_empty) {
        return Err(serde::de::Error::custom("a command needs at least the name of a program"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(serde::de::Error::custom("a command cannot hold a NUL"));
    }
    Ok(command)
}

fn located(text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    // The parser quotes what it was given, and its own sentences may have several lines.
    let problem = error.message().trim().replace('\n', ", ");
    let problem =
        problem.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect();
    ConfigError { line: line_of(text, at), key: key_at(text, at), problem }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

/// The key at whose name or value this offset lies: the last that begins before it. Empty if the text is no TOML, since
/// there the last key that could be read may have nothing to do with the mistake.
fn key_at(text: &str, at: usize) -> String {
    let Ok(root) = toml::de::DeTable::parse(text) else { return String::new() };
    let mut begun = Vec::new();
    let mut open: Vec<(String, &toml::de::DeTable<'_>)> = vec![(String::new(), root.get_ref())];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            begun.push((name.span().start.min(value.span().start), key.clone()));
            match value.get_ref() {
                toml::de::DeValue::Table(inner) => open.push((key, inner)),
                toml::de::DeValue::Array(items) => {
                    for (position, item) in items.iter().enumerate() {
                        if let toml::de::DeValue::Table(inner) = item.get_ref() {
                            let key = format!("{key}[{}]", position + 1);
                            begun.push((item.span().start, key.clone()));
                            open.push((key, inner));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let innermost = begun.into_iter().filter(|(start, _)| *start <= at).max_by_key(|(start, key)| (*start, key.len()));
    innermost.map(|(_, key)| key).unwrap_or_default()
}

#[cfg(test)]
mod tests;
