//! `testing::capture`: tests that run in parallel, each with its own events alone. Each test here makes the
//! same kinds of event as the others, on threads of its own, and must see no other's.
#![cfg(target_os = "linux")]

use gracepoint::testing::{Captured, capture};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Something happened in a test.
#[derive(gracepoint::Event)]
#[event(name = "testing:happened")]
struct Happened<'a> {
    whose: &'a str,
    n: u32,
    took: Duration,
    maybe: Option<i8>,
}

/// A step of a test.
#[derive(gracepoint::Event)]
#[event(name = "testing:step")]
struct Step<'a> {
    whose: &'a str,
}

fn happen(whose: &str, n: u32) {
    let took = Duration::from_millis(n.into());
    gracepoint::trace!(Happened { whose, n, took, maybe: (n > 5).then_some(-1) });
}

/// Makes events on this thread, on threads of its own and on threads of those, again and again.
fn busy(whose: &'static str) -> Captured {
    let captured = capture();
    for n in 0..20 {
        happen(whose, n);
        let outer = thread::Builder::new().name(whose.into()).spawn(move || {
            happen(whose, n);
            thread::spawn(move || happen(whose, n)).join().unwrap();
        });
        outer.unwrap().join().unwrap();
    }
    captured
}

fn check(captured: &Captured, whose: &str) {
    let events = captured.events();
    assert_eq!(events.len(), 60, "{captured:?}");
    assert!(events.iter().all(|event| event.get::<String>("whose") == whose), "{captured:?}");
}

/// Four tests that run at the same time, whatever the test runner does; more of them with it.
#[test]
fn tests_in_parallel_see_their_own() {
    thread::scope(|scope| {
        for whose in ["one", "two", "three", "four"] {
            scope.spawn(move || check(&busy(whose), whose));
        }
    });
}

#[test]
fn another_test_beside_sees_its_own() {
    check(&busy("beside"), "beside");
}

#[test]
fn fields_have_types() {
    let captured = capture();
    happen("typed", 7);
    let event = captured.one("testing:happened");
    assert_eq!(event.get::<String>("whose"), "typed");
    assert_eq!((event.get::<u32>("n"), event.get::<u64>("n")), (7, 7));
    assert_eq!(event.get::<Duration>("took"), Duration::from_millis(7));
    assert_eq!(event.get::<Option<i8>>("maybe"), Some(-1));
    captured.clear();
    happen("typed", 1);
    assert_eq!(captured.one("testing:*").get::<Option<i8>>("maybe"), None);
    let wrong = std::panic::catch_unwind(|| event.get::<bool>("n"));
    let message = *wrong.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("n is no bool in testing:happened"), "{message}");
}

#[test]
fn spans_and_captures_within_captures() {
    let outer = capture();
    let span = gracepoint::span!(Step { whose: "nested" });
    {
        let inner = capture();
        happen("nested", 1);
        assert_eq!((inner.events().len(), outer.events().len()), (1, 2));
    }
    drop(span);
    happen("nested", 2);
    assert_eq!((outer.count("testing:step"), outer.count("testing:happened")), (2, 2));
    let [begin, end] = outer.matching("testing:step").try_into().unwrap();
    assert!(begin.span.is_some() && begin.span == end.span);
}

/// Threads that were there before belong to nobody: work for them is wrapped. (This is also how the
/// tests above would fail: without what the kernel hands down, nothing would tell whose a thread is.)
#[test]
fn work_for_others_threads_is_wrapped() {
    let (work, pool) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let worker = thread::spawn(move || pool.into_iter().for_each(|work| work()));
    let captured = capture();
    let scope = captured.scope();
    work.send(Box::new(|| happen("unwrapped", 1))).unwrap();
    work.send(Box::new(move || scope.run(|| happen("wrapped", 2)))).unwrap();
    let task = scope.wrap(async { happen("wrapped", 3) });
    work.send(Box::new(move || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(task).as_mut().poll(&mut context).is_ready());
    }))
    .unwrap();
    drop(work);
    worker.join().unwrap();
    let alone = std::env::var_os("NEXTEST_EXECUTION_MODE").is_some();
    let whose: Vec<String> = captured.events().iter().map(|event| event.get("whose")).collect();
    let want: &[&str] = if alone { &["unwrapped", "wrapped", "wrapped"] } else { &["wrapped"; 2] };
    assert_eq!(whose, want);
}

#[test]
fn nothing_is_captured_afterwards() {
    let captured = capture();
    let number = captured.events().len();
    drop(captured);
    happen("afterwards", 1);
    let again = capture();
    assert_eq!((number, again.events().len()), (0, 0));
}
