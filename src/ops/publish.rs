//! Publishing: the step after which a version exists.
//!
//! The caller has built the whole tree in its staging directory. From there:
//!
//! | step | died after it, the next command sees |
//! | --- | --- |
//! | 1. `syncfs`, before any lock | nothing; staging is swept |
//! | 2. shared state seeded, never replacing what is there | the same; state that a retry finds in place |
//! | 3. manifest renamed into place, durable | a manifest without tree and without event: discarded |
//! | 4. tree renamed into place, both parents durable | manifest and tree: published, the missing event is appended |
//! | 5. event appended, durable | published |
//! | 6. index transaction | the same; an index that is behind is caught up |
//!
//! **Invariant (I-3):** a version is absent or complete, and durable before any command reports or activates it.

use crate::error::{Error, Refusal, Result};
use crate::fsys::Dir;
use crate::model::manifest::checksum_of;
use crate::model::{
    Action, Anchor, Digest, Event, Extensions, Facts, Manifest, Placement, TreeId, TreeSet, VersionName,
};
use crate::staging::{self, Run};
use crate::store::SharedStore;

/// A built version, ready to be published except for its import number and its anchor.
pub struct Draft {
    /// Its facts; import number and anchor are filled in.
    pub facts: Facts,
    /// Its root tree.
    pub root: TreeId,
    /// Its trees.
    pub trees: TreeSet,
    /// Its placements.
    pub placements: Vec<Placement>,
}

impl Draft {
    /// The manifest with these import number and anchor.
    pub fn numbered(self, (import_number, anchor): (u64, Anchor)) -> Manifest {
        let Self { facts, root, trees, placements } = self;
        let facts = Facts { import_number, anchor, ..facts };
        Manifest { facts, root, trees, placements, extensions: Extensions::default() }
    }
}

/// How publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The version exists now.
    Published {
        /// Its import number.
        import_number: u64,
    },
    /// Somebody else published the same contents under this name in the meantime.
    AlreadyThere {
        /// Its import number.
        import_number: u64,
    },
}

/// Checks that nothing that is not ours has the version's name.
///
/// # Errors
///
/// [`Error::Refused`] if a directory made by hand, or anything else, is in the way.
pub fn check_name_is_free(store: &SharedStore<'_>, name: &VersionName) -> Result<()> {
    match store.versions().try_stat(name)? {
        None => Ok(()),
        Some(stat) => Err(Error::refused_with(
            Refusal::Exists,
            format!("versions/{name} exists and is not managed by this store: it is {}", stat.kind.describe()),
            format!("take it under management with: tope-store adopt {name}"),
        )),
    }
}

/// The answer for a name that is taken by a published version.
///
/// # Errors
///
/// [`Error::Refused`] if the contents differ.
pub fn same_or_refused((facts, existing): &(Facts, Digest), digest: Digest) -> Result<Outcome> {
    let name = &facts.name;
    if *existing == digest {
        return Ok(Outcome::AlreadyThere { import_number: facts.import_number });
    }
    Err(Error::refused_with(
        Refusal::Exists,
        format!("{name} exists with another content: {} instead of {}", existing.short(), digest.short()),
        format!(
            "give the new content a name of its own, or look at the difference with: tope-store diff {name} SOURCE"
        ),
    ))
}

/// Publishes what `run` built at its [`staging::TREE`].
///
/// `seed` provides the state that outlives versions (step 2). `meanwhile` is called while the medium is waited for: work
/// that neither writes to the tree nor depends on the version being there.
///
/// # Errors
///
/// [`Error::Refused`] if the name is taken by something else; what the system refuses. On an error nothing was
/// published, unless it came from recording it: then the next command completes the record.
pub fn publish(
    store: &SharedStore<'_>,
    run: &Run,
    draft: Draft,
    seed: &dyn Fn(&Manifest) -> Result<()>,
    meanwhile: &(dyn Fn() + Sync),
) -> Result<Outcome> {
    // Almost always nobody else imports meanwhile, and this is the number.
    store.refuse_doubt()?;
    let mut manifest = draft.numbered(store.next_import()?);
    let mut encoded = sync_and_index(store, run, &manifest, meanwhile)?;
    let publishing = store.publish_lock()?;
    let manifests = store.manifests()?;
    let name = manifest.facts.name.clone();
    if manifests.stat(&name)?.is_some() {
        return same_or_refused(&manifests.facts(&name)?, manifest.digest());
    }
    check_name_is_free(store, &name)?;
    seed(&manifest)?;
    let (import_number, anchor) = store.next_import()?;
    if (import_number, anchor) != (manifest.facts.import_number, manifest.facts.anchor) {
        (manifest.facts.import_number, manifest.facts.anchor) = (import_number, anchor);
        encoded = manifest.encode();
    }
    manifests.publish_encoded(&name, &encoded)?;
    let checksum = checksum_of(&encoded);
    drop(encoded);
    if let Err(error) = move_tree(store, run.dir(), &name) {
        // Without its tree the manifest says nothing; leave none behind if that can be had.
        manifests.remove(&name)?;
        return Err(error);
    }
    let event = Event {
        import_number: Some(import_number),
        manifest: checksum,
        outcome: "done".into(),
        ..Event::about(Action::Import, &name, Some(manifest.digest()))
    };
    store.record(vec![event])?;
    drop(publishing);
    store.index_published(&manifest);
    Ok(Outcome::Published { import_number })
}

/// Waits for the medium, and meanwhile encodes the manifest and takes the trees into the index: rows that nothing refers
/// to until the version is published, and that gc prunes if it never is.
fn sync_and_index(
    store: &SharedStore<'_>,
    run: &Run,
    manifest: &Manifest,
    meanwhile: &(dyn Fn() + Sync),
) -> Result<Vec<u8>> {
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| run.dir().sync_file_system());
        let index = || {
            store.index_trees(&manifest.trees, manifest.root);
            meanwhile();
        };
        let (encoded, ()) = rayon::join(|| manifest.encode(), index);
        syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|()| encoded)
    })
}

fn move_tree(store: &SharedStore<'_>, run: &Dir, name: &VersionName) -> Result<()> {
    run.rename_new(staging::TREE, store.versions(), name)?;
    let durable = store.versions().sync().and_then(|()| run.sync());
    if durable.is_err() {
        // Else it would stand there as a tree that nobody manages.
        let _ = store.versions().rename_new(name, run, staging::TREE);
    }
    durable
}
