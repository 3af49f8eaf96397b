//! The history: chained lines, folded into what versions should be there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::Seen;
use super::decode::hex;

/// What the history knows of a version that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub import_number: u64,
    pub digest: String,
    /// The hash of its manifest, where it was recorded.
    pub manifest: Option<String>,
}

/// The fold of all events.
#[derive(Debug, Default)]
pub struct Past {
    pub versions: BTreeMap<String, Known>,
    /// Number of the last event.
    pub last: u64,
    /// Objects that were found damaged, and neither made again nor swept since.
    pub revoked: BTreeSet<String>,
    /// Number of the last reset, before which everything that is missing was acknowledged.
    pub reset: u64,
    /// Chain values by number.
    pub chains: BTreeMap<u64, String>,
    /// Action and version of each, in order.
    pub events: Vec<(String, String)>,
}

pub fn read(store: &Path, seen: &mut Seen) {
    let mut segments: Vec<String> =
        super::names(store, seen).into_iter().filter(|name| name.starts_with("history.0")).collect();
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(store.join(name)).map(|metadata| metadata.ino()).unwrap_or(0)
    };
    if let Some(trace) = segments.iter().position(|name| inode(name) == inode("history")) {
        // The trace of an interrupted change of segments, which the next one goes on with.
        segments.truncate(trace);
    }
    segments.push("history".into());
    let mut chain = hex(&[0; 32]);
    let last = segments.len() - 1;
    for (number, name) in segments.iter().enumerate() {
        match std::fs::read(store.join(name)) {
            Ok(bytes) => chain = segment(&bytes, name, chain, number == last, seen),
            Err(error) => seen.wrong.push(format!("store/{name}: {error}")),
        }
    }
}

/// Whether the log has the event that something outside of it names; says it if not.
pub fn must_have(seen: &mut Seen, who: &str, number: u64, chain: &[u8; 32]) {
    if number == 0 || number < seen.past.reset {
        return;
    }
    match seen.past.chains.get(&number) {
        Some(known) if *known == hex(chain) => {}
        Some(_) => seen.wrong.push(format!("{who} names another event {number} than the history has")),
        None => seen.wrong.push(format!("{who} names event {number}, which the history does not have")),
    }
}

/// Reads the head, which may be behind; that it is missing is wrong.
pub fn head(store: &Path, seen: &mut Seen) {
    let wrong = |seen: &mut Seen, what: &str| seen.wrong.push(format!("store/head: {what}"));
    let block = match std::fs::read(store.join("head")) {
        Ok(block) => block,
        Err(error) => return wrong(seen, &error.to_string()),
    };
    if block.len() != 512 || block[..12] != *b"tope-hed\x01\0\0\0" {
        return wrong(seen, "it is no head of format 1");
    }
    if block[480..] != super::decode::keyed("head", &block[..480]) || block[52..480].iter().any(|byte| *byte != 0) {
        return wrong(seen, "its checksum is wrong");
    }
    let number = u64::from_le_bytes(block[12..20].try_into().expect("eight bytes"));
    must_have(seen, "store/head", number, block[20..52].try_into().expect("32 bytes"));
}

/// Reads one segment; gives its last chain value.
fn segment(bytes: &[u8], name: &str, mut chain: String, current: bool, seen: &mut Seen) -> String {
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let tail = end.map_or(&[][..], |end| &rest[end + 1..]);
        let torn = end.is_none() || line.contains(&0);
        if torn && current && tail.split(|byte| *byte == b'\n').all(|line| line.is_empty() || line.contains(&0)) {
            seen.torn = Some(format!("store/{name}: {} torn bytes at its end", rest.len()));
            break;
        }
        match event(line, &chain, number == 1) {
            Ok((value, event)) => {
                chain = value;
                seen.past.chains.insert(event["seq"].as_u64().unwrap_or(0), chain.clone());
                if let Err(problem) = seen.past.take(&event) {
                    seen.wrong.push(format!("store/{name}, line {number}: {problem}"));
                }
            }
            Err(problem) => {
                seen.wrong.push(format!("store/{name}, line {number}: {problem}"));
                break;
            }
        }
        rest = tail;
    }
    chain
}

