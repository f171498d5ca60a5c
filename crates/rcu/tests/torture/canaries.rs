//! Domains that are wrong in one thing, and whether the oracle notices on this machine.
//!
//! A *duel*: readers that look as closely as they can and an updater that does nothing but remove and poison.
//!
//! What a missing barrier leaves open is as long as an increment stays in its processor's store buffer: some
//! nanoseconds, unless the buffer is full of stores that miss the cache, which leave it in order. So readers
//! store to far memory before they enter.

use crate::delays::{Random, number_from, seed};
use crate::world::World;
use gracepoint_rcu::{Canary, Domain, Strategy, strategy};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

/// Removals in one run.
const REMOVALS: usize = 20_000;
/// Runs until one that must be caught is; the first is nearly always enough.
const MOST_RUNS: usize = 2_000;
/// Runs of what need not be caught here, and of the engine as it ships.
const RUNS: usize = 5;

/// More than fits into a cache, in words of which each is in a line of its own.
const FAR: usize = 64 << 20;
const LINE: usize = 64;
/// About as many stores as a store buffer holds before the processor waits for it.
const STORES: usize = 24;

/// Until `REMOVALS` or the first violation; how many removals.
fn duel(world: &'static World, readers: u64, far: &[AtomicU8], seed: u64) -> usize {
    world.fill();
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for who in 0..readers {
            scope.spawn(move || {
                let random = Random::new(seed + who);
                while !stop.load(Ordering::Relaxed) {
                    // Short ones, and some that last as long as a heavy barrier.
                    let most = if random.below(4) == 0 { 3_000 } else { 200 };
                    let lines = [(); STORES].map(|()| random.below((FAR / LINE) as u64) as usize);
                    lines.iter().for_each(|line| far[line * LINE].store(1, Ordering::Relaxed));
                    world.read(0, || random.spin(most));
                }
            });
        }
        let caught = || world.violations.load(Ordering::Relaxed) != 0;
        let removals = (1..=REMOVALS).find(|_| {
            let old = world.replace(0, world.fresh().expect("an object"));
            world.pass_time();
            world.poison(old);
            caught()
        });
        stop.store(true, Ordering::Relaxed);
        removals.unwrap_or(REMOVALS)
    })
}

/// Removals until a violation, if there was one.
fn runs(canary: Canary, most: usize) -> Result<usize, usize> {
    // SAFETY: what it fails to protect is a pool that is never freed.
    let domain = unsafe { Domain::new_canary("torture, canary", canary) };
    let world: &'static World = Box::leak(Box::new(World::new(domain)));
    let far: Vec<AtomicU8> = std::iter::repeat_with(|| AtomicU8::new(0)).take(FAR).collect();
    // A section of one reader is made up for by one of another, where that is what is wrong.
    let readers = if canary == Canary::LocksFirst { 3 } else { 1 };
    let mut removals = 0;
    for run in 0..most {
        removals += duel(world, readers, &far, seed() + run as u64);
        if world.violations.load(Ordering::Relaxed) != 0 {
            return Ok(removals);
        }
    }
    Err(removals)
}

/// Whether this machine must show what goes wrong.
fn is_seen_here(canary: Canary) -> bool {
    let several = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    match canary {
        Canary::None => false,
        Canary::NeverWaits | Canary::OneRank => true,
        // Where readers fence, their fences and the updater's exchanges are enough on x86, and between
        // the halves of a scan there is no time for a section to begin and end.
        Canary::LocksFirst | Canary::NoHeavyBarrier | Canary::FenceForMembarrier => {
            several && strategy() == Strategy::Membarrier
        }
    }
}

#[test]
fn canaries_are_caught() {
    let longer = number_from("GRACEPOINT_TORTURE").unwrap_or(1) as usize;
    let all = [
        Canary::NeverWaits,
        Canary::OneRank,
        Canary::LocksFirst,
        Canary::NoHeavyBarrier,
        Canary::FenceForMembarrier,
        Canary::None,
    ];
    let mut missed = Vec::new();
    for canary in all {
        let must = is_seen_here(canary);
        let name = format!("{canary:?}");
        match runs(canary, if must { MOST_RUNS } else { RUNS * longer }) {
            Ok(removals) => eprintln!("{name:<20} caught, after {removals} removals"),
            Err(removals) if must => missed.push(format!("{name}: nothing in {removals} removals")),
            Err(removals) => eprintln!("{name:<20} nothing in {removals} removals"),
        }
        assert!(canary != Canary::None || missed.is_empty(), "the oracle is blind: {missed:?}");
    }
}
