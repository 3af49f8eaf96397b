//! What will stand where.

use crate::error::{Error, Result};
use crate::layout;
use crate::model::manifest::Step;
use crate::model::{
    Entry, EntryName, Facts, Manifest, Metadata, Node, ObjectKey, Ownership, Placement, PlacementKind, Sealed, TreeId,
    TreePath, TreeSet,
};
use crate::object::Recorded;

/// A whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The top first, parents before children.
    pub directories: Vec<PlanDir>,
    /// Objects that are kept for what stands elsewhere: everything below a shared path.
    pub kept: Vec<(ObjectKey, Recorded)>,
}

impl Plan {
    /// That of a published version.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if its trees are not whole, which decoding rules out.
    pub fn of(manifest: &Manifest) -> Result<Self> {
        plan(Contents::of(manifest)).ok_or_else(|| {
            let detail = format!("the trees of {} are not whole", manifest.facts.name);
            Error::corrupt("manifest", layout::MANIFESTS, detail)
        })
    }

    /// Every object that is needed, once for each file that is made from it.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, Recorded)> {
        let files = self.directories.iter().flat_map(|directory| &directory.files);
        let in_tree = files.filter_map(|file| match &file.what {
            What::Object { key, recorded } => Some((key, *recorded)),
            What::Private(private) => Some((&private.key, private.recorded)),
            What::Empty { .. } | What::PrivateEmpty { .. } | What::Symlink { .. } => None,
        });
        in_tree.chain(self.kept.iter().map(|(key, recorded)| (key, *recorded)))
    }
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDir {
    /// Its path in the version.
    pub path: TreePath,
    /// Positions of the directories in it.
    pub children: Vec<usize>,
    /// Mode, owner and attributes as they are applied; those of the top are not part of a version.
    pub metadata: Metadata,
    /// Everything else in it.
    pub files: Vec<PlanFile>,
}

impl PlanDir {
    /// Whether a service writes here: into private files, and whatever it puts beside them.
    pub fn holds_private_files(&self) -> bool {
        self.files.iter().any(|file| matches!(file.what, What::Private { .. } | What::PrivateEmpty { .. }))
    }
}

/// One name that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// The name.
    pub name: EntryName,
    /// What stands there.
    pub what: What,
}

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A link to an object.
    Object {
        /// Its key.
        key: ObjectKey,
        /// Its size and time.
        recorded: Recorded,
    },
    /// A writable copy of an object.
    Private(Box<Private>),
    /// An empty file with an inode of its own.
    Empty {
        /// Its mode, owner and attributes.
        metadata: Metadata,
    },
    /// An empty file that a service writes.
    PrivateEmpty {
        /// Its mode, owner and attributes.
        metadata: Metadata,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
        /// Its owner.
        owner: (u32, u32),
    },
}

/// What a service has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Private {
    /// The object.
    pub key: ObjectKey,
    /// Its size and time.
    pub recorded: Recorded,
    /// The copy's mode, owner and attributes.
    pub metadata: Metadata,
}

/// What a plan is made from, published or not.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// All trees.
    pub trees: &'a TreeSet,
    /// The root tree.
    pub root: TreeId,
    /// One per non-empty file, in order.
    pub placements: &'a [Placement],
    /// Paths at which a link out of the version stands; sorted.
    pub shared: &'a [TreePath],
    /// Empty files that a service writes; sorted.
    pub private_empty: &'a [TreePath],
    /// How owners are applied.
    pub ownership: Ownership,
}

impl<'a> Contents<'a> {
    /// Those of a manifest.
    pub fn of(manifest: &'a Manifest) -> Self {
        Self {
            trees: &manifest.trees,
            root: manifest.root,
            placements: &manifest.placements,
            shared: &manifest.facts.shared,
            private_empty: &manifest.facts.private_empty,
            ownership: manifest.facts.ownership,
        }
    }
}

/// Where the link that stands at a shared path points: up to the root, then into `shared/`. Relative, so that it holds
/// in an offline image as well.
pub fn shared_target(path: &TreePath) -> Vec<u8> {
    // From the directory the link is in, out of the version and out of versions/.
    let levels = path.components().count() - 1 + 2;
    [b"../".repeat(levels).as_slice(), b"shared/", path.as_bytes()].concat()
}

/// Plans the tree of a version. `None` if a tree or a placement is missing, which a decoded manifest rules out.
pub fn plan(contents: Contents<'_>) -> Option<Plan> {
    let rules = Rules { shared: contents.shared, private_empty: contents.private_empty, ownership: contents.ownership };
    let mut planner = Planner::default();
    let mut placements = contents.placements.iter();
    let walked = contents.trees.walk(contents.root, |path, entry| {
        let placement = match entry.node {
            Node::File { size: 1.., .. } => Some(*placements.next().ok_or(())?),
            _ => None,
        };
        // Nothing tells that a directory has ended but what comes next.
        while planner.depth() > path.components().count() {
            planner.leave();
        }
        planner.take(rules, entry, placement);
        Ok::<(), ()>(())
    });
    (walked.ok()?.is_ok() && placements.next().is_none()).then(|| planner.finish())
}

