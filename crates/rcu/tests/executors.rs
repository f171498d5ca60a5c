//! Where callbacks run: the domain's thread, a given executor; floods, observers and numbers.

use gracepoint_rcu::{Domain, Event, Executor, Job, Observer, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Waits for a condition that must come true; so long that only a hang reaches the end.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(120), "never: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// How often, and how often in Miri, which takes a thousand times as long.
const fn times(times: usize, in_miri: usize) -> usize {
    if cfg!(miri) { in_miri } else { times }
}

fn add_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn say_where(domain: &Domain, to: &Sender<ThreadId>) {
    let to = to.clone();
    domain.call(move || to.send(thread::current().id()).expect("received"));
}

#[test]
fn callbacks_run_on_the_domains_thread() {
    static DOMAIN: Domain = Domain::with_thread("served");
    let (sender, receiver) = mpsc::channel();
    let mut threads = Vec::new();
    for _ in 0..times(200, 5) {
        say_where(&DOMAIN, &sender);
        threads.push(receiver.recv().expect("it ran"));
    }
    threads.dedup();
    assert_eq!(threads.len(), 1, "one thread");
    assert_ne!(threads[0], thread::current().id());
    // A cookie needs nobody who polls.
    let cookie = DOMAIN.start_poll();
    wait_for("the cookie", || DOMAIN.poll_state(cookie));
}

#[test]
fn without_being_asked_a_domain_has_no_thread() {
    let domain = Domain::new("driven");
    let (sender, receiver) = mpsc::channel();
    say_where(&domain, &sender);
    let _ = domain.start_poll();
    // It can change its mind, with callbacks in the queue.
    assert!(receiver.try_recv().is_err());
    domain.run_callbacks_on(Executor::Thread).expect("a thread");
    assert_ne!(receiver.recv().expect("it ran"), thread::current().id());
    // And back: then only this thread runs them.
    wait_for("its run has ended", || domain.pending_callbacks() == 0);
    domain.run_callbacks_on(Executor::Driver).expect("nothing to start");
    say_where(&domain, &sender);
    let cookie = domain.start_poll();
    while !domain.poll_state(cookie) {
        domain.poll();
    }
    domain.barrier().expect("outside");
    assert_eq!(receiver.recv().expect("it ran"), thread::current().id());
}

/// Callers on many threads, each of which finds the domain's thread asleep or about to sleep: were a wakeup
/// lost, its receiver would wait for ever.
#[test]
fn no_wakeup_is_lost() {
    static DOMAIN: Domain = Domain::with_thread("wakeups");
    thread::scope(|scope| {
        for caller in 0..3_u64 {
            scope.spawn(move || {
                let (sender, receiver) = mpsc::channel();
                let patience = Duration::from_secs(120);
                for round in 0..times(2000, 9) as u64 {
                    let sender = sender.clone();
                    DOMAIN.call(move || sender.send(()).expect("received"));
                    receiver.recv_timeout(patience).expect("a callback was forgotten");
                    // Now the thread is about to sleep; be there a little earlier or later.
                    for _ in 0..(round * (caller + 7)) % 500 {
                        std::hint::spin_loop();
                    }
                    if round % 8 == 0 {
                        let cookie = DOMAIN.start_poll();
                        wait_for("a cookie was forgotten", || DOMAIN.poll_state(cookie));
                    }
                }
            });
        }
    });
}

#[test]
fn a_thread_that_is_stuck_holds_up_nobody_who_waits() {
    static DOMAIN: Domain = Domain::with_thread("stuck");
    let (inside, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let callback = (Arc::clone(&inside), Arc::clone(&leave));
    DOMAIN.call(move || {
        callback.0.wait();
        callback.1.wait();
    });
    inside.wait();
    // The thread is in a callback, and stays there.
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    DOMAIN.call(move || seen.store(true, Ordering::Release));
    let cookie = DOMAIN.start_poll();
    for _ in 0..times(100, 3) {
        DOMAIN.synchronize().expect("outside");
    }
    assert!(DOMAIN.poll_state(cookie));
    assert!(DOMAIN.synchronize_timeout(Duration::MAX).expect("outside"));
    assert!(!ran.load(Ordering::Acquire), "callbacks are in order, and the first has not returned");
    leave.wait();
    DOMAIN.barrier().expect("outside");
    assert!(ran.load(Ordering::Acquire));
}

/// The thread is stopped, but not in a callback: in the observer, where it holds none of the locks.
#[test]
fn callbacks_of_a_stopped_thread_are_run_by_who_waits_for_them() {
    struct Stopper {
        on: AtomicBool,
        inside: Barrier,
        leave: Barrier,
    }
    impl Observer for Stopper {
        fn event(&self, _: &str, event: &Event<'_>) {
            let ended = matches!(event, Event::GracePeriodEnded { .. });
            if ended && self.on.swap(false, Ordering::AcqRel) {
                self.inside.wait();
                self.leave.wait();
            }
        }
    }
    static STOPPER: Stopper =
        Stopper { on: AtomicBool::new(true), inside: Barrier::new(2), leave: Barrier::new(2) };
    static DOMAIN: Domain = Domain::with_thread("stopped");
    DOMAIN.observe(&STOPPER);
    let (sender, receiver) = mpsc::channel();
    say_where(&DOMAIN, &sender);
    STOPPER.inside.wait();
    DOMAIN.synchronize().expect("outside");
    DOMAIN.barrier().expect("outside");
    assert_eq!(receiver.try_recv(), Ok(thread::current().id()), "this thread ran it");
    STOPPER.leave.wait();
    say_where(&DOMAIN, &sender);
    assert_ne!(receiver.recv().expect("it ran"), thread::current().id());
}

#[test]
fn a_dropped_domain_ends_its_thread_and_runs_what_is_left() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    for round in 0..50 {
        let domain = Domain::with_thread("short-lived");
        for _ in 0..10 {
            domain.call(|| {
                RAN.fetch_add(1, Ordering::Relaxed);
            });
            drop(domain.read());
        }
        drop(domain);
        assert_eq!(RAN.load(Ordering::Relaxed), (round + 1) * 10);
    }
}

#[test]
fn a_callback_may_drop_its_domain() {
    for given in [false, true] {
        let domain = Arc::new(Domain::new("dropped inside"));
        let (sender, receiver) = mpsc::channel::<Job>();
        if given {
            let submit = Executor::given(move |job| drop(sender.send(job)));
            domain.run_callbacks_on(submit).expect("a thread");
        } else {
            drop(sender);
            domain.run_callbacks_on(Executor::Thread).expect("a thread");
        }
        let ran = Arc::new(AtomicUsize::new(0));
        let hold = Arc::clone(&domain);
        let (late, first) = (Arc::clone(&ran), Arc::new(Barrier::new(2)));
        let begin = Arc::clone(&first);
        domain.call(move || {
            begin.wait();
            let late = Arc::clone(&late);
            hold.call(move || add_one(&late));
            drop(hold);
        });
        let runner = thread::spawn(move || {
            while let Ok(job) = receiver.recv() {
                job.run();
            }
        });
        drop(domain);
        first.wait();
        wait_for("the last callback", || ran.load(Ordering::Relaxed) == 1);
        runner.join().expect("its executor is dropped with the domain");
    }
}

#[test]
fn a_given_executor_gets_jobs() {
    let domain = Domain::new("given");
    let (sender, jobs) = mpsc::channel::<Job>();
    let submit = Executor::given(move |job| drop(sender.send(job)));
    domain.run_callbacks_on(submit).expect("a thread");
    let ran = Arc::new(AtomicUsize::new(0));
    let call = || {
        let ran = Arc::clone(&ran);
        domain.call(move || add_one(&ran));
    };
    (0..100).for_each(|_| call());
    let job = jobs.recv().expect("a job");
    assert_eq!(ran.load(Ordering::Relaxed), 0, "it waits for the job");
    assert!(jobs.try_recv().is_err(), "one at a time");
    // An executor that throws a job away gets another.
    drop(job);
    while ran.load(Ordering::Relaxed) < 100 {
        jobs.recv().expect("another job").run();
    }
    // Who waits helps, whether the executor does anything or not.
    call();
    let job = jobs.recv().expect("a job");
    domain.barrier().expect("outside");
    assert_eq!(ran.load(Ordering::Relaxed), 101);
    job.run();
    // A job that comes too late does nothing, although the memory is another domain's by then.
    call();
    let job = jobs.recv().expect("a job");
    drop(domain);
    assert_eq!(ran.load(Ordering::Relaxed), 102);
    let next = Domain::new("next");
    next.call(|| {});
    job.run();
    assert_eq!(next.pending_callbacks(), 1);
}

#[test]
fn an_executor_that_runs_jobs_at_once_is_fine() {
    let domain = Domain::new("inline");
    domain.run_callbacks_on(Executor::given(Job::run)).expect("a thread");
    let (sender, receiver) = mpsc::channel();
    (0..times(1000, 20)).for_each(|_| say_where(&domain, &sender));
    for _ in 0..times(1000, 20) {
        assert_ne!(receiver.recv().expect("it ran"), thread::current().id());
    }
}

/// What an observer was told.
#[derive(Default)]
struct Log {
    begun: AtomicU64,
    ended: AtomicU64,
    most_barriers: AtomicU64,
    ran: AtomicUsize,
    panics: Mutex<Vec<String>>,
}

impl Observer for Log {
    fn event(&self, domain: &str, event: &Event<'_>) {
        assert!(domain.starts_with("observed"));
        match event {
            Event::GracePeriodBegan { .. } => {
                self.begun.fetch_add(1, Ordering::Relaxed);
            }
            Event::GracePeriodEnded { heavy_barriers, .. } => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                self.most_barriers.fetch_max(*heavy_barriers, Ordering::Relaxed);
            }
            Event::CallbacksRan { count, .. } => {
                self.ran.fetch_add(*count, Ordering::Relaxed);
            }
            Event::CallbackPanicked { message, .. } => {
                self.panics.lock().expect("the log").push((*message).to_owned());
                panic!("an observer that panics");
            }
            _ => {}
        }
    }
}

