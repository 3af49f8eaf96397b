//! Each stage of the work by itself, on a made-up release.
//!
//! `TOPE_BENCH_DIR` says where to work (default: a temporary directory; give one on a journaled ext4),
//! `TOPE_BENCH_FILES` how many files the release has (default 3,000). What an iteration wrote is removed before the
//! next one, outside the measurement.
#![allow(clippy::disallowed_methods, reason = "a measuring tool, not the library")]
#![allow(clippy::unwrap_used, reason = "what fails here ends the run")]
#![allow(missing_docs, reason = "criterion's macros make functions")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tope_store::fsys::{Dir, Kind};
use tope_store::hash::{Threads, stream};
use tope_store::layout::{self, Layout};
use tope_store::materialise::plan::Contents;
use tope_store::materialise::{Inodes, apply, plan};
use tope_store::model::diff::Options as Comparing;
use tope_store::model::retention::Policy;
use tope_store::model::{ContentId, Metadata, Sealed};
use tope_store::object::place::{Dress, Spot};
use tope_store::object::{LinkPolicy, NothingPublished, Objects};
use tope_store::observe::Silent;
use tope_store::ops::activate::{Options as Switching, activate};
use tope_store::ops::check::{Depth, ReadFrom};
use tope_store::ops::diff::diff;
use tope_store::ops::gc::{Mode, gc};
use tope_store::ops::import::{Input, Options, import};
use tope_store::ops::init::init;
use tope_store::ops::switching::Verify;
use tope_store::ops::verify::{Options as Verifying, verify};
use tope_store::scan::{Scan, scan};
use tope_store::staging::Run;
use tope_store::store::create::CreateOptions;
use tope_store::store::{Settings, Store};

/// Where to work, with two releases in it; removed at the end.
struct Place {
    directory: tempfile::TempDir,
    files: u64,
}

impl Place {
    fn new() -> Self {
        let files = std::env::var("TOPE_BENCH_FILES").map_or(3_000, |files| files.parse().unwrap());
        let directory = match std::env::var_os("TOPE_BENCH_DIR") {
            Some(above) => tempfile::tempdir_in(above).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let place = Self { directory, files };
        for release in [1, 2] {
            common::write_release(&place.release(release), files, release).unwrap();
        }
        place
    }

    fn release(&self, number: u64) -> PathBuf {
        self.directory.path().join(format!("release-{number}"))
    }

    /// A new store in the place of the last one.
    fn store(&self) -> Store {
        let root = self.directory.path().join("root");
        let _ = std::fs::remove_dir_all(&root);
        let (store, _) = init(Layout::new(root, None), Settings::default(), CreateOptions::default()).unwrap();
        sync(&store);
        store
    }

    fn import(&self, store: &Store, release: u64, version: &str) -> Duration {
        let start = Instant::now();
        let input = Input::Path(self.release(release));
        import(store, input, &version.parse().unwrap(), &Options::default(), &Silent).unwrap();
        start.elapsed()
    }
}

/// What one iteration wrote is not to be waited for in the next.
fn sync(store: &Store) {
    store.root().sync_file_system().unwrap();
}

/// Measures only what `work` says it took.
fn timed(criterion: &mut Criterion, place: &Place, name: &str, mut work: impl FnMut() -> Duration) {
    let mut group = criterion.benchmark_group("stages");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(place.files));
    group.bench_function(name, |bencher| bencher.iter_custom(|rounds| (0..rounds).map(|_| work()).sum()));
    group.finish();
}

