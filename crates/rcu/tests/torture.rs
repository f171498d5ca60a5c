//! Readers, updaters, thread churn and signals against an oracle that notices use after retire.
//!
//! Objects live in a pool that is never freed, so that a wrong engine shows as a
//! *violation* and not as undefined behaviour: retiring an object ends in poisoning it, and a reader
//! that sees a poisoned object, or sees its object change under it, reports it. The twin, a
//! domain that never waits, must be caught.
//!
//! `GRACEPOINT_TORTURE=50` makes it fifty times as long; `GRACEPOINT_SEED` repeats a seed (the
//! choices, not the interleaving). The seed is printed when it fails.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "the seed must reach whoever reads a failure")]

use gracepoint_rcu::{Cookie, Domain, Progress};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread;

const OBJECTS: usize = 4096;
const PLACES: usize = 8;
const POISON: u64 = 0xdead_dead_dead_dead;

/// An object is alive under a number of its own, or poisoned.
struct Object(AtomicU64);

/// A domain, what it protects, and what was seen.
struct World {
    domain: Domain,
    objects: [Object; OBJECTS],
    places: [AtomicPtr<Object>; PLACES],
    free: Mutex<Vec<usize>>,
    numbers: AtomicU64,
    violations: AtomicUsize,
    sections: AtomicUsize,
    poisoned: AtomicUsize,
}

/// xorshift64*: small, and repeatable from its seed.
struct Random(Cell<u64>);

impl Random {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

impl World {
    const fn new(domain: Domain) -> Self {
        Self {
            domain,
            objects: [const { Object(AtomicU64::new(POISON)) }; OBJECTS],
            places: [const { AtomicPtr::new(std::ptr::null_mut()) }; PLACES],
            free: Mutex::new(Vec::new()),
            numbers: AtomicU64::new(1),
            violations: AtomicUsize::new(0),
            sections: AtomicUsize::new(0),
            poisoned: AtomicUsize::new(0),
        }
    }

    fn fill(&self) {
        self.free.lock().expect("the free list").extend(0..OBJECTS);
        for place in &self.places {
            place.store(self.fresh().expect("an object"), Ordering::Release);
        }
    }

    fn fresh(&self) -> Option<*mut Object> {
        let index = self.free.lock().expect("the free list").pop()?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.objects[index].0.store(number, Ordering::Relaxed);
        Some(std::ptr::from_ref(&self.objects[index]).cast_mut())
    }

    /// What `free` is to real memory.
    fn poison(&self, object: &Object) {
        object.0.store(POISON, Ordering::Relaxed);
        self.poisoned.fetch_add(1, Ordering::Relaxed);
        let offset = std::ptr::from_ref(object).addr() - self.objects.as_ptr().addr();
        self.free.lock().expect("the free list").push(offset / size_of::<Object>());
    }

    fn object_at(&self, place: usize) -> &Object {
        // SAFETY: places hold addresses of `self.objects`, which are never freed; only
        // their contents tell whether they are alive.
        unsafe { &*self.places[place].load(Ordering::Acquire) }
    }