#[test]
fn an_observer_is_told() {
    let log: &'static Log = Box::leak(Box::default());
    let domain = Domain::new("observed");
    domain.observe(log);
    domain.synchronize().expect("outside");
    assert_eq!(log.begun.load(Ordering::Relaxed), 1);
    assert_eq!(log.ended.load(Ordering::Relaxed), 1);
    domain.call(|| panic!("a {} text", "formatted"));
    domain.call(|| std::panic::panic_any(7));
    domain.call(|| panic!("a plain text"));
    domain.barrier().expect("outside");
    assert_eq!(*log.panics.lock().expect("the log"), ["a formatted text", "", "a plain text"]);
    assert_eq!(log.ran.load(Ordering::Relaxed), 4, "the barrier's own too");
    let stats = domain.stats();
    assert_eq!((stats.callbacks_run, stats.callbacks_panicked), (4, 3));
    assert_eq!(log.ended.load(Ordering::Relaxed), stats.grace_periods);
    assert_eq!(stats.heavy_barriers, stats.grace_periods, "nobody read");
}

/// A reader that stays inside however long: looking again costs no heavy barrier.
#[test]
fn few_heavy_barriers_also_for_a_reader_that_was_stopped_inside() {
    let log: &'static Log = Box::leak(Box::default());
    static DOMAIN: Domain = Domain::new("observed, held up");
    DOMAIN.observe(log);
    let hurry = DOMAIN.expedite();
    for _ in 0..times(20, 2) {
        let (inside, leave) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _guard = DOMAIN.read();
                inside.wait();
                leave.wait();
            });
            inside.wait();
            let cookie = DOMAIN.start_poll();
            for _ in 0..times(2000, 40) {
                DOMAIN.poll();
            }
            assert!(!DOMAIN.poll_state(cookie));
            assert!(DOMAIN.stats().running_since.is_some());
            leave.wait();
            DOMAIN.synchronize().expect("outside");
        });
    }
    drop(hurry);
    let most = log.most_barriers.load(Ordering::Relaxed);
    assert!((1..=4).contains(&most), "{most} heavy barriers in one grace period");
}

