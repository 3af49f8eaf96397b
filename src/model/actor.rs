//! Who did something: what the kernel says of the process, and beside it what its environment claims.

use serde::{Deserialize, Serialize};

/// Characters of a name that are kept; names of accounts and units are shorter.
pub const LONGEST_NAME: usize = 128;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Actor {
    /// Effective user id.
    pub uid: u32,
    /// The name of that user in the password file; empty if it has none there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// The service of systemd that the process belongs to by its control group; empty if it belongs to none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// What the environment of the process claims.
    #[serde(default, skip_serializing_if = "Claimed::is_empty")]
    pub claimed: Claimed,
}

/// What the environment says of who is behind a process. Whoever starts the process can write anything there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claimed {
    /// `SUDO_USER`: who called sudo.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sudo_user: String,
    /// `SUDO_UID`: that user's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_uid: Option<u32>,
    /// `USER`, else `LOGNAME`; empty if it is the name in the password file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
}

impl Claimed {
    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same in a length that a line of the history can bear.
    #[must_use]
    pub fn bounded(&self) -> Self {
        Self { sudo_user: bounded(&self.sudo_user), user: bounded(&self.user), ..self.clone() }
    }
}

/// A name cut to a length that a line of the history can bear.
pub fn bounded(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_cut_and_kept_apart() {
        let long = "ü".repeat(LONGEST_NAME + 1);
        let claimed = Claimed { sudo_user: long.clone(), sudo_uid: Some(7), user: "eve\n".into() }.bounded();
        assert_eq!(claimed.sudo_user.chars().count(), LONGEST_NAME + 1);
        assert!(claimed.sudo_user.ends_with('…') && claimed.user == "eve\n");
        let actor = Actor { uid: 0, pid: 1, claimed, ..Actor::default() };
        let json = serde_json::to_string(&actor).unwrap();
        assert!(json.starts_with(r#"{"uid":0,"pid":1,"claimed":{"sudo_user":"ü"#), "{json}");
        assert!(json.ends_with(r#"…","sudo_uid":7,"user":"eve\n"}}"#), "{json}");
        assert_eq!(serde_json::from_str::<Actor>(&json).unwrap(), actor);
        assert_eq!(serde_json::to_string(&Actor::default()).unwrap(), r#"{"uid":0,"pid":0}"#);
    }
}
