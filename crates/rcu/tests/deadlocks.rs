//! What hangs elsewhere: grace periods asked for, waited for and driven from destructors, from callbacks and
//! inside of sections. Each test ends, which is what it tests; where waiting cannot end, it is refused.

use gracepoint_rcu::{BarrierError, Domain, Progress, RcuCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

/// Counts what was dropped, after it has done something with the domain.
struct Uses(&'static Domain, &'static AtomicUsize, fn(&'static Domain));

impl Drop for Uses {
    fn drop(&mut self) {
        (self.2)(self.0);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// folly's: a destructor that is run by the reclaimer and retires, or waits, in turn.
#[test]
fn destructors_that_the_domain_runs_use_the_domain() {
    static DOMAIN: Domain = Domain::new("destructors");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let uses: [fn(&'static Domain); 5] = [
        |domain| domain.retire(String::from("more")),
        |domain| domain.synchronize().expect("outside"),
        |domain| {
            let _ = domain.drive();
        },
        |domain| {
            assert!(matches!(domain.barrier(), Err(BarrierError::InCallback { .. })));
            REFUSED.fetch_add(1, Ordering::Relaxed);
        },
        |domain| {
            let guard = domain.read();
            domain.synchronize().expect_err("inside");
            drop(guard);
        },
    ];
    for using in uses {
        DOMAIN.retire(Uses(&DOMAIN, &RUN, using));
    }
    DOMAIN.barrier().expect("outside");
    DOMAIN.barrier().expect("what those have queued");
    assert_eq!(RUN.load(Ordering::Relaxed), 5);
    assert_eq!(REFUSED.load(Ordering::Relaxed), 1);
    assert_eq!(DOMAIN.panicked_callbacks(), 0);
}

/// The same from a destructor that runs inside of a section, as when a guard outlives what it found.
#[test]
fn destructors_inside_of_sections_use_the_domain() {
    static DOMAIN: Domain = Domain::new("inside");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let uses: [fn(&'static Domain); 4] = [
        |domain| domain.retire(String::from("more")),
        |domain| {
            let _ = domain.drive();
        },
        |domain| domain.synchronize().map_or((), |()| panic!("it cannot have waited")),
        |domain| domain.barrier().map_or((), |()| panic!("it cannot have waited")),
    ];
    let guard = DOMAIN.read();
    for using in uses {
        drop(Uses(&DOMAIN, &RUN, using));
    }
    drop(guard);
    assert_eq!(RUN.load(Ordering::Relaxed), 4);
    DOMAIN.barrier().expect("outside");
}

/// crossbeam's: a bag of garbage whose destruction makes more, to any depth.
#[test]
fn what_is_retired_retires_what_it_holds() {
    static DOMAIN: Domain = Domain::new("list");
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Node(Option<Box<Node>>);
    impl Drop for Node {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            if let Some(next) = self.0.take() {
                DOMAIN.retire(next);
            }
        }
    }
    const LENGTH: usize = if cfg!(miri) { 20 } else { 1_000 };
    let list = (0..LENGTH).fold(None, |next, _| Some(Box::new(Node(next))));
    drop(list);
    while DOMAIN.drive() != Progress::Idle {}
    assert_eq!(DROPPED.load(Ordering::Relaxed), LENGTH);
}

/// A callback that takes a lock whose holders queue callbacks, drive, and wait for grace periods.
#[test]
fn a_lock_is_held_while_grace_periods_are_driven() {
    static DOMAIN: Domain = Domain::new("lock");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    const TIMES: usize = if cfg!(miri) { 3 } else { 50 };
    let lock = Arc::new(Mutex::new(()));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    let held = lock.lock().expect("the lock");
                    let inner = Arc::clone(&lock);
                    DOMAIN.call(move || {
                        let _held = inner.lock().expect("the lock");
                        RUN.fetch_add(1, Ordering::Relaxed);
                    });
                    // Neither runs callbacks, so that this is allowed where `drive` is not.
                    DOMAIN.poll();
                    DOMAIN.synchronize().expect("outside");
                    drop(held);
                    DOMAIN.drive();
                }
            });
        }
    });
    DOMAIN.barrier().expect("outside");
    assert_eq!(RUN.load(Ordering::Relaxed), 3 * TIMES);
}

/// Two threads in sections of each other's domains, each waiting for its own: independent domains.
#[test]
fn waiting_for_one_domain_inside_of_another() {
    static ONE: Domain = Domain::new("one");
    static TWO: Domain = Domain::new("two");
    let both = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let guard = ONE.read();
            both.wait();
            drop(guard);
            TWO.synchronize().expect("outside of it");
        });
        scope.spawn(|| {
            let guard = TWO.read();
            both.wait();
            drop(guard);
            ONE.synchronize().expect("outside of it");
        });
    });
    let _inside = ONE.read();
    TWO.synchronize().expect("a reader of one does not hold up the other");
}

/// `replace`, `update` and a cell's own destructor, in a callback of the cell's domain and inside of it.
#[test]
fn cells_are_changed_in_callbacks_and_inside() {
    static DOMAIN: Domain = Domain::new("cells");
    let cell = Arc::new(RcuCell::new(&DOMAIN, 0_u64));
    for _ in 0..20 {
        let inner = Arc::clone(&cell);
        DOMAIN.call(move || {
            let guard = DOMAIN.read();
            inner.update(|number| number + 1);
            drop(guard);
            inner.replace(*inner.load(&DOMAIN.read()) + 1);
        });
    }
    let guard = DOMAIN.read();
    DOMAIN.retire(RcuCell::new(&DOMAIN, String::from("a cell that is retired")));
    drop(guard);
    DOMAIN.barrier().expect("outside");
    assert_eq!(*cell.load(&DOMAIN.read()), 40);
    drop(cell);
    while DOMAIN.drive() != Progress::Idle {}
    assert_eq!(DOMAIN.panicked_callbacks(), 0);
}
