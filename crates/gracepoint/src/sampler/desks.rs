//! Memory for handlers: as much as each needs while it runs, and as many as can run at once.

use crate::arch::stack::SWITCHES;
use crate::sys;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Handlers that have memory at once. They run for microseconds: more than processors at once are rare.
const MOST: u32 = 64;
/// Of a stack, in bytes. A sample takes some 2 KiB of it, and a thread's first read section a few more; four times as
/// much where nothing is optimised.
const STACK: usize = 28 << 10;
/// Below each stack.
const GUARD: usize = 4 << 10;

/// The memory of all of them.
pub(crate) struct Desks {
    memory: sys::Mapping,
    words: usize,
    /// A bit for each that is in use.
    taken: AtomicU64,
}

/// One that is in use, given back on drop.
pub(crate) struct Desk<'a> {
    desks: &'a Desks,
    number: u32,
}

impl Desks {
    /// Each of so many words.
    pub(crate) fn new(words: usize) -> io::Result<Desks> {
        let memory = sys::Mapping::wiped_on_fork(MOST as usize * words * 8)?;
        Ok(Desks { memory, words, taken: AtomicU64::new(0) })
    }

    /// Stacks: who goes beyond his own faults, and spoils nobody else's.
    pub(crate) fn stacks() -> io::Result<Desks> {
        let desks = Desks::new((GUARD + STACK) / 8)?;
        // Where no handler goes to them (and pages may be larger) they are memory that nobody touches.
        let used = if SWITCHES { MOST as usize } else { 0 };
        for number in 0..used {
            let start = number * (GUARD + STACK);
            desks.memory.forbid(start..start + GUARD)?;
        }
        Ok(desks)
    }

    /// In a forked child, which has none of the threads that were in handlers.
    pub(crate) fn child_after_fork(&self) {
        self.taken.store(0, Relaxed);
    }

    /// One that nobody has, if there is one. Neither waits nor allocates; fit for signal handlers.
    pub(crate) fn take(&self) -> Option<Desk<'_>> {
        let mut taken = self.taken.load(Relaxed);
        loop {
            let number = taken.trailing_ones();
            if number >= MOST {
                return None;
            }
            // Acquire: pairs with the release in `drop`. What its last user did is done.
            let bit = 1 << number;
            match self.taken.compare_exchange_weak(taken, taken | bit, Acquire, Relaxed) {
                Ok(_) => return Some(Desk { desks: self, number }),
                Err(now) => taken = now,
            }
        }
    }
}

impl Desk<'_> {
    /// Where a stack begins that has all of its memory.
    pub(crate) fn top(&mut self) -> *mut u8 {
        let Desks { memory, words, .. } = self.desks;
        memory.base().wrapping_add((self.number as usize + 1) * words * 8)
    }

    /// Its memory.
    pub(crate) fn words(&mut self) -> &mut [u64] {
        let Desks { memory, words, .. } = self.desks;
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let base = memory.base().cast::<u64>();
        // SAFETY: the mapping has room for `MOST` times `words` words, of which this desk's are nobody
        // else's while its bit is set; any bits are a number.
        unsafe { std::slice::from_raw_parts_mut(base.add(self.number as usize * words), *words) }
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `take`.
        self.desks.taken.fetch_and(!(1 << self.number), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_desk_is_one_handlers_alone() {
        let desks = Desks::new(100).unwrap();
        let mut all: Vec<_> = std::iter::from_fn(|| desks.take()).collect();
        assert_eq!(all.len(), MOST as usize);
        for (n, desk) in (0..).zip(&mut all) {
            desk.words().fill(n);
        }
        for (n, desk) in (0..).zip(&mut all) {
            assert!(desk.words().len() == 100 && desk.words().iter().all(|word| *word == n));
        }
        drop(all.swap_remove(7));
        assert_eq!(desks.take().unwrap().number, 7);
    }
}