#[test]
fn the_age_of_the_oldest_callback_is_visible() {
    let domain = Domain::new("ages");
    assert_eq!(domain.stats().oldest_callback, None);
    let guard = domain.read();
    domain.retire(1);
    let at_least =
        |age: Duration| domain.stats().oldest_callback.is_some_and(|oldest| oldest >= age);
    wait_for("it ages in the queue", || at_least(Duration::from_millis(20)));
    domain.drive();
    domain.retire(2);
    assert!(at_least(Duration::from_millis(20)), "the first is the oldest still");
    drop(guard);
    while domain.drive() != Progress::Idle {}
    assert_eq!(domain.stats().oldest_callback, None);
    let (sender, receiver) = mpsc::channel();
    domain.call(move || sender.send(()).expect("received"));
    let in_callback = &domain;
    thread::scope(|scope| {
        scope.spawn(move || in_callback.barrier().expect("outside"));
    });
    receiver.recv().expect("it ran");
    assert_eq!(domain.stats().oldest_callback, None);
}

/// One that calls as fast as it can is slowed to the thread's pace, and memory stays bounded.
#[test]
fn a_flood_is_bounded() {
    static DOMAIN: Domain = Domain::with_thread("flood");
    let mut most = 0;
    for number in 0..600_000_u64 {
        DOMAIN.retire(number);
        if number % 1000 == 0 {
            most = most.max(DOMAIN.pending_callbacks());
        }
    }
    DOMAIN.barrier().expect("outside");
    assert_eq!(DOMAIN.pending_callbacks(), 0);
    // A pause ends after 100 ms, when the machine does not let the thread run: a few rounds more.
    assert!(most < 300_000, "{most} callbacks queued");
}