/// What decides where things stand, besides the trees.
#[derive(Clone, Copy)]
struct Rules<'a> {
    shared: &'a [TreePath],
    private_empty: &'a [TreePath],
    ownership: Ownership,
}

/// A plan in the making, from a walk through the entries of a version.
#[derive(Debug)]
pub struct Planner {
    plan: Plan,
    /// Positions of the directories from the top down to the one being walked.
    line: Vec<usize>,
    /// How many directories deep the walk is from a shared path on: nothing of it stands in the tree.
    hidden: usize,
}

impl Default for Planner {
    fn default() -> Self {
        let top = PlanDir {
            path: TreePath::top(),
            children: Vec::new(),
            metadata: Metadata::new(layout::PUBLIC_DIR_MODE, 0, 0),
            files: Vec::new(),
        };
        Self { plan: Plan { directories: vec![top], kept: Vec::new() }, line: vec![0], hidden: 0 }
    }
}

impl Planner {
    /// Takes a step of a walk through a manifest.
    pub fn step(&mut self, facts: &Facts, step: Step<'_>) {
        let rules = Rules { shared: &facts.shared, private_empty: &facts.private_empty, ownership: facts.ownership };
        match step {
            Step::Enter(_, None) => {}
            Step::Enter(_, Some(entry)) | Step::Other(entry) => self.take(rules, entry, None),
            Step::File(file) => self.take(rules, file.entry, Some(file.placement)),
            Step::Leave => self.leave(),
        }
    }

    /// The plan of everything that was taken.
    pub fn finish(self) -> Plan {
        self.plan
    }

    /// How many directories deep the walk is; 1 in the top.
    fn depth(&self) -> usize {
        self.line.len() + self.hidden
    }

    /// A directory ends.
    fn leave(&mut self) {
        match self.hidden.checked_sub(1) {
            Some(hidden) => self.hidden = hidden,
            None => {
                if let Some(ended) = self.line.pop() {
                    self.plan.directories[ended].files.shrink_to_fit();
                }
            }
        }
    }

    /// Takes an entry of the directory that began last; one that is a directory begins.
    fn take(&mut self, rules: Rules<'_>, entry: &Entry, placement: Option<Placement>) {
        let Some(&parent) = self.line.last() else { return };
        let applied = rules.ownership.apply(&entry.metadata);
        let object = placement.and_then(|placement| object_of(entry, &applied, placement));
        let is_directory = matches!(entry.node, Node::Directory { .. });
        if self.hidden > 0 {
            self.hidden += usize::from(is_directory);
            self.plan.kept.extend(object);
            return;
        }
        let above = &self.plan.directories[parent].path;
        let is_among = |paths: &[TreePath]| !paths.is_empty() && paths.binary_search(&above.join(&entry.name)).is_ok();
        let is_private = placement.is_some_and(|placement| placement.kind == PlacementKind::Private);
        let what = match (&entry.node, object) {
            (_, object) if is_among(rules.shared) => {
                let target = shared_target(&above.join(&entry.name));
                self.hidden = usize::from(is_directory);
                self.plan.kept.extend(object);
                What::Symlink { target, owner: (applied.uid, applied.gid) }
            }
            (Node::Directory { .. }, _) => {
                let path = above.join(&entry.name);
                let at = self.plan.directories.len();
                self.plan.directories[parent].children.push(at);
                let directory = PlanDir { path, children: Vec::new(), metadata: applied, files: Vec::new() };
                self.plan.directories.push(directory);
                self.line.push(at);
                return;
            }
            (Node::Symlink { target }, _) => {
                What::Symlink { target: target.to_vec(), owner: (applied.uid, applied.gid) }
            }
            (Node::File { .. }, Some((key, recorded))) if is_private => {
                What::Private(Box::new(Private { key, recorded, metadata: applied }))
            }
            (Node::File { .. }, Some((key, recorded))) => What::Object { key, recorded },
            (Node::File { .. }, None) if is_among(rules.private_empty) => What::PrivateEmpty { metadata: applied },
            (Node::File { .. }, None) => What::Empty { metadata: Sealed::of(&applied, None).metadata },
        };
        self.plan.directories[parent].files.push(PlanFile { name: entry.name.clone(), what });
    }
}

