//! Making a store.
//!
//! Idempotent: every part is made only if it is missing, and the format file comes last, so that an interrupted
//! creation is no store yet and the next one completes it.

use super::{Settings, Store};
use crate::error::{Error, Refusal, Result};
use crate::fsys::actor::actor;
use crate::fsys::{Dir, Identity, SystemClock, durable, file, rooted, system};
use crate::history::{History, State};
use crate::layout::{self, Layout, PRIVATE_DIR_MODE, PUBLIC_DIR_MODE, PUBLIC_FILE_MODE};
use crate::manifests::Manifests;
use crate::model::{Action, Event, Format};

/// Bytes kept back, so that gc can work on a disk without a free block.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// What a new store is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// Accept a network or FUSE file system, whose locks and renames may promise less.
    pub allow_network_fs: bool,
}

/// Makes a store at `layout`, or opens the one that is there; tells whether it made one.
///
/// # Errors
///
/// [`Error::Refused`] on a network file system; what the system refuses.
pub fn create(layout: Layout, settings: Settings, options: CreateOptions) -> Result<(Store, bool)> {
    match Store::open(layout.clone(), settings.clone()) {
        Ok(store) => {
            store.check_changeable()?;
            return Ok((store, false));
        }
        Err(Error::NoStore { .. }) => {}
        Err(error) => return Err(error),
    }
    let root = layout.create_dirs(layout.device_root(), PUBLIC_DIR_MODE)?;
    if let Some(kind) = system::network_file_system(&root)?
        && !options.allow_network_fs
    {
        return Err(Error::refused_with(
            Refusal::NotAllowed,
            format!(
                "{} is on {kind}, whose locks and renames may promise less than a store needs",
                root.path().display()
            ),
            "use a local file system, or accept the risk with: init --allow-network-fs",
        ));
    }
    let dir = public_dir(&root, layout::STORE)?;
    for name in [layout::VERSIONS, layout::SERVICES, layout::SHARED] {
        public_dir(&root, name)?;
    }
    public_dir(&dir, layout::MANIFESTS)?;
    for name in [layout::OBJECTS, layout::STAGING, layout::TRASH] {
        let inner = rooted::create_dir(&dir, name.as_bytes(), PRIVATE_DIR_MODE)?;
        file::disinherit(&inner, PRIVATE_DIR_MODE, || inner.path().to_owned())?;
        inner.sync()?;
    }
    for name in [layout::LOCK, layout::PUBLISH_LOCK, layout::REFS_LOCK, layout::TURNS_LOCK, layout::HISTORY_LOCK] {
        drop(dir.open_or_create_file(name, 0o600)?);
    }
    super::check_links(&layout, &dir, &root.open_dir(layout::VERSIONS)?)?;
    reserve(&dir)?;
    super::loss::mark(&dir, &root.open_dir(layout::VERSIONS)?)?;
    root.sync()?;
    begin_history(&dir, &settings)?;
    // Last: with it, this is a store.
    let format = Format::new(dir.stat_self()?.uid != 0, options.allow_network_fs);
    durable::write(&dir, layout::FORMAT, format.to_text().as_bytes(), PUBLIC_FILE_MODE)?;
    let store = Store::open(layout, settings)?;
    store.prepare_index();
    Ok((store, true))
}

/// Records the beginning, unless an `init` that died did. Where there are versions, a history that is not there was
/// lost: that is for the operator to know.
fn begin_history(dir: &Dir, settings: &Settings) -> Result<()> {
    let history = History::new(dir.try_clone()?);
    let manifests = Manifests::open(dir)?;
    if history.present()?.state != State::Missing || !manifests.names()?.is_empty() {
        return Ok(());
    }
    history.begin_head()?;
    let who = actor(&settings.claimed);
    let event = Event { who, outcome: "done".into(), ..Event::new(Action::Init) };
    history.append(&SystemClock, settings.lock_timeout, vec![event]).map(drop)
}

/// A directory that anybody may list, whatever the umask and whatever the root hands down.
fn public_dir(parent: &Dir, name: &str) -> Result<Dir> {
    let existed = parent.try_stat(name)?.is_some();
    let dir = rooted::create_dir(parent, name.as_bytes(), PUBLIC_DIR_MODE)?;
    // Begun by another user, it goes on as that user's.
    let dir = match Identity::of_owner(&dir.stat_self()?) {
        Some(owner) => dir.acting_as(Some(owner)),
        None => dir,
    };
    if !existed {
        // A group that a set-group-id root handed down may be one that this user cannot give to files.
        file::set_owner(&dir, system::effective_uid(), system::effective_gid(), || dir.path().to_owned())?;
        file::disinherit(&dir, PUBLIC_DIR_MODE, || dir.path().to_owned())?;
    }
    Ok(dir)
}

/// Sets the reserve aside again, where the file system can and there is room.
pub fn reserve(store: &Dir) -> Result<bool> {
    let reserve = store.open_or_create_file(layout::RESERVE, 0o600)?;
    let path = store.path_of(layout::RESERVE);
    match file::reserve_behind_end(&reserve, 0, RESERVE_BYTES, &path) {
        // On a disk that is that full there is nothing to set aside.
        Err(error) if error.kind() == crate::error::ErrorKind::NoSpace => {
            store.remove_file_if_present(layout::RESERVE)?;
            Ok(false)
        }
        other => other,
    }
}
