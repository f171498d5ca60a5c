//! Chunks of calls, many times over.

use std::time::Instant;

/// Minimum and median, nanoseconds for each of `calls`.
pub(crate) fn measure(rounds: usize, calls: u64, mut body: impl FnMut(u64)) -> (f64, f64) {
    let mut times: Vec<f64> = (0..rounds + rounds / 10 + 1)
        .map(|_| {
            let begin = Instant::now();
            body(calls);
            begin.elapsed().as_nanos() as f64 / calls as f64
        })
        .skip(rounds / 10 + 1)
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

pub(crate) fn row(name: &str, (min, median): (f64, f64)) {
    println!("{name} {min:.3} {median:.3}");
}
