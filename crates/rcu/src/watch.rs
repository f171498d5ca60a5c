//! Grace periods that do not end: who notices, when they look, and whom they tell.
//!
//! Nobody has a thread for this. Whoever drives looks at the clock when told to come back later, and once in a
//! while at the readers, so that it is known since when a section is open. When the grace period is
//! older than the domain's threshold, the driver that notices calls the domain's hook and tells its observer: after its
//! step, outside of every lock of the engine and of this file's, so that they may use the domain as anybody else.
//!
//! A grace period that ends within one step costs nothing here; one that does not costs a look at the clock per
//! step. When it began is taken to be when a driver first left it unfinished, which is its first step.
//!
//! The state is behind a lock that is only tried: who does not get it leaves the looking to who has it.

use crate::arch;
use crate::clock;
use crate::counters::{Pair, RANKS, Slot, certainly_open};
use crate::domain::Domain;
use crate::engine::Progress;
use crate::holdouts::Sightings;
use crate::observer::Event;
use crate::region::Region;
use crate::running::RunningCallback;
use crate::stall::Stall;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::trylock::TryLock;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// When a grace period is called stalled, unless the domain was told otherwise.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often readers are looked at, at most, in nanoseconds.
const LOOK_EVERY: u64 = 20_000_000;

/// The shortest time between two reports, in nanoseconds, whatever the threshold is.
const REPORT_EVERY: u64 = 1_000_000;

type Hook = Arc<dyn Fn(&Stall) + Send + Sync>;
type CallbackHook = Arc<dyn Fn(&RunningCallback) + Send + Sync>;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The grace period that `since` is about; see `grace::number`.
    number: AtomicU64,
    since: AtomicU64,
    /// When readers are to be looked at next.
    look_at: AtomicU64,
    look_every: AtomicU64,
    /// Nameless owned sections that a forked child has from its parent.
    inherited: [AtomicU64; RANKS],
    /// Somebody wants to be told of callbacks that hang.
    callbacks: AtomicBool,
    pub(crate) state: TryLock<State>,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) sightings: Sightings,
    hook: Option<Hook>,
    threshold: u64,
    /// The grace period that was last reported, when, and how old it must be for the next time.
    reported: (u64, u64, u64),
    callback_hook: Option<CallbackHook>,
    /// The callback that was last reported, and how long it must have run for the next time.
    reported_callback: (u64, u64),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("sightings", &self.sightings).finish_non_exhaustive()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl State {
    const fn new() -> Self {
        Self {
            sightings: Sightings::new(),
            hook: None,
            threshold: STALLED_AFTER.as_nanos() as u64,
            reported: (0, 0, 0),
            callback_hook: None,
            reported_callback: (0, 0),
        }
    }

    /// As `is_due`, of a callback. No two of them are reported at short intervals, because each must have run
    /// for the threshold.
    fn is_callback_due(&mut self, number: u64, age: u64) -> bool {
        let (last, next_age) = self.reported_callback;
        let due = age >= if last == number { next_age } else { self.threshold.max(REPORT_EVERY) };
        if due {
            self.reported_callback = (number, age.saturating_mul(2));
        }
        due
    }

    /// Whether this grace period, of this age, is to be reported now, if anybody wants to know. If so it is taken as
    /// done.
    ///
    /// The same one again at twice the age, and nothing sooner after the last report than the threshold.
    fn is_due(&mut self, observed: bool, number: u64, age: u64, now: u64) -> bool {
        if !observed && self.hook.is_none() {
            return false;
        }
        let (last, when, next_age) = self.reported;
        let due = if last == number {
            age >= next_age
        } else {
            let pause = self.threshold.max(REPORT_EVERY);
            age >= self.threshold && (when == 0 || now.saturating_sub(when) >= pause)
        };
        if due {
            let next_age = age.saturating_mul(2).max(age.saturating_add(REPORT_EVERY));
            self.reported = (number, now, next_age);
        }
        due
    }
}

impl Watch {
    /// Where the number and the time of the running grace period are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 2] =
        [std::mem::offset_of!(Watch, number), std::mem::offset_of!(Watch, since)];

