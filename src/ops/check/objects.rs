//! Checking objects against their keys: the store's own names for what trees share.

use std::sync::Mutex;

use rayon::prelude::*;

use super::{Checker, Depth};
use crate::error::{Error, Result, chain};
use crate::model::ObjectKey;
use crate::object::Recorded;
use crate::object::check::{Fault, by_stat};
use crate::observe;

impl Checker<'_> {
    /// Checks objects that manifests refer to; gives those that are missing or not what their key says, and how.
    ///
    /// An inode that was read by way of a tree is not read again. Users who may not look into `objects/` get no
    /// findings.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; what keeps it from looking at all.
    pub fn objects(&self, wanted: &[(ObjectKey, Recorded)]) -> Result<Vec<(ObjectKey, String)>> {
        let Some(objects) = &self.objects else { return Ok(Vec::new()) };
        let findings = Mutex::default();
        self.store.in_pool(|| {
            wanted.par_iter().try_for_each(|(key, recorded)| {
                observe::check(self.observer)?;
                if let Some(detail) = self.object_fault(objects, key, recorded)? {
                    let mut findings: std::sync::MutexGuard<'_, Vec<_>> =
                        findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    findings.push((key.clone(), detail));
                }
                Ok::<(), Error>(())
            })
        })??;
        let mut findings = findings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        findings.sort_unstable();
        Ok(findings)
    }

    fn object_fault(&self, objects: &crate::fsys::Dir, key: &ObjectKey, recorded: &Recorded) -> Result<Option<String>> {
        let name = key.path();
        let stat = match objects.try_stat(&name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Some("it is not there".into())),
            Err(error) => return Ok(Some(chain(&error))),
        };
        if let Err(fault) = by_stat(&stat, key, Some(recorded)) {
            return Ok(Some(fault.to_string()));
        }
        if self.depth == Depth::Quick {
            return Ok(None);
        }
        Ok(match self.hash(objects, name.as_bytes(), &stat) {
            Ok((content, _)) if content != key.content => Some(Fault::Content.to_string()),
            Ok((_, attributes)) if attributes != key.class.xattrs => Some(Fault::Xattrs.to_string()),
            Ok(_) => None,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => Some(chain(&error)),
        })
    }

    /// How many inodes were read so far.
    pub fn read_files(&self) -> u64 {
        self.hashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len() as u64
    }
}
