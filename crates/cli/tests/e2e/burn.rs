//! A program whose CPU time is known: functions that burn it in known parts, inside spans, and sleep.

use std::hint::black_box;
use std::time::Duration;

/// A round of burning.
#[derive(gracepoint::Event)]
#[event(name = "burn:round")]
struct Round {
    number: u64,
}

/// A pause between two rounds.
#[derive(gracepoint::Event)]
#[event(name = "burn:nap")]
struct Nap {
    number: u64,
}

/// How much work is one percent of a round.
const PERCENT: u64 = 4_000;

macro_rules! burners {
    ($($name:ident $percent:literal)*) => { $(
        /// Burns this many percent of a round. Each has a loop of its own, in which nothing is called, however it
        /// was compiled: the place alone tells which it is, with or without frame pointers.
        #[inline(never)]
        pub(crate) fn $name(seed: u64) -> u64 {
            let (mut x, mut n) = (seed, 0);
            while n < $percent * PERCENT {
                x = x / 3 + n;
                n += 1;
            }
            x
        }
    )* };
}

burners! { burn_sixty 60 burn_thirty 30 burn_ten 10 }

/// So many rounds, each in a span, with a nap after each tenth.
pub(crate) fn burn(rounds: u64) {
    let mut x = 1;
    for number in 0..rounds {
        {
            let _span = gracepoint::span!(Round { number });
            x = burn_ten(burn_thirty(burn_sixty(x)));
        }
        if number % 10 == 0 {
            let _span = gracepoint::span!(Nap { number });
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    black_box(x);
}
