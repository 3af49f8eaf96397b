//! What can be taken of a configuration that is refused, for what must work all the same: going back and looking.
//!
//! A store in another place must not be forgotten because of a mistake in another line. So `root`, `bin_dir`,
//! `supervisor`, `notify` and each `service` are taken by themselves, and of a table as many keys as fit together. Where the
//! text is no TOML, it is cut at its table headers and each part read by itself; where even the top does not parse, a line
//! that says `root = "…"` is still believed. What is not taken is said.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::Value;

use super::{Config, RawNotify, Service, Supervisor, UnitName};
use crate::error::Shown;

/// What could be taken, and what could not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Root, supervisor, notices and services as far as they could be read; nothing else.
    pub config: Config,
    /// What was not taken, each as a sentence without its end.
    pub lost: Vec<String>,
}

/// Takes what can be taken. Never fails: of bytes that say nothing, nothing is taken.
pub fn salvage(bytes: &[u8]) -> Salvaged {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Found::default();
    match text.parse::<toml::Table>() {
        Ok(table) => found.take_all(table, ""),
        Err(_) => {
            for (at, (line, part)) in parts(&text).into_iter().enumerate() {
                match part.parse::<toml::Table>() {
                    Ok(table) => found.take_all(table, &format!(" of line {line}")),
                    Err(_) if at == 0 => found.scan(part),
                    Err(error) => {
                        let header = part.lines().next().unwrap_or_default().trim();
                        let why = error.message().trim().replace('\n', ", ");
                        found.lose(&format!("{} of line {line}", Shown::text(header)), &why);
                    }
                }
            }
        }
    }
    found.finish()
}

#[derive(Default)]
struct Found {
    roots: Vec<PathBuf>,
    bin_dir: Option<PathBuf>,
    supervisor: Option<Supervisor>,
    notify: Option<RawNotify>,
    services: Vec<Service>,
    lost: Vec<String>,
}

impl Found {
    fn lose(&mut self, what: &str, why: &str) {
        self.lost.push(format!("{what} is not used: {}", Shown::text(why)));
    }

    fn take_all(&mut self, table: toml::Table, place: &str) {
        for (key, value) in table {
            let what = format!("{}{place}", Shown::text(&key));
            match (key.as_str(), value) {
                ("root", value) => match path(&value) {
                    Ok(path) => self.roots.push(path),
                    Err(why) => self.lose(&what, &why),
                },
                ("bin_dir", value) => match path(&value) {
                    Ok(path) => self.bin_dir = Some(path),
                    Err(why) => self.lose(&what, &why),
                },
                ("supervisor", value) => {
                    let all = ["kind", "start", "stop", "restart", "status"];
                    if let Some(supervisor) = self.part::<Supervisor>(&what, value, &all) {
                        self.supervisor = self.supervisor.take().or(Some(supervisor));
                    }
                }
                ("notify", value) => {
                    if let Some(notify) = self.part::<RawNotify>(&what, value, &["command"]) {
                        self.notify = self.notify.take().or(Some(notify));
                    }
                }
                ("service", Value::Array(services)) => {
                    for (at, service) in services.into_iter().enumerate() {
                        let what = format!("service[{}]{place}", at + 1);
                        let service = self.part::<Service>(&what, service, &["unit"]);
                        self.services.extend(service);
                    }
                }
                ("service", _) => self.lose(&what, "it is no [[service]]"),
                // Neither going back nor looking asks for it.
                _ => {}
            }
        }
    }

