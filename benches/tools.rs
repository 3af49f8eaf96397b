//! What `compare.sh` needs and no command does: made-up releases, one stage of an import by itself, and how much a
//! series takes at least.
#![allow(clippy::disallowed_methods, reason = "a measuring tool, not the library")]
#![allow(clippy::print_stdout, reason = "its only output")]

#[path = "common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tope_store::layout::{self, Layout};
use tope_store::materialise::plan::Planner;
use tope_store::materialise::{Inodes, apply};
use tope_store::model::{ObjectKey, VersionName};
use tope_store::object::map::ObjectMap;
use tope_store::object::{LinkPolicy, Objects, Published, Recorded};
use tope_store::observe::Silent;
use tope_store::staging::Run;
use tope_store::store::{Settings, Store};

type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "usage: bench-tools generate DIR FILES RELEASES | advance DIR FILES RELEASE \
                     | materialise ROOT VERSION NAME | ideal DIR...";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["generate", dir, files, releases] => generate(Path::new(dir), files.parse()?, releases.parse()?),
        ["advance", dir, files, release] => Ok(common::advance(Path::new(dir), files.parse()?, release.parse()?)?),
        ["materialise", root, version, name] => materialise(Path::new(root), version, name),
        ["ideal", dirs @ ..] if !dirs.is_empty() => {
            println!("{}", ideal(dirs)?);
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// Writes the releases `DIR/1`, `DIR/2` and so on.
fn generate(dir: &Path, files: u64, releases: u64) -> Outcome {
    for release in 1..=releases {
        common::write_release(&dir.join(release.to_string()), files, release - 1)?;
    }
    Ok(())
}

/// Objects that are published: those of one version.
struct OfPlan(ObjectMap);

impl Published for OfPlan {
    fn lookup(&self, key: &ObjectKey) -> tope_store::error::Result<Option<Recorded>> {
        Ok(self.0.get(key))
    }
}

/// Makes the tree of a version once more, at `NAME` in the store's root: what an import does after storing, from the
/// manifest to the last link.
fn materialise(root: &Path, version: &str, name: &str) -> Outcome {
    let store = Store::open(Layout::new(root, None), Settings::default())?;
    let shared = store.share()?;
    let mut planner = Planner::default();
    shared.manifests()?.walk(&version.parse::<VersionName>()?, |facts, step| planner.step(facts, step))?;
    let planned = planner.finish();
    let mut published = OfPlan(ObjectMap::default());
    planned.objects().for_each(|(key, recorded)| published.0.insert(key, recorded));
    let run = Run::begin(&shared.staging_dir()?)?;
    let target = shared.root().create_dir(name, layout::PUBLIC_DIR_MODE)?;
    let objects = Objects::open(shared.dir(), run.dir().try_clone()?, &published, LinkPolicy::Require)?;
    store.in_pool(|| apply(&planned, &objects, Inodes::Shared, target, &|_| (1, 0), &Silent))??;
    run.finish()?;
    Ok(())
}

/// Bytes of every distinct content and mode, and of the directories of every release: what no store that shares whole
/// files can go below.
fn ideal(releases: &[&str]) -> Result<u64, Box<dyn Error>> {
    let (mut contents, mut directories) = (HashMap::new(), 0);
    let mut waiting: Vec<PathBuf> = releases.iter().map(PathBuf::from).collect();
    while let Some(directory) = waiting.pop() {
        directories += std::fs::symlink_metadata(&directory)?.blocks() * 512;
        for item in std::fs::read_dir(&directory)? {
            let item = item?;
            let stat = item.metadata()?;
            if stat.is_dir() {
                waiting.push(item.path());
            } else if stat.is_file() && stat.len() > 0 {
                let hash = blake3::hash(&std::fs::read(item.path())?);
                contents.insert((hash, stat.mode() & 0o7555), stat.blocks() * 512);
            }
        }
    }
    Ok(contents.values().sum::<u64>() + directories)
}
