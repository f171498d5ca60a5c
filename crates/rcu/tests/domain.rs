//! Domains: cookies, callbacks, barriers, holdouts, and what is refused.

use gracepoint_rcu::{BarrierError, Domain, Progress};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

fn settle(domain: &Domain) {
    while domain.drive() != Progress::Idle {}
}

#[test]
fn one_grace_period_serves_any_number() {
    static DOMAIN: Domain = Domain::new("many cookies");
    let cookies: Vec<_> = (0..1000).map(|_| DOMAIN.start_poll()).collect();
    assert!(cookies.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(DOMAIN.poll(), Progress::Advanced);
    assert!(cookies.iter().all(|cookie| DOMAIN.poll_state(*cookie)));
    assert_eq!(DOMAIN.poll(), Progress::Idle);
}

#[test]
fn a_cookie_taken_while_one_runs_waits_for_the_next() {
    static DOMAIN: Domain = Domain::new("running");
    let guard = DOMAIN.read();
    let first = DOMAIN.start_poll();
    while DOMAIN.poll() == Progress::Advanced {}
    let second = DOMAIN.start_poll();
    assert!(second > first);
    drop(guard);
    while !DOMAIN.poll_state(first) {
        DOMAIN.poll();
    }
    assert!(!DOMAIN.poll_state(second));
    while !DOMAIN.poll_state(second) {
        DOMAIN.poll();
    }
}

#[test]
fn a_cookie_that_is_done_is_not_waited_for() {
    static DOMAIN: Domain = Domain::new("conditional");
    static BUSY: Domain = Domain::new("conditional, busy");
    let cookie = DOMAIN.get_state();
    DOMAIN.cond_synchronize(cookie).expect("outside");
    assert!(DOMAIN.poll_state(cookie));
    let guard = DOMAIN.read();
    DOMAIN.cond_synchronize(cookie).expect("inside, and nothing to wait for");
    let later = DOMAIN.get_state();
    DOMAIN.cond_synchronize(later).expect_err("inside");
    // Nobody asked for it by that.
    assert_eq!(DOMAIN.poll(), Progress::Idle);
    drop(guard);
    // A cookie of a domain that has had more grace periods comes to an end all the same.
    (0..10).for_each(|_| BUSY.synchronize().expect("outside"));
    DOMAIN.cond_synchronize(BUSY.get_state()).expect("outside");
    // The one that was running when it was taken is not the one that is waited for.
    let guard = DOMAIN.read();
    let first = DOMAIN.start_poll();
    while DOMAIN.poll() == Progress::Advanced {}
    let second = DOMAIN.get_state();
    drop(guard);
    DOMAIN.cond_synchronize(second).expect("outside");
    assert!(DOMAIN.poll_state(first) && DOMAIN.poll_state(second));
}

#[test]
fn an_expedited_domain_asks_to_be_polled_at_once() {
    let domain = Domain::new("expedited");
    let guard = domain.read();
    let _cookie = domain.start_poll();
    let patient = |wanted: bool| {
        let pause = (0..if cfg!(miri) { 40 } else { 200 }).map(|_| domain.poll()).last();
        let Some(Progress::Pending(pause)) = pause else { panic!("{pause:?}") };
        assert_eq!(pause >= Duration::from_millis(1), wanted, "{pause:?}");
    };
    patient(true);
    let hurry = domain.expedite();
    let more = domain.expedite();
    patient(false);
    drop(hurry);
    patient(false);
    drop(more);
    patient(true);
    drop(guard);
}

#[test]
fn new_sections_do_not_hold_up_an_old_grace_period() {
    static DOMAIN: Domain = Domain::new("overlapping");
    let mut guard = DOMAIN.read();
    let cookie = DOMAIN.start_poll();
    let mut steps = 0;
    // There is a section open at every moment, and each overlaps the next.
    while !DOMAIN.poll_state(cookie) {
        DOMAIN.poll();
        let next = DOMAIN.read();
        drop(std::mem::replace(&mut guard, next));
        steps += 1;
        assert!(steps < 10, "starved");
    }
    drop(guard);
}

#[test]
fn waiting_for_oneself_is_refused() {
    static DOMAIN: Domain = Domain::new("inside");
    static OTHER: Domain = Domain::new("other");
    let guard = DOMAIN.read();
    let error = DOMAIN.synchronize().expect_err("inside");
    assert!(error.to_string().contains("`inside`"));
    assert_eq!(DOMAIN.synchronize_timeout(Duration::MAX), Err(error));
    assert_eq!(DOMAIN.barrier(), Err(BarrierError::InReadSection(error)));
    OTHER.synchronize().expect("inside of another domain is no obstacle");
    drop(guard);
    DOMAIN.synchronize().expect("outside");
}

#[test]
fn a_timeout_leaves_the_grace_period_running() {
    static DOMAIN: Domain = Domain::new("timeout");
    let inside = Barrier::new(2);
    let leave = Barrier::new(2);
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("worker-3".to_owned());
        let reader = builder.spawn_scoped(scope, || {
            let _guard = DOMAIN.read();
            inside.wait();
            leave.wait();
        });
        inside.wait();
        let cookie = DOMAIN.start_poll();
        assert!(!DOMAIN.synchronize_timeout(Duration::from_millis(20)).expect("outside"));
        let holdouts = DOMAIN.holdouts();
        assert_eq!(holdouts.len(), 1);
        assert_eq!(holdouts[0].sections, 1);
        if cfg!(all(target_os = "linux", not(miri))) {
            let text = holdouts[0].to_string();
            let expected = "(worker-3) is inside 1 read section of domain \"timeout\"";
            assert!(text.contains(expected), "{text}");
        }
        leave.wait();
        reader.expect("spawned").join().expect("joined");
        while !DOMAIN.poll_state(cookie) {
            DOMAIN.poll();
        }
        settle(&DOMAIN);
        assert!(DOMAIN.holdouts().is_empty());
    });
}

