//! Owned guards: sections that belong to no thread, and the domains with a type of their own.

use gracepoint_rcu::{Domain, OwnedGuard, RcuCell, domain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

domain! {
    /// A domain with a type.
    static TYPED: Typed = "typed";
    static SAME_TAG_ELSEWHERE: Elsewhere = "elsewhere";
}

#[test]
fn an_owned_guard_keeps_what_it_found_wherever_it_goes() {
    static DOMAIN: Domain = Domain::new("owned");
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted(u32);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            self.0 = u32::MAX;
        }
    }
    let cell = RcuCell::new(&DOMAIN, Counted(1));
    let guard = DOMAIN.read_owned("traveller");
    assert_eq!(cell.load(&guard).0, 1);
    cell.replace(Counted(2));
    for _ in 0..10 {
        DOMAIN.drive();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
    assert!(!DOMAIN.in_read_section(), "it is no thread's");
    thread::scope(|scope| {
        // Several at once, and it ends on another thread.
        let shared = &guard;
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(cell.load(shared).0, 2));
        }
    });
    let holdouts = DOMAIN.holdouts();
    assert_eq!(holdouts.len(), 1);
    let text = holdouts[0].to_string();
    assert_eq!(text, "owner \"traveller\" has 1 read section of domain \"owned\" open");
    thread::spawn(move || drop(guard)).join().expect("joined");
    DOMAIN.barrier().expect("outside");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
}

#[test]
fn a_wait_that_meets_ones_own_owned_guard_names_it() {
    static DOMAIN: Domain = Domain::new("own owned");
    let guard = DOMAIN.read_owned("myself");
    let timeout = std::time::Duration::from_millis(1);
    assert!(!DOMAIN.synchronize_timeout(timeout).expect("it cannot be known"));
    let stalls = DOMAIN.stalls();
    assert_eq!(stalls[0].culprits[0].reader.owner, Some("myself"));
    assert_eq!(stalls[0].culprits[0].reader.index, None);
    assert!(stalls[0].waiters.is_empty(), "it has given up");
    drop(guard);
    DOMAIN.synchronize().expect("outside");
}

#[test]
fn more_owners_than_there_are_names_for() {
    let domain = Domain::new("crowd");
    // Names that differ in address and length, and some that begin at one address.
    let text: &'static str = Box::leak("x".repeat(200).into_boxed_str());
    let mut guards: Vec<_> = (0..200).map(|length| domain.read_owned(&text[..length])).collect();
    let cookie = domain.start_poll();
    for _ in 0..10 {
        domain.poll();
    }
    assert!(!domain.poll_state(cookie));
    let holdouts = domain.holdouts();
    assert_eq!(holdouts.iter().map(|holdout| holdout.sections).sum::<u64>(), 200);
    assert_eq!(holdouts.len(), 65, "64 with a name, and the rest together");
    drop(guards.drain(..64));
    for _ in 0..10 {
        domain.poll();
    }
    assert!(!domain.poll_state(cookie), "those without a name are waited for, too");
    assert_eq!((domain.holdouts().len(), domain.holdouts()[0].sections), (1, 136));
    drop(guards);
    domain.synchronize().expect("outside");
    // The names go with the domain: whoever gets its memory has room for others.
    drop(domain);
    let next = Domain::new("next");
    let guard = next.read_owned("newcomer");
    let _cookie = next.start_poll();
    next.poll();
    assert_eq!(next.holdouts()[0].owner, Some("newcomer"));
    drop(guard);
}

