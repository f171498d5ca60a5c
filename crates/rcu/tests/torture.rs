//! Readers, updaters, delays, signals, thread churn and forks against an oracle (`torture/world.rs`) that
//! notices use after retire and grace periods that end too early; and domains that are wrong on purpose, which
//! it must catch (`torture/canaries.rs`).
//!
//! `GRACEPOINT_TORTURE=200` makes it 200 times as long; `GRACEPOINT_SEED` repeats a seed (the
//! choices, not the interleaving). The seed is printed, as are the ages of what readers saw.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "the seed must reach whoever reads a failure")]

#[path = "torture/canaries.rs"]
mod canaries;
#[path = "torture/delays.rs"]
mod delays;
#[path = "torture/world.rs"]
mod world;

use delays::{Random, SIGNALS, Signals, number_from, seed};
use gracepoint_rcu::{Cookie, Domain, Progress};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use world::{OBJECTS, Object, PLACES, World};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

impl World {
    fn reader(&self, random: &Random, rounds: usize) {
        for _ in 0..rounds {
            let place = random.below(PLACES as u64) as usize;
            match random.below(1 << 13) {
                // One that sleeps inside, and one that is switched out there.
                0 => self.read(place, || thread::sleep(Duration::from_micros(random.below(2000)))),
                1..64 => self.read(place, thread::yield_now),
                64..1024 => self.read_overlapping(random),
                _ => self.read(place, || random.delay()),
            }
        }
    }

    fn updater(&'static self, random: &Random, rounds: usize) {
        let mut polled: Vec<(Cookie, &'static Object)> = Vec::new();
        for _ in 0..rounds {
            let Some(new) = self.fresh() else {
                self.domain.drive();
                polled.retain(|(cookie, object)| !self.finish_polled(*cookie, object));
                continue;
            };
            let old = self.replace(random.below(PLACES as u64) as usize, new);
            random.delay();
            match random.below(10) {
                0 => {
                    self.domain.synchronize().expect("outside");
                    self.poison(old);
                }
                1..3 => {
                    // From inside a section, as a Drop might.
                    let _guard = self.domain.read();
                    self.domain.call(move || self.poison(old));
                }
                3..5 => polled.push((self.domain.start_poll(), old)),
                5..7 => self.domain.retire(Retired(self, old)),
                _ => self.domain.call(move || self.poison(old)),
            }
            if random.below(4) == 0 {
                self.domain.drive();
                random.delay();
                polled.retain(|(cookie, object)| !self.finish_polled(*cookie, object));
            }
        }
        while !polled.is_empty() {
            self.domain.poll();
            polled.retain(|(cookie, object)| !self.finish_polled(*cookie, object));
        }
    }

    fn finish_polled(&self, cookie: Cookie, object: &Object) -> bool {
        let done = self.domain.poll_state(cookie);
        if done {
            self.poison(object);
        }
        done
    }

    fn driver(&self, random: &Random, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.domain.drive() {
                Progress::Advanced => random.delay(),
                _ => thread::yield_now(),
            }
        }
    }

    /// Forks in the middle of everything; the child reads, waits, and runs what was queued.
    fn forker(&'static self, random: &Random, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20 + random.below(20)));
            let guard = (random.below(2) == 0).then(|| self.domain.read());
            // SAFETY: the child runs only code that works after fork in a threaded process: glibc
            // keeps malloc usable, and what else it touches is what is being tested.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork failed");
            if pid == 0 {
                drop(guard);
                let code = i32::from(!self.is_right_in_child());
                // SAFETY: leaves the child at once, running nothing of the test harness.
                unsafe { libc::_exit(code) };
            }
            drop(guard);
            let mut status = 0;
            // SAFETY: waits for our own child (the handler restarts calls that it interrupts); the
            // status goes to a variable of ours.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!((waited, status), (pid, 0), "the child found something wrong, or died");
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_right_in_child(&self) -> bool {
        self.is_child.store(true, Ordering::Relaxed);
        self.violations.store(0, Ordering::Relaxed);
        (0..PLACES).for_each(|place| self.read(place, || ()));
        self.domain.synchronize_timeout(HANG) == Ok(true)
            && self.domain.barrier().is_ok()
            && self.violations.load(Ordering::Relaxed) == 0
    }
}

static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Poisons when it is dropped.
struct Retired(&'static World, &'static Object);

impl Drop for Retired {
    fn drop(&mut self) {
        self.0.poison(self.1);
    }
}

thread_local! {
    /// Reads once more when the thread ends.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

struct Last(&'static World);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.read(0, || ());
    }
}

/// Two readers, two updaters, a driver, one who measures ages, one who forks, and threads that come
/// and go.
fn torture(world: &'static World, rounds: usize, seed: u64) {
    let stop = &AtomicBool::new(false);
    let random = move |who: u64| Random::new(seed.wrapping_add(who));
    thread::scope(|scope| {
        let update = |who| scope.spawn(move || world.updater(&random(who), rounds));
        let updaters = [0, 1].map(update);
        for who in 2..4 {
            scope.spawn(move || {
                let random = random(who);
                while !stop.load(Ordering::Relaxed) {
                    world.reader(&random, 100);
                }
            });
        }
        scope.spawn(move || world.driver(&random(4), stop));
        scope.spawn(move || world.forker(&random(5), stop));
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                world.pass_time();
            }
        });
        scope.spawn(move || {
            for visit in (9..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let visitor = thread::spawn(move || {
                    LAST.set(Some(Last(world)));
                    world.reader(&random(visit), 20);
                });
                visitor.join().expect("a visitor");
            }
        });
        updaters.into_iter().for_each(|updater| updater.join().expect("an updater"));
        stop.store(true, Ordering::Relaxed);
    });
    world.domain.barrier().expect("outside");
}

#[test]
fn nothing_is_used_after_it_is_retired() {
    static WORLD: World = World::new(Domain::new("torture"));
    let rounds = 10_000 * number_from("GRACEPOINT_TORTURE").unwrap_or(1) as usize;
    let seed = seed();
    // So that it is known even if the test is killed for taking too long.
    eprintln!("GRACEPOINT_SEED={seed}");
    WORLD.fill();
    WORLD.domain.synchronize().expect("outside");
    let signals = Signals::read(&WORLD);
    torture(&WORLD, rounds, seed);
    drop(signals);
    eprintln!(
        "{} sections, {} objects retired, {} signals, {} forks, highest index {}",
        WORLD.sections.load(Ordering::Relaxed),
        WORLD.poisoned.load(Ordering::Relaxed),
        SIGNALS.load(Ordering::Relaxed),
        FORKS.load(Ordering::Relaxed),
        gracepoint_rcu::high_water(),
    );
    eprintln!("grace periods between removal and last use: {}", WORLD.ages());
    assert_eq!(WORLD.violations.load(Ordering::Relaxed), 0, "seed {seed}");
    assert_eq!(WORLD.poisoned.load(Ordering::Relaxed), 2 * rounds - shortfall(&WORLD, rounds));
    assert_eq!(WORLD.domain.pending_callbacks(), 0, "seed {seed}");
}

/// Rounds in which an updater found no free object. Every object is published, free or lost;
/// none may be lost.
fn shortfall(world: &World, rounds: usize) -> usize {
    let free = world.free.lock().expect("the free list").len();
    assert_eq!(free, OBJECTS - PLACES, "every object that was retired came back");
    let published = world.numbers.load(Ordering::Relaxed) as usize - 1 - PLACES;
    2 * rounds - published
}