    pub(crate) const fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
            since: AtomicU64::new(0),
            look_at: AtomicU64::new(0),
            look_every: AtomicU64::new(LOOK_EVERY),
            inherited: [const { AtomicU64::new(0) }; RANKS],
            callbacks: AtomicBool::new(false),
            state: TryLock::new(State::new()),
        }
    }

    /// How old the running grace period is, if this is its number.
    pub(crate) fn age(&self, number: u64, now: u64) -> u64 {
        if self.number.load(Ordering::Relaxed) == number {
            now.saturating_sub(self.since.load(Ordering::Relaxed))
        } else {
            0
        }
    }

    /// For the next domain of the region.
    pub(crate) fn clear(&self, me: usize) {
        self.number.store(0, Ordering::Relaxed);
        self.look_every.store(LOOK_EVERY, Ordering::Relaxed);
        self.inherited.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.callbacks.store(false, Ordering::Relaxed);
        if let Some(mut state) = self.state.try_lock(me) {
            state.with(|state| *state = State::new());
        }
    }

    pub(crate) fn has_callback_hook(&self) -> bool {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Whether it is time to tell of this callback, which has run for so long: then it is taken as told, and here is
    /// the hook, if there is one.
    pub(crate) fn callback_hook_if_due(
        &self,
        number: u64,
        age: u64,
    ) -> Option<Option<CallbackHook>> {
        let mut held = self.state.try_lock(arch::thread_token())?;
        held.with(|state| state.is_callback_due(number, age).then(|| state.callback_hook.clone()))
    }

    pub(crate) fn inherited_nameless(&self, rank: usize) -> u64 {
        self.inherited[rank].load(Ordering::Relaxed)
    }

    /// As `Owners::forget_inherited`.
    pub(crate) fn forget_nameless(&self, nameless: &Slot) -> u64 {
        let mut total = 0;
        for (count, pair) in self.inherited.iter().zip(&nameless.pairs) {
            let count = count.swap(0, Ordering::Relaxed);
            Pair::forget(pair, count);
            total += count;
        }
        total
    }

    pub(crate) fn child_after_fork(&self, nameless: &Slot, me: usize) {
        for (rank, count) in self.inherited.iter().enumerate() {
            count.store(certainly_open(std::slice::from_ref(nameless), rank), Ordering::Relaxed);
        }
        begin_anew(&self.state, State::new(), me);
    }

    /// Runs `f` on the state, waiting for who has it. `None` if that is the calling thread itself.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        with(&self.state, f)
    }
}

/// In a forked child: if a thread that it does not have held the lock, what is in it may be half
/// written, and is left alone, undropped, for something new.
pub(crate) fn begin_anew<T>(lock: &TryLock<T>, fresh: T, me: usize) {
    if lock.abandon_unless_mine(me)
        && let Some(mut held) = lock.try_lock(me)
    {
        let torn = held.with(|value| std::mem::replace(value, fresh));
        let _ = std::mem::ManuallyDrop::new(torn);
    }
}

/// Runs `f` on what is in the lock, waiting for who has it: for short work that calls nothing of others
/// but the allocator. `None` if the calling thread has it (an allocator that uses the domain, a signal handler).
pub(crate) fn with<T, R>(lock: &TryLock<T>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
    let me = arch::thread_token();
    loop {
        if let Some(mut held) = lock.try_lock(me) {
            return Some(held.with(f));
        }
        if lock.is_held_by(me) {
            return None;
        }
        std::thread::yield_now();
    }
}

/// Calls a hook. The driver may be anybody's thread: a hook that panics must not bring it down.
pub(crate) fn catching(hook: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        // Dropping it may panic again.
        let _ = std::mem::ManuallyDrop::new(payload);
    }
}

impl Region {
    /// What a driver does after its step.
    #[inline]
    pub(crate) fn watch(&'static self, progress: Progress) {
        if matches!(progress, Progress::Pending(_)) {
            self.watch_callbacks();
        }
        if progress != Progress::Idle {
            self.watch_running(progress);
        }
    }

