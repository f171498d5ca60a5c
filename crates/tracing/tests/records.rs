//! Records of `log`: what is off is told so before anything is prepared, and what is on loses none.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Once};

/// By whichever test comes first; the others wait until it is done, or their first records would be too early.
fn started() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        gracepoint_tracing::init().expect("no other logger, no other subscriber");
    });
}

/// Counts the hits of what matches.
fn attach(glob: &str) -> (gracepoint::Probe, Arc<AtomicU64>) {
    let hits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hits);
    let count = move |_: &gracepoint::View<'_>| {
        counted.fetch_add(1, SeqCst);
    };
    let probe = gracepoint::Tracer::global().tracepoints(glob).attach(count);
    (probe.expect("the place is known"), hits)
}

#[test]
fn what_is_off_is_told_so_and_what_is_on_too() {
    started();
    let enabled = || log::log_enabled!(target: "records.off", log::Level::Error);
    let hit = |n: u64| log::error!(target: "records.off", "record {n}");
    assert!(enabled(), "a target that has made none yet may be wanted");
    hit(0);
    assert!(!enabled(), "nothing of this level is on");
    let (probe, hits) = attach("records.off:*");
    assert!(enabled(), "told when the batch that switched it on was through");
    (0..100).for_each(hit);
    probe.detach_wait().unwrap();
    assert!(!enabled());
    (0..100).for_each(hit);
    assert_eq!(hits.load(SeqCst), 100);
}

/// Two threads make guarded records all the time, while a probe comes and goes. What a thread records after
/// the probe is there, and before it goes, is seen: none is lost to an answer that was right before.
#[test]
fn guarded_records_are_not_lost_to_old_answers() {
    started();
    let hit = || {
        if log::log_enabled!(target: "records.guarded", log::Level::Trace) {
            log::trace!(target: "records.guarded", "guarded");
        }
    };
    hit();
    let (gate, over) = (Arc::new(Barrier::new(3)), Arc::new(AtomicBool::new(false)));
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (gate, over) = (Arc::clone(&gate), Arc::clone(&over));
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    (0..50).for_each(|_| hit()); // whatever is on meanwhile
                    gate.wait(); // the probe is there
                    (0..50).for_each(|_| hit());
                    gate.wait(); // and goes
                }
            });
        }
        for round in 0..30 {
            let (probe, hits) = attach("records.guarded:*");
            gate.wait();
            over.store(round == 29, SeqCst);
            gate.wait();
            seen.push(hits.load(SeqCst));
            probe.detach_wait().unwrap();
        }
    });
    // Each hit that the gates enclose, and some of those before and after.
    assert!(seen.iter().all(|seen| (100..=300).contains(seen)), "{seen:?}");
}

/// A place that is hit first by many threads at once is one tracepoint.
#[test]
fn threads_that_hit_first_find_one_place() {
    started();
    let hit = |n: u64| log::info!(target: "records.first", "record {n}");
    let gate = Barrier::new(4);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let gate = &gate;
            scope.spawn(move || {
                gate.wait();
                hit(n);
            });
        }
    });
    let (probe, hits) = attach("records.first:*");
    hit(4);
    probe.detach_wait().unwrap();
    assert_eq!(hits.load(SeqCst), 1, "each hit is one event");
}