    /// Reads one table. If it is refused as it is, it is read with its `needed` keys alone, and each other key that it
    /// bears is added.
    fn part<T: DeserializeOwned>(&mut self, what: &str, value: Value, needed: &[&str]) -> Option<T> {
        let refused = match value.clone().try_into::<T>() {
            Ok(_) if is_garbled(&value) => "it is not UTF-8".to_owned(),
            Ok(part) => return Some(part),
            Err(error) => error.message().trim().replace('\n', ", "),
        };
        let Value::Table(table) = value else {
            self.lose(what, &refused);
            return None;
        };
        let (mut taken, mut left): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, value)| needed.contains(&key.as_str()) && !is_garbled(value));
        let read = |table: &toml::Table| Value::Table(table.clone()).try_into::<T>();
        let Ok(mut part) = read(&taken) else {
            self.lose(what, &refused);
            return None;
        };
        // Two keys may only fit together, such as a long settling within a longer timeout.
        loop {
            let before = left.len();
            for (key, value) in std::mem::take(&mut left) {
                let _ = taken.insert(key.clone(), value.clone());
                match read(&taken) {
                    Ok(more) if !is_garbled(&value) => part = more,
                    _ => {
                        taken.remove(&key);
                        left.insert(key, value);
                    }
                }
            }
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        for key in left.keys() {
            self.lose(&format!("{what}.{}", Shown::text(key)), &refused);
        }
        Some(part)
    }

    /// Believes lines of a top that does not parse, as far as they are of themselves what they should be.
    fn scan(&mut self, top: &str) {
        for line in top.lines() {
            let is_root = line.trim_start().strip_prefix("root").is_some_and(|rest| rest.trim_start().starts_with('='));
            match line.parse::<toml::Table>() {
                Ok(table) if is_root => self.take_all(table, ""),
                Err(error) if is_root => self.lose("root", error.message()),
                _ => {}
            }
        }
    }

    fn finish(mut self) -> Salvaged {
        let mut roots = std::mem::take(&mut self.roots);
        roots.dedup();
        if roots.len() > 1 {
            let both: Vec<String> = roots.iter().map(|root| Shown::path(root).to_string()).collect();
            self.lose("root", &format!("it is said more than once ({})", both.join(", ")));
            roots.clear();
        }
        let supervisor = self.supervisor.take().unwrap_or_default();
        let mut services: Vec<Service> = Vec::new();
        for mut service in std::mem::take(&mut self.services) {
            if supervisor == Supervisor::Systemd {
                service.unit = UnitName::of(&service.unit).in_full();
            }
            match services.iter().any(|other| other.unit == service.unit) {
                true => self.lose(&format!("one service {}", service.unit), "it is configured twice"),
                false => services.push(service),
            }
        }
        let notify = self.notify.take().unwrap_or_default();
        let config = Config {
            root: roots.pop(),
            bin_dir: self.bin_dir.take(),
            supervisor,
            notify: notify.command,
            notify_on: notify.on,
            services,
            ..Config::default()
        };
        Salvaged { config, lost: self.lost }
    }
}

/// Whether text in a value was not UTF-8: what stands there is not what was meant.
fn is_garbled(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(char::REPLACEMENT_CHARACTER),
        Value::Array(values) => values.iter().any(is_garbled),
        Value::Table(table) => table.values().any(is_garbled),
        _ => false,
    }
}

fn path(value: &Value) -> Result<PathBuf, String> {
    match value {
        value if is_garbled(value) => Err("it is not UTF-8".to_owned()),
        Value::String(text) if text.starts_with('/') => Ok(PathBuf::from(text)),
        Value::String(text) => Err(format!("{text} is not an absolute path")),
        _ => Err("it is no text".to_owned()),
    }
}

/// The text cut at table headers, each part with the number of its first line. A table below another (`[service.http]`)
/// stays with it.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut begin, mut first_line, mut open) = (Vec::new(), 0, 1, String::new());
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Some(header) = header(line) {
            let below = header.strip_prefix(open.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if open.is_empty() || !below {
                parts.push((first_line, &text[begin..at]));
                (begin, first_line) = (at, number + 1);
                open = header.to_owned();
            }
        }
        at += line.len();
    }
    parts.push((first_line, &text[begin..]));
    parts
}

