//! Entries of trees and events of the history, as lines and as JSON.

use serde::Serialize;
use tope_store::error::Shown;
use tope_store::model::actor::{Actor, Claimed};
use tope_store::model::event::Event;
use tope_store::model::{Metadata, Node};

use super::json::hex;

/// Hexadecimal digits of a content or tree that are enough for people.
const SHORT_CONTENT: usize = 12;

/// What an entry is, in a document.
#[derive(Debug, Serialize)]
pub struct EntryFields {
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<AttributeFields>,
}

#[derive(Debug, Serialize)]
struct AttributeFields {
    name: String,
    value_bytes: String,
}

impl EntryFields {
    /// The fields for an entry.
    pub fn of(metadata: &Metadata, node: &Node) -> Self {
        let target = match node {
            Node::Symlink { target } => Some(target),
            _ => None,
        };
        let attribute = |(name, value): (&[u8], &[u8])| AttributeFields {
            name: String::from_utf8_lossy(name).into_owned(),
            value_bytes: hex(value),
        };
        Self {
            kind: kind(node),
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: size(node),
            content: match node {
                Node::File { content, .. } => Some(content.to_hex()),
                _ => None,
            },
            tree: match node {
                Node::Directory { tree } => Some(tree.to_hex()),
                _ => None,
            },
            target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
            target_bytes: target.filter(|target| std::str::from_utf8(target).is_err()).map(|target| hex(target)),
            xattrs: metadata.xattrs.iter().map(attribute).collect(),
        }
    }
}

/// What kind of entry it is, in a word.
fn kind(node: &Node) -> &'static str {
    match node {
        Node::File { .. } => "file",
        Node::Directory { .. } => "directory",
        Node::Symlink { .. } => "symlink",
    }
}

/// A file's size.
fn size(node: &Node) -> Option<u64> {
    match node {
        Node::File { size, .. } => Some(*size),
        _ => None,
    }
}

/// Kind and mode as `ls -l` prints them.
pub fn mode(metadata: &Metadata, node: &Node) -> String {
    let mode = metadata.mode;
    let mut text = String::from(node.letter());
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    if !metadata.xattrs.is_empty() {
        text.push('+');
    }
    text
}

/// A file's size in bytes; nothing for what has none.
pub fn size_cell(node: &Node) -> String {
    size(node).map(|size| size.to_string()).unwrap_or_default()
}

/// The first digits of a file's content or of a directory's tree: equal ones are the same bytes, or hold the same.
pub fn content_cell(node: &Node) -> String {
    let hex = match node {
        Node::File { content, .. } => content.to_hex(),
        Node::Directory { tree } => tree.to_hex(),
        Node::Symlink { .. } => String::new(),
    };
    hex.chars().take(SHORT_CONTENT).collect()
}

/// A path, and where it points if it is a symbolic link.
pub fn path_cell(path: impl std::fmt::Display, node: &Node) -> String {
    match node {
        Node::Symlink { target } => format!("{path} -> {}", Shown::bytes(target)),
        _ => path.to_string(),
    }
}

/// Text that somebody wrote, in one line; empty if there is none.
pub fn first_line(text: &str) -> String {
    match text.trim().lines().next() {
        None | Some("") => String::new(),
        Some(line) => Shown::text(line).to_string(),
    }
}

/// An event, in a document.
#[derive(Debug, Serialize)]
pub struct EventFields<'a> {
    seq: u64,
    time: String,
    synchronised: bool,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(flatten)]
    who: WhoFields<'a>,
}

/// Who did it, in a document.
#[derive(Debug, Serialize)]
pub struct WhoFields<'a> {
    uid: u32,
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<ClaimedFields<'a>>,
}

#[derive(Debug, Serialize)]
struct ClaimedFields<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sudo_user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo_uid: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
}

impl<'a> WhoFields<'a> {
    /// The fields for an actor.
    pub fn of(Actor { uid, name, unit, claimed, .. }: &'a Actor) -> Self {
        let fields =
            |Claimed { sudo_user, sudo_uid, user }: &'a Claimed| ClaimedFields { sudo_user, sudo_uid: *sudo_uid, user };
        Self { uid: *uid, user: name, unit, claimed: Some(claimed).filter(|claimed| !claimed.is_empty()).map(fields) }
    }
}

/// Who did it, in words: "root in tope-store-gc.service (claimed: SUDO_USER=ada SUDO_UID=1000)". A user without a name has
/// a number.
pub fn by(who: &Actor) -> String {
    let mut text = match who.name.as_str() {
        "" => format!("uid {}", who.uid),
        name => Shown::text(name).to_string(),
    };
    if !who.unit.is_empty() {
        text.push_str(&format!(" in {}", Shown::text(&who.unit)));
    }
    let Claimed { sudo_user, sudo_uid, user } = &who.claimed;
    let named = [("SUDO_USER", sudo_user), ("USER", user)].into_iter().filter(|(_, value)| !value.is_empty());
    let mut claims: Vec<String> = named.map(|(name, value)| format!("{name}={}", Shown::text(value))).collect();
    claims.extend(sudo_uid.map(|uid| format!("SUDO_UID={uid}")));
    match claims.is_empty() {
        true => text,
        false => format!("{text} (claimed: {})", claims.join(" ")),
    }
}

impl<'a> EventFields<'a> {
    /// The fields for an event about a version that is known already.
    pub fn of(event: &'a Event) -> Self {
        Self {
            seq: event.seq,
            time: super::human::rfc3339(event.time),
            synchronised: event.synchronised,
            action: event.action.name(),
            from: event.from.as_ref().map(tope_store::model::VersionName::as_str),
            role: event.role.map(tope_store::model::Role::as_str),
            outcome: Some(&*event.outcome).filter(|outcome| !outcome.is_empty()),
            reason: event.reason.as_deref(),
            text: event.text.as_deref(),
            who: WhoFields::of(&event.who),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tope_store::model::ContentId;

    #[test]
    fn modes_look_as_in_ls() {
        let file = Node::File { content: ContentId::empty(), size: 0 };
        let shown = |bits| mode(&Metadata::new(bits, 0, 0), &file);
        assert_eq!(shown(0o644), "-rw-r--r--");
        assert_eq!(shown(0o4755), "-rwsr-xr-x");
        assert_eq!(shown(0o7000), "---S--S--T");
        assert_eq!(shown(0o1777), "-rwxrwxrwt");
    }

    #[test]
    fn what_is_claimed_stands_apart_from_what_is_known_and_cannot_forge_it() {
        let mut who = Actor { uid: 12, pid: 3, ..Actor::default() };
        assert_eq!(by(&who), "uid 12");
        who.name = "root".into();
        who.unit = "tope-store-gc.service".into();
        assert_eq!(by(&who), "root in tope-store-gc.service");
        who.unit.clear();
        who.claimed = Claimed { sudo_user: "ada\n7".into(), sudo_uid: Some(1000), user: "\u{1b}[2J".into() };
        assert_eq!(by(&who), "root (claimed: SUDO_USER=ada\\n7 USER=\\u{1b}[2J SUDO_UID=1000)");
    }
}
