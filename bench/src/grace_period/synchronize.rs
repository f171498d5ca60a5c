//! `synchronize()`: alone, beside 64 threads that sleep, beside one that reads all the time.
//!
//! What it costs depends on what the other processors do: a `membarrier` interrupts those that run a
//! thread of this process. So the busy reader counts its laps, and a sample during which it made
//! none (it was not running) is thrown away.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{DOMAIN, Engine, OURS, offline};
use crate::measure::{pin, pin_beside};
use crate::sections::{LATENCY, Samples, Section};
use crate::table::Goal;

const CALLS: usize = 50;
const SLEEPERS: usize = 64;
const MEMB: &str = "liburcu memb";

pub(crate) fn alone(rounds: usize) -> Section {
    let _ = pin();
    let engines = Engine::all(&DOMAIN);
    section("synchronize(), no other thread reads", rounds, &engines, |_, sample| sample())
}

pub(crate) fn beside_idle(rounds: usize) -> Section {
    let ready = Barrier::new(SLEEPERS + 1);
    let over = Barrier::new(SLEEPERS + 1);
    thread::scope(|scope| {
        for _ in 0..SLEEPERS {
            scope.spawn(|| {
                let engines = Engine::all(&DOMAIN);
                engines.iter().for_each(|engine| engine.read(1));
                offline(&engines, || {
                    ready.wait();
                    over.wait();
                });
            });
        }
        ready.wait();
        let _ = pin();
        let engines = Engine::all(&DOMAIN);
        let title = "synchronize(), 64 threads registered and asleep";
        let section = section(title, rounds, &engines, |_, sample| sample());
        over.wait();
        section
    })
}

/// What the busy reader is told to read: one more than the number of an engine.
const NOTHING: usize = 0;
const STOP: usize = usize::MAX;

#[derive(Default)]
struct Busy {
    told: AtomicUsize,
    does: AtomicUsize,
    laps: AtomicU64,
}

impl Busy {
    /// Reads with whichever engine it is told to.
    fn run(&self) {
        let engines = Engine::all(&DOMAIN);
        loop {
            let told = self.told.load(Ordering::Acquire);
            self.does.store(told, Ordering::Release);
            match told {
                STOP => return,
                NOTHING => offline(&engines, || thread::sleep(Duration::from_micros(50))),
                number => engines[number - 1].read(64),
            }
            self.laps.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(&self, what: usize) {
        self.told.store(what, Ordering::Release);
        while self.does.load(Ordering::Acquire) != what {
            thread::yield_now();
        }
    }
}

pub(crate) fn beside_busy(rounds: usize) -> Section {
    let busy = &Busy::default();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = pin_beside();
            busy.run();
        });
        let _ = pin();
        let engines = Engine::all(&DOMAIN);
        let not_running = AtomicUsize::new(0);
        let title = "synchronize(), one other thread reads all the time";
        let mut section = section(title, rounds, &engines, |number, sample| {
            if busy.told.load(Ordering::Relaxed) != number + 1 {
                // Not while this thread is one that grace periods of qsbr wait for.
                offline(&engines, || busy.tell(number + 1));
            }
            let laps = busy.laps.load(Ordering::Relaxed);
            let took = sample();
            let ran = busy.laps.load(Ordering::Relaxed) != laps;
            not_running.fetch_add(usize::from(!ran), Ordering::Relaxed);
            if ran { took } else { None }
        });
        busy.tell(STOP);
        let dropped = not_running.into_inner();
        section.notes.push(format!("{dropped} samples thrown away: the reader was not running"));
        section
    })
}

/// Rounds of calls, the engines in turn. `around` is given the number of the engine and what takes a
/// sample; it may decide that a sample does not count.
fn section(
    title: &'static str,
    rounds: usize,
    engines: &[Engine],
    around: impl Fn(usize, &dyn Fn() -> Option<f64>) -> Option<f64>,
) -> Section {
    let mut samples: Vec<Vec<f64>> = engines.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..engines.len() {
            // Another one first each time, so that nobody always comes after the same one.
            let number = (round + turn) % engines.len();
            let (engine, samples) = (&engines[number], &mut samples[number]);
            for _ in 0..CALLS {
                let took = around(number, &|| {
                    let begin = Instant::now();
                    engine.synchronize();
                    Some(begin.elapsed().as_nanos() as f64)
                });
                samples.extend(took);
            }
        }
    }
    let rows = engines
        .iter()
        .zip(samples)
        .map(|(engine, samples)| (engine.name(), Samples::of(samples).latency()));
    let rows = rows.collect();
    let (notes, goals) = (Vec::new(), Vec::new());
    let mut section = Section { title, unit: "ns", columns: LATENCY, rows, notes, goals };
    if let (Some(ours), Some(memb)) = (section.value(OURS, "p50"), section.value(MEMB, "p50")) {
        let what = format!("p50 {ours:.0} ns, not above liburcu memb's {memb:.0}");
        section.goals.push(Goal { what, met: ours <= memb });
    }
    section
}