#[test]
fn owned_guards_of_many_threads_are_all_counted() {
    static DOMAIN: Domain = Domain::new("many owned");
    static FREED: AtomicUsize = AtomicUsize::new(0);
    const EACH: usize = if cfg!(miri) { 10 } else { 3_000 };
    struct Value(u64);
    impl Drop for Value {
        fn drop(&mut self) {
            self.0 = u64::MAX;
            FREED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let cell = RcuCell::new(&DOMAIN, Value(0));
    let done = AtomicBool::new(false);
    let (send, receive) = mpsc::channel::<OwnedGuard<'_>>();
    thread::scope(|scope| {
        for _ in 0..3 {
            let send = send.clone();
            let (cell, done) = (&cell, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let guard = DOMAIN.read_owned("sender");
                    assert_ne!(cell.load(&guard).0, u64::MAX, "read after it was dropped");
                    send.send(guard).expect("somebody receives");
                    thread::yield_now();
                }
            });
        }
        drop(send);
        let cell = &cell;
        scope.spawn(move || {
            for guard in receive {
                assert_ne!(cell.load(&guard).0, u64::MAX, "read after it was dropped");
            }
        });
        for number in 0..EACH as u64 {
            cell.replace(Value(number));
            DOMAIN.drive();
        }
        done.store(true, Ordering::Relaxed);
    });
    DOMAIN.barrier().expect("outside");
    assert_eq!(FREED.load(Ordering::Relaxed), EACH);
}

#[test]
fn guards_are_small() {
    assert_eq!(size_of::<OwnedGuard<'_>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<OwnedGuard<'_>>>(), 2 * size_of::<usize>());
}

#[test]
fn a_typed_domain_is_a_domain() {
    let cell: RcuCell<'_, _, Typed> = RcuCell::new(&TYPED, String::from("one"));
    let guard = TYPED.read();
    assert_eq!(cell.load(&guard), "one");
    cell.update(|old| format!("{old} two"));
    assert_eq!(cell.load(&TYPED.read_owned("a task")), "one two");
    assert!(TYPED.synchronize().is_err(), "inside");
    drop(guard);
    TYPED.barrier().expect("outside");
    assert_eq!(format!("{cell:?}"), "RcuCell(\"one two\")");
    assert_eq!(SAME_TAG_ELSEWHERE.name(), "elsewhere");
}

/// What is safe does not rest on the tag: two domains with the same one are told apart when the program runs.
#[test]
fn a_tag_that_is_used_twice_is_no_way_around_the_comparison() {
    use gracepoint_rcu::TypedDomain;
    static OTHER: TypedDomain<Typed> = TypedDomain::new("other");
    drop(OTHER.read());
    let cell = RcuCell::new(&TYPED, 1);
    let guard = OTHER.read();
    let owned = OTHER.read_owned("other");
    let panicked = |load: &dyn Fn() -> i32| catch_unwind(AssertUnwindSafe(load)).is_err();
    assert!(panicked(&|| *cell.load(&guard)));
    assert!(panicked(&|| *cell.load(&owned)));
    assert!(!panicked(&|| *cell.load(&TYPED.read())));
}

/// A future that holds an owned guard across an `.await` may be sent to another thread.
#[test]
fn a_future_may_hold_one() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    static DOMAIN: Domain = Domain::new("future");
    static CELL: std::sync::OnceLock<RcuCell<'static, u32>> = std::sync::OnceLock::new();
    static TURN: AtomicBool = AtomicBool::new(false);
    async fn task() -> u32 {
        let cell = CELL.get_or_init(|| RcuCell::new(&DOMAIN, 7));
        let guard = DOMAIN.read_owned("task");
        let value = cell.load(&guard);
        std::future::poll_fn(|_| match TURN.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        *value
    }
    fn is_send<F: Future + Send>(future: F) -> F {
        future
    }
    let mut future = Box::pin(is_send(task()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    CELL.get().expect("made").replace(8);
    for _ in 0..10 {
        DOMAIN.drive();
    }
    assert_eq!(DOMAIN.pending_callbacks(), 1, "the task is inside");
    TURN.store(true, Ordering::Relaxed);
    let value = thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("its turn has come"),
        }
    });
    assert_eq!(value.join().expect("joined"), 7);
    DOMAIN.barrier().expect("outside");
}
