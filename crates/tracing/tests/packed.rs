//! Records of `log` that `tracing-log` packs into events, with another layer beside ours: each layer has those that it
//! wants, whatever the other wants. One test, since the logger is the process's.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

static OTHERS: AtomicU64 = AtomicU64::new(0);

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        OTHERS.fetch_add(1, SeqCst);
    }
}

/// A record for us, if somebody wants it, and for the other layer.
fn warn(n: u64) {
    log::warn!(target: "packed", "record {n}");
}

/// One that the other layer has no interest in.
fn debug(n: u64) {
    log::debug!(target: "packed", "record {n}");
}

/// An event of tracing's own.
fn event(n: u64) {
    tracing::info!(name: "event", target: "packed", n);
}

fn attach() -> (gracepoint::Probe, Arc<AtomicU64>) {
    let hits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hits);
    let count = move |_: &gracepoint::View<'_>| {
        counted.fetch_add(1, SeqCst);
    };
    let probe = gracepoint::Tracer::global().tracepoints("packed*").attach(count);
    (probe.expect("the places are known"), hits)
}

#[test]
fn each_layer_has_the_records_that_it_wants() {
    tracing_subscriber::registry()
        .with(gracepoint_tracing::layer())
        .with(Counting.with_filter(LevelFilter::INFO))
        .init();
    let level = log::max_level();
    assert!(level >= log::Level::Debug, "as its installer left it");
    let both = |n| {
        warn(n);
        debug(n);
    };
    both(0);
    event(0);
    (0..10).for_each(both);
    assert_eq!(OTHERS.load(SeqCst), 12);
    let (probe, hits) = attach();
    (0..10).for_each(both);
    probe.detach_wait().expect("no hit is under way");
    assert_eq!((hits.load(SeqCst), OTHERS.load(SeqCst)), (20, 22));
    // Whoever asks, and makes no record, takes nothing from our next event. (He does from a layer that says "no": the
    // registry keeps that as the answer for the next event that it is not asked about.)
    let (probe, hits) = attach();
    for n in 0..10 {
        let _asked = log::log_enabled!(target: "packed", log::Level::Trace);
        (0..2).for_each(event);
        both(n);
    }
    probe.detach_wait().expect("no hit is under way");
    assert_eq!(hits.load(SeqCst), 40);
    assert_eq!(log::max_level(), level, "it is not ours to set");
}
