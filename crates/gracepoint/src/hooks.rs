//! Hooks of a tracepoint: called when its first probe or session comes, and after the last has gone (the
//! kernel's `regfunc` and `unregfunc`).
//!
//! They run on the thread that makes the change and under no lock, so they may do anything, attach and
//! detach included. Nobody waits for one: `wanted` says what the tracepoint's state is, under the
//! tracer's lock; whoever changed it tries to become the hook's caller, and calls until `applied` is what
//! is wanted. A thread that finds another at it goes on: the other looks once more after it has
//! given up the role, and the two SeqCst accesses on each side (`wanted` then `busy` here, `busy` then
//! `wanted` there) leave no gap in which both miss the change. So calls alternate and never overlap.

use crate::tracer::{self, KeyId};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

type Changed = dyn Fn(bool) + Send + Sync;

/// One hook.
pub(crate) struct Hook {
    wanted: AtomicBool,
    /// What was last told. Written by who is `busy` alone.
    applied: AtomicBool,
    busy: AtomicBool,
    closed: AtomicBool,
    changed: Box<Changed>,
}

impl Hook {
    pub(crate) fn new(changed: Box<Changed>, wanted: bool) -> Hook {
        let [applied, busy, closed] = [const { AtomicBool::new(false) }; 3];
        Hook { wanted: AtomicBool::new(wanted), applied, busy, closed, changed }
    }

    /// Notes the tracepoint's state. The caller holds the tracer's lock, and calls
    /// [`settle`](Self::settle) when it does not any more. True if there is something to settle.
    pub(crate) fn want(&self, used: bool) -> bool {
        self.wanted.store(used, SeqCst);
        self.is_due()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    fn is_due(&self) -> bool {
        self.wanted.load(SeqCst) != self.applied.load(SeqCst) && !self.closed.load(SeqCst)
    }

    /// Calls the hook until it has been told what is.
    pub(crate) fn settle(&self) {
        while self.is_due() && !self.busy.swap(true, SeqCst) {
            while self.is_due() {
                let used = self.wanted.load(SeqCst);
                if catch_unwind(AssertUnwindSafe(|| (self.changed)(used))).is_err() {
                    self.close();
                }
                self.applied.store(used, SeqCst);
            }
            self.busy.store(false, SeqCst);
        }
    }
}

/// Keeps a hook of a tracepoint; made by [`Tracepoint::on_use`](crate::Tracepoint::on_use). When it is
/// dropped the hook is not called any more (a call under way goes on).
#[must_use = "the hook is gone when this is dropped"]
pub struct UseHook {
    hook: Arc<Hook>,
    key: KeyId,
}

impl UseHook {
    pub(crate) fn new(hook: Arc<Hook>, key: KeyId) -> UseHook {
        UseHook { hook, key }
    }
}

impl Drop for UseHook {
    fn drop(&mut self) {
        self.hook.close();
        tracer::unhook(self.key, &self.hook);
    }
}

impl fmt::Debug for UseHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.hook.wanted.load(SeqCst);
        f.debug_struct("UseHook").field("used", &used).finish_non_exhaustive()
    }
}
