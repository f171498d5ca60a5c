//! What users do although they should not: executors that are gone, wakers that drop the domain, names that no
//! thread can have; and systems that have no thread to give.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a child can report in no other way")]

#[path = "child/process.rs"]
mod process;

use gracepoint_rcu::{Domain, Executor, Job, Progress, RcuCell};
use process::in_child;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

fn add_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// An executor that was shut down throws away every job. The domain's thread tries again, more and more rarely.
#[test]
fn an_executor_that_is_gone_keeps_no_processor_busy() {
    let (tell, told) = mpsc::channel();
    let executor = Executor::given(move |job: Job| {
        drop(job);
        let _ = tell.send(Instant::now());
    });
    let domain = Domain::new("gone");
    domain.run_callbacks_on(executor).expect("a thread");
    domain.call(|| {});
    let first: Instant = told.recv_timeout(HANG).expect("a job");
    // 32 pauses of 5 us, 96 of 50 us, then of 1 ms and more.
    let last = (0..500).fold(first, |_, _| told.recv_timeout(HANG).expect("another"));
    let took = last - first;
    assert!(took > Duration::from_millis(250), "500 jobs in {took:?}");
    domain.barrier().expect("outside");
}

/// A task whose executor is gone is dropped by who wakes it, and with it what it owns.
struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    gone: Mutex<mpsc::Sender<()>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let future = self.future.lock().expect("the future").take();
        drop(future);
        let _ = self.gone.lock().expect("the sender").send(());
    }
}

#[test]
fn a_waker_that_is_called_by_a_job_may_drop_the_domain() {
    let (sender, jobs) = mpsc::channel::<Job>();
    let domain = Arc::new(Domain::new("dropped by a waker"));
    let executor = Executor::given(move |job| drop(sender.send(job)));
    domain.run_callbacks_on(executor).expect("a thread");
    let (inside, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ran = Arc::new(AtomicUsize::new(0));
    // Both in one job: while the first runs, the second is ready.
    let guard = domain.read();
    let callback = (Arc::clone(&inside), Arc::clone(&leave));
    domain.call(move || {
        callback.0.wait();
        callback.1.wait();
    });
    let count = Arc::clone(&ran);
    domain.call(move || add_one(&count));
    drop(guard);
    let job = jobs.recv_timeout(HANG).expect("a job");
    let (gone, told) = mpsc::channel();
    let (returned, job_returned) = mpsc::channel();
    thread::spawn(move || {
        job.run();
        returned.send(()).expect("received");
    });
    inside.wait();
    // No grace period ends any more: then nobody but the job wakes tasks.
    #[expect(clippy::mem_forget, reason = "a section that outlives its domain")]
    std::mem::forget(domain.read_owned("leaked"));
    let _cookie = domain.start_poll();
    let stuck = || domain.stalls().first().is_some_and(|stall| !stall.culprits.is_empty());
    while domain.poll() == Progress::Advanced || !stuck() {}
    // From here on a task runs callbacks itself, but now somebody else does: it waits for that one.
    domain.run_callbacks_on(Executor::Driver).expect("nothing to start");
    let task = Arc::new(Task { future: Mutex::new(None), gone: Mutex::new(gone) });
    let waker = Waker::from(Arc::clone(&task));
    let mut future = Box::pin(async move { domain.barrier_async().await.expect("outside") });
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(
        told.try_recv().is_err(),
        "it wakes itself, again and again, while another runs callbacks"
    );
    *task.future.lock().expect("the future") = Some(future);
    leave.wait();
    told.recv_timeout(HANG).expect("the last owner of the domain dropped it");
    job_returned.recv_timeout(HANG).expect("the job returns");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_domain_whose_name_no_thread_can_have_is_served() {
    static DOMAIN: Domain = Domain::with_thread("a\0name");
    expect_served(&DOMAIN);
}

/// A callback runs, although nobody here drives.
fn expect_served(domain: &Domain) {
    let (sender, receiver) = mpsc::channel();
    domain.call(move || sender.send(()).expect("received"));
    receiver.recv_timeout(HANG).expect("nobody serves the domain");
}

/// Runs `f` when the system has no memory for the stack of another thread, nor for the threads' slots in a domain.
fn without_threads<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: all-zero is a valid rlimit; it goes to a variable of ours.
    let before = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        limit
    };
    // Something for the allocator, and less than a stack.
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the size of this process");
    let pages: u64 =
        pages.split(' ').next().and_then(|field| field.parse().ok()).expect("a number");
    let none = libc::rlimit { rlim_cur: pages * 4096 + (1 << 20), ..before };
    // SAFETY: reads a variable of ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) }, 0);
    // Stacks of threads that have ended are kept, and are used up by these.
    while thread::Builder::new().spawn(thread::park).is_ok() {}
    let result = f();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const before) }, 0);
    result
}

#[test]
fn a_thread_that_could_not_be_started_is_started_later() {
    static CHOSEN: Domain = Domain::new("chosen");
    static SERVED: Domain = Domain::with_thread("served later");
    static RAN: AtomicUsize = AtomicUsize::new(0);
    let good = in_child(|| {
        drop((CHOSEN.read(), SERVED.read()));
        let failed = without_threads(|| CHOSEN.run_callbacks_on(Executor::Thread));
        assert!(failed.is_err(), "the limit does not limit");
        expect_served(&CHOSEN);
        without_threads(|| {
            for _ in 0..3 {
                SERVED.call(|| add_one(&RAN));
            }
        });
        assert_eq!(RAN.load(Ordering::Relaxed), 0, "nobody runs them");
        expect_served(&SERVED);
        assert_eq!(RAN.load(Ordering::Relaxed), 3, "in order");
        // Whoever waits meanwhile leaves nothing that is forgotten.
        expect_served(&SERVED);
    });
    assert!(good);
}

/// A domain has 4 MiB of addresses. One that gets none is slower, and a domain of its own all the same.
#[test]
fn domains_without_memory_for_slots_are_independent() {
    let good = in_child(|| {
        let (first, second) = (Domain::new("first"), Domain::new("second"));
        without_threads(|| drop((first.read(), second.read())));
        let held = first.read_owned("who holds the first");
        let cookie = first.start_poll();
        assert!(second.synchronize_timeout(HANG).expect("outside"), "held up by the other");
        for _ in 0..10 {
            first.poll();
        }
        assert!(!first.poll_state(cookie), "the guard is of this domain");
        let stalls = first.stalls();
        assert_eq!(stalls[0].grace_period.domain, "first");
        assert!(second.stalls().is_empty());
        let cell = RcuCell::new(&first, 7);
        assert_eq!(cell.load(&held), &7);

        second.run_callbacks_on(Executor::Thread).expect("a thread");
        expect_served(&second);
        second.barrier().expect("outside"); // That callback has said so, and has yet to return.
        first.call(|| {});
        assert_eq!((first.pending_callbacks(), second.pending_callbacks()), (1, 0));
        drop((cell, held));
        first.barrier().expect("outside");
        // Whoever comes next has their memory, and nothing else of theirs.
        drop((first, second));
        let third = without_threads(|| {
            let third = Domain::new("third");
            drop(third.read());
            third
        });
        third.call(|| {});
        assert!(third.poll_state(gracepoint_rcu::Cookie::COMPLETED));
        assert_eq!(third.stats().callbacks_pending, 1, "it has no thread");
        third.barrier().expect("outside");
    });
    assert!(good);
}
