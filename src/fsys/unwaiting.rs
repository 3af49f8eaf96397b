//! Locks under which nothing waits for the medium.
//!
//! A sync takes as long as the medium likes: 15 seconds on a worn card are ordinary. Whoever needs a lock at once must not
//! meet a holder that waits for one. A build with debug assertions, as the tests use it, panics where a thread syncs that
//! holds such a lock, so that every test of every command looks for it.

use std::marker::PhantomData;

/// The time in which this thread must not wait for the medium.
#[must_use = "the thread may wait again as soon as this is dropped"]
#[derive(Debug)]
pub struct Unwaiting {
    /// It is the thread that must not wait.
    _thread: PhantomData<*const ()>,
}

#[cfg(debug_assertions)]
thread_local! {
    /// How many such locks this thread holds.
    static HELD: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Unwaiting {
    /// Begins it.
    pub fn begin() -> Self {
        #[cfg(debug_assertions)]
        HELD.set(HELD.get() + 1);
        Self { _thread: PhantomData }
    }
}

impl Drop for Unwaiting {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        HELD.set(HELD.get() - 1);
    }
}

/// What every sync begins with.
#[inline]
pub(super) fn about_to_wait() {
    #[cfg(debug_assertions)]
    assert_eq!(HELD.get(), 0, "this thread waits for the medium while it holds a lock that others need at once");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsys::{Dir, file};

    #[test]
    fn a_sync_under_such_a_lock_is_found() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let made = dir.create_file("file", 0o600).unwrap();
        let syncs: [&dyn Fn(); 3] = [&|| dir.sync().unwrap(), &|| dir.sync_file_system().unwrap(), &|| {
            file::sync(&made, || "file".into()).unwrap();
        }];
        for sync in syncs {
            sync();
            let unwaiting = Unwaiting::begin();
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(sync)).is_err();
            drop(unwaiting);
            assert_eq!(found, cfg!(debug_assertions));
        }
    }
}
