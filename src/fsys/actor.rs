//! This process as the author of an event.
//!
//! User and unit are what the kernel says; nothing of them is taken from the environment. The user's name comes from the
//! password file itself: a static program has no other way, and one that waits for a directory server must not hold up a
//! rollback. A user that only such a server knows has a number.

use std::io::{BufRead, BufReader, Read};

use super::{process, system};
use crate::model::actor::{Actor, Claimed, bounded};

/// The password file.
const ACCOUNTS: &str = "/etc/passwd";
/// How much of it is read: some ten thousand accounts.
const MOST_BYTES: u64 = 4 << 20;

/// This process, and beside it what its environment claims, as the caller read it.
pub fn actor(claimed: &Claimed) -> Actor {
    let uid = system::effective_uid();
    let accounts = std::fs::File::open(ACCOUNTS);
    let name = accounts.ok().and_then(|accounts| account_in(BufReader::new(accounts.take(MOST_BYTES)), uid));
    let name = name.unwrap_or_default();
    let unit = process::unit_of(std::process::id().cast_signed()).filter(|unit| unit.ends_with(".service"));
    let mut claimed = claimed.bounded();
    if claimed.user == name {
        claimed.user.clear();
    }
    Actor { uid, name, pid: std::process::id(), unit: bounded(&unit.unwrap_or_default()), claimed }
}

/// The first account with this user id, by passwd(5): `name:password:uid:…`.
fn account_in(accounts: impl BufRead, uid: u32) -> Option<String> {
    for line in accounts.split(b'\n') {
        let line = line.ok()?;
        let mut fields = line.split(|byte| *byte == b':');
        let (name, number) = (fields.next()?, fields.nth(1));
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok());
        if number == Some(uid) && !name.is_empty() {
            return Some(bounded(&String::from_utf8_lossy(name)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_account_of_a_user_gives_its_name() {
        let accounts = b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\n# remark\n+::::::\nno-number:x::0\n\
                         short:x\n:x:7:7\nada:x:1000:1000::/home/ada:/bin/sh\nb\xffd:x:8:8";
        let name = |uid| account_in(&accounts[..], uid);
        assert_eq!(name(0).as_deref(), Some("root"));
        assert_eq!(name(1000).as_deref(), Some("ada"));
        assert_eq!(name(8).as_deref(), Some("b\u{fffd}d"), "without a newline at the end");
        assert_eq!((name(7), name(1), name(10)), (None, None, None));
    }

    #[test]
    fn the_environment_decides_nothing_of_who_it_was() {
        let claimed = Claimed { user: "eve".into(), sudo_uid: Some(4711), ..Claimed::default() };
        let actor = actor(&claimed);
        assert_eq!((actor.uid, actor.pid), (system::effective_uid(), std::process::id()));
        assert_ne!(actor.name, "eve");
        assert_eq!(actor.claimed, claimed);
        let same = super::actor(&Claimed { user: actor.name.clone(), ..Claimed::default() });
        assert!(same.claimed.is_empty(), "what is known is not claimed");
    }
}
