//! A lock that is only ever tried, and that knows its owner.
//!
//! Nobody waits for it: a thread that does not get it has nothing to do, because the owner is doing
//! it. So it cannot deadlock, whatever holds it: a signal handler, a callback, a `Drop`.
//! The owner's token (`ThreadWords::token`) is in the lock, so that a forked child can
//! tell a lock of its own thread from one whose owner it does not have.
//!
//! Orderings: acquire on success pairs with the release on unlock, so that the value's last
//! owner is done with it. Without it two drivers would use the buckets at once (loom's
//! cell checks that).

use crate::sync::{AtomicUsize, Guarded, Ordering, constant};

/// Marks a lock that its owner took for the duration of a `fork`. Tokens are multiples of 64.
const FORKING: usize = 1;

/// A value for whoever holds the lock.
#[derive(Debug)]
pub(crate) struct TryLock<T> {
    owner: AtomicUsize,
    value: Guarded<T>,
}

// SAFETY: the value is reached only by the owner of the lock (`Held`), one at a time and in
// order by acquire and release on `owner`; so sharing the lock only ever sends the value.
unsafe impl<T: Send> Sync for TryLock<T> {}

impl<T> TryLock<T> {
    constant! {
        pub(crate) fn new(value: T) -> Self {
            Self { owner: AtomicUsize::new(0), value: Guarded::new(value) }
        }
    }

    /// Takes the lock if it is free. `me` is the calling thread's token.
    pub(crate) fn try_lock(&self, me: usize) -> Option<Held<'_, T>> {
        // Lazily: a `Held` that is made and dropped unlocks.
        self.take(me).then(|| Held { lock: self })
    }

    fn take(&self, token: usize) -> bool {
        self.owner.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Whether the thread with this token holds the lock.
    pub(crate) fn is_held_by(&self, me: usize) -> bool {
        self.owner.load(Ordering::Relaxed) & !FORKING == me
    }

    /// Whether anybody holds the lock at this moment.
    pub(crate) fn is_held(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != 0
    }

    /// Takes the lock for the duration of a `fork`; see [`unlock_after_fork`](Self::unlock_after_fork).
    pub(crate) fn try_lock_for_fork(&self, me: usize) -> bool {
        self.take(me | FORKING)
    }

    /// Gives back what `try_lock_for_fork` took. False if this thread had not taken it.
    pub(crate) fn unlock_after_fork(&self, me: usize) -> bool {
        let mine = self.owner.load(Ordering::Relaxed) == (me | FORKING);
        if mine {
            self.owner.store(0, Ordering::Release);
        }
        mine
    }

    /// Frees a lock whose owner is a thread that this (forked) process does not have.
    /// True if there was such an owner.
    pub(crate) fn abandon_unless_mine(&self, me: usize) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        let orphaned = owner != 0 && owner & !FORKING != me;
        if orphaned {
            self.owner.store(0, Ordering::Relaxed);
        }
        orphaned
    }
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Held<'l, T> {
    lock: &'l TryLock<T>,
}

impl<T> Held<'_, T> {
    /// Runs `f` on the value.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        self.lock.value.with_mut(|value| {
            // SAFETY: `Held` exists only between a successful `take` and its drop, one at a
            // time, and `&mut self` keeps this borrow the only one of this `Held`.
            f(unsafe { &mut *value })
        })
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // Pairs with the acquire in `take`.
        self.lock.owner.store(0, Ordering::Release);
    }
}
