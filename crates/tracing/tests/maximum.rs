//! `log`'s maximum level follows what is wanted, and what the program sets itself stands. One test, since the level
//! is the process's. Recordings from outside: `real/following.rs`.
#![cfg(target_os = "linux")]

use log::LevelFilter::{Info, Off, Trace, Warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Many records that are of no news to anybody.
const MANY: u64 = 5000;

fn hit(n: u64) {
    log::info!(target: "maximum", "record {n}");
}

/// Counts the hits of the place; what is read is how many there were.
fn attach() -> (gracepoint::Probe, Arc<AtomicU64>) {
    let hits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hits);
    let count = move |_: &gracepoint::View<'_>| {
        counted.fetch_add(1, SeqCst);
    };
    let probe = gracepoint::Tracer::global().tracepoints("maximum:*").attach(count);
    (probe.expect("the place is known"), hits)
}

#[test]
fn the_level_is_that_of_what_is_on_and_otherwise_the_programs() {
    gracepoint_tracing::init().expect("the agent starts");
    assert_eq!(log::max_level(), Trace, "places are being learnt");
    (0..MANY).for_each(hit);
    assert_eq!(log::max_level(), Off, "nobody wants any");
    assert!(!log::log_enabled!(target: "maximum.new", log::Level::Error), "a comparison");

    let (probe, hits) = attach();
    assert_eq!(log::max_level(), Info, "as soon as the probe is there");
    (0..100).for_each(hit);
    log::debug!(target: "maximum", "of a level that nobody wants");
    probe.detach_wait().expect("no hit is under way");
    assert_eq!((log::max_level(), hits.load(SeqCst)), (Off, 100));

    // The program says what it wants, and says it while a probe is there.
    log::set_max_level(Warn);
    let (probe, hits) = attach();
    assert_eq!(log::max_level(), Info, "more, for as long as it is wanted");
    hit(0);
    probe.detach_wait().expect("no hit is under way");
    assert_eq!((log::max_level(), hits.load(SeqCst)), (Warn, 1), "the program's again");
    let (probe, _hits) = attach();
    log::set_max_level(Off);
    probe.detach_wait().expect("no hit is under way");
    assert_eq!(log::max_level(), Off);
    let (probe, hits) = attach();
    hit(0);
    probe.detach_wait().expect("no hit is under way");
    assert_eq!((log::max_level(), hits.load(SeqCst)), (Off, 1));
}
