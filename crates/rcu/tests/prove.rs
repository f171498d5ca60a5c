//! What `Domain::prove` finds, and what it does not.

use gracepoint_rcu::{Checks, Domain, Finding, RcuCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Longer than any test, on any machine.
const NEVER: Duration = Duration::from_secs(100_000);

fn patient() -> Checks {
    Checks::default().sections_shorter_than(NEVER)
}

#[test]
fn correct_use_is_found_nothing_in() {
    let domain = Domain::new("correct");
    assert!(domain.findings().is_empty(), "not even proven");
    domain.prove(patient());
    let cell = RcuCell::new(&domain, 0_u64);
    const TIMES: u64 = if cfg!(miri) { 5 } else { 300 };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    cell.update(|number| number + 1);
                    let outer = domain.read();
                    let inner = domain.read();
                    drop(outer);
                    drop(inner);
                    drop(domain.read_owned("worker"));
                    domain.retire(vec![1_u8]);
                    domain.drive();
                }
            });
        }
    });
    domain.barrier().expect("outside");
    assert_eq!(*cell.load(&domain.read()), 3 * TIMES);
    let findings = domain.findings();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_leaked_guard_is_found_once() {
    let domain = Domain::new("leaks");
    domain.prove(patient());
    let line = line!() + 6;
    let builder = thread::Builder::new().name("leaker".to_owned());
    thread::scope(|scope| {
        let leaker = builder.spawn_scoped(scope, || {
            #[expect(clippy::mem_forget, reason = "leaking a guard is what is tested")]
            std::mem::forget(domain.read());
        });
        leaker.expect("spawned").join().expect("joined");
    });
    let findings = domain.findings();
    let [Finding::LeakedGuard { reader, entered: Some(entered), .. }] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert!(reader.thread.expect("known").ended);
    assert_eq!((entered.at.file(), entered.at.line()), (file!(), line - 1));
    let text = findings[0].to_string();
    assert!(text.starts_with("a guard was leaked: thread "), "{text}");
    assert!(domain.findings().is_empty(), "once");
}

#[test]
fn a_section_that_lasts_too_long_is_found_while_it_lasts() {
    let domain = Domain::new("long, open");
    domain.prove(Checks::default().sections_shorter_than(Duration::ZERO));
    let guard = domain.read();
    let owned = domain.read_owned("sleeper");
    // An owner's section is timed from when it was first seen: on any clock, a second look is later.
    let mut findings = domain.findings();
    while findings.len() < 2 {
        findings.append(&mut domain.findings());
    }
    let held = |finding: &Finding| match finding {
        Finding::HeldTooLong { reader, .. } => (reader.owner, reader.sections),
        other => panic!("{other:?}"),
    };
    let mut found: Vec<_> = findings.iter().map(held).collect();
    found.sort_unstable();
    assert_eq!(found, [(None, 1), (Some("sleeper"), 1)]);
    assert!(domain.findings().is_empty(), "once");
    drop((guard, owned));
}

#[test]
fn a_section_that_lasted_too_long_is_found_afterwards() {
    let domain = Domain::new("long, over");
    domain.prove(Checks::default().sections_shorter_than(Duration::from_nanos(1)));
    let line = line!() + 1;
    drop(domain.read());
    let mut findings = domain.findings();
    // A clock that is too coarse for it may need a few.
    while findings.is_empty() {
        drop(domain.read());
        findings = domain.findings();
    }
    let [Finding::HeldTooLong { reader, held, limit, entered: Some(entered), .. }] = &findings[..]
    else {
        panic!("{findings:?}");
    };
    assert!(held > limit);
    assert_eq!(reader.index, gracepoint_rcu::thread_index());
    assert_eq!(reader.sections, 0, "it is over");
    assert!([line, line + 4].contains(&entered.at.line()));
    assert!(findings[0].to_string().contains("was inside"), "{}", findings[0]);
    assert!(domain.findings().is_empty(), "once");
    domain.prove(patient());
    drop(domain.read());
    assert!(domain.findings().is_empty(), "the limit was changed");
}

#[test]
fn a_pointer_that_is_retired_twice_is_freed_once() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Value(#[expect(dead_code, reason = "gives it a size")] u64);
    impl Drop for Value {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let domain = Domain::new("twice");
    domain.prove(patient());
    let value = Box::into_raw(Box::new(Value(1)));
    // SAFETY: from Box::into_raw. The second call breaks the contract, which is what is tested; it does
    // nothing, while the domain is being proven.
    unsafe {
        domain.retire_ptr(value);
        domain.retire_ptr(value);
    }
    let line = line!() - 2;
    let findings = domain.findings();
    let [Finding::RetiredTwice { address, first, second, .. }] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!((*address, first.line(), second.line()), (value.addr(), line - 1, line));
    domain.barrier().expect("outside");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    // An address that comes back from the allocator is another value's.
    const TIMES: usize = if cfg!(miri) { 3 } else { 100 };
    for _ in 0..TIMES {
        let value = Box::into_raw(Box::new(Value(2)));
        // SAFETY: from Box::into_raw, and nobody else knows it.
        unsafe { domain.retire_ptr(value) };
        domain.barrier().expect("outside");
    }
    assert!(domain.findings().is_empty());
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1 + TIMES);
    domain.stop_proving();
    // SAFETY: as above.
    unsafe { domain.retire_ptr(Box::into_raw(Box::new(Value(3)))) };
    domain.barrier().expect("outside");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 2 + TIMES);
}

#[test]
fn values_without_a_size_have_no_address_to_retire_twice() {
    struct Empty;
    let domain = Domain::new("empty");
    domain.prove(patient());
    for _ in 0..2 {
        // SAFETY: from Box::into_raw, each for itself.
        unsafe { domain.retire_ptr(Box::into_raw(Box::new(Empty))) };
    }
    assert!(domain.findings().is_empty());
    domain.barrier().expect("outside");
}
