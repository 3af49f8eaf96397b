//! Checking objects against their keys: the store's own names for what trees share.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::proofs::Proofs;
use super::{Checked, Checker, Depth, Planned};
use crate::error::{Error, Result, chain};
use crate::fsys::Kind;
use crate::model::ObjectKey;
use crate::object::Recorded;
use crate::object::check::{Fault, by_stat};
use crate::object::map::ObjectMap;
use crate::object::trust::REVOKED;
use crate::observe;

impl Checker<'_> {
    /// Checks objects that manifests refer to; gives those that are missing or not what their key says, and how.
    ///
    /// An inode that was read by way of a tree and remembered is not read again. Users who may not look into `objects/`
    /// get no findings.
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
                        findings.lock().unwrap_or_else(PoisonError::into_inner);
                    findings.push((key.clone(), detail));
                }
                Ok::<(), Error>(())
            })
        })??;
        let mut findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        findings.sort_unstable();
        Ok(findings)
    }

    /// What is wrong with an object. One whose bytes are wrong, or that the medium does not give, becomes a suspect.
    fn object_fault(&self, objects: &crate::fsys::Dir, key: &ObjectKey, recorded: &Recorded) -> Result<Option<String>> {
        let name = key.path();
        let stat = match objects.try_stat(&name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Some("it is not there".into())),
            Err(error) => return Ok(Some(chain(&error))),
        };
        let seen = by_stat(&stat, key, Some(recorded));
        let read = match (self.depth, stat.kind) {
            (Depth::Full, Kind::File) => self.content_fault((objects, name.as_bytes()), &stat, key, None),
            _ => Ok(None),
        };
        let of_bytes = match (read, &seen) {
            (Ok(Some(fault)), _) => Some(fault.to_string()),
            (Ok(None), Err(fault @ Fault::Size { .. })) => Some(fault.to_string()),
            (Ok(None), _) => None,
            (Err(Error::Interrupted), _) => return Err(Error::Interrupted),
            (Err(error), _) if is_of_the_medium(&error) => Some(chain(&error)),
            // Says more about this process than about the object.
            (Err(error), Ok(())) => return Ok(Some(chain(&error))),
            (Err(_), Err(_)) => None,
        };
        // A mode, an owner or a time may be put back, and then it is what it was. Wrong bytes stay wrong.
        if of_bytes.is_some() {
            self.suspect(key, &stat);
        }
        let revoked = self.revoked.contains(key).then(|| REVOKED.to_owned());
        Ok(seen.err().map(|fault| fault.to_string()).or(of_bytes).or(revoked))
    }

    /// Takes in which objects a version needs; those of which its tree proved nothing are added to `open`. Versions
    /// come oldest import first. What is recorded of an object is what its newest user recorded: who finds a damaged
    /// object while importing makes a fresh one, with a time of its own.
    pub fn need(&self, version: &Planned, checked: &Checked, open: &mut ObjectMap) {
        let proofs = self.proofs.get();
        for (key, recorded) in version.plan.objects() {
            match proofs {
                Some(proofs) if proofs.need(key, checked.pass) => open.remove(key),
                _ => open.insert(key, recorded),
            }
        }
    }

    /// How many objects all these versions need.
    pub fn count_needed(&self, open: &ObjectMap) -> u64 {
        let Some(proofs) = self.proofs.get() else { return open.len() as u64 };
        let others = open.iter().filter(|(key, _)| !proofs.is_needed(key)).count() as u64;
        proofs.count_needed() + others
    }

    /// How many inodes were read so far.
    pub fn read_files(&self) -> u64 {
        // A quick look reads nothing that it proves; a full one proves nothing that was not read.
        let proofs = self.proofs.get().filter(|_| self.depth == Depth::Full);
        let proved = proofs.map_or(0, Proofs::count_proved);
        proved + self.hashed.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// Whether the medium could not give what it should hold.
fn is_of_the_medium(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG))
}
