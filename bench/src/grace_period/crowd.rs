//! 64 reader threads on the machine's processors, with and without somebody who asks for grace periods all
//! the time: whether a reader ever waits for an updater.
//!
//! Most of the 64 are not running at any time, so the longest sections are as long as a turn of the
//! scheduler, with an updater or without. What tells is how often a reader gave up its processor: the
//! kernel counts that (`voluntary_ctxt_switches`), and it must be never.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{DOMAIN, Engine, OURS, offline};
use crate::sections::Section;
use crate::table::Goal;

const READERS: usize = 64;
const TURNS: usize = 3;

/// Counts of times in nanoseconds, to an eighth.
struct Histogram {
    counts: Vec<u64>,
    longest: u64,
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { counts: vec![0; 64 * 8], longest: 0 }
    }

    fn add(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.longest = self.longest.max(ns);
    }

    fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, more)| *all += more);
        self.longest = self.longest.max(other.longest);
    }

    /// The least value of the bucket that holds the quantile.
    fn quantile(&self, q: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut left = (total as f64 * q) as u64;
        for (number, count) in self.counts.iter().enumerate() {
            if left < *count {
                return lower_bound(number);
            }
            left -= count;
        }
        self.longest
    }
}

/// The power of two and the three bits below it.
fn bucket(ns: u64) -> usize {
    if ns < 8 {
        return ns as usize;
    }
    let power = ns.ilog2();
    (power as usize - 2) * 8 + (ns >> (power - 3) & 7) as usize
}

fn lower_bound(bucket: usize) -> u64 {
    match bucket {
        0..8 => bucket as u64,
        _ => (8 + bucket as u64 % 8) << (bucket / 8 - 1),
    }
}

/// How often this thread has given up its processor of its own will. 0 where there is no `/proc`.
fn voluntary_switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// One crowd: times of pairs, how often readers gave up their processor, and grace periods.
struct Crowd {
    times: Histogram,
    switches: u64,
    grace_periods: u64,
}

fn crowd(number: usize, updating: bool, how_long: Duration) -> Crowd {
    let ready = Barrier::new(READERS + 1);
    let stop = AtomicBool::new(false);
    let switches = AtomicU64::new(0);
    let mut all = Crowd { times: Histogram::new(), switches: 0, grace_periods: 0 };
    thread::scope(|scope| {
        let reader = || {
            let engines = Engine::all(&DOMAIN);
            let engine = &engines[number];
            let mut times = Histogram::new();
            engine.read(1);
            offline(&engines, || ready.wait());
            let before = voluntary_switches();
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let begin = Instant::now();
                    engine.read(1);
                    times.add(begin.elapsed().as_nanos() as u64);
                }
            }
            switches.fetch_add(voluntary_switches() - before, Ordering::Relaxed);
            times
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        ready.wait();
        let begin = Instant::now();
        let engines = Engine::all(&DOMAIN);
        while updating && begin.elapsed() < how_long {
            engines[number].synchronize();
            all.grace_periods += 1;
        }
        thread::sleep(how_long.saturating_sub(begin.elapsed()));
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            all.times.merge(&reader.join().expect("a reader"));
        }
    });
    all.switches = switches.into_inner();
    all
}

pub(crate) fn run(rounds: usize) -> Section {
    let how_long = Duration::from_millis(rounds.clamp(10, 100) as u64 * 5);
    let names: Vec<String> =
        super::on_a_thread(|| Engine::all(&DOMAIN).iter().map(Engine::name).collect());
    let mut section = Section {
        title: "64 readers: one pair, with clock",
        unit: "ns",
        columns: &["p50", "p99.9", "max", "waits", "grace periods"],
        rows: Vec::new(),
        notes: vec!["waits: how often all readers together gave up their processor".to_owned()],
        goals: Vec::new(),
    };
    // qsbr and bp are read as memb is.
    for (number, name) in names.iter().enumerate().take(2) {
        let mut both = [false, true].map(|updating| (updating, Vec::new()));
        for _ in 0..TURNS {
            for (updating, crowds) in &mut both {
                crowds.push(crowd(number, *updating, how_long));
            }
        }
        for (updating, crowds) in both {
            let with = if updating { "an updater" } else { "no updater" };
            section.rows.push((format!("{name}, {with}"), row(&crowds)));
        }
    }
    let waits = section.value(&format!("{OURS}, an updater"), "waits").unwrap_or(f64::NAN);
    let what = format!("no reader waits for an updater: {waits} waits");
    section.goals.push(Goal { what, met: waits == 0.0 });
    section
}

fn row(crowds: &[Crowd]) -> Vec<f64> {
    let mut times = Histogram::new();
    crowds.iter().for_each(|crowd| times.merge(&crowd.times));
    let switches: u64 = crowds.iter().map(|crowd| crowd.switches).sum();
    let grace_periods: u64 = crowds.iter().map(|crowd| crowd.grace_periods).sum();
    let row = [times.quantile(0.5), times.quantile(0.999), times.longest, switches, grace_periods];
    row.map(|value| value as f64).to_vec()
}

#[test]
fn buckets_hold_their_lower_bounds() {
    for number in 0..400 {
        assert_eq!(bucket(lower_bound(number)), number);
    }
    let mut times = Histogram::new();
    (1..=1000).for_each(|ns| times.add(ns));
    assert_eq!((times.quantile(0.5), times.longest), (480, 1000));
}

#[test]
fn a_sleep_is_a_voluntary_switch() {
    let before = voluntary_switches();
    thread::sleep(Duration::from_millis(1));
    assert!(voluntary_switches() > before);
}
