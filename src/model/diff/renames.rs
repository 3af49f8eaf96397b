//! Exact renames: files that are gone from one path and there at another, with the same bytes.
//!
//! Files with equal content are paired by how much of the *end* of their paths is equal, in whole components: so the
//! same base name comes first, and of those the ones whose directories have the same names. Among equally good ones it
//! is the *beginning* that decides, byte by byte (`a-1.0/LICENSE` goes to `a-1.1/LICENSE`, not to `b-1.1/LICENSE`),
//! then the order of paths. Empty files are never paired: they are all alike.
//!
//! Both are found without comparing every path with every other: paths that share the most stand next to each other
//! when sorted, so one pass with a stack visits them like a prefix tree from its leaves to its root. The work is that of
//! sorting; files that find no partner at one branching are sorted again only at the next one where there is any.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{Change, ChangeKind, Differs};
use crate::model::id::ContentId;
use crate::model::name::TreePath;

/// Replaces pairs of removed and added files by renamed ones. The order of the result is not defined.
pub(super) fn pair(changes: Vec<Change>) -> Vec<Change> {
    let mut by_content: HashMap<ContentId, Open> = HashMap::new();
    for (at, change) in changes.iter().enumerate() {
        let (facts, removed) = match change.kind {
            ChangeKind::Removed => (&change.before, true),
            ChangeKind::Added => (&change.after, false),
            _ => continue,
        };
        let Some(facts) = facts.as_ref().filter(|facts| facts.size() > Some(0)) else { continue };
        let Some(content) = facts.content() else { continue };
        by_content.entry(content).or_default().side(removed).push(at);
    }
    let mut partner: HashMap<usize, usize> = HashMap::new();
    for open in by_content.into_values().filter(|open| !open.removed.is_empty() && !open.added.is_empty()) {
        pair_by_ends(&open, &changes, &mut |removed, added| {
            partner.insert(removed, added);
        });
    }
    let mut slots: Vec<Option<Change>> = changes.into_iter().map(Some).collect();
    for (removed, added) in partner {
        if let (Some(old), Some(new)) = (slots[removed].take(), slots[added].as_mut()) {
            new.kind = ChangeKind::Renamed;
            new.from_path = Some(old.path);
            new.before = old.before;
            if let (Some(before), Some(after)) = (&new.before, &new.after) {
                new.differs = Differs::between(before, after);
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Changes (by position) that have no partner yet.
#[derive(Debug, Default)]
struct Open {
    removed: Vec<usize>,
    added: Vec<usize>,
}

impl Open {
    fn side(&mut self, removed: bool) -> &mut Vec<usize> {
        if removed { &mut self.removed } else { &mut self.added }
    }

    fn append(&mut self, mut other: Self) {
        if self.removed.is_empty() && self.added.is_empty() {
            *self = other;
        } else {
            self.removed.append(&mut other.removed);
            self.added.append(&mut other.added);
        }
    }
}

/// Pairs files by the longest equal end of their paths.
fn pair_by_ends(open: &Open, changes: &[Change], found: &mut dyn FnMut(usize, usize)) {
    let order = |a: &TreePath, b: &TreePath| reversed(a).cmp(reversed(b));
    let shared = |a: &TreePath, b: &TreePath| reversed(a).zip(reversed(b)).take_while(|(a, b)| a == b).count();
    from_leaves_to_root(open, changes, &order, &shared, &mut |open| pair_by_beginnings(open, changes, found));
}

/// Pairs files by the longest equal beginning of their paths. Pairs as many as can be.
fn pair_by_beginnings(open: &mut Open, changes: &[Change], found: &mut dyn FnMut(usize, usize)) {
    if open.removed.is_empty() || open.added.is_empty() {
        return;
    }
    let shared = |a: &TreePath, b: &TreePath| a.as_bytes().iter().zip(b.as_bytes()).take_while(|(a, b)| a == b).count();
    *open = from_leaves_to_root(open, changes, &TreePath::cmp, &shared, &mut |open| {
        let pairs = open.removed.len().min(open.added.len());
        if pairs > 0 {
            open.removed.sort_unstable_by(|a, b| changes[*a].path.cmp(&changes[*b].path));
            open.added.sort_unstable_by(|a, b| changes[*a].path.cmp(&changes[*b].path));
            open.removed.drain(..pairs).zip(open.added.drain(..pairs)).for_each(|(a, b)| found(a, b));
        }
    });
}

fn reversed(path: &TreePath) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().rsplit(|b| *b == b'/')
}

/// Sorts by `order` and calls `visit` with the files of every node of the prefix tree that `shared` spans, leaves first;
/// what `visit` leaves goes on to the node above. Gives what is left at the root.
fn from_leaves_to_root(
    open: &Open,
    changes: &[Change],
    order: &dyn Fn(&TreePath, &TreePath) -> Ordering,
    shared: &dyn Fn(&TreePath, &TreePath) -> usize,
    visit: &mut dyn FnMut(&mut Open),
) -> Open {
    let mut files: Vec<(usize, bool)> =
        open.removed.iter().map(|at| (*at, true)).chain(open.added.iter().map(|at| (*at, false))).collect();
    files.sort_unstable_by(|a, b| order(&changes[a.0].path, &changes[b.0].path));
    // Nodes from the root down to the last file, each with how much all below it share.
    let mut nodes: Vec<(usize, Open)> = vec![(0, Open::default())];
    let mut previous: Option<usize> = None;
    for (at, removed) in files {
        let common = previous.map_or(0, |previous| shared(&changes[previous].path, &changes[at].path));
        close_down_to(common, &mut nodes, visit);
        let mut leaf = Open::default();
        leaf.side(removed).push(at);
        nodes.push((usize::MAX, leaf));
        previous = Some(at);
    }
    close_down_to(0, &mut nodes, visit);
    let (_, mut root) = nodes.pop().unwrap_or_default();
    visit(&mut root);
    root
}

/// Ends all nodes that share more than `common`; the last of them becomes part of a node that shares just that.
fn close_down_to(common: usize, nodes: &mut Vec<(usize, Open)>, visit: &mut dyn FnMut(&mut Open)) {
    while let Some((depth, mut open)) = nodes.pop_if(|(depth, _)| *depth > common) {
        // A leaf is one file and has nobody to be paired with.
        if depth != usize::MAX {
            visit(&mut open);
        }
        match nodes.last_mut() {
            Some((above, waiting)) if *above >= common => waiting.append(open),
            _ => nodes.push((common, open)),
        }
    }
}
