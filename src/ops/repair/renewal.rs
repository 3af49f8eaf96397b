//! What an import that had the right bytes leaves to be done: every version that has a damaged object gets the one that
//! the import made, and the object is no longer revoked.
//!
//! | died after | the next look sees |
//! | --- | --- |
//! | the import was published | the new inode under the object's name, revoked; trees that have the old one |
//! | some trees were mended | the same, and fewer such trees |
//! | the end of the revocation was recorded | nothing |
//!
//! Who imports the same release again, or repairs, completes it: a revoked object is made again in any case.

use std::collections::BTreeSet;
use std::path::Path;

use super::source::Source;
use super::{Job, Report, Work};
use crate::archive::Limits;
use crate::error::Result;
use crate::model::{Marks, ObjectKey, VersionName};
use crate::object::check;
use crate::object::trust::{Replaced, Revoked, id};
use crate::observe::Observer;
use crate::ops::check::{Depth, ReadFrom};
use crate::ops::verify::{self, verify};
use crate::store::{ExclusiveStore, Store};

/// What there is to complete.
#[derive(Debug, Default)]
pub(in crate::ops) struct Unfinished {
    /// Objects that were made again.
    pub made: Replaced,
    /// Objects that are to be.
    pub revoked: BTreeSet<ObjectKey>,
}

impl Unfinished {
    /// Whether there is nothing.
    pub(in crate::ops) fn is_empty(&self) -> bool {
        self.made.is_empty() && self.revoked.is_empty()
    }

    /// The revoked objects that a version refers to.
    pub(in crate::ops) fn of_version(store: &Store, marks: &Marks, version: &VersionName) -> Result<Self> {
        let (revoked, mut found) = (Revoked::of(marks), BTreeSet::new());
        if !revoked.is_empty() {
            store.manifests()?.walk(version, |_, step| {
                if let crate::model::manifest::Step::File(file) = step {
                    let key = file.key();
                    if revoked.contains(&key) {
                        found.insert(key);
                    }
                }
            })?;
        }
        Ok(Self { made: Replaced::new(), revoked: found })
    }
}

/// Completes it; gives what the user should know.
///
/// # Errors
///
/// [`crate::error::Error::Locked`] while others are at work; `source` cannot be read;
/// [`crate::error::Error::Interrupted`]. Then the objects stay revoked.
pub(in crate::ops) fn complete(
    store: &Store,
    unfinished: Unfinished,
    source: Option<(&Path, &Limits)>,
    observer: &dyn Observer,
) -> Result<Vec<String>> {
    let store = store.exclude()?;
    let source = source.map(|(path, limits)| Source::open(path, limits)).transpose()?;
    let survey = store.survey()?;
    let job = Job { store: &store, survey: &survey, source: source.as_ref(), observer };
    let (mut made, mut bad) = (Replaced::new(), unfinished.revoked);
    for (key, before) in unfinished.made {
        if is_new(&store, &key, before)? {
            made.insert(key, before);
        } else {
            bad.insert(key);
        }
    }
    let mut report = Report::default();
    let mut concerned = BTreeSet::new();
    let renewed = made.len();
    let work = Work { bad, made, paths: Default::default() };
    let _failed = job.mend_all(work, &mut concerned, &mut report)?;
    let renewed = renewed + report.mended.iter().filter(|mended| mended.version.is_none()).count();
    job.protect_factory(&mut report);
    store.versions().sync_file_system()?;
    // What a repair could not mend may be whole now.
    let doubted: Vec<VersionName> =
        concerned.iter().filter(|name| survey.marks.damaged.contains_key(*name)).cloned().collect();
    if !doubted.is_empty() {
        let options = verify::Options { versions: doubted.clone(), depth: Depth::Full, from: ReadFrom::Cache };
        let again = verify(&store, &options, observer)?;
        report.remaining.extend(again.findings.into_iter().filter(|finding| finding.damage));
    }
    job.record(&doubted, &mut report);
    let mut said = std::mem::take(&mut report.warnings);
    if renewed > 0 {
        let names: Vec<&str> = concerned.iter().map(VersionName::as_str).collect();
        let versions = if names.is_empty() { String::new() } else { format!(", and linked in {}", names.join(", ")) };
        said.insert(0, format!("objects that were damaged were made again: {renewed}{versions}"));
    }
    Ok(said)
}

/// Whether the object is what the import made, by its bytes, and not the inode that was there before.
fn is_new(store: &ExclusiveStore<'_>, key: &ObjectKey, before: Option<crate::object::trust::InodeId>) -> Result<bool> {
    match check::fully(&store.objects_dir()?, key.path(), key, None) {
        Ok(checked) => Ok(checked.is_ok_and(|stat| Some(id(&stat)) != before)),
        Err(crate::error::Error::Interrupted) => Err(crate::error::Error::Interrupted),
        // One that cannot be read is made again.
        Err(_) => Ok(false),
    }
}
