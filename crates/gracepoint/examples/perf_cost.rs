//! Prints what it takes to open, disable and close perf events on sixty tracepoints, while two threads hit
//! them: `cargo run -p gracepoint --release --example perf_cost`. On Linux. (With two thousand, in a storm, and
//! beside the kernel's: `gracepoint-bench -- perf`.)
#![allow(clippy::print_stdout, reason = "a program speaks to its user")]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> Result<(), gracepoint::Error> {
    cost::run()
}

#[cfg(target_os = "linux")]
mod cost {
    use gracepoint::{Error, PerfAttr, PerfEvent, Tracer};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    const ROUNDS: usize = 1000;

    macro_rules! points {
        ($($a:ident)*) => { points!(@ [$($a)*] [$($a)*]); };
        (@ [$($a:ident)*] $all:tt) => {
            $(points!(@@ $a $all);)*
            const ALL: &[&[(fn(), fn() -> PerfAttr)]] = &[$($a::HIT),*];
        };
        (@@ $a:ident [$($b:ident)*]) => {
            mod $a {
                use gracepoint::PerfAttr;
                $(
                    #[derive(gracepoint::Event)]
                    #[allow(non_camel_case_types, reason = "a name from a list")]
                    pub(super) struct $b {
                        n: u32,
                    }
                )*
                pub(super) const HIT: &[(fn(), fn() -> PerfAttr)] =
                    &[$((|| gracepoint::trace!($b { n: 1 }), || PerfAttr::tracepoint::<$b>())),*];
            }
        };
    }

    points! { a b c d e f g h }

    fn points() -> impl Iterator<Item = &'static (fn(), fn() -> PerfAttr)> + Clone {
        ALL.iter().copied().flatten().take(60)
    }

    fn median(name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        println!("{name:<32} p50 {:>9.2?}  min {:>9.2?}", times[times.len() / 2], times[0]);
    }

    fn settle() {
        while Tracer::global().statistics().waiting_callbacks > 0 {
            std::thread::yield_now();
        }
    }

    fn timed(times: &mut Vec<Duration>, body: impl FnOnce()) {
        let begin = Instant::now();
        body();
        times.push(begin.elapsed());
    }

    pub(super) fn run() -> Result<(), Error> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        points().for_each(|(hit, _)| hit());
                    }
                });
            }
            let done = measure();
            over.store(true, Relaxed);
            done
        })
    }

    fn measure() -> Result<(), Error> {
        let [mut open, mut disable, mut close] = [const { Vec::new() }; 3];
        for (_, attr) in points().cycle().take(ROUNDS) {
            let begin = Instant::now();
            let handle = PerfEvent::open(attr())?;
            open.push(begin.elapsed());
            timed(&mut disable, || handle.disable());
            handle.enable()?;
            timed(&mut close, || drop(handle));
            settle();
        }
        median("open and enable", open);
        median("disable", disable);
        median("close", close);
        let [mut at_once, mut in_turn] = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS / 20 {
            let all =
                || points().map(|(_, attr)| PerfEvent::open(attr())).collect::<Result<Vec<_>, _>>();
            let handles = all()?;
            timed(&mut at_once, || PerfEvent::close_all(handles));
            settle();
            let handles = all()?;
            timed(&mut in_turn, || drop(handles));
            settle();
        }
        median("close 60 at once", at_once);
        median("close 60, one after the other", in_turn);
        Ok(())
    }
}
