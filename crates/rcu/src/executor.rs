//! Where a domain's callbacks run, and the thread of its own that it may have.
//!
//! | executor | grace periods are driven by | callbacks run on |
//! |---|---|---|
//! | [`Executor::Driver`] | whoever calls `poll`, `drive` or waits | whoever calls `drive` or `barrier` |
//! | [`Executor::Thread`] | the same, and the domain's thread | the domain's thread, and the same |
//! | [`Executor::Given`] | the same, and the domain's thread | jobs of that executor, and the same |
//!
//! The first is the default: a library that goes into other people's programs starts no thread that
//! nobody asked for, and a domain whose user drives anyway (an event loop, an agent) needs none. It
//! also means that memory is bounded only by how often the user drives.
//!
//! # The thread
//!
//! It is started when there is first something for it to do, blocks all signals, and sleeps without a
//! timeout while there is nothing. Callbacks and requests wake it (`engine` has the argument that none is
//! lost); readers never do, so while it waits for them it looks again after pauses of up to 10 ms. It
//! holds no lock while it sleeps or runs a callback, and whoever waits drives for himself, so a
//! thread that is starved or stopped holds up nobody but callbacks that nobody waits for, and those that it has in
//! its hands if it is stopped just where it moves them from one list to the next.
//!
//! * *When the domain is dropped* the thread is told to stop, and joined. If the domain is dropped by
//!   one of its own callbacks, on that very thread or in a job, nobody can wait: then the thread
//!   gives the domain's memory back when it ends.
//! * *When the process exits* it just ends; callbacks that are queued do not run. Call `barrier` before
//!   if they must.
//! * *In a forked child* it does not exist, and what was queued is. It is started again by the next
//!   callback or request that finds it asleep, which is how it was left; the same code as the first time.
//!
//! # Floods
//!
//! Callbacks cannot run on the thread of who calls `call`: it may hold locks that they take. So with
//! a thread, above [`SLOW`] callbacks `call` pauses, at most [`PAUSE_AT_MOST`] for each [`ROUND`] calls: callers
//! that outrun the thread go as fast as it does, and one that holds a lock which a callback needs
//! is slow, not stuck. Inside a section of the domain, whose end is waited for, it pauses for
//! [`PAUSE_INSIDE`]: enough for the thread to run what is ready, and to be there when the section ends.

use crate::arch;
use crate::clock;
use crate::counters::Slot;
use crate::domain::Domain;
use crate::engine::{self, Progress};
use crate::grace::Readers;
use crate::jobs::Jobs;
use crate::region::Region;
use crate::survey::Drives;
use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::system;
use crate::threads;
use crate::wait;
use std::fmt;
use std::io;
use std::ptr;
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// With more callbacks than this, grace periods are driven without pauses.
const FLOOD: usize = 10_000;
/// With more callbacks than this, `call` pauses.
const SLOW: usize = 100_000;
/// How many calls there are between two looks at how many callbacks there are.
const ROUND: u64 = 1024;
/// How long `call` pauses for each [`ROUND`] at most, inside of a section of the domain.
const PAUSE_INSIDE: Duration = Duration::from_millis(1);
/// How long `call` pauses for each [`ROUND`] at most.
const PAUSE_AT_MOST: Duration = Duration::from_millis(100);

/// Where the callbacks of a domain run. See [`Domain::run_callbacks_on`].
#[non_exhaustive]
pub enum Executor {
    /// On threads that call [`Domain::drive`] or [`Domain::barrier`], and only then. The default.
    Driver,
    /// On a thread of the domain's own, which also drives its grace periods.
    Thread,
    /// In jobs that are handed to this function; see [`Executor::given`].
    Given(Box<dyn Fn(Job) + Send + Sync>),
}

