//! Acting as the owner of a directory: how root works in a store that belongs to another user.
//!
//! Whoever owns a directory can give any name in it to another inode at any instant: between two system calls of ours
//! as well. A call that names a file in such a directory therefore decides nothing about which inode it reaches. With
//! the rights of root it would reach everything that the owner could put there (by `rename(2)`, by `link(2)` where
//! `fs.protected_hardlinks` is off, by `symlink(2)`), and what it grants would be granted on that.
//!
//! So root does not use its own rights there. Every call that takes a name, and every change of metadata, is made with
//! the owner as *file system user* (`setfsuid(2)`), for this thread and for the length of the call:
//!
//! | window | the owner puts there | the call then |
//! | --- | --- | --- |
//! | before a file, a directory or a link is made | anything | fails: the name is taken; nothing is given away, since it is made as the owner's |
//! | between making a directory and opening it | a directory of root's | opens it only if the owner may read it, and changes nothing of it: the kernel refuses |
//! | before a file is opened | a link, a FIFO, a file of root's | does not follow, does not wait; is refused what the owner is refused |
//! | between opening and changing | anything | changes the inode that was opened, if it is the owner's |
//! | before a rename or a removal | anything | does what the owner could have done |
//!
//! Nothing is ever made as root's and given away, so that no call changes an owner by name.
//!
//! Other rights of root are kept: reading a source, looking at other processes. The supplementary groups of a thread are
//! dropped when it first acts as another user, since they would be asked as well; they are not restored.
//!
//! Immutable flags need a right that the owner does not have: [`super::file::set_immutable`] compares the owner on the
//! handle instead.

use std::cell::Cell;
use std::marker::PhantomData;

use rustix::io::Errno;

use super::stat::Stat;
use super::system::{effective_gid, effective_uid};

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The time in which this thread acts as another user.
#[must_use = "the thread acts as itself again as soon as this is dropped"]
#[derive(Debug)]
pub struct Acting {
    before: Option<Identity>,
    /// The identity is the thread's.
    _thread: PhantomData<*const ()>,
}

thread_local! {
    /// As whom this thread acts, where that is not itself.
    static CURRENT: Cell<Option<Identity>> = const { Cell::new(None) };
    /// Whether its supplementary groups are dropped.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

impl Identity {
    /// The owner of a directory, where this process is root and the owner is not.
    pub fn of_owner(directory: &Stat) -> Option<Self> {
        (effective_uid() == 0 && directory.uid != 0).then_some(Self { uid: directory.uid, gid: directory.gid })
    }

    /// Acts as this user until the answer is dropped.
    ///
    /// Only around system calls: work of another task must not run on this thread in the meantime.
    ///
    /// # Errors
    ///
    /// `EPERM` if this process may not (it lacks `CAP_SETUID` or `CAP_SETGID`, or a filter of system calls refuses).
    pub fn assume(self) -> rustix::io::Result<Acting> {
        let before = CURRENT.get();
        if before == Some(self) {
            return Ok(Acting { before, _thread: PhantomData });
        }
        if !ALONE.get() {
            rustix::thread::set_thread_groups(&[])?;
            ALONE.set(true);
        }
        CURRENT.set(Some(self));
        let acting = Acting { before, _thread: PhantomData };
        // Dropped on failure, which restores what was.
        if set(self) { Ok(acting) } else { Err(Errno::PERM) }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if CURRENT.replace(self.before) != self.before {
            // Back to the effective user is always allowed.
            set(self.before.unwrap_or_else(|| Identity { uid: effective_uid(), gid: effective_gid() }));
        }
    }
}

/// Sets the file system user and group of this thread; tells whether they are what they should be.
#[allow(unsafe_code)]
fn set(Identity { uid, gid }: Identity) -> bool {
    // The calls give the value before, and no error: an impossible value is refused and so only asks.
    // SAFETY: the calls take numbers, touch no memory of ours, and may be made at any time.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        libc::setfsgid(libc::gid_t::MAX).cast_unsigned() == gid
            && libc::setfsuid(libc::uid_t::MAX).cast_unsigned() == uid
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn made_by(directory: &std::path::Path, name: &str) -> (u32, u32) {
        std::fs::write(directory.join(name), "").unwrap();
        let made = std::fs::metadata(directory.join(name)).unwrap();
        (made.uid(), made.gid())
    }

    #[test]
    fn a_thread_acts_as_another_user_and_is_itself_again() {
        if effective_uid() != 0 {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(temporary.path(), open).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, two) = (Identity { uid: 1234, gid: 56 }, Identity { uid: 4321, gid: 65 });
                let outer = one.assume().unwrap();
                assert_eq!(made_by(temporary.path(), "a"), (1234, 56));
                {
                    let _same = one.assume().unwrap();
                    let _other = two.assume().unwrap();
                    assert_eq!(made_by(temporary.path(), "b"), (4321, 65));
                }
                assert_eq!(made_by(temporary.path(), "c"), (1234, 56));
                drop(outer);
                assert_eq!(made_by(temporary.path(), "d"), (0, 0));
            });
        });
        assert_eq!(made_by(temporary.path(), "e"), (0, 0));
    }
}
