//! From what each directory came to, the trees and the placements of a version.

use rayon::prelude::*;

use super::Done;
use crate::error::{Error, Result};
use crate::model::{Entry, Metadata, Node, Placement, Tree, TreeId, TreePath, TreeSet};
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

/// Makes the trees, deepest first: all of one depth at once, in parallel.
pub(super) fn assemble(scan: &Scan, done: Vec<Done>) -> Result<(TreeId, TreeSet)> {
    let mut trees = TreeSet::default();
    let mut ids: Vec<Option<TreeId>> = vec![None; done.len()];
    let metadata: Vec<Metadata> = done.iter().map(|done| done.metadata.clone()).collect();
    let mut levels: Vec<Vec<(usize, Vec<Entry>)>> = Vec::new();
    let mut depths = vec![0_usize; done.len()];
    for (at, done) in done.into_iter().enumerate() {
        if at > 0 {
            depths[at] = depths[scan.directories[at].parent] + 1;
        }
        if levels.len() <= depths[at] {
            levels.push(Vec::new());
        }
        levels[depths[at]].push((at, done.entries));
    }
    while let Some(level) = levels.pop() {
        let made = level.into_par_iter().map(|(at, mut entries)| {
            let directory = &scan.directories[at];
            entries.reserve_exact(directory.children.len());
            for &child in &directory.children {
                let name = directory_name(&scan.directories[child].path)?;
                let tree = ids[child].expect("what is in a directory is one level deeper, and so it is done");
                entries.push(Entry { name, metadata: metadata[child].clone(), node: Node::Directory { tree } });
            }
            let tree = Tree::new(entries).map_err(|error| Error::source(&directory.path, error.to_string()))?;
            Ok((at, tree.id(), tree))
        });
        for (at, id, tree) in made.collect::<Result<Vec<_>>>()? {
            trees.insert_known(id, tree);
            ids[at] = Some(id);
        }
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
