//! The engine of one domain: grace periods, the callbacks that wait for them, and who drives.
//!
//! Nobody owns a thread here and nobody waits. Whoever calls [`Engine::poll`] tries to become the driver, does one
//! bounded step, and goes. Whoever calls [`Engine::drive`] also tries to become the runner and runs callbacks that
//! are ready. A lock that is taken means that someone else is doing that very thing: the answer is `Pending`, come
//! back later. Unless it does not get done: a driver that was preempted or stopped inside of its step is left alone
//! with its lock, and others step beside it (`poll_beside`).
//!
//! No request is lost by that: a request is a number (`needed`) or a node (`incoming`) that is written before the
//! lock is tried, and every caller that finds the lock taken is told `Pending`, so it comes back. (Never `Idle`: what
//! the owner of the lock has in its hands, a stack that it has taken and not yet filed, nobody else can see; and it
//! may not come back itself.)
//!
//! # A thread that sleeps
//!
//! A domain may have a thread (`service`), which sleeps while there is nothing to do. Two words wake it:
//!
//! * `incoming` holds `ASLEEP` in place of null. The thread puts it there by compare-exchange from null, so if a
//!   callback was pushed first it fails, and does not sleep; and a callback that is pushed onto it tells its caller to
//!   wake the thread. One word and one order of its changes, so no fence: `call` costs the same with a thread and without.
//! * `asleep` is for requests, which are another word (`needed`). The thread stores `asleep`, fence, looks for
//!   requests; who requests stores `needed`, fence, looks at `asleep`. Whose fence comes second sees the other's store.
//!   Without either fence, or without the second look, a request that comes in between finds nobody asleep and nobody
//!   sees it (twins in `tests/loom_updaters.rs`).
//!
//! Whoever exchanges `asleep` from true to false has to wake the thread; nobody else.
//!
//! The thread's second look is under the driver's lock. A step of another may have taken the callback off `incoming`
//! and not yet filed it, or ended its grace period and not yet said that it is ready: beside such a step there seems
//! to be nothing to do. If that step began after the look, it found `ASLEEP`, or its caller did.

use crate::arch;
use crate::blocks::Spent;
use crate::callbacks::{self, Buckets, Chain, Kind, Node, Scout};
use crate::clock;
use crate::grace::{Counting, Grace, Readers, Step, number_of_cookie};
use crate::observer::{Event, Observed};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering, constant, fence, unexplored};
use crate::trylock::TryLock;
use crate::wakers::{RUNNER, Wakers};
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
pub(crate) const ONE_STEP: Duration = Duration::from_micros(5);

/// How long a driver may be in its step, in nanoseconds, before others step beside it.
const PATIENCE: u64 = 1_000_000;

/// With very many callbacks, how often to look in vain before pausing: some 10 ms.
const FLOODED: usize = 2048;

/// Callbacks run by one call of `drive` at most.
pub(crate) const RUN_AT_MOST: usize = 4096;

/// In place of null in `incoming`: the domain's thread sleeps. No node has this address.
const ASLEEP: *mut Node = ptr::without_provenance_mut(1);

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
    pub(crate) queue: Queue,
    ran: Ran,
    driver: TryLock<Buckets>,
    runner: TryLock<()>,
    /// The runner's while it has taken callbacks and they are not in `running` yet, so that a fork can wait.
    taking: TryLock<()>,
    /// How many want grace periods to be driven without pauses; see `Domain::expedite`.
    expedited: unexplored::AtomicUsize,
    /// There are so many callbacks that they all do.
    flooded: unexplored::AtomicBool,
    /// When somebody first found the driver's lock taken, since a driver last took it; 0 if nobody did.
    held_since: unexplored::AtomicU64,
    /// When the grace period that runs began.
    begun: unexplored::AtomicU64,
    /// Heavy barriers since the domain was made.
    barriers: unexplored::AtomicU64,
    /// Grace periods and callbacks of the domains that had this memory before.
    before: (unexplored::AtomicU64, unexplored::AtomicU64),
    /// As `barriers` was when the grace period that runs began.
    barriers_before: unexplored::AtomicU64,
    /// When the oldest callback in the buckets was queued; 0 if there is none. The driver's.
    oldest_filed: AtomicU64,
    /// The cookies that callbacks in the buckets wait for, 0 where none do; for reports. The driver's.
    awaited: [unexplored::AtomicU64; 2],
    /// Whether callbacks are ready that no runner has taken. The driver's.
    ready: unexplored::AtomicBool,
    asleep: AtomicBool,
    pub(crate) wakers: Wakers,
    pub(crate) observed: Observed,
}

