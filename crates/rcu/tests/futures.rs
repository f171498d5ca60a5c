//! Futures: on an executor of a few lines and on real ones, woken, dropped, moved and refused.

use gracepoint_rcu::{BarrierError, Domain, Executor};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

/// How often, and how often in Miri, which takes a thousand times as long.
const fn times(times: usize, in_miri: usize) -> usize {
    if cfg!(miri) { in_miri } else { times }
}

/// Unparks a thread, and counts.
struct Unpark {
    thread: Thread,
    woken: AtomicUsize,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Release);
        self.thread.unpark();
    }
}

fn unpark() -> Arc<Unpark> {
    Arc::new(Unpark { thread: thread::current(), woken: AtomicUsize::new(0) })
}

/// An executor of a few lines. It polls only when woken; a lost wakeup is a failure.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let state = unpark();
    let waker = Waker::from(Arc::clone(&state));
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let begun = Instant::now();
        while state.woken.load(Ordering::Acquire) == seen {
            assert!(begun.elapsed() < HANG, "never woken");
            thread::park_timeout(HANG);
        }
        seen = state.woken.load(Ordering::Acquire);
    }
}

/// A domain and a reader that is inside until `leave` is passed.
fn with_reader(domain: &Domain, f: impl FnOnce(&dyn Fn())) {
    let (inside, leave) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = domain.read();
            inside.wait();
            leave.wait();
        });
        inside.wait();
        f(&|| {
            leave.wait();
        });
    });
}

#[test]
fn ready_at_once_if_nobody_reads() {
    let domain = Domain::new("nobody");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(domain.synchronized()).poll(&mut cx).is_ready());
    domain.retire(1);
    assert!(pin!(domain.barrier_async()).poll(&mut cx).is_ready());
    assert_eq!(domain.pending_callbacks(), 0);
}

#[test]
fn the_task_is_woken_when_readers_have_left() {
    for executor in [Executor::Driver, Executor::Thread, Executor::given(gracepoint_rcu::Job::run)]
    {
        let domain = Domain::new("woken");
        domain.run_callbacks_on(executor).expect("a thread");
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        domain.call(move || seen.store(true, Ordering::Release));
        with_reader(&domain, |leave| {
            let mut both = pin!(async {
                domain.synchronized().await.expect("outside");
                domain.barrier_async().await.expect("outside");
            });
            let state = unpark();
            let waker = Waker::from(Arc::clone(&state));
            for _ in 0..3 {
                assert!(both.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            assert_eq!(state.woken.load(Ordering::Acquire), 0);
            leave();
            block_on(both);
        });
        assert!(ran.load(Ordering::Acquire));
    }
}

#[test]
fn a_barrier_waits_for_callbacks_that_another_thread_runs() {
    let domain = Domain::new("other runner");
    let (inside, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let callback = (Arc::clone(&inside), Arc::clone(&leave));
    domain.call(move || {
        callback.0.wait();
        callback.1.wait();
    });
    domain.retire(1);
    thread::scope(|scope| {
        scope.spawn(|| domain.barrier().expect("outside"));
        inside.wait();
        let mut future = pin!(domain.barrier_async());
        let state = unpark();
        let waker = Waker::from(Arc::clone(&state));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        leave.wait();
        block_on(future).expect("outside");
    });
    assert_eq!(domain.pending_callbacks(), 0);
}

#[test]
fn what_is_dropped_leaves_nothing_behind() {
    let domain = Domain::new("dropped");
    let state = unpark();
    let waker = Waker::from(Arc::clone(&state));
    with_reader(&domain, |leave| {
        for _ in 0..times(1000, 5) {
            let mut cx = Context::from_waker(&waker);
            assert!(pin!(domain.synchronized()).poll(&mut cx).is_pending());
            let mut barrier = Box::pin(domain.barrier_async());
            assert!(barrier.as_mut().poll(&mut cx).is_pending());
            drop(barrier);
        }
        // Ours, the waker's, and no clone of it in any list.
        assert_eq!(Arc::strong_count(&state), 2);
        leave();
    });
    domain.barrier().expect("outside");
    assert_eq!(state.woken.load(Ordering::Acquire), 0);
    // One that is leaked goes with its domain.
    with_reader(&domain, |leave| {
        let mut leaked = Box::pin(domain.synchronized());
        assert!(leaked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let _ = std::mem::ManuallyDrop::new(leaked);
        assert_eq!(Arc::strong_count(&state), 3);
        leave();
    });
    drop(domain);
    assert_eq!(Arc::strong_count(&state), 2);
}

#[test]
fn the_latest_waker_counts() {
    let domain = Domain::new("moved");
    with_reader(&domain, |leave| {
        let mut future = Box::pin(domain.synchronized());
        let first = unpark();
        let waker = Waker::from(Arc::clone(&first));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        thread::scope(|scope| {
            let moved = scope.spawn(move || block_on(future));
            leave();
            moved.join().expect("joined").expect("outside");
        });
    });
}

#[test]
fn waiting_for_oneself_is_refused() {
    static DOMAIN: Domain = Domain::new("inside");
    let guard = DOMAIN.read();
    assert!(block_on(DOMAIN.synchronized()).is_err());
    assert!(matches!(block_on(DOMAIN.barrier_async()), Err(BarrierError::InReadSection(_))));
    drop(guard);
    static REFUSED: AtomicBool = AtomicBool::new(false);
    DOMAIN.call(|| {
        let refused = block_on(DOMAIN.barrier_async());
        let expected = matches!(refused, Err(BarrierError::InCallback { .. }));
        REFUSED.store(expected, Ordering::Relaxed);
    });
    DOMAIN.barrier().expect("outside");
    assert!(REFUSED.load(Ordering::Relaxed));
}

/// Tasks of two real executors, readers and callers, all at once.
#[test]
fn on_real_executors() {
    static DOMAIN: Domain = Domain::new("real");
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let task = |rounds: usize| async move {
        for round in 0..rounds {
            let mine = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&mine);
            DOMAIN.call(move || seen.store(true, Ordering::Relaxed));
            DOMAIN.synchronized().await.expect("outside");
            if round % 4 == 0 {
                DOMAIN.barrier_async().await.expect("outside");
                assert!(mine.load(Ordering::Relaxed));
            }
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _guard = DOMAIN.read();
                thread::yield_now();
            }
        });
        let pool = scope.spawn(|| {
            use futures_executor::LocalPool;
            use futures_util::task::LocalSpawnExt as _;
            let mut pool = LocalPool::new();
            for _ in 0..20 {
                pool.spawner().spawn_local(task(times(25, 2))).expect("spawned");
            }
            pool.run();
        });
        let alone = scope.spawn(|| pollster::block_on(task(times(100, 5))));
        let ours = scope.spawn(|| block_on(task(times(100, 5))));
        for waiting in [pool, alone, ours] {
            waiting.join().expect("joined");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(DONE.load(Ordering::Relaxed), 22);
}
