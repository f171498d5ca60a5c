//! The races of tracing's cache of interests (its #3614 and #3615), made to happen: an answer about a call
//! site is stored after a change that it does not know of. With a twin that answers as one would first
//! think, and loses every hit from then on.
#![cfg(target_os = "linux")]

use gracepoint_tracing::Bridge;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Name of the thread whose hit makes the call site known.
const HITTER: &str = "hitter";

/// Our subscriber, whose first answer about the call site `raced` is on its way until the gate opens.
struct Late {
    inner: Bridge,
    /// Answers what is so now, and not that it may change.
    naive: bool,
    first: AtomicBool,
    /// Passed by both when the answer was given, and again when it may be stored.
    gate: Arc<Barrier>,
}

impl Subscriber for Late {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        let answer = self.inner.register_callsite(meta);
        let hitter = std::thread::current().name() == Some(HITTER);
        if meta.name() != "raced" || !hitter || !self.first.swap(false, SeqCst) {
            return answer; // a rebuild, which knows what is so
        }
        self.gate.wait();
        self.gate.wait();
        if self.naive { Interest::never() } else { answer }
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        self.inner.enabled(meta)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.inner.new_span(attributes)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.inner.record(id, values);
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.inner.record_follows_from(id, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.inner.event(event);
    }

    fn enter(&self, id: &Id) {
        self.inner.enter(id);
    }

    fn exit(&self, id: &Id) {
        self.inner.exit(id);
    }
}

/// How many of 11 hits are seen, of which the first makes the call site known while it is switched on.
fn seen(naive: bool, target: &str, hit: fn()) -> u64 {
    let gate = Arc::new(Barrier::new(2));
    let first = AtomicBool::new(true);
    let late = Late { inner: Bridge::new(), naive, first, gate: Arc::clone(&gate) };
    let dispatch = Dispatch::new(late);
    let hits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hits);
    std::thread::scope(|scope| {
        let hitting = || {
            tracing::dispatcher::with_default(&dispatch, || (0..11).for_each(|_| hit()));
        };
        let thread = std::thread::Builder::new().name(HITTER.into());
        let thread = thread.spawn_scoped(scope, hitting).expect("a thread");
        gate.wait(); // the answer is given, and not stored
        let count = move |_: &gracepoint::View<'_>| {
            counted.fetch_add(1, SeqCst);
        };
        let probe = gracepoint::Tracer::global().tracepoints(format!("{target}:*")).attach(count);
        let probe = probe.expect("the call site is known");
        gate.wait();
        thread.join().expect("hitting does not panic");
        probe.detach();
    });
    hits.load(SeqCst)
}

#[test]
fn an_answer_that_is_stored_late_loses_nothing() {
    let ours = seen(false, "race", || tracing::info!(name: "raced", target: "race", "hit"));
    assert_eq!(ours, 11);
    let twin =
        seen(true, "race.twin", || tracing::info!(name: "raced", target: "race.twin", "hit"));
    assert_eq!(twin, 0, "the twin that says what is so now loses them");
}