/// What callers of `call` write: lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Queue {
    incoming: AtomicPtr<Node>,
    /// When `incoming` was last found empty by a caller.
    since: unexplored::AtomicU64,
}

/// What the runner writes.
#[derive(Debug)]
#[repr(align(128))]
struct Ran {
    /// Callbacks whose run has ended, ever.
    done: unexplored::AtomicU64,
    panics: unexplored::AtomicU64,
    /// What the runner has taken, linked by `next`, oldest first. Only the runner touches it; an
    /// atomic so that a forked child finds it whole.
    running: AtomicPtr<Node>,
    /// When the first of those was queued.
    since: AtomicU64,
    now: Now,
}

/// The callback that runs now, for reports.
#[derive(Debug)]
struct Now {
    /// Null while none does.
    kind: unexplored::AtomicPtr<Kind>,
    /// By `clock::coarse`.
    since: unexplored::AtomicU64,
    /// The `threads::Word` of who runs it.
    runner: unexplored::AtomicUsize,
}

/// What [`Now`] says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) kind: &'static Kind,
    pub(crate) since: u64,
    pub(crate) runner: usize,
    /// The how-manyeth callback of its domain it is, from 1.
    pub(crate) number: u64,
}

impl Engine {
    /// Where the words are that `mirror` tells of, in its order.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 10] = [
        std::mem::offset_of!(Engine, ran.done),
        std::mem::offset_of!(Engine, queue.incoming),
        std::mem::offset_of!(Engine, queue.since),
        std::mem::offset_of!(Engine, oldest_filed),
        std::mem::offset_of!(Engine, ran.running),
        std::mem::offset_of!(Engine, ran.since),
        std::mem::offset_of!(Engine, ran.now.kind),
        std::mem::offset_of!(Engine, ran.now.since),
        std::mem::offset_of!(Engine, ran.now.runner),
        std::mem::offset_of!(Engine, ready),
    ];

    constant! {
        pub(crate) fn new() -> Self {
            Self {
                grace: Grace::new(),
                queue: Queue {
                    incoming: AtomicPtr::new(ptr::null_mut()),
                    since: unexplored::AtomicU64::new(0),
                },
                ran: Ran {
                    done: unexplored::AtomicU64::new(0),
                    panics: unexplored::AtomicU64::new(0),
                    running: AtomicPtr::new(ptr::null_mut()),
                    since: AtomicU64::new(0),
                    now: Now {
                        kind: unexplored::AtomicPtr::new(ptr::null_mut()),
                        since: unexplored::AtomicU64::new(0),
                        runner: unexplored::AtomicUsize::new(0),
                    },
                },
                driver: TryLock::new(Buckets::new()),
                runner: TryLock::new(()),
                taking: TryLock::new(()),
                expedited: unexplored::AtomicUsize::new(0),
                flooded: unexplored::AtomicBool::new(false),
                held_since: unexplored::AtomicU64::new(0),
                begun: unexplored::AtomicU64::new(0),
                barriers: unexplored::AtomicU64::new(0),
                before: (unexplored::AtomicU64::new(0), unexplored::AtomicU64::new(0)),
                barriers_before: unexplored::AtomicU64::new(0),
                oldest_filed: AtomicU64::new(0),
                awaited: [unexplored::AtomicU64::new(0), unexplored::AtomicU64::new(0)],
                ready: unexplored::AtomicBool::new(false),
                asleep: AtomicBool::new(false),
                wakers: Wakers::new(),
                observed: Observed::new(),
            }
        }
    }

    /// Queues a callback. Lock-free, never waits. True if the domain's thread is to be woken.
    #[inline]
    pub(crate) fn call(&self, f: impl FnOnce() + Send + 'static) -> bool {
        self.push(callbacks::new(f))
    }

    #[inline]
    fn push(&self, node: *mut Node) -> bool {
        let queue = &self.queue;
        let mut top = queue.incoming.load(Ordering::Relaxed);
        loop {
            let was_empty = is_empty(top);
            if was_empty {
                queue.since.store(clock::coarse(), Ordering::Relaxed);
            }
            let below = if was_empty { ptr::null_mut() } else { top };
            // SAFETY: the node is ours alone until the exchange below succeeds.
            unsafe { (*node).next = below };
            // Release: pairs with the acquire and the fence in `collect`; what the caller removed and what it
            // wrote into the callback come before the cookie and the run. Acquire: pairs with the
            // release in `fall_asleep`, so that who finds ASLEEP sees `asleep` too. No ABA: nodes
            // leave the stack only all at once.
            let pushed = queue.incoming.compare_exchange_weak(
                top,
                node,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match pushed {
                // Release: pairs with `is_asleep` and the fence in `announce_sleep`; the thread that is woken sees what was queued
                // before it sleeps again.
                Ok(_) => return top == ASLEEP && self.asleep.swap(false, Ordering::Release),
                Err(now) => top = now,
            }
        }
    }

    /// Whether callbacks are queued or running. If not, and nobody drives, what they did is seen.
    pub(crate) fn has_callbacks(&self) -> bool {
        self.oldest().is_some()
    }

    /// Callbacks whose run has ended. Acquire: pairs with the release in `run`.
    pub(crate) fn done(&self) -> u64 {
        self.ran.done.load(Ordering::Acquire)
    }

    /// Grace periods that have ended and callbacks that have run, for this domain.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let (grace, done) = &self.before;
        let since = |now: u64, before: &unexplored::AtomicU64| {
            now.wrapping_sub(before.load(Ordering::Relaxed))
        };
        (since(self.grace.ended(), grace), since(self.done(), done))
    }

    /// For the next domain: starts to count again.
    fn forget_totals(&self) {
        self.before.0.store(self.grace.ended(), Ordering::Relaxed);
        self.before.1.store(self.done(), Ordering::Relaxed);
        self.barriers.store(0, Ordering::Relaxed);
        self.ran.panics.store(0, Ordering::Relaxed);
    }

    /// Callbacks that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.ran.panics.load(Ordering::Relaxed)
    }

    /// Heavy barriers that grace periods have taken.
    pub(crate) fn barriers(&self) -> u64 {
        self.barriers.load(Ordering::Relaxed)
    }

    /// When the grace period that runs began, by `clock`; `None` if none runs.
    pub(crate) fn begun(&self) -> Option<u64> {
        self.grace.running().map(|_| self.begun.load(Ordering::Relaxed))
    }

    /// When the oldest callback that has not run was queued, by `clock::coarse`.
    pub(crate) fn oldest(&self) -> Option<u64> {
        // In the order in which callbacks move, so that one that moves meanwhile is seen at least
        // once (but while a driver has it in his hands). One that has only just run may be seen too.
        // Acquire: pairs with the release in `push`; `since` is of what is there, and not 0.
        let incoming = match is_empty(self.queue.incoming.load(Ordering::Acquire)) {
            true => 0,
            false => self.queue.since.load(Ordering::Relaxed),
        };
        // Acquire: pairs with the release in `take_ready`.
        let filed = self.oldest_filed.load(Ordering::Acquire);
        // Acquire: pairs with the release in `run_ready`; what has run is seen.
        let running = self.ran.since.load(Ordering::Acquire);
        [running, filed, incoming].into_iter().find(|since| *since != 0)
    }

    /// The callback that runs now, if there is one.
    pub(crate) fn running(&self) -> Option<Running> {
        let (now, done) = (&self.ran.now, self.done());
        // Acquire, twice: pairs with the releases in `run`.
        let kind = now.kind.load(Ordering::Acquire);
        let since = now.since.load(Ordering::Acquire);
        let runner = now.runner.load(Ordering::Relaxed);
        // A later one's time would not be this one's, and is seen only with its `done`.
        let still = self.done() == done && ptr::eq(now.kind.load(Ordering::Relaxed), kind);
        // SAFETY: null, or what `run` stored, which is a `&'static Kind`.
        let kind = unsafe { kind.as_ref::<'static>() }.filter(|_| still)?;
        let number = done.wrapping_sub(self.before.1.load(Ordering::Relaxed)) + 1;
        Some(Running { kind, since, runner, number })
    }

    /// Whether the thread with this token is running callbacks now.
    pub(crate) fn is_running_callbacks(&self, me: usize) -> bool {
        self.runner.is_held_by(me)
    }

    /// One bounded step of the grace-period machine. Runs no callbacks.
    pub(crate) fn poll(&self, readers: &impl Readers, me: usize) -> Progress {
        let Some(mut driver) = self.driver.try_lock(me) else {
            return self.poll_beside(readers);
        };
        if self.held_since.load(Ordering::Relaxed) != 0 {
            self.held_since.store(0, Ordering::Relaxed);
        }
        let before = self.grace.running();
        let step = driver.with(|buckets| {
            // Before the step: a grace period that begins now serves what is queued now.
            self.collect(buckets);
            let step = self.step(before.is_some(), readers);
            self.sweep(buckets);
            step
        });
        let told = self.what_to_tell(step, before);
        drop(driver);
        self.tell_of_step(told);
        self.progress(step)
    }

    /// `poll` while another thread is driving. If that thread has not come out of its step for [`PATIENCE`], it
    /// has been preempted in it, or stopped: then this one steps beside it, as `grace` allows. What callbacks it has
    /// in its hands wait for it all the same.
    #[cold]
    fn poll_beside(&self, readers: &impl Readers) -> Progress {
        let now = clock::now();
        let (order, held_since) = (Ordering::Relaxed, &self.held_since);
        // Who drives next makes it 0 again. If that is never seen here, the lock may have changed hands, and
        // this step is one too many.
        let since = held_since.compare_exchange(0, now, order, order).unwrap_or_else(|since| since);
        if since == 0 || now.saturating_sub(since) < PATIENCE {
            return Progress::Pending(ONE_STEP);
        }
        let before = self.grace.running();
        let step = self.step(before.is_some(), readers);
        self.tell_of_step(self.what_to_tell(step, before));
        match step {
            Step::Idle => Progress::Pending(ONE_STEP),
            other => self.progress(other),
        }
    }

    fn step(&self, runs: bool, readers: &impl Readers) -> Step {
        if !runs {
            self.begins();
        }
        self.grace.step(&Counting { readers, barriers: &self.barriers })
    }

    fn progress(&self, step: Step) -> Progress {
        match step {
            Step::Idle => Progress::Idle,
            Step::Ended | Step::Advanced => Progress::Advanced,
            Step::Waiting(attempts) => Progress::Pending(self.pause(attempts)),
        }
    }

    /// A grace period may begin in this step. Exact times only for who observes them.
    fn begins(&self) {
        if self.grace.is_wanted() {
            let now = if self.observed.is_on() { clock::now() } else { clock::coarse() };
            self.begun.store(now, Ordering::Relaxed);
            self.barriers_before.store(self.barriers.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn barriers_taken(&self) -> u64 {
        let before = self.barriers_before.load(Ordering::Relaxed);
        self.barriers.load(Ordering::Relaxed).wrapping_sub(before)
    }

    /// What an observer is to be told of a step, `before` which this grace period ran.
    fn what_to_tell(&self, step: Step, before: Option<u64>) -> Option<Told> {
        if step == Step::Idle || !self.observed.is_on() {
            return None;
        }
        let number = before.unwrap_or_else(|| self.grace.ended() + u64::from(step != Step::Ended));
        let ended = (step == Step::Ended)
            .then(|| (self.begun.load(Ordering::Relaxed), self.barriers_taken()));
        Some(Told { number, began: before.is_none(), ended })
    }

    fn tell_of_step(&self, told: Option<Told>) {
        let Some(Told { number, began, ended }) = told else { return };
        if began {
            self.observed.tell(&Event::GracePeriodBegan { number });
        }
        if let Some((begun, heavy_barriers)) = ended {
            let duration = Duration::from_nanos(clock::now().saturating_sub(begun));
            self.observed.tell(&Event::GracePeriodEnded { number, duration, heavy_barriers });
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

    /// There are very many callbacks, or not any more.
    pub(crate) fn flood(&self, flooded: bool) {
        self.flooded.store(flooded, Ordering::Relaxed);
    }

    /// Whether there were very many callbacks when that was last looked at.
    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Whether somebody is in a hurry, or there are very many callbacks: then nobody pauses for longer than
    /// `poll` says.
    pub(crate) fn is_expedited(&self) -> bool {
        self.expedited.load(Ordering::Relaxed) != 0 || self.is_flooded()
    }

    /// When to look again at readers who were still inside.
    fn pause(&self, attempts: usize) -> Duration {
        if self.expedited.load(Ordering::Relaxed) != 0 {
            ONE_STEP
        } else if self.is_flooded() {
            // Nobody has asked for a processor that is kept busy while a reader sleeps.
            if attempts < FLOODED {
                ONE_STEP
            } else {
                delay(attempts).min(Duration::from_millis(1))
            }
        } else {
            delay(attempts)
        }
    }

    /// Takes what was queued, then a cookie for it: in this order (see `callbacks`).
    fn collect(&self, buckets: &mut Buckets) {
        let incoming = &self.queue.incoming;
        // Acquire: pairs with the release in `push`; `since` is of these callbacks, and not 0.
        if is_empty(incoming.load(Ordering::Acquire)) {
            return;
        }
        let since = self.queue.since.load(Ordering::Relaxed);
        // Relaxed: the fence in `snapshot`, behind it, makes an acquire of it, which pairs with the release in `push`.
        // Not ASLEEP, since the thread only puts that in place of null, and only a driver makes it null.
        let stack = incoming.swap(ptr::null_mut(), Ordering::Relaxed);
        let cookie = self.grace.snapshot();
        // After that: then what is left waits for this cookie, or for the one before.
        self.sweep(buckets);
        buckets.file(Chain::of_stack(stack, since), cookie);
        self.grace.request(cookie);
        // Relaxed: nobody concludes anything from callbacks being there.
        self.oldest_filed.store(buckets.oldest(), Ordering::Relaxed);
        self.note_awaited(buckets);
    }

    /// Makes ready what waits for it no longer, whoever ended its grace period.
    fn sweep(&self, buckets: &mut Buckets) {
        if buckets.sweep(|cookie| self.grace.is_done(cookie)) {
            self.ready.store(true, Ordering::Relaxed);
            self.note_awaited(buckets);
        }
    }

    fn note_awaited(&self, buckets: &Buckets) {
        for (word, cookie) in self.awaited.iter().zip(buckets.cookies()) {
            word.store(cookie, Ordering::Relaxed);
        }
    }

    /// Which grace periods callbacks wait for while the one of this number runs: for that, for the one after. Neither
    /// is true where all that there are could run.
    pub(crate) fn callbacks_wait_for(&self, running: u64) -> (bool, bool) {
        let number = |word: &unexplored::AtomicU64| number_of_cookie(word.load(Ordering::Relaxed));
        let is_for = |wanted| self.awaited.iter().any(|word| number(word) == wanted);
        // What no driver has taken yet gets a cookie for the one after.
        let queued = !is_empty(self.queue.incoming.load(Ordering::Relaxed));
        (is_for(running), queued || is_for(running + 1))
    }

    /// One step of `poll`, and up to [`RUN_AT_MOST`] ready callbacks, outside the driver's lock.
    pub(crate) fn drive(&self, readers: &impl Readers, me: usize) -> Progress {
        let progress = self.poll(readers, me);
        if !self.has_callbacks() || self.is_running_callbacks(me) {
            return progress;
        }
        match self.run_ready(me) {
            // Some came just now.
            Some(0) if progress == Progress::Idle && self.has_callbacks() => Progress::Advanced,
            Some(0) => progress,
            Some(_) => Progress::Advanced,
            None => match progress {
                Progress::Idle => Progress::Pending(ONE_STEP),
                other => other,
            },
        }
    }

    /// Wakes tasks whose grace period has ended, and those that wait for callbacks which somebody else
    /// runs: after each `poll` that advanced, and each `drive`.
    pub(crate) fn wake_tasks(&self, me: usize) {
        // A runner who is at it does this when he is not any more. (A task that has registered tries to be
        // the runner itself, and by this would wake itself as long as another is.)
        let is_done = |until| match until {
            RUNNER => !self.runner.is_held(),
            cookie => self.grace.is_done(cookie),
        };
        self.wakers.wake(me, is_done);
    }

    /// Whether callbacks could run now if somebody ran them.
    ///
    /// Relaxed: a hint. Who runs them finds them under the locks.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) || !self.ran.running.load(Ordering::Relaxed).is_null()
    }

    /// Runs what is ready, up to [`RUN_AT_MOST`]. `None` if another thread is at it.
    pub(crate) fn run_ready(&self, me: usize) -> Option<usize> {
        let runner = self.runner.try_lock(me)?;
        let begun = if self.observed.is_on() { clock::now() } else { 0 };
        self.ran.now.runner.store(arch::slot_word(), Ordering::Relaxed);
        let (mut count, mut spent) = (0, Spent::NONE);
        // SAFETY: the runner's lock is ours, so nobody else changes the list.
        let scout = || unsafe { Scout::before(self.ran.running.load(Ordering::Relaxed)) };
        let mut ahead = scout();
        while count < RUN_AT_MOST {
            let node = self.ran.running.load(Ordering::Relaxed);
            if node.is_null() {
                if !self.take_ready(me) {
                    break;
                }
                ahead = scout();
                continue;
            }
            // SAFETY: nothing was taken since, or it went on.
            unsafe { ahead.go_on() };
            // SAFETY: the runner's lock is ours, so the list is, and its nodes are live.
            self.ran.running.store(unsafe { (*node).next }, Ordering::Relaxed);
            self.run(node, &mut spent);
            count += 1;
        }
        if self.ran.running.load(Ordering::Relaxed).is_null() {
            // Release: pairs with the acquire in `oldest`, by which `has_callbacks` says no.
            self.ran.since.store(0, Ordering::Release);
        }
        if count != 0 && begun != 0 {
            let duration = Duration::from_nanos(clock::now().saturating_sub(begun));
            self.observed.tell(&Event::CallbacksRan { count, duration });
        }
        drop(runner);
        Some(count)
    }

    /// Makes what is ready what runs. False if nothing is, or another thread drives.
    fn take_ready(&self, me: usize) -> bool {
        // Both are tried: a thread that forks has them for a moment, and then there is more to do.
        let Some(_taking) = self.taking.try_lock(me) else { return false };
        let Some(mut driver) = self.driver.try_lock(me) else { return false };
        let ready = driver.with(|buckets| {
            let ready = buckets.take_ready();
            // Before the buckets say that they do not have it. Release: if there was nothing more, all has run, and
            // this pairs with the acquire in `oldest`.
            self.ran.since.store(ready.since().unwrap_or(0), Ordering::Release);
            // Release: pairs with the acquire in `oldest`; who does not find it here any more finds it there.
            self.oldest_filed.store(buckets.oldest(), Ordering::Release);
            self.ready.store(false, Ordering::Relaxed);
            ready
        });
        drop(driver);
        self.ran.running.store(ready.into_run_order(), Ordering::Relaxed);
        !ready.is_empty()
    }

    fn run(&self, node: *mut Node, spent: &mut Spent) {
        let report = |message: &str| {
            self.ran.panics.fetch_add(1, Ordering::Relaxed);
            self.observed.tell(&Event::CallbackPanicked { message });
        };
        let now = &self.ran.now;
        // Release: who sees this time sees that the callback before is done; pairs with the acquire in `running`.
        now.since.store(clock::coarse(), Ordering::Release);
        // SAFETY: live until it is run, below.
        let kind = ptr::from_ref(unsafe { callbacks::kind(node) }).cast_mut();
        // Release: who sees this sees since when, and who; pairs with the acquire in `running`.
        now.kind.store(kind, Ordering::Release);
        // SAFETY: the caller took the node out of the list that it owns, so it is in none
        // and was not run.
        unsafe { callbacks::run(node, spent, report) };
        now.kind.store(ptr::null_mut(), Ordering::Relaxed);
        // One runner at a time writes this. Release: pairs with the acquire in `pending`.
        let done = self.ran.done.load(Ordering::Relaxed);
        self.ran.done.store(done.wrapping_add(1), Ordering::Release);
    }

    /// Runs every callback, done or not: only when nobody else can reach the engine and no
    /// section is open, which is when its domain is dropped.
    pub(crate) fn run_all_unobserved(&self, me: usize) {
        self.grace.end_unobserved();
        self.expedited.store(0, Ordering::Relaxed);
        self.ready.store(false, Ordering::Relaxed);
        self.oldest_filed.store(0, Ordering::Relaxed);
        self.note_awaited(&Buckets::new());
        self.ran.since.store(0, Ordering::Relaxed);
        self.wakers.clear(me);
        loop {
            // Relaxed, here and below: whatever let nobody else reach the engine came after what they did.
            let left = self.ran.running.swap(ptr::null_mut(), Ordering::Relaxed);
            self.run_list(left);
            let Some(mut driver) = self.driver.try_lock(me) else { return };
            let old = driver.with(Buckets::take_all);
            drop(driver);
            let stack = self.queue.incoming.swap(ptr::null_mut(), Ordering::Relaxed);
            if old.is_empty() && is_empty(stack) {
                self.asleep.store(false, Ordering::Relaxed);
                self.observed.clear();
                self.forget_totals();
                return;
            }
            self.run_list(old.into_run_order());
            if !is_empty(stack) {
                self.run_list(Chain::of_stack(stack, 0).into_run_order());
            }
        }
    }

    fn run_list(&self, mut node: *mut Node) {
        let mut spent = Spent::NONE;
        while !node.is_null() {
            // SAFETY: the caller owns the list; its nodes are live. Read before the run.
            let next = unsafe { (*node).next };
            self.run(node, &mut spent);
            node = next;
        }
    }

    /// Before `fork`: holds the driver's lock, the runner's chain and the wakers' lock across it, so that the
    /// child finds what they guard whole. False if another thread has one of them now.
    pub(crate) fn prepare_fork(&self, me: usize) -> bool {
        // A fork from a signal handler that interrupted this thread's own step: the step
        // goes on in the child, where this thread exists.
        let driver = self.driver.is_held_by(me) || self.driver.try_lock_for_fork(me);
        let taking = self.taking.is_held_by(me) || self.taking.try_lock_for_fork(me);
        driver && taking && self.wakers.prepare_fork(me)
    }

    /// After `fork`, in the parent.
    pub(crate) fn parent_after_fork(&self, me: usize) {
        self.driver.unlock_after_fork(me);
        self.taking.unlock_after_fork(me);
        self.wakers.parent_after_fork(me);
    }

    /// After `fork`, in the child, which has no other thread.
    ///
    /// The callback that a lost thread was running at that moment is lost; everything queued is kept. If
    /// `prepare_fork` did not get the locks, what was in the buckets or just taken is lost too (leaked). `called` is how
    /// many were queued ever.
    pub(crate) fn child_after_fork(&self, me: usize, called: u64) {
        self.driver.unlock_after_fork(me);
        self.taking.unlock_after_fork(me);
        self.taking.abandon_unless_mine(me);
        self.wakers.child_after_fork(me);
        if self.driver.abandon_unless_mine(me) {
            if let Some(mut driver) = self.driver.try_lock(me) {
                driver.with(|buckets| *buckets = Buckets::new());
            }
            self.ready.store(false, Ordering::Relaxed);
            self.oldest_filed.store(0, Ordering::Relaxed);
            self.note_awaited(&Buckets::new());
        }
        if self.runner.abandon_unless_mine(me) {
            self.ran.now.kind.store(ptr::null_mut(), Ordering::Relaxed);
        }
        let incoming = self.queue.incoming.load(Ordering::Relaxed);
        let incoming = if is_empty(incoming) { ptr::null_mut() } else { incoming };
        let mut count = callbacks::count_list(self.ran.running.load(Ordering::Relaxed))
            + callbacks::count_list(incoming);
        if let Some(mut driver) = self.driver.try_lock(me) {
            count += driver.with(|buckets| buckets.count());
            // So that the next callback finds the queue empty, and wakes the thread if there is to be one.
            driver.with(|buckets| self.collect(buckets));
        }
        if self.is_running_callbacks(me) {
            count += 1;
        }
        self.ran.done.store(called.wrapping_sub(count as u64), Ordering::Relaxed);
    }

    /// The domain's thread, before it sleeps: from here on who brings work wakes it. `calls`: callbacks
    /// are work for it. False, and no sleep, if there is work already; `has_work` looks, while nobody drives:
    /// a driver in the middle of a step has callbacks in its hands that can be seen nowhere, and goes
    /// when it has put them down.
    pub(crate) fn fall_asleep(
        &self,
        me: usize,
        calls: bool,
        has_work: impl FnOnce() -> bool,
    ) -> bool {
        self.announce_sleep();
        if self.leave_calls_to_wake(calls) {
            let driver = self.driver.try_lock(me);
            if driver.is_some() && !has_work() {
                return true;
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
        false
    }

    /// The first half of `fall_asleep`: whoever requests something after this wakes the thread.
    pub(crate) fn announce_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_wake`: either that sees `asleep`, or what was asked for
        // is seen after this.
        fence(Ordering::SeqCst);
    }

    /// As `announce_sleep`, for a thread that could not be started: callbacks that are queued are taken off
    /// the queue, so that the next one finds it asleep and tries again.
    pub(crate) fn announce_sleep_behind_calls(&self, me: usize, calls: bool) {
        if let Some(mut driver) = self.driver.try_lock(me) {
            driver.with(|buckets| self.collect(buckets));
        }
        self.announce_sleep();
        let _ = self.leave_calls_to_wake(calls);
    }

    /// False if callbacks are queued.
    pub(crate) fn leave_calls_to_wake(&self, calls: bool) -> bool {
        if !calls {
            return true;
        }
        // Release: pairs with the acquire in `push`.
        let (order, queue) = ((Ordering::Release, Ordering::Relaxed), &self.queue.incoming);
        match queue.compare_exchange(ptr::null_mut(), ASLEEP, order.0, order.1) {
            Ok(_) => true,
            Err(top) => top == ASLEEP,
        }
    }

    /// Whether the thread still sleeps: nobody has taken it upon himself to wake it.
    pub(crate) fn is_asleep(&self) -> bool {
        // Relaxed: the fence in `announce_sleep`, before it would sleep again, makes an acquire of it, which pairs with the
        // release in `push` and the fence in `must_wake`.
        self.asleep.load(Ordering::Relaxed)
    }

    /// After asking for something: whether the caller has to wake the domain's thread.
    pub(crate) fn must_wake(&self) -> bool {
        // Pairs with the fence in `announce_sleep`; and makes a release of the exchange.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

fn is_empty(top: *mut Node) -> bool {
    top.is_null() || top == ASLEEP
}

/// What an observer is told of a step.
struct Told {
    number: u64,
    began: bool,
    /// When it had begun, and its heavy barriers, if it has ended.
    ended: Option<(u64, u64)>,
}