/// Checks a line against the chain value before it; gives its own and the event.
fn event(line: &[u8], before: &str, first: bool) -> Result<(String, Value), String> {
    let (value, json) = line.split_at_checked(65).ok_or("it is too short")?;
    let event: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let own = event["chain_before"].as_str().map_or_else(|| hex(&[0; 32]), str::to_owned);
    if first && own != before && event["action"] != "history-reset" {
        return Err("it does not follow the segment before it".into());
    }
    let before = if first { own } else { before.to_owned() };
    let before: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&before[2 * at..2 * at + 2], 16).unwrap_or(0)).collect();
    let chain = hex(&super::decode::keyed("history", &[&before, json].concat()));
    if value != format!("{chain} ").as_bytes() {
        return Err("the chain is broken".into());
    }
    Ok((chain, event))
}

/// Whether every field that decides what an event does can be read.
pub(super) fn is_understood(event: &Value) -> bool {
    let digest = |text: &str| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.strip_prefix("t1:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
    };
    let name = |text: &str| {
        let mut bytes = text.bytes();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
        let reserved = ["current", "previous", "factory", "newest"];
        text.len() <= 100
            && bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
            && bytes.all(allowed)
            && !reserved.contains(&text)
    };
    let is = |field: &str, good: &dyn Fn(&Value) -> bool| event.get(field).is_none_or(good);
    let text = |field: &str, good: &dyn Fn(&str) -> bool| is(field, &|value| value.as_str().is_some_and(good));
    text("version", &name)
        && text("from", &name)
        && text("digest", &digest)
        && text("from_digest", &digest)
        && text("role", &|role| ["current", "previous", "factory"].contains(&role))
        && is("import_number", &Value::is_u64)
        && is("isolated", &Value::is_boolean)
        && is("manifest", &Value::is_string)
        && ["objects", "cleared", "decides"]
            .iter()
            .all(|field| is(field, &|list| list.as_array().is_some_and(|names| names.iter().all(Value::is_string))))
}

impl Past {
    fn take(&mut self, event: &Value) -> Result<(), String> {
        let seq = event["seq"].as_u64().unwrap_or(0);
        // Numbers that were lost are given to no other event.
        let begins = event["action"] == "history-reset" && seq > self.last;
        if begins {
            self.reset = seq;
        } else if seq != self.last + 1 {
            return Err(format!("event {seq} follows event {}", self.last));
        }
        self.last = seq;
        if !is_understood(event) {
            return Ok(());
        }
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let (action, version) = (text("action"), text("version"));
        let manifest = event["manifest"].as_str().map(str::to_owned);
        match action.as_str() {
            "history-reset" => {
                let marks = event["marks"]["versions"].as_object().cloned().unwrap_or_default();
                let known = |known: Value| Known {
                    import_number: known["import_number"].as_u64().unwrap_or(0),
                    digest: known["digest"].as_str().unwrap_or_default().to_owned(),
                    manifest: known["manifest"].as_str().map(str::to_owned),
                };
                self.versions = marks.into_iter().map(|(name, value)| (name, known(value))).collect();
            }
            "repair" if manifest.is_some() => {
                self.versions.entry(version.clone()).and_modify(|known| known.manifest = manifest);
            }
            "import" | "adopt" => {
                let import_number = event["import_number"].as_u64().unwrap_or(0);
                self.versions.insert(version.clone(), Known { import_number, digest: text("digest"), manifest });
            }
            "remove" | "removed-by-hand" => drop(self.versions.remove(&version)),
            _ => {}
        }
        let names = |field: &str| event[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        if action == "checkpoint" && event["marks"]["revoked"].as_array().map_or(0, Vec::len) != self.revoked.len() {
            return Err("the checkpoint has other revoked objects than the events before it".into());
        }
        for name in names("objects").filter(|_| action == "revoke") {
            if !self.revoked.insert(name.to_owned()) {
                return Err(format!("{name} was revoked before"));
            }
        }
        for name in names("cleared") {
            self.revoked.remove(name);
        }
        self.events.push((action, version));
        Ok(())
    }
}
