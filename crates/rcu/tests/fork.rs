//! Children of `fork`, made while other threads are inside read sections and are driving.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a child can report in no other way")]

#[path = "child/process.rs"]
mod process;

use gracepoint_rcu::{Domain, Progress};
use process::in_child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// One test forks at a time: children inherit what other tests' threads are doing, which is
/// allowed, but a failure would be hard to read.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn readers_that_the_child_does_not_have_hold_up_nothing() {
    static DOMAIN: Domain = Domain::new("fork readers");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let _one = ONE.lock();
    let inside = Barrier::new(3);
    let leave = Barrier::new(3);
    let mine = gracepoint_rcu::thread_index().expect("an index");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _outer = DOMAIN.read();
                let _inner = DOMAIN.read();
                inside.wait();
                leave.wait();
            });
        }
        inside.wait();
        let cookie = DOMAIN.start_poll();
        DOMAIN.call(|| {
            RUN.fetch_add(1, Ordering::Relaxed);
        });
        while DOMAIN.poll() == Progress::Advanced {}
        assert_eq!(DOMAIN.holdouts().len(), 2, "both are waited for");

        assert!(in_child(|| {
            assert!(DOMAIN.holdouts().is_empty());
            assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"), "held up in the child");
            assert!(DOMAIN.poll_state(cookie), "the parent's cookie too");
            assert_eq!(DOMAIN.pending_callbacks(), 1);
            DOMAIN.barrier().expect("outside");
            assert_eq!(RUN.load(Ordering::Relaxed), 1, "what was queued runs");
            assert_eq!(gracepoint_rcu::thread_index(), Some(mine));
            let info = gracepoint_rcu::thread_info(mine).expect("alive");
            assert_eq!(info.tid, std::process::id(), "its new number");
            assert_eq!(gracepoint_rcu::live_threads().count(), 1, "nobody else");
            let other = thread::spawn(gracepoint_rcu::thread_index).join().expect("joined");
            assert!(other.expect("an index") <= 1 + mine, "indices were freed");
        }));

        assert!(!DOMAIN.poll_state(cookie), "in the parent they still are inside");
        assert_eq!(DOMAIN.holdouts().len(), 2);
        leave.wait();
    });
    DOMAIN.barrier().expect("outside");
    assert_eq!(RUN.load(Ordering::Relaxed), 1);
}

#[test]
fn the_forking_threads_own_section_goes_on() {
    static DOMAIN: Domain = Domain::new("fork inside");
    let _one = ONE.lock();
    let mut guard = Some(DOMAIN.read());
    assert!(in_child(|| {
        assert!(DOMAIN.in_read_section());
        assert!(DOMAIN.synchronize().is_err());
        let cookie = DOMAIN.start_poll();
        for _ in 0..10 {
            DOMAIN.poll();
        }
        assert!(!DOMAIN.poll_state(cookie), "the guard came along and still protects");
        drop(guard.take());
        assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"));
    }));
    drop(guard);
    DOMAIN.synchronize().expect("outside");
}

#[test]
fn forks_while_others_drive() {
    static DOMAIN: Domain = Domain::new("fork drivers");
    let _one = ONE.lock();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let guard = DOMAIN.read();
                    DOMAIN.retire(vec![1_u8; 16]);
                    drop(guard);
                    DOMAIN.drive();
                    if DOMAIN.pending_callbacks() > 1000 {
                        thread::yield_now();
                    }
                }
            });
        }
        let good = (0..100).all(|_| {
            in_child(|| {
                assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"));
                DOMAIN.barrier().expect("outside");
                assert_eq!(DOMAIN.pending_callbacks(), 0, "counted anew");
                assert_eq!(DOMAIN.drive(), Progress::Idle);
            })
        });
        stop.store(true, Ordering::Relaxed);
        assert!(good, "a child failed or hung");
    });
    DOMAIN.barrier().expect("outside");
}