impl Executor {
    /// An executor of the user's. `submit` is called on the domain's thread (which drives grace periods)
    /// when callbacks are ready, at most once until the job has run or was dropped; it should queue the job and return.
    ///
    /// ```
    /// use gracepoint_rcu::{Domain, Executor};
    /// use std::sync::mpsc;
    ///
    /// static DOMAIN: Domain = Domain::new("doc");
    /// let (submit, jobs) = mpsc::channel();
    /// let executor = Executor::given(move |job| drop(submit.send(job)));
    /// DOMAIN.run_callbacks_on(executor).expect("a thread to drive");
    /// DOMAIN.call(|| println!("on the thread that runs jobs"));
    /// jobs.recv().expect("a job").run();
    /// assert_eq!(DOMAIN.pending_callbacks(), 0);
    /// ```
    pub fn given(submit: impl Fn(Job) + Send + Sync + 'static) -> Self {
        Self::Given(Box::new(submit))
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "Driver",
            Self::Thread => "Thread",
            Self::Given(_) => "Given",
        })
    }
}

/// Callbacks of a domain that are ready to run (up to 4096 of them). See [`Executor::given`].
///
/// Dropping it runs none; they stay queued, and another job is submitted.
/// Once its domain has been dropped, there is nothing left to run.
#[derive(Debug)]
#[must_use = "callbacks run when the job is run"]
pub struct Job {
    region: &'static Region,
    generation: u64,
}

impl Job {
    /// Runs the callbacks. One that panics is counted and stops nobody. The example is at [`Executor::given`].
    pub fn run(self) {
        self.with_domain(|region, me| {
            let service = &region.service;
            let _ = threads::thread_index(); // As in `Region::drive`.
            service.job_runner.store(me, Ordering::Relaxed);
            // Somebody else is at it, in `barrier` or `drive`: he may not take all. A job would be
            // submitted again at once; so for a while wait here.
            for vain in 0..32 {
                if region.engine.is_running_callbacks(me) || region.engine.run_ready(me).is_some() {
                    break;
                }
                wait::pause(engine::delay(vain));
            }
            region.engine.wake_tasks(me);
            service.job_runner.store(0, Ordering::Relaxed);
        });
    }

    /// Runs `f` unless the domain was dropped, which then waits for the end of this.
    fn with_domain(&self, f: impl FnOnce(&'static Region, usize)) {
        let service = &self.region.service;
        service.jobs.enter(self.generation, || f(self.region, arch::thread_token()));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.with_domain(|region, _| {
            region.service.submitted.store(false, Ordering::Release);
            if region.engine.has_ready() {
                region.wake_if_asleep();
            }
        });
    }
}

const DRIVER: usize = 0;
const THREAD: usize = 1;
const GIVEN: usize = 2;

type Submit = Box<dyn Fn(Job) + Send + Sync>;

/// What a domain has for driving itself.
#[derive(Debug)]
pub(crate) struct Service {
    mode: AtomicUsize,
    submit: AtomicPtr<Submit>,
    /// A job was submitted and has neither run nor been dropped.
    submitted: AtomicBool,
    jobs: Jobs,
    /// The token of the thread that runs a job.
    job_runner: AtomicUsize,
    /// Somebody has taken it upon himself to start the thread.
    started: AtomicBool,
    stop: AtomicBool,
    /// The domain was dropped by the thread itself or by a callback in a job.
    orphaned: AtomicBool,
    /// The thread's token, from when it began.
    token: AtomicUsize,
    /// To wake it by; it puts this here itself.
    handle: AtomicPtr<Thread>,
    join: AtomicPtr<JoinHandle<()>>,
}

impl Service {
    /// Where the mode and the flag of a job under way are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 2] =
        [std::mem::offset_of!(Service, mode), std::mem::offset_of!(Service, submitted)];

    /// Who runs callbacks, and whether a job was handed over that has not run.
    pub(crate) fn survey(&self) -> (Drives, bool) {
        let drives = match self.mode.load(Ordering::Relaxed) {
            THREAD => Drives::Thread,
            GIVEN => Drives::Executor,
            _ => Drives::Users,
        };
        (drives, self.submitted.load(Ordering::Relaxed))
    }

