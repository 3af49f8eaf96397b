//! The walk over two trees at once. Holds a stack of its own, since trees may be thousands of levels deep.

use std::borrow::Cow;

use super::{Change, Diff, EntryFacts, Options, TreeSource, renames};
use crate::error::{Error, Result};
use crate::model::id::TreeId;
use crate::model::name::TreePath;
use crate::model::tree::{Entry, Node, Tree};

/// Compares two trees, each with its own source (which may be the same one).
///
/// With [`Options::paths`] the walk goes straight down to each of them; the directories above are not compared. A
/// rename is seen only if both its ends are among the paths.
///
/// # Errors
///
/// [`Error::NotFound`] for a path that neither side has; otherwise what the sources report.
pub fn compare(before: (&dyn TreeSource, TreeId), after: (&dyn TreeSource, TreeId), options: &Options) -> Result<Diff> {
    let mut walk =
        Walk { before: before.0, after: after.0, path: TreePath::top(), frames: Vec::new(), changes: Vec::new() };
    if options.paths.is_empty() {
        walk.directories(Some(before.1), Some(after.1))?;
    }
    for path in outermost(&options.paths) {
        walk.below(&path, before.1, after.1)?;
    }
    let mut changes = walk.changes;
    if options.renames {
        changes = renames::pair(changes);
    }
    changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Diff { changes })
}

/// The paths that lie below no other one of them, each once.
fn outermost(paths: &[TreePath]) -> Vec<TreePath> {
    let mut sorted: Vec<&TreePath> = paths.iter().collect();
    // By components, so that what lies below a path follows it at once: `a`, `a/b`, `a-b`.
    sorted.sort_unstable_by(|a, b| a.components().cmp(b.components()));
    let mut outermost: Vec<TreePath> = Vec::new();
    for path in sorted {
        if !outermost.last().is_some_and(|last| path.starts_with(last)) {
            outermost.push(path.clone());
        }
    }
    outermost
}

/// One directory that is being compared: what is left of it on either side.
struct Frame<'a> {
    before: Option<Cow<'a, Tree>>,
    after: Option<Cow<'a, Tree>>,
    next_before: usize,
    next_after: usize,
}

struct Walk<'a> {
    before: &'a dyn TreeSource,
    after: &'a dyn TreeSource,
    path: TreePath,
    frames: Vec<Frame<'a>>,
    changes: Vec<Change>,
}

impl Walk<'_> {
    /// Compares what one path names, having gone down to it on both sides.
    fn below(&mut self, path: &TreePath, before: TreeId, after: TreeId) -> Result<()> {
        if path.is_top() {
            return self.directories(Some(before), Some(after));
        }
        let old = find(self.before, before, path)?;
        let new = find(self.after, after, path)?;
        if old.is_none() && new.is_none() {
            return Err(Error::NotFound { what: "path", name: path.to_string() });
        }
        self.path = path.clone();
        let descend = self.entries(old.as_ref(), new.as_ref());
        self.directories(descend.0, descend.1)
    }

    /// Compares two directories at the present path, and everything below, until nothing is left.
    fn directories(&mut self, before: Option<TreeId>, after: Option<TreeId>) -> Result<()> {
        let ground = self.frames.len();
        self.enter(before, after)?;
        while self.frames.len() > ground {
            match self.step() {
                Step::Into(before, after) => {
                    if !self.enter(before, after)? {
                        self.path.pop();
                    }
                }
                Step::Next => self.path.pop(),
                Step::Done => {
                    self.frames.pop();
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    /// Loads two directories, unless there is nothing to find in them.
    fn enter(&mut self, before: Option<TreeId>, after: Option<TreeId>) -> Result<bool> {
        if before == after {
            return Ok(false);
        }
        let before = before.map(|id| self.before.tree(&id)).transpose()?;
        let after = after.map(|id| self.after.tree(&id)).transpose()?;
        self.frames.push(Frame { before, after, next_before: 0, next_after: 0 });
        Ok(true)
    }

    /// Takes the next name of the innermost directory from whichever sides have it.
    fn step(&mut self) -> Step {
        let Some(mut frame) = self.frames.pop() else { return Step::Done };
        let old = frame.before.as_ref().and_then(|tree| tree.entries().get(frame.next_before));
        let new = frame.after.as_ref().and_then(|tree| tree.entries().get(frame.next_after));
        let (old, new) = match (old, new) {
            (Some(a), Some(b)) => match a.name.cmp(&b.name) {
                std::cmp::Ordering::Less => (Some(a), None),
                std::cmp::Ordering::Greater => (None, Some(b)),
                std::cmp::Ordering::Equal => (Some(a), Some(b)),
            },
            sides => sides,
        };
        let step = match old.or(new) {
            None => Step::Done,
            Some(entry) => {
                self.path.push(&entry.name);
                match self.entries(old, new) {
                    (None, None) => Step::Next,
                    (before, after) => Step::Into(before, after),
                }
            }
        };
        let (took_old, took_new) = (old.is_some(), new.is_some());
        frame.next_before += usize::from(took_old);
        frame.next_after += usize::from(took_new);
        self.frames.push(frame);
        step
    }

    /// Notes in what two entries at the present path differ, and gives the directories that are to be compared.
    fn entries(&mut self, old: Option<&Entry>, new: Option<&Entry>) -> (Option<TreeId>, Option<TreeId>) {
        if old == new {
            return (None, None);
        }
        self.changes.extend(Change::between(&self.path, old.map(EntryFacts::from), new.map(EntryFacts::from)));
        let tree = |entry: Option<&Entry>| match entry.map(|entry| &entry.node) {
            Some(Node::Directory { tree }) => Some(*tree),
            _ => None,
        };
        (tree(old), tree(new))
    }
}

enum Step {
    /// A name whose directories are to be compared.
    Into(Option<TreeId>, Option<TreeId>),
    /// A name that is dealt with.
    Next,
    /// No name is left.
    Done,
}

/// What a path names below a root, if it names anything. Loads one tree per component.
fn find(source: &dyn TreeSource, root: TreeId, path: &TreePath) -> Result<Option<Entry>> {
    let (mut tree, mut found) = (Some(root), None);
    for name in path.components() {
        let Some(id) = tree else { return Ok(None) };
        let Some(entry) = source.tree(&id)?.get(name).cloned() else { return Ok(None) };
        tree = match entry.node {
            Node::Directory { tree } => Some(tree),
            _ => None,
        };
        found = Some(entry);
    }
    Ok(found)
}