#[test]
fn a_callback_may_fork() {
    static DOMAIN: Domain = Domain::new("fork callback");
    static GOOD: AtomicBool = AtomicBool::new(false);
    let _one = ONE.lock();
    DOMAIN.call(|| {
        let good = in_child(|| {
            assert_eq!(DOMAIN.pending_callbacks(), 2, "this one and the next");
            assert!(DOMAIN.barrier().is_err(), "this thread is in a callback in the child too");
            let running = DOMAIN.running_callback().expect("it goes on in the child");
            assert_eq!(running.thread.expect("known").tid, std::process::id());
            assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"));
        });
        GOOD.store(good, Ordering::Relaxed);
    });
    DOMAIN.barrier().expect("outside");
    assert!(GOOD.load(Ordering::Relaxed));
}

/// The child does not have the thread that runs a callback, and so neither the callback.
#[test]
fn a_callback_that_hangs_elsewhere_does_not_hang_in_the_child() {
    static DOMAIN: Domain = Domain::new("fork hanging");
    let _one = ONE.lock();
    let (begun, end) =
        (&*Box::leak(Box::new(Barrier::new(2))), &*Box::leak(Box::new(Barrier::new(2))));
    DOMAIN.call(|| {
        begun.wait();
        end.wait();
    });
    DOMAIN.call(|| {});
    thread::scope(|scope| {
        scope.spawn(|| DOMAIN.barrier().expect("outside"));
        begun.wait();
        assert_eq!(DOMAIN.running_callback().expect("it hangs").number, 1);
        assert!(in_child(|| {
            assert!(DOMAIN.running_callback().is_none());
            DOMAIN.barrier().expect("outside");
            assert_eq!(DOMAIN.pending_callbacks(), 0, "those behind it run");
        }));
        end.wait();
    });
}

#[test]
fn owned_sections_stay_open_in_the_child_until_it_forgets_them() {
    static DOMAIN: Domain = Domain::new("fork owned");
    let _one = ONE.lock();
    let entered = Barrier::new(2);
    let leave = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let guards = [DOMAIN.read_owned("task"), DOMAIN.read_owned("task")];
            entered.wait();
            leave.wait();
            drop(guards);
        });
        entered.wait();
        let good = in_child(|| {
            // Whoever entered them: the guards may be anywhere in the child's memory.
            let cookie = DOMAIN.start_poll();
            for _ in 0..10 {
                DOMAIN.poll();
            }
            assert!(!DOMAIN.poll_state(cookie), "they are open");
            let stall = DOMAIN.stalls().remove(0);
            let reader = &stall.culprits[0].reader;
            assert_eq!((reader.owner, reader.sections, reader.inherited), (Some("task"), 2, 2));
            assert!(reader.to_string().ends_with(", 2 from before the fork"), "{reader}");

            let own = DOMAIN.read_owned("task");
            // SAFETY: the parent's guards are on the stack of a thread that is not here.
            assert_eq!(unsafe { DOMAIN.forget_inherited() }, 2);
            // SAFETY: as above; there are no more of them.
            assert_eq!(unsafe { DOMAIN.forget_inherited() }, 0);
            let cookie = DOMAIN.start_poll();
            for _ in 0..10 {
                DOMAIN.poll();
            }
            assert!(!DOMAIN.poll_state(cookie), "the child's own section is still open");
            assert_eq!(DOMAIN.holdouts()[0].inherited, 0);
            drop(own);
            assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"));
        });
        // SAFETY: this process was not forked from one with guards: nothing happens.
        let forgotten = unsafe { DOMAIN.forget_inherited() };
        leave.wait();
        assert_eq!(forgotten, 0);
        assert!(good, "the child failed or hung");
    });
    DOMAIN.synchronize().expect("outside");
}

