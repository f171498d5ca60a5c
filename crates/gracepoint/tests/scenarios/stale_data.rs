//! The scenario *stale-data*: a hit must never call a function with another probe's data.
//!
//! Probes of four different functions come and go, each with data of its own that say which function
//! they belong to, and are poisoned when they are dropped. The twin is the kernel's design before its fix:
//! function and data are two words, changed one after the other.

use crate::program::{is_full, until};
use gracepoint::{Event, Probe, Tracer};
use libtest_mimic::Failed;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

const ALIVE: u64 = 0x0a11_7e00_0a11_7e00;
/// Most bytes that may wait for the callback thread before a changer waits for it.
const BACKLOG: usize = 32 << 20;

/// What one generation of a probe captures.
struct Data {
    function: u32,
    generation: u64,
    alive: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Drop for Data {
    fn drop(&mut self) {
        self.alive.store(0xdead, Relaxed);
        self.dropped.fetch_add(1, Relaxed);
    }
}

/// The checker, of both: are these the data of function `F`, and of generation `generation`?
fn is_own<const F: u32>(data: &Data, generation: u64) -> bool {
    data.function == F && data.generation == generation && data.alive.load(Relaxed) == ALIVE
}

#[derive(gracepoint::Event)]
#[event(name = "stale:one")]
struct One {
    n: u64,
}

#[derive(gracepoint::Event)]
#[event(name = "stale:two")]
struct Two {
    n: u64,
}

#[derive(gracepoint::Event)]
#[event(name = "stale:three")]
struct Three {
    n: u64,
}

#[derive(Clone, Default)]
struct Counts {
    calls: Arc<AtomicU64>,
    stale: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

fn attach_function<const F: u32, E: Event>(tracer: &Tracer, counts: &Counts) -> Probe {
    let generation = counts.made.fetch_add(1, Relaxed);
    let alive = AtomicU64::new(ALIVE);
    let dropped = Arc::clone(&counts.dropped);
    let data = Box::new(Data { function: F, generation, alive, dropped });
    let (calls, stale) = (Arc::clone(&counts.calls), Arc::clone(&counts.stale));
    let probe = tracer.tracepoint::<E>().attach(move |_| {
        calls.fetch_add(1, Relaxed);
        if !is_own::<F>(&data, generation) {
            stale.fetch_add(1, Relaxed);
        }
    });
    probe.unwrap()
}

/// The next generation, of another function than the one before.
fn attach<E: Event>(tracer: &Tracer, counts: &Counts) -> Probe {
    match counts.made.load(Relaxed) % 4 {
        0 => attach_function::<0, E>(tracer, counts),
        1 => attach_function::<1, E>(tracer, counts),
        2 => attach_function::<2, E>(tracer, counts),
        _ => attach_function::<3, E>(tracer, counts),
    }
}

/// Changes a tracepoint between `least` and `most` probes until it is over: the oldest go first.
fn change<E: Event>(
    tracer: &Tracer,
    counts: &Counts,
    over: &AtomicBool,
    least: usize,
    most: usize,
) {
    let mut probes = Vec::new();
    while !over.load(Relaxed) {
        while probes.len() < most {
            probes.push(attach::<E>(tracer, counts));
        }
        while probes.len() > least {
            probes.remove(0).detach();
        }
        if tracer.statistics().waiting_bytes > BACKLOG {
            until(|| tracer.statistics().waiting_bytes < BACKLOG / 2);
        }
    }
}

pub(crate) fn ours() -> Result<(), Failed> {
    let wanted: u64 = if is_full() { 100_000_000 } else { 10_000_000 };
    let (tracer, counts, over) = (Tracer::new("stale"), Counts::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| change::<One>(&tracer, &counts, &over, 0, 1)); // 1→0→1
        scope.spawn(|| change::<Two>(&tracer, &counts, &over, 1, 2)); // 1→2→1
        scope.spawn(|| change::<Three>(&tracer, &counts, &over, 1, 3)); // 3→2→1
        for _ in 0..2 {
            scope.spawn(|| {
                while counts.calls.load(Relaxed) < wanted || counts.made.load(Relaxed) < 1000 {
                    for n in 0..100 {
                        gracepoint::trace!(One { n });
                        gracepoint::trace!(Two { n });
                        gracepoint::trace!(Three { n });
                    }
                }
                over.store(true, Relaxed);
            });
        }
    });
    let (calls, made) = (counts.calls.load(Relaxed), counts.made.load(Relaxed));
    println!("stale_data: {calls} calls of {made} generations");
    assert_eq!(counts.stale.load(Relaxed), 0, "calls with another's data");
    // All are detached, and none is left.
    until(|| counts.dropped.load(Relaxed) == made);
    Ok(())
}

type Function = fn(&Data) -> bool;

/// Function and data as two words.
struct Split {
    function: AtomicPtr<()>,
    data: AtomicPtr<Data>,
}

impl Split {
    /// 1→0→1, to the next function, with no synchronisation in between.
    fn change(&self, function: Function, data: &'static Data) {
        self.function.store(std::ptr::null_mut(), Release);
        self.data.store(std::ptr::from_ref(data).cast_mut(), Release);
        self.function.store(function as *mut (), Release);
    }

    /// A hit. True if what it called found its own data, or if there was nothing to call.
    fn hit(&self, n: u64) -> bool {
        let function = self.function.load(Acquire);
        if function.is_null() {
            return true;
        }
        if n.is_multiple_of(64) {
            std::thread::yield_now(); // the delayed processor
        }
        // SAFETY: `change` stores data that live for ever, before the first function.
        let data = unsafe { &*self.data.load(Acquire) };
        // SAFETY: not null, so a `Function` that `change` has stored.
        let function = unsafe { std::mem::transmute::<*mut (), Function>(function) };
        function(data)
    }
}

pub(crate) fn twin() -> Result<(), Failed> {
    static SPLIT: Split = Split {
        function: AtomicPtr::new(std::ptr::null_mut()),
        data: AtomicPtr::new(std::ptr::null_mut()),
    };
    let data = |function| -> &'static Data {
        let (alive, dropped) = (AtomicU64::new(ALIVE), Arc::default());
        Box::leak(Box::new(Data { function, generation: 0, alive, dropped }))
    };
    let generations: [(Function, &'static Data); 2] =
        [(|data| is_own::<0>(data, 0), data(0)), (|data| is_own::<1>(data, 0), data(1))];
    let over = AtomicBool::new(false);
    let caught = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                generations.iter().for_each(|(function, data)| SPLIT.change(*function, data));
            }
        });
        let caught = (0..200_000_000).any(|n| !SPLIT.hit(n));
        over.store(true, Relaxed);
        caught
    });
    if caught {
        Ok(())
    } else {
        Err("the checker has not noticed a split function and data".into())
    }
}
