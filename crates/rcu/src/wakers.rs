//! Tasks that wait: a waker each, and the cookie that it waits for.
//!
//! A task registers and *then* looks again whether what it waits for has happened; whoever
//! makes it happen looks *then* whether somebody is registered. Between its two steps each has a SeqCst
//! fence, so at least one of them sees the other: a wakeup is not lost. (`tests/loom_updaters.rs`
//! has the twins.)
//!
//! The list is under a lock that is tried in a loop, because it is held for a few
//! instructions; wakers are cloned, woken and dropped outside of it, since they run code of others.
//! It knows its owner, like all locks here, so that a forked child can free it.

use crate::sync::{AtomicUsize, Ordering, constant, fence, yield_now};
use crate::trylock::{Held, TryLock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Waits for the runner of callbacks to finish, in place of a cookie (no cookie is that large).
pub(crate) const RUNNER: u64 = u64::MAX;

#[derive(Debug)]
struct Entry {
    key: usize,
    until: u64,
    waker: Waker,
}

#[derive(Debug)]
struct List {
    entries: Vec<Entry>,
    next_key: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Wakers {
    list: TryLock<List>,
    /// How many there are; to look without the lock.
    count: AtomicUsize,
}

impl Wakers {
    constant! {
        pub(crate) fn new() -> Self {
            Self {
                list: TryLock::new(List { entries: Vec::new(), next_key: 1 }),
                count: AtomicUsize::new(0),
            }
        }
    }

    fn lock(&self, me: usize) -> Held<'_, List> {
        loop {
            if let Some(held) = self.list.try_lock(me) {
                return held;
            }
            yield_now();
        }
    }

    fn change<R>(&self, me: usize, f: impl FnOnce(&mut List) -> R) -> R {
        let mut held = self.lock(me);
        held.with(|list| {
            let result = f(list);
            self.count.store(list.entries.len(), Ordering::Relaxed);
            result
        })
    }

    /// Registers a task, or changes what it waits for if it is registered under `key`. The caller
    /// then looks again whether it has happened.
    pub(crate) fn register(
        &self,
        me: usize,
        key: Option<usize>,
        until: u64,
        waker: &Waker,
    ) -> usize {
        let mut waker = waker.clone();
        let (key, old) = self.change(me, |list| {
            let known = list.entries.iter_mut().find(|entry| Some(entry.key) == key);
            if let Some(entry) = known {
                entry.until = until;
                std::mem::swap(&mut entry.waker, &mut waker);
                return (entry.key, Some(waker));
            }
            let key = list.next_key;
            list.next_key += 1;
            list.entries.push(Entry { key, until, waker });
            (key, None)
        });
        drop(old);
        // Pairs with the fence in `wake`; see the module's text.
        fence(Ordering::SeqCst);
        key
    }

    /// The task waits no more.
    pub(crate) fn forget(&self, me: usize, key: usize) {
        let gone = self.change(me, |list| {
            let at = list.entries.iter().position(|entry| entry.key == key)?;
            Some(list.entries.swap_remove(at))
        });
        drop(gone);
    }

    /// How many tasks are registered.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many tasks wait for what, by `kind`'s numbers for that; `None` if the list is in use. For reports.
    pub(crate) fn count_by<const KINDS: usize>(
        &self,
        me: usize,
        kind: impl Fn(u64) -> usize,
    ) -> Option<[usize; KINDS]> {
        let mut held = self.list.try_lock(me)?;
        held.with(|list| {
            let mut counts = [0; KINDS];
            list.entries.iter().for_each(|entry| counts[kind(entry.until)] += 1);
            Some(counts)
        })
    }

    /// Wakes those whose `until` satisfies `is_done`, which has just come true for some.
    pub(crate) fn wake(&self, me: usize, is_done: impl Fn(u64) -> bool) {
        // Pairs with the fence in `register`; see the module's text.
        fence(Ordering::SeqCst);
        if self.count() == 0 {
            return;
        }
        let done: Vec<Entry> = self
            .change(me, |list| list.entries.extract_if(.., |entry| is_done(entry.until)).collect());
        for entry in done {
            // A waker that panics stops nobody else's. What it panicked with is leaked: dropping it
            // may panic again.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| entry.waker.wake())) {
                let _ = std::mem::ManuallyDrop::new(payload);
            }
        }
    }

    /// Forgets everybody: for a domain that is being dropped.
    pub(crate) fn clear(&self, me: usize) {
        let all = self.change(me, |list| std::mem::take(&mut list.entries));
        drop(all);
    }

    /// Before `fork`: holds the list across it. False if another thread has it now.
    pub(crate) fn prepare_fork(&self, me: usize) -> bool {
        self.list.is_held_by(me) || self.list.try_lock_for_fork(me)
    }

    /// After `fork`, in the parent.
    pub(crate) fn parent_after_fork(&self, me: usize) {
        self.list.unlock_after_fork(me);
    }

    /// After `fork`, in the child: if the list was being changed by a thread that is not here, what was in
    /// it is lost.
    pub(crate) fn child_after_fork(&self, me: usize) {
        self.list.unlock_after_fork(me);
        if self.list.abandon_unless_mine(me) {
            self.change(me, |list| {
                let torn =
                    std::mem::replace(list, List { entries: Vec::new(), next_key: usize::MAX / 2 });
                let _ = std::mem::ManuallyDrop::new(torn);
            });
        }
    }
}
