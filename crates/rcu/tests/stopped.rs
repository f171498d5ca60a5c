//! Drivers that are stopped in the middle of a step, by a signal whose handler does not return: nobody who
//! waits for a grace period waits for them.
#![cfg(target_os = "linux")]

use gracepoint_rcu::Domain;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

const A_MOMENT: Duration = Duration::from_micros(50);

/// How often a test wants to have stopped a driver inside of its step.
const STOPS: usize = 5;

/// The tests share a signal, and what follows.
static TURN: Mutex<()> = Mutex::new(());
/// How often a driver was stopped, ever, and how often it was let go on.
static STOPPED: AtomicUsize = AtomicUsize::new(0);
static GO_ON: AtomicUsize = AtomicUsize::new(0);

extern "C" fn stop(_: libc::c_int) {
    let stop = STOPPED.fetch_add(1, Ordering::Release) + 1;
    while GO_ON.load(Ordering::Acquire) < stop {
        // SAFETY: sleeps for 1 ms, and nothing else; it may be called in a handler.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
    }
}

/// Calls `wait` while a thread that does nothing but drive `domain` is stopped inside of a step, some times.
///
/// It may be stopped elsewhere. Then a grace period ends in the steps of who comes first: two at most, since nobody reads.
fn beside_a_stopped_driver(domain: &'static Domain, wait: impl Fn()) {
    let _turn = TURN.lock();
    // SAFETY: the handler loads and stores atomics, and sleeps; all-zero is a valid sigaction but for it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stop as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let (done, turns) = &*Box::leak(Box::new((AtomicBool::new(false), AtomicUsize::new(0))));
    let driver = thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            let _cookie = domain.start_poll();
            domain.poll();
            turns.fetch_add(1, Ordering::Relaxed);
        }
    });
    let begun = Instant::now();
    let mut stops = 0;
    while stops < STOPS {
        assert!(begun.elapsed() < HANG, "it was never stopped in a step");
        let stop = STOPPED.load(Ordering::Relaxed) + 1;
        // Once it has gone on from where it was stopped before.
        let turn = turns.load(Ordering::Relaxed);
        while turns.load(Ordering::Relaxed) < turn + 100 {
            thread::sleep(A_MOMENT);
        }
        // SAFETY: the thread is not joined yet, and the signal has a handler.
        assert_eq!(unsafe { libc::pthread_kill(driver.as_pthread_t(), libc::SIGUSR1) }, 0);
        while STOPPED.load(Ordering::Acquire) < stop {
            thread::sleep(A_MOMENT);
        }
        let cookie = domain.start_poll();
        for _ in 0..3 {
            domain.poll();
        }
        if !domain.poll_state(cookie) {
            stops += 1;
            wait();
            wait();
            assert!(domain.poll_state(cookie));
        }
        GO_ON.store(stop, Ordering::Release);
    }
    done.store(true, Ordering::Relaxed);
    driver.join().expect("the driver");
}

#[test]
fn synchronize_does_not_wait_for_a_stopped_driver() {
    static DOMAIN: Domain = Domain::new("stopped");
    beside_a_stopped_driver(&DOMAIN, || {
        assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"), "it waits for the driver");
    });
}

#[test]
fn who_polls_a_cookie_does_not_wait_for_a_stopped_driver() {
    static DOMAIN: Domain = Domain::new("stopped, polled");
    beside_a_stopped_driver(&DOMAIN, || {
        let (cookie, begun) = (DOMAIN.start_poll(), Instant::now());
        while !DOMAIN.poll_state(cookie) {
            assert!(begun.elapsed() < HANG, "it waits for the driver");
            DOMAIN.poll();
            thread::sleep(A_MOMENT);
        }
    });
}

#[test]
fn tasks_do_not_wait_for_a_stopped_driver() {
    static DOMAIN: Domain = Domain::new("stopped, awaited");
    beside_a_stopped_driver(&DOMAIN, || {
        let (done, begun) = (AtomicUsize::new(0), Instant::now());
        thread::scope(|scope| {
            scope.spawn(|| {
                pollster::block_on(DOMAIN.synchronized()).expect("outside");
                done.fetch_add(1, Ordering::Release);
            });
            while done.load(Ordering::Acquire) == 0 {
                assert!(begun.elapsed() < HANG, "it waits for the driver");
                thread::sleep(A_MOMENT);
            }
        });
    });
}

/// Readers come and go, so that grace periods have to flip.
#[test]
fn readers_are_waited_for_beside_a_stopped_driver() {
    static DOMAIN: Domain = Domain::new("stopped, read");
    beside_a_stopped_driver(&DOMAIN, || {
        let (leave, begun) = (AtomicBool::new(false), Instant::now());
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let guard = DOMAIN.read();
                while !leave.load(Ordering::Relaxed) {
                    thread::sleep(A_MOMENT);
                }
                drop(guard);
            });
            while !DOMAIN.synchronize_timeout(Duration::ZERO).expect("outside") {
                if !DOMAIN.holdouts().is_empty() || begun.elapsed() > HANG {
                    break;
                }
            }
            leave.store(true, Ordering::Relaxed);
            assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"), "it waits for the driver");
            reader.join().expect("the reader");
        });
    });
}