/// The object of a file, whose metadata are applied so.
fn object_of(entry: &Entry, applied: &Metadata, placement: Placement) -> Option<(ObjectKey, Recorded)> {
    let Node::File { content, size } = entry.node else { return None };
    let mtime = (placement.kind == PlacementKind::PinnedMtime).then_some(placement.mtime_seconds);
    let key = ObjectKey { content, class: Sealed::of(applied, mtime).class };
    Some((key, Recorded { size, mtime: (placement.mtime_seconds, placement.mtime_nanoseconds) }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::manifest::{Source, SourceKind, body_of, walk_body};
    use crate::model::{Anchor, ContentId, Extensions, Tree};

    #[test]
    fn a_shared_link_leads_out_of_the_version_from_any_depth() {
        let target = |path: &[u8]| String::from_utf8(shared_target(&TreePath::parse(path).unwrap())).unwrap();
        assert_eq!(target(b"state"), "../../shared/state");
        assert_eq!(target(b"services/app/state"), "../../../../shared/services/app/state");
    }

    fn entry(name: &str, node: Node) -> Entry {
        Entry { name: EntryName::new(name.as_bytes()).unwrap(), metadata: Metadata::new(0o755, 0, 0), node }
    }

    fn file(name: &str, bytes: &str) -> Entry {
        entry(name, Node::File { content: ContentId::of(bytes.as_bytes()), size: bytes.len() as u64 })
    }

    /// `a/` and `b/` of the same contents, a shared directory with another in it, a shared file, and one of each kind.
    fn manifest() -> Manifest {
        let mut trees = TreeSet::default();
        let link = entry("link", Node::Symlink { target: b"app".as_slice().into() });
        let leaf = trees.insert(Tree::new(vec![file("app", "app"), file("empty", ""), link]).unwrap());
        let directory = |name, tree| entry(name, Node::Directory { tree });
        let state = trees.insert(Tree::new(vec![file("one", "1"), directory("deep", leaf), file("two", "2")]).unwrap());
        let entries = vec![
            directory("a", leaf),
            directory("b", leaf),
            file("empty", ""),
            file("id", "id"),
            file("log", "log"),
            directory("state", state),
            file("tail", "tail"),
        ];
        let root = trees.insert(Tree::new(entries).unwrap());
        let placement = |kind, mtime_seconds| Placement { kind, mtime_seconds, mtime_nanoseconds: 7 };
        let path = |path: &str| TreePath::parse(path.as_bytes()).unwrap();
        use PlacementKind::{Object, PinnedMtime, Private, Shared};
        let kinds = [Object, PinnedMtime, Shared, Private, Shared, Shared, Shared, Object];
        Manifest {
            facts: Facts {
                name: "v1.0.0".parse().unwrap(),
                import_number: 1,
                anchor: Anchor::START,
                imported_at: 0,
                clock_synchronised: true,
                note: String::new(),
                labels: BTreeMap::new(),
                source: Source { kind: SourceKind::Directory, path: b"app".to_vec() },
                ownership: Ownership::Squash { uid: 1, gid: 2 },
                shared: vec![path("id"), path("state")],
                private_empty: vec![path("b/empty")],
            },
            root,
            trees,
            placements: kinds.into_iter().zip(1..).map(|(kind, time)| placement(kind, time)).collect(),
            extensions: Extensions::default(),
        }
    }

    #[test]
    fn everything_stands_where_the_manifest_says() {
        let plan = plan(Contents::of(&manifest())).unwrap();
        let mut stands = Vec::new();
        for directory in &plan.directories {
            stands.push(format!("{}/", directory.path));
            stands.extend(directory.files.iter().map(|file| {
                let what = match &file.what {
                    What::Object { recorded, .. } => format!("object of {}", recorded.mtime.0),
                    What::Private(private) => format!("private of {}", private.recorded.mtime.0),
                    What::Empty { .. } => "empty".into(),
                    What::PrivateEmpty { .. } => "private, empty".into(),
                    What::Symlink { target, .. } => format!("-> {}", String::from_utf8_lossy(target)),
                };
                format!("{}: {what}", directory.path.join(&file.name))
            }));
        }
        let expected = [
            "./",
            "empty: empty",
            "id: -> ../../shared/id",
            "log: private of 4",
            "state: -> ../../shared/state",
            "tail: object of 8",
            "a/",
            "a/app: object of 1",
            "a/empty: empty",
            "a/link: -> app",
            "b/",
            "b/app: object of 2",
            "b/empty: private, empty",
            "b/link: -> app",
        ];
        assert_eq!(stands, expected);
        let kept: Vec<i64> = plan.kept.iter().map(|(_, recorded)| recorded.mtime.0).collect();
        assert_eq!(kept, [3, 5, 6, 7]);
        let mut needed: Vec<i64> = plan.objects().map(|(_, recorded)| recorded.mtime.0).collect();
        needed.sort_unstable();
        assert_eq!(needed, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_walk_through_a_manifest_gives_the_plan_of_the_whole_manifest() {
        let manifest = manifest();
        let mut planner = Planner::default();
        let body = body_of(&manifest.encode()).unwrap();
        walk_body(&body, |facts, step| planner.step(facts, step)).unwrap();
        assert_eq!(planner.finish(), plan(Contents::of(&manifest)).unwrap());
    }

    #[test]
    fn what_is_not_whole_is_not_planned() {
        let whole = manifest();
        let planned = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = whole.clone();
            change(&mut manifest);
            plan(Contents::of(&manifest)).is_some()
        };
        assert!(planned(&|_| {}));
        assert!(!planned(&|manifest| manifest.placements.truncate(7)));
        assert!(!planned(&|manifest| manifest.placements.push(whole.placements[0])));
        assert!(!planned(&|manifest| manifest.trees = TreeSet::default()));
    }
}
