//! What a service is asked, to learn whether it does its work: addresses that must answer, commands that must succeed.

use std::fmt;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{command, duration};
use crate::error::Shown;

/// How long one attempt may take unless told otherwise.
pub const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// An address that must answer: with success, or as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// What is asked.
    pub address: HttpAddress,
    /// The status that it must answer with; any of 200 to 299 if there is none.
    pub status: Option<u16>,
    /// Text that must stand somewhere in the first 64 KiB of its answer's body.
    pub body: Option<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl HttpProbe {
    /// Asks this address for success.
    pub fn of(address: HttpAddress) -> Self {
        Self { address, status: None, body: None, timeout: DEFAULT_PROBE_TIMEOUT }
    }
}

/// A command that must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandProbe {
    /// The program and its arguments, run without a shell.
    pub command: Vec<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// An address to ask over plain HTTP: `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port, 80 unless told otherwise.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl HttpAddress {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a sentence that begins with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = Shown::text(text);
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!("{shown} does not begin with http:// (checks are made without encryption)"));
        };
        // It becomes part of a request's first line: nothing may end that line or begin a header.
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{shown} holds a space, a control character or a letter beyond ASCII"));
        }
        if rest.contains('#') {
            return Err(format!("{shown} has a fragment, which is never sent"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, port) = inner.split_once(']').unwrap_or(("", ""));
                host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{shown} has a wrong IPv6 address"))?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(name) {
            return Err(format!("{shown} has no host or one that is not allowed"));
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Some(80),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|port| *port > 0),
            _ => None,
        };
        let port = port.ok_or_else(|| format!("{shown} has a wrong port"))?;
        Ok(Self { host: host.to_owned(), port, path })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}{path}")
        } else {
            write!(f, "http://{host}:{port}{path}")
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    url: String,
    status: Option<u16>,
    body: Option<String>,
    #[serde(default = "default_timeout", deserialize_with = "timeout")]
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCommand {
    #[serde(deserialize_with = "command")]
    command: Vec<String>,
    #[serde(default = "default_timeout", deserialize_with = "timeout")]
    timeout: Duration,
}

fn default_timeout() -> Duration {
    DEFAULT_PROBE_TIMEOUT
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let timeout = duration(deserializer)?;
    if timeout.is_zero() {
        return Err(D::Error::custom("nothing answers in no time"));
    }
    Ok(timeout)
}

impl<'de> Deserialize<'de> for HttpProbe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = HttpProbe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a table with url, status, body, timeout")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HttpProbe, E> {
                HttpAddress::parse(text).map(HttpProbe::of).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HttpProbe, A::Error> {
                let RawHttp { url, status, body, timeout } = RawHttp::deserialize(MapAccessDeserializer::new(map))?;
                let address = HttpAddress::parse(&url).map_err(A::Error::custom)?;
                if let Some(status) = status.filter(|status| !(200..600).contains(status)) {
                    return Err(A::Error::custom(format!("{status} is not the status of an answer")));
                }
                Ok(HttpProbe { address, status, body, timeout })
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for CommandProbe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = CommandProbe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command with its arguments, or a table with command, timeout")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<CommandProbe, A::Error> {
                let command = command(SeqAccessDeserializer::new(words))?;
                Ok(CommandProbe { command, timeout: DEFAULT_PROBE_TIMEOUT })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CommandProbe, A::Error> {
                let RawCommand { command, timeout } = RawCommand::deserialize(MapAccessDeserializer::new(map))?;
                Ok(CommandProbe { command, timeout })
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