    fn watch_running(&'static self, progress: Progress) {
        let Some(number) = self.engine.grace.running() else { return };
        let watch = &self.watch;
        let every = watch.look_every.load(Ordering::Relaxed);
        let now = clock::now();
        if watch.number.load(Ordering::Relaxed) != number {
            // Two drivers may both do this: then the later time stands.
            watch.since.store(now, Ordering::Relaxed);
            watch.look_at.store(now.saturating_add(every), Ordering::Relaxed);
            watch.number.store(number, Ordering::Relaxed);
        }
        let look_at = watch.look_at.load(Ordering::Relaxed);
        let waits = matches!(progress, Progress::Pending(_));
        if !waits || now < look_at {
            return;
        }
        let next = now.saturating_add(every);
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        if watch.look_at.compare_exchange(look_at, next, order.0, order.1).is_ok() {
            self.look(number, now);
        }
    }

    /// Looks at the readers, and tells the hook and the observer if it is time.
    #[cold]
    fn look(&'static self, number: u64, now: u64) {
        let Some(mut held) = self.watch.state.try_lock(arch::thread_token()) else { return };
        let age = self.watch.age(number, now);
        let told = held.with(|state| {
            if state.is_due(self.engine.observed.is_on(), number, age, now) {
                self.stall(&mut state.sightings, now).map(|stall| (stall, state.hook.clone()))
            } else {
                state.sightings.look(self, now, |_, _, _, _| {});
                None
            }
        });
        drop(held);
        if let Some((mut stall, hook)) = told {
            stall.look_closer();
            if let Some(hook) = hook {
                catching(|| hook(&stall));
            }
            self.engine.observed.tell(&Event::GracePeriodStalled { stall: &stall });
        }
    }
}

impl Domain {
    /// Calls `hook` when a grace period of this domain is older than the threshold
    /// ([`stalled_after`](Self::stalled_after), 10 s at first), and again each time it is twice as old. One
    /// hook per domain; a later one replaces it.
    ///
    /// It is called by whoever drives, on that thread, and outside of every lock of the domain, which it may
    /// use; not while nobody drives. A panic in it ends in it.
    ///
    /// ```
    /// use gracepoint_rcu::Domain;
    ///
    /// static DOMAIN: Domain = Domain::new("routes");
    /// DOMAIN.on_stall(|stall| eprintln!("{stall}"));
    /// ```
    pub fn on_stall(&self, hook: impl Fn(&Stall) + Send + Sync + 'static) {
        let hook: Hook = Arc::new(hook);
        let before = self.region().watch.with(|state| state.hook.replace(hook));
        drop(before); // Outside of the lock: what the closure holds may use the domain.
    }

    /// Calls `hook` when a callback of this domain has run for longer than the threshold
    /// ([`stalled_after`](Self::stalled_after), 10 s at first), and again each time it has run twice as long. One
    /// hook per domain; a later one replaces it.
    ///
    /// It is called by whoever finds that callbacks are being run by another thread: in
    /// [`barrier`](Self::barrier), [`drive`](Self::drive) and what else waits or drives; on that thread, and
    /// outside of every lock of the domain. If nobody does, nobody is told;
    /// [`running_callback`](Self::running_callback) tells who asks. A panic in it ends in it.
    ///
    /// ```
    /// use gracepoint_rcu::Domain;
    ///
    /// static DOMAIN: Domain = Domain::new("routes");
    /// DOMAIN.on_callback_stall(|running| eprintln!("{running}"));
    /// ```
    pub fn on_callback_stall(&self, hook: impl Fn(&RunningCallback) + Send + Sync + 'static) {
        let hook: CallbackHook = Arc::new(hook);
        let watch = &self.region().watch;
        let before = watch.with(|state| state.callback_hook.replace(hook));
        watch.callbacks.store(true, Ordering::Relaxed);
        drop(before); // As in `on_stall`.
    }

    /// How old a grace period must be to be reported to the hook of [`on_stall`](Self::on_stall), and how long a
    /// callback must have run for that of [`on_callback_stall`](Self::on_callback_stall).
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.stalled_after(std::time::Duration::from_secs(2));
    /// ```
    pub fn stalled_after(&self, threshold: Duration) {
        let watch = &self.region().watch;
        let threshold = nanoseconds(threshold);
        let every = threshold.min(LOOK_EVERY);
        watch.look_every.store(every, Ordering::Relaxed);
        watch.look_at.fetch_min(clock::now().saturating_add(every), Ordering::Relaxed);
        watch.with(|state| state.threshold = threshold);
    }
}
