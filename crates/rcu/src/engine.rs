//! The engine of one domain: grace periods, the callbacks that wait for them, and who drives.
//!
//! Nobody owns a thread here and nobody waits. Whoever calls [`Engine::poll`] tries to become the
//! driver, does one bounded step, and goes. Whoever calls [`Engine::drive`] also tries to become the
//! runner and runs callbacks that are ready. A lock that is taken means that someone else
//! is doing that very thing: the answer is `Pending`, come back later.
//!
//! No request is lost by that: a request is a number (`needed`) or a node (`incoming`) that
//! is written before the lock is tried, and every caller that finds the lock taken while
//! there is something to do is told `Pending`, so it comes back.

use crate::callbacks::{self, Buckets, Chain, Node};
use crate::grace::{Grace, Readers, Step};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, constant};
use crate::trylock::TryLock;
use std::ptr;
use std::time::Duration;

/// What a step came to, and so what its caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is waited for. No need to call again until something is.
    Idle,
    /// Something moved. Call again at once: there may be more to do.
    Advanced,
    /// Readers are inside their sections, or another thread is driving. Calling again before
    /// this much time has passed is allowed but unlikely to help.
    Pending(Duration),
}

/// Suggested when somebody else holds the lock: about one step.
const ONE_STEP: Duration = Duration::from_micros(5);

/// Callbacks run by one call of `drive` at most.
pub(crate) const RUN_AT_MOST: usize = 4096;

/// When to look again, after looking this many times in vain. Short at first, because most
/// sections are; then rarely, because those that are not can last for seconds.
pub(crate) fn delay(attempts: usize) -> Duration {
    match attempts {
        0..8 => ONE_STEP,
        8..32 => Duration::from_micros(50),
        32..96 => Duration::from_millis(1),
        _ => Duration::from_millis(10),
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) grace: Grace,
    incoming: AtomicPtr<Node>,
    /// Callbacks queued and not yet run to their end.
    pending: AtomicUsize,
    panics: AtomicU64,
    /// How many want grace periods to be driven without pauses; see `Domain::expedite`.
    expedited: AtomicUsize,
    driver: TryLock<Buckets>,
    runner: TryLock<()>,
    /// What the runner has taken, linked by `next`, oldest first. Only the runner touches it; an
    /// atomic so that a forked child finds it whole.
    running: AtomicPtr<Node>,
}