fn measure(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn reading(criterion: &mut Criterion, place: &Place) {
    let store = place.store();
    let source = Dir::open(place.release(1)).unwrap();
    let look = || store.in_pool(|| scan(&source, &Silent)).unwrap().unwrap();
    timed(criterion, place, "scan", || measure(|| drop(look())));
    let scan = look();
    timed(criterion, place, "hash", || {
        measure(|| {
            each_file(&source, &scan, &mut |dir, name, _| {
                stream(dir.open_file(name).unwrap(), Threads::One).unwrap();
            });
        })
    });
}

/// Calls for every file, one thread.
fn each_file(source: &Dir, scan: &Scan, work: &mut dyn FnMut(&Dir, &[u8], u64)) {
    for directory in &scan.directories {
        let dir = source.open_below(&directory.path).unwrap();
        for file in directory.files.iter().filter(|file| file.stat.kind == Kind::File) {
            work(&dir, file.name.as_bytes(), file.stat.size);
        }
    }
}

fn writing(criterion: &mut Criterion, place: &Place) {
    let source = Dir::open(place.release(1)).unwrap();
    let mut contents = Vec::new();
    let found = place.store().in_pool(|| scan(&source, &Silent)).unwrap().unwrap();
    each_file(&source, &found, &mut |dir, name, size| contents.extend((size > 0).then(|| dir.read(name).unwrap())));
    timed(criterion, place, "object write", || {
        let store = place.store();
        let run = Run::begin(&store.staging_dir().unwrap()).unwrap();
        let incoming = run.dir().create_dir("incoming", 0o700).unwrap();
        let objects = Objects::open(store.dir(), incoming, &NothingPublished, LinkPolicy::Require).unwrap();
        let tree = run.dir().create_dir("tree", 0o755).unwrap();
        let owner = tree.stat_self().unwrap();
        let sealed = Sealed::of(&Metadata::new(0o644, owner.uid, owner.gid), None);
        let dress = Dress { sealed: &sealed, mtime: (1, 0), threads: Threads::One };
        let spent = measure(|| {
            for (number, bytes) in contents.iter().enumerate() {
                let name = number.to_string();
                let spot = Spot { dir: &tree, name: name.as_bytes() };
                objects.place_bytes(bytes, ContentId::of(bytes), dress, spot).unwrap();
            }
        });
        run.finish().unwrap();
        spent
    });
    timed(criterion, place, "materialise", || {
        let store = place.store();
        place.import(&store, 1, "v1");
        let shared = store.share().unwrap();
        let manifest = shared.manifests().unwrap().read(&"v1".parse().unwrap()).unwrap();
        let published = shared.published_objects().unwrap();
        let planned = plan(Contents::of(&manifest)).unwrap();
        let run = Run::begin(&shared.staging_dir().unwrap()).unwrap();
        let staging = run.dir().try_clone().unwrap();
        let objects = Objects::open(shared.dir(), staging, &published, LinkPolicy::Require).unwrap();
        let target = run.dir().create_dir("tree", layout::PUBLIC_DIR_MODE).unwrap();
        sync(&store);
        let made = || apply(&planned, &objects, Inodes::Shared, target, &|_| (1, 0), &Silent);
        let spent = measure(|| assert!(store.in_pool(made).unwrap().unwrap().linked_files > 0));
        run.finish().unwrap();
        spent
    });
}

fn importing(criterion: &mut Criterion, place: &Place) {
    timed(criterion, place, "import, first", || place.import(&place.store(), 1, "v1"));
    timed(criterion, place, "import, next", || {
        let store = place.store();
        place.import(&store, 1, "v1");
        place.import(&store, 2, "v2")
    });
    timed(criterion, place, "import, unchanged", || {
        let store = place.store();
        place.import(&store, 1, "v1");
        place.import(&store, 1, "v2")
    });
}

fn comparing(criterion: &mut Criterion, place: &Place) {
    let store = place.store();
    for (release, version) in [(1, "v1"), (2, "v2"), (2, "v3")] {
        place.import(&store, release, version);
    }
    let compare = |before: &str, after: &str| {
        measure(|| drop(diff(&store, before.as_ref(), after.as_ref(), &Comparing::default(), &Silent).unwrap()))
    };
    timed(criterion, place, "diff, different", || compare("v1", "v2"));
    timed(criterion, place, "diff, equal", || compare("v2", "v3"));
}

fn switching(criterion: &mut Criterion, place: &Place) {
    let store = place.store();
    for (release, version) in [(1, "v1"), (2, "v2")] {
        place.import(&store, release, version);
    }
    let mut at = 0;
    let mut switch = |verify| {
        at += 1;
        let options = Switching { verify, ..Switching::default() };
        let version = ["v1", "v2"][at % 2].parse().unwrap();
        measure(|| assert!(activate(&store, &version, &options, &Silent).unwrap().changed))
    };
    timed(criterion, place, "switch, not checked", || switch(Verify::None));
    timed(criterion, place, "switch, quick check", || switch(Verify::To(Depth::Quick)));
}

fn verifying(criterion: &mut Criterion, place: &Place) {
    let store = place.store();
    for (release, version) in [(1, "v1"), (2, "v2")] {
        place.import(&store, release, version);
    }
    let check = |depth, from| {
        let options = Verifying { depth, from, ..Verifying::default() };
        measure(|| assert!(verify(&store, &options, &Silent).unwrap().ok()))
    };
    timed(criterion, place, "verify, quick", || check(Depth::Quick, ReadFrom::Cache));
    timed(criterion, place, "verify, cached", || check(Depth::Full, ReadFrom::Cache));
    timed(criterion, place, "verify, from the medium", || check(Depth::Full, ReadFrom::Medium));
}

fn removing(criterion: &mut Criterion, place: &Place) {
    timed(criterion, place, "gc of one version", || {
        let store = place.store();
        place.import(&store, 1, "v1");
        place.import(&store, 2, "v2");
        sync(&store);
        let policy = Policy { keep_last: Some(1), ..Policy::default() };
        measure(|| assert_eq!(gc(&store, &policy, Mode::Remove, &Silent).unwrap().removed.len(), 1))
    });
}

fn all(criterion: &mut Criterion) {
    let place = Place::new();
    for stage in [reading, writing, importing, comparing, verifying, switching, removing] {
        stage(criterion, &place);
    }
}

criterion_group!(stages, all);
criterion_main!(stages);