    /// One section: what it finds must be alive and stay the same.
    fn read(&self, place: usize, linger: u64) {
        let guard = self.domain.read();
        let object = self.object_at(place);
        let before = object.0.load(Ordering::Relaxed);
        for _ in 0..linger {
            std::hint::spin_loop();
        }
        let after = object.0.load(Ordering::Relaxed);
        drop(guard);
        if before == POISON || after != before {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sections that nest, and that end in the order in which they began.
    fn read_overlapping(&self, random: &Random) {
        let place = random.below(PLACES as u64) as usize;
        let first = self.domain.read();
        let a = self.object_at(place);
        let number = a.0.load(Ordering::Relaxed);
        let second = self.domain.read();
        let b = self.object_at(place);
        let later = b.0.load(Ordering::Relaxed);
        self.read(place, random.below(20));
        let changed = a.0.load(Ordering::Relaxed) != number;
        drop(first);
        for _ in 0..random.below(50) {
            std::hint::spin_loop();
        }
        let changed = changed || b.0.load(Ordering::Relaxed) != later;
        drop(second);
        if changed || number == POISON || later == POISON {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reader(&self, random: &Random, rounds: usize) {
        for _ in 0..rounds {
            match random.below(8) {
                0 => self.read_overlapping(random),
                1 => {
                    // A thread that is switched out inside its section.
                    let guard = self.domain.read();
                    thread::yield_now();
                    drop(guard);
                }
                _ => self.read(random.below(PLACES as u64) as usize, random.below(100)),
            }
            self.sections.fetch_add(1, Ordering::Relaxed);
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
            let place = random.below(PLACES as u64) as usize;
            let old = self.places[place].swap(new, Ordering::AcqRel);
            // SAFETY: as in `object_at`.
            let old: &'static Object = unsafe { &*old };
            match random.below(5) {
                0 => {
                    self.domain.synchronize().expect("outside");
                    self.poison(old);
                }
                1 => {
                    // From inside a section, as a Drop might.
                    let _guard = self.domain.read();
                    self.domain.call(move || self.poison(old));
                }
                2 => polled.push((self.domain.start_poll(), old)),
                3 => self.domain.retire(Retired(self, old)),
                _ => self.domain.call(move || self.poison(old)),
            }
            if random.below(4) == 0 {
                self.domain.drive();
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
}

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
        self.0.read(0, 10);
    }
}

/// Which world signal handlers read.
static SIGNALLED: AtomicPtr<World> = AtomicPtr::new(std::ptr::null_mut());
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_signal: libc::c_int) {
    // SAFETY: null or a static world.
    if let Some(world) = unsafe { SIGNALLED.load(Ordering::Acquire).as_ref() } {
        world.read(SIGNALS.fetch_add(1, Ordering::Relaxed) % PLACES, 30);
    }
}

/// A signal every few hundred microseconds, to whichever thread runs.
fn signals(on: bool) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: if on { 300 } else { 0 } };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the handler only does what a handler may (it reads, which is being tested); the
    // structures are fully initialised and live during the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()), 0);
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seed() -> u64 {
    number_from("GRACEPOINT_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64) | 1
    })
}

/// Two readers, two updaters, a driver, and threads that come and go.
fn torture(world: &'static World, rounds: usize, seed: u64) {
    world.fill();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let random = move |who: u64| Random(Cell::new(seed.wrapping_mul(who + 1) | 1));
        let updaters: Vec<_> =
            (0..2).map(|who| scope.spawn(move || world.updater(&random(who), rounds))).collect();
        for who in 2..4 {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    world.reader(&random(who), 100);
                }
            });
        }
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match world.domain.drive() {
                    Progress::Advanced => {}
                    _ => thread::yield_now(),
                }
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let visitor = thread::spawn(move || {
                    LAST.set(Some(Last(world)));
                    world.reader(&random(9), 20);
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
    let rounds = 40_000 * number_from("GRACEPOINT_TORTURE").unwrap_or(1) as usize;
    let seed = seed();
    SIGNALLED.store(std::ptr::from_ref(&WORLD).cast_mut(), Ordering::Release);
    WORLD.domain.synchronize().expect("outside");
    // Handlers may only read once there is something in the places.
    let on = Cell::new(false);
    thread::scope(|scope| {
        let run = scope.spawn(|| torture(&WORLD, rounds, seed));
        while !run.is_finished() {
            let filled = WORLD.places.iter().all(|place| !place.load(Ordering::Acquire).is_null());
            if filled && !on.replace(true) {
                signals(true);
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    signals(false);
    SIGNALLED.store(std::ptr::null_mut(), Ordering::Release);
    eprintln!(
        "seed {seed}: {} sections, {} objects retired, {} signals, highest index {}",
        WORLD.sections.load(Ordering::Relaxed),
        WORLD.poisoned.load(Ordering::Relaxed),
        SIGNALS.load(Ordering::Relaxed),
        gracepoint_rcu::high_water(),
    );
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

#[test]
fn a_domain_that_never_waits_is_caught() {
    // SAFETY: what it fails to protect is a pool that is never freed.
    static WORLD: World =
        World::new(unsafe { Domain::new_that_never_waits("torture, never waits") });
    let seed = seed();
    // One run is nearly always enough.
    for run in 1..=50 {
        torture(&WORLD, 20_000, seed.wrapping_add(run));
        let seen = WORLD.violations.load(Ordering::Relaxed);
        if seen != 0 {
            eprintln!("the twin was caught {seen} times in run {run}");
            return;
        }
        WORLD.free.lock().expect("the free list").clear();
    }
    panic!("the oracle never noticed, so the other test proves nothing; seed {seed}");
}
