//! Perf events that feed sessions. In a program of its own, because a capture switches all events on.
#![cfg(target_os = "linux")]

use gracepoint::{ErrorKind, PerfAttr, PerfEvent, SystemEvent};

#[derive(gracepoint::Event)]
struct One {
    n: u64,
}

fn hit(times: u64) {
    for n in 0..times {
        gracepoint::trace!(One { n });
    }
}

fn open(attr: PerfAttr) -> PerfEvent {
    PerfEvent::open(attr).unwrap()
}

#[test]
fn samples_feed_sessions() {
    let name = <One as gracepoint::Event>::DESC.name();
    let handle = open(PerfAttr::tracepoint::<One>().every(10).feed().ring(8, 1).disabled());
    // The event is declared by the first handle that feeds; a capture has those that are there when it begins.
    let events = gracepoint::testing::capture();
    handle.enable().unwrap();
    hit(25);
    #[gracepoint::function]
    fn fed_call() {}
    let calls = open(PerfAttr::function("*::fed_call").feed());
    fed_call();
    drop((handle, calls));
    hit(10);
    let told: Vec<(String, u64, u64)> = events
        .matching("perf:sample")
        .iter()
        .map(|event| (event.get("of"), event.get("hits"), event.get("count")))
        .collect();
    let of = |name: &str, hits, count| (name.to_owned(), hits, count);
    assert_eq!(told, [of(&name, 10, 10), of(&name, 10, 20), of("*::fed_call", 1, 1)]);

    let error = PerfEvent::open(PerfAttr::named("perf:sample").feed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = PerfEvent::open(PerfAttr::system(SystemEvent::CpuClock).feed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// They switch tracepoints on and off, and not functions that somebody counts.
#[test]
fn captures_leave_functions_as_they_are() {
    #[gracepoint::function]
    fn counted_call() {}
    let calls = open(PerfAttr::function("*::counted_call"));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| drop(gracepoint::testing::capture())));
        for n in 1..=20_000 {
            counted_call();
            assert_eq!(calls.read().value, n);
        }
    });
}
