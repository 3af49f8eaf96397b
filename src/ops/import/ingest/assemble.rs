//! From what each directory came to, the trees and the placements of a version.

use super::Done;
use crate::error::{Error, Result};
use crate::model::{Entry, Node, Placement, Tree, TreeId, TreePath, TreeSet};
use crate::scan::Scan;

/// Puts a file that was dealt with last to its place among the others.
pub(super) fn insert(done: &mut Done, entry: Entry, placement: Option<Placement>) {
    let by_name = |other: &Entry| other.name.cmp(&entry.name);
    let at = done.entries.binary_search_by(by_name).unwrap_or_else(|at| at);
    let placed_before =
        done.entries[..at].iter().filter(|entry| matches!(entry.node, Node::File { size: 1.., .. })).count();
    done.entries.insert(at, entry);
    if let Some(placement) = placement {
        done.placements.insert(placed_before, placement);
    }
}

/// Makes the trees, deepest first.
pub(super) fn assemble(scan: &Scan, mut done: Vec<Done>) -> Result<(TreeId, TreeSet)> {
    let mut trees = TreeSet::default();
    let mut ids: Vec<Option<TreeId>> = vec![None; done.len()];
    for (at, directory) in scan.directories.iter().enumerate().rev() {
        let mut entries = std::mem::take(&mut done[at].entries);
        for &child in &directory.children {
            let name = directory_name(&scan.directories[child].path)?;
            let tree = ids[child].expect("children come after their parents in a scan, so they are done");
            entries.push(Entry { name, metadata: done[child].metadata.clone(), node: Node::Directory { tree } });
        }
        let tree = Tree::new(entries).map_err(|error| Error::source(&directory.path, error.to_string()))?;
        ids[at] = Some(trees.insert(tree));
    }
    let root = ids[0].expect("a scan has a top");
    Ok((root, trees))
}

fn directory_name(path: &TreePath) -> Result<crate::model::EntryName> {
    let name = path.components().last().unwrap_or_default();
    crate::model::EntryName::new(name).map_err(|error| Error::source(path, error.to_string()))
}

/// Placements in the order in which a tree is walked.
pub(super) fn order_placements(scan: &Scan, done: &[Done]) -> Vec<Placement> {
    enum Step {
        File,
        Directory(usize),
    }
    let steps = |at: usize| {
        let files = done[at].entries.iter().filter(|entry| matches!(entry.node, Node::File { size: 1.., .. }));
        let mut steps: Vec<(&[u8], Step)> = files.map(|entry| (entry.name.as_bytes(), Step::File)).collect();
        let children = scan.directories[at].children.iter();
        steps.extend(children.map(|&child| {
            (scan.directories[child].path.components().last().unwrap_or_default(), Step::Directory(child))
        }));
        steps.sort_unstable_by(|a, b| a.0.cmp(b.0));
        steps.into_iter()
    };
    let mut placements = Vec::new();
    let mut stack = vec![(steps(0), done[0].placements.iter())];
    while let Some((level, placed)) = stack.last_mut() {
        match level.next() {
            Some((_, Step::File)) => placements.extend(placed.next()),
            Some((_, Step::Directory(child))) => stack.push((steps(child), done[child].placements.iter())),
            None => drop(stack.pop()),
        }
    }
    placements
}
