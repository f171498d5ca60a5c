//! Five thousand functions, switched while threads run them.

use crate::measure::row;
use gracepoint::{FunctionFilter, FunctionOps};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

macro_rules! ten {
    ($list:ident, $($name:ident)*) => {
        pub(crate) mod $list {
            $(
                #[inline(never)]
                pub(super) fn $name(x: u64) -> u64 {
                    // Each looks at a text of its own, so that none of them is merged with another.
                    std::hint::black_box(concat!(module_path!(), "::", stringify!($name)));
                    std::hint::black_box(x) + 1
                }
            )*
            pub(super) const ALL: &[fn(u64) -> u64] = &[$($name),*];
        }
    };
}

macro_rules! hundred {
    ($outer:ident: $($list:ident)*) => {
        pub(crate) mod $outer {
            $( ten!($list, a b c d e f g h i j); )*
            pub(super) const ALL: &[&[fn(u64) -> u64]] = &[$($list::ALL),*];
        }
    };
}

macro_rules! thousands {
    ($($outer:ident)*) => {
        $( hundred!($outer: l0 l1 l2 l3 l4 l5 l6 l7 l8 l9); )*
        const ALL: &[&[&[fn(u64) -> u64]]] = &[$($outer::ALL),*];
    };
}

thousands!(
    m00 m01 m02 m03 m04 m05 m06 m07 m08 m09 m10 m11 m12 m13 m14 m15 m16 m17 m18 m19 m20 m21 m22 m23 m24
    m25 m26 m27 m28 m29 m30 m31 m32 m33 m34 m35 m36 m37 m38 m39 m40 m41 m42 m43 m44 m45 m46 m47 m48 m49
);

/// Calls each once.
fn all(x: u64) -> u64 {
    ALL.iter().flat_map(|some| some.iter()).flat_map(|some| some.iter()).fold(x, |x, f| f(x))
}

/// How many there are for `toggle`.
fn count() -> usize {
    ALL.iter().flat_map(|some| some.iter()).map(|some| some.len()).sum()
}

pub(crate) fn toggle(rounds: usize) {
    let found = FunctionFilter::new("gracepoint_bench_functions::many::m*").find().expect("sleds");
    let over = AtomicBool::new(false);
    let (mut on, mut off) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    black_box(all(1));
                }
            });
        }
        for _ in 0..rounds {
            let ops = FunctionOps::on(&found).on_entry(|_| {});
            let begin = Instant::now();
            let ops = ops.register().expect("switched on");
            on.push(begin.elapsed().as_nanos() as f64);
            let begin = Instant::now();
            ops.unregister();
            off.push(begin.elapsed().as_nanos() as f64);
        }
        over.store(true, Relaxed);
    });
    println!("functions {} {}", found.len(), count());
    for (name, mut times) in [("on", on), ("off", off)] {
        times.sort_by(f64::total_cmp);
        row(name, (times[0], times[times.len() / 2]));
    }
}