/// The name in a line that is the header of a table, or of one of several.
fn header(line: &str) -> Option<&str> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let inner = line.strip_prefix('[')?.strip_suffix(']')?;
    let name = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner).trim();
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(is_bare)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &[u8]) -> Option<String> {
        salvage(text).config.root.map(|root| root.display().to_string())
    }

    const DEVICE: &str = "root = \"/data/tope\"\n[supervisor]\nkind = \"command\"\nstart = [\"rc\", \"{unit}\", \"start\"]\n\
        stop = [\"rc\", \"{unit}\", \"stop\"]\nrestart = [\"rc\", \"{unit}\", \"restart\"]\nstatus = [\"rc\", \"{unit}\", \"status\"]\n\
        [notify]\ncommand = [\"tell\"]\n[[service]]\nunit = \"api\"\nsettle = \"40s\"\ntimeout = \"60s\"\n[service.http]\n\
        url = \"http://127.0.0.1/\"\n[[service]]\nunit = \"web\"\n";

    #[test]
    fn one_mistake_costs_nothing_else() {
        let whole = Config::parse(DEVICE).unwrap();
        let beside = [
            ("roott = 1\n".to_owned() + DEVICE, 0),
            (DEVICE.replace("[notify]\n", "[notify]\nurl = 1\n"), 1),
            (DEVICE.replace("[notify]\n", "[notify]\non = [\"tea\"]\n"), 1),
            (DEVICE.replace("kind = \"command\"\n", "kind = \"command\"\nbus = 1\n"), 1),
            (DEVICE.to_owned() + "htpp = \"\"\n", 1),
            (DEVICE.to_owned() + "[[service]]\nunit = \"a/b\"\n", 1),
            (DEVICE.to_owned() + "[[service]]\nunit = \"api\"\n", 1),
            (DEVICE.to_owned() + "[import]\nmin_free = 3\n", 0),
            // No TOML any longer.
            (DEVICE.to_owned() + "[import]\nprivate = [\n", 1),
            (DEVICE.to_owned() + "[import\n", 0),
            (DEVICE.replace("[notify]", "[retention]\nkeep_last = = 3\n[notify]"), 1),
            ("bin_dir = \n".to_owned() + DEVICE, 0),
        ];
        for (text, lost) in beside {
            assert!(Config::parse(&text).is_err(), "{text}");
            let salvaged = salvage(text.as_bytes());
            let Config { root, supervisor, notify, services, .. } = salvaged.config;
            assert_eq!((&root, &supervisor, &notify), (&whole.root, &whole.supervisor, &whole.notify), "{text}");
            let complete = !text.ends_with("[import\n");
            assert_eq!(services.len(), if complete { 2 } else { 1 }, "{text}");
            assert_eq!(services[0], whole.services[0], "{text}");
            if complete {
                assert_eq!(salvaged.lost.len(), lost, "{text}: {:?}", salvaged.lost);
            }
        }
    }

    #[test]
    fn a_service_keeps_its_unit_and_what_else_is_right() {
        let text = DEVICE.replace("settle = \"40s\"", "settle = \"soon\"\nhttp_ = 3");
        let salvaged = salvage(text.as_bytes());
        let api = &salvaged.config.services[0];
        assert_eq!((api.unit.as_str(), api.timeout.as_secs(), api.http.is_some()), ("api", 60, true));
        assert_eq!(salvaged.lost.len(), 2, "{:?}", salvaged.lost);
        assert!(salvaged.lost.iter().all(|lost| lost.starts_with("service[1].")), "{:?}", salvaged.lost);
    }

    #[test]
    fn a_root_that_can_be_read_is_read() {
        for text in [
            &b"root = \"/x\"\nroott = 1"[..],
            b"  root='/x' # here\nnonsense",
            b"\xff\xfe\nroot = \"/x\"\n\xff",
            b"root = \"/x\"\n# gr\xfcn\n[notify]\ncommand = [\"x\"]",
            b"a = \nroot = \"/x\"\n[b",
            b"root = \"/x\"\nroot = \"/x\"\n",
            b"root = \"/x\"\r\nwhat is this\r\n",
        ] {
            assert_eq!(root(text).as_deref(), Some("/x"), "{}", text.escape_ascii());
        }
        for text in [
            &b""[..],
            b"root = \"x\"\nroott = 1",
            b"root = 5\nroott = 1",
            b"root = \"/x\nroott = 1",
            b"root = \"/\xff\"\nroott = 1",
            b"root = \"/x\"\nroot = \"/y\"\n",
            b"roots = \"/x\"\n=",
            b"# root = \"/x\"\n=",
            b"[import]\nroot = \"/x\"\n=",
            b"\xff",
        ] {
            assert_eq!(root(text), None, "{}", text.escape_ascii());
        }
    }
}
