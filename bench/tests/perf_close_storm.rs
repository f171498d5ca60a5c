//! The scenario *teardown-stall* for perf events: two thousand handles on two thousand tracepoints are closed
//! while SIGPROF storms every thread and a reader sleeps inside a tracepoint. Closing does not wait for him:
//! he is still asleep when all are closed. What he may still use is kept, counted, and freed when he has
//! woken. How long closing takes is measured elsewhere (`gracepoint-bench -- perf`); here it only
//! has to end without him.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use gracepoint::{PerfEvent, Tracer};
use gracepoint_bench_points::{ATTRS, HITS};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Where the reader sleeps.
#[derive(gracepoint::Event)]
#[event(name = "storm:sleep")]
struct Sleep {
    n: u64,
}

/// Threads that hit the tracepoints.
const THREADS: usize = 4;

#[track_caller]
fn until(mut what: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waits in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads that hit all tracepoints in turn until it is over.
fn hitters(over: &Arc<AtomicBool>, rounds: &Arc<AtomicU64>) -> Vec<JoinHandle<()>> {
    let hitter = |_| {
        let (over, rounds) = (Arc::clone(over), Arc::clone(rounds));
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                HITS.iter().for_each(|hit| hit(1));
                rounds.fetch_add(1, Relaxed);
            }
        })
    };
    (0..THREADS).map(hitter).collect()
}

/// SIGPROF to each thread in turn, as fast as this one can, until it is over.
fn storm(over: &Arc<AtomicBool>, threads: &[nix::sys::pthread::Pthread]) -> JoinHandle<()> {
    let (over, threads) = (Arc::clone(over), threads.to_vec());
    std::thread::spawn(move || {
        while !over.load(Relaxed) {
            for thread in &threads {
                // The threads are joined after this one.
                pthread_kill(*thread, Signal::SIGPROF).expect("a thread that is alive");
            }
        }
    })
}

#[test]
fn perf_close_storm() {
    let tracer = Tracer::new("storm");
    let storms = Arc::new(AtomicUsize::new(0));
    let counted = Arc::new(AtomicUsize::new(0));
    signal_hook::flag::register_usize(signal_hook::consts::SIGPROF, Arc::clone(&storms), 1)
        .expect("a handler for a signal of our own");

    // The reader, who sleeps until he is told.
    let (wake, asleep) = channel::<()>();
    let asleep = Mutex::new(asleep);
    let sleeping = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&sleeping);
    let probe = tracer.tracepoint::<Sleep>().name("sleeper").attach(move |_| {
        told.store(true, Relaxed);
        let _ = asleep.lock().expect("one reader").recv();
        told.store(false, Relaxed);
    });
    let probe = probe.expect("sites can be switched here");
    let reader = Builder::new().name("the-reader".into());
    let reader = reader.spawn(|| gracepoint::trace!(Sleep { n: 1 })).expect("a thread");
    until(|| sleeping.load(Relaxed));

    let open = |attr: &fn() -> _| PerfEvent::open(attr()).expect("sites can be switched here");
    let handles: Vec<PerfEvent> = ATTRS.iter().map(open).collect();
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let hitters = hitters(&over, &rounds);
    let mut targets: Vec<_> = hitters.iter().map(JoinHandleExt::as_pthread_t).collect();
    targets.push(reader.as_pthread_t());
    let storming = storm(&over, &targets);
    until(|| rounds.load(Relaxed) > 2 * THREADS as u64);
    until(|| storms_seen(&storms, &counted) > 0);
    assert!(handles.iter().all(|handle| handle.read().value > 0), "each is hit");

    // Half of them one by one, half of them at once.
    let before = tracer.statistics();
    let mut handles = handles.into_iter();
    handles.by_ref().take(HITS.len() / 2).for_each(drop);
    PerfEvent::close_all(handles);
    assert!(sleeping.load(Relaxed), "the reader sleeps, and all are closed");
    let kept = tracer.statistics();
    assert!(kept.waiting_bytes > before.waiting_bytes, "what he may use is kept, and counted");
    until(|| tracer.stalls().iter().any(|stall| stall.holdout.contains("(the-reader)")));
    // The storm goes on, and so do those who hit what is off now.
    let (seen, hit) = (storms_seen(&storms, &counted), rounds.load(Relaxed));
    until(|| storms_seen(&storms, &counted) > seen && rounds.load(Relaxed) > hit + THREADS as u64);
    assert!(sleeping.load(Relaxed) && tracer.statistics().waiting_bytes >= kept.waiting_bytes);

    wake.send(()).expect("he waits");
    until(|| !sleeping.load(Relaxed));
    until(|| tracer.statistics().waiting_callbacks == 0);
    assert_eq!(tracer.statistics().waiting_bytes, 0, "freed when he has woken");
    over.store(true, Relaxed);
    storming.join().expect("it ends well");
    hitters.into_iter().for_each(|thread| thread.join().expect("it ends well"));
    reader.join().expect("it ends well");
    drop(probe);
}

/// How often a signal was seen: the handler's flag is taken down, and counted.
fn storms_seen(flag: &AtomicUsize, seen: &AtomicUsize) -> usize {
    seen.fetch_add(flag.swap(0, Relaxed), Relaxed);
    seen.load(Relaxed)
}
