//! Throttling: which hits of an event a session records.
//!
//! *Sampling* takes the first of each so many hits. *Rates* are kept by windows of coarse time (4 ms
//! fine on Linux): a word holds the window's number and how many events it has seen, and is changed
//! by compare-exchange, so that hits on other threads and in signal handlers count once. The first
//! event over the quota says so in the trace (`gp:throttle`), and the first one recorded after that
//! says how many were left out (`gp:unthrottle`). What no record tells yet lies in the arena's table
//! of what was throttled: fired = recorded + lost + throttled.
//!
//! The cost without limits is nothing: such sessions never come here.

use crate::clock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// What one recorded event costs, about, for `max_overhead`: nanoseconds, twice what the bench
/// measures, because a program's caches are not a benchmark's.
const COST_NS: u64 = 40;

/// The limits of one event in one session.
#[derive(Debug)]
pub(crate) struct Limit {
    /// One of so many; 0 and 1 for all.
    sample: u64,
    hits: AtomicU64,
    window_ns: u64,
    /// Events in a window; 0 for no limit.
    quota: AtomicU32,
    /// Number of the window (32 bits), whether it has been told that events are left out
    /// ([`THROTTLED`]), events recorded in it (31 bits).
    window: AtomicU64,
    /// Hits since the last look, for `adapt`.
    demand: AtomicU64,
}

/// What to do with a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Record,
    /// Record it, and say that the event is no longer throttled.
    RecordAndTell,
    Drop,
    /// Drop it, and say that the event is throttled.
    DropAndTell,
}

/// See `Limit::window`. A bit of its own, because the quota may change at any time.
const THROTTLED: u64 = 1 << 31;

/// Windows are so long, unless that is too short for one event.
const WINDOW_NS: u64 = 100_000_000;

impl Limit {
    /// At most `rate` per second (0: no limit) of one hit in `sample`.
    pub(crate) fn new(rate: u64, sample: u64) -> Limit {
        let window_ns = if rate != 0 && rate < 100 { 10 * WINDOW_NS } else { WINDOW_NS };
        Limit {
            sample,
            hits: AtomicU64::new(0),
            window_ns,
            quota: AtomicU32::new(quota(rate, window_ns)),
            window: AtomicU64::new(0),
            demand: AtomicU64::new(0),
        }
    }

    /// Events per second; 0 for no limit.
    pub(crate) fn rate(&self) -> u64 {
        u64::from(self.quota.load(Relaxed)) * (1_000_000_000 / self.window_ns)
    }

    /// Changes the rate.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.quota.store(quota(rate, self.window_ns), Relaxed);
    }

    /// Hits that passed sampling since the last call.
    pub(crate) fn take_demand(&self) -> u64 {
        self.demand.swap(0, Relaxed)
    }

    /// What to do with the hit of this moment.
    pub(crate) fn admit(&self) -> Verdict {
        self.admit_at(clock::coarse_ns())
    }

    fn admit_at(&self, now_ns: u64) -> Verdict {
        if self.sample > 1 && !self.hits.fetch_add(1, Relaxed).is_multiple_of(self.sample) {
            return Verdict::Drop;
        }
        self.demand.fetch_add(1, Relaxed);
        let quota = match self.quota.load(Relaxed) {
            0 if self.window.load(Relaxed) & THROTTLED == 0 => return Verdict::Record,
            0 => MOST_QUOTA, // the limit is lifted, and that is to be told
            quota => quota,
        };
        // Wraps after 13 years of windows; then one window is longer.
        let now = (now_ns / self.window_ns) & 0xffff_ffff;
        let mut word = self.window.load(Relaxed);
        loop {
            let seen = if word >> 32 == now { word & (THROTTLED - 1) } else { 0 };
            let throttled = word & THROTTLED != 0;
            let (next, verdict) = if seen < u64::from(quota) {
                let told = if throttled { Verdict::RecordAndTell } else { Verdict::Record };
                (now << 32 | (seen + 1), told)
            } else if !throttled {
                (word | THROTTLED, Verdict::DropAndTell)
            } else {
                return Verdict::Drop;
            };
            match self.window.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return verdict,
                Err(found) => word = found,
            }
        }
    }
}

/// Most events in a window, so that a count fits beside [`THROTTLED`].
const MOST_QUOTA: u32 = (THROTTLED - 1) as u32;

fn quota(rate: u64, window_ns: u64) -> u32 {
    if rate == 0 {
        return 0;
    }
    u32::try_from(rate * window_ns / 1_000_000_000).unwrap_or(MOST_QUOTA).clamp(1, MOST_QUOTA)
}