#[test]
fn an_owned_guard_goes_on_in_the_child_that_has_it() {
    static DOMAIN: Domain = Domain::new("fork own owned");
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Value(u32);
    impl Drop for Value {
        fn drop(&mut self) {
            self.0 = 0;
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _one = ONE.lock();
    let cell = gracepoint_rcu::RcuCell::new(&DOMAIN, Value(1));
    let mut guard = Some(DOMAIN.read_owned("parent"));
    assert!(in_child(|| {
        let taken = guard.take().expect("it came along");
        let value = cell.load(&taken);
        cell.replace(Value(2));
        for _ in 0..10 {
            DOMAIN.drive();
        }
        assert_eq!((value.0, DROPPED.load(Ordering::Relaxed)), (1, 0), "it still protects");
        drop(taken);
        DOMAIN.barrier().expect("outside");
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    }));
    drop(guard);
    DOMAIN.synchronize().expect("outside");
}

#[test]
fn forks_in_the_middle_of_everything() {
    static DOMAIN: Domain = Domain::new("fork everything");
    let _one = ONE.lock();
    DOMAIN.stalled_after(Duration::ZERO);
    DOMAIN.on_stall(|stall| drop(stall.to_string()));
    DOMAIN.prove(gracepoint_rcu::Checks::default().sections_shorter_than(HANG));
    let cell = gracepoint_rcu::RcuCell::new(&DOMAIN, vec![1_u8; 16]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let owned = DOMAIN.read_owned("worker");
                    let guard = DOMAIN.read();
                    assert_eq!(cell.load(&owned).len(), cell.load(&guard).len());
                    cell.replace(vec![2_u8; 16]);
                    drop(guard);
                    DOMAIN.drive();
                    drop(owned);
                    let _ = DOMAIN.stalls();
                    assert!(DOMAIN.findings().is_empty());
                    if DOMAIN.pending_callbacks() > 1000 {
                        DOMAIN.barrier().expect("outside");
                    }
                }
            });
        }
        let good = (0..60).all(|_| {
            in_child(|| {
                let inherited: u64 =
                    DOMAIN.holdouts().iter().map(|holdout| holdout.inherited).sum();
                assert!(inherited <= 2);
                // SAFETY: the guards are on the stacks of threads that are not here.
                unsafe { DOMAIN.forget_inherited() };
                assert!(DOMAIN.synchronize_timeout(HANG).expect("outside"));
                DOMAIN.barrier().expect("outside");
                cell.replace(Vec::new());
                assert!(DOMAIN.stalls().is_empty() && DOMAIN.findings().is_empty());
                DOMAIN.barrier().expect("outside");
                assert_eq!(DOMAIN.pending_callbacks(), 0);
            })
        });
        stop.store(true, Ordering::Relaxed);
        assert!(good, "a child failed or hung");
    });
    DOMAIN.barrier().expect("outside");
}

/// A runner that has taken very many callbacks puts them in order first, which takes a while.
#[test]
fn callbacks_that_a_runner_has_just_taken_are_the_childs_too() {
    static DOMAIN: Domain = Domain::new("fork, just taken");
    static RAN: AtomicUsize = AtomicUsize::new(0);
    const MANY: usize = 200_000;
    let _one = ONE.lock();
    let mut short = Vec::new();
    for delay in [0, 300, 600, 1000] {
        RAN.store(0, Ordering::Relaxed);
        for _ in 0..MANY {
            DOMAIN.call(|| {
                RAN.fetch_add(1, Ordering::Relaxed);
            });
        }
        DOMAIN.synchronize().expect("outside");
        DOMAIN.synchronize().expect("outside");
        let begin = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                DOMAIN.drive();
            });
            begin.wait();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(delay) {
                std::hint::spin_loop();
            }
            let forks = Instant::now();
            let good = in_child(|| {
                if forks.elapsed() > Duration::from_millis(90) {
                    return; // The runner may not have had a processor for as long as a fork waits.
                }
                DOMAIN.barrier().expect("outside");
                // The one that the runner was running is lost.
                assert!(RAN.load(Ordering::Relaxed) + 1 >= MANY);
            });
            if !good {
                short.push(delay);
            }
        });
        DOMAIN.barrier().expect("outside");
    }
    assert!(short.is_empty(), "lost after {short:?} us");
}
