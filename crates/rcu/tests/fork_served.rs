//! Children of `fork` whose domains have threads of their own: in the child there are none, until
//! they are needed.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a child can report in no other way")]

use gracepoint_rcu::{Domain, Executor, Job};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Barrier, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// One test forks at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Forks; true if `child` returned without a panic in the child.
fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs only code that works after fork in a threaded process: glibc
    // keeps malloc and threads usable, and what else it touches is what is being tested.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = i32::from(catch_unwind(AssertUnwindSafe(child)).is_err());
        // SAFETY: leaves the child at once, running nothing of the test harness.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; the status goes to a variable of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// A callback runs, on another thread, although nobody here drives.
fn expect_served(domain: &Domain) {
    let (sender, receiver) = mpsc::channel();
    domain.call(move || sender.send(thread::current().id()).unwrap_or(()));
    let by = receiver.recv_timeout(HANG).expect("nobody serves the domain");
    assert_ne!(by, thread::current().id());
    let cookie = domain.start_poll();
    let begun = Instant::now();
    while !domain.poll_state(cookie) {
        assert!(begun.elapsed() < HANG, "nobody drives the domain");
        thread::yield_now();
    }
}

#[test]
fn the_thread_is_started_again_when_there_is_something_to_do() {
    static IDLE: Domain = Domain::with_thread("fork, idle");
    static UNUSED: Domain = Domain::with_thread("fork, unused");
    static BUSY: Domain = Domain::with_thread("fork, busy");
    let _one = ONE.lock();
    expect_served(&IDLE);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _guard = BUSY.read();
                    BUSY.retire(vec![1_u8; 16]);
                    if BUSY.pending_callbacks() > 1000 {
                        thread::yield_now();
                    }
                }
            });
        }
        let good = (0..30).all(|_| {
            in_child(|| {
                for domain in [&IDLE, &UNUSED, &BUSY] {
                    expect_served(domain);
                    expect_served(domain);
                }
                BUSY.barrier().expect("outside");
                assert_eq!(BUSY.pending_callbacks(), 0, "counted anew");
            })
        });
        stop.store(true, Ordering::Relaxed);
        assert!(good, "a child failed or hung");
    });
    expect_served(&BUSY);
    assert!(in_child(|| expect_served(&UNUSED)), "never used in the parent");
}

#[test]
fn what_was_queued_runs_in_the_child_and_what_was_awaited_ends() {
    static DOMAIN: Domain = Domain::with_thread("fork, queued");
    let _one = ONE.lock();
    let (inside, leave) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = DOMAIN.read();
            inside.wait();
            leave.wait();
        });
        inside.wait();
        let (sender, receiver) = mpsc::channel();
        DOMAIN.call(move || sender.send(()).unwrap_or(()));
        let mut future = pin!(DOMAIN.synchronized());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(in_child(|| {
            expect_served(&DOMAIN);
            receiver.try_recv().expect("it was queued before");
            assert!(future.as_mut().poll(&mut cx).is_ready(), "the reader is not here");
        }));
        assert!(receiver.try_recv().is_err(), "in the parent the reader is inside");
        leave.wait();
        receiver.recv_timeout(HANG).expect("it runs in the parent, too");
    });
}

#[test]
fn the_domains_thread_may_fork_and_so_may_a_job() {
    static DOMAIN: Domain = Domain::with_thread("fork, by the thread");
    static OTHER: Domain = Domain::with_thread("fork, another");
    let _one = ONE.lock();
    expect_served(&OTHER);
    let by_callback = |domain: &'static Domain| {
        let (sender, receiver) = mpsc::channel();
        domain.call(move || {
            let good = in_child(|| {
                assert!(domain.barrier().is_err(), "in a callback in the child, too");
                domain.synchronize().expect("outside");
                expect_served(&OTHER);
            });
            sender.send(good).expect("received");
        });
        receiver
    };
    let patience = HANG * 3;
    let good = by_callback(&DOMAIN).recv_timeout(patience).expect("it ran");
    assert!(good, "by the thread");

    static GIVEN: Domain = Domain::new("fork, by a job");
    let (sender, jobs) = mpsc::channel::<Job>();
    let submit = Executor::given(move |job| drop(sender.send(job)));
    GIVEN.run_callbacks_on(submit).expect("a thread");
    let good = by_callback(&GIVEN);
    jobs.recv_timeout(HANG).expect("a job").run();
    assert!(good.recv_timeout(patience).expect("it ran"), "by a job");
}