/// With very many callbacks, whoever drives is told to come back soon: at once at first, and later at least
/// every millisecond. A turn that runs nothing does not end that; running them does.
#[test]
fn a_flood_hurries_grace_periods_until_it_was_run() {
    let domain = Domain::new("hurried");
    let guard = domain.read();
    let pause = || match domain.poll() {
        Progress::Pending(pause) => pause,
        other => panic!("{other:?}"),
    };
    let _cookie = domain.start_poll();
    while domain.poll() == Progress::Advanced {}
    (0..200).for_each(|_| _ = pause());
    assert!(pause() > Duration::from_millis(1), "nothing hurries");
    for _ in 0..20_000 {
        domain.call(|| {});
    }
    assert!(pause() <= Duration::from_micros(5));
    domain.drive();
    assert!(pause() <= Duration::from_micros(5), "nothing was run");
    (0..5000).for_each(|_| _ = pause());
    let later = pause();
    assert!(later > Duration::from_micros(5), "a processor for as long as a reader sleeps");
    assert!(later <= Duration::from_millis(1));
    drop(guard);
    domain.barrier().expect("outside");

    let guard = domain.read();
    let _cookie = domain.start_poll();
    while domain.poll() == Progress::Advanced {}
    (0..200).for_each(|_| _ = pause());
    assert!(pause() > Duration::from_millis(1), "it is over");
    drop(guard);
}

/// A caller that holds what a callback needs is slowed, and not stopped.
#[test]
fn a_flood_under_a_lock_is_no_deadlock() {
    static DOMAIN: Domain = Domain::with_thread("flood under a lock");
    static LOCK: Mutex<u64> = Mutex::new(0);
    let held = LOCK.lock().expect("the lock");
    for _ in 0..102_000 {
        DOMAIN.call(|| *LOCK.lock().expect("the lock") += 1);
    }
    // Nor inside a section, whose end the callbacks wait for.
    drop(held);
    let guard = DOMAIN.read();
    for _ in 0..102_000 {
        DOMAIN.call(|| *LOCK.lock().expect("the lock") += 1);
    }
    drop(guard);
    DOMAIN.barrier().expect("outside");
    assert_eq!(*LOCK.lock().expect("the lock"), 204_000);
}

struct RetiresAgain(&'static Domain, u32);

impl Drop for RetiresAgain {
    fn drop(&mut self) {
        if self.1 > 0 {
            let _guard = self.0.read();
            self.0.retire(RetiresAgain(self.0, self.1 - 1));
            self.0.poll();
            self.0.drive();
        }
    }
}

/// The deadlocks of others: retiring inside a section, from `Drop`, and while somebody drives.
#[test]
fn callbacks_may_be_queued_anywhere() {
    static DRIVEN: Domain = Domain::new("anywhere");
    static SERVED: Domain = Domain::with_thread("anywhere, served");
    for domain in [&DRIVEN, &SERVED] {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..times(200, 2) {
                        let guard = domain.read();
                        domain.retire(RetiresAgain(domain, 5));
                        drop(guard);
                        domain.synchronize().expect("outside");
                    }
                });
            }
        });
        while domain.pending_callbacks() != 0 {
            domain.barrier().expect("outside");
        }
    }
}