impl Engine {
    constant! {
        pub(crate) fn new() -> Self {
            Self {
                grace: Grace::new(),
                incoming: AtomicPtr::new(ptr::null_mut()),
                pending: AtomicUsize::new(0),
                panics: AtomicU64::new(0),
                expedited: AtomicUsize::new(0),
                driver: TryLock::new(Buckets::new()),
                runner: TryLock::new(()),
                running: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    /// Queues a callback. Lock-free, never waits.
    pub(crate) fn call(&self, f: impl FnOnce() + Send + 'static) {
        let node = callbacks::boxed(f);
        // Before the push, so that the count never falls below what is queued.
        self.pending.fetch_add(1, Ordering::Relaxed);
        let mut top = self.incoming.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours alone until the exchange below succeeds.
            unsafe { (*node).next = top };
            // Release: pairs with the acquire in `collect`; what the caller removed and what it
            // wrote into the callback come before the cookie and the run. No ABA: nodes
            // leave the stack only all at once.
            let pushed = self.incoming.compare_exchange_weak(
                top,
                node,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match pushed {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Callbacks queued whose run has not ended.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Callbacks that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Whether the thread with this token is running callbacks now.
    pub(crate) fn is_running_callbacks(&self, me: usize) -> bool {
        self.runner.is_held_by(me)
    }

    /// One bounded step of the grace-period machine. Runs no callbacks.
    pub(crate) fn poll(&self, readers: &impl Readers, me: usize) -> Progress {
        let Some(mut driver) = self.driver.try_lock(me) else {
            return if self.is_quiet() { Progress::Idle } else { Progress::Pending(ONE_STEP) };
        };
        let step = driver.with(|buckets| {
            // Before the step: a grace period that begins now serves what is queued now.
            self.collect(buckets);
            let step = self.grace.step(readers);
            if step == Step::Ended {
                buckets.sweep(|cookie| self.grace.is_done(cookie));
            }
            step
        });
        match step {
            Step::Idle => Progress::Idle,
            Step::Ended | Step::Advanced => Progress::Advanced,
            Step::Waiting(_) if self.is_expedited() => Progress::Pending(ONE_STEP),
            Step::Waiting(attempts) => Progress::Pending(delay(attempts)),
        }
    }

    /// One more, or one fewer, who is in a hurry.
    pub(crate) fn expedite(&self, wanted: bool) {
        // Relaxed: it decides how long to pause, and nothing else.
        if wanted {
            self.expedited.fetch_add(1, Ordering::Relaxed);
        } else {
            self.expedited.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_expedited(&self) -> bool {
        self.expedited.load(Ordering::Relaxed) != 0
    }

    fn is_quiet(&self) -> bool {
        !self.grace.is_wanted() && self.incoming.load(Ordering::Relaxed).is_null()
    }

    /// Takes what was queued, then a cookie for it: in this order (see `callbacks`).
    fn collect(&self, buckets: &mut Buckets) {
        if self.incoming.load(Ordering::Relaxed).is_null() {
            return;
        }
        // Acquire: pairs with the release in `call`.
        let stack = self.incoming.swap(ptr::null_mut(), Ordering::Acquire);
        if !stack.is_null() {
            let cookie = self.grace.snapshot();
            buckets.file(stack, cookie);
            self.grace.request(cookie);
        }
    }

    /// One step of `poll`, and up to [`RUN_AT_MOST`] ready callbacks, outside the driver's lock.
    pub(crate) fn drive(&self, readers: &impl Readers, me: usize) -> Progress {
        let progress = self.poll(readers, me);
        if self.pending() == 0 || self.is_running_callbacks(me) {
            return progress;
        }
        match self.run_ready(me) {
            Some(0) if progress == Progress::Idle && self.pending() != 0 => Progress::Advanced,
            Some(0) => progress,
            Some(_) => Progress::Advanced,
            None => match progress {
                Progress::Idle => Progress::Pending(ONE_STEP),
                other => other,
            },
        }
    }

    /// Runs what is ready. `None` if another thread is at it.
    fn run_ready(&self, me: usize) -> Option<usize> {
        let _runner = self.runner.try_lock(me)?;
        let mut count = 0;
        while count < RUN_AT_MOST {
            let node = self.running.load(Ordering::Relaxed);
            if node.is_null() {
                let ready = match self.driver.try_lock(me) {
                    Some(mut driver) => driver.with(Buckets::take_ready),
                    None => break,
                };
                if ready.is_empty() {
                    break;
                }
                self.running.store(ready.into_run_order(), Ordering::Relaxed);
                continue;
            }
            // SAFETY: the runner's lock is ours, so the list is, and its nodes are live.
            self.running.store(unsafe { (*node).next }, Ordering::Relaxed);
            self.run(node);
            count += 1;
        }
        Some(count)
    }

    fn run(&self, node: *mut Node) {
        // SAFETY: the caller took the node out of the list that it owns, so it is in none
        // and was not run.
        if !unsafe { callbacks::run(node) } {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        // Release: whoever reads 0 in `pending` sees what the callbacks did.
        self.pending.fetch_sub(1, Ordering::Release);
    }

    /// Runs every callback, done or not: only when nobody else can reach the engine and no
    /// section is open, which is when its domain is dropped.
    pub(crate) fn run_all_unobserved(&self, me: usize) {
        self.grace.end_unobserved();
        self.expedited.store(0, Ordering::Relaxed);
        loop {
            let left = self.running.swap(ptr::null_mut(), Ordering::Acquire);
            self.run_list(left);
            let Some(mut driver) = self.driver.try_lock(me) else { return };
            let old = driver.with(Buckets::take_all);
            drop(driver);
            let stack = self.incoming.swap(ptr::null_mut(), Ordering::Acquire);
            if old.is_empty() && stack.is_null() {
                return;
            }
            self.run_list(old.into_run_order());
            self.run_list(Chain::of_stack(stack).into_run_order());
        }
    }

    fn run_list(&self, mut node: *mut Node) {
        while !node.is_null() {
            // SAFETY: the caller owns the list; its nodes are live. Read before the run.
            let next = unsafe { (*node).next };
            self.run(node);
            node = next;
        }
    }

    /// Before `fork`: holds the driver's lock across it, so that the child finds the buckets
    /// whole. False if another thread has it now.
    pub(crate) fn prepare_fork(&self, me: usize) -> bool {
        // A fork from a signal handler that interrupted this thread's own step: the step
        // goes on in the child, where this thread exists.
        self.driver.is_held_by(me) || self.driver.try_lock_for_fork(me)
    }

    /// After `fork`, in the parent.
    pub(crate) fn parent_after_fork(&self, me: usize) {
        self.driver.unlock_after_fork(me);
    }

    /// After `fork`, in the child, which has no other thread.
    ///
    /// What a lost thread was running at that moment is lost; everything queued is kept. If
    /// `prepare_fork` did not get the lock, what was in the buckets is lost too (leaked).
    pub(crate) fn child_after_fork(&self, me: usize) {
        self.driver.unlock_after_fork(me);
        if self.driver.abandon_unless_mine(me) {
            if let Some(mut driver) = self.driver.try_lock(me) {
                driver.with(|buckets| *buckets = Buckets::new());
            }
            self.grace.restart_scan();
        }
        self.runner.abandon_unless_mine(me);
        let mut count = callbacks::count_list(self.running.load(Ordering::Relaxed))
            + callbacks::count_list(self.incoming.load(Ordering::Relaxed));
        if let Some(mut driver) = self.driver.try_lock(me) {
            count += driver.with(|buckets| buckets.count());
        }
        if self.is_running_callbacks(me) {
            count += 1;
        }
        self.pending.store(count, Ordering::Relaxed);
    }
}
