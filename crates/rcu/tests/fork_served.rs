//! Children of `fork` whose domains have threads of their own: in the child there are none, until
//! they are needed.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a child can report in no other way")]

#[path = "child/process.rs"]
mod process;

use gracepoint_rcu::{Domain, Executor, Job};
use process::in_child;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// One test forks at a time.
static ONE: Mutex<()> = Mutex::new(());

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

/// A waker that tells which process it was called in.
struct Tells(mpsc::Sender<u32>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(std::process::id());
    }
}

/// A future that was pending at the fork: whoever uses the domain in the child has it woken there.
#[test]
fn futures_that_were_pending_are_woken_in_a_child_that_uses_the_domain() {
    static DOMAIN: Domain = Domain::new("fork, pending");
    let _one = ONE.lock();
    let uses: [fn(); 4] = [
        || DOMAIN.call(|| ()),
        || {
            let _cookie = DOMAIN.start_poll();
        },
        || DOMAIN.synchronize().expect("outside"),
        || DOMAIN.barrier().expect("outside"),
    ];
    for using in uses {
        let (inside, leave) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _guard = DOMAIN.read();
                inside.wait();
                leave.wait();
            });
            inside.wait();
            let (sender, woken) = mpsc::channel();
            let waker = Waker::from(Arc::new(Tells(sender)));
            let mut cx = Context::from_waker(&waker);
            let mut pending = pin!(DOMAIN.synchronized());
            assert!(pending.as_mut().poll(&mut cx).is_pending(), "a reader is inside");
            assert!(in_child(|| {
                using();
                let process = woken.recv_timeout(HANG).expect("it is not woken in the child");
                assert_eq!(process, std::process::id());
                assert!(pending.as_mut().poll(&mut cx).is_ready());
            }));
            leave.wait();
        });
    }
}