/// Shares out what `ppm` millionths of a CPU can record among events by their demand over
/// `elapsed_ns`, each of which keeps to `most` (0: no limit) as well; the rates, 0 for no limit.
pub(crate) fn shares(demand: &[u64], elapsed_ns: u64, ppm: u32, most: u64) -> Vec<u64> {
    let allowed = u64::from(ppm) * 1000 / COST_NS;
    let total: u64 = demand.iter().sum();
    let per_second = total.saturating_mul(1_000_000_000) / elapsed_ns.max(1);
    let share = |&events: &u64| {
        if per_second <= allowed {
            return most;
        }
        // An event that did not fire may begin to: it gets a part like any other.
        let part = events.max(total / demand.len().max(1) as u64 / 10 + 1);
        let rate = (u128::from(allowed) * u128::from(part) / u128::from(total.max(1))) as u64;
        let rate = rate.max(1);
        if most == 0 { rate } else { rate.min(most) }
    };
    demand.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(limit: &Limit, now_ns: u64, hits: u32) -> Vec<Verdict> {
        (0..hits).map(|_| limit.admit_at(now_ns)).collect()
    }

    #[test]
    fn one_of_so_many() {
        let limit = Limit::new(0, 3);
        let recorded = run(&limit, 0, 10).iter().filter(|v| **v == Verdict::Record).count();
        assert_eq!(recorded, 4);
    }

    #[test]
    fn so_many_in_a_window_and_both_ends_are_told() {
        use Verdict::{Drop, DropAndTell, Record, RecordAndTell};
        let limit = Limit::new(30, 0);
        assert_eq!(limit.rate(), 30);
        let first = run(&limit, 5_000_000_000, 33);
        assert!(first[..30].iter().all(|v| *v == Record));
        assert_eq!(first[30..], [DropAndTell, Drop, Drop]);
        assert_eq!(run(&limit, 6_000_000_000, 2), [RecordAndTell, Record]);
        assert_eq!(run(&limit, 7_000_000_000, 1), [Record], "it was not throttled again");
        assert_eq!(Limit::new(1_000_000, 0).rate(), 1_000_000);
        assert_eq!(Limit::new(1, 0).rate(), 1);
    }

    #[test]
    fn many_threads_pass_the_quota_once() {
        let limit = Limit::new(100_000, 0);
        let passed: usize = std::thread::scope(|scope| {
            let one = || run(&limit, 1, 8000).iter().filter(|v| **v == Verdict::Record).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 10_000);
    }

    #[test]
    fn a_quota_that_changes_within_a_window_is_told_too() {
        use Verdict::{Drop, DropAndTell, Record, RecordAndTell};
        let limit = Limit::new(1000, 0);
        assert!(run(&limit, 1, 50).iter().all(|v| *v == Record));
        limit.set_rate(100);
        assert_eq!(run(&limit, 2, 2), [DropAndTell, Drop], "40 too many already");
        limit.set_rate(600);
        assert_eq!(run(&limit, 3, 2), [RecordAndTell, Record]);
        limit.set_rate(100);
        assert_eq!(run(&limit, 4, 1), [DropAndTell]);
        limit.set_rate(0);
        assert_eq!(run(&limit, 5, 2), [RecordAndTell, Record], "lifted");
    }

    #[test]
    fn a_limit_on_overhead_lowers_the_rate_and_lifts_it_again() {
        // 1 % of a CPU is 250,000 events a second, 25,000 in a window.
        let (limit, mut now) = (Limit::new(0, 0), 1_000_000_000);
        let mut window = |hits| {
            now += WINDOW_NS;
            let recorded = |v: &&Verdict| matches!(v, Verdict::Record | Verdict::RecordAndTell);
            let recorded = run(&limit, now, hits).iter().filter(recorded).count();
            limit.set_rate(shares(&[limit.take_demand()], WINDOW_NS, 10_000, 0)[0]);
            recorded
        };
        assert_eq!(window(100_000), 100_000, "nobody has looked yet");
        assert_eq!(window(100_000), 25_000);
        assert_eq!(window(50_000), 25_000);
        assert_eq!(window(10_000), 10_000, "less than is allowed");
        assert_eq!(window(100_000), 100_000, "lifted");
        assert_eq!(window(100_000), 25_000);
    }

    #[test]
    fn overhead_is_shared_by_demand() {
        // 1 % of a CPU is 250,000 events a second.
        let rates = shares(&[90_000, 10_000, 0], 100_000_000, 10_000, 0);
        assert_eq!(rates[..2], [225_000, 25_000]);
        assert!(rates[2] > 0 && rates[2] < 25_000, "{rates:?}");
        assert_eq!(shares(&[100, 0], 100_000_000, 10_000, 0), [0, 0], "nothing to lower");
        assert_eq!(shares(&[90_000, 10_000], 100_000_000, 10_000, 50_000), [50_000, 25_000]);
    }
}
