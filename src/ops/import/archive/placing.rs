//! From stored contents to a tree of links.

use super::facts::{Facts, Waiting};
use super::{LOST, kind_of, need_of};
use crate::archive::Built;
use crate::error::{Error, Result};
use crate::fsys::{Space, file};
use crate::hash::Threads;
use crate::layout;
use crate::materialise::plan::Contents;
use crate::materialise::{Inodes, apply, plan};
use crate::model::{ContentId, Entry, Node, ObjectKey, Placement, PlacementKind, Sealed, TreePath};
use crate::object::Objects;
use crate::object::place::Dress;
use crate::observe::Stage;
use crate::ops::import::Job;
use crate::ops::import::tally::Tally;
use crate::staging::{Run, TREE};

/// From stored contents to a tree.
pub(super) struct Placing<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) objects: &'a Objects<'a>,
    pub(super) facts: Facts,
    pub(super) tally: &'a Tally,
}

impl Placing<'_> {
    /// Decides how each file is placed, and makes objects of what waited for that.
    pub(super) fn placements(&mut self, built: &Built) -> Result<(Vec<Placement>, Vec<TreePath>)> {
        let (mut placements, mut shared) = (Vec::new(), Vec::new());
        let options = self.job.options;
        let walked = built.trees.walk(built.root, |path, entry| {
            if options.shared.covering(path).as_ref() == Some(path) {
                shared.push(path.clone());
            }
            if let Node::File { content, size: size @ 1.. } = entry.node {
                placements.push(self.placement(path, entry, content, size)?);
            }
            Ok::<(), Error>(())
        })?;
        walked.map_err(|tree| Error::source(tree.to_hex(), LOST))?;
        // Each object was made for one name; every other name is a link.
        let made = self.tally.new_objects.get() + self.tally.copied_files.get();
        self.tally.linked_files.set((placements.len() as u64).saturating_sub(made));
        shared.sort_unstable();
        Ok((placements, shared))
    }

    fn placement(&mut self, path: &TreePath, entry: &Entry, content: ContentId, size: u64) -> Result<Placement> {
        let kind = kind_of(self.job, path);
        let applied = self.job.store.ownership().apply(&entry.metadata);
        let pin = self.facts.pin(path, size, kind);
        let sealed = Sealed::of(&applied, pin.map(|mtime| mtime.0));
        let key = ObjectKey { content, class: sealed.class.clone() };
        let mtime = self.facts.mtimes.get(path).copied();
        // What becomes a link in the tree is looked at then.
        let known = match kind == PlacementKind::Object && !self.facts.waiting.contains_key(&content) {
            true => self.objects.recorded(&key)?,
            false => self.objects.is_known(&key)?,
        };
        let recorded = match (known, self.facts.waiting.remove(&content)) {
            (Some(recorded), waiting) => {
                self.facts.waiting.extend(waiting.map(|waiting| (content, waiting)));
                recorded
            }
            (None, Some(waiting)) => {
                let mtime = mtime.unwrap_or_else(|| self.job.rules().mtime((0, 0)));
                let dress = Dress { sealed: &sealed, mtime, threads: Threads::One };
                let placed = match waiting {
                    Waiting::Staged(staged) => self.objects.place_staged(staged, dress)?,
                    Waiting::Made(from) => self.objects.derive(&from, dress)?,
                };
                self.facts.waiting.insert(content, Waiting::Made(placed.key.clone()));
                self.tally.placed(&placed);
                placed.recorded
            }
            (None, None) => {
                return Err(Error::corrupt(
                    "object",
                    self.objects.path_of(&key),
                    "it was stored just now and is not as recorded",
                ));
            }
        };
        let kind = match pin {
            Some(_) => {
                self.tally.pinned_files.add(1);
                self.tally.pinned_bytes.add(size);
                PlacementKind::PinnedMtime
            }
            None => kind,
        };
        self.tally.private_files.add(u64::from(kind == PlacementKind::Private));
        Ok(Placement { kind, mtime_seconds: recorded.mtime.0, mtime_nanoseconds: recorded.mtime.1 })
    }

    /// Makes the tree in the run's directory.
    pub(super) fn materialise(
        &self,
        built: &Built,
        placements: &[Placement],
        shared: &[TreePath],
        run: &Run,
    ) -> Result<()> {
        let private_empty = self.job.private_empty(&built.trees, built.root);
        let contents = Contents {
            trees: &built.trees,
            root: built.root,
            placements,
            shared,
            private_empty: &private_empty,
            ownership: self.job.store.ownership(),
        };
        let plan = plan(contents).ok_or_else(|| Error::source("", "the archive's trees are not whole"))?;
        let names: u64 = plan.directories.iter().map(|directory| directory.files.len() as u64).sum();
        self.job.observer.stage(Stage::Materialise, Some(names));
        let space = Space::of(self.job.store.root())?;
        need_of(&plan, &space).check(self.job.store.root(), &space, self.job.options.minimum_free_bytes)?;
        let tree = run.dir().create_dir(TREE, layout::PUBLIC_DIR_MODE)?;
        file::set_mode(&tree, layout::PUBLIC_DIR_MODE, || tree.path().to_owned())?;
        let now = (crate::fsys::system::file_time_now().0, 0);
        let empty_mtime = |path: &TreePath| self.facts.mtimes.get(path).copied().unwrap_or(now);
        let applied = apply(&plan, self.objects, Inodes::Shared, tree, &empty_mtime, self.job.observer)?;
        let linked = &self.tally.linked_files;
        linked.set(linked.get().saturating_sub(applied.copied_files));
        self.tally.copied_files.add(applied.copied_files);
        Ok(())
    }
}
