//! Measuring: rows in turn, in short chunks, and of each the minimum and the median.
//!
//! The minimum is what the code costs when nothing disturbs it, the median what it costs on this
//! machine at this time. Neither is an average, because a disturbed chunk (an interrupt, the
//! hypervisor) says nothing about the code.

use std::sync::OnceLock;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Something to be measured.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    /// Iterations of a chunk. A chunk should take some microseconds, so that reading the clock
    /// (about 30 ns) does not count, and few chunks are interrupted.
    pub(crate) chunk: u64,
    /// Operations of one iteration, by which the time is divided.
    pub(crate) operations: u64,
    /// Runs that many iterations. The loop is inside, so that the compiler sees it whole.
    pub(crate) run: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(name: &'static str, chunk: u64, run: impl FnMut(u64) + 'a) -> Row<'a> {
        Row { name, chunk, operations: 1, run: Box::new(run) }
    }

    /// The same row, of which each iteration counts as several operations.
    pub(crate) fn of(self, operations: u64) -> Row<'a> {
        Row { operations, ..self }
    }
}

/// The cost of one operation of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) min_ns: f64,
    pub(crate) median_ns: f64,
}

/// Measures all rows, `rounds` times each in turn.
pub(crate) fn measure(rows: &mut [Row<'_>], rounds: usize) -> Vec<Cost> {
    let mut times: Vec<Vec<f64>> = rows.iter().map(|_| Vec::with_capacity(rounds)).collect();
    // The first tenth warms up caches, predictors and the CPU's clock, and is thrown away.
    let warm_up = rounds / 10 + 1;
    for round in 0..warm_up + rounds {
        for (row, times) in rows.iter_mut().zip(&mut times) {
            let begin = Instant::now();
            (row.run)(row.chunk);
            let took = begin.elapsed().as_nanos() as f64;
            if round >= warm_up {
                times.push(took / (row.chunk * row.operations) as f64);
            }
        }
    }
    rows.iter().zip(times).map(|(row, times)| summary(row.name, times)).collect()
}

/// Minimum and median of a row's times.
pub(crate) fn summary(name: &'static str, mut times: Vec<f64>) -> Cost {
    times.sort_by(f64::total_cmp);
    let at = |i: usize| times.get(i).copied().unwrap_or(f64::NAN);
    Cost { name, min_ns: at(0), median_ns: at(times.len() / 2) }
}

/// Pins the calling thread to the last CPU that the process may use (the first one has most of the
/// machine's interrupts). Threads and processes started before stay free.
pub(crate) fn pin() -> rustix::io::Result<usize> {
    pin_to(|cpus| cpus.last())
}

/// Pins the calling thread to a CPU beside the one that [`pin`] takes, if there are two.
pub(crate) fn pin_beside() -> rustix::io::Result<usize> {
    pin_to(|cpus| cpus.iter().rev().nth(1).or(cpus.last()))
}

fn pin_to(choose: impl Fn(&[usize]) -> Option<&usize>) -> rustix::io::Result<usize> {
    // As it was before anybody pinned: what is allowed now may be one CPU, by an earlier call.
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    let now = sched_getaffinity(None)?;
    let allowed = ALLOWED.get_or_init(|| now);
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let cpu = choose(&cpus).copied().unwrap_or(0);
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    Ok(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_and_median() {
        let cost = summary("x", vec![3.0, 1.0, 9.0, 2.0, 4.0]);
        assert_eq!(cost, Cost { name: "x", min_ns: 1.0, median_ns: 3.0 });
    }

    #[test]
    fn rows_take_turns() {
        let seen = &std::cell::RefCell::new(String::new());
        let row = |name: &'static str| {
            Row::new(name, 3, move |n| {
                assert_eq!(n, 3);
                seen.borrow_mut().push_str(name);
            })
        };
        let costs = measure(&mut [row("a"), row("b").of(2)], 2);
        assert_eq!(seen.borrow().as_str(), "ababab");
        assert_eq!(costs.len(), 2);
    }
}
