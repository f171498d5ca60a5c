//! smoke
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
static IN: AtomicU64 = AtomicU64::new(0);
static OUT: AtomicU64 = AtomicU64::new(0);
mod work {
    #[inline(never)]
    pub(crate) fn leaf(x: u64) -> u64 { std::hint::black_box(x) + 1 }
    #[inline(never)]
    pub(crate) fn tail(x: u64) -> u64 { leaf(x + 1) }
}
fn main() {
    let ops = gracepoint::FunctionOps::new("gracepoint_demo_sleds::work::*").with_depth()
        .on_entry(|_| { IN.fetch_add(1, Relaxed); })
        .on_exit(|_| { OUT.fetch_add(1, Relaxed); })
        .register().unwrap();
    println!("{} functions", ops.functions());
    let t = std::time::Instant::now();
    let n = 10_000_000u64;
    let mut s = 0;
    for i in 0..n { s += work::leaf(i); }
    println!("{:.2} ns leaf both", t.elapsed().as_nanos() as f64 / n as f64);
    for _ in 0..1000 { s += work::tail(1); }
    println!("{} {} {s}", IN.load(Relaxed), OUT.load(Relaxed));
    ops.unregister();
    let t = std::time::Instant::now();
    for i in 0..n { s += work::leaf(i); }
    println!("{:.2} ns leaf off {s}", t.elapsed().as_nanos() as f64 / n as f64);
    println!("{} {} missed {}", IN.load(Relaxed), OUT.load(Relaxed), gracepoint::missed_function_hits());
}