#[test]
fn callbacks_run_in_order_and_after_open_sections() {
    static DOMAIN: Domain = Domain::new("order");
    let log = Arc::new(Mutex::new(Vec::new()));
    let guard = DOMAIN.read();
    for number in 0..100 {
        let log = Arc::clone(&log);
        DOMAIN.call(move || log.lock().expect("the log").push(number));
        if number % 7 == 0 {
            DOMAIN.drive();
        }
    }
    for _ in 0..10 {
        DOMAIN.drive();
    }
    assert!(log.lock().expect("the log").is_empty(), "this thread is inside");
    assert_eq!(DOMAIN.pending_callbacks(), 100);
    drop(guard);
    settle(&DOMAIN);
    assert!(log.lock().expect("the log").iter().copied().eq(0..100));
    assert_eq!(DOMAIN.pending_callbacks(), 0);
}

#[test]
fn a_panicking_callback_stops_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload that panics");
        }
    }
    static DOMAIN: Domain = Domain::new("panics");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    DOMAIN.call(|| panic!("on purpose"));
    DOMAIN.call(|| std::panic::panic_any(Bomb));
    DOMAIN.retire(Bomb);
    DOMAIN.call(|| {
        RUN.fetch_add(1, Ordering::Relaxed);
    });
    DOMAIN.barrier().expect("outside");
    assert_eq!(RUN.load(Ordering::Relaxed), 1);
    assert_eq!(DOMAIN.panicked_callbacks(), 3);
}

#[test]
fn callbacks_may_use_their_domain() {
    static DOMAIN: Domain = Domain::new("nested");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    DOMAIN.call(|| {
        let guard = DOMAIN.read();
        DOMAIN.call(|| {
            RUN.fetch_add(1, Ordering::Relaxed);
        });
        DOMAIN.drive();
        drop(guard);
        DOMAIN.synchronize().expect("outside");
        DOMAIN.drive();
        assert!(matches!(DOMAIN.barrier(), Err(BarrierError::InCallback { .. })));
        assert_eq!(RUN.load(Ordering::Relaxed), 0, "one callback at a time");
    });
    settle(&DOMAIN);
    assert_eq!(RUN.load(Ordering::Relaxed), 1);
    assert_eq!(DOMAIN.panicked_callbacks(), 0);
}

#[test]
fn barriers_and_callers_on_many_threads() {
    static DOMAIN: Domain = Domain::new("barriers");
    static RUN: AtomicUsize = AtomicUsize::new(0);
    const EACH: usize = if cfg!(miri) { 3 } else { 200 };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mine = Arc::new(AtomicBool::new(false));
                    let seen = Arc::clone(&mine);
                    DOMAIN.call(move || {
                        seen.store(true, Ordering::Relaxed);
                        RUN.fetch_add(1, Ordering::Relaxed);
                    });
                    drop(DOMAIN.read());
                    DOMAIN.barrier().expect("outside");
                    assert!(mine.load(Ordering::Relaxed));
                }
            });
        }
    });
    assert_eq!(RUN.load(Ordering::Relaxed), 4 * EACH);
}

#[test]
fn a_dropped_domain_runs_its_callbacks_and_its_memory_is_used_again() {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    // Fewer in Miri, to which a domain's memory is 4 MiB that it has to fill.
    for round in 1..=if cfg!(miri) { 3 } else { 100 } {
        let domain = Domain::new("short-lived");
        let guard = domain.read();
        domain.call(|| {
            RUN.fetch_add(1, Ordering::Relaxed);
        });
        domain.poll();
        drop(guard);
        let moved = domain;
        assert_eq!(moved.pending_callbacks(), 1);
        moved.synchronize().expect("outside");
        drop(moved);
        assert_eq!(RUN.load(Ordering::Relaxed), round);
    }
}

#[test]
fn a_guard_is_one_word() {
    assert_eq!(size_of::<gracepoint_rcu::Guard<'_>>(), size_of::<usize>());
    assert_eq!(
        size_of::<Option<gracepoint_rcu::Cookie>>(),
        size_of::<u64>() * 2,
        "a cookie is a plain number"
    );
}
