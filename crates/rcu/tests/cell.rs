//! `RcuCell`: what is replaced is kept for readers and dropped once, and only the right guard opens it.

use gracepoint_rcu::{Domain, RcuCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Counts how many of it were dropped.
struct Counted(&'static AtomicUsize, u64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // A reader that sees this read what was dropped.
        self.1 = u64::MAX;
    }
}

#[test]
fn what_is_replaced_is_kept_while_the_guard_is() {
    static DOMAIN: Domain = Domain::new("kept");
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    let cell = RcuCell::new(&DOMAIN, Counted(&DROPPED, 1));
    let guard = DOMAIN.read();
    let first = cell.load(&guard);
    cell.replace(Counted(&DROPPED, 2));
    for _ in 0..10 {
        DOMAIN.drive();
    }
    assert_eq!((first.1, cell.load(&guard).1), (1, 2));
    assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
    drop(guard);
    DOMAIN.barrier().expect("outside");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    drop(cell);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
}

#[test]
fn updates_are_not_lost_and_readers_see_nothing_that_was_dropped() {
    static DOMAIN: Domain = Domain::new("updates");
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    const EACH: u64 = if cfg!(miri) { 20 } else { 2_000 };
    let cell = RcuCell::new(&DOMAIN, Counted(&DROPPED, 0));
    let made = AtomicUsize::new(1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    cell.update(|old| {
                        made.fetch_add(1, Ordering::Relaxed);
                        Counted(&DROPPED, old.1 + 1)
                    });
                    DOMAIN.drive();
                }
            });
        }
        scope.spawn(|| {
            let mut last = 0;
            while last < 2 * EACH {
                let guard = DOMAIN.read();
                let now = cell.load(&guard).1;
                assert!(last <= now && now <= 2 * EACH, "{last}, then {now}");
                last = now;
            }
        });
    });
    assert_eq!(cell.load(&DOMAIN.read()).1, 2 * EACH);
    drop(cell);
    DOMAIN.barrier().expect("outside");
    assert_eq!(DROPPED.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
    assert_eq!(DOMAIN.panicked_callbacks(), 0);
}

#[test]
fn another_domains_guard_is_refused() {
    static DOMAIN: Domain = Domain::new("mine");
    static OTHER: Domain = Domain::new("other");
    let cell = RcuCell::new(&DOMAIN, 1);
    let wrong = OTHER.read();
    let refused = catch_unwind(AssertUnwindSafe(|| *cell.load(&wrong)));
    let message = refused.expect_err("it is refused");
    let message = message.downcast_ref::<String>().expect("text");
    assert!(message.contains("not of domain `mine`"), "{message}");
    assert_eq!(*cell.load(&DOMAIN.read()), 1);
}

#[test]
fn a_panic_in_an_update_changes_nothing() {
    static DOMAIN: Domain = Domain::new("panic");
    let cell = RcuCell::new(&DOMAIN, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| cell.update(|_| panic!("on purpose"))));
    assert!(panicked.is_err());
    assert!(!DOMAIN.in_read_section());
    assert_eq!(format!("{cell:?}"), "RcuCell(1)");
}

/// A destructor that runs in a callback of the domain replaces other values of it.
#[test]
fn a_destructor_may_replace_other_cells() {
    static DOMAIN: Domain = Domain::new("nested");
    static CELL: std::sync::LazyLock<RcuCell<'static, u32>> =
        std::sync::LazyLock::new(|| RcuCell::new(&DOMAIN, 0));
    struct Replaces;
    impl Drop for Replaces {
        fn drop(&mut self) {
            CELL.replace(7);
        }
    }
    let cell = RcuCell::new(&DOMAIN, Some(Replaces));
    cell.replace(None);
    DOMAIN.barrier().expect("outside");
    assert_eq!(*CELL.load(&DOMAIN.read()), 7);
}

/// Guards of all kinds are known: on an own slot, and on the shared one at a thread's very end.
#[test]
fn guards_of_a_thread_that_ends_are_known_too() {
    static DOMAIN: Domain = Domain::new("ending");
    static READ: AtomicUsize = AtomicUsize::new(0);
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            let cell = RcuCell::new(&DOMAIN, 5);
            READ.fetch_add(*cell.load(&DOMAIN.read()), Ordering::Relaxed);
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit });
    thread::spawn(|| AT_EXIT.with(|_| drop(DOMAIN.read()))).join().expect("joined");
    assert_eq!(READ.load(Ordering::Relaxed), 5);
}
