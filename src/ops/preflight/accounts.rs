//! Users and groups that units name.

use std::path::Path;
use std::time::Duration;

use crate::fsys::child::{End, Run};
use crate::store::Store;

/// How long the other sources of users may take to answer.
const LIMIT: Duration = Duration::from_secs(3);
/// The exit code of `getent` for a name that is not there (`getent(1)`).
const NOT_FOUND: i32 = 2;

/// Whether an account of this name is certainly not there. The file is read first; a name that it does not have may come
/// from elsewhere (LDAP, systemd), which `getent` asks. Where there is no `getent`, it is not known.
pub(super) fn is_missing(store: &Store, setting: &str, name: &str) -> bool {
    let database = if setting == "User" { "passwd" } else { "group" };
    let file = Path::new("/etc").join(database);
    let Ok(Some(text)) = store.layout().try_read(&file) else { return false };
    !has(&text, name) && getent_knows_none(database, name)
}

/// Whether a file of accounts has a line for this name.
fn has(text: &[u8], name: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.split(|byte| *byte == b':').next() == Some(name.as_bytes()))
}

fn getent_knows_none(database: &str, name: &str) -> bool {
    let command = ["getent", "--", database, name].map(str::to_owned);
    let ran = Run { command: &command, input: b"", environment: &[], limit: LIMIT, keep_on: &|| true }.wait();
    ran.is_ok_and(|ran| ran.end == End::Exited(NOT_FOUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_line_of_its_own() {
        let text = b"root:x:0:0::/root:/bin/sh\ntope:x:900:900::/:/bin/false\n";
        assert!(has(text, "tope") && has(text, "root"));
        for name in ["top", "topex", "x", "900", "toor"] {
            assert!(!has(text, name), "{name}");
        }
    }
}