    pub(crate) const fn new() -> Self {
        Self {
            mode: AtomicUsize::new(DRIVER),
            submit: AtomicPtr::new(ptr::null_mut()),
            submitted: AtomicBool::new(false),
            jobs: Jobs::new(),
            job_runner: AtomicUsize::new(0),
            started: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            orphaned: AtomicBool::new(false),
            token: AtomicUsize::new(0),
            handle: AtomicPtr::new(ptr::null_mut()),
            join: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether only users run callbacks.
    pub(crate) fn is_driven_by_users(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == DRIVER
    }

    fn is_on_thread(&self, me: usize) -> bool {
        self.token.load(Ordering::Relaxed) == me
    }

    /// After `fork`, in the child: the thread is gone, unless it is the one that forked, and
    /// so are jobs. What belonged to them is leaked. True if there is to be a thread and is none.
    fn child_after_fork(&self, me: usize) -> bool {
        let mine = self.job_runner.load(Ordering::Relaxed) == me;
        self.jobs.child_after_fork(usize::from(mine));
        self.submitted.store(mine, Ordering::Relaxed);
        if !mine {
            // A thread of this process may have the same token.
            self.job_runner.store(0, Ordering::Relaxed);
        }
        self.join.store(ptr::null_mut(), Ordering::Relaxed);
        if self.is_on_thread(me) {
            return false;
        }
        self.token.store(0, Ordering::Relaxed);
        self.handle.store(ptr::null_mut(), Ordering::Relaxed);
        self.started.swap(false, Ordering::Relaxed) || !self.is_driven_by_users()
    }

    /// Makes late jobs do nothing, and waits for those that run.
    fn wait_for_jobs(&self) {
        self.jobs.end(|vain| wait::pause(engine::delay(vain)));
    }

    fn reset(&self) {
        self.mode.store(DRIVER, Ordering::Relaxed);
        for flag in [&self.submitted, &self.started, &self.stop, &self.orphaned] {
            flag.store(false, Ordering::Relaxed);
        }
        self.token.store(0, Ordering::Relaxed);
        let handle = self.handle.swap(ptr::null_mut(), Ordering::Acquire);
        let submit = self.submit.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `serve` and `set_executor`. Nobody else can reach them: the
        // domain is being dropped, its thread has ended (or is this one, at its end), and no job is inside.
        unsafe {
            drop((!handle.is_null()).then(|| Box::from_raw(handle)));
            drop((!submit.is_null()).then(|| Box::from_raw(submit)));
        }
    }
}

impl Region {
    /// For a domain that is being made and wants a thread as soon as there is something to do.
    pub(crate) fn wants_thread(&self) {
        self.service.mode.store(THREAD, Ordering::Relaxed);
        self.engine.fall_asleep(arch::thread_token(), true, || false);
    }

    /// [`Domain::poll`].
    pub(crate) fn poll(&'static self, readers: &impl Readers, me: usize) -> Progress {
        let progress = self.engine.poll(readers, me);
        if progress == Progress::Advanced {
            self.engine.wake_tasks(me);
        }
        self.watch(progress);
        progress
    }

    /// [`Domain::drive`].
    pub(crate) fn drive(&'static self, readers: &impl Readers, me: usize) -> Progress {
        if self.engine.has_callbacks() {
            // So that a report can tell who runs them.
            let _ = threads::thread_index();
        }
        let progress = self.engine.drive(readers, me);
        if self.engine.is_flooded() {
            self.engine.flood(self.pending() > FLOOD);
        }
        self.engine.wake_tasks(me);
        self.watch(progress);
        progress
    }

    /// Queues a callback.
    #[inline]
    pub(crate) fn call(&'static self, f: impl FnOnce() + Send + 'static) {
        let number = self.count_call();
        if self.engine.call(f) {
            self.wake_or_sleep_on();
        }
        if number.is_multiple_of(ROUND) {
            self.look_at_flood();
        }
    }

    /// How many calls this thread's slot has counted. Before the callback is queued, so that the sum never
    /// falls below what is queued.
    #[inline]
    fn count_call(&self) -> u64 {
        match threads::thread_index().and_then(|index| self.slot(index)) {
            Some(slot) => {
                arch::increment(&slot.called);
                slot.called.load(Ordering::Relaxed)
            }
            None => self.shared.called.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    fn called(&self) -> u64 {
        let slots = self.slots().iter().chain(std::iter::once(&self.shared));
        slots.fold(0, |sum, slot| sum.wrapping_add(slot.called.load(Ordering::Relaxed)))
    }

    /// Callbacks queued whose run has not ended.
    pub(crate) fn pending(&self) -> usize {
        // In this order: then the second is not less than the first.
        let done = self.engine.done();
        self.called().wrapping_sub(done) as usize
    }

    /// Wakes the thread if it sleeps: after something was asked for.
    pub(crate) fn wake_if_asleep(&'static self) {
        if self.engine.must_wake() {
            self.wake_or_sleep_on();
        }
    }

    /// Wakes the thread, or starts it. An error is not lost: grace periods go on by those who wait, and who brings
    /// work next tries again.
    fn wake_or_sleep_on(&'static self) {
        let _ = self.wake();
    }

    /// Wakes the thread, or starts it. If it cannot be started now, it is as if it slept.
    #[cold]
    fn wake(&'static self) -> io::Result<()> {
        if !self.service.started.swap(true, Ordering::AcqRel) {
            let started = self.start();
            if started.is_err() {
                let calls = !self.service.is_driven_by_users();
                self.engine.announce_sleep_behind_calls(arch::thread_token(), calls);
            }
            return started;
        }
        // Acquire: pairs with the release in `serve`. If it is not there yet, the thread has yet to look around.
        let handle = self.service.handle.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `serve`, and freed only when the domain was
        // dropped, or in this (forked) process never.
        if let Some(handle) = unsafe { handle.as_ref() } {
            handle.unpark();
        }
        Ok(())
    }

    fn start(&'static self) -> io::Result<()> {
        // A thread's name cannot have a NUL; a domain's can.
        let name = self.engine.observed.name().replace('\0', "?");
        let builder = thread::Builder::new().name(format!("rcu:{name}"));
        match system::with_signals_blocked(|| builder.spawn(move || serve(self))) {
            Ok(join) => {
                let join = Box::into_raw(Box::new(join));
                // Release: pairs with the acquire in `stop_thread`.
                self.service.join.store(join, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                self.service.started.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Makes sure that there is a thread, and that it looks around.
    pub(crate) fn ensure_thread(&'static self) -> io::Result<()> {
        let started = self.service.started.load(Ordering::Acquire);
        if !started || self.engine.must_wake() { self.wake() } else { Ok(()) }
    }

    fn set_executor(&'static self, executor: Executor) -> io::Result<()> {
        let mode = match executor {
            Executor::Driver => DRIVER,
            Executor::Thread => THREAD,
            Executor::Given(submit) => {
                // The one before is kept: the thread may be calling it.
                let submit = Box::into_raw(Box::new(submit));
                // Release: pairs with the acquire in `submit_job`.
                self.service.submit.store(submit, Ordering::Release);
                GIVEN
            }
        };
        self.service.mode.store(mode, Ordering::Release);
        if mode == DRIVER { Ok(()) } else { self.ensure_thread() }
    }

    /// Hands what is ready to the user's executor.
    fn submit_job(&'static self) {
        let service = &self.service;
        if !self.engine.has_ready() || service.submitted.swap(true, Ordering::AcqRel) {
            return;
        }
        // Acquire: pairs with the release in `set_executor`.
        let submit = service.submit.load(Ordering::Acquire);
        let job = Job { region: self, generation: service.jobs.generation() };
        // SAFETY: null, or from `Box::into_raw` in `set_executor`; freed only when the thread, which alone
        // calls this, has ended.
        if let Some(submit) = unsafe { submit.as_ref() } {
            let call = std::panic::AssertUnwindSafe(|| submit(job));
            if let Err(payload) = std::panic::catch_unwind(call) {
                let _ = std::mem::ManuallyDrop::new(payload);
            }
        }
    }

    /// Every [`ROUND`] calls: see the module's text.
    #[cold]
    fn look_at_flood(&'static self) {
        let pending = self.pending();
        self.engine.flood(pending > FLOOD);
        if self.service.is_driven_by_users() {
            return;
        }
        // It may not have been possible to start it before.
        self.wake_if_asleep();
        if pending > SLOW {
            self.slow_down();
        }
    }

    fn slow_down(&'static self) {
        let me = arch::thread_token();
        let runs = self.engine.is_running_callbacks(me) || self.service.is_on_thread(me);
        let inside = arch::shared_sections() != 0
            || threads::thread_index()
                .and_then(|index| self.slot(index))
                .is_some_and(Slot::is_open);
        if runs {
            return;
        }
        let pause = if inside { PAUSE_INSIDE } else { PAUSE_AT_MOST };
        let until = clock::now() + pause.as_nanos() as u64;
        while self.pending() > SLOW && clock::now() < until {
            thread::sleep(Duration::from_micros(50));
        }
    }

    /// After `fork`, in the child.
    pub(crate) fn child_after_fork(&self, me: usize) {
        self.engine.child_after_fork(me, self.called());
        if self.service.child_after_fork(me) {
            // As it is before there is a thread. Where callbacks are queued, what follows next wakes it. If tasks
            // wait, callbacks do too, wherever they run.
            let calls = !self.service.is_driven_by_users() || self.engine.wakers.count() != 0;
            self.engine.fall_asleep(me, calls, || false);
            self.engine.announce_sleep();
        }
    }

    /// One turn of the thread.
    fn turn(&'static self, me: usize) -> Progress {
        match self.service.mode.load(Ordering::Acquire) {
            THREAD => self.drive(self, me),
            mode => {
                let progress = self.poll(self, me);
                if mode == GIVEN {
                    self.submit_job();
                }
                progress
            }
        }
    }

    /// Whether there is something to do for the thread, which is about to sleep.
    fn has_work(&self) -> bool {
        let service = &self.service;
        let work = match service.mode.load(Ordering::Acquire) {
            THREAD => self.engine.has_callbacks(),
            // Not only what is ready: somebody else may be running callbacks, and leave some.
            GIVEN => self.engine.has_callbacks() && !service.submitted.load(Ordering::Acquire),
            _ => false,
        };
        work || self.engine.grace.is_wanted() || service.stop.load(Ordering::Acquire)
    }

    /// Stops the thread, runs what callbacks are left and forgets all settings: when the domain is
    /// dropped. False if that has to wait until this thread is out of the domain's own code.
    pub(crate) fn retire_service(&'static self, me: usize) -> bool {
        let service = &self.service;
        // A job also wakes tasks, after its callbacks, and a task may own the domain.
        let in_job = service.job_runner.load(Ordering::Relaxed) == me;
        if service.is_on_thread(me) || in_job || self.engine.is_running_callbacks(me) {
            // Release: pairs with the acquire in `serve`.
            service.orphaned.store(true, Ordering::Release);
            self.tell_to_stop();
            return false;
        }
        self.stop_thread();
        service.wait_for_jobs();
        self.engine.run_all_unobserved(me);
        service.reset();
        true
    }

    fn tell_to_stop(&'static self) {
        self.service.stop.store(true, Ordering::Release);
        if self.service.started.load(Ordering::Acquire) && self.engine.must_wake() {
            // Cannot fail: it was started.
            let _ = self.wake();
        }
    }

    fn stop_thread(&'static self) {
        if !self.service.started.load(Ordering::Acquire) {
            return;
        }
        self.tell_to_stop();
        let join = self.service.join.swap(ptr::null_mut(), Ordering::Acquire);
        if !join.is_null() {
            // SAFETY: from `Box::into_raw` in `start`, and taken out by the exchange above.
            let join = unsafe { Box::from_raw(join) };
            // It does not panic: what could is caught.
            let _ = join.join();
        }
    }
}

/// The domain's thread.
fn serve(region: &'static Region) {
    let (service, me) = (&region.service, arch::thread_token());
    service.token.store(me, Ordering::Relaxed);
    // Release: pairs with the acquire in `wake`.
    service.handle.store(Box::into_raw(Box::new(thread::current())), Ordering::Release);
    let mut vain = 0;
    // Acquire: pairs with the release in `tell_to_stop`.
    while !service.stop.load(Ordering::Acquire) {
        match region.turn(me) {
            Progress::Advanced => vain = 0,
            Progress::Pending(pause) => {
                // Longer and longer also where somebody else has a lock for long.
                wait::pause(if region.engine.is_expedited() {
                    pause
                } else {
                    pause.max(engine::delay(vain / 4))
                });
                vain += 1;
            }
            Progress::Idle if sleep(region, me) => vain = 0,
            // There is work that this thread does not do. An executor that throws its jobs away must not keep
            // a processor busy with them.
            Progress::Idle => {
                wait::pause(engine::delay(vain / 4));
                vain += 1;
            }
        }
    }
    if service.orphaned.load(Ordering::Acquire) {
        service.token.store(0, Ordering::Relaxed);
        // The handle of a thread that nobody can join any more.
        let join = service.join.swap(ptr::null_mut(), Ordering::Acquire);
        if !join.is_null() {
            // SAFETY: from `Box::into_raw` in `start`, and taken out by the exchange above.
            drop(unsafe { Box::from_raw(join) });
        }
        service.started.store(false, Ordering::Relaxed);
        region.give_back(me);
    }
}

/// Until there is something to do. False if there is already.
fn sleep(region: &'static Region, me: usize) -> bool {
    let calls = !region.service.is_driven_by_users();
    // If the executor was changed since, callbacks would wake nobody, or the wrong one. (Pairs with the fence in
    // `must_wake`, as requests do.)
    let has_work = || region.has_work() || calls == region.service.is_driven_by_users();
    let slept = region.engine.fall_asleep(me, calls, has_work);
    if slept {
        while region.engine.is_asleep() {
            thread::park();
        }
    }
    slept
}

impl Domain {
    /// A domain with [`Executor::Thread`]. The thread is started when there is first something to do.
    ///
    /// ```
    /// # use std::sync::mpsc;
    /// use gracepoint_rcu::Domain;
    ///
    /// static DOMAIN: Domain = Domain::with_thread("doc");
    /// let (sender, receiver) = mpsc::channel();
    /// DOMAIN.call(move || sender.send(std::thread::current().id()).expect("received"));
    /// assert_ne!(receiver.recv().expect("sent"), std::thread::current().id());
    /// ```
    #[must_use]
    pub const fn with_thread(name: &'static str) -> Self {
        let mut domain = Self::new(name);
        domain.own_thread = true;
        domain
    }

    /// Chooses where callbacks run, from now on; those that are queued too.
    ///
    /// [`barrier`](Self::barrier) and [`drive`](Self::drive) run callbacks on the thread that calls them in any case:
    /// whoever waits for callbacks helps, so a thread or an executor that is stopped holds up nobody.
    /// Only a callback that does not return does.
    ///
    /// | | what bounds the memory of callbacks |
    /// |---|---|
    /// | [`Executor::Driver`] | how often you call `drive` or `barrier` |
    /// | [`Executor::Thread`], [`Executor::Given`] | above 100,000 callbacks, `call` pauses (for 1,024 calls of a thread: 100 ms at most, 1 ms inside a section of the domain, not at all in a callback). So: readers that leave, and callbacks that take less than 100 µs, or 1 µs for calls inside sections |
    ///
    /// With the latter two the domain has a thread. It sleeps while there is nothing to do, has all signals
    /// blocked and is called `rcu:NAME`. It ends when the domain is dropped, which waits for it, so
    /// do not hold locks that callbacks take. When the process exits, callbacks that are queued do not
    /// run. A forked child has what was queued, and starts a thread of its own when there is next something to do.
    ///
    /// # Errors
    /// If the thread cannot be started. The executor is set, and starting is tried again by later calls.
    ///
    /// ```
    /// use gracepoint_rcu::{Domain, Executor};
    ///
    /// static DOMAIN: Domain = Domain::new("doc");
    /// DOMAIN.run_callbacks_on(Executor::Thread).expect("a thread");
    /// DOMAIN.retire(vec![1, 2, 3]); // dropped on the thread, soon
    /// ```
    pub fn run_callbacks_on(&self, executor: Executor) -> io::Result<()> {
        self.region().set_executor(executor)
    }
}
