//! Names of units (`systemd.unit(5)`): `prefix.type`, or `prefix@instance.type` of the template `prefix@.type`.

use serde::{Deserialize, Deserializer};

use crate::error::Shown;

/// The types of units.
const TYPES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];
/// The type of a unit that says none (`systemctl(1)`).
const DEFAULT_TYPE: &str = "service";
/// Longest name, in bytes.
const MOST_BYTES: usize = 255;

/// A unit's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitName<'a> {
    /// What comes before the instance and the type.
    pub prefix: &'a str,
    /// The instance of a template; empty in the name of the template itself.
    pub instance: Option<&'a str>,
    /// The type, if it says one.
    pub kind: Option<&'a str>,
}

impl<'a> UnitName<'a> {
    /// Takes a name apart.
    pub fn of(unit: &'a str) -> Self {
        let (stem, kind) = match unit.rsplit_once('.') {
            Some((stem, kind)) if TYPES.contains(&kind) => (stem, Some(kind)),
            _ => (unit, None),
        };
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance)),
            None => (stem, None),
        };
        Self { prefix, instance, kind }
    }

    /// Whether a directory or file of this name can hold a part of a unit's definition: `a.service`, `a.service.d`,
    /// `service.d`.
    pub fn defines(name: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        let drop_ins = name.strip_suffix(".d");
        drop_ins.is_some_and(|name| TYPES.contains(&name)) || UnitName::of(drop_ins.unwrap_or(name)).kind.is_some()
    }

    /// The name that systemd has for this one.
    pub fn in_full(self) -> String {
        let Self { prefix, instance, kind } = self;
        let instance = instance.map(|instance| format!("@{instance}")).unwrap_or_default();
        format!("{prefix}{instance}.{}", kind.unwrap_or(DEFAULT_TYPE))
    }

    /// The files that can define the unit: its own, and that of its template.
    pub fn files(self) -> Vec<String> {
        let template = self.instance.is_some().then(|| Self { instance: Some(""), ..self }.in_full());
        std::iter::once(self.in_full()).chain(template).collect()
    }

    /// The directories whose files are taken in beside those: for `a-b@c.service` that are `a-b@c.service.d`,
    /// `a-b@.service.d`, `a-@c.service.d`, `a-@.service.d` and `service.d`.
    pub fn drop_in_directories(self) -> Vec<String> {
        let dashes = self.prefix.match_indices('-').map(|(at, _)| &self.prefix[..=at]);
        let prefixes = dashes.filter(|part| *part != self.prefix).chain([self.prefix]);
        let units = prefixes.flat_map(|prefix| Self { prefix, ..self }.files());
        units.chain([self.kind.unwrap_or(DEFAULT_TYPE).to_owned()]).map(|unit| unit + ".d").collect()
    }
}

/// Reads the name of a unit that can run, and that no program could take for an option.
pub(super) fn unit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let unit = String::deserialize(deserializer)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@');
    let refused = |why: &str| Err(serde::de::Error::custom(format!("{} {why}", Shown::text(&unit))));
    let UnitName { prefix, instance, .. } = UnitName::of(&unit);
    if prefix.is_empty() || prefix.starts_with(['-', '.']) || unit.len() > MOST_BYTES || !unit.bytes().all(allowed) {
        return refused("cannot be the name of a unit");
    }
    if instance == Some("") {
        return refused("is a template, which never runs itself: name its instance, as in worker@1.service");
    }
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_as_systemd_does() {
        for (unit, prefix, instance, kind, in_full) in [
            ("device-api.service", "device-api", None, Some("service"), "device-api.service"),
            ("worker@3.service", "worker", Some("3"), Some("service"), "worker@3.service"),
            ("worker@a.b", "worker", Some("a.b"), None, "worker@a.b.service"),
            ("worker@x@y.timer", "worker", Some("x@y"), Some("timer"), "worker@x@y.timer"),
            ("worker@.service", "worker", Some(""), Some("service"), "worker@.service"),
            ("plain", "plain", None, None, "plain.service"),
            ("a.b.service", "a.b", None, Some("service"), "a.b.service"),
            ("a.b", "a.b", None, None, "a.b.service"),
        ] {
            let name = UnitName::of(unit);
            assert_eq!(name, UnitName { prefix, instance, kind }, "{unit}");
            assert_eq!(name.in_full(), in_full, "{unit}");
        }
    }

    #[test]
    fn what_defines_a_unit_is_named_as_systemd_looks_for_it() {
        let of = |unit| (UnitName::of(unit).files(), UnitName::of(unit).drop_in_directories());
        let (files, directories) = of("a-b-c@1.service");
        assert_eq!(files, ["a-b-c@1.service", "a-b-c@.service"]);
        let expected = [
            "a-@1.service.d",
            "a-@.service.d",
            "a-b-@1.service.d",
            "a-b-@.service.d",
            "a-b-c@1.service.d",
            "a-b-c@.service.d",
            "service.d",
        ];
        assert_eq!(directories, expected);
        assert_eq!(of("a-"), (vec!["a-.service".to_owned()], vec!["a-.service.d".to_owned(), "service.d".to_owned()]));
        assert_eq!(of("x.timer").1, ["x.timer.d", "timer.d"]);
    }

    #[test]
    fn what_can_define_some_unit_is_known_by_its_name() {
        for name in ["a.service", "a@.socket", "a.b.timer", "a.service.d", "service.d", "a-.mount.d"] {
            assert!(UnitName::defines(name.as_bytes()), "{name}");
        }
        for name in
            [b"service".as_slice(), b"a.conf", b"init.d", b"a.services", b"a.service.wants", b"\xff.service", b""]
        {
            assert!(!UnitName::defines(name), "{}", name.escape_ascii());
        }
    }
}
