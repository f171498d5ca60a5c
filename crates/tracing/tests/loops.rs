//! Both directions at once: what is forwarded to `tracing` and to `log` comes back to us, and goes no further.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

/// A tick.
#[derive(gracepoint::Event)]
#[event(name = "loop:tick")]
struct Tick<'a> {
    n: u64,
    what: &'a str,
}

static SUM: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Adds up the numbers of what is forwarded.
struct Adding;

impl<S: Subscriber> Layer<S> for Adding {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Number(u64);
        impl Visit for Number {
            fn record_u64(&mut self, field: &Field, value: u64) {
                if field.name() == "n" {
                    self.0 = value;
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() == "loop:tick" {
            let mut number = Number(0);
            event.record(&mut number);
            SUM.fetch_add(number.0, SeqCst);
            COUNT.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn events_go_round_once() {
    // The layer of ours sees what is forwarded; so does the other.
    let subscriber = tracing_subscriber::registry().with(gracepoint_tracing::layer()).with(Adding);
    tracing::subscriber::set_global_default(subscriber).expect("the first one");
    let seen = std::sync::Arc::new(AtomicU64::new(0));
    let to_tracing = gracepoint_tracing::forward().events("loop:*").start().expect("there it is");
    let to_log = gracepoint_tracing::forward().events("loop:*").to_log().start();
    for n in 1..=10 {
        gracepoint::trace!(Tick { n, what: "again" });
    }
    assert_eq!((COUNT.load(SeqCst), SUM.load(SeqCst)), (10, 55), "each once, with its value");
    let made = |desc: &gracepoint::event::EventDesc| {
        desc.ident.is_empty() && desc.name().starts_with("loop:")
    };
    let none = gracepoint::Tracer::global().tracepoints_where(made).attach(|_| {});
    assert_eq!(
        none.expect_err("what is forwarded becomes no tracepoint").kind(),
        gracepoint::ErrorKind::NoMatch
    );
    // An event of tracing's own is bridged, and not forwarded.
    tracing::info!(name: "theirs", target: "loop", n = 1000u64);
    let counting = std::sync::Arc::clone(&seen);
    let bridged = gracepoint::Tracer::global().tracepoints("loop:theirs").attach(move |view| {
        counting.fetch_add(view.get("n").and_then(|n| n.as_u64()).unwrap_or(0), SeqCst);
    });
    let more = gracepoint_tracing::forward().start().expect("there are events");
    tracing::info!(name: "theirs", target: "loop", n = 1000u64);
    assert_eq!(COUNT.load(SeqCst), 10);
    drop((to_tracing, to_log, more, bridged));
    gracepoint::trace!(Tick { n: 1, what: "afterwards" });
    assert_eq!(COUNT.load(SeqCst), 10);
}
