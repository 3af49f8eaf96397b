//! What passes by in a stream and is needed when it has ended.

use std::collections::HashMap;

use crate::model::{ContentId, ObjectKey, PlacementKind, TreePath};
use crate::object::place::Staged;
use crate::ops::import::pyc::PycHead;

/// What the tree does not say and placing needs.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Modification times of empty files and of Python sources.
    pub(super) mtimes: HashMap<TreePath, (i64, u32)>,
    /// Heads of compiled files by the path of their source.
    pub(super) heads: HashMap<TreePath, Vec<PycHead>>,
    /// Python sources that wait to become objects.
    pub(super) waiting: HashMap<ContentId, Waiting>,
}

/// Bytes that wait in staging, or the first object that was made of them.
#[derive(Debug)]
pub(super) enum Waiting {
    Staged(Staged),
    Made(ObjectKey),
}

impl Facts {
    /// The modification time that a Python source has to keep for its compiled file.
    pub(super) fn pin(&self, path: &TreePath, size: u64, kind: PlacementKind) -> Option<(i64, u32)> {
        let mtime = *self.mtimes.get(path).filter(|_| kind == PlacementKind::Object)?;
        let heads = self.heads.get(path)?;
        heads.iter().any(|head| head.fits(mtime.0, size)).then_some(mtime)
    }
}
